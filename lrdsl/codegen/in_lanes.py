"""A kernel whose vectors hold consecutive steps: what `templates/cpu/lanes.j2` needs beyond the rest of a View."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy as sp

from ..ir.kernel import Kernel, carried, lagged
from ..ir.program import Edge, Scan
from ..ir.structure import Rows, Structure
from ..ir.symbols import samples
from .lines import Register, step_lines
from .maps import map_view
from .printers import Printer, number


@dataclass(frozen=True)
class LanesMap:
    """What steps do to a state: the struct `name` of `count` numbers, with the arithmetic of `MapView`."""

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


def lanes_view(kernel: Kernel, printer: Printer, register: Callable[[Edge], Register], base: Callable[[str, int], str],
               time: Callable[[str], str], field: Mapping[str, str]) -> LanesView:
    """The steps of a kernel, which stand in the order of `passes.in_lanes`. base, time: of column and tensor, where row 0 is and
    how far apart rows are."""
    program, names = kernel.program, dict(kernel.names)
    edges = {e.base: e for e in program.registers}
    read = {a for step in program.steps for e in step.exprs for a in samples(e)}
    maps: dict[tuple[Rows, Rows, str], LanesMap] = {}
    lines: list[str] = []
    states: list[str] = []
    for step in program.steps:
        if isinstance(step, Scan):
            structure = carried(program, step)
            key = structure.step, structure.many, step.algebra
            if key not in maps:
                maps[key] = _map(f"Map{len(maps) + 1}" if maps else "Map", structure, kernel.compute)
            solved = f"{'_'.join(names[t] for t in step.targets)}_solved"
            lines += _solved(solved, maps[key], step, structure, names, printer)
            states += [names[t] for t in step.targets]
        else:
            lines += step_lines(step, names, printer)
        for e in (edges[t] for t in step.targets if t in edges):
            kept = register(e).name
            lines += [f"const V {names[lagged(a.base, a.lag)]} = pick({kept}, {names[e.base]}, in.past[{abs(a.lag) - 1}]);"
                      for a in sorted((a for a in read if a.base == e.base and a.lag), key=str)]
    lags = [r.sample.lag for r in kernel.reads]
    def at(lag: int) -> str:
        return f"(t {'-' if lag < 0 else '+'} {abs(lag)})" if lag else "t"

    def columns(tensor: str, count: int, lag: int, values: Sequence[Any]) -> Columns:
        away = f"_{'before' if lag < 0 else 'after'}_{abs(lag)}" if lag else ""
        return Columns(f"{field[tensor]}{away}_columns", count, base(tensor, 0), time(tensor), at(lag),
                       f"a.C * across(a.{field[tensor]}_time)", tuple(values))

    count = {b.name: len(b.columns) for b in program.buffers}
    reads = dict.fromkeys((r.buffer, r.sample.lag) for r in kernel.reads if count[r.buffer] > 1)
    found = [columns(buffer, count[buffer], lag, [(names[lagged(r.sample.base, lag)], r.column) for r in kernel.reads
                                                  if (r.buffer, r.sample.lag) == (buffer, lag)]) for buffer, lag in reads]
    writes = [columns(k.name, len(k.samples), 0, [names[n] for n in k.samples]) for k in program.keeps]
    return LanesView(tuple(maps.values()), tuple(found), tuple(writes), max([1, *(e.depth for e in edges.values())]), max([0, *(-lag for lag in lags)]),
                     max([0, *lags]), tuple(map(register, program.registers)), tuple(lines), tuple(states))


def _map(name: str, structure: Structure, dtype: str) -> LanesMap:
    seen = map_view(name, structure, (True,) * structure.size, dtype, exact=False)

    def splat(value: float) -> str:
        return f"splat({number(value, dtype)})"

    zero = structure.algebra.zero if structure.algebra else 0.0
    identity = (0.0,) if structure.algebra else structure.identity
    return LanesMap(name, seen.note, seen.size, seen.count, seen.apply, seen.after, tuple(map(splat, identity)),
                    (splat(zero),) * seen.size)


def _solved(name: str, of: LanesMap, scan: Scan, structure: Structure, names: dict[str, str],
            printer: Printer) -> Sequence[str]:
    """The lines that solve a recurrence for all lanes."""
    n = structure.size
    entries = [[sp.Integer(0)] * n for _ in range(n)]
    for i, row in enumerate(structure.step):
        for term in row:
            entries[i][term.column] = term.sign * (1 if term.number is None else structure.coefficients[term.number])
    matrix = [printer(entries[i][j]) for i, j in map(structure.place, range(of.count))]
    rest: list[Any] = [scan.b[j] if back == 1 else sp.Integer(0) for j, back in structure.state]
    if structure.algebra:
        matrix = [printer(scan.A[0][0, 0])]
    before = [f"pick({names[scan.targets[j]]}_kept, in.last[{back - 1}])" for j, back in structure.state]
    lines = [f"const State<{n}> {name} = solved({of.name}{{{{{', '.join(matrix)}}}}}, "
             f"State<{n}>{{{{{', '.join(map(printer, rest))}}}}}, State<{n}>{{{{{', '.join(before)}}}}}, in);"]
    return lines + [f"const V {names[target]} = {name}.of[{structure.state.index((j, 1))}];"
                    for j, target in enumerate(scan.targets)]
