"""The backward pass against central differences of the reference: every input, every kind of read, boundaries, twice."""

from __future__ import annotations

import numpy as np
import pytest

import lrdsl as lr
from lrdsl.backends.reference import run
from lrdsl.ir.program import Program
from lrdsl.ir.symbols import At
from lrdsl.passes.adjoint import Adjoint, adjoint
from lrdsl.passes.simplify import simplify
from tests.cells_for_tests import CELLS

from .differences import backward, differences, draw, plan_programs, worst
from .random_cells import random_cell

SMOOTH = 1e-6  # central differences with a step of 1e-6 are good to about 1e-8 here


def check(program: Program, T: int, B: int = 2, C: int = 2, *, edges: bool = True) -> Adjoint:
    """Both gradients of one Program on random tensors with random boundaries; gives the adjoint."""
    made = adjoint(adjoint(simplify(program)).forward)
    rng = np.random.default_rng(T)
    tensors, reset = draw(made.forward, rng, B, T, C, edges=edges)
    outputs = run(made.forward, tensors, reset)
    cotangents = {n: rng.normal(size=o.shape) for n, o in outputs.items()}
    got = backward(made, tensors, outputs, cotangents, reset)
    error, name = worst(got, differences(made.forward, tensors, cotangents, reset))
    assert error < SMOOTH, f"the gradient of {name} in {program.name}, T={T}"
    assert any(np.any(g) for g in got.values())
    return made


@pytest.mark.parametrize("mirrored", [False, True], ids=["as-written", "mirrored"])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_are_those_of_differences(name: str, mirrored: bool) -> None:
    spec = CELLS[name].spec.mirrored() if mirrored else CELLS[name].spec
    for program in plan_programs(spec):
        for T in (1, 2, 6):
            check(program, T)


@pytest.mark.parametrize("seed", range(4))
def test_random_cells(seed: int) -> None:
    for program in plan_programs(random_cell(seed).spec):
        check(program, T=4)


@pytest.mark.parametrize("name", [n for n in CELLS if n not in ("gilr_lstm_now", "gilr")])
def test_the_backward_pass_is_differentiated_again(name: str) -> None:
    for program in plan_programs(CELLS[name].spec):
        check(adjoint(simplify(program)).program, T=4)


@pytest.mark.parametrize("name", ["compound", "spiral", "against"])
def test_edges_that_are_not_given_are_constants(name: str) -> None:
    for program in plan_programs(CELLS[name].spec):
        check(program, T=3, edges=False)


def test_the_forward_with_its_keeps_is_a_fixed_point() -> None:
    for program in plan_programs(CELLS["gilr_lstm"].spec):
        forward = adjoint(simplify(program)).forward
        assert adjoint(forward).forward == forward


def test_a_state_is_computed_again_where_that_saves_a_load() -> None:
    """SRU reads c[t-1] and gates; c[t] follows. A scan whose rest would have to be read for it is loaded at t as well."""
    [sru] = plan_programs(lr.cells.sru.spec)
    reads = adjoint(simplify(sru)).program.reads()
    assert At("c", -1) in reads and At("c") not in reads and At("c.again") in reads

    @lr.cell
    def apart(a: lr.Input, b: lr.Input, h: lr.State):
        h[lr.t] = lr.sigmoid(a[lr.t]) * h[lr.t - 1] + b[lr.t]
        return lr.sin(h[lr.t])

    [program] = plan_programs(apart.spec)
    reads = adjoint(simplify(program)).program.reads()
    assert {At("h"), At("h", -1)} <= set(reads) and At("b") not in reads
    check(program, 5)
    check(sru, 5)
