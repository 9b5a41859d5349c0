"""Shapes in {1, channel} x {1, axis}: how they broadcast, and what a Program's may be.

A kernel works channel by channel, so that what is computed always has channels; only what is read may lack them. What matters
is the axis: N numbers a channel, or one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Literal

from . import functions as f
from .symbols import At

if TYPE_CHECKING:
    from .program import Program

Shape = Literal["channel", "one", "axis", "channel and axis"]
AXIAL: tuple[Shape, ...] = ("axis", "channel and axis")
LARGEST_AXIS = 64  # a thread of a GPU keeps N numbers of each state, and a segment of them in its local memory


def said(shape: Shape) -> str:
    """A shape as the end of a line; nothing for the shapes that need no word."""
    return {"axis": "   (axis, shared by the channels)", "channel and axis": "   (axis)"}.get(shape, "")


def is_wide(expr: Any, wide: Collection[str]) -> bool:
    """Whether an expression has the axis, where the names `wide` have it."""
    if isinstance(expr, f.axis_sum):
        return False
    if expr.is_Symbol:
        return (expr.base if isinstance(expr, At) else str(expr)) in wide
    return any(is_wide(a, wide) for a in expr.args)


def spread(given: Iterable[str], lines: Iterable[tuple[tuple[str, ...], tuple[Any, ...]]]) -> frozenset[str]:
    """All names that have the axis, from those that are known to: lines are (targets, expressions), in any order."""
    wide, lines = set(given), list(lines)
    size = -1
    while size != len(wide):
        size = len(wide)
        for targets, exprs in lines:
            if any(t in wide for t in targets) or any(is_wide(e, wide) for e in exprs):
                wide |= set(targets)
    return frozenset(wide)


def check_axis(program: Program, fault: Callable[[str], Exception]) -> None:
    """Raise `fault` unless sums have an axis to add up over, and what is written is as wide as what it is written for."""
    wide = program.wide
    for step in program.steps:
        for expr in step.exprs:
            if any(not is_wide(call.args[0], wide) for call in expr.atoms(f.axis_sum)):
                raise fault(f"{step} adds up over an axis that is not there")
    for keep in program.keeps:
        if len({n in wide for n in keep.samples}) > 1 or (keep.over and keep.samples[0] not in wide):
            raise fault(f"the columns of {keep.name} have different shapes")
        if keep.every and any((e := program.edge(n, program.back)) is None or e.depth > 1 for n in keep.samples):
            raise fault(f"{keep.name} is kept at borders, but is no register of one step")
    if program.replay and {e.base for e in program.replay.program.registers} != {s for s, _, _ in program.replay.states}:
        raise fault("a replay starts from other states than it has")
