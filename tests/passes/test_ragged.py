"""Programs for packed segments, and plans with maps of a size of their own: their texts, and what holds of them."""

from __future__ import annotations

from typing import Any

import pytest

import lrdsl as lr
from lrdsl import sigmoid, t
from lrdsl.errors import InternalError
from lrdsl.ir.plan import Plan, Sized
from lrdsl.passes.ragged import ragged
from lrdsl.passes.skips import without_skips
from lrdsl.programs import plan_of, ragged_of
from tests.axis_cells import mixed, s6
from tests.nn.cells import ahead, order2, strata
from tests.nn.test_layers import highway


@lr.cell
def narrow(x: lr.Input, h: lr.State, gate: lr.Affine, down: lr.Affine = lr.Affine(size=2),
           out: lr.Affine = lr.Affine(size="input")):
    h[t] = sigmoid(gate(down(x[t], x[t - 1]))) * h[t - 1] + 1
    return out(h[t], h[t - 1]), down(x[t - 1], x[t])


EVERY = [lr.cells.gilr, order2, strata, ahead, lr.cells.linear_scan_reverse, s6(2), mixed(2)]


@pytest.mark.parametrize("cell", [lr.cells.gilr, order2], ids=lambda c: c.name)
def test_a_given_edge_is_a_sequence(cell: lr.Cell, golden: Any) -> None:
    program, = plan_of(cell.spec).programs
    assert str(ragged(program, frozenset({"h", "y", "a"}))) == golden


def test_what_is_carried_is_in_full() -> None:
    """A state that is returned is written twice where sequences have 16 bits; one with an axis is written at every step."""
    made, narrow = (ragged(plan_of(lr.cells.gilr.spec).programs[0], frozenset({"h"}), narrow) for narrow in (False, True))
    assert [k.name for k in made.keeps] == ["h"] and made.full == ("h.given1",)
    assert [k.name for k in narrow.keeps] == ["h", "h.carried"] and narrow.full == ("h.given1", "h.carried")
    wide = ragged(plan_of(s6(2).spec).programs[0], frozenset({"h"}), True)
    assert [(k.name, k.every) for k in wide.keeps] == [("y", 0), ("h", 0)] and wide.full == ("h.given1", "h")
    assert wide.shape("h.given1") == "channel and axis"


@pytest.mark.parametrize("cell", EVERY, ids=lambda c: c.name)
def test_no_edge_comes_in_or_goes_out(cell: lr.Cell) -> None:
    program, = plan_of(cell.spec).programs
    keys = [e.start.removesuffix(".start") for e in program.edges if e.start]
    for given in (frozenset[str](), frozenset(keys[:1]), frozenset(keys)):
        made = ragged_of(program, given)
        assert not any((e.start, e.edge, e.final, e.crossing) != (None,) * 4 for e in made.edges)
        assert {n.split(".given")[0] for n in made.inputs if ".given" in n} == given
        assert {e.base for e in program.registers if e.final} <= {n for k in made.keeps for n in k.samples if not k.inner}
        # Edges that are not given keep their constant; a state that has one reads 0 beyond its segment.
        inits = {(e.base, e.side): e.init for e in program.edges}
        assert all(e.init in (0.0, inits[e.base, e.side]) for e in made.edges)


def test_a_plan_with_maps_of_their_own_size(golden: Any) -> None:
    assert str(plan_of(narrow.spec)) == golden


def test_a_plan_is_checked() -> None:
    plan = Plan("broken", ("x",), (), (Sized("y", "down", (("z", (0,), (0,)),)),), (), (("y", "y"),))
    with pytest.raises(InternalError, match="are read before they exist"):
        plan.check()


def test_a_skip_is_gone_where_sizes_agree() -> None:
    assert without_skips(highway.spec, {"x": 3}, 4) is highway.spec
    gone = without_skips(highway.spec, {"x": 4}, 4)
    assert gone.names("affine") == ("gate",) and "carry_2 = x[t]" in str(gone)
