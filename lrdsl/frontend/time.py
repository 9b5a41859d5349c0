"""The time index of a body, `t`, and the lags made from it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from ..errors import BadLag


def _not_a_lag(*_: Any) -> Any:
    raise BadLag("the time index only moves by constant integers, and is not a number", None,
                 "write t, t-1, t+2, …; give step numbers as an Input")


@dataclass(frozen=True)
class Time:
    """The time index: `t`, `t - 1`, `t + 2`."""

    lag: int = 0

    def __add__(self, k: Any) -> Time:
        try:
            by = operator.index(k)
        except TypeError:
            by = None
        if by is None or isinstance(k, bool):
            raise BadLag(f"the time index moves by constant integers, not by {k!r}", None, "write t-1, t+2, …")
        return Time(self.lag + by)

    __radd__ = __add__

    def __sub__(self, k: Any) -> Time:
        return Time(self.lag - (Time() + k).lag)

    def __repr__(self) -> str:
        return f"t{self.lag:+d}" if self.lag else "t"

    __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __floordiv__ = __mod__ = __pow__ = __neg__ = _not_a_lag
    __lt__ = __le__ = __gt__ = __ge__ = __float__ = _sympy_ = _not_a_lag


t = Time()


def lag_of(name: str, index: Any) -> int:
    """The lag of `name[index]`."""
    if not isinstance(index, Time):
        said = f"{index:g}" if isinstance(index, float) else repr(index)
        raise BadLag(f"{name}[{said}]: a sequence is read at t plus a constant integer", None,
                     f"write {name}[t] or {name}[t-1]")
    return index.lag
