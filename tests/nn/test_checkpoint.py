"""A layer that computes pieces of time again is the layer: outputs, last states, a Carry, all gradients; and keeps less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import lrdsl as lr
from tests.nn.cells import MODULES, deep, sides, window
from tests.nn.compare import as_tuple, assert_close, gradients, leaf
from tests.nn.test_footprint import Living
from tests.two_way_cells import zigzag

pytestmark = pytest.mark.usefixtures("quick")
B, T, C = 2, 11, 4
QUICK = [lr.cells.gilr_lstm, deep, lr.cells.lru, lr.cells.qrnn_zoneout(0.3), lr.Cell(deep.spec.mirrored())]
CELLS = [*QUICK, *(pytest.param(c, marks=pytest.mark.long) for c in
                   (*(c for c in MODULES if c not in (sides, *QUICK)), lr.cells.mamba_s6(3), lr.cells.rglru))]


def pair(cell: lr.Cell, steps: int = 3, **options: Any) -> tuple[lr.RNN, lr.RNN]:
    """A layer, and one of the same parameters that goes in pieces."""
    layer, pieces = lr.RNN(cell, C, C, **options), lr.RNN(cell, C, C, checkpoint=steps, **options)
    pieces.load_state_dict(layer.state_dict())
    return layer, pieces


def answers(layer: lr.RNN, leaves: list[Tensor], *args: Any, **options: Any) -> tuple[list[Tensor], Any]:
    """Outputs and last states, and gradients of the leaves and the parameters. Masks are the same at each call."""
    torch.manual_seed(1)
    y, after = layer(*args, **options)
    after = list(after.now.values()) if isinstance(after, lr.Carry) else list(as_tuple(after))
    found = [o for v in (*as_tuple(y), *after) for o in ((v.real, v.imag) if v.is_complex() else (v,))]
    return found, gradients(found, [*leaves, *layer.parameters()])


def assert_same(layer: lr.RNN, pieces: lr.RNN, leaves: list[Tensor], *args: Any, **options: Any) -> None:
    want, got = (answers(m, leaves, *args, **options) for m in (layer, pieces))
    assert_close(got[0], want[0], 10)
    parts = [[v for g in side[1] if g is not None for v in (torch.view_as_real(g) if g.is_complex() else g,)]
             for side in (got, want)]
    assert_close(*parts, 100)


@pytest.mark.parametrize("given", ["nothing", "h_0", "reset and a Carry"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)
def test_pieces_are_the_whole(cell: lr.Cell, given: str) -> None:
    layer, pieces = pair(cell, num_layers=2, dropout=0.5)
    names = cell.spec.names("input")
    x, more = leaf(T, B, C), {n: leaf(T, B, C) for n in names[1:]}
    h_0: Any = None
    options: dict[str, Any] = {}
    if given == "h_0":
        h_0 = tuple(torch.randn_like(h).requires_grad_() for h in as_tuple(layer(x, **more)[1]))
    elif given != "nothing":
        h_0 = layer(x, return_state=True, **more)[1].detach()
        options = {"reset": torch.rand(T, B) < 0.3, "return_state": True}
    leaves = [x, *more.values(), *(h_0 if given == "h_0" else ())]
    assert_same(layer, pieces, leaves, x, h_0[0] if given == "h_0" and len(h_0) == 1 else h_0, **options, **more)


@pytest.mark.parametrize("steps", [1, 5, 10, 11, 100])
def test_pieces_of_any_length_in_both_directions(steps: int) -> None:
    layer, pieces = pair(window, steps, bidirectional=True, batch_first=True)
    x, u = leaf(B, T, C), leaf(B, T, C)
    assert_same(layer, pieces, [x, u], x, u=u, reset=torch.rand(B, T) < 0.3)
    assert_same(layer, pieces, [x[0], u[0]], x[0], u=u[0])


@pytest.mark.parametrize("cell", [lr.cells.linear_scan, lr.cells.gilr, lr.cells.sru], ids=lambda c: c.name)
def test_values_are_the_same_to_the_bit(cell: lr.Cell) -> None:
    """Those of the kernels, which go on from the state at the border. A product of fewer steps may be rounded otherwise: here
    the edge of one, by a matrix of B rows, would be."""
    layer, pieces = (lr.RNN(cell, 64, 64, checkpoint=steps).float() for steps in (None, 64))
    pieces.load_state_dict(layer.state_dict())
    x, more = torch.rand(300, B, 64).float().requires_grad_(), {n: torch.rand(300, B, 64).float() for n in layer.inputs}
    (y, h_n), (y_too, h_too) = (m(x, **more) for m in (layer, pieces))
    assert torch.equal(y, y_too) and torch.equal(h_n, h_too)
    if cell is lr.cells.linear_scan:
        assert torch.equal(*(torch.autograd.grad(v.cos().sum(), x)[0] for v in (y, y_too)))


def test_integers_narrow_numbers_and_solvers() -> None:
    layer, pieces = pair(lr.cells.gilr)
    assert_same(layer, pieces, [], torch.randint(C, (T, B)))
    layer, pieces = (m.bfloat16() for m in pair(lr.cells.gilr, 4))
    x = torch.randn(T, B, C, dtype=torch.bfloat16, requires_grad=True)
    assert torch.equal(layer(x)[0], pieces(x)[0])
    layer, pieces = pair(lr.cells.diag_lstm, solver="newton")
    x = leaf(T, B, C)
    (want, first), (got, second) = (answers(m, [x], x) for m in (layer, pieces))
    assert_close(got, want, 1e4)
    assert_close(second, first, 1e5)
    assert len(pieces.solver_report()["layers.0"]) == 4


def test_less_is_kept() -> None:
    """What dies with the graph, beside the output: the states at the borders, where it was what explain() says."""
    layer, pieces = pair(lr.cells.gilr_lstm, 500)
    x = torch.randn(5000, B, C)
    kept = []
    for m in (layer, pieces):
        with Living({v.untyped_storage()._cdata for v in (x, *m.parameters())}) as living:
            y = m(x)[0]
            kept.append(sum(living.sizes.values()) - y.nbytes)
            y.sum().backward()
            kept.append(living.most)
    number = y.nbytes
    assert kept[0] >= 11 * number and kept[2] <= 0.02 * number
    assert kept[1] >= 20 * number and kept[3] <= 6 * number


def test_second_derivatives() -> None:
    layer, pieces = pair(lr.cells.gilr)
    x = leaf(T, B, C)
    found = []
    for m in (layer, pieces):
        [g] = torch.autograd.grad(m(x)[0].cos().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(g.cos().sum(), [x, *m.parameters()]))
    assert_close(found[1], found[0], 100)


def test_the_parameters_of_the_call_are_read_again() -> None:
    """Not those that the module has when the backward pass runs."""
    layer, pieces = pair(lr.cells.gilr)
    x = leaf(T, B, C)
    other = {n: torch.randn_like(p).requires_grad_() for n, p in layer.named_parameters()}
    want, got = (gradients([functional_call(m, other, (x,))[0]], [x, *other.values()]) for m in (layer, pieces))
    assert_close(got, want, 100)


def test_transforms_and_compilers_take_the_whole() -> None:
    layer, pieces = pair(lr.cells.gilr)
    x = torch.randn(T, B, C)
    found = [torch.func.grad(lambda x, m=m: m(x)[0].cos().sum())(x) for m in (layer, pieces)]
    assert torch.equal(*found)
    compiled = torch.compile(pieces, backend="aot_eager", fullgraph=True)
    x = leaf(T, B, C)
    assert_close(gradients([compiled(x)[0]], [x]), gradients([layer(x)[0]], [x]), 100)
    with torch.no_grad():
        assert torch.equal(layer(x)[0], pieces(x)[0])


def test_what_cannot_be_cut_is_refused() -> None:
    for wrong in (0, -1, True, 2.0, "sqrt"):
        with pytest.raises(lr.BadDeclaration, match="checkpoint is a positive number of steps"):
            lr.RNN(lr.cells.gilr, C, C, checkpoint=wrong)  # type: ignore[arg-type]
    with pytest.raises(lr.NotBuilt, match="reads x beyond the end of a piece"):
        lr.RNN(sides, C, C, checkpoint=3)
    with pytest.raises(lr.CellError, match="runs both ways"):
        lr.RNN(zigzag, C, C, checkpoint=3)
    layer = lr.RNN(lr.cells.gilr, C, C, checkpoint=3)
    with pytest.raises(lr.NotBuilt, match="this call has packed segments"):
        layer(torch.randn(T, 1, C), cu_seqlens=torch.tensor([0, 4, T]))
    assert "checkpoint=3" in repr(layer)
