"""A Program for segments of a packed time axis, each with edges of its own: as `reset` makes boundaries, `cu_seqlens` does.

A kernel knows one edge a sequence and batch row; packed segments share the row. So a given edge comes as a sequence: at a
boundary a read gets 0, and what the segment's edge is there is added to it, `h[t-1] + h.given1[t]`, where h.given1 is 0 inside
of segments. A recurrence stays what it was, its b has a term more, and the gradient of the edges is that of these sequences.
Holds afterwards: no edge is an input or an output; states that were carried are written at every step, for their last values
are in many places, and they and the given edges are in full precision.
Non-goals: borders of states with an axis; a state that is written anyway is not computed again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sympy as sp

from ..ir.program import Buffer, Edge, Keep, Let, Nonlinear, Program, Step
from ..ir.symbols import At, samples
from .replay import unbordered


def given_name(key: str, k: int) -> str:
    """The sequence that holds what a read k steps away gets beyond the border of a segment; key: `h`, or `x.ahead`."""
    return f"{key}.given{k}"


def key_of(edge: Edge) -> str:
    """The name that an edge of a forward Program is given by."""
    assert edge.start is not None
    return edge.start.removesuffix(".start")


def carried_name(state: str) -> str:
    """The sequence that holds a state in full precision beside the one of fewer bits that the caller gets."""
    return f"{state}.carried"


def ragged(program: Program, given: frozenset[str], narrow: bool = False) -> Program:
    """The Program with the edges in `given` (by `key_of`) as sequences; the others keep their constant. narrow: sequences have
    16 bits, so that states which a caller gets are written a second time (`carried_name`)."""
    program = unbordered(program)
    keys = {(e.base, e.side): key_of(e) for e in program.edges}
    added: dict[str, str] = {}

    def edge(s: At) -> Any:
        """What is added to a read at a lag."""
        key = keys.get((s.base, 1 if s.lag > 0 else -1)) if s.lag else None
        if key not in given:
            return sp.S.Zero
        added.setdefault(given_name(key, abs(s.lag)), s.base)
        return At(given_name(key, abs(s.lag)))

    def turned(expr: Any) -> Any:
        return expr.xreplace({s: s + edge(s) for s in samples(expr) if s.lag})

    steps: list[Step] = []
    for step in program.steps:
        if isinstance(step, Let):
            steps.append(replace(step, expr=turned(step.expr)))
            continue
        if isinstance(step, Nonlinear):
            steps.append(replace(step, exprs=tuple(map(turned, step.exprs))))
            continue
        if step.other:  # the edge of the past is joined to the addend, as + is its product
            A, b = turned(step.A[0][0, 0]) + turned(edge(step.past[0])), turned(step.b[0])
            steps.append(replace(step, A=(sp.ImmutableMatrix([[A]]),), b=(b,)))
            continue
        beyond = [sum((m[i, j] * edge(step.back(s, k)) for k, m in enumerate(step.A, 1) for j, s in enumerate(step.targets)
                       if m[i, j] != 0), start=sp.S.Zero) for i in range(len(step.targets))]
        A = tuple(sp.ImmutableMatrix(m.rows, m.cols, [turned(e) for e in m]) for m in step.A)
        b = tuple(turned(rest) + turned(more) for rest, more in zip(step.b, beyond, strict=True))
        steps.append(replace(step, A=A, b=b))
    edges = tuple(replace(e, init=0.0 if keys[e.base, e.side] in given else e.init, start=None, edge=None, final=None)
                  for e in program.edges)
    carried = dict.fromkeys(e.base for e in program.registers if e.final)
    shown = [k for k in program.keeps if not k.inner]
    seen = {n for k in shown for n in k.samples}
    twice = tuple(Keep(carried_name(n), (n,)) for n in carried if narrow and n in seen)
    alone = tuple(Keep(n, (n,)) for n in carried if n not in seen)
    inner = tuple(k for k in program.keeps if k.inner and k.samples[0] not in carried)
    buffers = tuple(Buffer(n, (n,), program.shape(base)) for n, base in added.items())
    return replace(program, name=f"{program.name}_ragged", buffers=program.buffers + buffers, edges=edges, steps=tuple(steps),
                   keeps=(*shown, *twice, *alone, *inner),
                   full=(*program.full, *added, *(k.name for k in (*twice, *alone)))).check()
