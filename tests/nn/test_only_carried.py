"""A state that no output comes from is still carried, whichever Program computes it; found by random cells (tests/fuzz)."""

from __future__ import annotations

import torch

import lrdsl as lr
from lrdsl import t


@lr.cell
def apart(x: lr.Input, h: lr.State, k: lr.State, U: lr.Affine):
    """h needs a map of a line, which is computed after what is returned."""
    h[t] = lr.sigmoid(x[t]) * h[t - 1] + U(lr.tanh(x[t] + 1))
    k[t] = 0.5 * k[t - 1] + x[t]
    return k[t]


def test_it_is_carried_and_has_gradients(backend: str) -> None:
    layer, x = lr.RNN(apart, 2, 2, batch_first=True), torch.randn(3, 4, 2, requires_grad=True)
    weight, bias = layer.get_parameter("layers.0.U.weight"), layer.get_parameter("layers.0.U.bias")
    _, (h_n, k_n) = layer(x)
    h = k = torch.zeros(3, 2)
    for x_t in x.unbind(1):
        h = torch.sigmoid(x_t) * h + torch.tanh(x_t + 1) @ weight.T + bias
        k = 0.5 * k + x_t
    torch.testing.assert_close(h_n[0], h)
    torch.testing.assert_close(k_n[0], k)
    found, want = (torch.autograd.grad(v.square().sum(), (x, weight, bias)) for v in (h_n[0], h))
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b)
