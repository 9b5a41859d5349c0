"""The functions of the language as users call them: on samples, parameters and numbers, in a cell's body."""

from __future__ import annotations

from typing import Any

import sympy as sp

from ..errors import NotBuilt, UnsupportedFunction
from ..ir import functions as f
from .recording import symbolic


def _apply(function: Any, *args: Any) -> Any:
    return function(*(symbolic(a) for a in args))


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return _apply(f.sigmoid, x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return _apply(f.tanh, x)


def relu(x: Any) -> Any:
    """max(x, 0); the derivative at 0 is 0, as in torch."""
    return _apply(f.relu, x)


def silu(x: Any) -> Any:
    """x * sigmoid(x)."""
    return _apply(f.silu, x)


def gelu(x: Any) -> Any:
    """x * (1 + erf(x / sqrt(2))) / 2, the exact form."""
    return _apply(f.gelu, x)


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return _apply(f.softplus, x)


def exp(x: Any) -> Any:
    """The exponential function."""
    return _apply(f.exp, x)


def expm1(x: Any) -> Any:
    """exp(x) - 1, accurate near 0."""
    return _apply(f.expm1, x)


def log(x: Any) -> Any:
    """The natural logarithm."""
    return _apply(f.log, x)


def log1p(x: Any) -> Any:
    """log(1 + x), accurate near 0."""
    return _apply(f.log1p, x)


def sqrt(x: Any) -> Any:
    """The square root."""
    return _apply(f.sqrt, x)


def sin(x: Any) -> Any:
    """The sine; x in radians."""
    return _apply(f.sin, x)


def cos(x: Any) -> Any:
    """The cosine; x in radians."""
    return _apply(f.cos, x)


def abs(x: Any) -> Any:
    """The absolute value; the derivative at 0 is 0, as in torch."""
    return _apply(f.absolute, x)


def maximum(a: Any, b: Any) -> Any:
    """The larger value; at a tie each argument gets half the gradient, as in torch."""
    return _apply(f.maximum, a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller value; at a tie each argument gets half the gradient, as in torch."""
    return _apply(f.minimum, a, b)


def logaddexp(a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b)), without overflow."""
    return _apply(f.logaddexp, a, b)


def equal(a: Any, b: Any) -> Any:
    """1 where a == b, 0 elsewhere: the comparison to use in `where` (Python's == compares the symbols)."""
    return _apply(f.equal, a, b)


def detach(x: Any) -> Any:
    """x, with no gradient."""
    return _apply(f.detach, x)


def sum(x: Any) -> Any:
    """The sum over the state axis, N numbers a channel: `lr.sum(C(x[t]) * h[t])` is one number a channel."""
    return _apply(f.axis_sum, x)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, b elsewhere. Conditions: `x[t] > 0`, `>=`, `<`, `<=`, `equal(a, b)`, joined by & | ~,
    or a number that is 0 or not."""
    if isinstance(condition, bool | sp.logic.boolalg.BooleanAtom):
        raise UnsupportedFunction(f"where({condition}, …): this was decided on the symbols, without looking at their values",
                                  None, "compare values: lr.where(lr.equal(a, b), …), or <, >")
    return _apply(f.where, _condition(symbolic(condition)), a, b)


def _condition(c: Any) -> Any:
    match c:
        case sp.StrictGreaterThan():
            return f.greater(*c.args)
        case sp.GreaterThan():
            return f.greater_equal(*c.args)
        case sp.StrictLessThan():
            return f.greater(c.args[1], c.args[0])
        case sp.LessThan():
            return f.greater_equal(c.args[1], c.args[0])
        case sp.And():
            return sp.Mul(*(_condition(a) for a in c.args))
        case sp.Or():
            return f.greater(sp.Add(*(_condition(a) for a in c.args)), sp.S.Zero)
        case sp.Not():
            return 1 - _condition(c.args[0])
        case sp.Ne() | sp.Eq():
            raise UnsupportedFunction(f"the condition {c}", None, "write lr.equal(a, b)")
    return c


def _not_built(name: str, way: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotBuilt(f"lr.{name} is part of the language but not built yet", None, way)
    refuse.__name__, refuse.__doc__ = name, f"`{name}`: part of the language, not built yet; a call raises NotBuilt."
    return refuse


conjugate, re, im = (_not_built(n, "all samples are real in this version: leave it out") for n in ("conjugate", "re", "im"))
