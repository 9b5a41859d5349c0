"""The derivative of a recurrence that is not linear over (+, *): a plus-times Scan, whose coefficients are its slopes.

    h[t] = F(h[t-1], x[t])           dh[t] = F_h dh[t-1] + F_x dx[t]         (any function; partial derivatives)
    h[t] = sum(A + h[t-1], b)        dh[t] = w (dA + dh[t-1]) + r db         (over another algebra)

w and r are the partial derivatives of the algebra's sum, as the table of functions has them: at a tie of maxima 1/2 each, as in
torch; of a logaddexp the shares e^(A + h[t-1] - h[t]) and e^(b - h[t]), as sigmoids of the difference, which never overflow.
Where a `where` leaves only one operand, nothing goes to the other, even if both are infinite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import sympy as sp

from ..ir import functions as f
from ..ir.program import Let, Nonlinear, Program, Scan
from ..ir.symbols import At, params, samples
from .nonlinear import Partials

Line = Callable[[str, Any], At]


def linearised(program: Program, scan: Scan | Nonlinear, line: Line) -> tuple[Scan, frozenset[At]]:
    """The plus-times Scan with the derivatives of `scan`, and the slopes that are constants in it; a plus-times Scan as it is.

    line: writes a line with a new name, and gives its sample. A Nonlinear is one expression of its past (`nonlinear.closed`).
    """
    if isinstance(scan, Nonlinear):
        return _of_nonlinear(scan, line)
    if not scan.other:
        return scan, frozenset()
    [state], A, b = scan.targets, scan.A[0][0, 0], scan.b[0]
    partials = f.TABLE[scan.other.sum.__name__].partials(None, A + scan.past[0], b)
    there = _Operands(program, scan)
    w, r = (line(f"{name}.{state}", there.slope(*s)) for name, s in (
        ("carries", (partials[0], A, b)), ("takes", (partials[1], b, A))))
    return replace(scan, A=(sp.ImmutableMatrix([[w]]),), b=(w * A + r * b,), algebra="plus-times"), frozenset((w, r))


def _of_nonlinear(step: Nonlinear, line: Line) -> tuple[Scan, frozenset[At]]:
    slopes: set[At] = set()
    partials = Partials(step.exprs)

    def slope(row: int, atom: Any) -> Any:
        partial = partials(row, atom)
        if partial.is_Number:
            return partial
        slopes.add(found := line(f"slope.{step.targets[row]}.{atom.base if isinstance(atom, At) else atom}", partial))
        return found

    rows, past = range(len(step.targets)), {*step.past}
    A = tuple(sp.ImmutableMatrix([[slope(i, step.back(s, k)) for s in step.targets] for i in rows])
              for k in range(1, max(step.orders) + 1))
    b = tuple(sp.Add(*(slope(i, a) * a for a in (*samples(e), *params(e)) if a not in past)) for i, e in enumerate(step.exprs))
    return Scan(step.targets, A, b, step.reverse, step.where), frozenset(slopes)


class _Operands:
    """Which of the two operands there are: one is missing where its expression picks the algebra's zero."""

    def __init__(self, program: Program, scan: Scan) -> None:
        assert scan.other
        self.zero, self.sum = scan.other.zero, scan.other.sum
        self.lines = {At(s.target): s.expr for s in program.steps if isinstance(s, Let)}
        self.known: dict[Any, Any] = {}
        self.none = not any(e.has(self.zero) for step in program.steps for e in step.exprs)

    def slope(self, partial: Any, own: Any, other: Any) -> Any:
        """The partial derivative with respect to one operand; 1 where it is alone, 0 where it is missing."""
        here, there = self.present(own), self.present(other)
        alone = partial if there == 1 else f.where(there, partial, sp.S.One)
        return alone if here == 1 else f.where(here, alone, sp.S.Zero)

    def present(self, expr: Any) -> Any:
        """1, 0, or the conditions for them; no value decides, so that an infinite input is not taken for a missing one."""
        if self.none:
            return sp.S.One
        if expr not in self.known:
            self.known[expr] = self._present(self.lines.get(expr, expr))
        return self.known[expr]

    def _present(self, expr: Any) -> Any:
        if expr == self.zero:
            return sp.S.Zero
        if isinstance(expr, f.where):
            a, b = map(self.present, expr.args[1:])
            return a if a == b else f.where(expr.args[0], a, b)
        if expr.is_Add:
            return sp.Mul(*map(self.present, expr.args))
        if isinstance(expr, self.sum):
            a, b = map(self.present, expr.args)
            return sp.S.One if sp.S.One in (a, b) else f.maximum(a, b)
        return self.present(expr) if expr in self.lines else sp.S.One
