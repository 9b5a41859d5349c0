"""A Program in blocks of time, one after another, which threads work on at once (CPU).

What a block does to the states is added up while nothing is known of the state before it; then a thread waits for that state,
tells the one after the block, and walks the block again, from a near cache, as if there were no blocks. Recurrences that read
each other are added up in turn, a walk for each stratum (`passes.strata`).
"""

from __future__ import annotations

from ..ir.kernel import Link
from ..ir.program import Nonlinear, Program, Scan
from .levels import prepared
from .strata import MOST, depths, lines

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


def links(program: Program) -> tuple[Link, ...]:
    """The walks that add up a prepared Program's recurrences, in order."""
    waits = depths(program)
    found = []
    for k in range(1, 1 + max([0, *waits.values()])):
        sums = tuple(scan for scan, depth in waits.items() if depth == k)
        found.append(Link(lines(program, sums, f"{program.name}_{k}", ()), sums))
    return tuple(found)
