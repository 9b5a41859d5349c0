"""A kernel over an axis in chunks as finished lines: the walks that add up what a warp's steps do to states.

In such a walk a recurrence is not solved: where its line would stand, its coefficients and rest are handed to what is added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..ir.kernel import carried
from ..ir.program import Program, Scan, Step
from ..ir.structure import Rows, Structure
from ..ir.symbols import At, samples
from .axis import Lines
from .axis_memory import AxisRegister
from .axis_views import AxisChunks, AxisView, Meet, WalkView
from .maps import MapView, map_view


def in_chunks(view: AxisView, lines: Lines) -> AxisView:
    """The view of a serial kernel, whose registers begin with what was heard of other chunks, and the walks before it."""
    kernel, axis = lines.kernel, lines.axis
    program, made = kernel.program, _Sums(lines)
    sums = tuple(made.sums(s.program, s.levels, s.sums) for s in axis.strata)
    again = replace(view.again, registers=tuple(
        replace(r, begin=tuple(f"get({base} + segment * {time} + n * a.C + c)" for _ in r.begin))
        for r, _, base, time in view.replayed)) if view.again else None
    late = bool(again and axis.strata) and not any(s.base in program.replayed for s in axis.strata[0].program.reads())
    chunks = AxisChunks(axis.warps, axis.steps, tuple(made.maps.values()), sums, late, made.slot, *axis.board)
    return replace(view, walk=made.from_states(view.walk), again=again, chunks=chunks)


class _Sums:
    """The walks that add up, in order."""

    def __init__(self, lines: Lines) -> None:
        self.lines, self.kernel, self.slot = lines, lines.kernel, 0
        self.maps: dict[tuple[Any, ...], MapView] = {}
        self.begin: dict[tuple[str, int], str] = {}  # (state, steps back) -> where number n of it is

    def sums(self, program: Program, levels: Any, scans: tuple[Scan, ...]) -> WalkView:
        """One of them."""
        meets = {scan: self._meet(scan) for scan in scans}
        walk = self.from_states(_Adding(self.lines, meets).walk(program, levels))
        for scan, (meet, _, structure) in meets.items():
            n = "n" if meet.wide else "0"
            self.begin |= {(scan.targets[j], k): f"{meet.name}_before[{n}].of[{i}]"
                           for i, (j, k) in enumerate(structure.state)}
        return replace(walk, meets=tuple(m for m, _, _ in meets.values()))

    def from_states(self, walk: WalkView) -> WalkView:
        """The walk, whose registers begin with the states before its first step."""
        return replace(walk, registers=tuple(replace(r, begin=tuple(
            self.begin[r.base, k] for k in range(1, r.depth + 1))) for r in walk.registers))

    def _meet(self, scan: Scan) -> tuple[Meet, tuple[bool, ...], Structure]:
        program, names = self.kernel.program, self.lines.names
        structure = carried(program, scan)
        rests = tuple(back == 1 and (scan.b[j] != 0 or scan.other is not None) for j, back in structure.state)
        key: tuple[Rows | tuple[bool, ...] | str, ...] = (structure.step, structure.many, rests, scan.algebra)
        if key not in self.maps:
            self.maps[key] = map_view(f"Map{len(self.maps) + 1}" if self.maps else "Map", structure, rests, self.kernel.compute)
        found, wide = self.maps[key], scan.targets[0] in program.wide
        edges: dict[str, AxisRegister] = {e.base: self.lines.register(program, e) for e in program.registers}
        state = [(edges[scan.targets[j]], k - 1) for j, k in structure.state]
        starts, cuts = (", ".join(self.lines.beyond(window(r), wide, depth) for r, depth in state)
                        for window in (lambda r: r.start, lambda r: r.edge))
        meet = Meet("_".join(names[t] for t in scan.targets), found.name, self.slot, wide,
                    f"State<{structure.size}>{{{{{starts}}}}}", f"State<{structure.size}>{{{{{cuts}}}}}")
        self.slot += (program.axis if wide else 1) * -(-(structure.size + found.count) // (1 if self.kernel.compute == "float64"
                                                                                         else 2))
        return meet, rests, structure


class _Adding(Lines):
    """The lines of one such walk."""

    def __init__(self, lines: Lines, meets: dict[Scan, tuple[Meet, tuple[bool, ...], Structure]]) -> None:
        super().__init__(lines.kernel, lines.axis, lines.printer, lines.field, lines.windows)
        self.meets = meets

    def _read(self, steps: Iterable[Step]) -> Iterator[At]:
        for step in steps:
            if step in self.meets:
                for e in step.exprs:
                    yield from samples(e)
            else:
                yield from super()._read([step])

    def _lines(self, step: Step) -> list[str]:
        if not isinstance(step, Scan) or step not in self.meets:
            return super()._lines(step)
        meet, rests, structure = self.meets[step]
        if not any(step.orders):  # a line that is read a step back, which nothing before it has to do with
            return [f"{meet.name}_upto.boundary({'n' if meet.wide else '0'}, State<1>{{{{{meet.name}}}}});"]
        given = [*structure.coefficients, *(step.b[j] for (j, _), rest in zip(structure.state, rests, strict=True) if rest)]
        told = ["n" if meet.wide else "0", *(self.printer.text(e, 0) for e in given)]
        return [f"{meet.name}_upto.step({', '.join(told)});"]
