"""Kernel: a Program scheduled for a target, before it is text.

It says by which strategy the steps are walked, what each step reads from memory, which sequences live in registers, what is
written, and how all of it is called in the generated text.

Strategies. rows (CPU): rows of channels, in the order of memory. gathered (CPU): rows that do not begin lines of the cache;
what is written is gathered until it fills lines, which can pass by the cache. lanes (CPU): of few channels, or where time lies
contiguous in memory, consecutive steps in the lanes of one vector, which solve a recurrence together; steps near an end or a
boundary one after another. chained, chained_lanes (CPU): rows and lanes in blocks of time, which threads add up and then walk
at once, each when it has heard the state before its block (`Link`).

serial (CUDA): one thread walks the time of one channel.
chunked (CUDA): time is cut in chunks of warps * steps, all of which are worked on at once; a block has 32 channels of one
chunk, each of its warps has consecutive steps, and holds what it read of them in registers. A recurrence is then solved in
two walks: one adds a stretch of steps up to one transition, and when the state before the stretch is known, from the
transitions of other warps and chunks, another walk computes every state.

Over an axis, rows and serial have templates of their own, `axis`: each step is a few lines of one number a channel, a loop over
the N numbers, and so on (`Level`). What the channels share is read once for 32 channels (CUDA), and its gradient added up over
them in a fixed order; the parts of such groups are added up by the caller. States that are computed again in the backward pass
lie in a thread's local memory, or a near cache, 32 steps of them.

chunked over an axis: a block has 32 channels of one chunk, each of its warps has 32 consecutive steps, and walks them once for
each `Stratum` and once for what is written. Numbers of a channel do not know of each other: each warp looks back for its share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import sympy as sp

from . import dtypes
from .program import Edge, Let, Program, Scan, Step
from .structure import Structure, structure
from .symbols import At

Target = Literal["cpu", "cuda"]
Strategy = Literal["rows", "gathered", "lanes", "chained", "chained_lanes", "serial", "chunked"]
LANES: tuple[Strategy, ...] = ("lanes", "chained_lanes")
CHAINED: tuple[Strategy, ...] = ("chained", "chained_lanes")


def lagged(name: str, lag: int) -> str:
    """`h` at t-1 is `h.prev`, at t+2 `h.next2`."""
    if lag == 0:
        return name
    return f"{name}.{'prev' if lag < 0 else 'next'}{abs(lag) if abs(lag) > 1 else ''}"


@dataclass(frozen=True)
class Read:
    """One load a step: the sample `sample`, in column `column` of `buffer`. edge: for a lag, what lies beyond."""

    sample: At
    buffer: str
    column: int
    edge: Edge | None


@dataclass(frozen=True)
class Walk:
    """One walk of a warp over its steps, in a chunked kernel. Between two walks the warps and chunks hear of each other.

    steps: the Lets computed in it, and the Scans whose states are. registers: the shift registers that run in it, filled
    before it from what came earlier. sums: the scans whose transitions are added up. tails: the sequences whose last values
    are handed on after it, to the next warp's registers. pushes: (register, samples) where all that is done with a sequence's
    past is to write it: its values are written a step further on. held: what later walks need of its values, and of earlier
    ones'.
    """

    steps: tuple[Step, ...]
    registers: tuple[Edge, ...]
    sums: tuple[Scan, ...]
    tails: tuple[Edge, ...]
    pushes: tuple[tuple[Edge, tuple[str, ...]], ...]
    held: tuple[At, ...]

    @property
    def solved(self) -> tuple[Scan, ...]:
        """The scans whose states this walk computes."""
        return tuple(s for s in self.steps if isinstance(s, Scan))

    def __str__(self) -> str:
        parts = [("computes", [t for s in self.steps for t in s.targets]), ("runs", [e.base for e in self.registers]),
                 ("adds up", [t for s in self.sums for t in s.targets]), ("hands on", [e.base for e in self.tails]),
                 ("writes further on", [n for _, names in self.pushes for n in names]),
                 ("holds", [str(a) for a in self.held])]
        return "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names) or "nothing"


@dataclass(frozen=True)
class Chunks:
    """How a chunked kernel cuts time: chunks of warps * steps. at_once: blocks that a multiprocessor has registers for. loose:
    scans whose |A| is not known to be at most 1."""

    warps: int
    steps: int
    at_once: int
    walks: tuple[Walk, ...]
    loose: tuple[Scan, ...]

    @property
    def length(self) -> int:
        """Steps of a chunk."""
        return self.warps * self.steps


@dataclass(frozen=True)
class Level:
    """Steps that are computed one number a channel, and then a loop over the N numbers of a channel, with sums over them."""

    steps: tuple[Step, ...]
    loop: tuple[Step, ...]

    def __str__(self) -> str:
        parts = [("once", self.steps), ("for each number of the axis", self.loop)]
        return "; ".join(f"{how} {', '.join(t for s in steps for t in s.targets)}" for how, steps in parts if steps)


@dataclass(frozen=True)
class Stratum:
    """Recurrences whose steps are added up in one walk of a chunked kernel over an axis, from the states of those before them.
    program: the lines that they need, and their levels. A line that is read a step back counts as a recurrence of nothing but
    a rest, its value. alone: those whose |A| is not known to be at most 1, and for each the lines that compute it."""

    program: Program
    levels: tuple[Level, ...]
    sums: tuple[Scan, ...]
    alone: tuple[tuple[Scan, Program, tuple[Level, ...]], ...] = ()


@dataclass(frozen=True)
class Link:
    """Recurrences whose steps are added up in one walk over a block of time of a chained kernel, from the states of those
    before them. program: the lines that they need. A Scan that reads nothing stands for a register whose last values are told:
    of a line, or of a state further back than its recurrence reads it. leaves: lines whose values of all steps of the block it
    leaves for the walks after it. light: a step of it takes so little that it pays to hold what it hands on in the
    processor's registers, not in a cache."""

    program: Program
    sums: tuple[Scan, ...]
    leaves: tuple[Let, ...] = ()
    light: bool = False


def carried(program: Program, scan: Scan) -> Structure:
    """What the steps of one of a Stratum's recurrences do to its state; all carry their coefficients along."""
    found = program.structure(scan)
    return replace(found, constant=False) if found.size else structure((1,), (sp.ImmutableMatrix([[At(scan.targets[0])]]),))


@dataclass(frozen=True)
class Axis:
    """How a kernel walks a Program with an axis. constants: computed before all steps. replay: the levels of its Replay.

    stage: steps whose loads are on their way at once (CUDA). together: channels that are walked side by side, and add up what
    they share. In chunks, warps: of a block, each with `steps`; board: numbers of a lane that a warp, and that a block tells
    others of at once; strata: what is added up before the Program's own walk.
    """

    constants: tuple[Let, ...]
    levels: tuple[Level, ...]
    replay: tuple[Level, ...]
    stage: int
    together: int
    warps: int = 0
    steps: int = 0
    board: tuple[int, int] = (0, 0)
    strata: tuple[Stratum, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """`strategy` is the name of the template; `reason` says in a sentence when it is the one to run.

    dtype: what sequences are stored as. names: (name in the Program, name in the text). ahead: steps that are loaded before
    they are needed (CUDA). block: threads a block. fold: steps after which a running sum is added to its total, so that its
    error grows with T/fold + fold, not T. constants: lines that are computed before all steps (CPU; an axis has its own).
    links: what is added up of a block of time before it is walked (chained); last: the steps of that walk, () for all.
    """

    target: Target
    strategy: Strategy
    entry: str
    program: Program
    dtype: str
    reads: tuple[Read, ...]
    names: tuple[tuple[str, str], ...]
    reason: str
    fold: int = 256
    ahead: int = 0
    block: int = 0
    chunks: Chunks | None = None
    axis: Axis | None = None
    constants: tuple[Let, ...] = ()
    links: tuple[Link, ...] = ()
    last: tuple[Step, ...] = ()

    @property
    def compute(self) -> str:
        """The dtype of the arithmetic."""
        return dtypes.compute(self.dtype)

    @property
    def chunk(self) -> int:
        """Steps of a chunk; 0 where time is not cut."""
        return self.chunks.length if self.chunks else self.axis.warps * self.axis.steps if self.axis else 0

    @property
    def words(self) -> tuple[float, float]:
        """Numbers read from and written to memory, a step and channel; what the channels share is not counted."""
        return self._moved(lambda _: 1)

    @property
    def bytes(self) -> tuple[float, float]:
        """The same in bytes."""
        full = self.program.full_names
        return self._moved(lambda tensor: dtypes.size(self.compute if tensor in full else self.dtype))

    def _moved(self, size: Callable[[str], int]) -> tuple[float, float]:
        """What is read and written of each tensor, a number of which counts as `size`."""
        program, buffers = self.program, {b.name: b for b in self.program.buffers}

        def moved(tensor: str, shape: str, every: int = 1) -> float:
            return size(tensor) * {"channel": 1, "channel and axis": program.axis / every}.get(shape, 0)

        columns = {(r.buffer, k) for r in self.reads for k in ((0, 1) if buffers[r.buffer].paired else (r.column,))}
        read = sum(moved(b, buffers[b].shape) for b, _ in columns)
        read += sum(moved(b.name, b.shape, b.every) for b in program.buffers if b.every > 1)
        written = sum(len(k.samples) * moved(k.name, "axis" if k.over else program.shape(k.samples[0]), max(k.every, 1))
                      for k in program.keeps)
        return read, written

    def __str__(self) -> str:
        read, written = self.bytes
        lines = [f"kernel {self.entry} ({self.target}, {self.strategy}, {self.dtype})", f"  because {self.reason}",
                 f"  a step and channel: reads {read:g} B, writes {written:g} B"]
        lines += [f"  read {r.sample} from {r.buffer}#{r.column}" + (f", beyond its segment {r.edge}" if r.edge else "")
                  for r in self.reads]
        first = ", ".join(let.target for let in (self.axis.constants if self.axis else self.constants))
        lines += [f"  before all steps: {first}"] if first else []
        if self.axis:
            lines += [f"  level {number}: {level}" for number, level in enumerate(self.axis.levels, 1)]
            lines += [f"  replay, level {number}: {level}" for number, level in enumerate(self.axis.replay, 1)]
            lines += [f"  chunks of {self.axis.warps} warps * {self.axis.steps} steps"] if self.axis.warps else []
            for number, stratum in enumerate(self.axis.strata, 1):
                lines.append(f"  stratum {number}: adds up {', '.join(t for s in stratum.sums for t in s.targets)}")
                lines += [f"  stratum {number}, level {k}: {level}" for k, level in enumerate(stratum.levels, 1)]
        lines += [f"  link {number}: adds up {', '.join(t for s in link.sums for t in s.targets)}"
                  + (f"; leaves {', '.join(let.target for let in link.leaves)}" if link.leaves else "")
                  for number, link in enumerate(self.links, 1)]
        if self.chunks:
            lines += [f"  chunks of {self.chunks.warps} warps * {self.chunks.steps} steps"]
            lines += [f"  walk {number}: {walk}" for number, walk in enumerate(self.chunks.walks, 1)]
        else:
            lines += [f"  hold {e}" for e in self.program.registers]
            lines += [f"  hold the {'largest' if s.largest else 'sum'} of {s.sample}"
                      + ("" if s.largest else f", folded every {self.fold} steps") for s in self.program.sums]
        lines += [f"  write {', '.join(k.samples)} to {k.name}" for k in self.program.keeps]
        return "\n".join(lines)
