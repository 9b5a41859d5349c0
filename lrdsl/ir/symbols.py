"""The atoms of every expression: samples of sequences at a lag, and learned numbers.

An expression is a sympy expression over these atoms, numbers, +, *, integer powers and square roots, and the functions of
`ir.functions`; in a Spec also over those of `ir.complex` and the imaginary unit. Nothing else passes the front end.
"""

from __future__ import annotations

from typing import Any

import sympy as sp


class At(sp.Symbol):
    """The sample of the sequence `base` at time t+lag. Printed as on paper: `h[t-1]`."""

    __slots__ = ("base", "complex", "lag")
    base: str
    lag: int
    complex: bool

    def __new__(cls, base: str, lag: int = 0, complex: bool = False) -> At:
        self: At = sp.Symbol.__new__(cls, f"{base}[t{lag:+d}]" if lag else f"{base}[t]", **_known(complex))
        self.base, self.lag, self.complex = base, lag, complex
        return self

    def __getnewargs_ex__(self) -> Any:
        return (self.base, self.lag, self.complex), {}

    def shift(self, by: int) -> At:
        """The same sequence `by` steps later."""
        return At(self.base, self.lag + by, self.complex)


class Param(sp.Symbol):
    """A learned number that does not depend on time; its shape is declared where it is listed."""

    __slots__ = ("complex",)
    complex: bool

    def __new__(cls, name: str, complex: bool = False) -> Param:
        self: Param = sp.Symbol.__new__(cls, name, **_known(complex))
        self.complex = complex
        return self

    def __getnewargs_ex__(self) -> Any:
        return (self.name, self.complex), {}


def _known(complex: bool) -> dict[str, bool]:
    """What sympy may assume: it drops the conjugate, and more, of what is real."""
    return {"complex": True} if complex else {"real": True}


def samples(expr: sp.Basic) -> list[At]:
    """The samples that an expression reads, in a fixed order."""
    return sorted((s for s in expr.free_symbols if isinstance(s, At)), key=lambda s: (s.base, s.lag))


def params(expr: sp.Basic) -> list[Param]:
    """The learned numbers that an expression reads, in a fixed order."""
    return sorted((s for s in expr.free_symbols if isinstance(s, Param)), key=lambda s: str(s.name))
