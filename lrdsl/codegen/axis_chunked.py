"""A kernel over an axis in chunks as finished lines: the walks that add up what a warp's steps do to states.

In such a walk a recurrence is not solved: where its line would stand, its coefficients and rest are handed to what is added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..ir.kernel import Stratum, carried
from ..ir.program import Scan, Step
from ..ir.structure import Structure
from ..ir.symbols import At, samples
from .axis import Lines
from .axis_views import AxisChunks, AxisView, Meet, WalkView
from .maps import MapView, map_view


def in_chunks(view: AxisView, lines: Lines) -> AxisView:
    """The view of a serial kernel, whose registers begin with what was heard of other chunks, and the walks before it."""
    kernel, axis = lines.kernel, lines.axis
    program, made = kernel.program, _Sums(lines)
    sums = tuple(map(made.sums, axis.strata))
    again = replace(view.again, registers=tuple(
        replace(r, begin=tuple(f"get({base} + segment * {time} + n * a.C + c)" for _ in r.begin))
        for r, _, base, time in view.replayed)) if view.again else None
    late = bool(again and axis.strata) and not any(s.base in program.replayed for s in axis.strata[0].program.reads())
    chunks = AxisChunks(axis.warps, axis.steps, tuple(made.maps.values()), sums, late, made.slot, *axis.board,
                        any(s.alone for s in axis.strata))
    return replace(view, walk=made.from_states(view.walk), again=again, chunks=chunks)


@dataclass(frozen=True)
class _Told:
    """What is known of a recurrence that is added up."""

    meet: Meet
    structure: Structure
    rests: tuple[bool, ...]


class _Sums:
    """The walks that add up, in order."""

    def __init__(self, lines: Lines) -> None:
        self.lines, self.kernel, self.slot = lines, lines.kernel, 0
        self.maps: dict[tuple[Any, ...], MapView] = {}
        self.begin: dict[tuple[str, int], str] = {}  # (state, steps back) -> where number n of it is

    def sums(self, stratum: Stratum) -> WalkView:
        """One of them."""
        told = {scan: self._told(scan) for scan in stratum.sums}
        walk = self.from_states(_Adding(self.lines, told).walk(stratum.program, stratum.levels))
        for scan, program, levels in stratum.alone:
            meet = told[scan].meet
            alone = self.from_states(self.lines.walk(program, levels), self._begin(scan, told[scan], "from"))
            after = tuple(r.past[k - 1] for j, k in told[scan].structure.state for r in alone.registers
                          if r.base == scan.targets[j])
            told[scan] = replace(told[scan], meet=replace(meet, scope=f"InOrder{meet.slot + 1}", again=alone, after=after))
        for scan, known in told.items():
            self.begin |= self._begin(scan, known, "before")
        return replace(walk, meets=tuple(known.meet for known in told.values()))

    @staticmethod
    def _begin(scan: Scan, told: _Told, where: str) -> dict[tuple[str, int], str]:
        n = "n" if told.meet.wide else "0"
        return {(scan.targets[j], k): f"{told.meet.name}_{where}[{n}].of[{i}]" for i, (j, k) in enumerate(told.structure.state)}

    def from_states(self, walk: WalkView, more: Mapping[tuple[str, int], str] | None = None) -> WalkView:
        """The walk, whose registers begin with the states before its first step."""
        begin = self.begin | dict(more or {})
        return replace(walk, registers=tuple(
            replace(r, begin=tuple(begin[r.base, k] for k in range(1, r.depth + 1))) for r in walk.registers))

    def _told(self, scan: Scan) -> _Told:
        program, names, structure = self.kernel.program, self.lines.names, carried(self.kernel.program, scan)
        rests = tuple(back == 1 and (scan.b[j] != 0 or scan.other is not None) for j, back in structure.state)
        key = structure.step, structure.many, rests, scan.algebra
        if key not in self.maps:
            self.maps[key] = map_view(f"Map{len(self.maps) + 1}" if self.maps else "Map", structure, rests, self.kernel.compute)
        found, wide, size = self.maps[key], scan.targets[0] in program.wide, structure.size
        edges = {e.base: self.lines.register(program, e) for e in program.registers}
        state = [(edges[scan.targets[j]], k - 1) for j, k in structure.state]
        starts = ", ".join(self.lines.beyond(r.start, wide, depth) for r, depth in state)
        cuts = ", ".join(self.lines.beyond(r.edge, wide, depth) for r, depth in state)
        meet = Meet("_".join(names[t] for t in scan.targets), found.name, self.slot, wide, f"State<{size}>{{{{{starts}}}}}",
                    f"State<{size}>{{{{{cuts}}}}}")
        words = -(-(size + found.count) // (1 if self.kernel.compute == "float64" else 2))
        self.slot += (program.axis if wide else 1) * words
        return _Told(meet, structure, rests)


class _Adding(Lines):
    """The lines of one such walk."""

    def __init__(self, lines: Lines, told: Mapping[Scan, _Told]) -> None:
        self.told = dict(told)
        super().__init__(lines.kernel, lines.axis, lines.printer, lines.field, lines.types, lines.windows)

    def _read(self, steps: Iterable[Step]) -> Iterator[At]:
        for step in steps:
            if step in self.told:
                for e in step.exprs:
                    yield from samples(e)
            else:
                yield from super()._read([step])

    def _lines(self, step: Step) -> list[str]:
        if not isinstance(step, Scan) or step not in self.told:
            return super()._lines(step)
        told = self.told[step]
        name, n = told.meet.name, "n" if told.meet.wide else "0"
        if not any(step.orders):  # a line that is read a step back, which nothing before it has to do with
            return [f"{name}_upto.boundary({n}, State<1>{{{{{name}}}}});"]
        rests = (step.b[j] for (j, _), rest in zip(told.structure.state, told.rests, strict=True) if rest)
        given = (self.printer.text(e, 0) for e in (*told.structure.coefficients, *rests))
        return [f"{name}_upto.step({', '.join([n, *given])});"]
