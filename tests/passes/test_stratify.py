"""Strata: groups of values that need each other through time, each after those it reads."""

from __future__ import annotations

import pytest

import lrdsl as lr
from lrdsl import t
from lrdsl.errors import NotLinear
from lrdsl.passes.stratify import stratify
from tests.cells_for_tests import CELLS, gilr_lstm, lstm


def groups(cell: lr.Cell) -> list[tuple[str, ...]]:
    """The groups that recur; a value of its own is left out."""
    return [g.targets for g in stratify(cell.spec).groups if g.recurrent]


@pytest.mark.parametrize("name", CELLS)
def test_groups_read_only_earlier_groups(name: str) -> None:
    spec = CELLS[name].spec
    known = set(spec.names("input"))
    for group in stratify(spec).groups:
        known |= set(group.targets)
        assert all(r.base in known for s in group.statements for r in s.reads()), group
    assert known >= {s.target for s in spec.statements}


def test_recurrences() -> None:
    assert groups(gilr_lstm) == [("h.h",), ("c",)]
    assert groups(CELLS["strata"]) == [("x",), ("y",)]  # z is read at a lag, but not by itself
    assert groups(CELLS["spiral"]) == [("x", "y")]


def test_a_group_is_in_the_order_of_one_step() -> None:
    @lr.cell
    def late(x: lr.Input, a: lr.State, b: lr.State):
        a[t] = b[t] * x[t] + a[t - 1]
        b[t] = a[t - 1] + x[t]
        return a[t]

    assert groups(late) == [("b", "a")]


def test_a_line_that_passes_the_state_on_belongs_to_its_group() -> None:
    @lr.cell
    def passed(x: lr.Input, h: lr.State):
        kept = x[t] * h[t - 1]
        seen = 2 * h[t]
        h[t] = kept + x[t]
        return seen

    assert groups(passed) == [("kept", "h")]


def test_every_state_that_a_map_feeds_back_is_named() -> None:
    @lr.cell
    def both(x: lr.Input, a: lr.State, b: lr.State, U: lr.Affine, W: lr.Affine):
        a[t] = U(b[t - 1]) + x[t]
        b[t] = W(a[t - 1], x[t])
        return a[t]

    with pytest.raises(NotLinear) as caught:
        stratify(both.spec)
    assert [e.what.split(", ")[0] for e in caught.value.errors] == [  # in the order of the lines
        "b[t] depends on b[t-1] through the dense map U", "a[t] depends on a[t-1] through the dense map W"]
    with pytest.raises(NotLinear, match="maps forget, enter, leave, update"):
        stratify(lstm.spec)
