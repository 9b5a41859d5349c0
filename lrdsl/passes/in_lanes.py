"""Whether the steps of a Program can stand side by side in the lanes of a vector (CPU), and the order of its lines if so.

A scan solves all steps of a vector at once, from their coefficients and rests and the state before them; only then are its
states known, and what reads them at a lag. So a line that reads the past of what is computed stands behind that here, where
one step after another could have read it first.
Holds afterwards: every read of a computed sequence, at any lag, stands behind the step that computes it, but for the past that
a recurrence itself reads.
"""

from __future__ import annotations

from ..ir.program import Nonlinear, Program, Scan
from .order import in_order

LARGEST = 4  # numbers of a state: what many steps do to it is 16, for each of which there is a register
FAR = 4  # steps that are kept of one sequence


def hindrance(program: Program) -> str:
    """Why a Program is walked one step after another, as the end of a sentence; "" where it need not be."""
    if program.axis:
        return "each channel has many numbers"
    for step in program.steps:
        if isinstance(step, Nonlinear):
            return f"the recurrence of {', '.join(step.targets)} is not linear"
        if isinstance(step, Scan) and (program.structure(step).size > LARGEST or 0 in step.orders):
            return f"the state of {', '.join(step.targets)} has many numbers"
    if max([0, *(e.depth for e in program.registers)]) > FAR:
        return f"more than {FAR} steps are kept of what it computes"
    return "" if in_order(program.steps, past=True) is not None else "its lines read each other's past in a circle"
