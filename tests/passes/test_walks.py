"""The walks of a chunked kernel: which line stands where, what is held, what is handed on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lrdsl as lr
from lrdsl import t
from lrdsl.codegen.emit import emit
from lrdsl.ir.kernel import Walk
from lrdsl.ir.program import Program, Scan
from lrdsl.ir.symbols import At, samples
from lrdsl.passes.schedule import chosen, schedule, strategies
from lrdsl.passes.walks import hindrance, walks
from lrdsl.programs import backward_of, plan_of
from tests.codegen.cells import CELLS


def every() -> Iterator[Program]:
    for cell in CELLS.values():
        for p in plan_of(cell.spec).programs:
            yield from (p, backward_of(p))


def said(program: Program) -> list[str]:
    return [str(w) for w in walks(program)]


def test_a_recurrence_takes_two_walks() -> None:
    [program] = plan_of(lr.cells.linear_scan.spec).programs
    assert said(program) == ["adds up h; holds a[t], b[t]", "computes h; runs h"]


def test_cheap_lines_are_computed_again_where_that_saves_a_register() -> None:
    first, second = walks(backward_of(plan_of(lr.cells.gilr.spec).programs[0]))
    again = {t for s in second.steps for t in s.targets}
    assert "v" in again and At("v") not in first.held and "v" not in {t for s in first.steps for t in s.targets}
    assert At("g") in first.held, "a function's value is held, not computed twice"


def test_a_function_inside_a_recurrence_is_computed_once() -> None:
    @lr.cell
    def bare(x: lr.Input, y: lr.Input, h: lr.State):
        h[t] = lr.sigmoid(x[t]) * h[t - 1] + lr.tanh(lr.exp(y[t]) + 1) * x[t]
        return h[t]

    kernel = schedule(plan_of(bare.spec).programs[0], "cuda", "float32", "chunked")
    assert kernel.chunks and [str(a) for a in kernel.chunks.walks[0].held] == ["sigmoid.x[t]", "tanh.y[t]", "x[t]"]
    text = emit([kernel])[0].text
    assert [text[text.index("namespace bare"):].count(f"lr_{n}(") for n in ("sigmoid", "tanh", "exp")] == [1, 1, 1]


def test_a_stratum_waits_for_the_one_before() -> None:
    program = plan_of(CELLS["strata"].spec).programs[0]
    found = walks(program)
    solved = {t: n for n, w in enumerate(found) for s in w.solved for t in s.targets}
    assert solved["x"] < solved["y"]
    assert [e.base for w in found for e in w.tails] == ["x", "z"], "what is read two or three steps back is handed on"


def test_a_gradient_that_only_moves_is_written_further_on() -> None:
    found = walks(backward_of(plan_of(CELLS["gilr_lstm"].spec).programs[1]))
    assert len(found) == 2 and not any(w.tails for w in found)
    assert sorted(n for w in found for _, names in w.pushes for n in names) == [
        "d.enter.h.h", "d.forget.h.h", "d.leave.h.h", "d.update.h.h"]


def test_what_is_added_to_something_is_not_pushed() -> None:
    @lr.cell
    def twice(x: lr.Input, h: lr.State):
        h[t] = 0.5 * h[t - 1] + x[t] * x[t - 1]
        return h[t]

    found = walks(backward_of(plan_of(twice.spec).programs[0]))
    assert [e.base for w in found for e in w.tails] == ["back.x"] and not any(w.pushes for w in found)


def test_coupled_states_and_orders_are_cut() -> None:
    """The state of a recurrence is known in the walk that solves it, as far back as the recurrence itself reads."""
    assert said(plan_of(CELLS["order_two"].spec).programs[0])[1] == "computes y; runs y"
    assert said(plan_of(CELLS["rotation"].spec).programs[0])[0].startswith("adds up x, y")
    assert strategies(plan_of(CELLS["ring"].spec).programs[0], "cuda") == ("serial", "chunked")


def test_large_states_are_not_cut() -> None:
    spiral = plan_of(CELLS["spiral"].spec).programs[0]
    assert hindrance(spiral).startswith("the state of x, y has 5 numbers") and strategies(spiral, "cuda") == ("serial",)
    six = plan_of(CELLS["order_six"].spec).programs[0]
    assert not hindrance(six), "two powers of one matrix, where the coefficients are constant"
    assert schedule(six, "cuda", "float64", "chunked").block == 128 and schedule(six, "cuda", "float64").block == 64


def test_what_blocks_share_is_limited() -> None:
    @lr.cell
    def both(x: lr.Input, y: lr.Input, a: lr.State, b: lr.State, p: lr.Vector, q: lr.Scalar):
        a[t] = x[t] * a[t - 1] + y[t] * a[t - 4]
        b[t] = p * b[t - 1] + q * b[t - 4] + a[t]
        return b[t]

    assert "bytes a block, and blocks share 49152" in hindrance(plan_of(both.spec).programs[0])


def test_what_is_read_far_back_is_not_cut() -> None:
    """Each warp would have to hold as many steps: registers run out, and so do the bits that say where a boundary is."""
    def product(k: int) -> Program:
        @lr.cell
        def far(x: lr.Input, h: lr.State):
            h[t] = 0.5 * h[t - 1] + x[t] * x[t - k]
            return h[t]

        return backward_of(plan_of(far.spec).programs[0])

    assert not hindrance(product(16)) and hindrance(product(17)).startswith("it keeps 17 steps")
    chunks = schedule(product(16), "cuda", "float64", "chunked").chunks
    assert chunks and chunks.steps == 16


def test_what_a_replay_reads_is_held() -> None:
    program = plan_of(CELLS["leaning"].spec).programs[0]
    loose = tuple(s for s in program.steps if isinstance(s, Scan) and s.targets == ("b",))
    held = [a for w in walks(program, loose) for a in w.held]
    assert At("a", -1) in held and At("a", -1) not in [a for w in walks(program) for a in w.held]


def check(program: Program, found: tuple[Walk, ...]) -> None:
    """What every walk reads is loaded, held, run in it, or computed before it in the walk; all is computed, sums in time."""
    pushed = {n for w in found for _, names in w.pushes for n in names}
    held: set[At] = set()
    done: set[str] = set()
    for n, walk in enumerate(found):
        has = {a for a in program.reads() if a.base in program.loads} | held
        has |= {At(e.base, e.side * k) for e in walk.registers for k in range(1, e.depth + 1)}
        has |= {a for s in walk.solved for a in s.state}
        for step in walk.steps:
            if not isinstance(step, Scan):
                assert {a for e in step.exprs for a in samples(e)} <= has, f"{program.name}, walk {n}: {step}"
            else:
                assert step in found[n - 1].sums
            has |= {At(t) for t in step.targets}
            done |= set(step.targets)
        assert {a for s in walk.sums for e in s.exprs for a in samples(e)} <= has
        assert {At(e.base) for e in (*walk.tails, *walk.registers)} <= has
        assert {a for a in walk.held if a.base not in program.loads} <= has
        held = set(walk.held)
    assert done | pushed == {t for s in program.steps for t in s.targets}


@pytest.mark.parametrize("program", [p for p in every() if not hindrance(p)], ids=lambda p: p.name)
def test_every_walk_has_what_it_reads(program: Program) -> None:
    found = walks(program)
    check(program, found)
    chunks = schedule(program, "cuda", "float32", "chunked").chunks
    assert chunks and chunks.steps >= max([2, *(e.depth for w in found for e in w.tails)])


def test_a_kernel_says_its_walks() -> None:
    text = str(schedule(plan_of(lr.cells.gilr.spec).programs[0], "cuda", "float32", "chunked"))
    assert "chunks of 8 warps * 16 steps" in text and "walk 2: computes h; runs h" in text


def test_the_rule_between_the_strategies() -> None:
    """Few channels and many steps are cut in chunks."""
    both, lone = (plan_of(cell.spec).programs[0] for cell in (lr.cells.gilr, CELLS["spiral"]))
    sizes = {(1, 129, 1): "chunked", (1, 128, 1): "serial", (8, 4096, 1024): "chunked", (1, 10**6, 23_999): "chunked",
             (240, 4096, 100): "serial"}
    assert {size: chosen(both, "cuda", "float32", *size) for size in sizes} == sizes
    assert chosen(lone, "cuda", "float32", 1, 10**6, 1) == "serial"
