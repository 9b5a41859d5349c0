"""Tensors are read where they lie, and empty ones are tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import lrdsl as lr
from lrdsl.nn.launch import Launcher
from tests.nn.cells import FUNCTIONS, MODULES
from tests.nn.compare import as_tuple, assert_close, leaf

B, T, C = 3, 5, 4
COPIES = ("clone", "copy", "contiguous", "constant_pad", "index_select")

LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "batch first": lambda: torch.randn(B, T, C),
    "time first": lambda: torch.randn(T, B, C).transpose(0, 1),
    "a slice in time": lambda: torch.randn(B, T + 4, C)[:, 2:-2],
    "a slice in time, time first": lambda: torch.randn(T + 4, B, C)[2:-2].transpose(0, 1),
    "a slice of the batch": lambda: torch.randn(T, B + 2, C)[:, 1:-1].transpose(0, 1),
    "a slice of the channels": lambda: torch.randn(B, T, C + 3)[..., 2:-1],
    "every other step": lambda: torch.randn(B, 2 * T, C)[:, ::2],
    "one sequence for all": lambda: torch.randn(1, T, C).expand(B, T, C),
    "three dimensions swapped": lambda: torch.randn(T, 2, B, C).permute(2, 1, 0, 3)[:, 1],
}
every = pytest.mark.parametrize("layout", LAYOUTS)


class Copies(TorchDispatchMode):
    """The operations that copy a tensor, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found += [str(func)] if any(c in str(func) for c in COPIES) else []
        return func(*args, **(kwargs or {}))


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """(address, stride of the batch, of time) of every sequence that a kernel was given."""
    found: list[tuple[int, ...]] = []
    plain = Launcher._values

    def values(self: Launcher, tensors: Any, outs: Any, sizes: Any, turned: bool) -> list[int]:
        given = plain(self, tensors, outs, sizes, turned)
        found.append(tuple(given))
        return given

    monkeypatch.setattr(Launcher, "_values", values)
    return found


@every
def test_a_function_hands_tensors_down_as_they_are(layout: str, backend: str, passed: list[tuple[int, ...]]) -> None:
    a, b = LAYOUTS[layout](), LAYOUTS[layout]()
    with Copies() as copies:
        y = lr.linear_scan(a, b)
    assert not copies.found
    assert passed[0][:6] == (a.data_ptr(), a.stride(0), a.stride(1), b.data_ptr(), b.stride(0), b.stride(1))
    assert_close([y], [lr.linear_scan(a.contiguous(), b.contiguous())])
    time_first = a.stride(0) < a.stride(1)
    assert (y.stride(0) < y.stride(1)) == time_first and y.stride(2) == 1  # in the memory order of the input


@every
@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, lr.cells.gilr, lr.cells.sru], ids=lambda c: c.name)
def test_a_module_copies_no_sequence(cell: lr.Cell, layout: str, backend: str, passed: list[tuple[int, ...]]) -> None:
    x = LAYOUTS[layout]()
    for layer, value in ((lr.RNN(cell, C, C, batch_first=True), x), (lr.RNN(cell, C, C), x.transpose(0, 1))):
        with torch.no_grad(), Copies() as copies:
            y, h_n = layer(value)
        assert not copies.found
        assert (cell is not lr.cells.sru) or any(x.data_ptr() in given for given in passed)  # its highway reads x itself
        assert_close([y, *as_tuple(h_n)], [(r := layer(value.contiguous()))[0], *as_tuple(r[1])])


@pytest.mark.parametrize("first", [False, True])
def test_what_lies_unlike_the_first_is_copied_once(first: bool, quick: None, passed: list[tuple[int, ...]]) -> None:
    """Channels next to each other and steps next to each other: all sequences of a call lie as the first does."""
    a, b = torch.randn(B, C, T).transpose(1, 2), torch.randn(B, T, C)
    x, y = (a, b) if first else (b, a)
    with torch.no_grad(), Copies() as copies:
        h = lr.linear_scan(x, y)
    assert passed[0][0] == x.data_ptr() and passed[0][3] != y.data_ptr()
    assert len(copies.found) <= 1
    assert_close([h], [lr.linear_scan(x.contiguous(), y.contiguous())])


@pytest.mark.parametrize("shape", [(0, T), (B, 0), (0, 0), (B, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("cell", FUNCTIONS, ids=lambda c: c.name)
def test_functions_of_few_or_no_samples(cell: lr.Cell, shape: tuple[int, int], quick: None) -> None:
    f = lr.function(cell)
    args = [leaf(*shape, C) if d.kind == "input" else leaf(C) if d.kind == "vector" else leaf() for d in f.arguments]
    init = {k: leaf(shape[0], C) if s.depth == 1 else leaf(shape[0], C, s.depth) for k, s in f.pipeline.sequences.items()}
    y, carry = f(*args, init=init, reset=torch.ones(shape, dtype=torch.bool), return_state=True)
    assert all(o.shape == (*shape, C) for o in as_tuple(y))
    grads = torch.autograd.grad(sum(o.sum() for o in (*as_tuple(y), *carry.now.values())), [*args, *init.values()],
                                allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in grads)
    if not shape[1] and shape[0]:
        assert_close(carry.now.values(), [v.unsqueeze(1) if v.dim() == 2 else v.transpose(1, 2) for v in init.values()])


@pytest.mark.parametrize("shape", [(0, T), (B, 0), (0, 0), (B, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("cell", MODULES, ids=lambda c: c.name)
def test_modules_of_few_or_no_samples(cell: lr.Cell, shape: tuple[int, int], quick: None) -> None:
    layer = lr.RNN(cell, C, C, num_layers=2, batch_first=True)
    x, more = leaf(*shape, C), {n: leaf(*shape, C) for n in cell.spec.names("input")[1:]}
    states = tuple(leaf(2, shape[0], C, *([s.depth] if s.depth > 1 else [])) for s in layer.parts[0].pipeline.plan.carried)
    y, h_n = layer(x, states if len(states) != 1 else states[0], reset=torch.ones(shape, dtype=torch.bool), **more)
    assert all(o.shape == (*shape, C) for o in as_tuple(y))
    assert [h.shape for h in as_tuple(h_n)] == [s.shape for s in states]
    if not shape[1]:
        assert_close(as_tuple(h_n), states)
    torch.autograd.grad(sum(o.sum() for o in (*as_tuple(y), *as_tuple(h_n))), [x, *layer.parameters()], allow_unused=True)


def test_a_bidirectional_module_without_a_step(quick: None) -> None:
    y, h_n = lr.RNN(lr.cells.gilr, C, C, num_layers=2, bidirectional=True)(torch.randn(0, B, C))
    assert y.shape == (0, B, 2 * C) and h_n.shape == (4, B, C) and not h_n.any()
