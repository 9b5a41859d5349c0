"""What `explain` says, whole: golden."""

from __future__ import annotations

from typing import Any

import pytest

import lrdsl as lr
from tests.cells_for_tests import order_two
from tests.nn.complex_cells import lru
from tests.two_way_cells import zigzag


@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, lr.cells.linear_scan, order_two, lru], ids=lambda c: c.name)
def test_explain(cell: lr.Cell, golden: Any) -> None:
    assert cell.explain() == golden


@pytest.mark.parametrize("solver", ["sequential", "newton"])
def test_explain_with_a_solver(solver: str, golden: Any) -> None:
    assert lr.cells.diag_lstm.explain(solver=solver) == golden
    assert "NotLinear" not in lr.compile(lr.cells.diag_lstm, solver=solver).explain()


def test_explain_both_ways(golden: Any) -> None:
    assert zigzag.explain() == golden
