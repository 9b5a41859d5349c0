"""What the tests of this directory share: a layer in both directions against its truth, and as one sequence, chunks, steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import lrdsl as lr
from tests.nn.compare import assert_close, gradients, leaf, parameters

B, T, I, H = 2, 6, 3, 4
# Two boundaries in a row, and one before the first step, which changes nothing.
RESET = torch.tensor([[False, False, True, True, False, False], [True, False, False, False, False, True]])

# Of x (B, T, …), parameters, c0, reset, reverse; gives h and c_last.
Truth = Callable[[Tensor, Mapping[str, Tensor], Tensor | None, Tensor | None, bool], tuple[Tensor, Tensor]]


def check_both_ways(cell: lr.Cell, size: int, truth: Truth, given: bool, resets: bool) -> None:
    """Values, h_n and all gradients of a bidirectional layer on x (B, T, size)."""
    layer = lr.RNN(cell, size, H, batch_first=True, bidirectional=True)
    x, h_0, reset = leaf(B, T, size), leaf(2, B, H) if given else None, RESET if resets else None
    y, h_n = layer(x, h_0, reset=reset)
    ways = [truth(x, parameters(layer, prefix), None if h_0 is None else h_0[k], reset, bool(k))
            for k, prefix in enumerate(("layers.0.", "layers.0.reverse."))]
    want = [torch.cat([h for h, _ in ways], 2), torch.stack([last for _, last in ways])]
    assert_close((y, h_n), want)
    leaves = [x, *layer.parameters(), *([h_0] if h_0 is not None else [])]
    assert_close(gradients((y, h_n), leaves), gradients(want, leaves), 10)


def check_two_layers(cell: lr.Cell, size: int, truth: Truth) -> None:
    """Time comes first unless batch_first; the second layer reads the first one's output."""
    layer = lr.RNN(cell, size, H, num_layers=2)
    x, h_0 = leaf(T, B, size), leaf(2, B, H)
    y, h_n = layer(x, h_0, reset=RESET.T)
    below, first = truth(x.transpose(0, 1), parameters(layer), h_0[0], RESET, False)
    above, second = truth(below, parameters(layer, "layers.1."), h_0[1], RESET, False)
    want = [above.transpose(0, 1), torch.stack([first, second])]
    assert_close((y, h_n), want)
    leaves = [x, h_0, *layer.parameters()]
    assert_close(gradients((y, h_n), leaves), gradients(want, leaves), 10)


def check_whole_is_chunked_is_stepped(cell: lr.Cell, size: int) -> lr.Carry:
    """Values, gradients and what is left, for two layers with boundaries; gives the Carry after the last step."""
    layer = lr.RNN(cell, size, H, num_layers=2, batch_first=True)
    x, h_0 = leaf(B, T, size), leaf(2, B, H)
    after: lr.Carry
    whole, after = layer(x, h_0, reset=RESET, return_state=True)
    leaves = [x, h_0, *layer.parameters()]
    expected = gradients((whole, *after.now.values()), leaves)
    for chunks in (range(1, T + 1), (3, 4, 6)):
        carry: Any = h_0
        parts, start = [], 0
        for end in chunks:
            if end == start + 1:
                y, carry = layer.step(x[:, start], carry, reset=RESET[:, start])
                parts.append(y[:, None])
            else:
                y, carry = layer(x[:, start:end], carry, reset=RESET[:, start:end], return_state=True)
                parts.append(y)
            start = end
        assert_close((torch.cat(parts, 1), *carry.now.values()), (whole, *after.now.values()))
        assert_close(gradients((torch.cat(parts, 1), *carry.now.values()), leaves), expected, 10)
    return after


def set_map(layer: lr.RNN, name: str, bias: float) -> None:
    """A gate that does not look at x: sigmoid(800) is 1 and sigmoid(-800) is 0, exactly."""
    params = parameters(layer)
    with torch.no_grad():
        params[f"{name}.weight"].zero_()
        params[f"{name}.bias"].fill_(bias)


def influence(layer: lr.RNN, size: int, reset: Tensor | None = None) -> Tensor:
    """bool (T, T): whether y[t] depends on x[s], by the gradient of a mixture of its channels; reset (T,)."""
    x = leaf(T, size)
    mixed = layer(x, reset=reset)[0] @ torch.randn(H)
    return torch.stack([torch.autograd.grad(y, x, retain_graph=True)[0].any(1) for y in mixed])


def check_nan_stays_behind(cell: lr.Cell, size: int) -> None:
    """Beyond a boundary, values and gradients are the same bits whatever stands before it."""
    layer, clean = lr.RNN(cell, size, H, batch_first=True), torch.randn(B, T, size)
    found = []
    for before in (torch.nan, 0.5):
        x = clean.clone()
        x[0, :3] = before
        x.requires_grad_()
        y, h_n = layer(x, reset=RESET)
        found.append((y[0, 3:], h_n, *torch.autograd.grad(y[0, 3:].square().sum(), x)))
    (y, h_n, grad), (y_clean, h_clean, grad_clean) = found
    assert torch.equal(y, y_clean) and torch.equal(h_n, h_clean) and torch.equal(grad[:, 3:], grad_clean[:, 3:])
    assert y.isfinite().all() and grad[0, 3:].all()
