"""What the backward pass needs of the forward one: states are loaded, everything else is computed again from what was read.

Holds afterwards: the backward Program reads no forward value that it does not load or compute.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.program import Buffer, Let, Program, Scan, Step
from ..ir.symbols import At, samples
from .simplify import fresh, names_of, rewritten


def with_forward_values(source: Program, backward: Program) -> tuple[Program, list[str]]:
    """Forward values: states and whatever is read at a lag are loaded, other lines recomputed."""
    computed = {t: step for step in source.steps for t in step.targets}
    loaded: dict[str, None] = {}
    lines: dict[str, None] = {}

    def need(s: At) -> None:
        if s.base not in computed:
            return
        step = computed[s.base]
        if s.lag or isinstance(step, Scan):
            loaded.setdefault(s.base)
        elif s.base not in lines:
            for inner in samples(step.expr):
                need(inner)
            lines.setdefault(s.base)

    for s in backward.reads():
        need(s)
    both = [n for n in lines if n not in loaded]
    steps = _recomputed(source, both, list(loaded), backward)
    program = replace(backward, steps=steps, buffers=(*(Buffer(n, (n,)) for n in loaded), *backward.buffers))
    reads = {(s.base, 1 if s.lag > 0 else -1) for s in program.reads() if s.lag}
    edges = tuple(replace(e, final=None, crossing=None) for e in source.edges if (e.base, e.side) in reads)
    return replace(program, edges=(*edges, *backward.edges)), list(loaded)


def _recomputed(source: Program, lines: list[str], loaded: list[str], backward: Program) -> tuple[Step, ...]:
    """The forward lines again, then the backward ones. A state that is read at t and a step before is computed again from the
    latter, which saves a load, where nothing more has to be read for it."""
    lets = [s for s in source.steps if isinstance(s, Let) and s.target in lines]
    read = {*backward.reads(), *(a for s in lets for a in samples(s.expr)), *map(At, lines)}
    taken = names_of(source) | names_of(backward)
    swap: dict[At, At] = {}
    steps: list[Step] = []
    for step in source.steps:
        if step in lets:
            steps.append(rewritten(step, lambda e: e.xreplace(swap)))
        elif isinstance(step, Scan) and len(step.targets) == 1 and step.targets[0] in loaded:
            now = At(step.targets[0])
            if {now, *step.past} <= read and all(a in read for e in step.exprs for a in samples(e)):
                swap[now] = At(fresh(f"{now.base}.again", taken))
                steps.append(Let(swap[now].base, step.update(0).xreplace({a: swap[a] for a in swap if a != now}), step.where))
    return (*steps, *(rewritten(s, lambda e: e.xreplace(swap)) for s in backward.steps))
