"""A and b: what an equation's linear parts are, numerically and as the user wrote them; and what is refused."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import sympy as sp

import lrdsl as lr
from lrdsl import t
from lrdsl.backends.reference import evaluate
from lrdsl.errors import NotLinear
from lrdsl.ir import functions as f
from lrdsl.ir.program import Scan
from lrdsl.ir.symbols import At, Param, params, samples
from lrdsl.passes.adjoint import adjoint
from lrdsl.passes.extract import _Bends, affine_parts
from lrdsl.passes.simplify import simplify
from lrdsl.passes.tangent import tangent
from tests.cells_for_tests import CELLS

from .differences import plan_programs

UNKNOWNS = (At("h", -1), At("h", -2), At("c", -1))
KNOWN = (At("x"), At("x", -1), At("u"), Param("v"))


def gate(rng: np.random.Generator, depth: int) -> Any:
    """A random expression that is free of the unknowns."""
    if depth == 0 or rng.random() < 0.2:
        return [*KNOWN, sp.Float(round(rng.normal(), 2)), sp.Integer(rng.integers(-3, 4))][rng.integers(len(KNOWN) + 2)]
    a, b = gate(rng, depth - 1), gate(rng, depth - 1)
    made = (a + b, a * b, f.sigmoid(a), f.tanh(a - b), f.where(f.greater(a, b), a, b), f.maximum(a, b), (a - b) ** 2)
    return made[rng.integers(len(made))]


def affine(rng: np.random.Generator, depth: int) -> Any:
    """A random expression that is affine in the unknowns, in one of the forms that a user writes."""
    if depth == 0 or rng.random() < 0.15:
        return UNKNOWNS[rng.integers(len(UNKNOWNS))] if rng.random() < 0.7 else gate(rng, 1)
    a, b, g = affine(rng, depth - 1), affine(rng, depth - 1), gate(rng, 2)
    made = (a + b, a - b, g * a, g * a + (1 - g) * b, a / (2 + g**2), f.where(f.greater(g, 0), a, b), -3 * (a + b))
    return made[rng.integers(len(made))]


@functools.cache
def expression(seed: int) -> Any:
    """One random expression a seed."""
    return affine(np.random.default_rng(seed), 4)


@pytest.mark.parametrize("seed", range(60))
def test_the_parts_are_the_jacobian_and_the_rest(seed: int) -> None:
    """expr = sum of coefficients times unknowns + rest at random points, and each coefficient is a slope."""
    rng, expr = np.random.default_rng(seed), expression(seed)
    coefficients, rest = affine_parts(expr, frozenset(UNKNOWNS))
    assert not any(e.free_symbols & set(UNKNOWNS) for e in (*coefficients.values(), rest))
    values = {atom: rng.normal(size=7) for atom in (*KNOWN, *UNKNOWNS)}
    parts = evaluate(rest, values) + sum(evaluate(c, values) * values[u] for u, c in coefficients.items())
    scale = 1 + np.abs(evaluate(expr, values))
    assert np.all(np.abs(parts - evaluate(expr, values)) < 1e-10 * scale)
    for unknown in UNKNOWNS:  # affine, so that a difference over a whole step is the slope
        slope = evaluate(expr, {**values, unknown: values[unknown] + 1}) - evaluate(expr, values)
        coefficient = evaluate(coefficients.get(unknown, sp.S.Zero), values)
        assert np.all(np.abs(slope - coefficient) < 1e-9 * scale), unknown


def test_enough_of_the_random_expressions_say_something() -> None:
    exprs = [expression(seed) for seed in range(60)]
    assert sum(bool(e.free_symbols & set(UNKNOWNS)) for e in exprs) > 40
    assert sum(e.has(f.where) for e in exprs) > 15


def test_smooth_parts_are_those_of_sympy() -> None:
    h, c, x, v = At("h", -1), At("c", -1), At("x"), Param("v")
    expr = f.sigmoid(x) * (v * h + (1 - v) * (c - x)) + x * (h / (1 + x**2) + 3)
    coefficients, rest = affine_parts(expr, frozenset({h, c}))
    assert all(sp.expand(coefficients[u] - sp.diff(expr, u)) == 0 for u in (h, c))
    assert sp.expand(rest - expr.xreplace({h: sp.S.Zero, c: sp.S.Zero})) == 0


def test_the_users_factors_are_kept() -> None:
    g, i, h = At("g"), At("i"), At("h", -1)
    coefficients, rest = affine_parts((1 - g) * h + g * (1 - i) * f.tanh(i), frozenset({h}))
    assert coefficients == {h: 1 - g} and rest == g * (1 - i) * f.tanh(i)
    coefficients, rest = affine_parts(f.where(f.greater(g, 0), g * h, i), frozenset({h}))
    assert coefficients == {h: f.where(f.greater(g, 0), g, sp.S.Zero)}
    assert rest == f.where(f.greater(g, 0), sp.S.Zero, i)


H, X = At("h", -1), At("x")
BENT = {
    "a square": (H**2 + X, H**2), "a product": (X * H * At("c", -1), X * H * At("c", -1)), "an inverse": (X / H, 1 / H),
    "a function": (X + f.tanh(H + X), f.tanh(H + X)), "an absolute value": (f.absolute(H), f.absolute(H)),
    "a condition": (f.where(f.greater(H, 0), X, 2 * X), f.where(f.greater(H, 0), X, 2 * X)),
    "a bent branch": (f.where(f.greater(X, 0), H**2, X), H**2), "a maximum": (f.maximum(H, X), f.maximum(H, X)),
    "what only cancelling shows": ((H**2 - X**2) / (H - X), None), "detached": (f.detach(H), f.detach(H)),
}


@pytest.mark.parametrize("what", BENT)
def test_refusals_know_the_term(what: str) -> None:
    expr, term = BENT[what]
    with pytest.raises(_Bends) as bend:
        affine_parts(expr, frozenset(UNKNOWNS))
    assert term is None or bend.value.term == term


def test_a_condition_on_a_state_is_refused_though_its_derivative_is_free_of_it() -> None:
    @lr.cell
    def gated(x: lr.Input, h: lr.State):
        h[t] = lr.where(h[t - 1] > 0, x[t], 2 * x[t])
        return h[t]

    with pytest.raises(NotLinear, match=r"the condition \(h\[t-1\] > 0\)"):
        plan_programs(gated.spec)


def scan_of(cell: lr.Cell) -> Scan:
    """The one recurrence of a cell."""
    (scan,) = (s for p in plan_programs(cell.spec) for s in p.steps if isinstance(s, Scan))
    return scan


def test_coupled_states_are_one_block() -> None:
    c, s = Param("c"), Param("s")
    scan = scan_of(CELLS["rotation"])
    assert scan.targets == ("x", "y") and scan.structure.name == "scaled rotation, constant"
    (A,) = scan.A
    assert sp.Matrix([[c, -s], [s, c]]) == A and scan.b == (At("b"), 0)


def test_a_read_at_t_is_substituted_and_orders_stand_apart() -> None:
    b, s, v = At("b"), Param("s"), Param("v")
    scan = scan_of(CELLS["spiral"])
    assert scan.order == 3
    one, two, three = scan.A
    assert one == sp.Matrix([[v, 0], [s * v, -At("b", -1)]])
    assert two == sp.Matrix([[b, 0], [s * b, 0]]) and three == sp.Matrix([[0, s], [0, s**2]])
    assert scan.b == (0, f.sigmoid(v * b))


def test_nothing_calls_sympys_simplifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """simplify takes 24 s for an LSTM's derivatives; expand and its kin take the user's factors apart."""
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("sympy was asked to simplify")

    for name in ("simplify", "expand", "factor", "cancel", "together", "collect", "nsimplify", "apart"):
        monkeypatch.setattr(sp, name, refuse)
        if hasattr(sp.Expr, name):
            monkeypatch.setattr(sp.Expr, name, refuse)
    monkeypatch.setattr(sp.Basic, "simplify", refuse)
    with pytest.raises(AssertionError, match="asked to simplify"):
        (X + 1).simplify()
    for name in ("gilr_lstm", "strata", "spiral", "kinks"):
        for program in plan_programs(CELLS[name].spec):
            forward = adjoint(simplify(program)).forward
            tangent(forward)
            assert adjoint(adjoint(forward).program).program.steps


def test_samples_and_params_come_in_a_fixed_order() -> None:
    expr = At("z") * Param("w") + At("a", -1) * Param("b") + At("a", -2)
    assert [str(s) for s in samples(expr)] == ["a[t-2]", "a[t-1]", "z[t]"] and [str(p) for p in params(expr)] == ["b", "w"]
