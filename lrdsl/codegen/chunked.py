"""The walks of a chunked kernel as finished lines: what `templates/cuda/chunked.j2` needs beyond the rest of a View."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..ir.kernel import Chunks, Kernel, Walk, lagged
from ..ir.program import Edge, Let, Program, Scan
from ..ir.symbols import At, samples
from .lines import Register, Store, scan_lines
from .printers import Printer


@dataclass(frozen=True)
class Meet:
    """A recurrence between two walks: `upto` adds up what a warp's steps do to its state, `past` is the state before them.

    A, rest: the coefficient and the rest of one step. takes, lines, value: one step of the state alone, for a replay.
    """

    upto: str
    past: str
    slot: int
    loose: bool
    start: str
    edge: str
    A: str
    rest: str
    takes: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class WalkView:
    """One walk. arrivals: (past value, message, the tail that is handed on, window, depth) of registers filled before it."""

    meets: tuple[Meet, ...]
    arrivals: tuple[tuple[str, int, str, str, int], ...]
    sums: tuple[Meet, ...]
    registers: tuple[Register, ...]
    tails: tuple[Register, ...]
    takes: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    holds: tuple[str, ...]
    pushes: tuple[tuple[Register, tuple[Store, ...]], ...]
    stores: tuple[Store, ...]
    totals: tuple[tuple[str, str], ...]

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
    """A chunked kernel's own part of a View. messages: words that a chunk tells, a channel."""

    length: int
    warps: int
    steps: int
    at_once: int
    held: tuple[str, ...]
    walks: tuple[WalkView, ...]
    messages: int
    crossings: tuple[str, ...]


def chunks_view(kernel: Kernel, chunks: Chunks, printer: Printer, register: Callable[[Edge], Register],
                stores: Mapping[str, tuple[Store, ...]], totals: Mapping[str, tuple[str, ...]]) -> ChunksView:
    """stores, totals: sample -> where it is written, and the sums that it is added to."""
    program, names = kernel.program, dict(kernel.names)
    words = 2 if kernel.dtype == "float64" else 1
    slot = 0
    meets: dict[Scan, Meet] = {}
    arrivals: list[list[tuple[str, int, str, str, int]]] = []
    held: dict[str, None] = {}
    for n, walk in enumerate(chunks.walks):
        for scan in walk.sums:
            meets[scan] = _meet(scan, slot, scan in chunks.loose, program, chunks.walks[n + 1], printer, names, register)
            slot += words
        came: list[tuple[str, int, str, str, int]] = []
        for r in (register(e) for e in (chunks.walks[n - 1].tails if n else ())):
            for depth, past in enumerate(r.past):
                came.append((past, slot, f"{past}_tail", r.start, depth))
                slot += 1
        arrivals.append(came)
        held |= dict.fromkeys(names[lagged(a.base, a.lag)] for a in walk.held if a.base not in program.loads)
    views = []
    for n, walk in enumerate(chunks.walks):
        lines, done = _lines(walk, printer, names), [t for s in walk.steps for t in s.targets]
        first = [t for t in done if not any(t in s.targets for w in chunks.walks[:n] for s in w.steps)]
        # A state that is read further back than one step: its full register runs in the next walk.
        private = tuple(_shallow(register(e)) for e in program.registers
                        if e.depth > 1 and any(e.base in s.targets for s in walk.solved))
        views.append(WalkView(
            tuple(meets[s] for s in walk.solved), tuple(arrivals[n]), tuple(meets[s] for s in walk.sums),
            (*(register(e) for e in walk.registers), *private), tuple(map(register, walk.tails)),
            _takes(program, walk, _reads(walk), names), lines, _holds(walk, names, program, n, chunks.walks),
            tuple((register(e), tuple(s for n in pushed for s in stores[n])) for e, pushed in walk.pushes),
            tuple(s for t in first for s in stores.get(t, ())),
            tuple((total, names[t]) for t in first for total in totals.get(t, ()))))
    crossings = tuple(past for e in program.registers if e.crossing for past in register(e).past)
    return ChunksView(chunks.length, chunks.warps, chunks.steps, chunks.at_once, tuple(held), tuple(views), slot, crossings)


def _shallow(r: Register) -> Register:
    return replace(r, depth=1, past=r.past[:1], final="", crossing="")


def _lines(walk: Walk, printer: Printer, names: Mapping[str, str]) -> tuple[str, ...]:
    lines: list[str] = []
    for step in walk.steps:
        lines += [f"const V {names[step.target]} = {printer(step.expr)};"] if isinstance(step, Let) else \
            scan_lines(step, names, printer)
    return tuple(lines)


def _reads(walk: Walk) -> list[At]:
    found = [a for s in (*walk.steps, *walk.sums) for e in s.exprs for a in samples(e)]
    return list(dict.fromkeys([*found, *(At(e.base) for e in (*walk.registers, *walk.tails))]))


def _own(walk: Walk) -> set[At]:
    """What a walk has without taking it: its lines' values, and the past of its registers."""
    own = {At(t) for s in walk.steps for t in s.targets} | {a for s in walk.solved for a in s.past}
    return own | {At(e.base, e.side * k) for e in walk.registers for k in range(1, e.depth + 1)}


def _takes(program: Program, walk: Walk, reads: list[At], names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """(name, where it is) of what a walk reads and does not make itself."""
    found = []
    for a in (a for a in reads if a not in _own(walk)):
        name = names[lagged(a.base, a.lag)]
        found.append((name, f"{'at' if a.base in program.loads else 'held'}[k].{name}"))
    return tuple(found)


def _holds(walk: Walk, names: Mapping[str, str], program: Program, n: int, walks: tuple[Walk, ...]) -> tuple[str, ...]:
    """What a walk makes that a later one takes."""
    earlier = {a for w in walks[:n] for a in w.held}
    return tuple(names[lagged(a.base, a.lag)] for a in walk.held if a.base not in program.loads and a not in earlier)


def _meet(scan: Scan, slot: int, loose: bool, program: Program, solving: Walk, printer: Printer, names: Mapping[str, str],
          register: Callable[[Edge], Register]) -> Meet:
    [state] = scan.targets
    edge = program.edge(state, program.back)
    assert edge is not None
    r = register(edge)
    needed = {a.base for e in scan.exprs for a in samples(e)}
    lets: list[Any] = []
    for step in reversed([s for s in solving.steps if isinstance(s, Let)]):
        if step.target in needed:
            lets.insert(0, step)
            needed |= {a.base for a in samples(step.expr)}
    alone = Walk((*lets, scan), (), (), (), (), ())
    A, rest = (printer.text(e, 0) for e in (scan.A[0][0, 0], scan.b[0]))
    return Meet(f"{names[state]}_upto", r.past[0], slot, loose, r.start, r.edge, A, rest,
                _takes(program, alone, _reads(alone), names), _lines(alone, printer, names), r.value)
