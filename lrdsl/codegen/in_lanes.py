"""A kernel whose vectors hold consecutive steps: what `templates/cpu/lanes.j2` needs beyond the rest of a View."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import sympy as sp

from ..ir.kernel import carried, lagged
from ..ir.program import Edge, Keep, Program, Scan, Step
from ..ir.structure import Rows, Structure
from ..ir.symbols import samples
from .lines import Register, step_lines
from .maps import map_view
from .memory import Memory
from .printers import Printer, number


@dataclass(frozen=True)
class LanesMap:
    """What steps do to a state: the struct `name` of `count` numbers, with the arithmetic of `MapView`. A single one has its
    rounding error beside it: where coefficients are just below 1, the product of each vector would be rounded the same way."""

    name: str
    note: str
    size: int
    count: int
    apply: tuple[str, ...]
    after: tuple[str, ...]
    identity: tuple[str, ...]
    zero: tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """A tensor of `count` columns in memory, `between` apart: `values` that are read of it or written to it, in a vector `name`
    of vectors. woven: which of its vectors hold which column."""

    name: str
    count: int
    base: str
    time: str
    step: str
    between: str
    values: tuple[Any, ...]

    @property
    def woven(self) -> str:
        return f"woven_{self.count}"


@dataclass(frozen=True)
class LanesView:
    """depth: steps that are kept of a sequence, at most. behind, ahead: how many steps before and after its own a step reads.
    reads: tensors of several columns, at one lag each; columns: what is read so. writes: all tensors. lines: one step of every
    lane; states: what must be finite in the end."""

    maps: tuple[LanesMap, ...]
    reads: tuple[Columns, ...]
    writes: tuple[Columns, ...]
    depth: int
    behind: int
    ahead: int
    registers: tuple[Register, ...]
    lines: tuple[str, ...]
    states: tuple[str, ...]

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(value for x in self.reads for value, _ in x.values)

    @property
    def woven(self) -> tuple[int, ...]:
        """How many columns the tensors have that have several."""
        return tuple(sorted({x.count for x in (*self.reads, *self.writes)} - {1}))


class InLanes:
    """The lines of steps of a kernel, which stand in the order of `passes.in_lanes`."""

    def __init__(self, memory: Memory, printer: Printer, register: Callable[[Edge], Register]) -> None:
        self.memory, self.printer, self.register = memory, printer, register
        self.kernel, self.names = memory.kernel, memory.names
        kernel = self.kernel
        self.edges = {e.base: e for e in kernel.program.registers}
        self.maps: dict[tuple[Rows, Rows, str], LanesMap] = {}

    def view(self) -> LanesView:
        """All steps."""
        program = self.kernel.program
        scans = [step for step in program.steps if isinstance(step, Scan)]
        lags = [r.sample.lag for r in self.kernel.reads]
        lines = self.lines(program.steps)
        return LanesView(tuple(self.maps.values()), self.reads(program), tuple(
            self._columns(k.name, 1 if k.paired else len(k.samples), 0, self._written(k)) for k in program.keeps),
            max([1, *(e.depth for e in self.edges.values())]), max([0, *(-lag for lag in lags)]), max([0, *lags]),
            tuple(map(self.register, program.registers)), lines, tuple(self.names[t] for s in scans for t in s.targets))

    def lines(self, steps: Sequence[Step], adding: Mapping[Step, str] = MappingProxyType({})) -> tuple[str, ...]:
        """One step of every lane. adding: recurrences that are not solved, but added up under a name."""
        read = {a for step in steps for e in step.exprs for a in samples(e)}
        lines: list[str] = []
        for step in steps:
            if step in adding:
                assert isinstance(step, Scan)
                lines.append(f"then({adding[step]}, {', '.join(self._told(step))}, in);")
                continue
            lines += self._solved(step) if isinstance(step, Scan) else step_lines(step, self.names, self.printer)
            for e in (self.edges[t] for t in step.targets if t in self.edges):
                kept = self.register(e).name
                lines += [f"const V {self.names[lagged(a.base, a.lag)]} = "
                          f"pick({kept}, {self.names[e.base]}, in.past[{abs(a.lag) - 1}]);"
                          for a in sorted((a for a in read if a.base == e.base and a.lag), key=str)]
        return tuple(lines)

    def reads(self, program: Program) -> tuple[Columns, ...]:
        """The tensors of several columns that a Program reads."""
        count = {b.name: 1 if b.paired else len(b.columns) for b in program.buffers}
        read = set(program.reads())
        wanted = [r for r in self.kernel.reads if r.sample in read and count[r.buffer] > 1]
        return tuple(self._columns(buffer, count[buffer], lag, [
            (self.names[lagged(r.sample.base, lag)], r.column) for r in wanted if (r.buffer, r.sample.lag) == (buffer, lag)])
            for buffer, lag in dict.fromkeys((r.buffer, r.sample.lag) for r in wanted))

    def _written(self, k: Keep) -> list[str]:
        """What lies in its columns."""
        values = [self.names[n] for n in k.samples]
        return [f"Pair<V>{{{', '.join(values)}}}"] if k.paired else values

    def _columns(self, tensor: str, count: int, lag: int, values: Sequence[Any]) -> Columns:
        away = f"_{'before' if lag < 0 else 'after'}_{abs(lag)}" if lag else ""
        at = f"(t {'-' if lag < 0 else '+'} {abs(lag)})" if lag else "t"
        field = self.memory.field[tensor]
        return Columns(f"{field}{away}_columns", count, self.memory.base(tensor, 0), self.memory.time(tensor), at,
                       f"a.C * across(a.{field}_time)", tuple(values))

    def _told(self, scan: Scan) -> tuple[str, str]:
        """What each step does to the state of a recurrence: its matrix and its rest."""
        structure = carried(self.kernel.program, scan)
        n, key = structure.size, (structure.step, structure.many, scan.algebra)
        if key not in self.maps:
            self.maps[key] = _map(f"Map{len(self.maps) + 1}" if self.maps else "Map", structure, self.kernel.compute)
        of = self.maps[key]
        entries = [[sp.Integer(0)] * n for _ in range(n)]
        for i, row in enumerate(structure.step):
            for term in row:
                entry = sp.Integer(1) if term.number is None else structure.coefficients[term.number]
                entries[i][term.column] = term.sign * entry
        matrix = [self.printer(entries[i][j]) for i, j in map(structure.place, range(structure.count))]
        rest: list[Any] = [scan.b[j] if back == 1 else sp.Integer(0) for j, back in structure.state]
        if structure.algebra:
            matrix = [self.printer(scan.A[0][0, 0])]
        return (f"{of.name}{{{{{', '.join(matrix)}}}}}", f"State<{n}>{{{{{', '.join(map(self.printer, rest))}}}}}")

    def _solved(self, scan: Scan) -> list[str]:
        """The lines that solve a recurrence for all lanes."""
        state, names = carried(self.kernel.program, scan).state, self.names
        before = [f"pick({names[scan.targets[j]]}_kept, in.last[{back - 1}])" for j, back in state]
        name = f"{'_'.join(names[t] for t in scan.targets)}_solved"
        lines = [f"const State<{len(state)}> {name} = solved({', '.join(self._told(scan))}, "
                 f"State<{len(state)}>{{{{{', '.join(before)}}}}}, in);"]
        return lines + [f"const V {names[target]} = {name}.of[{state.index((j, 1))}];"
                        for j, target in enumerate(scan.targets)]


def _map(name: str, structure: Structure, dtype: str) -> LanesMap:
    seen = map_view(name, structure, (True,) * structure.size, dtype)

    def splat(value: float) -> str:
        return f"splat({number(value, dtype)})"

    zero = structure.algebra.zero if structure.algebra else 0.0
    identity = (0.0,) if structure.algebra else (*structure.identity, *[0] * (seen.held - seen.count))
    return LanesMap(name, seen.note, seen.size, seen.held, seen.apply, seen.after, tuple(map(splat, identity)),
                    (splat(zero),) * seen.size)
