"""Nonlinear recurrences among the lines of a Program: as expressions of their past alone, and their derivatives.

The user's lines inside a recurrence, f = sigmoid(… + v*c[t-1]) in c[t] = f*c[t-1] + …, stand before it, and a kernel computes
them once. For a derivative the recurrence is one expression, and they follow it, as do other readers of its past.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sympy as sp

from ..errors import CellError, NotBuilt
from ..ir import functions as f
from ..ir.program import Let, Nonlinear, Step
from ..ir.spec import Spec
from ..ir.symbols import At, samples


def closed(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, with each nonlinear recurrence as an expression of nothing that reads its past; such lines follow it."""
    found: list[Step] = []
    for step in steps:
        if not isinstance(step, Nonlinear):
            found.append(step)
            continue
        inside: dict[Any, Any] = {}
        past = {*step.state}
        for let in (s for s in found if isinstance(s, Let)):
            if {*samples(let.expr)} & (past | inside.keys()):
                inside[At(let.target)] = let.expr.xreplace(inside)
        lines = [s for s in found if At(s.targets[0]) in inside]
        whole = replace(step, exprs=tuple(e.xreplace(inside) for e in step.exprs))
        found = [*(s for s in found if s not in lines), whole, *lines]
    return tuple(found)


def check_axis(spec: Spec, steps: Sequence[Step]) -> list[CellError]:
    """A refusal of each nonlinear recurrence in a cell with a state axis."""
    return [NotBuilt(f"{', '.join(s.targets)}: a nonlinear recurrence in a cell with a state axis is not built yet", s.where,
                     "leave the axis out, or make two cells of it") for s in steps if isinstance(s, Nonlinear) and spec.axis]


class Partials:
    """The partial derivatives of expressions, of which what occurs twice is one variable: c - u, not c*g - u*g, times g'."""

    def __init__(self, exprs: Sequence[Any]) -> None:
        self.lines, self.exprs = sp.cse(exprs, symbols=(At(f".{k}") for k in itertools.count()), order="canonical", list=True)
        self.values: dict[Any, Any] = {}
        for name, expr in self.lines:
            self.values[name] = expr.xreplace(self.values)

    def __call__(self, row: int, atom: Any) -> Any:
        """That of one of the expressions."""
        rates = {atom: sp.S.One}
        for name, expr in self.lines:
            if rate := _chained(expr, rates):
                rates[name] = rate
        return _chained(self.exprs[row], rates).xreplace(self.values)


def _chained(expr: Any, rates: Mapping[Any, Any]) -> Any:
    return sp.Add(*(derivative(expr, variable) * rate for variable, rate in rates.items()))


def derivative(expr: Any, atom: Any) -> Any:
    """The partial derivative of an expression of functions in each other; a `where` picks that of the branch taken."""
    if atom not in expr.free_symbols:
        return sp.S.Zero
    if expr.is_Atom:
        return sp.S.One
    inner = [derivative(a, atom) for a in expr.args]
    if expr.is_Add:
        return sp.Add(*inner)
    if expr.is_Mul:
        return sp.Add(*(d * sp.Mul(*(a for a in expr.args if a is not factor))
                        for factor, d in zip(expr.args, inner, strict=True) if d != 0))
    if expr.is_Pow:
        return expr.exp * expr.base ** (expr.exp - 1) * inner[0]
    return f.pushforward(expr, expr, tuple(inner))
