"""States with an axis are kept at the borders of segments only, and computed again from there in the backward pass.

N numbers a channel and step are N times what is read and written otherwise. One segment's states at a time stay in a cache.
Non-goals: states that are read further back than a step, and states that another Program reads: they are kept at every step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..ir.program import Buffer, Keep, Let, Program, Replay, Scan
from ..ir.symbols import At, params, samples
from .simplify import fresh, names_of

# Steps between two borders. A border costs N numbers written and read a segment, a segment N numbers a step in a cache.
SEGMENT = 32


def bordered(program: Program) -> Program:
    """The Program with borders kept instead of each state with an axis that only the backward pass reads. Of coupled states,
    which are computed again together, all borders are kept."""
    near = {e.base for e in program.registers if e.depth == 1} & program.wide
    inner = {k.samples[0] for k in program.keeps if k.inner and not k.every}
    scans = [s.targets for s in program.steps if isinstance(s, Scan) and {*s.targets} <= near and {*s.targets} & inner]
    states = [t for targets in scans for t in targets]
    keeps = tuple(k for k in program.keeps if not (k.inner and not k.every and k.samples[0] in states))
    taken = names_of(program)
    borders = tuple(Keep(fresh(f"{t}.borders", taken), (t,), inner=True, every=SEGMENT) for t in states)
    return replace(program, keeps=(*keeps, *borders))


def unbordered(program: Program) -> Program:
    """The Program without its borders: its gradient's gradient needs every state."""
    return replace(program, keeps=tuple(k for k in program.keeps if not k.every))


def replay_of(source: Program, states: Iterable[str], taken: set[str]) -> tuple[Replay, list[str]]:
    """The Replay that gives what the registers of `states` hold, and of those that they need; and the sequences of `source`
    that it must load. taken: names that it may not use."""
    borders = {k.samples[0]: k for k in source.keeps if k.every}
    computed = {t: step for step in source.steps for t in step.targets}
    lines: set[str] = set()
    loaded: dict[str, None] = {}

    def need(s: At) -> None:
        step = computed.get(s.base)
        if step is None or s.base in lines or s.base in loaded:
            return
        if not (s.base in borders or (isinstance(step, Let) and not s.lag)):
            loaded.setdefault(s.base)
            return
        lines.update(step.targets)
        for e in step.exprs:
            for inner in samples(e):
                need(inner)

    wanted, again = [At(state) for state in states], True
    while again:
        lines.clear()
        for state in wanted:
            need(state)
        again = bool(lines & loaded.keys())  # a line that is loaded for a read at a lag is loaded for all
    steps = tuple(s for s in source.steps if set(s.targets) & lines)
    reads = {s for step in steps for e in step.exprs for s in samples(e)}
    learned = {str(p) for step in steps for e in step.exprs for p in params(e)}
    own = [t for s in steps if isinstance(s, Scan) for t in s.targets]
    edges = tuple(replace(e, start=None if e.base in own else e.start, final=None, crossing=None) for e in source.edges
                  if (e.base in own and e.side == source.back)
                  or (e.base not in lines and any(s.base == e.base and s.lag * e.side > 0 for s in reads)))
    loaded = {n: None for n in loaded if n in {s.base for s in reads}}
    buffers = [b for b in source.buffers if {*b.columns} & {s.base for s in reads}]
    program = Program(f"{source.name}_replay", source.reverse, (*(_whole(source, n) for n in loaded), *buffers),
                      tuple(v for v in source.vectors if v.name in learned), edges, steps, (), (), source.axis,
                      tuple(n for n in source.sized if n in lines))
    found = tuple((s, borders[s].name, fresh(f"{s}.before", taken)) for s in own)
    return Replay(program.check(), found, next(iter(borders.values())).every), list(loaded)


def _whole(source: Program, sequence: str) -> Buffer:
    return Buffer(sequence, (sequence,), source.shape(sequence))
