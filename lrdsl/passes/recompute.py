"""What the backward pass needs of the forward one: states are loaded, or computed again from the borders of segments where
those were kept; everything else is computed again from what was read.

Holds afterwards: the backward Program reads no forward value that it does not load or compute.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.program import Buffer, Keep, Let, Program, Recurrent, Scan, Step
from ..ir.symbols import At, samples
from .replay import replay_of
from .simplify import fresh, names_of, rewritten


def written(program: Program) -> dict[str, Keep]:
    """The Keep that each sequence can be read from again."""
    return {n: k for k in program.keeps for n in k.samples if not k.every and (len(k.samples) == 1 or k.paired)}


def with_forward_values(source: Program, backward: Program) -> tuple[Program, list[str]]:
    """Forward values: states and whatever is read at a lag are loaded, other lines recomputed."""
    computed = {t: step for step in source.steps for t in step.targets}
    borders = {k.samples[0]: k.name for k in source.keeps if k.every}
    loaded: dict[str, None] = {}
    lines: dict[str, None] = {}
    again: dict[str, None] = {}

    def need(s: At) -> None:
        if s.base not in computed:
            return
        step = computed[s.base]
        if s.base in borders:
            again.update(dict.fromkeys(step.targets))
            if not s.lag and s.base not in lines:
                lines.setdefault(s.base)
                for e in step.exprs:
                    for inner in samples(e):
                        need(inner)
        elif s.lag or isinstance(step, Recurrent):
            loaded.setdefault(s.base)
        elif s.base not in lines:
            for inner in samples(step.expr):
                need(inner)
            lines.setdefault(s.base)

    for s in backward.reads():
        need(s)
    replay, before = None, dict[str, str]()
    if again:
        replay, more = replay_of(source, again, names_of(source) | names_of(backward))
        before = {state: name for state, _, name in replay.states}
        loaded |= dict.fromkeys(more)
    pairs = {n: Buffer(k.name, k.samples, paired=True) for n, k in written(source).items() if k.paired}
    loaded |= {half: None for n in [*loaded] if n in pairs for half in pairs[n].columns}
    both = [n for n in lines if n not in loaded]
    steps = _recomputed(source, both, list(loaded), backward, before)
    again_read = dict.fromkeys(pairs.get(n, Buffer(n, (n,), source.shape(n))) for n in loaded)
    buffers: tuple[Buffer, ...] = (*again_read, *backward.buffers)
    if replay:
        buffers = (*buffers, *(Buffer(border, (border,), "channel and axis", replay.every) for _, border, _ in replay.states))
    program = replace(backward, steps=steps, sized=(*source.sized, *backward.sized), replay=replay,
                      buffers=tuple(sorted(buffers, key=lambda b: (b.every > 1, b.shape == "axis"))))  # the first has channels
    reads = {(s.base, 1 if s.lag > 0 else -1) for p in (program, *([replay.program] if replay else []))
             for s in p.reads() if s.lag and s.base not in before}
    edges = tuple(replace(e, final=None, crossing=None) for e in source.edges if (e.base, e.side) in reads)
    return replace(program, edges=(*edges, *backward.edges)), list(loaded)


def _recomputed(source: Program, lines: list[str], loaded: list[str], backward: Program,
                before: dict[str, str]) -> tuple[Step, ...]:
    """The forward lines again, then the backward ones. A state that is read at t and a step before is computed again from the
    latter, which saves a load, where nothing more has to be read for it. before: what replayed states are a step before."""
    lets = [s for s in source.steps if isinstance(s, Let) and s.target in lines]
    read = {*backward.reads(), *(a for s in lets for a in samples(s.expr)), *map(At, lines)}
    taken = names_of(source) | names_of(backward)
    swap = {At(state, source.back): At(name) for state, name in before.items()}
    steps: list[Step] = []
    for step in source.steps:
        if step in lets:
            steps.append(rewritten(step, lambda e: e.xreplace(swap)))
        elif isinstance(step, Scan) and step.targets[0] in before:
            if {*step.targets} & {*lines}:
                again = [Let(fresh(f"{t}.again", taken), step.update(i).xreplace(swap), step.where) for i, t in
                         enumerate(step.targets)]
                steps += again
                swap.update({At(t): At(let.target) for t, let in zip(step.targets, again, strict=True)})
        elif isinstance(step, Recurrent) and len(step.targets) == 1 and step.targets[0] in loaded:
            now = At(step.targets[0])
            if {now, *step.past} <= read and all(a in read for e in step.exprs for a in samples(e)):
                swap[now] = At(fresh(f"{now.base}.again", taken))
                steps.append(Let(swap[now].base, step.update(0).xreplace({a: swap[a] for a in swap if a != now}), step.where))
    return (*steps, *(rewritten(s, lambda e: e.xreplace(swap)) for s in backward.steps))
