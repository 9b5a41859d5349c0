"""`lr.first[t]` as a read at a lag: the sample before t of a sequence of zeros whose edge is 1.

So every kernel has it already: at a boundary the edge is read, a given edge is 0 (`nn` gives it beside the user's), and a Carry
tells the next chunk that it does not begin afresh. The zeros are one row in memory, which all steps share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sympy as sp

from ..errors import BadLag
from ..ir import functions as f
from ..ir.spec import Declared, Equation, Statement
from ..ir.symbols import At
from .recording import Recording
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


def with_first(recording: Recording, states: Sequence[str]) -> tuple[tuple[Declared, ...], tuple[Statement, ...]]:
    """What is declared for it, and the statements with it written out; the run's direction says which way is before."""
    reads = [(r, s.where) for s in recording.statements for r in s.reads()]
    where = next((where for r, where in reads if r.base == FIRST), None)
    if where is None:
        return (), tuple(recording.statements)
    name = recording.fresh("first")
    ahead = any(r.lag > 0 for r, _ in reads if r.base in states)
    turn = {At(FIRST): f.greater(At(name, 1 if ahead else -1), sp.S.Zero)}  # a comparison has no gradient
    return (Declared("first", name, where, (("init", 1.0),)),), tuple(_turned(s, turn) for s in recording.statements)


def _turned(s: Statement, turn: dict[Any, Any]) -> Statement:
    if isinstance(s, Equation):
        return replace(s, expr=s.expr.xreplace(turn))
    return replace(s, operands=tuple(o.xreplace(turn) for o in s.operands))
