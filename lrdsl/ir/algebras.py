"""Algebras beside (+, *) over which a recurrence can be linear: h[t] = sum(A + h[t-1], b), where + distributes over `sum`.

    (max, +)        max(a, b) + c = max(a + c, b + c)                zero -oo
    (min, +)        min(a, b) + c = min(a + c, b + c)                zero +oo
    (logaddexp, +)  log(e^a + e^b) + c = log(e^(a+c) + e^(b+c))      zero -oo

The zero changes no sum and stays itself when anything finite is added. (Baccelli, Cohen, Olsder & Quadrat, Synchronization and
Linearity, 1992, chapter 3.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import sympy as sp

from . import functions as f

AlgebraName = Literal["plus-times", "max-plus", "min-plus", "logaddexp-plus"]


@dataclass(frozen=True)
class Algebra:
    """One of the above. sum: the function of the language; zero: its neutral element; sign: how it is written on paper."""

    name: AlgebraName
    sum: Any
    zero: Any
    sign: str

    def __str__(self) -> str:
        return f"({self.sign}, +)"

    def plus(self, a: Any, b: Any) -> Any:
        """sum(a, b), of which nothing is left where one is the zero."""
        return b if a == self.zero else a if b == self.zero else self.sum(a, b)

    def times(self, a: Any, by: Any) -> Any:
        """a + by; the zero stays what it is."""
        return a if a == self.zero else a + by

    def equation(self, addend: str, past: str, rest: str) -> str:
        """The right-hand side on paper; no addend where it is 0."""
        return f"{self.sign}({past if addend == '0' else f'{addend} + {past}'}, {rest})"


ALGEBRAS = {a.name: a for a in (Algebra("max-plus", f.maximum, -sp.oo, "max"), Algebra("min-plus", f.minimum, sp.oo, "min"),
                                Algebra("logaddexp-plus", f.logaddexp, -sp.oo, "logaddexp"))}


def algebra_of(call: Any) -> Algebra | None:
    """The algebra whose sum a call is."""
    return next((a for a in ALGEBRAS.values() if isinstance(call, a.sum)), None)
