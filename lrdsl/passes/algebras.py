"""What is linear over another algebra than (+, *), and which initial values an algebra bears.

`over` is to (max, +) and its kin what `extract.affine_parts` is to (+, *): one walk that finds the addends of the unknowns and
the rest, distributes + over the algebra's sum, and knows the term that bends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp

from ..errors import BadDeclaration, CellError
from ..ir import functions as f
from ..ir.algebras import ALGEBRAS, Algebra, algebra_of
from ..ir.program import Scan, Step
from ..ir.spec import MapCall, Spec
from ..ir.symbols import At
from ..ir.text import show

Parts = Callable[[Any, frozenset[At]], tuple[dict[At, Any], Any]]


class Bends(Exception):
    """A term that is not linear in the unknowns."""

    def __init__(self, term: sp.Expr) -> None:
        self.term = term


def over(algebra: Algebra, expr: Any, unknowns: frozenset[At]) -> tuple[dict[At, Any], Any]:
    """(addends, rest) with expr = sum of addend + unknown, and rest: the zero where there is none; raises Bends.

    A `where` picks the zero for what only its other branch has.
    """
    if not expr.free_symbols & unknowns:
        return {}, expr
    if expr in unknowns:
        return {expr: sp.S.Zero}, algebra.zero
    if expr.is_Add:
        inside = [a for a in expr.args if a.free_symbols & unknowns]
        if len(inside) > 1:
            raise Bends(expr)
        by = sp.Add(*(a for a in expr.args if a is not inside[0]))
        addends, rest = over(algebra, inside[0], unknowns)
        return {k: a + by for k, a in addends.items()}, algebra.times(rest, by)
    join = _joins(algebra, expr, unknowns)
    if join is None:
        raise Bends(expr)
    (one, one_rest), (two, two_rest) = (over(algebra, a, unknowns) for a in expr.args[-2:])
    keys = sorted({*one, *two}, key=str)
    return {k: join(one.get(k, algebra.zero), two.get(k, algebra.zero)) for k in keys}, join(one_rest, two_rest)


def _joins(algebra: Algebra, expr: Any, unknowns: frozenset[At]) -> Callable[[Any, Any], Any] | None:
    """How a sum of the algebra, or a `where` that no unknown decides, joins the parts of its two operands."""
    if isinstance(expr, algebra.sum):
        return algebra.plus
    if isinstance(expr, f.where) and not expr.args[0].free_symbols & unknowns:
        return lambda a, b: a if a == b else f.where(expr.args[0], a, b)
    return None


def advice(state: str, term: sp.Expr, unknowns: frozenset[At], previous: At, algebra: Algebra | None) -> str:
    """How a refused recurrence may become linear over an algebra; "" where it cannot be seen."""
    other = algebra_of(term)
    if algebra and other:
        return f"a recurrence has one algebra: {f.name_of(term)} is the sum of {other}, not of {algebra}"
    if algebra:
        return (f"over {algebra} a state is added to, and neither multiplied nor bent: "
                f"{state}[t] = {algebra.sum.__name__}(… + {previous}, …), without states in the dots")
    if alike := {f.relu: ALGEBRAS["max-plus"], f.softplus: ALGEBRAS["logaddexp-plus"]}.get(type(term)):
        try:
            over(alike, term.args[0], unknowns)
        except Bends:
            return ""
        return f"{f.name_of(term)}(x) written as {alike.sum.__name__}(x, 0) is linear over {alike}"
    return ""


def check_initial(spec: Spec, steps: Sequence[Step]) -> list[CellError]:
    """A mistake for each infinite initial value that would be multiplied: by A, or by the weight of a dense map."""
    infinite = {d.name: d for d in spec.of("state") if math.isinf(d.option("init", 0.0))}
    multiplied = {s: "its recurrence" for step in steps if isinstance(step, Scan) and not step.other for s in step.targets}
    multiplied |= {o.base: f"the dense map {s.affine}" for s in spec.statements if isinstance(s, MapCall)
                   for o in s.operands if isinstance(o, At) and o.lag}
    return [BadDeclaration(f"{name} starts at {show(sp.sympify(d.option('init')))}, and {multiplied[name]} multiplies it: "
                           "0 times infinity is not a number", d.where,
                           "start it at a finite number; infinite ones are for recurrences over (max, +), (min, +) and "
                           "(logaddexp, +)") for name, d in infinite.items() if name in multiplied]
