"""`lr.first[t]` as a read at a lag: the sample before t of a sequence of zeros whose edge is 1.

So every kernel has it already: at a boundary the edge is read, a given edge is 0 (`nn` gives it beside the user's), and a Carry
tells the next chunk that it does not begin afresh. The zeros are one row in memory, which all steps share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import sympy as sp

from ..errors import BadLag, BothDirections
from ..ir import functions as f
from ..ir.spec import Declared, Equation, Spec, Statement
from ..ir.symbols import At
from .review import recurrences
from .time import Time, lag_of

FIRST = "lr.first"


class First:
    """`lr.first[t]`: 1 where the state before t is an edge that nobody gave, at the start of a sequence and at a boundary; else
    0. Where h_0 (or a Carry that began with one) is given it is 0 throughout; a learned initial state is not given.

    The reset rule of the RG-LRU needs it (De et al. 2024, recurrentgemma's code): there the input is not scaled.
    """

    def __getitem__(self, index: Any) -> Any:
        """The sample at t."""
        if lag := lag_of("lr.first", index):
            raise BadLag(f"lr.first[{Time(lag)!r}]: it is read at t", None, "write lr.first[t]")
        return At(FIRST)


first = First()


def with_first(spec: Spec, fresh: Callable[[str], str]) -> Spec:
    """The Spec with what `lr.first` needs declared, and its reads written out; the run's direction says which way is before.

    Raises BothDirections for states that run both ways, of which none is the one meant.
    """
    where = next((s.where for s in spec.statements for r in s.reads() if r.base == FIRST), None)
    if where is None:
        return spec
    ways = {way for sides in recurrences(spec).values() for way in sides}
    if len(ways) > 1:
        raise BothDirections(f"lr.first[t] says where a run begins, and the states of {spec.name} run both ways", where,
                             "give the flags as an Input")
    name = fresh("first")
    turn = {At(FIRST): f.greater(At(name, max(ways, default=-1)), sp.S.Zero)}  # a comparison has no gradient
    return replace(spec, declared=(*spec.declared, Declared("first", name, where, (("init", 1.0),))),
                   statements=tuple(_turned(s, turn) for s in spec.statements))


def _turned(s: Statement, turn: dict[Any, Any]) -> Statement:
    if isinstance(s, Equation):
        return replace(s, expr=s.expr.xreplace(turn))
    return replace(s, operands=tuple(o.xreplace(turn) for o in s.operands))
