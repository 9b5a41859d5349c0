"""Source: generated text and how it is called.

Every kernel of a Program, whatever the target, takes one block of 64-bit slots: addresses and strides in the order that
`slots` gives. Channels are contiguous; strides count elements (bytes for `reset`, whose elements are bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .program import Program

SlotKind = Literal["sequence", "vector", "edge", "keep", "sum", "window", "reset"]


@dataclass(frozen=True)
class Slot:
    """One tensor of a call. fields: the slots it takes, `name` for its address and `name.batch` … for its strides.

    sequence, keep: (B, T, columns * C), strides batch and time. vector: (C,) or (1,). edge: (B, depth, C), strides batch and
    depth; address 0 stands for the constant. sum: (B, C), contiguous, to be added up over B by the caller. window: (B,
    depth, C), contiguous. reset: (B, T) bytes, strides batch and time; address 0 stands for no boundary.
    """

    kind: SlotKind
    name: str
    columns: int = 1
    depth: int = 1

    @property
    def fields(self) -> tuple[str, ...]:
        strides = {"sequence": ("batch", "time"), "keep": ("batch", "time"), "edge": ("batch", "depth"),
                   "reset": ("batch", "time")}.get(self.kind, ())
        return (self.name, *(f"{self.name}.{s}" for s in strides))


SIZES = ("B", "T", "C")
RESET = ".reset"  # no name of a user's


def slots(program: Program) -> tuple[Slot, ...]:
    """The tensors of a call in order: inputs, outputs, `reset`; the sizes B, T, C follow."""
    depth = {n: e.depth for e in program.edges for n in (e.start, e.edge, e.final, e.crossing) if n}
    inputs = [Slot("sequence", b.name, len(b.columns)) for b in program.buffers]
    inputs += [Slot("vector", v.name) for v in program.vectors]
    inputs += [Slot("edge", n, depth=depth[n]) for n in program.inputs if n in depth]
    outputs = [Slot("keep", k.name, len(k.samples)) for k in program.keeps]
    outputs += [Slot("sum", s.name) for s in program.sums]
    outputs += [Slot("window", n, depth=depth[n]) for n in program.outputs if n in depth]
    return (*inputs, *outputs, Slot("reset", RESET))


def fields(program: Program) -> tuple[str, ...]:
    """All 64-bit slots of a call, in order."""
    return (*(f for s in slots(program) for f in s.fields), *SIZES)


@dataclass(frozen=True)
class Source:
    """Text for one target, whose `entry` runs `program`. block: threads a block (CUDA), one a channel."""

    target: Literal["cpu", "cuda"]
    entry: str
    text: str
    program: Program
    dtype: str
    block: int = 0

    def __str__(self) -> str:
        return self.text
