"""A Program with an axis in chunks of time: its recurrences in an order in which the state before a stretch of steps is found.

What a stretch does to the state of a recurrence can be added up when its coefficients are known: those of the first stratum
from what was read, those of a next one when the states of the strata before are known as well. Each stratum is a Program of its
own, the lines that its recurrences need: a walk over a few lines costs less than memory for N numbers of every step.
Non-goals: what is read further back than a recurrence does. Such Programs are walked by one thread a channel.
"""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from ..ir.kernel import Stratum, carried
from ..ir.program import Program, Scan, Step
from ..ir.symbols import At, samples
from .bounds import contracts
from .levels import levels, prepared
from .replay import SEGMENT

WARPS = 4  # of a block
STEPS = SEGMENT  # of a warp, so that it has one border
LARGEST = 2  # numbers of a state, each of N times: two say what steps do to them by four more
MOST = 4  # strata
SHARED = 12_288  # words of a block's static shared memory


def hindrance(program: Program) -> str:
    """Why a Program with an axis is not cut in chunks, as the end of a sentence; "" where it can be."""
    scans = [s for s in program.steps if isinstance(s, Scan)]
    for scan in scans:
        if (size := program.structure(scan).size) > LARGEST:
            return f"the state of {', '.join(scan.targets)} has {size} numbers, and chunks over an axis hold {LARGEST}"
    order = {t: k for scan in scans for t, k in zip(scan.targets, scan.orders, strict=True)}
    for e in program.registers:
        if e.depth > order.get(e.base, 1):
            return f"it reads what it computes, {e.base}, {e.depth} steps back"
    unsure = loose(program)
    program, _ = prepared(program)
    if max([0, *depths(program).values()]) > MOST:
        return f"more than {MOST} of its recurrences wait for each other"
    return "" if staged(program, "float64", unsure) else "what the warps of a chunk share does not fit the memory of a block"


def loose(program: Program) -> frozenset[str]:
    """The states of recurrences whose |A| is not known to be at most 1. To be asked before a Program is prepared."""
    return frozenset(t for scan, small in contracts(program).items() if not small for t in scan.targets)


def strata(program: Program, loose: frozenset[str]) -> tuple[Stratum, ...]:
    """Those of a prepared Program, in order."""
    waits = depths(program)
    found = []
    for k in range(1, 1 + max([0, *waits.values()])):
        sums = tuple(scan for scan, depth in waits.items() if depth == k)
        adding = lines(program, sums, f"{program.name}_{k}", ())
        alone = [(s, lines(program, (s,), f"{program.name}_{k}_{s.targets[0]}", (s,))) for s in sums if s.targets[0] in loose]
        found.append(Stratum(adding, levels(adding), sums, tuple((s, p, levels(p)) for s, p in alone)))
    return tuple(found)


def lines(program: Program, scans: tuple[Scan, ...], name: str, solved: tuple[Scan, ...]) -> Program:
    """The lines that some recurrences need, as a Program in which those of `solved` are computed, and not only added up."""
    owner = {t: step for step in program.steps for t in step.targets}
    needed, todo = set[Step](solved), list[Step](scans)
    while todo:
        more = {owner[s.base] for e in todo.pop().exprs for s in samples(e) if s.base in owner} - needed
        needed |= more
        todo += more
    steps = list[Step]()
    for step in program.steps:
        steps += [step] * (step in needed or step in scans)
        steps += [scan for scan in scans if scan not in program.steps and scan.targets[0] in step.targets]
    read = {s for step in steps for e in step.exprs for s in samples(e)}
    read |= {s for step in steps if isinstance(step, Scan) and step in needed for s in step.past}
    return replace(program, name=name, steps=tuple(steps), keeps=(), sums=(), replay=None, sized=tuple(sorted(program.wide)),
                   edges=tuple(e for e in program.edges if e.base in program.loads
                               or any(At(e.base, e.side * k) in read for k in range(1, e.depth + 1))))


def board(program: Program, loose: frozenset[str]) -> tuple[int, int]:
    """Numbers of a lane that a warp tells others of at once, of as many states as there are warps; and that the states of all
    take."""
    found = [(program.axis if scan.targets[0] in program.wide else 1, carried(program, scan)) for scan in depths(program)]
    return (WARPS * max([1, *(s.held + s.size + 2 * bool(loose) for _, s in found)]), max([1, *(n * s.size for n, s in found)]))


def staged(program: Program, dtype: str, loose: frozenset[str]) -> int:
    """Steps of which what the channels share is read at once, so that the memory of a block holds it; 0 where it does not."""
    walks = (program, *([program.replay.program] if program.replay else []))
    columns = max(sum(len(b.columns) for b in p.buffers if b.shape == "axis") for p in walks)
    vectors = sum(v.shape == "axis" for v in program.vectors)
    told, states = board(program, loose)
    size = 2 if dtype == "float64" else 1
    rest = SHARED // size - 32 * (told * WARPS + states) - 8 * states * bool(loose) - 32
    return next((k for k in (8, 4, 2, 1) if WARPS * program.axis * (k * columns + vectors) <= rest), 0)


def depths(program: Program) -> dict[Scan, int]:
    """Each recurrence, and its stratum: one more than the largest number of those that it comes from. A line that is read a
    step back is among them, and so is a state that is read further back than its recurrence reads it."""
    order = dict.fromkeys((t for step in program.steps for t in step.targets), 0)
    for scan in (s for s in program.steps if isinstance(s, Scan)):
        order |= dict(zip(scan.targets, scan.orders, strict=True))
    depth = dict.fromkeys(order, 0)

    def first(step: Step) -> int:
        reads = [s for e in step.exprs for s in samples(e) if s.base in depth]
        return max([0, *(depth[s.base] + (abs(s.lag) > order[s.base]) for s in reads)])

    changed = True
    while changed:
        changed = False
        for step in program.steps:
            own = first(step) + isinstance(step, Scan)
            if depth[step.targets[0]] < own <= MOST + 1:
                depth |= dict.fromkeys(step.targets, own)
                changed = True
    found = {step: depth[step.targets[0]] for step in program.steps if isinstance(step, Scan)}
    for name in sorted(e.base for e in program.registers if e.depth > order[e.base]):
        found[Scan((name,), (sp.ImmutableMatrix([[0]]),), (At(name),), program.reverse)] = depth[name] + 1
    return found
