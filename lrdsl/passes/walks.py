"""From a Program to the walks of a chunked kernel: which line is computed in which walk over a warp's steps.

A value is ready in the walk where all that it reads is. A scan's states are ready one walk after its A and b, because the
state before a warp's steps must be heard of in between; so is the past of any other sequence that is computed here and read
at a lag. Lines stand in the first walk that can compute them, and their values are held for later ones; a line without a
function call, whose operands a later walk needs anyway, is computed again there instead. Where a sequence's past is only
written (the gradient of what a map read a step earlier), nobody waits for it: each value is written a step further on.
Holds afterwards: every walk reads only what was loaded, is held, or is computed in it, in the order of the Program.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import sympy as sp

from ..ir.functions import Elementwise, name_of
from ..ir.kernel import Walk
from ..ir.program import Edge, Let, Nonlinear, Program, Scan, Step
from ..ir.structure import Structure
from ..ir.symbols import At, samples
from . import strata
from .simplify import fresh, names_of, rewritten

FAR = 16  # steps that are kept of one sequence: each warp must have as many, and registers for them
WARPS = 8  # of a block
SHARED = 48 << 10  # bytes of a block's static shared memory
LARGEST = 4  # numbers of a state: 16 say what steps do to it, and those of 8 warps fill the memory that a block shares
LARGEST_CONSTANT = 6  # where two powers of one matrix are all that must be known
MOST = 12  # walks; beyond them lines read each other's past in a circle


def hindrance(program: Program) -> str:
    """Why a Program is not cut in chunks, as the end of a sentence; "" where it can be."""
    for step in program.steps:
        if isinstance(step, Nonlinear):
            return f"the recurrence of {', '.join(step.targets)} is not linear, and is solved one step after another"
    if program.axis:
        return strata.hindrance(program)
    structures = {s: program.structure(s) for s in program.steps if isinstance(s, Scan)}
    for scan, structure in structures.items():
        most = LARGEST_CONSTANT if structure.powers else LARGEST
        if structure.size > most:
            return f"the state of {', '.join(scan.targets)} has {structure.size} numbers, and chunks hold {most}"
    if (needed := _shared(list(structures.values()))) > SHARED:
        return f"what its recurrences do to their states takes {needed} bytes a block, and blocks share {SHARED}"
    far = max([0, *(e.depth for e in program.registers)])
    if far > FAR:
        return f"it keeps {far} steps of what it computes, and the warps of a chunk hold {FAR}"
    return "" if walks(program) else "its lines read each other's past in a circle"


def warps(program: Program) -> int:
    """Warps of a block: fewer where each has much to tell the others."""
    structures = [program.structure(s) for s in program.steps if isinstance(s, Scan)]
    return WARPS // 2 if any(s.size > LARGEST for s in structures) else WARPS


def _shared(structures: list[Structure]) -> int:
    """Bytes that the warps of a block share, in float64 (see templates/cuda/chunks.cuh: Board, Known, Powers)."""
    known = [s for s in structures if s.powers]
    others = [s for s in structures if not s.powers]
    W, N = WARPS // 2 if any(s.size > LARGEST for s in structures) else WARPS, max([0, *(s.size for s in known)])
    matrix, state = max([1, *(s.held for s in others)]), max([1, *(s.size for s in others)])
    board, heard = (matrix + state + 2) * W + state, (2 * N + 2) * W - 1 if known else 0
    powers = sum(2 * n * n + n + 2 for n, _ in {(s.size, s.coefficients) for s in known})
    flags = W + (2 * W if known else 0)
    return 32 * (8 * (board + heard + powers) + 4 * flags) + 16


def named(program: Program) -> Program:
    """The Program with a line for each function call in a recurrence: a chunked kernel looks at A and b twice."""
    taken, steps = names_of(program), list[Step]()
    for step in program.steps:
        if isinstance(step, Scan):
            calls = [c for e in step.exprs for c in sp.preorder_traversal(e) if isinstance(c, Elementwise)]
            outer = [c for c in dict.fromkeys(calls) if not any(c is not d and d.has(c) for d in calls)]
            lines = {c: At(fresh(f"{name_of(c)}.{next((a.base for a in samples(c)), 'of')}", taken)) for c in outer}
            steps += [Let(line.base, call, step.where) for call, line in lines.items()]
            step = rewritten(step, partial(_replaced, by=lines))
        steps.append(step)
    return replace(program, steps=tuple(steps))


def _replaced(expr: Any, by: dict[Any, At]) -> Any:
    return expr.xreplace(by)


def walks(program: Program, loose: tuple[Scan, ...] = ()) -> tuple[Walk, ...]:
    """The walks in order; none where a Program cannot be laid out so.

    loose: scans that may be replayed before the walk that solves them: what their lines read of registers that run in that walk
    is held as well.
    """
    pushes = _pushes(program)
    pushed = {n for names in pushes.values() for n in names}
    program = replace(program, steps=tuple(s for s in program.steps if not pushed & set(s.targets)),
                      edges=tuple(e for e in program.edges if e not in pushes))
    walk_of = _first_walks(program)
    if walk_of is None:
        return ()
    count = 1 + max([0, *walk_of.values()])
    solved = {t: s for s in program.steps if isinstance(s, Scan) for t in s.targets}
    runs: dict[int, list[Edge]] = {n: [] for n in range(count)}
    tails: dict[int, list[Edge]] = {n: [] for n in range(count)}
    for e in program.registers:
        if e.depth <= _own_depth(solved.get(e.base), e.base):
            runs[walk_of[e.base]].append(e)
        else:
            tails[walk_of[e.base]].append(e)
            runs[walk_of[e.base] + 1].append(e)
    sums = [tuple(s for s in dict.fromkeys(solved.values()) if walk_of[s.targets[0]] == n + 1) for n in range(count)]
    ends = [tuple((e, names) for e, names in pushes.items() if walk_of[e.base] == n) for n in range(count)]
    always = [dict.fromkeys([*(a for s in sums[n] for e in program.told(s) for a in samples(e)),
                             *(At(e.base) for e in (*runs[n], *tails[n])), *(At(e.base) for e, _ in ends[n])])
              for n in range(count)]
    lines = _lines(program, walk_of, always)
    needs = [dict.fromkeys([*(a for s in lines[n] for a in _reads(s)), *always[n]]) for n in range(count)]
    found = []
    for n in range(count):
        defined = _defined(program, n, walk_of, lines[: n + 1])
        later = dict.fromkeys(a for m in range(n + 1, count) for a in needs[m] if a not in _own(lines[m], runs[m]))
        later |= dict.fromkeys(a for m in range(n + 1, count) for a in _replayed(lines[m], loose))
        found.append(Walk(lines[n], tuple(runs[n]), sums[n], tuple(tails[n]), ends[n],
                          tuple(a for a in later if a in defined)))
    return tuple(found)


def _pushes(program: Program) -> dict[Edge, tuple[str, ...]]:
    """Registers one step deep of which all that is read is written as it is, and the samples that are written."""
    kept = [n for k in program.keeps for n in k.samples]
    summed = {s.sample for s in program.sums}
    read = {a for step in program.steps for a in _reads(step)}
    lets = {s.target: s.expr for s in program.steps if isinstance(s, Let)}
    found = {}
    for e in program.registers:
        users = tuple(n for n, expr in lets.items() if At(e.base, e.side) in samples(expr))
        if e.base in lets and e.depth == 1 and users and all(
                lets[n] == At(e.base, e.side) and kept.count(n) == 1 and n not in summed and At(n) not in read for n in users):
            found[e] = users
    scans = {a for s in program.steps if isinstance(s, Scan) for a in _reads(s)}
    return {e: users for e, users in found.items() if At(e.base, e.side) not in scans}


def _first_walks(program: Program) -> dict[str, int] | None:
    """Sequence -> the first walk in which it can be computed; None where there is none."""
    loads = program.loads
    walk: dict[str, int] = {t: 0 for s in program.steps for t in s.targets}
    owner = {t: s for s in program.steps for t in s.targets}

    def ready(a: At) -> int:
        if a.base in loads:
            return 0
        waits = abs(a.lag) > _own_depth(owner[a.base], a.base)
        return walk[a.base] + bool(waits)

    changed = True
    while changed:
        changed = False
        for step in program.steps:
            first = max([0, *(ready(a) for e in step.exprs for a in samples(e))]) + isinstance(step, Scan)
            for t in step.targets:
                if walk[t] < first:
                    walk[t], changed = first, True
        if max([0, *walk.values()]) > MOST:
            return None
    deep = [walk[e.base] + 1 for e in program.registers if e.depth > _own_depth(owner[e.base], e.base)]
    return walk | ({"": max(deep)} if deep else {})  # a register that is only handed on needs its walk too


def _own_depth(step: Step | None, base: str) -> int:
    """How far back a walk that solves `step` knows the state `base` while it runs."""
    return step.orders[step.targets.index(base)] if isinstance(step, Scan) else 0


def _reads(step: Step) -> list[At]:
    return [a for e in step.exprs for a in samples(e)]


def _replayed(lines: tuple[Step, ...], loose: tuple[Scan, ...]) -> list[At]:
    """What the loose scans of a walk read that no Let of the walk computes."""
    lets = {s.target: s for s in lines if isinstance(s, Let)}
    todo, found = [a for s in lines if isinstance(s, Scan) and s in loose for a in _reads(s)], dict[At, None]()
    for a in todo:
        if a.lag == 0 and a.base in lets:
            todo += _reads(lets[a.base])
        else:
            found[a] = None
    return list(found)


def _own(lines: tuple[Step, ...], runs: list[Edge]) -> set[At]:
    """What a walk defines itself: its lines' values, and the pasts of the registers that run in it."""
    own = {At(t) for s in lines for t in s.targets}
    return own | {At(e.base, e.side * k) for e in runs for k in range(1, e.depth + 1)} | {
        a for s in lines if isinstance(s, Scan) for a in s.state}


def _defined(program: Program, n: int, walk_of: dict[str, int], lines: list[tuple[Step, ...]]) -> set[At]:
    """What exists at the end of walk n: all loads, and the values of the walks so far."""
    every = {a for a in program.reads() if a.base in program.loads}
    every |= {At(t) for step in lines for s in step for t in s.targets}
    for e in program.registers:
        first, own = walk_of[e.base], max([0, *(_own_depth(s, e.base) for step in lines for s in step if e.base in s.targets)])
        every |= {At(e.base, e.side * k) for k in range(1, e.depth + 1) if (k <= own and first <= n) or first + 1 <= n}
    return every


def _lines(program: Program, walk_of: dict[str, int], always: list[dict[At, None]]) -> list[tuple[Step, ...]]:
    """The lines of each walk: those that it is the first to compute, and cheap ones of earlier walks again, instead of holding
    their values. always: what a walk needs besides, for transitions and registers."""
    fixed = {n for k in program.keeps for n in k.samples} | {s.sample for s in program.sums}
    fixed |= {e.base for e in program.registers}
    cheap = {s.target: s for s in program.steps
             if isinstance(s, Let) and not s.expr.atoms(Elementwise) and s.target not in fixed}
    found: list[tuple[Step, ...]] = []
    held: set[At] = set()  # what later walks need of this and earlier ones
    for n in reversed(range(len(always))):
        first = [s for s in program.steps if walk_of[s.targets[0]] == n]
        needed, kept = set(always[n]), list[Step]()
        for step in reversed(first):
            mine = {At(t) for t in step.targets}
            if isinstance(step, Scan) or set(step.targets) & fixed or mine & (needed | held):
                kept.append(step)
                needed |= set(_reads(step))
        again = True
        while again:  # a line whose operands are needed here anyway
            again = False
            for name, step in cheap.items():
                if walk_of[name] < n and At(name) in needed and step not in kept and set(_reads(step)) <= needed:
                    kept.append(step)
                    again = True
        own = {At(t) for s in kept for t in s.targets}
        held |= {a for a in needed - own if not (a.base in walk_of and a.lag == 0 and walk_of[a.base] == n)}
        found.insert(0, tuple(s for s in program.steps if s in kept))
    return found
