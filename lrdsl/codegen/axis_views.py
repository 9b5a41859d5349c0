"""What the templates of a kernel over an axis see of it. Every text in these is finished."""

from __future__ import annotations

from dataclasses import dataclass

from .axis_memory import AxisLoad, AxisRegister
from .lines import Store
from .maps import MapView


@dataclass(frozen=True)
class Loop:
    """sums: what is added up in it; held: what later loops read, an array each."""

    sums: tuple[str, ...]
    held: tuple[str, ...]
    takes: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    ends: tuple[str, ...]


@dataclass(frozen=True)
class LevelView:
    """Lines that are computed once, and then a loop, if there is one."""

    lines: tuple[str, ...]
    loop: Loop | None


@dataclass(frozen=True)
class Across:
    """A number of each channel that is added up over channels, N of them. keeps: where their sums of step t are written;
    sums: fields of Args that they are added to over time."""

    name: str
    keeps: tuple[str, ...]
    sums: tuple[str, ...]


@dataclass(frozen=True)
class Meet:
    """A recurrence whose steps are added up in a walk, for others to hear of: `name`_upto. map: the struct of what they do to a
    state; slot: its first word in a message; wide: N of them a channel. starts, edges: the numbers of the state number n
    beyond the sequence, and beyond a boundary. again: where |A| may exceed 1, the walk that computes it from `name`_from, in
    the namespace `scope`; after: what then are the numbers of the state."""

    name: str
    map: str
    slot: int
    wide: bool
    starts: str
    edges: str
    scope: str = ""
    again: WalkView | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class WalkView:
    """One walk over steps: the Program's own, its Replay's, or one that adds up what steps do to states (`meets`). takes: one
    number a channel."""

    loads: tuple[AxisLoad, ...]
    takes: tuple[tuple[str, str], ...]
    levels: tuple[LevelView, ...]
    registers: tuple[AxisRegister, ...]
    time: str
    crossed: str
    meets: tuple[Meet, ...] = ()

    def having(self, *shapes: str) -> tuple[AxisLoad, ...]:
        """The loads of some shapes."""
        return tuple(x for x in self.loads if x.shape in shapes)


@dataclass(frozen=True)
class AxisChunks:
    """How a kernel over an axis is cut in chunks: `warps` of a block, each with `steps`. sums: the walks before the Program's
    own; late: the first of them needs nothing of the Replay, which comes behind it then. messages: words that a chunk tells, a
    channel. rows, states: numbers that a warp, and a block, shares at once. loose: some |A| may exceed 1."""

    warps: int
    steps: int
    maps: tuple[MapView, ...]
    sums: tuple[WalkView, ...]
    late: bool
    messages: int
    rows: int
    states: int
    loose: bool


@dataclass(frozen=True)
class AxisView:
    """A kernel's own part over an axis. size: N. vectors: (name, field, shape) of learned numbers; constants: what is computed
    of them first, and its names, (name, whether it has the axis). sums: (field, value, whether it has the axis). stores: one
    number a channel, wide_stores: N. borders: (register, where its row 0 lies, its stride), written `every` so many steps.
    replayed: (register, the name of what it held, where row 0 of its borders lies, their stride), for segments of `segment`."""

    size: int
    stage: int
    together: int
    vectors: tuple[tuple[str, str, str], ...]
    constants: LevelView | None
    constant_takes: tuple[tuple[str, str], ...]
    constant_names: tuple[tuple[str, bool], ...]
    walk: WalkView
    again: WalkView | None
    across: tuple[Across, ...]
    sums: tuple[tuple[str, str, bool], ...]
    stores: tuple[Store, ...]
    wide_stores: tuple[Store, ...]
    borders: tuple[tuple[AxisRegister, str, str], ...]
    replayed: tuple[tuple[AxisRegister, str, str, str], ...]
    every: int
    segment: int
    chunks: AxisChunks | None = None

    @property
    def walks(self) -> tuple[WalkView, ...]:
        """The Program's own, and its Replay's."""
        return (self.walk, self.again) if self.again else (self.walk,)
