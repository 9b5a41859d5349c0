"""The walks of a chunked kernel as finished lines: what `templates/cuda/chunked.j2` needs beyond the rest of a View."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..ir.kernel import Chunks, Kernel, Walk, lagged
from ..ir.program import Edge, Let, Program, Scan
from ..ir.structure import Rows, Structure
from ..ir.symbols import At, samples
from .lines import Register, Store, Total, step_lines
from .maps import MapView, map_view
from .memory import together
from .printers import Printer

Arrival = tuple[str, int, str, str, int]


@dataclass(frozen=True)
class Held:
    """A number of a recurrence's state: its name, and where it is beyond a segment, at `depth` of two windows."""

    past: str
    start: str
    edge: str
    depth: int


@dataclass(frozen=True)
class Meet:
    """A recurrence between two walks: `name`_upto adds up what a warp's steps do to its state; that before them is heard of.

    map: the struct of a stretch. powers: where the coefficients are the same at all times, the recurrence whose powers are
    those of this one too; constants: their names and values. step: coefficients and rests of one step. takes, lines, moves:
    one step of the recurrence alone, for a replay.
    """

    name: str
    map: str
    slot: int
    loose: bool
    state: tuple[Held, ...]
    powers: str
    constants: tuple[tuple[str, str], ...]
    step: tuple[str, ...]
    takes: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    moves: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class WalkView:
    """One walk. arrivals: (past value, message, the tail that is handed on, window, depth) of registers filled before it."""

    number: int
    meets: tuple[Meet, ...]
    arrivals: tuple[Arrival, ...]
    sums: tuple[Meet, ...]
    registers: tuple[Register, ...]
    tails: tuple[Register, ...]
    takes: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    holds: tuple[str, ...]
    pushes: tuple[tuple[Register, tuple[Store, ...]], ...]
    stores: tuple[Store, ...]
    totals: tuple[Total, ...]

    @property
    def rows(self) -> tuple[Store, ...]:
        """Where it writes."""
        return (*self.stores, *(s for _, stores in self.pushes for s in stores))

    @property
    def boundary(self) -> bool:
        """Whether a boundary changes anything in it."""
        return bool(self.registers or self.sums or self.tails)

    @property
    def guarded(self) -> bool:
        """Whether it must know which steps there are."""
        return self.boundary or bool(self.stores or self.totals or self.pushes)

    @property
    def last(self) -> bool:
        """Whether something of its registers is written in the end."""
        return any(r.final or r.crossing for r in self.registers)


@dataclass(frozen=True)
class ChunksView:
    """A chunked kernel's own part of a View. messages: words that a chunk tells, a channel. board: the most numbers of a matrix
    and of a state, or none where nothing is told of both; known: of a state whose matrix is a power, or 0."""

    length: int
    warps: int
    steps: int
    at_once: int
    maps: tuple[MapView, ...]
    board: tuple[int, ...]
    known: int
    powers: tuple[Meet, ...]
    held: tuple[str, ...]
    walks: tuple[WalkView, ...]
    messages: int
    crossings: tuple[str, ...]


def chunks_view(kernel: Kernel, chunks: Chunks, printer: Printer, register: Callable[[Edge], Register],
                stores: Mapping[str, tuple[Store, ...]], totals: Mapping[str, tuple[Total, ...]]) -> ChunksView:
    """stores, totals: sample -> where it is written, and the sums that it is added to."""
    program, names, walks = kernel.program, dict(kernel.names), chunks.walks
    room = 1 if kernel.dtype == "float64" else 2
    slot = 0
    meets: dict[Scan, Meet] = {}
    maps: dict[tuple[Rows, Rows, tuple[bool, ...], bool, str], MapView] = {}
    constants: dict[tuple[Rows, tuple[Any, ...]], str] = {}
    arrivals: list[tuple[Arrival, ...]] = [()]
    for walk, following in itertools.pairwise(walks):
        for scan in walk.sums:
            structure = program.structure(scan)
            rests = tuple(back == 1 and (scan.b[j] != 0 or scan.other is not None) for j, back in structure.state)
            key = structure.step, structure.many, rests, structure.powers, scan.algebra
            if key not in maps:
                maps[key] = map_view(f"Map{len(maps) + 1}" if maps else "Map", structure, rests, kernel.compute)
            name = "_".join(names[t] for t in scan.targets)
            powers = constants.setdefault((structure.step, structure.coefficients), name) if structure.powers else ""
            meets[scan] = _meet(name, scan, structure, rests, powers, maps[key].name, slot, scan in chunks.loose, program,
                                following, printer, names, register)
            slot += -(-(structure.size + maps[key].count) // room)
        tails = [(past, register(e).start, depth) for e in walk.tails for depth, past in enumerate(register(e).past)]
        arrivals.append(tuple((past, slot + n, f"{past}_tail", start, depth) for n, (past, start, depth) in enumerate(tails)))
        slot += len(tails)
    views = []
    known: set[str] = set()
    held: set[At] = set()
    for n, walk in enumerate(walks):
        first = [t for s in walk.steps for t in s.targets if t not in known]
        # A state that is read further back than by its recurrence: its full register runs in the next walk.
        private = tuple(_shallow(register(e), order) for s in walk.solved for j, order in enumerate(s.orders) if order
                        for e in program.registers if e.base == s.targets[j] and e.depth > order)
        views.append(WalkView(
            number=n + 1,
            meets=tuple(meets[s] for s in walk.solved),
            arrivals=arrivals[n],
            sums=tuple(meets[s] for s in walk.sums),
            registers=(*map(register, walk.registers), *private),
            tails=tuple(map(register, walk.tails)),
            takes=_takes(program, walk, names),
            lines=_lines(walk, printer, names),
            holds=tuple(_name(a, names) for a in walk.held if a.base not in program.loads and a not in held),
            pushes=tuple((register(e), tuple(s for t in pushed for s in stores[t])) for e, pushed in walk.pushes),
            stores=together([s for t in first for s in stores.get(t, ())]),
            totals=tuple(total for t in first for total in totals.get(t, ()))))
        known |= set(first)
        held |= {a for a in walk.held if a.base not in program.loads}
    crossings = tuple(past for e in program.registers if e.crossing for past in register(e).past)
    carried = [m for m in maps.values() if m.count]
    most: tuple[int, ...] = ()
    if carried or crossings or program.sums or any(arrivals):
        most = max([1, *(m.held for m in carried)]), max([1, *(m.size for m in carried)])
    return ChunksView(chunks.length, chunks.warps, chunks.steps, chunks.at_once, tuple(maps.values()), most,
                      max([0, *(m.size for m in maps.values() if not m.count)]),
                      tuple(m for m in meets.values() if m.powers == m.name),
                      tuple(dict.fromkeys(x for view in views for x in view.holds)), tuple(views), slot, crossings)


def _name(a: At, names: Mapping[str, str]) -> str:
    return names[lagged(a.base, a.lag)]


def _shallow(r: Register, depth: int) -> Register:
    return replace(r, depth=depth, past=r.past[:depth], final="", crossing="")


def _lines(walk: Walk, printer: Printer, names: Mapping[str, str]) -> tuple[str, ...]:
    lines: list[str] = []
    for step in walk.steps:
        lines += step_lines(step, names, printer)
    return tuple(lines)


def _reads(program: Program, walk: Walk) -> list[At]:
    exprs = [*(e for s in walk.steps for e in s.exprs), *(e for s in walk.sums for e in program.told(s))]
    found = [a for e in exprs for a in samples(e)]
    return list(dict.fromkeys([*found, *(At(e.base) for e in (*walk.registers, *walk.tails))]))


def _own(walk: Walk) -> set[At]:
    """What a walk has without taking it: its lines' values, and the past of its registers."""
    own = {At(t) for s in walk.steps for t in s.targets} | {a for s in walk.solved for a in s.state}
    return own | {At(e.base, e.side * k) for e in walk.registers for k in range(1, e.depth + 1)}


def _takes(program: Program, walk: Walk, names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """(name, where it is) of what a walk reads and does not make itself."""
    own = _own(walk)
    return tuple((_name(a, names), f"{'at' if a.base in program.loads else 'held'}[k].{_name(a, names)}")
                 for a in _reads(program, walk) if a not in own)


def _meet(name: str, scan: Scan, structure: Structure, rests: tuple[bool, ...], powers: str, map: str, slot: int, loose: bool,
          program: Program, solving: Walk, printer: Printer, names: Mapping[str, str],
          register: Callable[[Edge], Register]) -> Meet:
    edges = {e.base: register(e) for e in program.registers if e.base in scan.targets}
    state = tuple(Held((r := edges[scan.targets[j]]).past[k - 1], r.start, r.edge, k - 1) for j, k in structure.state)
    moves = tuple(m for j, order in enumerate(scan.orders) if order
                  for m in _shallow(edges[scan.targets[j]], order).moves)
    needed = {a.base for e in scan.exprs for a in samples(e)}
    lets: list[Any] = []
    for step in reversed([s for s in solving.steps if isinstance(s, Let)]):
        if step.target in needed:
            lets.insert(0, step)
            needed |= {a.base for a in samples(step.expr)}
    alone = Walk((*lets, scan), (), (), (), (), ())
    given = [printer.text(e, 0) for e in structure.coefficients]
    constants: tuple[tuple[str, str], ...] = ()
    if powers:
        constants = tuple((f"{powers}_c{k}", printer(e)) for k, e in enumerate(structure.coefficients))
        given = [n for n, _ in constants]
    given += [printer.text(scan.b[j], 0) for (j, _), rest in zip(structure.state, rests, strict=True) if rest]
    return Meet(name, map, slot, loose, state, powers, constants, tuple(given), _takes(program, alone, names),
                _lines(alone, printer, names), moves)
