"""A kernel in blocks of time: what `templates/cpu/chain.j2` needs beyond the rest of a View."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.kernel import Kernel, Link, carried, lagged
from ..ir.program import Edge, Program, Scan, Step
from ..ir.symbols import At, params, samples
from .in_lanes import Columns, InLanes
from .lines import Load, Register, Total, step_lines
from .maps import MapView, map_view
from .printers import Printer, number


@dataclass(frozen=True)
class Place:
    """Row `row` of a register, in which a number of a state is, or `count` rows from there on; `told`: where it stands among
    the rows that blocks tell each other. edge: what it holds after a boundary."""

    register: str
    row: int
    told: int
    edge: str
    count: int = 1


@dataclass(frozen=True)
class Added:
    """A recurrence that is added up: `name`_upto is what the steps so far do to its state, a `map` in held + size rows.
    step: coefficients and rests of one step. zero: of its algebra, a state that is as good as a finite one."""

    name: str
    map: str
    rows: int
    identity: tuple[str, ...]
    nothing: tuple[str, ...]
    zero: str
    step: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class LanesLink:
    """The same for steps side by side: as in a `LanesView`."""

    reads: tuple[Columns, ...]
    lines: tuple[str, ...]
    states: tuple[str, ...]

    @property
    def columns(self) -> frozenset[str]:
        """What is read as one of several columns."""
        return frozenset(value for x in self.reads for value, _ in x.values)


@dataclass(frozen=True)
class LinkView:
    """One walk that adds up. registers: those that run in it. kept: of these, the rows that are told as they are. leaves:
    (value, which of all) that it leaves; takes: those that earlier ones left. light: as of a Link. fetches: of what it
    reads, that which it gets from memory (see `ChainView`)."""

    number: int
    loads: tuple[Load, ...]
    reads: frozenset[str]
    constants: tuple[str, ...]
    registers: tuple[Register, ...]
    lines: tuple[str, ...]
    added: tuple[Added, ...]
    kept: tuple[Place, ...]
    leaves: tuple[tuple[str, int], ...]
    takes: tuple[tuple[str, int], ...]
    light: bool
    fetches: frozenset[str]
    in_lanes: LanesLink | None

    @property
    def held(self) -> int:
        """Vectors that are handed on from step to step."""
        return sum(a.rows for a in self.added) + sum(r.depth for r in self.registers)

    @property
    def flushed(self) -> bool:
        """Whether nothing that it computes is of use but what is added up, so that all of it may be flushed."""
        return not (self.leaves or self.kept)

    @property
    def places(self) -> tuple[Place, ...]:
        """All rows of registers that this walk tells."""
        return (*(p for a in self.added for p in a.places), *self.kept)


@dataclass(frozen=True)
class ChainView:
    """told: rows that a block tells the next. rows: of scratch memory. parts: (a sum's field, where its part of a block begins,
    how many rows it has, whether its largest counts); all: rows of a block's part."""

    maps: tuple[MapView, ...]
    links: tuple[LinkView, ...]
    told: int
    rows: int
    parts: tuple[tuple[str, int, int, bool], ...]
    all: int

    @property
    def added(self) -> tuple[Added, ...]:
        """All recurrences."""
        return tuple(a for link in self.links for a in link.added)

    @property
    def far(self) -> frozenset[str]:
        """What walks that add up fetch for the block that comes next, while they compute."""
        return frozenset[str]().union(*(link.fetches for link in self.links if not link.light))

    @property
    def streamed(self) -> frozenset[str]:
        """What light walks read from memory themselves where its rows follow each other there: memory does not keep up with
        fetching all of a block during one walk."""
        return frozenset[str]().union(*(link.fetches for link in self.links if link.light))

    @property
    def left(self) -> tuple[tuple[str, int], ...]:
        """All values that are left for the last walk."""
        return tuple(x for link in self.links for x in link.leaves)


def chain_view(kernel: Kernel, printer: Printer, register: Callable[[Edge], Register], loads: Mapping[At, Load],
               sums: Sequence[Total], crossings: Sequence[tuple[str, int]], in_lanes: InLanes | None) -> ChainView:
    """loads: of the whole Program, by sample; crossings: (field, depth)."""
    made = _Links(kernel, printer, register, loads, sum(len(k.samples) for k in kernel.program.keeps), in_lanes)
    found = tuple(made.link(number, link) for number, link in enumerate(kernel.links, 1))
    parts = list[tuple[str, int, int, bool]]()
    for field, depth, largest in (*((s.name, 1, s.largest) for s in sums), *((f, d, False) for f, d in crossings)):
        parts.append((field, sum(p[2] for p in parts), depth, largest))
    return ChainView(tuple(made.maps.values()), found, sum(made.depths), sum(a.rows for link in found for a in link.added),
                     tuple(parts), sum(p[2] for p in parts))


class _Links:
    def __init__(self, kernel: Kernel, printer: Printer, register: Callable[[Edge], Register], loads: Mapping[At, Load],
                 written: int, in_lanes: InLanes | None) -> None:
        self.in_lanes = in_lanes
        self.kernel, self.printer, self.names = kernel, printer, dict(kernel.names)
        self.loads = loads
        self.edges = {e.base: e for e in kernel.program.registers}
        self.registers = {base: register(e) for base, e in self.edges.items()}
        self.depths = [r.depth for r in self.registers.values()]
        self.first = {base: sum(self.depths[:k]) for k, base in enumerate(self.registers)}
        self.waiting = {load.value for load in loads.values() if load.fetched}  # for a walk that fetches it
        self.share = (len(self.waiting) + written) // (len(kernel.links) + 1)
        self.maps: dict[tuple[Any, ...], MapView] = {}
        self.left: dict[Step, int] = {let: k for k, let in enumerate(let for link in kernel.links for let in link.leaves)}

    def link(self, number: int, link: Link) -> LinkView:
        program, adding = link.program, {s for s in link.sums if s in link.program.steps and any(s.orders)}
        added, kept, lines, reads = list[Added](), list[Place](), list[str](), list[Step]()
        orders: Mapping[str, int] = {t: k for s in self.kernel.program.steps if isinstance(s, Scan)
                                     for t, k in zip(s.targets, s.orders, strict=True)}
        for step in program.steps:
            if step in adding:
                assert isinstance(step, Scan)
                found = self._added(step)
                added.append(found)
                lines.append(f"{found.name}_upto.step({found.step});")
            elif step in self.left and step not in link.leaves:
                continue
            elif step not in link.sums:
                lines += step_lines(step, self.names, self.printer)
            elif not (isinstance(step, Scan) and step in self.kernel.program.steps):  # a register, told as it is
                base = step.targets[0]
                kept.append(self._place(base, orders.get(base, 0), self.edges[base].depth - orders.get(base, 0)))
            reads.append(step)
        bases = {e.base for e in program.registers} | {s.targets[0] for s in link.sums if s not in self.kernel.program.steps}
        read = program.reads()
        wanted = {self.names[lagged(s.base, s.lag)] for s in read}
        exprs = [e for step in reads for e in step.exprs]
        names = {s.base for e in exprs for s in samples(e)}
        return LinkView(
            number, tuple(dict.fromkeys(load.only(wanted) for s, load in self.loads.items() if s in read)),
            frozenset(self.names[str(p)] for e in exprs for p in params(e)),
            tuple(self.names[let.target] for let in self.kernel.constants if let.target in names),
            tuple(r for base, r in self.registers.items() if base in bases), tuple(lines), tuple(added), tuple(kept),
            self._left(link.leaves), self._left([s for s in program.steps if s in self.left and s not in link.leaves]),
            link.light, frozenset() if self.in_lanes else self._fetches(program, link.light),
            self._side_by_side(program, dict(zip((s for s in program.steps if s in adding), added, strict=True)), link.sums))

    def _fetches(self, program: Program, light: bool) -> frozenset[str]:
        """In a light walk, one sequence; else an equal share of what passes between a block and memory, of which the last walk
        has all that is written."""
        read = program.reads()
        found = [load.value for s, load in self.loads.items() if s in read and load.value in self.waiting]
        taken = frozenset(list(dict.fromkeys(found))[:1 if light else self.share])
        self.waiting -= taken
        return taken

    def _left(self, lets: Sequence[Step]) -> tuple[tuple[str, int], ...]:
        return tuple((self.names[let.targets[0]], self.left[let]) for let in lets)

    def _side_by_side(self, program: Program, added: Mapping[Step, Added], sums: Sequence[Scan]) -> LanesLink | None:
        if not self.in_lanes:
            return None
        steps = [s for s in program.steps if s in added or s not in sums]
        solved = [s for s in steps if isinstance(s, Scan) and s not in added]
        lines = self.in_lanes.lines(steps, {s: f"{a.name}_upto" for s, a in added.items()})
        return LanesLink(self.in_lanes.reads(program), lines, tuple(self.names[t] for s in solved for t in s.targets))

    def _place(self, base: str, row: int, count: int = 1) -> Place:
        r = self.registers[base]
        return Place(r.name, row, self.first[base] + row, r.edge, count)

    def _added(self, scan: Scan) -> Added:
        structure = carried(self.kernel.program, scan)
        rests = tuple(back == 1 and (scan.b[j] != 0 or scan.other is not None) for j, back in structure.state)
        key = structure.step, structure.many, rests, scan.algebra
        if key not in self.maps:
            name = f"Upto{len(self.maps) + 1}" if self.maps else "Upto"
            self.maps[key] = map_view(name, structure, rests, self.kernel.compute)
        found = self.maps[key]
        given = [self.printer(e) for e in (*structure.coefficients, *(
            scan.b[j] for (j, _), rest in zip(structure.state, rests, strict=True) if rest))]
        zero = number(structure.algebra.zero, self.kernel.compute) if structure.algebra else ""
        return Added("_".join(self.names[t] for t in scan.targets), found.name, found.held + found.size,
                     (*found.identity, *found.zero), found.nothing, zero, ", ".join(given),
                     tuple(self._place(scan.targets[j], back - 1) for j, back in structure.state))
