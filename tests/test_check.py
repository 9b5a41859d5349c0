"""The check of a cell on the emulator: it passes what is right, and names what is wrong, with its line."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

import lrdsl as lr
from lrdsl import check as checking
from lrdsl.backends import native
from lrdsl.backends.emulated import SCHEDULES
from lrdsl.backends.problem import ALLOWED
from lrdsl.check import check
from lrdsl.errors import BackendUnavailable, NotLinear
from lrdsl.ir.dtypes import DTYPES, NARROW
from lrdsl.kernels import source_of
from lrdsl.programs import plan_of

from .cells_for_tests import CELLS


@pytest.fixture(autouse=True)
def compiler() -> None:
    """Without a C++ compiler there is no emulator."""
    try:
        native.compiler()
    except BackendUnavailable as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.mark.long
def test_a_cell_of_the_zoo_is_right() -> None:
    """Every program, strategy and dtype has its line."""
    checked = check(lr.cells.gilr)
    assert checked.right, str(checked)
    assert {(r.program, r.strategy, r.dtype) for r in checked.rows} == {
        (f"gilr{kind}", strategy, dtype) for kind in ("", "_backward", "_backward_backward", "_tangent")
        for strategy in ("serial", "chunked") for dtype in DTYPES}
    for r in checked.rows:
        narrow = r.dtype in NARROW
        assert 0 < r.error < ALLOWED[r.dtype] / (2 if narrow else 10) and r.floor <= r.moved < 3 * r.floor
        assert r.launches == 8 * (2 if narrow else len(SCHEDULES)) + 3
    floor = {(r.program, r.strategy, r.dtype): r.floor for r in checked.rows}
    assert all(floor["gilr", s, d] == floor["gilr", s, "float32"] / 2 == 6 for s in ("serial", "chunked") for d in NARROW)
    said = str(checked)
    assert said.count("\n") == len(checked.rows) + 4
    assert said.endswith("gilr: all 32 kernels agree with the definition in 1120 launches under 6 schedules, "
                         "without a bad access, race or deadlock")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One kernel, forward and in float32, whose text is changed."""
    def check_with(cell: lr.Cell, strategy: str, old: str, new: str) -> tuple[checking.Row, str]:
        def changed(*args: Any, **named: Any) -> Any:
            source = source_of(*args, **named)
            assert re.search(old, source.text)
            return replace(source, text=re.sub(old, new, source.text))

        monkeypatch.setattr(checking, "DTYPES", ("float32",))
        monkeypatch.setattr(checking, "_programs", lambda cell: plan_of(cell.spec).programs)
        monkeypatch.setattr(checking, "strategies", lambda program, target: (strategy,))
        monkeypatch.setattr(checking, "source_of", changed)
        checked = check(cell)
        assert not checked.right and str(checked).endswith("1 of 1 kernels are wrong")
        return checked.rows[0], str(checked)

    return check_with


def test_a_fault_is_named_with_its_line(planted: Any) -> None:
    row, said = planted(lr.cells.linear_scan, "serial", r"(t \* a\.a__time \+ c)\)", r"\1 + 1)")
    assert "out of bounds: a load of 4 bytes, 4 bytes beyond the end of a" in said and "a.a__time + c + 1);" in said
    assert "FAULT in linear_scan, serial, float32: batch 2, 1 steps, 33 channels, with boundaries" in said
    assert row.launches == 1 and "again with Schedule()" in row.fault


def test_other_numbers_are_named(planted: Any) -> None:
    row, said = planted(CELLS["discounted"], "serial", r"g_next \+ r", "g_next - r")
    assert "from the definition's" in said and row.error > 0.1


def test_a_fault_between_blocks_is_named(planted: Any) -> None:
    """It needs more blocks than are resident, in another order."""
    row, said = planted(lr.cells.gilr, "chunked", r"atomicAdd\([^;]*\)", "blockIdx.x")
    assert "livelock" in said and "Schedule(" in row.fault and "again with Schedule()" not in row.fault


def test_a_cell_that_no_kernel_computes() -> None:
    with pytest.raises(NotLinear):
        check(lr.cells.lstm)
