"""From a recurrent group to a Scan: A and b of the linear recurrence that it is, or NotLinear with the term that bends it; for
a solver, a Nonlinear.

A recurrence that is bent over (+, *) by a maximum, a minimum or a logaddexp is looked at over that algebra (`algebras.over`).

A is the Jacobian with respect to the states' previous values and b the rest, found by one walk over the expression instead
of by sympy.diff and subs: the user's factors stay as written, a `where` on anything but a state passes, and a refusal knows
its culprit. (A derivative alone would accept `where(h[t-1] > 0, …)`, whose derivative is free of h.)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import sympy as sp

from ..errors import CellError, InternalError, NotBuilt, NotLinear, raise_all
from ..ir import complex as cx
from ..ir import functions as f
from ..ir.algebras import Algebra, algebra_of
from ..ir.program import Let, Nonlinear, Scan, Step
from ..ir.spec import Equation
from ..ir.symbols import At, samples
from ..ir.text import show
from ..location import Location
from .algebras import Bends as _Bends
from .algebras import Parts, advice, over
from .simplify import fresh
from .stratify import Group

LARGEST_BLOCK, LARGEST_ORDER = 4, 8


def affine_parts(expr: Any, unknowns: frozenset[At]) -> tuple[dict[At, Any], Any]:
    """(coefficients, rest) with expr = sum of coefficient * unknown + rest; raises _Bends."""
    if not expr.free_symbols & unknowns:
        return {}, expr
    if expr in unknowns:
        return {expr: sp.S.One}, sp.S.Zero
    if expr.is_Add:
        parts = [affine_parts(a, unknowns) for a in expr.args]
        keys = sorted({k for c, _ in parts for k in c}, key=str)
        return {k: sp.Add(*(c[k] for c, _ in parts if k in c)) for k in keys}, sp.Add(*(rest for _, rest in parts))
    if expr.is_Mul:
        inside = [a for a in expr.args if a.free_symbols & unknowns]
        if len(inside) > 1:
            raise _Bends(expr)
        factor = sp.Mul(*(a for a in expr.args if a is not inside[0]))
        coefficients, rest = affine_parts(inside[0], unknowns)
        return {k: factor * c for k, c in coefficients.items()}, factor * rest
    if isinstance(expr, cx.re | cx.im | cx.conjugate):  # of which `realify` makes sums; here it is asked only what bends
        coefficients, rest = affine_parts(expr.args[0], unknowns)
        return {k: expr.func(c) for k, c in coefficients.items()}, expr.func(rest)
    if isinstance(expr, f.where | cx.where) and not expr.args[0].free_symbols & unknowns:
        (ca, ra), (cb, rb) = (affine_parts(a, unknowns) for a in expr.args[1:])
        keys = sorted({*ca, *cb}, key=str)
        pick = {k: expr.func(expr.args[0], ca.get(k, sp.S.Zero), cb.get(k, sp.S.Zero)) for k in keys}
        return pick, expr.func(expr.args[0], ra, rb) if (ra, rb) != (0, 0) else sp.S.Zero
    raise _Bends(expr)


def extract(group: Group, reverse: bool, taken: set[str] | None = None) -> tuple[Step, ...]:
    """The Scan of a recurrent group, then its other values as Lets, which may read the states' past.

    taken: where there is a solver for what is not linear, the names that a line must not have: then the Lets, and last a
    Nonlinear. Without it NotLinear is raised.
    """
    statements = {s.target: s for s in group.statements if isinstance(s, Equation)}
    lagged = {r.base for s in statements.values() for r in s.reads() if r.lag and r.base in statements}
    states = tuple(t for t in group.targets if t in lagged)
    written: dict[str, Any] = {}
    for s in statements.values():
        inner = {r: written[r.base] for r in s.reads() if r.lag == 0 and r.base in written}
        written[s.target] = s.expr.xreplace(inner)
    order = max(abs(r.lag) for s in statements.values() for r in s.reads() if r.lag and r.base in states)
    back = 1 if reverse else -1
    unknowns = frozenset(r for s in statements.values() for r in s.reads() if r.lag and r.base in states)
    parts: Parts = affine_parts
    rows, bends = _rows(states, written, unknowns, parts)
    algebra = next(filter(None, map(algebra_of, bends.values())), None)
    if algebra:
        parts = partial(over, algebra)
        rows, bends = _rows(states, written, unknowns, parts)
    several = algebra and len(unknowns) > 1
    bent = taken is not None and (bends or several)
    errors: list[CellError] = [] if bent else [
        _not_linear(state, term, _place(state, statements, written, unknowns, parts), unknowns, algebra)
        for state, term in bends.items()]
    where = statements[states[0]].where
    if not errors and several and not bent:
        errors.append(NotBuilt(f"{', '.join(states)}: over {algebra}, recurrences of several states or of order above 1 are "
                               "not built yet", where, "write one state a recurrence, read one step back, or run it with "
                               "solver=\"sequential\" or \"newton\""))
    if not errors and len(states) > LARGEST_BLOCK:
        errors.append(NotLinear(f"{', '.join(states)} are one recurrence of {len(states)} coupled states; the largest has "
                                f"{LARGEST_BLOCK}", where, "couple fewer states"))
    if not errors and order > LARGEST_ORDER:
        errors.append(NotLinear(f"{', '.join(states)}: a recurrence of order {order}; the largest order is {LARGEST_ORDER}",
                                where, "read nearer steps"))
    raise_all(errors)
    if taken is not None and (bends or several):
        return _nonlinear(states, statements, unknowns, reverse, taken)
    lets = tuple(Let(t, statements[t].expr, statements[t].where) for t in group.targets if t not in states)
    A = tuple(sp.ImmutableMatrix([[c.get(At(s, back * k), sp.S.Zero) for s in states] for c, _ in rows])
              for k in range(1, order + 1))
    scan = Scan(states, A, tuple(rest for _, rest in rows), reverse, where, algebra.name if algebra else "plus-times")
    for row, state in enumerate(states):
        if {r.base for e in (scan.b[row], *(m[row, j] for m in A for j in range(len(states)))) for r in samples(e)} \
                & set(states):
            raise InternalError("extract", f"{state} is not separated", str(scan))
    return scan, *lets


def _nonlinear(states: tuple[str, ...], statements: Mapping[str, Equation], unknowns: frozenset[At], reverse: bool,
               taken: set[str]) -> tuple[Step, ...]:
    """The group as it is written. What reads a state at t, to compute a state, reads the line that is its new value."""
    now = {At(r.base) for s in statements.values() for r in s.reads() if not r.lag and r.base in states}
    new = {s: At(fresh(f"{s.base}.new", taken)) for s in sorted(now, key=str)}
    lines, values = [], dict[str, Any]()
    for name, s in statements.items():
        expr, target = s.expr.xreplace(new), new[At(name)].base if At(name) in new else name
        values[name] = At(target) if At(name) in new else expr
        lines += [Let(target, expr, s.where)] if At(name) in new or name not in states else []
    reads = tuple(max([0, *(abs(r.lag) for r in unknowns if r.base == s)]) for s in states)
    return *lines, Nonlinear(states, tuple(values[s] for s in states), reads, reverse, statements[states[0]].where)


def _rows(states: tuple[str, ...], written: dict[str, Any], unknowns: frozenset[At],
          parts: Parts) -> tuple[list[tuple[dict[At, Any], Any]], dict[str, Any]]:
    """The parts of each state's value, and the terms that bend those that have none."""
    rows, bends = [], {}
    for state in states:
        try:
            rows.append(parts(written[state], unknowns))
        except _Bends as bend:
            bends[state] = bend.term
    return rows, bends


def _place(state: str, statements: dict[str, Equation], written: dict[str, Any], unknowns: frozenset[At],
           parts: Parts) -> Location:
    """The first line that bends, of those that the state's value comes from at the same step."""
    for read in statements[state].reads():
        if read.lag == 0 and read.base in statements:
            try:
                parts(written[read.base], unknowns)
            except _Bends:
                return _place(read.base, statements, written, unknowns, parts)
    return statements[state].where


def _not_linear(state: str, term: sp.Expr, where: Location, unknowns: frozenset[At], algebra: Algebra | None) -> NotLinear:
    bent = sorted(term.free_symbols & unknowns, key=str)
    previous = bent[0] if bent else At(state, -1)
    conditional = isinstance(term, f.where) and bool(term.args[0].free_symbols & unknowns)
    what = f"the condition {show(term.args[0])}" if conditional else f"the term {show(term)}"
    others = ", ".join(dict.fromkeys(s.base for s in sorted(unknowns, key=str)))
    if isinstance(term, f.axis_sum):
        return NotLinear(f"{state}[t] mixes the numbers of a channel: {what} adds up {previous} over the state axis, and a "
                         "linear recurrence keeps them apart", where, "read another state there, one that is solved before")
    hints = [f"make {what} free of {previous}" if conditional else "" if algebra else
             f"a linear recurrence is {state}[t] = (…)*{previous} + (…), without {others} in the brackets",
             "" if conditional else advice(state, term, unknowns, previous, algebra),
             "or read a solved value there (a surrogate)", "or run it with solver=\"sequential\" or \"newton\""]
    linear = f"linear in {previous}" + (f" over {algebra}" if algebra else "")
    return NotLinear(f"{state}[t] is not {linear}: {what} bends it", where, "; ".join(filter(None, hints)))
