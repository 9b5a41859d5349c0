"""What is known of |A| from the equations: never more than is true."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

import lrdsl as lr
from lrdsl import t
from lrdsl.backends.reference import evaluate
from lrdsl.ir import functions as f
from lrdsl.ir.symbols import At
from lrdsl.passes.bounds import UNKNOWN, contracts, interval
from lrdsl.programs import plan_of
from tests.cells_for_tests import CELLS

X, Y = At("x"), At("y")


def bounded(cell: lr.Cell) -> list[bool]:
    return [small for p in plan_of(cell.spec).programs for small in contracts(p).values()]


def test_gates_are_bounded_and_inputs_are_not() -> None:
    assert bounded(CELLS["gilr"]) == [True] and bounded(CELLS["gilr_lstm"]) == [True, True]
    assert bounded(lr.cells.linear_scan) == [False] and bounded(CELLS["discounted"]) == [False]


def test_a_coefficient_may_be_any_expression() -> None:
    @lr.cell
    def decay(x: lr.Input, h: lr.State, k: lr.State, m: lr.State):
        h[t] = lr.exp(-lr.softplus(x[t])) * h[t - 1] + x[t]
        k[t] = (1 - lr.sigmoid(x[t])) * lr.tanh(x[t]) * k[t - 1] + x[t]
        m[t] = lr.where(x[t] > 0, 0.5, lr.minimum(lr.exp(x[t]), 2)) * m[t - 1] + x[t]
        return h[t] + k[t] + m[t]

    assert bounded(decay) == [True, True, False]


def test_lags_and_coupled_states_add_up() -> None:
    @lr.cell
    def both(x: lr.Input, y: lr.State, a: lr.State, b: lr.State):
        y[t] = 0.5 * y[t - 1] + 0.6 * y[t - 2] + x[t]
        a[t] = 0.5 * a[t - 1] - 0.5 * b[t - 1] + x[t]
        b[t] = 0.5 * a[t - 1] + 0.5 * b[t - 1]
        return y[t] + a[t]

    assert sorted(bounded(both)) == [False, True]


@pytest.mark.parametrize("expr", [
    X * Y, X - Y, X ** 2, X ** 3, f.absolute(X), f.sigmoid(X) * Y, 1 - f.tanh(X), f.exp(-X * X), f.relu(X) * f.relu(Y),
    f.maximum(X, Y), f.minimum(X, 0.25 * Y), f.where(f.greater(X, Y), X, f.sin(Y)), f.expm1(X), f.softplus(X), f.silu(X),
    f.log(1 + f.absolute(X)), f.sqrt(f.absolute(X)), f.detach(X) - 2, 1 / (2 + X), f.gelu(X), f.logaddexp(X, Y)], ids=str)
def test_every_value_lies_in_its_interval(expr: sp.Expr) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        ends = {s: sorted(rng.normal(size=2) * 3) for s in (X, Y)}
        lo, hi = interval(expr, {s: (a, b) for s, (a, b) in ends.items()})
        drawn = {s: rng.uniform(a, b, 200) for s, (a, b) in ends.items()}
        with np.errstate(all="ignore"):
            values = evaluate(expr, drawn)
        values = values[np.isfinite(values)]
        assert (values >= lo - 1e-12).all() and (values <= hi + 1e-12).all()


def test_powers_beyond_the_largest_number() -> None:
    @lr.cell
    def huge(x: lr.Input, h: lr.State):
        s = 1e200 * lr.sigmoid(x[t])
        h[t] = s ** 2 * h[t - 1] + s ** 3
        return h[t]

    assert bounded(huge) == [False] and interval(X ** 3, {X: (-1e200, 1e200)}) == UNKNOWN


def test_what_is_unknown_stays_so() -> None:
    assert interval(X, {}) == UNKNOWN and interval(X * 0.5, {}) == UNKNOWN and interval(f.exp(X), {})[0] == 0
    assert interval(f.sigmoid(X) * 2 - 1, {}) == (-1, 1)
