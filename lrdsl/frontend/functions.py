"""The functions of the language as users call them: on samples, parameters and numbers, in a cell's body."""

from __future__ import annotations

from typing import Any

import sympy as sp

from ..errors import UnsupportedFunction
from ..ir import complex as cx
from ..ir import functions as f
from ..ir.complex import is_complex
from ..ir.text import show
from .recording import of_complex, symbolic


def _apply(function: Any, *args: Any) -> Any:
    values = [symbolic(a) for a in args]
    return of_complex(function, *values) if any(map(is_complex, values)) else function(*values)


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
    """The exponential function; of a complex value, too."""
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
    """The sine; x in radians, or complex."""
    return _apply(f.sin, x)


def cos(x: Any) -> Any:
    """The cosine; x in radians, or complex."""
    return _apply(f.cos, x)


def abs(x: Any) -> Any:
    """The absolute value, of a complex value its modulus; the gradient at 0 is 0, as in torch.

    Python's abs(z) is the same of a name, but sympy takes it for sqrt(x**2 + y**2) where z is written out, x + 1j*y.
    """
    return _apply(f.absolute, x)


def re(x: Any) -> Any:
    """The real part of a complex value; a real one itself."""
    value = symbolic(x)
    return cx.re(value) if is_complex(value) else value


def im(x: Any) -> Any:
    """The imaginary part of a complex value. Raises UnsupportedFunction for a real one, as torch.imag does."""
    value = symbolic(x)
    if not is_complex(value):
        raise UnsupportedFunction(f"im({show(value)}): {show(value)} is real", None,
                                  "leave it out, or declare what it comes from with complex=True")
    return cx.im(value)


def conjugate(x: Any) -> Any:
    """The complex conjugate; a real value itself."""
    value = symbolic(x)
    return cx.conjugate(value) if is_complex(value) else value


def maximum(a: Any, b: Any) -> Any:
    """The larger value; at a tie each argument gets half the gradient, as in torch."""
    return _apply(f.maximum, a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller value; at a tie each argument gets half the gradient, as in torch."""
    return _apply(f.minimum, a, b)


def logaddexp(a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b)), without overflow; where both are -inf each gets half the gradient (torch has nan)."""
    return _apply(f.logaddexp, a, b)


def equal(a: Any, b: Any) -> Any:
    """1 where a == b, 0 elsewhere: the comparison to use in `where` (Python's == compares the symbols)."""
    return _apply(f.equal, a, b)


def detach(x: Any) -> Any:
    """x, with no gradient."""
    return _apply(f.detach, x)


def sum(x: Any) -> Any:
    """The sum over the state axis, N numbers a channel: `lr.sum(C(x[t]) * h[t])` is one number a channel; complex, too."""
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
            return _apply(f.greater, *c.args)
        case sp.GreaterThan():
            return _apply(f.greater_equal, *c.args)
        case sp.StrictLessThan():
            return _apply(f.greater, c.args[1], c.args[0])
        case sp.LessThan():
            return _apply(f.greater_equal, c.args[1], c.args[0])
        case sp.And():
            return sp.Mul(*(_condition(a) for a in c.args))
        case sp.Or():
            return f.greater(sp.Add(*(_condition(a) for a in c.args)), sp.S.Zero)
        case sp.Not():
            return 1 - _condition(c.args[0])
        case sp.Ne() | sp.Eq():
            raise UnsupportedFunction(f"the condition {c}", None, "write lr.equal(a, b)")
    return c
