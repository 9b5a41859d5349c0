"""Recording: what a cell's body says while it runs once on symbols."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sympy as sp
from sympy.logic.boolalg import Boolean, BooleanAtom

from ..errors import BadDeclaration, CellError, ShapeMismatch, UnsupportedFunction
from ..ir import complex as cx
from ..ir import functions as f
from ..ir.complex import is_complex
from ..ir.spec import Equation, MapCall, Statement
from ..ir.symbols import At, Param, samples
from ..ir.text import show
from ..location import Location

INTERNAL = ("erf", "greater", "greater_equal", "sign")  # what derivatives and conditions are made of
FUNCTIONS = tuple(sorted({*f.TABLE, *cx.OF_COMPLEX} - set(INTERNAL)))
ALIKE = {"min": "minimum", "max": "maximum", "fmin": "minimum", "fmax": "maximum", "fabs": "abs", "Abs": "abs",
         "Min": "minimum", "Max": "maximum", "Piecewise": "where", "Heaviside": "where", "sign": "where",
         "expit": "sigmoid", "logistic": "sigmoid", "clip": "minimum"}


def similar(function: str) -> str:
    """The way out for a function that is not the language's."""
    ours = function if function in FUNCTIONS else ALIKE.get(function)
    return f"use lr.{ours}" if ours else f"the functions are {', '.join(FUNCTIONS)}"


def symbolic(value: Any) -> Any:
    """The value as sympy has it; UnsupportedFunction for what has no meaning in a cell."""
    try:
        return sp.sympify(value, strict=True)
    except (sp.SympifyError, TypeError, AttributeError, ValueError):
        text = repr(value)
        said = text if len(text) < 40 and "\n" not in text else f"a value of type {type(value).__name__}"
        raise UnsupportedFunction(f"{said} has no meaning in a cell", None,
                                  "write sequences as x[t], maps as gate(x[t])") from None


# What is said of functions without complex values, and what to write instead.
_COMPARE = "compare real numbers: lr.abs({0}), lr.re({0}) or lr.im({0})"
_WITHOUT = {
    "greater": ("a comparison of", _COMPARE), "greater_equal": ("a comparison of", _COMPARE),
    "where": ("the condition", _COMPARE),
    "expm1": ("expm1 of", "write lr.exp({0}) - 1"),
    "equal": ("equal of", "compare the parts: lr.equal(lr.re(a), lr.re(b)) & lr.equal(lr.im(a), lr.im(b))"),
}


def of_complex(function: Any, *args: Any) -> Any:
    """A function of the language on complex values; UnsupportedFunction for one that has none."""
    name = f.name_of_class(function)
    if name in cx.OF_COMPLEX and not (name == "where" and is_complex(args[0])):
        return cx.OF_COMPLEX[name](*args)
    value = show(next(a for a in args if is_complex(a)))
    plain = "take a real number of it: " + ("lr.re({0}) or lr.abs({0})" if len(args) > 1 else
                                            "lr.{1}(lr.re({0})) or lr.{1}(lr.abs({0}))")
    what, way = _WITHOUT.get(name, (f"{name} of", plain))
    raise UnsupportedFunction(f"{what} {value}, which is complex", None, way.format(value, name))


class Recording:
    """Collects statements in order; every value goes through `expression`, the gate of the language."""

    def __init__(self, reserved: Iterable[str], states: Iterable[str] = ()) -> None:
        self.statements: list[Statement] = []
        self.states = frozenset(states)
        self.set_at: dict[str, Location] = {}
        self.errors: list[CellError] = []
        self._taken = set(reserved)

    def fresh(self, name: str) -> str:
        """`name`, or `name_2`, `name_3` … where it is taken."""
        unique, k = name, 2
        while unique in self._taken:
            unique, k = f"{name}_{k}", k + 1
        self._taken.add(unique)
        return unique

    def update(self, state: str, value: Any, where: Location, complex: bool = False) -> None:
        """The equation of a state, which is declared complex or not."""
        self.set_at[state] = where
        expr = self.expression(value)
        if is_complex(expr) and not complex:
            raise BadDeclaration(f"{state}[t] is set to a complex value, and {state} is declared real", None,
                                 f"declare {state}: lr.State = lr.State(complex=True), or take lr.re(…) of the value")
        self.statements.append(Equation(state, expr, where, state=True))

    def let(self, name: str, value: Any, where: Location) -> Any:
        """A named line of the body. A bare sample, number or parameter keeps its own name."""
        expr = self.expression(value)
        if expr.is_Atom:
            return expr
        target = self.fresh(name)
        self.statements.append(Equation(target, expr, where))
        return At(target, complex=is_complex(expr))

    def map_call(self, affine: str, operands: tuple[Any, ...], where: Location, complex: bool = False) -> At:
        """A dense map, declared complex or not, applied to operands; the same call again is the same value."""
        if not operands:
            raise UnsupportedFunction(f"{affine}() maps nothing", None, f"write {affine}(x[t])")
        exprs = tuple(self.expression(o) for o in operands)
        for expr in exprs:
            if not samples(expr):
                raise UnsupportedFunction(f"{affine}({show(expr)}) maps a value that does not depend on time", None,
                                          f"write {affine}(x[t]), or declare the value as a Vector")
        complex = complex or any(map(is_complex, exprs))
        calls = [s for s in self.statements if isinstance(s, MapCall) and s.affine == affine]
        for call in calls:
            if call.operands == exprs:
                return At(call.target, complex=complex)
            if len(call.operands) != len(exprs):
                raise ShapeMismatch(f"{affine} maps {len(exprs)} operands here, and {len(call.operands)} at line "
                                    f"{call.where.line}; it has one weight", None, "declare a second map")
        target = affine if not calls else self.fresh(f"{affine}_{len(calls) + 1}")
        self.statements.append(MapCall(target, affine, exprs, where))
        return At(target, complex=complex)

    def expression(self, value: Any) -> Any:
        """The value as an expression of the language, or UnsupportedFunction."""
        if isinstance(value, bool | BooleanAtom):
            raise UnsupportedFunction(f"{value} is a truth value that Python found without looking at the numbers", None,
                                      "compare samples with lr.equal, <, > inside lr.where")
        return _clean(symbolic(value))


def _clean(expr: Any) -> Any:
    """The expression in the language's own functions."""
    if isinstance(expr, At | Param) or expr is sp.I:
        return expr
    if expr in (sp.zoo, sp.nan):
        raise UnsupportedFunction("a division by zero", None, "divide by something else")
    if expr.is_Number:
        if not expr.is_finite:
            raise UnsupportedFunction(f"the number {expr} in an equation", None, "use a finite number")
        return expr
    if isinstance(expr, sp.Symbol):
        raise UnsupportedFunction(f"the symbol {expr} is none of the cell's names", None, "declare it in the signature")
    if expr.is_NumberSymbol:
        return sp.Float(expr, 20)
    if isinstance(expr, sp.Abs):
        value = _clean(expr.args[0])
        return cx.modulus(value) if is_complex(value) else f.absolute(value)
    if isinstance(expr, Boolean) and not isinstance(expr, f.Elementwise):
        raise UnsupportedFunction(f"the condition {expr} is not a number", None, "write lr.where(condition, a, b)")
    if not (expr.is_Add or expr.is_Mul or expr.is_Pow or isinstance(expr, f.Elementwise)):
        name = type(expr).__name__
        raise UnsupportedFunction(f"{show(expr)}: {name} is not a function of the language", None, similar(name))
    number, rest = expr.as_coeff_Mul()
    if number.is_Float and abs(float(number)) == 1 and is_complex(rest):  # Python's 1j is 1.0*I to sympy
        return int(number) * _clean(rest)
    args = [_clean(a) for a in expr.args]
    return _power(*args) if expr.is_Pow else expr.func(*args)


def _power(base: Any, exponent: Any) -> Any:
    """An integer power, or one with a square root."""
    twice = 2 * float(exponent) if exponent.is_number and not is_complex(exponent) else 0.5
    if twice % 2 == 0:
        return sp.Pow(base, int(twice) // 2)
    if is_complex(base):
        raise UnsupportedFunction(f"the power {show(sp.Pow(base, exponent))}: complex values have integer powers only", None,
                                  f"take a real part: lr.re({show(base)}) or lr.abs({show(base)})")
    if twice % 1 == 0:
        power = f.sqrt(base) * sp.Pow(base, (abs(int(twice)) - 1) // 2)
        return power if twice > 0 else 1 / power
    raise UnsupportedFunction(f"the power {show(sp.Pow(base, exponent))}: only integer powers and square roots are built in",
                              None, f"write lr.exp({show(exponent)}*lr.log({show(base)})) for a positive base")
