"""A Program in blocks of time, one after another, which threads work on at once (CPU).

What a block does to the states is added up while nothing is known of the state before it; then a thread waits for that state,
tells the one after the block, and walks the block again, from a near cache, as if there were no blocks. Recurrences that read
each other are added up in turn, a walk for each stratum (`passes.strata`). No function is computed twice: the first walk that
has a line with a call leaves its values in the near cache for the others.
"""

from __future__ import annotations

from ..ir.functions import Elementwise, name_of
from ..ir.kernel import Link
from ..ir.program import Let, Nonlinear, Program, Scan
from .levels import prepared
from .strata import MOST, depths, lines

QUICK = {"relu", "abs", "sign", "maximum", "minimum", "greater", "greater_equal", "equal", "where", "detach"}  # as a load is
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


def links(program: Program, leave: bool) -> tuple[Link, ...]:
    """The walks that add up a prepared Program's recurrences, in order. leave: whether they leave values for each other; calls
    in recurrences have lines of their own then (`walks.named`)."""
    waits, left = depths(program), set[Let]()
    found = []
    for k in range(1, 1 + max([0, *waits.values()])):
        sums = tuple(scan for scan, depth in waits.items() if depth == k)
        adding = lines(program, sums, f"{program.name}_{k}", ())
        leaves = tuple(s for s in adding.steps if leave and isinstance(s, Let) and s not in left and _slow(s))
        left |= {*leaves}
        found.append(Link(adding, sums, leaves))
    return tuple(found)


def _slow(let: Let) -> bool:
    return any(name_of(call) not in QUICK for call in let.expr.atoms(Elementwise))
