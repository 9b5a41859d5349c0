"""How expressions print: for people, and exactly."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.printing.str import StrPrinter


class _ForPeople(StrPrinter):
    """0.3, not 0.300000000000000; conditions as they were written."""

    def _print_greater(self, call: Any, sign: str = ">") -> str:
        return f"({self._print(call.args[0])} {sign} {self._print(call.args[1])})"

    def _print_greater_equal(self, call: Any) -> str:
        return self._print_greater(call, ">=")

    def _print_where(self, call: Any) -> str:
        condition, *values = (self._print(a) for a in call.args)
        bare = type(call.args[0]).__name__ in ("greater", "greater_equal")
        return f"where({', '.join([condition[1:-1] if bare else condition, *values])})"


def show(expr: Any) -> str:
    """For people: 0.3, not 0.300000000000000."""
    return str(_ForPeople({"full_prec": False}).doprint(expr))


def exact(expr: Any) -> str:
    """For keys: two expressions print alike only if they are the same, to the last bit of each number."""
    return str(sp.srepr(expr))
