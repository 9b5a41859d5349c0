"""A Program in blocks of time, one after another, which threads work on at once (CPU).

What a block does to the states is added up while nothing is known of the state before it; then a thread waits for that state,
tells the one after the block, and walks the block again, from a near cache, as if there were no blocks. Recurrences that read
each other are added up in turn, a walk for each stratum (`passes.strata`). Slow functions are computed once: the first walk
over rows that has a line with such a call leaves its values in the near cache for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..ir.functions import Elementwise, name_of
from ..ir.kernel import Link
from ..ir.program import Let, Nonlinear, Program, Scan, Step
from ..ir.symbols import samples
from .levels import prepared
from .strata import MOST, depths, lines

QUICK = {"relu", "abs", "sign", "maximum", "minimum", "greater", "greater_equal", "equal", "where", "detach"}  # as a load is
LIGHT = 12  # lines: they are written out up to 15 times
LARGEST = 6  # numbers of a state: what many steps do to it is up to 36, which each step multiplies


def hindrance(program: Program) -> str:
    """Why a Program is not cut in blocks of time, as the end of a sentence; "" where it can be."""
    if program.axis:
        return "each channel has many numbers"
    for step in program.steps:
        if isinstance(step, Nonlinear):
            return f"the recurrence of {', '.join(step.targets)} is not linear, and is solved one step after another"
        if isinstance(step, Scan) and (size := program.structure(step).size) > LARGEST:
            return f"the state of {', '.join(step.targets)} has {size} numbers, and blocks of time add up {LARGEST}"
    if max([0, *depths(prepared(program)[0]).values()]) > MOST:
        return f"more than {MOST} of its recurrences wait for each other"
    return ""


def links(program: Program, leave: bool) -> tuple[tuple[Link, ...], tuple[Step, ...]]:
    """The walks that add up a prepared Program's recurrences, in order, and the steps of the walk after them. leave: whether
    they leave values for each other; calls in recurrences have lines of their own then (`walks.named`)."""
    waits, left = depths(program), dict[Let, int]()
    found = []
    for k in range(1, 1 + max([0, *waits.values()])):
        sums = tuple(scan for scan, depth in waits.items() if depth == k)
        adding = lines(program, sums, f"{program.name}_{k}", ())
        left = {s: k for s in adding.steps if leave and isinstance(s, Let) and _slow(s)} | left
        computed = [s for s in adding.steps if not isinstance(s, Let) or left.get(s, k) == k]
        found.append(Link(adding, sums, light=_light(computed)))
    if not left:
        return tuple(found), program.steps
    of_use = _computed(program, found, left)
    taken = [let for let, k in left.items() if any((let, n) in of_use for n in range(k + 1, len(found) + 2))]
    return (tuple(replace(link, leaves=tuple(let for let in taken if left[let] == k)) for k, link in enumerate(found, 1)),
            tuple(s for s in program.steps if (s, len(found) + 1) in of_use and s not in left))


def _computed(program: Program, found: Sequence[Link], left: Mapping[Let, int]) -> set[tuple[Step, int]]:
    """Which step is of use in which walk, the last of which is the Program's own. What an earlier walk could leave is taken as
    it is, whatever it comes from."""
    owner = {t: step for step in program.steps for t in step.targets}
    fixed = [n for k in program.keeps for n in k.samples] + [s.sample for s in program.sums]
    fixed += [e.base for e in program.registers]
    todo: list[tuple[Step, int]] = [(scan, k) for k, link in enumerate(found, 1) for scan in link.sums]
    todo += [(owner[n], len(found) + 1) for n in fixed]
    todo += [(s, len(found) + 1) for s in program.steps if isinstance(s, Scan)]
    seen = set[tuple[Step, int]]()
    while todo:
        step, walk = todo.pop()
        if (step, walk) in seen:
            continue
        seen.add((step, walk))
        if isinstance(step, Let) and left.get(step, walk) < walk:
            todo.append((step, left[step]))
        else:
            todo += [(owner[s.base], walk) for e in step.exprs for s in samples(e) if s.base in owner]
    return seen


def _light(steps: Sequence[Step]) -> bool:
    """Whether steps are few lines without a slow call."""
    return len(steps) <= LIGHT and not any(map(_slow, steps))


def _slow(step: Step) -> bool:
    exprs = [step.update(0)] if isinstance(step, Scan) and step.other else step.exprs
    return any(name_of(call) not in QUICK for e in exprs for call in e.atoms(Elementwise))
