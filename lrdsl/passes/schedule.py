"""From Program to Kernel: who loads what, holds what, writes what, for a target; and which kernel runs at which size.

Non-goals: text. Names are settled here, because two targets must not disagree about them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from ..errors import NotBuilt
from ..ir import dtypes
from ..ir.functions import Elementwise
from ..ir.kernel import CHAINED, LANES, Axis, Chunks, Kernel, Read, Strategy, Target, lagged
from ..ir.names import c_name
from ..ir.program import Program, Scan
from . import chain, in_lanes
from .bounds import contracts
from .join import joined
from .levels import levels, prepared
from .order import in_order
from .strata import SHARED, STEPS, WARPS, board, loose, staged, strata
from .walks import hindrance, named, walks, warps

# A CUDA thread keeps up to 16 steps of loads in flight: a large GPU wants 128 bytes of them a thread, which has 255 registers
# for everything. As many steps are written out in a row; the functions called there must fit the instruction cache.
IN_FLIGHT, IN_A_ROW = 40, 64

# serial needs a channel for each of the threads that fill a large GPU, 132 multiprocessors' worth; chunked finds them in time
# as well, but pays for what chunks say to each other, and has nothing to cut in short sequences.
MANY, SHORT = 24_000, 128

# Two blocks run at once on a multiprocessor where a thread has 128 registers; a heavy Program gets them all, for one block,
# rather than few steps a warp, which would have much to tell for little work. By ptxas, which must not spill, so many
# registers may hold what is known of a warp's steps, learned numbers and sums; the rest is for addresses and arithmetic.
HELD_OF_128, HELD_OF_255 = 44, 120

# Threads share the channels of rows (CPU) in pieces of so many bytes at least: of narrower ones a processor fetches what lies
# beside them, too. More where blocks of time, in walks that hold in registers what they add up, are quicker; and where rows do
# not fill lines of a cache, so many that few lines are two threads'. `templates/cpu/common.h` cuts them.
PIECE, LIGHT_PIECE, RAGGED_PIECE = 256, 512, 1024

# chained (CPU): blocks of time, for memory that does not fit the farthest cache, whose inputs take so many bytes, a quarter of
# a near cache, or less: twice the inputs and the values left for later walks take half of it; of so many steps at least, and
# of so many channels at most.
CACHE, BLOCK, SHORTEST, WIDEST = 32 << 20, 256 << 10, 64, 512

# What is larger than that cache is written past it in lines of so many bytes, which rows fill, or have to be gathered for.
LINE = 64

# With an axis: channels whose states lie in a near cache (CPU: for N = 16, 4 KiB of states, 128 KiB of a segment that is
# computed again).
TOGETHER = 64

# On a CPU, rows that do not fill a vector waste it, unless it takes several steps; and where it takes one, it need not be
# written under a mask, which takes three times as long.
NARROW, FEW = 60, 64


@functools.cache
def strategies(program: Program, target: Target) -> tuple[Strategy, ...]:
    """The strategies that a Program has kernels for. Asked at every new size of a call."""
    if target == "cpu":
        lanes: tuple[Strategy, ...] = () if in_lanes.hindrance(program) else ("lanes",)
        found: tuple[Strategy, ...] = ("rows", *(("gathered",) if program.keeps and not program.axis else ()), *lanes)
        return found if chain.hindrance(program) else (*found, *CHAINED[:1 + len(lanes)])
    return ("serial",) if hindrance(program) else ("serial", "chunked")


def chosen(program: Program, target: Target, dtype: str, B: int, T: int, C: int) -> Strategy:
    """The strategy for T steps of B * C channels, where threads do not share the time."""
    if target == "cpu":
        wanted = "rows"
        if C * dtypes.size(dtypes.compute(dtype)) <= NARROW and T >= FEW:
            wanted = "lanes"
        elif any(C * len(k.samples) * dtypes.size(dtype) % LINE for k in program.keeps):
            moved = sum(len(b.columns) for b in program.buffers) + sum(len(k.samples) for k in program.keeps)
            wanted = "gathered" if B * T * C * moved * dtypes.size(dtype) > CACHE else "rows"
    else:
        wanted = "chunked" if B * C < MANY and T > SHORT else "serial"
    found = strategies(program, target)
    return next((s for s in found if s == wanted), found[0])


def spare(kernel: Kernel, B: int, C: int, threads: int) -> bool:
    """Whether the batch and the channels leave some of so many threads without work, which a chained kernel has for them."""
    row = C * dtypes.size(kernel.dtype)
    light = kernel.strategy == "chained" and all(link.light for link in kernel.links)
    piece = RAGGED_PIECE if row % LINE else LIGHT_PIECE if light else PIECE
    return threads > B * -(-row // piece)


def blocks(kernel: Kernel, B: int, T: int, C: int) -> tuple[int, int]:
    """Steps of a block and channels of it, when threads share the time of B * C channels (CPU); (0, 0) where they should not:
    what fits the cache is sooner done by one. What a block computes does not depend on the threads."""
    read, written = kernel.bytes
    if B * T * C * (read + written) < CACHE:
        return 0, 0
    parts = -(-C // WIDEST)
    width = C if parts == 1 else -(-C // (parts * 32)) * 32
    depth = max([1, *(e.depth for e in kernel.program.registers)])
    left = sum(len(link.leaves) for link in kernel.links) * dtypes.size(kernel.compute)
    steps = max(int(2 * BLOCK / ((2 * max(read, 1) + left) * width)) // SHORTEST * SHORTEST, SHORTEST, depth)
    return (0, 0) if 2 * steps >= T else (steps, width)


def schedules(program: Program, target: Target, dtype: str) -> tuple[Kernel, ...]:
    """A Kernel for each strategy that a Program has; `chosen` says which of them runs."""
    return tuple(schedule(program, target, dtype, strategy) for strategy in strategies(program, target))


def schedule(program: Program, target: Target, dtype: str, strategy: Strategy | None = None) -> Kernel:
    """The Kernel of a Program for a strategy; by default the one that every Program has: `rows`, in CUDA `serial`."""
    kept = [n for k in program.keeps for n in k.samples] + [s.sample for s in program.sums]
    reads = _reads(program)
    assert not set(kept) & set(program.loads)
    entry = f"{c_name(program.name, set())}_{program.digest[:8]}"
    if program.axis:
        return _over_an_axis(program, target, dtype, entry, strategy)
    if target == "cpu":
        return _on_a_cpu(program, dtype, reads, entry, strategy or "rows")
    if strategy == "chunked":
        program = named(joined(program))
        chunks = _chunks(program, dtype, len(reads))
        return Kernel("cuda", "chunked", f"{entry}_chunked", program, dtype, reads, _names(program),
                      f"chunks, all worked on at once: for fewer than {MANY:,} channels (batch * hidden) over more than "
                      f"{SHORT} steps; {_said(bool(chunks.loose))}", block=32 * chunks.warps, chunks=chunks)
    size = 2 if dtype == "float64" else 1
    calls = _calls(program)
    ahead = next(n for n in (16, 8, 4, 2)
                 if (n * size * len(reads) <= IN_FLIGHT and n * size * calls <= IN_A_ROW) or n == 2)
    return Kernel("cuda", "serial", entry, program, dtype, reads, _names(program),
                  f"serial, one thread a channel: {_when(hindrance(program))}", ahead=ahead, block=64)


def _on_a_cpu(program: Program, dtype: str, reads: tuple[Read, ...], entry: str, strategy: Strategy) -> Kernel:
    alone, in_time = in_lanes.hindrance(program), chain.hindrance(program)
    program, constants = prepared(program)
    if strategy == "chained":
        program = named(program)
    names = _names(program, [let.target for let in constants])
    reason = "rows: channels stream through the cache in the order of memory, the carry stays in L1"
    reason += f"; one step after another at every size, because {alone}" if alone else ""
    reason += f"; threads share the batch and channels, never time, because {in_time}" if in_time else ""
    if strategy in LANES:
        steps = in_order(program.steps, past=True)
        assert steps is not None and not alone, alone
        program = replace(program, steps=steps)
        reason = (f"lanes of consecutive steps: for rows of up to {NARROW} bytes and at least {FEW} steps, and for sequences "
                  "whose steps follow each other in memory")
    if strategy in CHAINED:
        reason = ("chained blocks of time, of rows or lanes: for more threads than there are batch elements and blocks of "
                  "channels, where all of it is larger than the cache")
    links, last = chain.links(program, strategy == "chained") if strategy in CHAINED else ((), ())
    return Kernel("cpu", strategy, entry if strategy == "rows" else f"{entry}_{strategy}", program, dtype, reads, names, reason,
                  constants=constants, links=links, last=last)


def _when(why_not: str) -> str:
    """When serial runs."""
    return f"at every size, because {why_not}" if why_not else \
        f"from {MANY:,} channels (batch * hidden) on, which fill a large GPU, or up to {SHORT} steps"


def _reads(program: Program) -> tuple[Read, ...]:
    loads = program.loads
    return tuple(Read(s, *loads[s.base], program.edge(s.base, 1 if s.lag > 0 else -1) if s.lag else None)
                 for s in program.reads() if s.base in loads)


def _over_an_axis(program: Program, target: Target, dtype: str, entry: str, strategy: Strategy | None) -> Kernel:
    """One thread, or one lane of a vector, a channel, with all N numbers of its states."""
    why_not, unsure = hindrance(program), loose(program)
    program, constants = prepared(program)
    replay = program.replay.program if program.replay else None
    chunked = strategy == "chunked"
    block, stage = (0, 1) if target == "cpu" else _staged(program, dtype) if not chunked else \
        (32 * WARPS, staged(program, dtype, unsure))
    axis = Axis(constants, levels(program), levels(replay) if replay else (), stage, TOGETHER if target == "cpu" else 32)
    reads = tuple(dict.fromkeys((*_reads(program), *(_reads(replay) if replay else ()))))
    names = _names(program, [let.target for let in constants])
    if target == "cpu":
        return Kernel("cpu", "rows", entry, program, dtype, reads, names,
                      f"rows: {TOGETHER} channels at a time, whose {program.axis} numbers each stay in a near cache", axis=axis)
    if chunked:
        axis = replace(axis, warps=WARPS, steps=STEPS, board=board(program, unsure), strata=strata(program, unsure))
        return Kernel("cuda", "chunked", f"{entry}_chunked", program, dtype, reads, names,
                      f"chunks, all worked on at once, one thread for the {program.axis} numbers of a channel: for fewer than "
                      f"{MANY:,} channels (batch * hidden) over more than {SHORT} steps; {_said(bool(unsure))}", block=block,
                      axis=axis)
    return Kernel("cuda", "serial", entry, program, dtype, reads, names,
                  f"serial, one thread a channel with its {program.axis} numbers: {_when(why_not)}", block=block, axis=axis)


def _staged(program: Program, dtype: str) -> tuple[int, int]:
    """(threads a block, steps) so that what the channels of each warp read together fits a block's shared memory."""
    each = program.axis * (8 if dtype == "float64" else 4) // 4
    walks = (program, *([program.replay.program] if program.replay else []))
    columns = sum(len(b.columns) for p in walks for b in p.buffers if b.shape == "axis")
    vectors = sum(v.shape == "axis" for v in program.vectors)
    for block, stage in ((128, 8), (128, 4), (64, 8), (64, 4), (32, 8), (32, 4), (32, 2), (32, 1)):
        if block // 32 * each * (stage * columns + vectors) <= SHARED:
            return block, stage
    raise NotBuilt(f"{program.name} reads {columns + vectors} sequences and Scalars of {program.axis} numbers that channels "
                   "share, more than a block of a GPU has memory for", None, "read fewer of them, or use float32")


def _calls(program: Program) -> int:
    sums = sum(isinstance(step, Scan) and step.other is not None for step in program.steps)
    return sums + sum(len(e.atoms(Elementwise)) for step in program.steps for e in step.exprs)


def _chunks(program: Program, dtype: str, reads: int) -> Chunks:
    """As many steps a warp as its registers hold, and at least as many as are read back."""
    loose = tuple(scan for scan, small in contracts(program).items() if not small)
    found, size = walks(program, loose), 2 if dtype == "float64" else 1
    held = max([reads, *(len(w.held) + sum(e.depth for e in w.registers) for w in found)])
    always = len(program.vectors) + len(program.sums) + sum(e.depth for e in program.registers if e.crossing)
    # What steps do to a state, and that of other steps, to be combined with it.
    always += max([0, *(sum(2 * ((0 if s.powers else s.count) + s.size - 2) for s in map(program.structure, w.sums))
                        for w in found)])
    steps, at_once = next(((n, blocks) for n, blocks, room in (
        (16, 2, HELD_OF_128), (12, 2, HELD_OF_128), (8, 2, HELD_OF_128), (6, 2, HELD_OF_128), (8, 1, HELD_OF_255),
        (6, 1, HELD_OF_255), (4, 1, HELD_OF_255), (3, 1, HELD_OF_255)) if (n * held + always) * size <= room), (2, 1))
    steps = max([steps, *(e.depth for w in found for e in w.tails)])
    return Chunks(warps(program), steps, at_once, found, loose)


def _said(loose: bool) -> str:
    if not loose:
        return "no product of coefficients overflows, by the equations"
    return ("|A| <= 1 does not follow from the equations: a chunk in which a product or a state may overflow waits for the "
            "state before it and is replayed in order")


def _names(program: Program, more: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Every name of the text, once: samples at their lags, then tensors (`.in` where a sample has the name)."""
    taken: set[str] = set()
    values: dict[str, None] = {}
    for p in (program, *([program.replay.program] if program.replay else [])):
        for s in p.reads():
            values.setdefault(lagged(s.base, s.lag))
        for step in p.steps:
            for target in step.targets:
                values.setdefault(target)
        for e in p.registers:
            for k in range(1, e.depth + 1):
                values.setdefault(lagged(e.base, e.side * k))
    for n in (*program.replayed, *(v.name for v in program.vectors), *more):
        values.setdefault(n)
    names = {n: c_name(n, taken) for n in values}
    return tuple(names.items())
