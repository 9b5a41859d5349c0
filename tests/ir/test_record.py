"""A record is read as what was written, to the last bit, and nothing else is read."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import sympy as sp

import lrdsl as lr
from lrdsl import stored
from lrdsl.ir import functions as f
from lrdsl.ir import record
from lrdsl.ir.program import CLASSES, Let
from lrdsl.ir.symbols import At, Param
from lrdsl.passes.realify import realify
from lrdsl.programs import adjoint_of, inner_keeps, plan_of
from lrdsl.stored import places

CELLS = [lr.cells.gilr_lstm, lr.cells.rglru, lr.cells.lru, lr.cells.cummax, lr.cells.holt_winters, lr.cells.gae,
         lr.cells.mamba_s6(3), lr.cells.rwkv4_wkv, lr.cells.lfilter([1.0, 0.1], [1.0, -0.3])]
EXPRESSIONS = [sp.Float(0.1) + At("u", -2), sp.Float("0.39894228040143267794", 20) * Param("v"), sp.Rational(1, 3) ** At("x"),
               f.where(f.greater(At("x"), sp.S.Zero) & ~f.equal(At("u"), sp.S.One), -sp.oo, At("x") / 7), sp.Float(0.0),
               sp.Float(-2.0**-1074), sp.nan, sp.Integer(2**80), f.logaddexp(At("a"), sp.sqrt(At("b")) - 1)]


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)
def test_a_plan_is_read_as_it_was_written(cell: lr.Cell) -> None:
    spec = realify(cell.spec)
    plan = plan_of(spec)
    adjoints = tuple(adjoint_of(p, absent) for p in plan.programs for absent in (frozenset[str](), inner_keeps(p)))
    again = record.read(record.write((plan, adjoints), stored._CLASSES, places(spec)), stored._CLASSES, places(spec))
    assert again == (plan, adjoints) and hash(again) == hash((plan, adjoints))
    for one, other in zip(adjoints, again[1], strict=True):
        assert str(one) == str(other) and one.program.digest == other.program.digest
        assert [sp.srepr(e) for s in one.program.steps for e in s.exprs] == \
            [sp.srepr(e) for s in other.program.steps for e in s.exprs]
        assert [s.where for s in one.program.steps] == [s.where for s in other.program.steps]


@pytest.mark.parametrize("expr", EXPRESSIONS, ids=str)
def test_an_expression_is_the_same_to_the_last_bit(expr: Any) -> None:
    again = record.read(record.write(Let("y", expr), CLASSES), CLASSES).expr
    assert sp.srepr(again) == sp.srepr(expr) and hash(again) == hash(expr) and again.args == expr.args


@pytest.mark.parametrize("value", [None, True, 1, 1.0, -0.0, float("inf"), "x", (), (1, ("a", (2.5,))), 1 - 2j], ids=repr)
def test_a_value_keeps_its_type(value: Any) -> None:
    again = record.read(record.write(value, {}), {})
    assert again == value and type(again) is type(value) and repr(again) == repr(value)


@pytest.mark.parametrize("value", [[1], {"a": 1}, object(), sp.Symbol("x"), sp.sin(1, evaluate=False), print],
                         ids=lambda value: type(value).__name__)
def test_what_has_no_form_is_refused(value: Any) -> None:
    with pytest.raises(record.Unrecordable):
        record.write(value, CLASSES)


def test_only_classes_that_are_named_are_made() -> None:
    text = record.write(Let("y", At("x")), CLASSES)
    with pytest.raises(LookupError):
        record.read(text, {})
    assert dataclasses.is_dataclass(record.read(text, CLASSES))


@pytest.mark.parametrize("text", ["", "[", "[]", "7", "[[],[\"=\",0]]", "[[[\"system\",0]],null]", "[[],[\"Let\"]]",
                                  json.dumps([[["Add", 5]], None])])
def test_what_is_no_record_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, TypeError, LookupError)):
        record.read(text, CLASSES)
