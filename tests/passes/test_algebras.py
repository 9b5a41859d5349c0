"""Recurrences over other algebras: what the equations are taken for, what they mean, and their derivatives."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sympy as sp

import lrdsl as lr
from lrdsl import t
from lrdsl.backends.reference import evaluate
from lrdsl.errors import InternalError
from lrdsl.ir import functions as f
from lrdsl.ir.algebras import ALGEBRAS, Algebra
from lrdsl.ir.program import Program, Scan
from lrdsl.ir.symbols import At, Param
from lrdsl.passes.adjoint import adjoint
from lrdsl.passes.algebras import Bends, over
from lrdsl.passes.bounds import contracts, interval
from lrdsl.passes.join import joined
from lrdsl.passes.partition import partition
from lrdsl.passes.schedule import strategies
from lrdsl.passes.simplify import simplify
from lrdsl.passes.stratify import stratify
from lrdsl.passes.tangent import tangent
from tests.cells_of_algebras import CELLS

from . import test_adjoint, test_meaning
from .differences import plan_programs

H, C, X, Y, V = At("h", -1), At("c", -1), At("x"), At("y"), Param("v")
EVERY = pytest.mark.parametrize("algebra", ALGEBRAS.values(), ids=str)
MIRRORED = pytest.mark.parametrize("mirrored", [False, True], ids=["as-written", "mirrored"])


def linear(rng: np.random.Generator, algebra: Algebra, depth: int) -> Any:
    """A random expression that is linear over an algebra, in one of the forms that a user writes."""
    known = (X, Y, X * Y, V - X, f.tanh(Y), sp.Float(0.5))
    if depth == 0 or rng.random() < 0.15:
        return (H, C)[rng.integers(2)] if rng.random() < 0.7 else known[rng.integers(len(known))]
    a, b = linear(rng, algebra, depth - 1), linear(rng, algebra, depth - 1)
    by = known[rng.integers(len(known))]
    return (algebra.sum(a, b), algebra.sum(a, by), a + by, f.where(f.greater(by, 0), a, b))[rng.integers(4)]


@functools.cache
def expression(algebra: Algebra, seed: int) -> Any:
    return linear(np.random.default_rng(seed), algebra, 4)


@EVERY
@pytest.mark.parametrize("seed", range(40))
def test_the_parts_are_the_expression(algebra: Algebra, seed: int) -> None:
    """At random points, two of which have an infinite unknown: the algebra's zero, which stands for nothing."""
    rng, expr = np.random.default_rng(seed), expression(algebra, seed)
    addends, rest = over(algebra, expr, frozenset({H, C}))
    assert not any(e.free_symbols & {H, C} for e in (*addends.values(), rest))
    values = {atom: rng.normal(size=9) for atom in (H, C, X, Y, V)}
    values[H][0] = values[C][1] = float(algebra.zero)
    parts = [evaluate(rest, values), *(evaluate(a, values) + values[u] for u, a in addends.items())]
    total = functools.reduce({"maximum": np.maximum, "minimum": np.minimum, "logaddexp": np.logaddexp}[algebra.sum.__name__],
                             parts)
    np.testing.assert_allclose(np.broadcast_to(total, 9), np.broadcast_to(evaluate(expr, values), 9), rtol=1e-12, atol=1e-12)


@EVERY
def test_enough_of_the_random_expressions_say_something(algebra: Algebra) -> None:
    exprs = [expression(algebra, seed) for seed in range(40)]
    both = [over(algebra, e, frozenset({H, C})) for e in exprs]
    assert sum(len(addends) == 2 for addends, _ in both) > 10
    assert sum(rest.has(algebra.zero) and rest != algebra.zero for _, rest in both) > 3
    assert sum(any(a.has(algebra.zero) for a in addends.values()) for addends, _ in both) > 10


@EVERY
def test_a_term_that_bends_is_named(algebra: Algebra) -> None:
    other = next(a for a in ALGEBRAS.values() if a != algebra)
    for inside in (2 * H, -H, H * X, H + C, f.tanh(H), other.sum(H, X), f.where(f.greater(H, 0), X, Y), f.detach(H), H / 2):
        for expr in (inside, algebra.sum(X, inside), algebra.sum(H, inside + X) + Y):
            with pytest.raises(Bends) as bend:
                over(algebra, expr, frozenset({H, C}))
            assert bend.value.term in (inside, inside + X)  # of a sum with the state twice, all of it


def scan_of(cell: lr.Cell) -> Scan:
    (scan,) = (s for p in plan_programs(cell.spec) for s in p.steps if isinstance(s, Scan))
    return scan


def test_terms_fold() -> None:
    x, s, v = At("x"), Param("s"), Param("v")
    scan = scan_of(CELLS["folded"])
    assert scan.algebra == "max-plus" and scan.structure.name == "(max, +)" and scan.order == 1
    assert scan.A[0][0, 0] == s + f.maximum(v, -x)
    assert scan.b == (s + f.maximum(At("x", -1), f.tanh(x)),)
    assert scan.update(0) == f.maximum(s + f.maximum(v, -x) + H, scan.b[0])
    scan = scan_of(CELLS["cummin"])
    assert (scan.algebra, scan.A[0][0, 0], scan.b) == ("min-plus", 0, (x,)) and scan.past == (H,)


def test_what_is_linear_over_plus_times_stays_there() -> None:
    @lr.cell
    def both(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + lr.maximum(x[t], x[t - 1])
        return h[t]

    assert scan_of(both).algebra == "plus-times"


def test_the_slopes_of_logaddexp_far_out_and_at_a_tie() -> None:
    """torch has nan where both are -inf. That the curve is not flattened at a tie of numbers is for tests/nn to see."""
    a, b = np.array([-np.inf, -np.inf, 2.0, 2.0, 800.0, -np.inf]), np.array([-np.inf, 1.0, -np.inf, 2.0, -800.0, 1e300])
    slopes = f.TABLE["logaddexp"].partials(None, X, Y)
    with np.errstate(all="ignore"):
        got = [evaluate(s, {X: a, Y: b}) for s in slopes]
    np.testing.assert_array_equal(got, [[0.5, 0, 1, 0.5, 1, 0], [0.5, 1, 0, 0.5, 0, 1]])


@MIRRORED
@pytest.mark.parametrize("name", CELLS)
def test_a_plan_means_what_its_cell_says(name: str, mirrored: bool) -> None:
    for seed in range(2):
        test_meaning.check(CELLS[name].spec.mirrored() if mirrored else CELLS[name].spec, seed)


@MIRRORED
@pytest.mark.parametrize("name", CELLS)
def test_gradients_are_those_of_differences(name: str, mirrored: bool) -> None:
    """Once and twice. A constant edge is infinite in some: of these, `picked` and `mixture` give infinities."""
    spec = CELLS[name].spec.mirrored() if mirrored else CELLS[name].spec
    for program in plan_programs(spec):
        for T in (1, 2, 6):
            test_adjoint.check(program, T)
        if name not in ("picked", "mixture"):
            test_adjoint.check(program, 4, edges=False)
        test_adjoint.check(adjoint(simplify(program)).program, 4)


@pytest.mark.parametrize("name", ["folded", "mixture", "levels"])
def test_stages(name: str, golden: Any) -> None:
    plan = partition(stratify(CELLS[name].spec))
    adjoints = [adjoint(adjoint(simplify(p)).forward) for p in plan.programs]
    assert str(plan) == golden("1-plan")
    assert "\n\n".join(str(a.program) for a in adjoints) == golden("2-backward")
    assert "\n\n".join(str(tangent(a.forward).program) for a in adjoints) == golden("3-tangent")


def test_explain(golden: Any) -> None:
    assert CELLS["levels"].explain() == golden


def program_of(name: str) -> Program:
    (program,) = plan_programs(CELLS[name].spec)
    return simplify(program)


def test_the_algebra_is_part_of_the_key() -> None:
    program = program_of("longest")
    digests = {replace(program, steps=tuple(replace(s, algebra=name) for s in program.steps)).digest
               for name in ("plus-times", *ALGEBRAS)}
    assert len(digests) == 4
    infinite = replace(program, edges=tuple(replace(e, init=-float("inf")) for e in program.edges))
    assert infinite.digest != program.digest and "else -inf" in str(infinite)


def test_one_state_one_step_back() -> None:
    program = program_of("longest")
    (scan,) = program.steps
    assert isinstance(scan, Scan)
    two = replace(scan, A=(*scan.A, *scan.A))
    with pytest.raises(InternalError, match=r"h over \(max, \+\) is more than one state, one step back"):
        replace(program, steps=(two,)).check()


@pytest.mark.parametrize("name", CELLS)
def test_passes_are_cut_in_chunks_and_backward_ones_contract(name: str) -> None:
    """Coefficients of the algebra are added up; the slopes of its sum are between 0 and 1, and the equations say so."""
    for program in (simplify(p) for p in plan_programs(CELLS[name].spec)):
        scans = [s for s in program.steps if isinstance(s, Scan)]
        assert strategies(program, "cuda") == ("serial", "chunked")
        assert all(contracts(program)[s] for s in scans if s.other)
        backward = adjoint(program).program
        own = {f"back.{t}" for s in scans if s.other for t in s.targets}
        assert all(small for scan, small in contracts(backward).items() if set(scan.targets) & own)
        assert not any(s.other for s in backward.steps if isinstance(s, Scan))


def test_the_zero_of_an_algebra_has_no_interval() -> None:
    low, high = interval(f.maximum(f.where(X, -sp.oo, sp.S.Zero), sp.S.One) + f.where(X, sp.oo, Y), {})
    assert low <= 0 and high == float("inf") and not np.isnan([low, high]).any()


def test_recurrences_over_other_algebras_are_not_joined() -> None:
    """Two with equal addends are no block with a shared decay."""
    @lr.cell
    def two(a: lr.Input, x: lr.Input, p: lr.State, q: lr.State):
        p[t] = lr.maximum(p[t - 1] + a[t], x[t])
        q[t] = lr.maximum(q[t - 1] + a[t], -x[t])
        return p[t] - q[t]

    (program,) = (simplify(p) for p in plan_programs(two.spec))
    assert joined(program) == program and len([s for s in program.steps if isinstance(s, Scan)]) == 2
