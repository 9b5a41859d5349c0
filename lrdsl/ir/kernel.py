"""Kernel: a Program scheduled for a target, before it is text.

It says by which strategy the steps are walked, what each step reads from memory, which sequences live in registers, what is
written, and how all of it is called in the generated text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .program import Edge, Program
from .symbols import At

Target = Literal["cpu", "cuda"]


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
class Kernel:
    """`strategy` is the name of the template; `reason` says in a sentence why the schedule chose it.

    names: (name in the Program, name in the text). ahead: steps that are loaded before they are needed (CUDA). block: threads a
    block. fold: steps after which a running sum is added to its total, so that its error grows with T/fold + fold, not T.
    """

    target: Target
    strategy: Literal["rows", "serial"]
    entry: str
    program: Program
    dtype: str
    reads: tuple[Read, ...]
    names: tuple[tuple[str, str], ...]
    reason: str
    fold: int = 256
    ahead: int = 0
    block: int = 0

    @property
    def words(self) -> tuple[int, int]:
        """Numbers read from and written to memory, a step and channel."""
        distinct = {(r.buffer, r.column) for r in self.reads}
        return len(distinct), sum(len(k.samples) for k in self.program.keeps)

    def __str__(self) -> str:
        read, written = self.words
        size = 8 if self.dtype == "float64" else 4
        lines = [f"kernel {self.entry} ({self.target}, {self.strategy}, {self.dtype})", f"  because {self.reason}",
                 f"  a step and channel: reads {read * size} B, writes {written * size} B"]
        lines += [f"  read {r.sample} from {r.buffer}#{r.column}" + (f", beyond its segment {r.edge}" if r.edge else "")
                  for r in self.reads]
        lines += [f"  hold {e}" for e in self.program.registers]
        lines += [f"  hold the sum of {s.sample}, folded every {self.fold} steps" for s in self.program.sums]
        lines += [f"  write {', '.join(k.samples)} to {k.name}" for k in self.program.keeps]
        return "\n".join(lines)
