"""What the equations say about the size of a coefficient: |A| <= 1 where gates are bounded functions.

Interval arithmetic over the lines of a Program. It knows no correlation between values, so that "unknown" may be said of
what is in fact bounded, never the opposite; a kernel that relies on it may skip work only where it says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..ir import functions as f
from ..ir.program import Let, Program, Scan
from ..ir.symbols import At

Interval = tuple[float, float]
UNKNOWN: Interval = (-math.inf, math.inf)
# Increasing functions whose value at an end of the interval says more than their range.
INCREASING = {"exp": math.exp, "expm1": math.expm1, "tanh": math.tanh, "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
              "relu": lambda x: max(x, 0.0)}


def contracts(program: Program) -> dict[Scan, bool]:
    """For each scan, whether the equations bound the matrix of a step by 1, so that no product of many overflows: in every row
    or in every column, |A| added up; or the modulus of a rotation. Over another algebra coefficients are added up instead, and
    that overflows where the state does."""
    known: dict[At, Interval] = {}
    for step in program.steps:
        if isinstance(step, Let):
            known[At(step.target)] = interval(step.expr, known)
    found = {}
    for scan in (s for s in program.steps if isinstance(s, Scan)):
        if scan.other:
            found[scan] = True
            continue
        structure = program.structure(scan)
        sizes = [_size(interval(c, known)) for c in structure.coefficients]
        rows, columns = [0.0] * structure.size, [0.0] * structure.size
        for i, row in enumerate(structure.step):
            for term in row:
                size = 1.0 if term.number is None else sizes[term.number]
                rows[i] += size
                columns[term.column] += size
        turns = structure.modulus is not None and _size(interval(structure.modulus, {})) <= 1
        found[scan] = turns or max(rows, default=0) <= 1 or max(columns, default=0) <= 1
    return found


def _size(a: Interval) -> float:
    return max(map(abs, a))


def interval(expr: Any, known: Mapping[At, Interval]) -> Interval:
    """Numbers between which every finite value of an expression lies."""
    if expr.is_Number:
        return (float(expr), float(expr)) if expr.is_finite else UNKNOWN  # the zero of an algebra, which is no finite value
    if expr.is_Symbol:
        return known.get(expr, UNKNOWN)
    parts = [interval(a, known) for a in expr.args]
    if expr.is_Add:
        return sum(lo for lo, _ in parts), sum(hi for _, hi in parts)
    if expr.is_Mul:
        out = (1.0, 1.0)
        for part in parts:
            out = _product(out, part)
        return out
    if expr.is_Pow:
        return _power(parts[0], int(expr.exp))
    return _call(f.name_of(expr), expr, parts)


def _product(a: Interval, b: Interval) -> Interval:
    ends = [0.0 if 0.0 in (x, y) else x * y for x in a for y in b]  # 0 times an unknown but finite number
    return min(ends), max(ends)


def _power(base: Interval, n: int) -> Interval:
    if n < 0:
        return UNKNOWN
    lo, hi = sorted((abs(base[0]), abs(base[1])))
    if n % 2:
        return _raised(base[0], n), _raised(base[1], n)
    return (0.0 if base[0] <= 0 <= base[1] else _raised(lo, n)), _raised(hi, n)


def _raised(x: float, n: int) -> float:
    """x to the power n, infinite beyond the largest number."""
    try:
        return float(x ** n)
    except OverflowError:
        return math.copysign(math.inf, x) if n % 2 else math.inf


def _call(name: str, expr: Any, parts: list[Interval]) -> Interval:
    if name == "where":
        return min(parts[1][0], parts[2][0]), max(parts[1][1], parts[2][1])
    if name == "detach":
        return parts[0]
    if name in ("maximum", "minimum"):
        best = max if name == "maximum" else min
        return best(parts[0][0], parts[1][0]), best(parts[0][1], parts[1][1])
    lo, hi = (float(end) for end in f.TABLE[name].range)
    if name in INCREASING:
        at = INCREASING[name]
        return (max(lo, _at(at, parts[0][0], lo)), min(hi, _at(at, parts[0][1], hi)))
    if name == "abs":
        return 0.0, max(map(abs, parts[0]))
    return lo, hi


def _at(function: Any, x: float, otherwise: float) -> float:
    if math.isinf(x):
        return otherwise
    try:
        return float(function(x))
    except OverflowError:
        return otherwise
