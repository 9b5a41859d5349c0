"""How recurrences are solved that are linear over no algebra."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import BadDeclaration


@dataclass(frozen=True)
class Newton:
    """Newton's method on all steps at once: h[t] - F(h[t-1]) = 0 for every t, each iteration of which is one linear scan.

    tol: the states are accepted where at every step |F(h[t-1]) - h[t]| <= tol * (1 + |h[t]|), and no state is changed by more
    than as much, or by less than before, which is rounding; None: the rounding unit of the
    arithmetic to the power 3/4, 6e-6 in float32 and 2e-12 in float64. max_iter: scans at most. damping: in a scan the
    derivative is multiplied by 1 - damping * min(1, residual), so that far from the solution what is wrong fades with time
    instead of growing, and near it the method is Newton's. The solution is the same. 0.1 costs an iteration or two where 0
    converges well, and long sequences with long memories converge that do not with 0.
    Where it does not converge, the recurrence is solved one step after another.
    Raises BadDeclaration.
    """

    tol: float | None = None
    max_iter: int = 50
    damping: float = 0.1

    def __post_init__(self) -> None:
        tol, most, damping = self.tol, self.max_iter, self.damping
        if tol is not None and not (isinstance(tol, int | float) and 0 < tol < math.inf):
            raise BadDeclaration(f"tol is a positive number, not {tol!r}", None, "leave it out")
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise BadDeclaration(f"max_iter is a positive integer, not {most!r}")
        if not isinstance(damping, int | float) or not 0 <= damping < 1:
            raise BadDeclaration(f"damping is at least 0 and below 1, not {damping!r}")

    def tolerance(self, eps: float) -> float:
        """tol, for an arithmetic whose numbers near 1 are eps apart."""
        return eps ** 0.75 if self.tol is None else self.tol


Solver = Literal["sequential"] | Newton


def solver_of(given: object) -> Solver | None:
    """What `solver=` says. Raises BadDeclaration."""
    if given == "newton":
        return Newton()
    if given is None or isinstance(given, Newton):
        return given
    if given == "sequential":
        return "sequential"
    raise BadDeclaration(f"solver is \"sequential\", \"newton\" or lr.Newton(…), not {given!r}")
