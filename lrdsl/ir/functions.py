"""The functions of the language: one table of arity, derivative and range.

They are sympy Functions of our own, so that sympy cannot rewrite them (it turns exp(x)**2 and log(exp(x)) into something
else without a word). A derivative is written in the arguments and the value `y`, so that a backward pass reuses y.
Spellings in C++ and CUDA stand in `codegen.printers`, the meaning in numpy in `backends.reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy as sp
from sympy.logic.boolalg import Boolean

# Made below, from the table that uses them.
sigmoid: Any
exp: Any
sqrt: Any
sin: Any
cos: Any
sign: Any
erf: Any
greater: Any
greater_equal: Any
equal: Any
maximum: Any
where: Any
axis_sum: Any

Partials = Callable[..., tuple[Any, ...]]
REAL = (-sp.oo, sp.oo)


@dataclass(frozen=True)
class Meaning:
    """`partials(y, *args)` gives dy/d(arg) for each argument; `range` is a closed interval that holds every value."""

    arity: int
    partials: Partials
    range: tuple[Any, Any] = REAL


def _tie(a: Any, b: Any) -> Any:
    """1 where a > b, 1/2 at a tie, 0 elsewhere: the subgradient that torch.maximum has."""
    return (greater(a, b) + greater_equal(a, b)) / 2


def _shares(a: Any, b: Any) -> tuple[Any, Any]:
    """e^a and e^b as parts of their sum; halves where both are -oo, as of a maximum (torch.logaddexp has nan there)."""
    apart = where(equal(maximum(a, b), -sp.oo), sp.S.Zero, a - b)
    return sigmoid(apart), sigmoid(-apart)


TABLE: dict[str, Meaning] = {
    "sigmoid": Meaning(1, lambda y, x: (y * (1 - y),), (0, 1)),
    "tanh": Meaning(1, lambda y, x: (1 - y * y,), (-1, 1)),
    "relu": Meaning(1, lambda y, x: (greater(x, sp.S.Zero),), (0, sp.oo)),
    "silu": Meaning(1, lambda y, x: (sigmoid(x) * (1 + x * (1 - sigmoid(x))),)),
    "gelu": Meaning(1, lambda y, x: (sp.S.Half * (1 + erf(x * sqrt(sp.S.Half)))
                                     + x * exp(-x * x / 2) * sp.Float("0.39894228040143267794", 20),)),
    "softplus": Meaning(1, lambda y, x: (sigmoid(x),), (0, sp.oo)),
    "exp": Meaning(1, lambda y, x: (y,), (0, sp.oo)),
    "expm1": Meaning(1, lambda y, x: (y + 1,), (-1, sp.oo)),
    "log": Meaning(1, lambda y, x: (1 / x,)),
    "log1p": Meaning(1, lambda y, x: (1 / (1 + x),)),
    "sqrt": Meaning(1, lambda y, x: (1 / (2 * y),), (0, sp.oo)),
    "sin": Meaning(1, lambda y, x: (cos(x),), (-1, 1)),
    "cos": Meaning(1, lambda y, x: (-sin(x),), (-1, 1)),
    "abs": Meaning(1, lambda y, x: (sign(x),), (0, sp.oo)),
    "sign": Meaning(1, lambda y, x: (sp.S.Zero,), (-1, 1)),
    "erf": Meaning(1, lambda y, x: (exp(-x * x) * sp.Float("1.1283791670955125739", 20),), (-1, 1)),
    "maximum": Meaning(2, lambda y, a, b: (_tie(a, b), _tie(b, a))),
    "minimum": Meaning(2, lambda y, a, b: (_tie(b, a), _tie(a, b))),
    "logaddexp": Meaning(2, lambda y, a, b: _shares(a, b)),
    "greater": Meaning(2, lambda y, a, b: (sp.S.Zero, sp.S.Zero), (0, 1)),
    "greater_equal": Meaning(2, lambda y, a, b: (sp.S.Zero, sp.S.Zero), (0, 1)),
    "equal": Meaning(2, lambda y, a, b: (sp.S.Zero, sp.S.Zero), (0, 1)),
    "where": Meaning(3, lambda y, c, a, b: (sp.S.Zero, where(c, sp.S.One, sp.S.Zero), where(c, sp.S.Zero, sp.S.One))),
    "detach": Meaning(1, lambda y, x: (sp.S.Zero,)),
    "sum": Meaning(1, lambda y, x: (sp.S.One,)),  # over the axis: what it sends back is the same for all N
}

CONDITIONS = ("greater", "greater_equal", "equal")


class Elementwise(sp.Function):
    """Base of the language's functions: never evaluated, real, commutative."""

    is_real = True

    @classmethod
    def eval(cls, *args: Any) -> None:
        """Keep every call as the user wrote it."""
        return None

    def _eval_evalf(self, prec: int) -> None:
        return None


def _function(name: str) -> Any:
    here = {"abs": "absolute", "sum": "axis_sum"}.get(name, name)
    place = {"__module__": __name__, "__qualname__": here}  # where pickle finds it
    bases = (Elementwise, Boolean) if name in CONDITIONS else (Elementwise,)  # & | ~ join conditions
    return type(name, bases, {"nargs": TABLE[name].arity, **place})


FUNCTIONS: dict[str, Any] = {name: _function(name) for name in TABLE}

sigmoid, tanh, relu, silu, gelu, softplus = (FUNCTIONS[n] for n in ("sigmoid", "tanh", "relu", "silu", "gelu", "softplus"))
exp, expm1, log, log1p, sqrt, sin, cos = (FUNCTIONS[n] for n in ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos"))
absolute, sign, erf, detach, axis_sum = (FUNCTIONS[n] for n in ("abs", "sign", "erf", "detach", "sum"))
maximum, minimum, logaddexp = (FUNCTIONS[n] for n in ("maximum", "minimum", "logaddexp"))
greater, greater_equal, equal, where = (FUNCTIONS[n] for n in (*CONDITIONS, "where"))


def name_of(function: sp.Basic) -> str:
    """The table's name of an applied function."""
    return type(function).__name__


def pullback(call: Any, value: Any, cotangent: Any) -> tuple[Any, ...]:
    """What `cotangent`, the gradient of an applied function's value, sends to each argument.

    `where` selects instead of multiplying by 0, so that an infinite gradient of the branch not taken stays there.
    """
    if isinstance(call, where):
        return sp.S.Zero, where(call.args[0], cotangent, sp.S.Zero), where(call.args[0], sp.S.Zero, cotangent)
    return tuple(cotangent * d for d in TABLE[name_of(call)].partials(value, *call.args))


def pushforward(call: Any, value: Any, tangents: tuple[Any, ...]) -> Any:
    """The tangent of an applied function's value, from those of its arguments."""
    if isinstance(call, where):
        return tangents[1] if tangents[1] == tangents[2] else where(call.args[0], tangents[1], tangents[2])
    if isinstance(call, axis_sum):
        return axis_sum(tangents[0]) if tangents[0] != 0 else sp.S.Zero
    return sp.Add(*(d * v for d, v in zip(TABLE[name_of(call)].partials(value, *call.args), tangents, strict=True)))


def name_of_class(function: Any) -> str:
    """The table's name of a function class."""
    return str(function.__name__)
