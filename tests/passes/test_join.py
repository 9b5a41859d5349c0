"""Recurrences that decay alike: which are joined, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

import lrdsl as lr
from lrdsl import sigmoid, t
from lrdsl.backends.reference import run
from lrdsl.codegen.emit import emit
from lrdsl.ir.program import Program, Scan
from lrdsl.passes.join import joined
from lrdsl.passes.schedule import schedule
from lrdsl.programs import adjoint_of, plan_of, tangent_of
from tests.codegen.cells import CELLS

from .differences import draw


def scans(program: Program) -> list[tuple[str, ...]]:
    return [s.targets for s in program.steps if isinstance(s, Scan)]


def program_of(cell: lr.Cell) -> Program:
    return plan_of(cell.spec).programs[0]


def test_a_shared_decay_is_told_once() -> None:
    program = program_of(CELLS["weighted"])
    [scan] = [s for s in joined(program).steps if isinstance(s, Scan)]
    assert scan.targets == ("num", "den") and joined(program).structure(scan).name == "shared decay, 2 states"
    source = emit([schedule(program, "cuda", "float32", "chunked")])[0]
    assert source.messages == 2, "two states and one decay in two words; apart they would be four numbers, in two words too"
    assert emit([schedule(program, "cuda", "float64", "chunked")])[0].messages == 3


def test_what_reads_the_other_stays_apart() -> None:
    @lr.cell
    def chain(x: lr.Input, a: lr.State, b: lr.State, c: lr.State, d: lr.State):
        f = sigmoid(x[t])
        a[t] = f * a[t - 1] + x[t]
        b[t] = f * b[t - 1] + a[t - 1]
        c[t] = f * c[t - 1] + b[t]
        d[t] = (1 - f) * d[t - 1] + x[t]
        return c[t] + d[t]

    assert scans(joined(program_of(chain))) == scans(program_of(chain))
    assert scans(joined(tangent_of(program_of(lr.cells.linear_scan)).program)) == [("h",), ("h.dot",)]


def test_lines_between_them_move_behind() -> None:
    @lr.cell
    def between(x: lr.Input, a: lr.State, b: lr.State, c: lr.State):
        f = sigmoid(x[t])
        a[t] = f * a[t - 1] + x[t]
        y = a[t] * a[t - 1]
        c[t] = y * c[t - 1] + 1
        b[t] = f * b[t - 1] + x[t - 1]
        return b[t] + y * c[t]

    found = joined(program_of(between))
    assert scans(found) == [("a", "b"), ("c",)]


@pytest.mark.parametrize("name", ["weighted", "gilr", "strata", "pairs"])
def test_the_values_are_the_same(name: str) -> None:
    for forward in plan_of(CELLS[name].spec).programs:
        for program in (forward, adjoint_of(forward, frozenset()).program, tangent_of(forward).program):
            tensors, reset = draw(program, np.random.default_rng(0), 2, 7, 3)
            want, got = run(program, tensors, reset), run(joined(program), tensors, reset)
            for n in want:
                np.testing.assert_array_equal(got[n], want[n])
