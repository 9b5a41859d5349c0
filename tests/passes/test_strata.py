"""The strata of a Program over an axis: what is added up before what, which lines that takes, where there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lrdsl as lr
from lrdsl import exp, t, tanh
from lrdsl.backends.reference import run
from lrdsl.ir.kernel import Stratum
from lrdsl.ir.program import Keep, Program, Scan
from lrdsl.passes.levels import prepared
from lrdsl.passes.schedule import schedule
from lrdsl.passes.strata import hindrance, loose, staged, strata
from lrdsl.programs import backward_of, plan_of
from tests.axis_cells import mixed, returns, s6, turn


def found(program: Program) -> tuple[Stratum, ...]:
    return strata(prepared(program)[0], loose(program))


def added(program: Program) -> list[list[str]]:
    return [[state for scan in stratum.sums for state in scan.targets] for stratum in found(program)]


def test_recurrences_wait_for_those_in_their_coefficients() -> None:
    [forward] = plan_of(mixed(3).spec).programs
    assert added(forward) == [["g"], ["h"], ["q"]]
    assert added(plan_of(s6(3).spec).programs[0]) == [["h"]]
    assert added(backward_of(plan_of(s6(3).spec).programs[0])) == [["back.h"]]


def test_a_line_that_is_read_a_step_back_is_a_stratum_behind_its_own() -> None:
    backward = backward_of(plan_of(returns(3).spec).programs[0])
    assert added(backward) == [["back.g"], ["back.b.r"]]
    [scan] = found(backward)[1].sums
    assert scan not in backward.steps and scan.orders == (0,) and str(scan.b[0]) == "back.b.r[t]"


def test_a_stratum_has_the_lines_that_it_needs_and_no_others() -> None:
    first = found(backward_of(plan_of(s6(3).spec).programs[0]))[0].program
    names = {n for step in first.steps for n in step.targets}
    assert "back.h" in names and "d" in names and not any(n.startswith(("d.A", "d.B", "d.x", "h.again")) for n in names)
    assert not first.keeps and not first.sums and not first.registers and first.replay is None
    second = found(plan_of(mixed(3).spec).programs[0])[1].program
    assert [e.base for e in second.registers] == ["g"], "h is not solved there, and q is not needed"


def test_what_may_grow_is_also_computed_alone() -> None:
    [program] = plan_of(turn(3).spec).programs
    assert loose(program) == {"p", "q"} and not loose(plan_of(s6(3).spec).programs[0])
    [stratum] = found(program)
    [(scan, alone, _)] = stratum.alone
    assert scan in alone.steps and {e.base for e in alone.registers} == {"p", "q"} and not stratum.program.registers


@pytest.mark.parametrize("cell", [s6(2), mixed(2), turn(2)], ids=lambda c: c.name)
def test_strata_compute_what_the_program_does(cell: Any) -> None:
    """Each with its recurrences solved, as a Program of its own, by the reference."""
    [program] = plan_of(cell.spec).programs
    ready, constants = prepared(program)
    rng, (B, T, C, N) = np.random.default_rng(0), (2, 9, 3, 2)
    sizes = {"channel": C, "axis": N, "channel and axis": N * C, "one": 1}
    data: dict[str, Any] = {b.name: rng.uniform(-1, 1, (B, T, len(b.columns) * sizes[b.shape])) for b in program.buffers}
    data |= {v.name: rng.uniform(-1, 1, (sizes[v.shape],)) for v in program.vectors}
    states = [state for s in program.steps if isinstance(s, Scan) for state in s.targets]

    def values(made: Program, target: str) -> Any:
        whole = Program("whole", made.reverse, made.buffers, made.vectors, tuple(
            e for e in program.edges if e.base in made.loads or any(e.base in s.targets for s in made.steps)),
            (*constants, *made.steps), (Keep("out", (target,)),), (), made.axis, made.sized)
        given = data | {n: None for e in whole.edges for n in (e.start, e.edge) if n}
        return run(whole.check(), given, None)["out"]

    for stratum in found(program):
        for name in (state for scan in stratum.sums for state in scan.targets):
            assert name in states
            np.testing.assert_array_equal(values(stratum.program, name), values(ready, name))


def test_what_warps_share_fits_a_block() -> None:
    """Fewer steps are read at once where N is large, down to none."""
    def steps(cell: Any, dtype: str) -> int:
        [program] = plan_of(cell.spec).programs
        return staged(prepared(program)[0], dtype, loose(program))

    assert [steps(s6(N), dtype) for N, dtype in ((16, "float32"), (64, "float32"), (64, "float64"))] == [8, 8, 2]
    assert [steps(mixed(N), "float64") for N in (3, 64)] == [8, 0]
    kernel = schedule(plan_of(s6(64).spec).programs[0], "cuda", "float64", "chunked")
    assert kernel.axis and kernel.axis.stage == 2


def test_where_there_are_none() -> None:
    @lr.cell
    def sums(x: lr.Input, u: lr.Input = lr.Input(axis=3), w: lr.Vector = lr.Vector(size=3)):
        return lr.sum(tanh(u[t] * w) * exp(x[t]))

    [program] = plan_of(sums.spec).programs
    assert found(program) == () and hindrance(program) == ""
