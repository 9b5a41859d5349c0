"""Source: generated text and how it is called.

Every kernel of a Program, whatever the target, takes one block of 64-bit slots: addresses and strides in the order that
`slots` gives, the sizes, and the address of its scratch memory where it needs some. Channels are contiguous; strides count
elements (bytes for `reset`, whose elements are bytes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import ShapeMismatch
from . import dtypes
from .program import Program
from .shapes import AXIAL, Shape

SlotKind = Literal["sequence", "vector", "edge", "keep", "shared", "sum", "final", "crossing", "reset"]


@dataclass(frozen=True)
class Slot:
    """One tensor of a call. fields: the slots it takes, `name` for its address and `name.batch` … for its strides.

    sequence, keep: (B, T, columns * C), strides batch and time. vector: (C,) or (1,). edge: (B, depth, C), strides batch and
    depth; address 0 stands for the constant. sum: (parts, B, C), contiguous, to be added up over parts and B by the caller.
    final: (B, depth, C), crossing: (parts, B, depth, C), contiguous, to be added up over parts (see `Extent`). reset: (B, T)
    bytes, strides batch and time; address 0 stands for no boundary.
    What has a state axis of N is N * C wide (its columns are N times as many). channels: False for what the channels share,
    `columns` wide. shared: (parts, B, T, columns), contiguous, such a keep, to be added up over parts. A sum without channels
    is (parts, B, columns) (see `Extent.parts_of`).
    every: a sequence or keep with a row only every so many steps. paired: a sequence or keep (B, T, C, 2), of complex numbers:
    its elements are pairs, which strides count and which are aligned as such.

    full: never stored in fewer bits than are computed with. Where a sequence has 16 bits, so have the values that it is read
    as beyond its segment: a run that ends and goes on reads what one run would have.
    """

    kind: SlotKind
    name: str
    columns: int = 1
    depth: int = 1
    channels: bool = True
    every: int = 1
    full: bool = False
    paired: bool = False

    def dtype(self, dtype: str) -> str:
        """What its elements are in memory, in a kernel of `dtype`."""
        if self.kind == "reset":
            return "uint8"
        narrow = self.kind in ("sequence", "keep", "vector") and not self.full
        return dtype if narrow else dtypes.compute(dtype)

    def shape(self, B: int, T: int, C: int, extent: Extent | None = None) -> tuple[int, ...]:
        """Of its tensor; parts and B are one dimension."""
        parts = 1 if extent is None else extent.parts_of(self)
        if self.paired:
            return (B, T, C, 2)
        width = self.columns * C if self.channels else self.columns
        return {"sequence": (B, -(-T // self.every), width), "keep": (B, -(-T // self.every), width), "vector": (width,),
                "edge": (B, self.depth, width), "final": (B, self.depth, width), "crossing": (parts * B, self.depth, width),
                "sum": (parts * B, width), "shared": (parts * B, T, width), "reset": (B, T)}[self.kind]

    @property
    def fields(self) -> tuple[str, ...]:
        strides = {"sequence": ("batch", "time"), "keep": ("batch", "time"), "edge": ("batch", "depth"),
                   "reset": ("batch", "time")}.get(self.kind, ())
        return (self.name, *(f"{self.name}.{s}" for s in strides))


SIZES = ("B", "T", "C")
OUTPUTS: tuple[SlotKind, ...] = ("keep", "shared", "sum", "final", "crossing")
RESET = ".reset"  # no name of a user's
CHANNELS_AT_MOST = 1 << 31
CHANNELS = 32  # a warp's lanes stand side by side in memory
TICKET = 16  # bytes at the start of scratch memory: how many blocks have begun


def slots(program: Program) -> tuple[Slot, ...]:
    """The tensors of a call in order: inputs, outputs, `reset`; the sizes B, T, C follow."""
    edges = (*program.edges, *(program.replay.program.registers if program.replay else ()))
    edge = {n: e for e in edges for n in (e.start, e.edge, e.final, e.crossing) if n}
    full = program.full_names

    def columns(shape: Shape) -> int:
        return program.axis if shape in AXIAL else 1

    def shape(base: str) -> Shape:
        listed = program.replay is not None and any(base == state for state, _, _ in program.replay.states)
        return "channel and axis" if listed else program.shape(base)

    def window(kind: SlotKind, n: str) -> Slot:
        found = shape(edge[n].base)
        return Slot(kind, n, columns(found), edge[n].depth, found != "axis")

    inputs = [Slot("sequence", b.name, len(b.columns) * columns(b.shape), channels=b.shape != "axis", every=b.every,
                   full=b.name in full, paired=b.paired) for b in program.buffers]
    inputs += [Slot("vector", v.name, columns(v.shape), channels=v.shape not in ("one", "axis"), full=v.name in full)
               for v in program.vectors]
    inputs += [window("edge", n) for n in program.inputs if n in edge]
    outputs = [Slot("shared" if k.over else "keep", k.name, len(k.samples) * columns(program.shape(k.samples[0])),
                    channels=not k.over, every=max(k.every, 1), full=k.name in full, paired=k.paired) for k in program.keeps]
    outputs += [Slot("sum", s.name, columns(program.shape(s.sample)), channels=not s.shared(program), full=s.name in full)
                for s in program.sums]
    crossings = {e.crossing for e in program.edges}
    outputs += [window("crossing" if n in crossings else "final", n) for n in program.outputs if n in edge]
    return (*inputs, *outputs, Slot("reset", RESET))


def fields(program: Program) -> tuple[str, ...]:
    """All 64-bit slots of a call, in order."""
    return (*(f for s in slots(program) for f in s.fields), *SIZES)


@dataclass(frozen=True)
class Extent:
    """What a call of one size takes. grid: blocks. parts: partial sums that each `sum` and `crossing` comes in. scratch:
    bytes of memory, aligned to 16 and all zero, that the kernel may use. shared: partial sums of each `shared`."""

    grid: int
    parts: int = 1
    scratch: int = 0
    shared: int = 1

    def parts_of(self, slot: Slot) -> int:
        """Partial sums that a tensor comes in: those over time of groups of channels, where it is summed over both."""
        return (1 if slot.kind == "shared" else self.parts) * (1 if slot.channels else self.shared)


@dataclass(frozen=True)
class Source:
    """Text for one target, whose `entry` runs `program` on tensors of `dtype` (see `Slot.dtype`). What follows is CUDA's alone.

    block: threads a block. chunk: steps of a chunk, each the work of one block for CHANNELS channels at a time; 0 where one
    thread walks the whole sequence of one channel. messages: 16-byte words that a chunk leaves for others, a channel.

    together: channels that add up what they share, which is another part for each such group; 0 where a Program has no axis.
    lanes: it takes the lanes of vectors for steps (CPU), and a flag whether it is called on turned sequences (see `Launch`).
    chained: it takes the steps of a block of time (CPU), and its channels.
    """

    target: Literal["cpu", "cuda"]
    entry: str
    text: str
    program: Program
    dtype: str
    block: int = 0
    chunk: int = 0
    messages: int = 0
    together: int = 0
    lanes: bool = False
    chained: bool = False

    def extent(self, B: int, T: int, C: int) -> Extent:
        """Blocks, parts and scratch memory of a call on T >= 1 steps of B * C channels. Raises ShapeMismatch."""
        if self.target == "cuda" and B * C >= CHANNELS_AT_MOST:
            raise ShapeMismatch(f"{self.entry} on (B, T, C) = ({B}, {T}, {C}): a kernel counts its B * C channels with 31 bits",
                                None, "split the batch")
        shared = -(-C // self.together) if self.together else 1
        if not self.chunk:
            return Extent(-(-B * (shared * CHANNELS if self.together else C) // max(self.block, 1)), shared=shared)
        rows, chunks = B * shared if self.together else -(-B * C // CHANNELS), -(-T // self.chunk)
        return Extent(rows * chunks, chunks, TICKET + rows * chunks * CHANNELS * 16 * self.messages, shared)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Launch:
    """A Source ready to run. run: takes the slots of `fields`, then a number of threads (CPU), a device, a stream of its
    driver (0: the default one) and the address of the scratch memory (CUDA). turned: the same on sequences whose steps lie next
    to each other and not their channels, whose strides are that of the batch and that of the channels; None where there is no
    such kernel."""

    run: Callable[[Sequence[int], int, int, int, int], None]
    extent: Callable[[int, int, int], Extent]
    turned: Callable[[Sequence[int], int, int, int, int], None] | None = None

    def __call__(self, values: Sequence[int], threads: int = 1, device: int = 0, stream: int = 0, scratch: int = 0,
                 turned: bool = False) -> None:
        run = self.turned if turned else self.run
        assert run is not None
        run(values, threads, device, stream, scratch)
