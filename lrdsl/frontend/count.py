"""How many numbers a cell learns, before its sizes are known."""

from __future__ import annotations

from typing import Any

import sympy as sp

from ..ir.spec import MapCall, Spec
from ..ir.symbols import At

M, N = sp.symbols("m n", integer=True, positive=True)  # input size, hidden size


def learned(spec: Spec) -> sp.Expr:
    """Weights, biases, Vectors, Scalars and learned initial states of one layer: a polynomial in m, the features of the first
    Input, and n, the channels. A complex number counts once, and a map that may skip counts as one that does not."""
    calls = {s.target: spec[s.affine] for s in spec.statements if isinstance(s, MapCall)}
    seen = {r.base for s in spec.statements for r in s.reads() if r.lag}

    def rows(affine: Any) -> Any:
        size = affine.option("axis") or affine.option("size") or N
        return {"input": M, "hidden": N}.get(size, size) if isinstance(size, str) else size

    def width(operand: Any) -> Any:
        if operand == 0 or not isinstance(operand, At):
            return N
        if operand.base in calls:
            return rows(calls[operand.base])
        if operand.base in spec.names("input"):
            size = spec[operand.base].option("axis") or spec[operand.base].option("size")
            return size if isinstance(size, int) else M if operand.base == spec.names("input")[0] else N
        return N

    first = {s.affine: s for s in reversed(spec.statements) if isinstance(s, MapCall)}
    total = sp.Integer(0)
    for d in spec.declared:
        each = d.option("axis") or 1
        if d.kind == "affine":
            total += rows(d) * (sum(map(width, first[d.name].operands)) + int(d.option("bias", True) is not False))
        elif d.kind == "vector" or (d.kind == "state" and d.option("learned") and d.name in seen):
            total += N * each
        elif d.kind == "scalar":
            total += each
    return sp.expand(total)
