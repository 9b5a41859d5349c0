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
from .lines import Register
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
    nearly: tuple[str, ...]
    after: tuple[str, ...]
    once_after: tuple[str, ...]
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
    """depth: steps that are kept of a sequence, at most; kind: that and the direction, as `Lanes` takes them. behind, ahead:
    how many steps before and after its own a step reads. reads: tensors of several columns, at one lag each; columns: what is
    read so. writes: all tensors; written: what of. lines: all steps of a batch; states: what must be finite in the end."""

    maps: tuple[LanesMap, ...]
    reads: tuple[Columns, ...]
    writes: tuple[Columns, ...]
    written: tuple[str, ...]
    depth: int
    kind: str
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

    def __init__(self, memory: Memory, register: Callable[[Edge], Register]) -> None:
        self.memory, self.register = memory, register
        self.kernel, self.names = memory.kernel, memory.names
        kernel = self.kernel
        once = {v.name for v in kernel.program.vectors} | {let.target for let in kernel.constants}
        self.of_each = {n: name if n in once else f"{name}[k]" for n, name in self.names.items()}
        self.printer = Printer(self.of_each, kernel.compute)
        self.edges = {e.base: e for e in kernel.program.registers}
        self.maps: dict[tuple[Rows, Rows, str], LanesMap] = {}

    def view(self) -> LanesView:
        """All steps."""
        program = self.kernel.program
        scans = [step for step in program.steps if isinstance(step, Scan)]
        lags = [r.sample.lag for r in self.kernel.reads]
        lines, depth = self.lines(program.steps), max([1, *(e.depth for e in self.edges.values())])
        return LanesView(tuple(self.maps.values()), self.reads(program), tuple(
            self._columns(k.name, 1 if k.paired else len(k.samples), 0, self._written(k)) for k in program.keeps),
            tuple(dict.fromkeys(self.names[n] for k in program.keeps for n in k.samples)),
            depth, f"{depth}, {'true' if program.reverse else 'false'}", max([0, *(-lag for lag in lags)]), max([0, *lags]),
            tuple(map(self.register, program.registers)), lines, tuple(self.names[t] for s in scans for t in s.targets))

    def lines(self, steps: Sequence[Step], adding: Mapping[Step, str] = MappingProxyType({})) -> tuple[str, ...]:
        """The lines of all steps, for every vector of a batch. adding: recurrences that are not solved, but added up under a
        name."""
        loops = _Loops()
        for step in steps:
            past = sorted({a for e in step.exprs for a in samples(e) if a.lag and a.base in self.edges}, key=str)
            for a in past:
                kept, base = self.register(self.edges[a.base]).name, self.names[a.base]
                loops.add(self.names[lagged(a.base, a.lag)], f"before<{abs(a.lag)}>({kept}, {base}, k, in)", whole=base)
            if isinstance(step, Scan):
                self._scan(step, loops, adding.get(step, ""))
            else:
                for target, e in zip(step.targets, step.exprs, strict=True):
                    loops.add(self.names[target], self.printer(e))
        return loops.end()

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
        values = [self.of_each[n] for n in k.samples]
        return [f"Pair<V>{{{', '.join(values)}}}"] if k.paired else values

    def _columns(self, tensor: str, count: int, lag: int, values: Sequence[Any]) -> Columns:
        away = f"_{'before' if lag < 0 else 'after'}_{abs(lag)}" if lag else ""
        at = f"(t {'-' if lag < 0 else '+'} {abs(lag)})" if lag else "t"
        field = self.memory.field[tensor]
        return Columns(f"{field}{away}_columns", count, self.memory.base(tensor, 0), self.memory.time(tensor), at,
                       f"a.C * across(a.{field}_time)", tuple(values))

    def _told(self, scan: Scan) -> tuple[str, int, str, str]:
        """What each step does to the state of a recurrence: the struct of its matrix, the size of its rest, and both."""
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
        return of.name, n, ", ".join(matrix), ", ".join(map(self.printer, rest))

    def _scan(self, scan: Scan, loops: _Loops, upto: str) -> None:
        """A recurrence that is solved, or added to what is added up under the name `upto`."""
        state, names = carried(self.kernel.program, scan).state, self.names
        of, n, matrix, rest = self._told(scan)
        name = "_".join(names[t] for t in scan.targets)
        loops.add(f"{name}_told", f"{of}{{{{{matrix}}}}}", kind=of)
        loops.add(f"{name}_solved", f"State<{n}>{{{{{rest}}}}}", kind=f"State<{n}>")
        if upto:
            loops.between(f"then({upto}, {name}_told, {name}_solved, in);")
            return
        before = ", ".join(f"last({names[scan.targets[j]]}_kept, {back - 1}, in)" for j, back in state)
        loops.between(f"solve({name}_told, {name}_solved, State<{n}>{{{{{before}}}}}, in);")
        for j, target in enumerate(scan.targets):
            loops.add(names[target], f"{name}_solved[k].of[{state.index((j, 1))}]")


class _Loops:
    """Lines that are run for each vector of a batch, in as few loops as can be."""

    def __init__(self) -> None:
        self.text, self.loop = list[str](), dict[str, tuple[str, str]]()
        self.known = set[str]()

    def add(self, name: str, value: str, whole: str = "", kind: str = "V") -> None:
        """A value of each vector, once. whole: that of which all vectors have to be known before."""
        if name in self.known:
            return
        if whole in self.loop:
            self.end()
        self.known.add(name)
        self.loop[name] = kind, value

    def between(self, line: str) -> None:
        """A line for all vectors at once."""
        self.end()
        self.text.append(line)

    def end(self) -> tuple[str, ...]:
        """The lines so far."""
        for kind in dict.fromkeys(kind for kind, _ in self.loop.values()):
            self.text.append(f"{kind} {', '.join(f'{name}[EACH]' for name, (its, _) in self.loop.items() if its == kind)};")
        if self.loop:
            self.text += ["LR_EACH {", *(f"  {name}[k] = {value};" for name, (_, value) in self.loop.items()), "}"]
        self.loop.clear()
        return tuple(self.text)


def _map(name: str, structure: Structure, dtype: str) -> LanesMap:
    seen = map_view(name, structure, (True,) * structure.size, dtype)

    def splat(value: float) -> str:
        return f"splat({number(value, dtype)})"

    zero = structure.algebra.zero if structure.algebra else 0.0
    identity = (0.0,) if structure.algebra else (*structure.identity, *[0] * (seen.held - seen.count))
    return LanesMap(name, seen.note, seen.size, seen.held, seen.apply, seen.nearly, seen.after, seen.once_after,
                    tuple(map(splat, identity)), (splat(zero),) * seen.size)
