"""Specs and Plans: values, and what their checks refuse."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lrdsl.errors import InternalError
from lrdsl.ir.plan import Stage
from lrdsl.ir.spec import KINDS, Equation
from lrdsl.ir.symbols import At, Param
from lrdsl.location import Location
from lrdsl.passes.partition import partition
from lrdsl.passes.stratify import stratify
from tests.cells_for_tests import CELLS, gilr, gilr_lstm

HERE = Location("cells.py", 1)


def test_specs_are_values() -> None:
    spec = gilr.spec
    assert dataclasses.replace(spec) == spec and hash(dataclasses.replace(spec)) == hash(spec)
    assert dataclasses.replace(spec, source="other") == spec  # how it was written does not tell two cells apart
    assert dataclasses.replace(spec, name="other") != spec
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"  # type: ignore[misc]
    assert {d.kind for c in CELLS.values() for d in c.spec.declared} | {"mask", "first"} == set(KINDS)
    assert spec["gate"].kind == "affine" and spec.names("affine") == ("gate", "impulse")


@pytest.mark.parametrize(("expr", "what"), [(At("q"), "which nothing defines"), (Param("q"), "an undeclared parameter"),
                                            (At("h", complex=True), "for what it is not")])
def test_a_spec_that_reads_what_is_not_there(expr: Any, what: str) -> None:
    bad = dataclasses.replace(gilr.spec, statements=(*gilr.spec.statements, Equation("z", expr, HERE)))
    with pytest.raises(InternalError, match=what) as caught:
        bad.check()
    assert "cell gilr" in str(caught.value)
    assert gilr.spec.check() is gilr.spec


def test_a_plan_whose_steps_are_out_of_order() -> None:
    plan = partition(stratify(gilr_lstm.spec))
    assert plan.check() is plan and [type(s).__name__ for s in plan.steps] == ["Dense", "Stage", "Dense", "Stage"]
    for steps in (plan.steps[::-1], plan.steps[1:], plan.steps[:2] + plan.steps[3:]):
        with pytest.raises(InternalError, match="read before they exist"):
            dataclasses.replace(plan, steps=steps).check()
    with pytest.raises(InternalError, match="never written"):
        dataclasses.replace(plan, steps=plan.steps[:3]).check()


def test_plans_are_values() -> None:
    one, other = (partition(stratify(gilr.spec)) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "other"  # type: ignore[misc]
    assert all(s.program in one.programs for s in one.steps if isinstance(s, Stage))
