"""Faults planted in the text of CUDA kernels, each of which the emulator or the numbers must show: the tests are tested.

A fault is an edit of the generated text. It is caught where a launch of the battery ends in an EmulationError or gives other
numbers than the reference; the text as it is passes the whole battery.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

import lrdsl as lr
from lrdsl.backends.emulated import SCHEDULES, EmulationError, Emulator, Schedule
from lrdsl.ir.program import Program
from lrdsl.ir.source import RESET, Launch, Source
from lrdsl.kernels import source_of
from tests.backends.harness import Problem, programs
from tests.codegen.cells import CELLS

pytestmark = pytest.mark.usefixtures("compiler")

# More blocks than are resident, early ones last, messages late and torn; and the plain order, where faults of one thread show.
ADVERSE = (SCHEDULES[0], Schedule("random", "reversed", resident=4, preempt=100, weak=True, seed=7), SCHEDULES[5],
           Schedule("random", "random", resident=12, preempt=200, weak=True, seed=8))


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in the text of a kernel; in all of its places, or in the one numbered `only`."""

    name: str
    old: str
    new: str
    cell: str = "linear_scan"
    kind: str = "forward"
    strategy: str = "chunked"
    dtype: str = "float32"
    only: int | None = None

    def planted(self, text: str) -> str:
        """The text with the fault. It must have been possible to plant it."""
        parts = text.split(self.old)
        assert len(parts) > 1 and self.old != self.new, f"nothing to change for: {self.name}"
        if self.only is None:
            return self.new.join(parts)
        return self.old.join(parts[:self.only + 1]) + self.new + self.old.join(parts[self.only + 1:])


BARRIER = "__syncthreads();"
FAULTS = (
    Fault("a chunk is the block's number, not its ticket", "ticket = atomicAdd((unsigned *)a.scratch, 1u)",
          "ticket = blockIdx.x"),
    Fault("the ticket is read before it is there", f"1u);\n  {BARRIER}", "1u);"),
    Fault("transitions are read before they are there", f"board.put(w, x, mine);\n  {BARRIER}", "board.put(w, x, mine);"),
    Fault("what comes before a warp is read too early", f"  {BARRIER}\n  const Stretch<M> upto", "  const Stretch<M> upto"),
    Fault("the sums of other chunks are read too early", f"  {BARRIER}\n  bool slow = false;", "  bool slow = false;"),
    Fault("the state is read too early", f"  if (!LOOSE) {{\n    {BARRIER}", "  if (!LOOSE) {", cell="gilr"),
    Fault("transitions are combined in the wrong order", "whole.then(next);",
          "{ Stretch<M> s = next; s.then(whole); whole = s; }"),
    Fault("a boundary in a stretch is forgotten", "b = later(b), cut = cut || later.cut;", "b = later(b);", "gilr"),
    Fault("what a boundary cut off is multiplied by 0", "return cut ? b : a(h, b);", "return a(h, b);", "gilr"),
    Fault("a message is written in pieces", "emu_store_relaxed(at, w);", "*at = w;", cell="gilr"),
    Fault("half a transition is enough", " : w[i].flag != NOTHING || w[0].flag != TRANSITION)", " : true)", cell="gilr",
          dtype="float64"),
    Fault("half a state is enough", "w[i].flag == w[0].flag :", "w[i].flag != NOTHING :", cell="order_two",
          dtype="float64"),
    Fault("half a state ends the wait", "!m.there() || m.w[0].flag != STATE", "m.w[0].flag != STATE", cell="order_two",
          dtype="float64"),
    Fault("a state of order two moves the wrong way", "y_prev2 = there ? y_prev :", "y_prev2 = there ? y :", cell="order_two"),
    Fault("the farther initial value is lost", "y_start_beyond.at(1)", "y_start_beyond.at(0)", cell="order_two"),
    Fault("a chunk has the power of a warp", "powers.times(powers.chunk, x, h, b)", "powers.times(powers.warp, x, h, b)",
          cell="order_four"),
    Fault("a power is squared once too little", "for (int n = 1; n < W; n *= 2)", "for (int n = 2; n < W; n *= 2)",
          cell="order_four"),
    Fault("columns are rows", "a[j][i][x], h.of[j]", "a[i][j][x], h.of[j]", cell="order_four"),
    Fault("what is known is read too early", f"board.flag[w][x] = mine.cut;\n  {BARRIER}", "board.flag[w][x] = mine.cut;",
          cell="order_four"),
    Fault("an overflow of powers is not seen", "< LR_LIMIT); };", "< LR_LIMIT) && false; };", cell="order_four"),
    Fault("a boundary keeps the farther value", "          y_prev2 = y_edge_beyond.at(1);\n", "", cell="order_two"),
    Fault("a rotation turns the other way", "lr_fma(-p[1], e.p[1], p[0] * e.p[0])", "lr_fma(p[1], e.p[1], p[0] * e.p[0])",
          cell="oscillator"),
    Fault("the last of a group tells no state", "before == GROUP - 1 && !at.last()", "before == GROUP - 2 && !at.last()"),
    Fault("the transitions of the last few chunks are left out", "(i - 1) * EACH < before; ++i", "i * EACH < before; ++i"),
    Fault("one message of a warp is left out", "if (i < count) sum.then", "if (i < count && i < 3) sum.then"),
    Fault("the initial state is lost", "h_start_beyond.at(0)}", "0}"),
    Fault("a value is handed on from the wrong warp", "return board.a[0][w - 1][x];", "return board.a[0][w][x];", "strata"),
    Fault("a value is handed on before it is there", f"State<1>{{{{mine}}}});\n  {BARRIER}", "State<1>{{mine}});", "strata"),
    Fault("missing steps cross boundaries", "k < n && at[k].crossed", "at[k].crossed", "gilr", "backward"),
    Fault("missing steps are added up", "_total += there ? ", "_total += true ? ", "gilr", "backward"),
    Fault("lanes without a channel write", "if ((all.of || live) && there)", "if (there)"),
    Fault("missing steps are read", "load(s0 + k < a.T ? s0 + k : a.T - 1, reset)", "load(s0 + k, reset)"),
    Fault("a warp without steps ends the sequence", "if (n && s0 + n == a.T)", "if (s0 + n == a.T)", only=0),
    Fault("sums of warps are read before they are there", f"mine;\n  {BARRIER}\n  V sum", "mine;\n  V sum", "gilr",
          "backward"),
    Fault("all chunks write one part", "(chunk * a.B + b) * a.C", "b * a.C", "gilr", "backward"),
    Fault("an overflow is not seen", "return !(lr_fma(most, size_of(h), rest) < limit);", "return false;"),
    Fault("a slow chunk tells no state", "if (w == 0 && slow && !at.last())", "if (false)"),
    Fault("a slow chunk goes through its warps at once", "if (w == i && slow)", "if (i == 0 && slow)"),
    Fault("a gradient that is written further on crosses a boundary", "cut ? zeros.at(0) : back_forget_h_h", "back_forget_h_h",
          "gilr_lstm", "backward"),
    Fault("a gradient that is written further on leaves the sequence", "&& s + 1 < a.T", "", "gilr_lstm", "backward"),
    Fault("the ring reads past the end", "< a.T) ring[r] = load(lo", "<= a.T) ring[r] = load(lo", strategy="serial"),
    Fault("the last boundary is forgotten", "if (a.T && reset.at(0)) cross();", "", kind="backward", strategy="serial"),
    Fault("the register forgets its edge", "h_prev = h_edge_beyond.at(0);", "", strategy="serial"),
    Fault("a part of a sum is lost", "_total + ", "_total + 0 * ", "gilr", "backward", "serial"),
)


def kernel(fault: Fault) -> tuple[Program, Source]:
    """The Program that a fault is planted in, the last of the cell's, and its text."""
    program = programs(CELLS[fault.cell], [fault.kind])[-1]
    return program, source_of(program, "cuda", fault.dtype, strategy=fault.strategy)  # type: ignore[arg-type]


@functools.cache
def problems(program: Program, chunk: int) -> tuple[tuple[Problem, int, int], ...]:
    """Problems, and how many batch elements and channels of them: long and short, with boundaries, growing, poisoned."""
    some = chunk or 16
    long = 31 * some + 5
    rng = np.random.default_rng(1)
    made = [(Problem(program, T, reset=reset, edges=edges), B, C)
            for T, reset, edges, B, C in ((3, "some", "given", 2, 33), (2 * some + 3, "every", "given", 1, 3),
                                          (some + some // 8, "none", "given", 1, 3), (long, "some", "given", 1, 3),
                                          (long, "none", "given", 1, 33))]

    def more(T: int, reset: str, **given: np.ndarray) -> None:
        made.append((Problem(program, T, edges="given", reset=reset, given=given), 1, 3))

    last = np.zeros((3, some + 3), bool)
    last[:, 1 if program.reverse else -1] = True
    more(some + 3, "none", **{RESET: last})
    if program.name == "linear_scan":
        ones, zeros = np.ones((3, long, 1, 100)), np.zeros((3, 1, 100))
        more(long, "none", a=1 - 4 / long * rng.random(ones.shape))
        late = ones * (np.arange(long) > long - 20)[None, :, None, None]
        for grows in (1.5, 3.0):
            more(long, "none", a=grows * ones, b=late, **{"h.start": zeros})
    if program.name == "oscillator":  # of modulus near 1
        ones = np.ones((3, long, 1, 100))
        more(long, "none", r=np.log(long / 4) * ones, w=rng.uniform(0, 3, ones.shape))
    if program.name == "order_four":  # with two such roots and two that vanish; then as below, with every second step
        modulus, zeros = 1 - 4 / long, np.zeros(100)
        more(long, "none", p=2 * modulus * np.cos(rng.uniform(0, 3, 100)), q=-modulus ** 2 + zeros, r=zeros, s=np.zeros(1))
        ends = np.stack([zeros, 1 + zeros, zeros, 1 + zeros])[None] + np.zeros((3, 1, 1))
        quiet = np.zeros((3, long, 1, 100))
        more(long, "none", p=zeros + 2.0 ** 20, q=zeros, r=zeros, s=np.zeros(1), x=quiet, **{"y.start": 0 * ends})
    if program.name == "order_two":  # with roots of modulus near 1
        ones, modulus = np.ones((3, long, 1, 100)), 1 - 4 / long
        more(long, "none", a=2 * modulus * np.cos(rng.uniform(0, 3, 100)) * ones, b=-modulus ** 2 * ones)
        # Even steps keep what they are, odd ones are 0 and would grow: every chunk waits for a state of which one half is 0.
        growth = np.where(np.arange(long) % 2, 1e12, 1.0)[None, :, None, None] * ones
        ends = np.stack([np.zeros((3, 100)), np.ones((3, 100))], 1)
        more(long, "none", a=0 * ones, b=growth, **{"y.start": ends, "a.start": 0 * ends[:, :1], "b.start": 0 * ends})
    if program.name == "gilr":
        maps = rng.uniform(-0.5, 0.5, (3, long, 2, 100))
        maps[:, :, 0] += np.log(long / 4)
        more(long, "none", **{"x.maps": maps.copy()})
        maps[:, ::70] = np.nan
        more(long, "some", **{"x.maps": maps})
    return tuple(made)


def wrong(source: Source, program: Program) -> Iterator[str]:
    """What the battery finds, as it finds it."""
    emulator = Emulator(source)
    for schedule in ADVERSE:
        launch = Launch(lambda values, threads, device, stream, scratch, s=replace(schedule, seconds=20.0): (
            emulator.run(values, s, scratch), None)[1], source.extent)
        for problem, B, C in problems(program, source.chunk):
            try:
                outputs = problem.solve(launch, B, C, dtype=source.dtype)
            except EmulationError as error:
                yield str(error)
                continue
            for name, got in outputs.items():
                want = problem.wanted(name, B, C)
                apart = np.abs(np.nan_to_num(got - want)).max(initial=0) / (1 + np.abs(np.nan_to_num(want)).max(initial=0))
                if (np.isnan(got) != np.isnan(want)).any() or apart > (1e-4 if source.dtype == "float32" else 1e-12):
                    yield f"{name} is off by {apart:.1e}"


@pytest.mark.parametrize("fault", [pytest.param(f, marks=pytest.mark.long) if n % 2 else f for n, f in enumerate(FAULTS)],
                         ids=lambda f: f.name.replace(" ", "-"))
def test_a_planted_fault_is_caught(fault: Fault) -> None:
    program, source = kernel(fault)
    spoiled = replace(source, text=fault.planted(source.text))
    assert next(wrong(spoiled, program), None) is not None, "nobody noticed"


@pytest.mark.parametrize("fault", {(f.cell, f.kind, f.strategy, f.dtype): f for f in FAULTS}.values(),
                         ids=lambda f: f"{f.cell}-{f.kind}-{f.strategy}-{f.dtype}")
def test_the_text_as_it_is_passes(fault: Fault) -> None:
    program, source = kernel(fault)
    assert list(wrong(source, program)) == []


def test_there_are_enough_faults() -> None:
    assert len(FAULTS) >= 20 and len({f.name for f in FAULTS}) == len(FAULTS)
    assert lr.cells.linear_scan in CELLS.values()
