"""Which Program computes what, and which way it runs: as few as possible, each value in the first that can."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

import lrdsl as lr
from lrdsl import sigmoid, t, tanh
from lrdsl.ir.plan import Plan, Sequence
from lrdsl.ir.program import Program
from lrdsl.ir.symbols import samples
from lrdsl.passes.partition import partition
from lrdsl.passes.stratify import stratify
from tests.two_way_cells import TWO_WAY, beside, orders, there_and_back, zigzag

from .random_cells import random_cell


def plan(cell: lr.Cell) -> Plan:
    return partition(stratify(cell.spec))


def runs(made: Plan) -> str:
    """The ways of the Programs: F from the left, R from the right."""
    return "".join("FR"[p.reverse] for p in made.programs)


def written(made: Plan) -> list[str]:
    return [" ".join(k.name for k in p.keeps) for p in made.programs]


def test_a_plan_of_both_ways(golden: Any) -> None:
    assert str(plan(zigzag)) == golden


@pytest.mark.parametrize("cell", TWO_WAY.values(), ids=lambda c: c.name)
def test_a_mirrored_cell_runs_the_other_way(cell: lr.Cell) -> None:
    made, turned = plan(cell), plan(lr.Cell(cell.spec.mirrored()))
    assert runs(turned) == runs(made).translate(str.maketrans("FR", "RF"))
    assert written(turned) == written(made)

    def said(s: Sequence, way: int) -> tuple[Any, ...]:
        return s.key, s.side * way, s.depth, s.state

    assert {said(s, 1) for s in made.sequences} == {said(s, -1) for s in turned.sequences}
    assert [s.name for s in made.carried] == [s.name for s in turned.carried]


def test_as_few_programs_as_can_be() -> None:
    """To go on from the left as long as anything can would cost one more, and so would to begin with the first state."""
    @lr.cell
    def late(x: lr.Input, a: lr.State, c: lr.State, b: lr.State, d: lr.State, W: lr.Affine):
        a[t] = a[t - 1] / 2 + x[t]
        c[t] = c[t + 1] / 2 + a[t]
        b[t] = sigmoid(W(a[t])) * b[t - 1] + x[t]
        d[t] = d[t - 1] / 2 + c[t]
        return b[t] + d[t]

    @lr.cell
    def second(x: lr.Input, a: lr.State, b: lr.State, c: lr.State):
        a[t] = a[t - 1] / 2 + x[t]
        b[t] = b[t + 1] / 2 + x[t]
        c[t] = c[t - 1] / 2 + b[t]
        return a[t] * c[t]

    assert (runs(plan(late)), written(plan(late))) == ("FRF", ["a", "c", "y"])
    assert (runs(plan(second)), written(plan(second))) == ("RF", ["b", "y"])


@pytest.mark.parametrize("seed", range(30))
def test_random_cells_take_no_more_than_any_order_would(seed: int) -> None:
    """All orders of one Program less, each of which computes what it can: none of them gets to the end."""
    made = plan(random_cell(seed, two_ways=True))
    steps = {step.targets: step for p in made.programs for step in p.steps}.values()
    source = {b.target: d.source for d in made.steps if not hasattr(d, "program") for b in d.blocks}
    own = {s.name: s.side for s in made.carried}

    def reached(ways: tuple[int, ...]) -> bool:
        """ways: the side that each Program comes from."""
        memory = set(made.inputs)
        for back in ways:
            new: set[str] = set()
            while True:  # until nothing is added, in whatever order the steps stand
                more = {n for step in steps if all(own.get(n, back) == back for n in step.targets) and all(
                    source.get(s.base, s.base) in memory or (s.base not in source and s.base in new and s.lag * back >= 0)
                    for e in step.exprs for s in samples(e)) for n in step.targets}
                if more <= new:
                    break
                new |= more
            memory |= new
        return all(memory.issuperset(step.targets) for step in steps)

    assert reached(tuple(1 if p.reverse else -1 for p in made.programs))
    assert not any(map(reached, product((-1, 1), repeat=len(made.programs) - 1)))


def lagged(program: Program) -> set[str]:
    return {str(s) for s in program.reads() if s.lag}


def test_what_is_solved_is_read_on_both_sides_from_memory() -> None:
    second = plan(orders).programs[1]
    assert second.reverse and {"p", "q"} <= set(second.loads) and {"p[t-1]", "p[t+1]", "q[t+1]"} <= lagged(second)
    assert [(e.base, e.side, e.start, e.final) for e in second.edges if e.base == "p"] == [
        ("p", -1, "p.start", None), ("p", 1, "p.ahead.start", None)]


def test_names_of_edges() -> None:
    """A state has its plain name on the side that its run comes from; an input goes with the first state."""
    @lr.cell
    def cell(x: lr.Input, b: lr.State, f: lr.State):
        b[t] = x[t + 1] * b[t + 1] + x[t - 1]
        f[t] = b[t - 2] * f[t - 1] + b[t + 1]
        return f[t + 3]

    assert [(s.key, s.side, s.depth) for s in plan(cell).sequences] == [
        ("b", 1, 1), ("b.ahead", -1, 2), ("f", -1, 1), ("f.ahead", 1, 3), ("x", 1, 1), ("x.ahead", -1, 1)]
    assert [s.key for s in plan(cell).carried] == ["b", "f"]


def test_a_state_that_is_no_recurrence_and_read_on_both_sides_runs_as_the_first_that_is_one() -> None:
    made = plan(beside)
    assert [(s.name, s.side) for s in made.carried] == [("z", -1), ("f", -1), ("b", 1)]
    assert "z.final" in made.programs[0].outputs and not made.programs[0].reverse


def test_lines_that_both_ways_need_are_computed_again() -> None:
    made = plan(beside)
    assert runs(made) == "FFR" and written(made) == ["z", "f", "y"]
    assert ["k = sigmoid(x[t])" in str(p) for p in made.programs] == [False, True, True]


def test_a_line_that_is_read_against_the_run_is_written() -> None:
    """The value of a reverse surrogate, inside an operand that is an expression, a step ago."""
    @lr.cell
    def plain(x: lr.Input, h: lr.State, W: lr.Affine):
        h[t] = sigmoid(x[t]) * h[t - 1] + W(tanh(h[t - 1] * x[t]))
        return h[t]

    @lr.cell
    def ahead(x: lr.Input, s: lr.State):
        s[t] = s[t + 1] / 2 + x[t]
        return 2 * s[t]

    made = plan(lr.surrogate(plain, h=ahead))
    assert (runs(made), written(made)) == ("RFF", ["h.y", "W.in0", "h"])
    assert "h.y[t-1]" in lagged(made.programs[1]) and "h.y" in made.programs[1].loads


def test_which_way_is_said() -> None:
    assert plan(there_and_back).both_ways == "f runs from the left and b runs from the right"
    assert plan(beside).both_ways == "z, f run from the left and b runs from the right"
    assert plan(lr.cells.gilr_lstm).both_ways == plan(lr.cells.linear_scan_reverse).both_ways == ""
