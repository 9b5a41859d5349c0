"""Simplification changes how a value is computed, never the value; what it leaves, it leaves alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sympy as sp

from lrdsl.backends.reference import run
from lrdsl.ir import functions as f
from lrdsl.ir.program import Buffer, Edge, Keep, Let, Program, Vector
from lrdsl.ir.symbols import At, Param
from lrdsl.passes.adjoint import adjoint
from lrdsl.passes.simplify import flatten, fresh, prune, share, simplify
from tests.cells_for_tests import CELLS

from .differences import draw, plan_programs

PROGRAMS = [p for name in CELLS for p in plan_programs(CELLS[name].spec)]
EVERY = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
X, Y = At("x"), At("y")


def lines(*steps: Let, keep: str, vectors: tuple[str, ...] = ()) -> Program:
    """A Program of these lines that reads x and u."""
    buffers = (Buffer("x", ("x",)), Buffer("u", ("u",)))
    edges = (Edge("x", -1, 1, 0.0, "x.start", "x.edge"),)
    return Program("p", False, buffers, tuple(Vector(v) for v in vectors), edges, steps, (Keep(keep, (keep,)),))


@EVERY
@pytest.mark.parametrize("change", [flatten, prune, share, simplify])
def test_values_stay(program: Program, change: Callable[[Program], Program]) -> None:
    tensors, reset = draw(program, np.random.default_rng(0), 2, 4, 2)
    changed = change(program).check()
    want, got = run(program, tensors, reset), run(changed, {n: tensors[n] for n in changed.inputs}, reset)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert np.isfinite(value).all() and np.any(value), name
        np.testing.assert_allclose(got[name], value, rtol=1e-12, atol=1e-14, err_msg=name)


@EVERY
def test_a_second_time_changes_nothing(program: Program) -> None:
    once = simplify(program)
    assert simplify(once) == once and str(simplify(once)) == str(once)
    back = adjoint(once).program
    assert simplify(back) == back


@EVERY
def test_the_same_again_is_the_same_text(program: Program) -> None:
    assert str(simplify(program)) == str(simplify(program))
    assert str(adjoint(simplify(program))) == str(adjoint(simplify(program)))


@EVERY
def test_the_users_names_survive(program: Program) -> None:
    named = {t for step in program.steps for t in step.targets}
    kept = {t for step in simplify(program).steps for t in step.targets}
    copies = {step.target for step in program.steps if isinstance(step, Let) and step.expr.is_Atom}
    assert named - kept <= copies


def test_equal_lines_are_one() -> None:
    program = lines(Let("a", f.tanh(X * At("u"))), Let("b", f.tanh(X * At("u"))), Let("y", At("a") + 2 * At("b")), keep="y")
    assert [str(s) for s in simplify(program).steps] == ["a = tanh(u[t]*x[t])", "y = 3*a[t]"]


def test_parts_in_common_get_a_name() -> None:
    program = lines(Let("a", f.exp(X * At("u")) + X), Let("y", At("a") * f.exp(X * At("u"))), keep="y")
    assert [str(s) for s in simplify(program).steps] == ["v = exp(u[t]*x[t])", "a = v[t] + x[t]", "y = a[t]*v[t]"]


def test_lines_inputs_vectors_and_edges_that_nothing_needs_go() -> None:
    program = lines(Let("a", At("u") * Param("w") + At("x", -1)), Let("y", X + 1), keep="y", vectors=("w",))
    left = simplify(program)
    assert [str(s) for s in left.steps] == ["y = x[t] + 1"] and left.inputs == ("x",)


def test_what_is_kept_keeps_its_line_though_it_is_a_copy() -> None:
    assert [str(s) for s in simplify(lines(Let("y", X), keep="y")).steps] == ["y = x[t]"]


def test_flat_lines_call_one_function_of_atoms() -> None:
    program = flatten(lines(Let("y", f.sigmoid(f.tanh(X) * X + f.exp(2 * X))), keep="y"))
    calls = [a for step in program.steps for e in step.exprs for a in sp.preorder_traversal(e) if isinstance(a, f.Elementwise)]
    assert len(calls) == 3 and all(all(a.is_Atom for a in call.args) for call in calls)


def test_fresh_names() -> None:
    taken = {"v", "v_2"}
    assert [fresh(n, taken) for n in ("v", "v", "w")] == ["v_3", "v_4", "w"] and taken == {"v", "v_2", "v_3", "v_4", "w"}
