"""Complex values: which expressions have them, and the functions that take them.

A value is complex because a name in it is declared so, or because the imaginary unit stands in it, never because of what it
may amount to: z*conjugate(z) is complex, abs(z) is real. sympy assumes nothing of these functions and rewrites none of them.
`passes.realify` ends them all; behind it every value is real.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from .functions import Elementwise, axis_sum
from .symbols import At, Param


class ComplexValued(Elementwise):
    """Base of the functions whose value is complex."""

    is_real = None  # type: ignore[assignment]


def _function(name: str, *bases: type, arity: int = 1, attribute: str = "") -> Any:
    return type(name, bases, {"nargs": arity, "__module__": __name__, "__qualname__": attribute or name})


conjugate, exp, sin, cos, detach = (_function(n, ComplexValued) for n in ("conjugate", "exp", "sin", "cos", "detach"))
where = _function("where", ComplexValued, arity=3)
total = _function("sum", ComplexValued, axis_sum, attribute="total")  # over the axis, too
re, im = (_function(n, Elementwise) for n in ("re", "im"))
modulus = _function("abs", Elementwise, attribute="modulus")

OF_COMPLEX: dict[str, Any] = {"exp": exp, "sin": sin, "cos": cos, "abs": modulus, "where": where, "detach": detach,
                              "conjugate": conjugate, "re": re, "im": im, "sum": total}


def is_complex(expr: Any) -> bool:
    """Whether the value of an expression is complex."""
    if isinstance(expr, At | Param):
        return expr.complex
    if isinstance(expr, Elementwise):
        return isinstance(expr, ComplexValued)
    return expr is sp.I or (not isinstance(expr, sp.Abs) and any(map(is_complex, expr.args)))  # Abs: Python's abs(z)
