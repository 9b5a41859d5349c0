"""The mistakes of a cell with a state axis: two sizes of it, and values that are as wide as they must not be."""

from __future__ import annotations

from typing import Any

from ..errors import CellError, NotBuilt, ShapeMismatch
from ..ir import functions as f
from ..ir.shapes import is_wide
from ..ir.spec import MapCall, Spec, Statement
from ..ir.symbols import At
from ..ir.text import show


def axes(spec: Spec) -> list[CellError]:
    """All of them, each at its line."""
    sized = [d for d in spec.declared if d.option("axis")]
    errors: list[CellError] = []
    for d in sized[1:]:
        if d.option("axis") != sized[0].option("axis"):
            errors.append(NotBuilt(f"{d.name} has {d.option('axis')} numbers along the state axis, {sized[0].name} has "
                                   f"{sized[0].option('axis')}: a cell has one state axis in this version", d.where,
                                   "give both the same number, or make two cells of it"))
    wide = spec.wide
    for s in spec.statements:
        for call in dict.fromkeys(c for e in _exprs(s) for c in sorted(e.atoms(f.axis_sum), key=str)):
            if not is_wide(call.args[0], wide):
                errors.append(ShapeMismatch(f"{show(call)} adds up over the state axis, and {show(call.args[0])} has none",
                                            s.where, "leave sum out; an axis comes from State(size=16), Vector(size=16), "
                                                     "Affine(axis=16) or Input(axis=16)"))
        if isinstance(s, MapCall):
            errors += [_skipped(s, o) for o in s.operands if is_wide(o, wide) and spec[s.affine].option("skip")]
            errors += [_mapped(s, o) for o in s.operands if is_wide(o, wide) and not _input(spec, o)]
        elif s.state and s.target not in spec.sized and is_wide(s.expr, wide):
            errors.append(ShapeMismatch(f"{s.target} has one number a channel, and {show(s.expr)} has {spec.axis}", s.where,
                                        f"declare {s.target}: lr.State = lr.State(size={spec.axis}), or add up: lr.sum(…)"))
    where = {s.target: s.where for s in spec.statements}
    for name, e in spec.outputs:
        if is_wide(e, wide):
            errors.append(ShapeMismatch(f"the output {name} has {spec.axis} numbers a channel; a cell returns one a channel",
                                        where.get(e.base, spec.where), "return lr.sum(…) of it"))
    return errors


def _exprs(s: Statement) -> tuple[Any, ...]:
    return s.operands if isinstance(s, MapCall) else (s.expr,)


def _input(spec: Spec, operand: Any) -> bool:
    """A plain sample of an Input: its N numbers are features like any others."""
    return isinstance(operand, At) and operand.base in spec.names("input")


def _mapped(call: MapCall, operand: Any) -> CellError:
    return ShapeMismatch(f"{call.affine} maps {show(operand)}, which has a state axis; a dense map reads one number a channel",
                         call.where, f"add up first: {call.affine}(lr.sum(…))")


def _skipped(call: MapCall, operand: Any) -> CellError:
    return NotBuilt(f"{call.affine} skips, and {show(operand)} has a state axis, so that it may not stand for the map's value",
                    call.where, f"leave skip out of {call.affine}")
