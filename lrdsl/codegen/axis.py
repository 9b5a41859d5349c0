"""A kernel over an axis as finished lines: what `templates/*/axis.*` need beyond the rest of a View.

A loop over the N numbers of a channel takes what it reads, computes its lines, and ends with what others need of them: a number
that a later loop reads, a register's shift, a store, a running sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..ir.functions import axis_sum
from ..ir.kernel import Axis, Kernel, Level
from ..ir.program import Let, Program, Scan, Step
from ..ir.symbols import At, params, samples
from .axis_memory import Memory, Windows
from .axis_views import Across, AxisView, LevelView, Loop, WalkView
from .lines import Store, scan_lines
from .printers import Printer


def axis_view(kernel: Kernel, axis: Axis, printer: Printer, field: Mapping[str, str], types: Mapping[str, str],
              windows: Windows) -> AxisView:
    """field: names of Args; types: tensor -> its elements; windows: (edge's tensor, edge, shape, whether it is read as a
    sequence of 16 bits) -> the name of a window."""
    made = _Lines(kernel, axis, printer, field, types, windows)
    program, replay = kernel.program, kernel.program.replay
    walk = made.walk(program, axis.levels)
    again = made.walk(replay.program, axis.replay) if replay else None
    registers = {r.base: r for w in (walk, again) if w for r in w.registers}
    steps = (*program.steps, *(replay.program.steps if replay else ()))
    used = {str(p) for s in steps for e in s.exprs for p in params(e)}  # by a step; others only by what is computed first
    return AxisView(
        size=program.axis, stage=axis.stage, together=axis.together,
        vectors=tuple((made.names[v.name], field[v.name], v.shape) for v in program.vectors
                      if v.name in used or v.shape != "channel and axis" or kernel.target == "cpu"),
        constants=made.first(axis.constants) if axis.constants else None,
        constant_takes=made.takes(program, axis.constants),
        constant_names=tuple((made.names[let.target], let.target in program.wide) for let in made.lasting),
        walk=walk, again=again, across=made.across(),
        sums=tuple((field[s.name], made.names[s.sample], s.sample in program.wide) for s in program.sums
                   if not s.shared(program)),
        stores=made.stores(wide=False), wide_stores=made.stores(wide=True),
        borders=tuple((registers[k.samples[0]], made.base(k.name, 0, program.shape(k.samples[0])), f"a.{field[k.name]}_time")
                      for k in program.keeps if k.every),
        replayed=tuple((registers[state], made.names[before], made.base(border, 0, "channel and axis"),
                        f"a.{field[border]}_time") for state, border, before in (replay.states if replay else ())),
        every=max([0, *(k.every for k in program.keeps)]), segment=replay.every if replay else 0)


def _copies(program: Program) -> dict[str, str]:
    """What is written or added up over channels and is the same as another line: name -> the other's."""
    shared = {n for k in program.keeps if k.over for n in k.samples} | {s.sample for s in program.sums if s.shared(program)}
    looped = {t for s in program.steps for t in s.targets if t in program.wide}
    return {s.target: s.expr.base for s in program.steps if isinstance(s, Let) and s.target in shared
            and isinstance(s.expr, At) and not s.expr.lag and s.expr.base in looped}


class _Lines(Memory):
    """The lines of a kernel's walks."""

    def __init__(self, kernel: Kernel, axis: Axis, printer: Printer, field: Mapping[str, str], types: Mapping[str, str],
                 windows: Windows) -> None:
        super().__init__(kernel.target, kernel.program, dict(kernel.names), field, types, windows)
        self.kernel, self.axis, self.printer = kernel, axis, printer
        self.constants = {c.target for c in axis.constants}
        # Those that a step reads; others are known only to these.
        read = {s.base for level in (*axis.levels, *axis.replay) for s in self._read((*level.steps, *level.loop))}
        self.lasting = tuple(c for c in axis.constants if c.target in read)
        self.copies = _copies(kernel.program)

    def walk(self, program: Program, levels: tuple[Level, ...]) -> WalkView:
        """A walk over the steps of the Program, or of its Replay."""
        own = program is self.kernel.program
        reads = [r for r in self.kernel.reads if r.sample in program.reads()]
        loads = tuple(map(self.load, reads))
        registers = tuple(self.register(program, e) for e in program.registers)
        loop_of = {t: k for k, level in enumerate(levels) for s in level.loop for t in s.targets}
        read_in: dict[At, int] = {}  # the last loop that reads a number of a channel
        for k, level in enumerate(levels):
            for s in self._read(level.loop):
                read_in[s] = k
        ends: dict[int, list[str]] = {k: [] for k in range(len(levels))}
        needs: dict[int, list[At]] = {k: [] for k in range(len(levels))}
        for e, r in zip(program.registers, registers, strict=True):
            if r.wide:
                past = [At(e.base, e.side * k) for k in range(1, e.depth + 1)]
                at = max([loop_of[e.base], *(read_in.get(s, 0) for s in past)])
                ends[at] += self.shift(r)
                needs[at] += [At(e.base), *past[:-1]]
        if own:
            for sample, lines in self.writes():
                ends[loop_of[sample]] += lines
        views = []
        for k, level in enumerate(levels):
            reads_here = list(dict.fromkeys([*self._read(level.loop), *needs[k]]))
            later = {s for j in range(k + 1, len(levels)) for s in (*self._read(levels[j].loop), *needs[j])}
            views.append(self.level(program, level, reads_here, later, ends[k]))
        takes = self.takes(program, [s for level in levels for s in (*level.steps, *level.loop)])
        time, crossed = ("a.T - 1 - s", "t + 1") if program.reverse else ("s", "t")
        return WalkView(loads, takes, tuple(views), registers, time, crossed)

    def takes(self, program: Program, steps: Sequence[Step]) -> tuple[tuple[str, str], ...]:
        """What some steps read that is one number a channel, and do not compute."""
        own = {At(t) for s in steps for t in s.targets}
        learned = dict.fromkeys(str(p) for s in steps for e in s.exprs for p in params(e))
        found = [(self.name(s), text) for s in dict.fromkeys(self._read(steps))
                 if s not in own and (text := self.take_one(program, s))]
        return (*found, *((self.names[v], text) for v in learned if (text := self.take_one_learned(v))))

    @staticmethod
    def _read(steps: Iterable[Step]) -> Iterator[At]:
        for step in steps:
            for e in step.exprs:
                yield from samples(e)
            if isinstance(step, Scan):
                yield from step.past

    def level(self, program: Program, level: Level, reads: list[At], later: set[At], ends: list[str]) -> LevelView:
        """Its lines, and its loop."""
        lines = [line for s in level.steps for line in self._lines(s)]
        if not level.loop:
            return LevelView(tuple(lines), None)
        own = {t for s in level.loop for t in s.targets}
        sums = tuple(self.names[s.target] for s in level.loop if isinstance(s, Let) and isinstance(s.expr, axis_sum))
        held = [At(t) for t in own if At(t) in later and self.names[t] not in sums]
        held.sort(key=lambda s: self.name(s))
        learned = dict.fromkeys(str(p) for s in level.loop for e in s.exprs for p in params(e))
        takes = [(self.name(s), text) for s in reads if s.base not in own or s.lag if (text := self.take(program, s))]
        takes += [(self.names[v], text) for v in learned if (text := self.take_learned(v))]
        return LevelView(tuple(lines), Loop(
            sums, tuple(self.name(s) for s in held), tuple(dict.fromkeys(takes)),
            tuple(line for s in level.loop for line in self._lines(s)),
            (*(self.hold(self.name(s)) for s in held), *ends)))

    def first(self, constants: tuple[Let, ...]) -> LevelView:
        """What is computed before all steps."""
        wide = self.kernel.program.wide
        level = Level(tuple(c for c in constants if c.target not in wide), tuple(c for c in constants if c.target in wide))
        names = [self.names[c.target] for c in self.lasting if c.target in wide]
        self.starting = True
        view = self.level(self.kernel.program, level, list(dict.fromkeys(self._read(level.loop))), set(), [])
        self.starting = False
        if view.loop:
            loop = view.loop
            view = LevelView(view.lines, Loop((), (), loop.takes, loop.lines, tuple(self.keep_constant(n) for n in names)))
        return view

    def _lines(self, step: Step) -> list[str]:
        if isinstance(step, Scan):
            return scan_lines(step, self.names, self.printer)
        if step.target in self.copies:
            return []
        if isinstance(step.expr, axis_sum):
            return [f"{self.names[step.target]} += {self.printer(step.expr.args[0])};"]
        return [f"const V {self.names[step.target]} = {self.printer(step.expr)};"]

    def stores(self, wide: bool) -> tuple[Store, ...]:
        """What is written at every step, one number a channel, or N."""
        program = self.kernel.program
        kept = [(keep, k, n) for keep in program.keeps if not keep.every and not keep.over for k, n in enumerate(keep.samples)]
        return tuple(Store(f"to_{self.field[keep.name]}" + (f"_{k}" if len(keep.samples) > 1 else ""),
                           self.base(keep.name, k, program.shape(n)), f"a.{self.field[keep.name]}_time", self.names[n],
                           self.types[keep.name]) for keep, k, n in kept if (n in program.wide) == wide)

    def writes(self) -> Iterator[tuple[str, list[str]]]:
        """(sample with an axis, the lines that write it, each time a loop has computed it)."""
        program, wide = self.kernel.program, self.kernel.program.wide
        sample = {name: n for n, name in self.names.items()}
        for store in self.stores(wide=True):
            yield sample[store.value], [self.store(store)]
        for total in program.sums:
            if total.sample in wide and not total.shared(program):
                yield total.sample, [self.add(self.field[total.name], self.names[total.sample])]
        for source, keeps, sums in self._shared():
            if keeps or sums:
                yield source, [self.across_line(self.names[source])]

    def _shared(self) -> list[tuple[str, list[tuple[str, int, int]], list[str]]]:
        """(sample, its (keep, column, columns), its sums) of what is added up over channels; copies of a sample are one."""
        program = self.kernel.program
        found: dict[str, tuple[list[tuple[str, int, int]], list[str]]] = {}

        def entry(sample: str) -> tuple[list[tuple[str, int, int]], list[str]]:
            return found.setdefault(self.copies.get(sample, sample), ([], []))

        for keep in program.keeps:
            for k, n in enumerate(keep.samples):
                if keep.over:
                    entry(n)[0].append((keep.name, k, len(keep.samples)))
        for total in program.sums:
            if total.shared(program):
                entry(total.sample)[1].append(self.field[total.name])
        return [(n, keeps, sums) for n, (keeps, sums) in found.items()]

    def across(self) -> tuple[Across, ...]:
        """What is added up over channels."""
        N = self.kernel.program.axis
        return tuple(Across(self.names[n], tuple(self.shared_row(keep, columns * N, k * N) for keep, k, columns in keeps),
                            tuple(sums)) for n, keeps, sums in self._shared())

