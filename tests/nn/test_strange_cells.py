"""Five cells that are in no paper, written to break the compiler: many things at once, against the loop over their equations.

They run on every backend, short, and longer than a chunk, so that CUDA's chunked text is met; with boundaries and given edges.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import lrdsl as lr
from lrdsl import abs, exp, logaddexp, maximum, minimum, sigmoid, softplus, t, tanh, where
from lrdsl.check import check
from lrdsl.ir.program import Scan
from lrdsl.nn.pipeline import pipeline_of
from lrdsl.programs import plan_of
from tests.nn import loop
from tests.nn.compare import as_tuple, assert_close, gradients, leaf

B, C = 2, 3


@lr.cell
def tides(x: lr.Input, y: lr.Input, high: lr.State, sea: lr.State, moon: lr.State, v: lr.Vector):
    """A running maximum from the left bends an order-two recurrence from the right, which a logaddexp from the left reads on
    both sides of t."""
    high[t] = maximum(high[t - 1] - softplus(v), x[t - 1])
    pull = exp(-abs(high[t] - high[t - 2]))
    sea[t] = 0.6 * pull * sea[t + 1] - 0.3 * sigmoid(y[t + 1]) * sea[t + 2] + tanh(high[t + 1])
    moon[t] = logaddexp(moon[t - 1] - pull, sea[t + 2] - sea[t - 1])
    return moon[t] * sea[t], high[t - 1]


@lr.cell
def gyre(x: lr.Input, w: lr.Input, z: lr.State = lr.State(complex=True), q: lr.State = lr.State(init=0.5),
         a: lr.Vector = lr.Vector(complex=True), s: lr.Scalar = lr.Scalar()):
    """A complex recurrence of order two, turned by an angle that a real one accumulates, and cut where that is negative."""
    q[t] = sigmoid(w[t]) * q[t - 1] + s * x[t]
    turn = exp(1j * q[t - 1]) * sigmoid(x[t])
    z[t] = where(q[t] > 0, turn, lr.conjugate(turn)) * z[t - 1] / 2 + a * z[t - 2] / 4 + (x[t] - 1j * w[t - 1])
    return lr.re(z[t] * lr.conjugate(z[t - 1])) / (1 + q[t] ** 2), z[t - 3]


@lr.cell
def loom(x: lr.Input, y: lr.Input, a: lr.State, b: lr.State, c: lr.State, d: lr.State, v: lr.Vector):
    """Four states in a knot: two read each other a step back, one reads them at t, and one three steps back."""
    f = sigmoid(x[t])
    a[t] = 0.4 * f * b[t - 1] - where(y[t] > x[t - 1], 0.5, f) * a[t - 1] / 2 + x[t] * y[t]
    b[t] = v * a[t] / 4 + (1 - f) * c[t - 1] / 2 + y[t - 2]
    c[t] = tanh(v) * b[t - 1] / 2 - a[t] / 3 + minimum(x[t], y[t])
    d[t] = f * d[t - 1] / 2 + a[t - 1] * (c[t] - b[t - 1])
    return d[t] + c[t - 2], b[t]


@lr.cell
def echoes(x: lr.Input, y: lr.State, z: lr.State, p: lr.Vector, s: lr.Scalar):
    """A filter of order six with four coefficients, constant all, which feeds another with a gap, from the other side."""
    y[t] = s * y[t - 1] / 3 - p * y[t - 2] / 3 + y[t - 5] / 8 + tanh(p) * y[t - 6] / 8 + x[t]
    z[t] = p * z[t + 3] / 2 + y[t - 4] * y[t + 4]
    return z[t] - y[t + 1]


@lr.cell
def ledger(x: lr.Input, y: lr.Input, debt: lr.State, worth: lr.State, due: lr.State = lr.State(init=float("-inf")),
           left: lr.State = lr.State(init=float("inf")), r: lr.Vector = lr.Vector(init=0.1)):
    """Two running extremes open and close the gates of a weighted mean, stabilised by one of them, with names that mean other
    things elsewhere."""
    due[t] = maximum(due[t - 1] - r * r, y[t])
    left[t] = minimum(left[t - 1] + 0.1, x[t - 1] + y[t])
    worth[t] = exp(due[t - 1] - r * r - due[t]) * worth[t - 1] + exp(y[t] - due[t]) * x[t]
    debt[t] = exp(due[t - 1] - r * r - due[t]) * debt[t - 1] + exp(y[t] - due[t])
    return worth[t] / debt[t] * sigmoid(left[t]), where(lr.equal(due[t], y[t]), left[t], worth[t - 1])


CELLS = {c.name: c for c in (tides, gyre, loom, echoes, ledger)}
NAMED = pytest.mark.parametrize("name", CELLS)


def drawn(cell: lr.Cell, T: int) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Inputs, learned numbers and edges."""
    def number(name: str, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.complex128, requires_grad=True) if name in cell.spec.complex else leaf(*shape)

    params = {n: number(n, C) for n in cell.spec.names("vector")} | {n: number(n) for n in cell.spec.names("scalar")}
    init = {key: number(s.name, B, C, *([s.depth] if s.depth > 1 else []))
            for key, s in pipeline_of(cell.spec).sequences.items()}
    return {n: leaf(B, T, C) for n in cell.spec.names("input")}, params, init


def real(outputs: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    """Complex outputs as pairs of numbers."""
    return [torch.view_as_real(o) if o.is_complex() else o for o in outputs]


@pytest.mark.parametrize(("T", "given"), [(1, True), (7, True), (9, False),
                                          *(pytest.param(*c, marks=pytest.mark.long) for c in ((2, False), (150, True)))])
@NAMED
def test_it_is_its_equations(name: str, T: int, given: bool, every_backend: str) -> None:
    cell = CELLS[name]
    args, params, init = drawn(cell, T)
    init, reset = (init, torch.rand(B, T) < 0.1) if given else ({}, None)
    got = as_tuple(lr.function(cell)(**args, **params, init=init, reset=reset))
    want = loop.outputs(cell.spec, loop.run(cell.spec, args, params, C, init, reset))
    assert_close(got, want, 100)
    leaves = [*args.values(), *params.values(), *init.values()]
    assert_close(gradients(real(got), leaves), gradients(real(want), leaves), 10000)


@pytest.mark.parametrize("name", [n if n == "gyre" else pytest.param(n, marks=pytest.mark.long) for n in CELLS])
def test_it_is_differentiated_again(name: str, quick: None) -> None:
    cell = CELLS[name]
    args, params, init = drawn(cell, 4)
    names, leaves = [*args, *params], (*args.values(), *params.values(), *init.values())

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        n = len(names)
        return as_tuple(lr.function(cell)(**dict(zip(names, values[:n], strict=True)),
                                          init=dict(zip(init, values[n:], strict=True))))

    assert gradcheck(run, leaves, check_forward_ad=name != "gyre")
    assert gradgradcheck(run, leaves, atol=1e-4)


def test_what_the_compiler_found() -> None:
    """The structures and ways that the docstrings above promise."""
    found = {name: [(p.structure(s).name, "right" if p.reverse else "left") for p in plan_of(cell.spec).programs
                    for s in p.steps if isinstance(s, Scan)] for name, cell in CELLS.items()}
    assert found["tides"] == [("(max, +)", "left"), ("companion, order 2", "right"), ("(logaddexp, +)", "left")]
    assert found["gyre"] == [("diagonal", "left"), ("complex 2x2", "left")]
    assert found["loom"] == [("dense 3x3", "left"), ("diagonal", "left")]
    assert found["echoes"] == [("companion, order 6, constant", "left"), ("companion, order 3, constant", "right")]
    assert sorted(found["ledger"]) == [("(max, +)", "left"), ("(min, +)", "left"), ("diagonal", "left"), ("diagonal", "left")]


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in CELLS if n != "gyre"])
def test_its_cuda_text_is_right_under_every_schedule(name: str) -> None:
    checked = check(CELLS[name])
    assert checked.right, str(checked)
