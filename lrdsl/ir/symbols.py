"""The atoms of every expression: samples of sequences at a lag, and learned numbers.

An expression is a sympy expression over these atoms, numbers, +, *, integer powers and square roots, and the functions of
`ir.functions`. Nothing else passes the front end.
"""

from __future__ import annotations

from typing import Any

import sympy as sp


class At(sp.Symbol):
    """The sample of the sequence `base` at time t+lag. Printed as on paper: `h[t-1]`."""

    __slots__ = ("base", "lag")
    base: str
    lag: int

    def __new__(cls, base: str, lag: int = 0) -> At:
        self: At = sp.Symbol.__new__(cls, f"{base}[t{lag:+d}]" if lag else f"{base}[t]", real=True)
        self.base, self.lag = base, lag
        return self

    def __getnewargs_ex__(self) -> Any:
        return (self.base, self.lag), {}

    def shift(self, by: int) -> At:
        """The same sequence `by` steps later."""
        return At(self.base, self.lag + by)


class Param(sp.Symbol):
    """A learned number that does not depend on time; its shape is declared where it is listed."""

    def __new__(cls, name: str) -> Param:
        self: Param = sp.Symbol.__new__(cls, name, real=True)
        return self

    def __getnewargs_ex__(self) -> Any:
        return (self.name,), {}


def samples(expr: sp.Basic) -> list[At]:
    """The samples that an expression reads, in a fixed order."""
    return sorted((s for s in expr.free_symbols if isinstance(s, At)), key=lambda s: (s.base, s.lag))


def params(expr: sp.Basic) -> list[Param]:
    """The learned numbers that an expression reads, in a fixed order."""
    return sorted((s for s in expr.free_symbols if isinstance(s, Param)), key=lambda s: str(s.name))
