"""Expressions as C++ text. One spelling serves both targets: `lr_sigmoid`, `select`, `splat` are defined by each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp

from ..ir import functions as f
from ..ir.kernel import lagged
from ..ir.symbols import At, Param

SUM, PRODUCT, ATOM = 1, 2, 3


def number(value: Any, dtype: str) -> str:
    """The shortest literal that reads back as the same number of this dtype."""
    with np.errstate(over="ignore"):
        text = str(np.dtype(dtype).type(float(value)))
    end = "f" if dtype == "float32" else ""
    if text.endswith("inf"):  # beyond the dtype's range
        return f"({text[:-3]}1.0{end}/0.0{end})"
    return text + ("" if "." in text or "e" in text else ".0") + end


class Printer:
    """Prints the expressions of one kernel, whose names in the text are given."""

    def __init__(self, names: Mapping[str, str], dtype: str) -> None:
        self.names, self.dtype = names, dtype

    def __call__(self, expr: Any) -> str:
        """The expression as a value of type V, even where it is a bare number."""
        return f"splat({self.number(expr)})" if expr.is_Number else self.text(expr, SUM)

    def number(self, value: Any) -> str:
        """A number as a literal of the kernel's type."""
        return number(value, self.dtype)

    def text(self, expr: Any, level: int) -> str:
        """The expression, in parentheses where it binds less than `level`."""
        if isinstance(expr, At):
            return self.names[lagged(expr.base, expr.lag)]
        if isinstance(expr, Param):
            return self.names[str(expr)]
        if expr.is_Number:
            literal = self.number(expr)
            return f"({literal})" if literal.startswith("-") and level > SUM else literal
        if expr.is_Add:
            return self._wrap(self._sum(expr), SUM, level)
        if expr.is_Mul:
            return self._wrap(self._product(expr), PRODUCT, level)
        if expr.is_Pow:
            return self._power(expr.base, int(expr.exp), level)
        return self._call(expr)

    @staticmethod
    def _wrap(text: str, own: int, level: int) -> str:
        return f"({text})" if own < level else text

    def _sum(self, expr: Any) -> str:
        terms = sorted(expr.as_ordered_terms(), key=lambda e: (e.could_extract_minus_sign(), not e.is_Number))
        out = self.text(terms[0], SUM)
        for term in terms[1:]:
            if term.could_extract_minus_sign():
                out += " - " + self.text(-term, PRODUCT)
            else:
                out += " + " + self.text(term, SUM)
        return out

    def _product(self, expr: Any) -> str:
        coefficient, factors = expr.as_coeff_Mul()
        factors = sp.Mul.make_args(factors)
        above = [g for g in factors if not (g.is_Pow and g.exp.is_negative)]
        below = [sp.Pow(g.base, -g.exp) for g in factors if g.is_Pow and g.exp.is_negative]
        top = [self.text(g, PRODUCT) for g in sorted(above, key=sp.default_sort_key)]
        negative = coefficient == -1
        if coefficient not in (1, -1) or not top:
            top.insert(0, self.number(coefficient))
            negative = False
        text = ("-" if negative else "") + "*".join(top)
        return text + "".join("/" + self.text(g, ATOM) for g in below)

    def _power(self, base: Any, n: int, level: int) -> str:
        if n < 0:
            return self._wrap(f"{self.number(1)}/{self.text(sp.Pow(base, -n), ATOM)}", PRODUCT, level)
        if base.is_Atom and n <= 4:
            return self._wrap("*".join([self.text(base, PRODUCT)] * n), PRODUCT, level)
        return f"lr_whole_power({self(base)}, {n})"

    def _call(self, expr: Any) -> str:
        if isinstance(expr, f.where):
            return f"select({self._condition(expr.args[0])}, {self(expr.args[1])}, {self(expr.args[2])})"
        if isinstance(expr, f.greater | f.greater_equal | f.equal):
            return f"select({self._condition(expr)}, splat({self.number(1)}), splat({self.number(0)}))"
        if isinstance(expr, f.detach):
            return self.text(expr.args[0], ATOM)
        name = "signum" if isinstance(expr, f.sign) else f.name_of(expr)
        return f"lr_{name}({', '.join(self(a) for a in expr.args)})"

    def _condition(self, expr: Any) -> str:
        signs = {f.greater: ">", f.greater_equal: ">=", f.equal: "=="}
        for function, sign in signs.items():
            if isinstance(expr, function):
                return f"{self(expr.args[0])} {sign} {self(expr.args[1])}"
        return f"{self(expr)} != {self.number(0)}"
