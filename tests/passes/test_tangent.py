"""Forward mode against central differences of the reference."""

from __future__ import annotations

import numpy as np
import pytest

from lrdsl.backends.reference import run
from lrdsl.ir.functions import detach
from lrdsl.ir.program import Buffer, Keep, Let, Program
from lrdsl.ir.symbols import At
from lrdsl.passes.adjoint import adjoint
from lrdsl.passes.simplify import simplify
from lrdsl.passes.tangent import tangent
from tests.cells_for_tests import CELLS

from .differences import STEP, draw, plan_programs


def check(program: Program, T: int = 4, B: int = 2, C: int = 2, *, edges: bool = True) -> None:
    """The outputs' tangents along one random direction of all inputs."""
    made = tangent(program)
    rng = np.random.default_rng(T)
    tensors, reset = draw(program, rng, B, T, C, edges=edges)
    direction = {n: rng.normal(size=np.shape(v)) for n, v in tensors.items()}
    up, down = (run(program, {n: v + sign * STEP * direction[n] for n, v in tensors.items()}, reset) for sign in (1, -1))
    where = {"input": tensors, "tangent": direction}
    given = run(made.program, {n: where[k].get(m) for n, (k, m) in zip(made.program.inputs, made.takes, strict=True)}, reset)
    assert set(filter(None, made.gives)) == set(made.program.outputs)
    moved = False
    for name, dot in zip(program.outputs, made.gives, strict=True):
        slope = (up[name] - down[name]) / (2 * STEP)
        np.testing.assert_allclose(given[dot] if dot else np.zeros_like(slope), slope, rtol=1e-5, atol=1e-6, err_msg=name)
        moved |= bool(np.any(slope))
    assert moved


@pytest.mark.parametrize("name", CELLS)
def test_tangents_are_those_of_differences(name: str) -> None:
    for program in plan_programs(CELLS[name].spec):
        check(adjoint(simplify(program)).forward)


@pytest.mark.parametrize("name", ["gilr", "strata", "spiral", "discounted"])
def test_a_backward_pass_has_tangents_too(name: str) -> None:
    for program in plan_programs(CELLS[name].spec):
        check(adjoint(simplify(program)).program)


def test_edges_that_are_not_given_do_not_move() -> None:
    for program in plan_programs(CELLS["compound"].spec):  # its state starts at 0.25
        check(adjoint(simplify(program)).forward, edges=False)


def test_detach_stops_tangents() -> None:
    steps = (Let("y", detach(At("x"))), Let("z", At("y") + At("x")))
    program = Program("still", False, (Buffer("x", ("x",)),), (), (), steps, (Keep("y", ("y",)), Keep("z", ("z",))))
    made = tangent(program)
    given = run(made.program, dict.fromkeys(made.program.inputs, np.ones((1, 2, 1))))
    assert made.gives == ("y.dot", "z.dot") and not given["y.dot"].any() and (given["z.dot"] == 1).all()
