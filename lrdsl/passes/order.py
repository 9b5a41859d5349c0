"""The order in which the steps of a Program can be computed."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.program import Step
from ..ir.symbols import samples


def in_order(steps: Sequence[Step], past: bool = False) -> tuple[Step, ...] | None:
    """Each step behind those that it reads at the same time, with `past` at any time, and else in the order given; None where
    they read each other in a circle."""
    owner = {t: s for s in steps for t in s.targets}
    done: dict[Step, bool] = {}  # False while what it reads is being visited

    def visit(step: Step) -> bool:
        if step not in done:
            done[step] = False
            read = (a for e in step.exprs for a in samples(e) if a.base in owner and (past or a.lag == 0))
            if not all(visit(owner[a.base]) for a in read):
                return False
            del done[step]  # to stand behind them
            done[step] = True
        return done[step]

    return tuple(done) if all(map(visit, steps)) else None
