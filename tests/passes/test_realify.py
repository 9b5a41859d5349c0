"""Complex values taken apart: the stage on paper, what it leaves to do, and random expressions against complex numbers."""

from __future__ import annotations

import cmath
from typing import Any

import numpy as np
import pytest
import sympy as sp

import lrdsl as lr
from lrdsl import t
from lrdsl.backends.reference import evaluate
from lrdsl.ir import complex as cx
from lrdsl.ir.functions import Elementwise
from lrdsl.ir.plan import Dense
from lrdsl.ir.program import Scan
from lrdsl.ir.spec import Equation
from lrdsl.ir.symbols import At, Param
from lrdsl.passes.realify import realify
from lrdsl.programs import plan_of
from tests.cells_for_tests import CELLS
from tests.nn.complex_cells import crossed, every, gated, lru, mixed, modreal


@pytest.mark.parametrize("cell", [lru, crossed, mixed, modreal], ids=lambda c: c.name)
def test_texts(cell: lr.Cell, golden: Any) -> None:
    assert f"{cell.spec}\n\n{realify(cell.spec)}" == golden


@pytest.mark.parametrize("name", CELLS)
def test_real_cells_are_left_alone(name: str) -> None:
    assert realify(CELLS[name].spec) is CELLS[name].spec and not CELLS[name].spec.complex


@pytest.mark.parametrize("cell", [lru, crossed, mixed, modreal, every], ids=lambda c: c.name)
def test_nothing_complex_is_left(cell: lr.Cell) -> None:
    real = realify(cell.spec)
    assert not real.complex and realify(real) is real
    for s in real.statements:
        for e in (s.expr,) if isinstance(s, Equation) else s.operands:
            assert not e.has(sp.I) and not any(isinstance(c, cx.ComplexValued | cx.re | cx.im | cx.modulus)
                                               for c in e.atoms(Elementwise))
            assert not any(a.complex for a in e.atoms(At, Param))


def scans(cell: lr.Cell) -> list[Scan]:
    return [s for p in plan_of(cell.spec).programs for s in p.steps if isinstance(s, Scan)]


def test_a_complex_factor_is_a_scaled_rotation() -> None:
    for cell in (gated, lru):
        [scan] = scans(cell)
        [A] = scan.A
        assert A[0, 0] == A[1, 1] and A[0, 1] == -A[1, 0] and A[1, 0] != 0


def test_a_real_factor_couples_nothing() -> None:
    @lr.cell
    def c(x: lr.Input, z: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True)):
        size = z[t] * lr.conjugate(z[t])
        h[t] = lr.sigmoid(x[t]) * h[t - 1] + lr.re(size) * h[t - 1] / 9 + z[t]
        return h[t]

    assert [s.targets for s in scans(c)] == [("h.re",), ("h.im",)]

    @lr.cell
    def through_a_line(z: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True)):
        size = z[t] * lr.conjugate(z[t])  # its imaginary part is 0, and known to be
        h[t] = size * h[t - 1] + z[t]
        return h[t]

    assert [s.targets for s in scans(through_a_line)] == [("h.re",), ("h.im",)]


def test_operands_of_a_complex_map_are_written_once() -> None:
    @lr.cell
    def c(x: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True), W: lr.Affine = lr.Affine(complex=True)):
        h[t] = 1j * h[t - 1] + x[t]
        return W(h[t] * lr.abs(x[t]))

    plan = plan_of(c.spec)
    assert [k.samples for k in plan.programs[0].keeps if not k.inner] == [("W.in0.re",), ("W.in0.im",)]
    products = [(step.source, len(step.blocks)) for step in plan.steps if isinstance(step, Dense)]
    assert products == [("W.in0.re", 2), ("W.in0.im", 2)]


def test_both_halves_are_carried_equally_far() -> None:
    plan = plan_of(crossed.spec)
    depths = {s.name: s.depth for s in plan.sequences}
    assert depths["h.re"] == depths["h.im"] == 3 and depths["x.re"] == depths["x.im"] == 2


Z, W, X = At("z", complex=True), At("w", complex=True), At("x")


def draw(rng: np.random.Generator, depth: int) -> Any:
    """A complex expression."""
    if depth == 0:
        return [Z, W, sp.I * X, X + Z, sp.Float(0.5) - sp.I][rng.integers(5)]
    a, b = draw(rng, depth - 1), draw(rng, depth - 1)
    made = [a + b, a * b, a / (b + 7), a ** int(rng.integers(2, 6)) / 9, lr.conjugate(a), lr.exp(a / 9), lr.sin(a / 9),
            lr.cos(b / 9), a * lr.re(b), lr.abs(a) * b, lr.where(X > 0, a, b), a - sp.I * b, lr.detach(a) + lr.im(Z * (b + 3)),
            2 / (1 + a * a / 99) + a]
    return made[rng.integers(len(made))]


def value(expr: Any, at: dict[Any, complex]) -> complex:
    """The value of an expression, by Python's complex numbers."""
    if expr in at:
        return at[expr]
    if expr is sp.I:
        return 1j
    if expr.is_Number:
        return float(expr)
    args = [value(a, at) for a in expr.args]
    if expr.is_Add:
        return sum(args)
    if expr.is_Mul:
        return np.prod(args)
    if expr.is_Pow:
        return args[0] ** int(expr.exp)
    return {"exp": cmath.exp, "sin": cmath.sin, "cos": cmath.cos, "abs": abs, "conjugate": lambda z: complex(z).conjugate(),
            "re": lambda z: complex(z).real, "im": lambda z: complex(z).imag, "detach": lambda z: z,
            "greater": lambda a, b: a > b, "where": lambda c, a, b: a if c else b}[type(expr).__name__](*args)


@pytest.mark.parametrize("seed", range(40))
def test_random_expressions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    expr = draw(rng, 3) + Z

    @lr.cell
    def c(z: lr.Input = lr.Input(complex=True), w: lr.Input = lr.Input(complex=True), x: lr.Input = lr.Input(),
          h: lr.State = lr.State(complex=True)):
        h[t] = h[t - 1] + z[t] + w[t] + x[t]
        return h[t], expr

    real = realify(c.spec)
    for _ in range(5):
        z, w = complex(*rng.normal(size=2)), complex(*rng.normal(size=2))
        x = float(rng.normal())
        known: dict[Any, Any] = {At("z.re"): z.real, At("z.im"): z.imag, At("w.re"): w.real, At("w.im"): w.imag, At("x"): x}
        for s in real.statements:
            if isinstance(s, Equation) and not s.state:
                known[At(s.target)] = evaluate(s.expr, known)
        want = value(expr, {Z: z, W: w, X: x})
        name = c.spec.outputs[1][1].base
        assert abs(complex(known[At(f"{name}.re")], known[At(f"{name}.im")]) - want) <= 1e-12 * (1 + abs(want))
