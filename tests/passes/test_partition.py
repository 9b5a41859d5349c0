"""Plans: where a cell is cut, what is computed again, what is written, and which edges there are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import lrdsl as lr
from lrdsl import relu, sigmoid, t, tanh
from lrdsl.errors import InternalError
from lrdsl.ir.plan import Dense, Plan, Stage
from lrdsl.ir.program import Edge
from lrdsl.passes.partition import partition
from lrdsl.passes.stratify import stratify
from tests.cells_for_tests import CELLS, gilr_lstm


def plan(cell: lr.Cell) -> Plan:
    """The Plan of a cell."""
    return partition(stratify(cell.spec))


def shape(made: Plan) -> list[str]:
    """The steps in short: D for a Dense, P for a Program, with what they write."""
    return [f"D {s.source}" if isinstance(s, Dense) else "P " + " ".join(k.name for k in s.program.keeps) for s in made.steps]


@pytest.mark.parametrize("name", CELLS)
def test_programs_are_well_formed_and_read_what_is_written(name: str) -> None:
    made = plan(CELLS[name])
    assert made.check() is made
    for program in made.programs:
        program.check()
        assert program.keeps and (program.reverse == made.reverse or made.both_ways)
    assert {n for n, _ in made.outputs} == {n for n, _ in CELLS[name].spec.outputs}


def test_a_cell_is_cut_where_a_map_needs_a_whole_sequence() -> None:
    assert shape(plan(gilr_lstm)) == ["D x", "P h.h", "D h.h", "P h"]
    assert shape(plan(CELLS["compound"])) == ["P gate.in0", "D gate.in0", "P h out.in0", "D out.in0", "P out"]
    assert shape(plan(CELLS["strata"])) == ["P y_2"]


def test_one_product_for_all_maps_of_a_sequence() -> None:
    dense = [s for s in plan(gilr_lstm).steps if isinstance(s, Dense)]
    assert [[b.affine for b in d.blocks] for d in dense] == [
        ["h.gate", "h.impulse", "forget", "enter", "leave", "update"], ["forget", "enter", "leave", "update"]]
    assert [[b.operands for b in d.blocks] for d in dense] == [[(0,)] * 6, [(1,)] * 4]


def windows(made: Plan) -> list[tuple[str, tuple[int, ...], list[tuple[str, tuple[int, ...]]]]]:
    """Source, lags and (map, operands) of each Dense."""
    return [(d.source, d.lags, [(b.affine, b.operands) for b in d.blocks]) for d in made.steps if isinstance(d, Dense)]


def test_a_window_is_one_product_without_an_edge() -> None:
    made = plan(CELLS["window"])
    assert windows(made) == [("x", (0, -1), [("gate", (0, 1))])]
    (program,) = made.programs
    assert [str(s) for s in program.reads() if s.base == "gate.x"] == ["gate.x[t]"]
    assert [e.base for e in program.edges] == ["h"]
    assert made.affines[0].operands == ("x", "x")
    assert [(s.name, s.side, s.depth, s.state) for s in made.sequences] == [("h", -1, 1, True), ("x", -1, 1, False)]


def test_one_product_for_all_maps_of_a_window() -> None:
    """In whatever order they name its samples. Other windows, and maps of one sample, are products of their own."""
    @lr.cell
    def many(x: lr.Input, h: lr.State, U: lr.Affine, V: lr.Affine, W: lr.Affine, P: lr.Affine, Q: lr.Affine, R: lr.Affine):
        same = U(x[t], x[t - 1]) + V(x[t - 1], x[t])
        h[t] = sigmoid(same + W(x[t - 1], x[t - 2]) + R(x[t], x[t], x[t - 1])) * h[t - 1] + P(x[t]) + Q(x[t - 1])
        return h[t]

    made = plan(many)
    assert windows(made) == [("x", (0,), [("P", (0,)), ("Q", (0,))]), ("x", (0, 0, -1), [("R", (0, 1, 2))]),
                             ("x", (0, -1), [("U", (0, 1)), ("V", (1, 0))]), ("x", (-1, -2), [("W", (0, 1))])]
    names = [n for d in made.steps if isinstance(d, Dense) for n, _ in d.outputs]
    assert names == [f"x.maps.{k}" for k in (1, 2, 3, 4)]
    assert [(e.base, e.side, e.depth) for e in made.programs[0].edges] == [("Q.x", -1, 1), ("h", -1, 1)]
    assert [(s.name, s.depth) for s in made.sequences] == [("h", 1), ("x", 2)]


def test_maps_of_one_sample_are_shifted_after_the_product() -> None:
    """GILR-LSTM reads s at t-1: the product is of s itself."""
    assert {lags for _, lags, _ in windows(plan(gilr_lstm))} == {(0,)}
    gates = plan(gilr_lstm).programs[1]
    assert "forget.h.h[t-1]" in [str(s) for s in gates.reads()]


def test_a_window_of_a_state_that_is_solved_before() -> None:
    @lr.cell
    def deep(x: lr.Input, p: lr.State, q: lr.State, W: lr.Affine):
        p[t] = sigmoid(x[t]) * p[t - 1] + x[t]
        q[t] = sigmoid(W(p[t - 1], x[t + 2], p[t - 3], x[t - 1])) * q[t - 1] + p[t]
        return q[t]

    made = plan(deep)
    assert shape(made) == ["D x", "P p", "D p", "P q"]
    assert windows(made) == [("x", (-1, 2), [("W", (3, 1))]), ("p", (-1, -3), [("W", (0, 2))])]
    assert [(e.base, e.depth, e.final) for e in made.programs[0].edges] == [("p", 3, "p.final")]
    assert [(e.base, e.final) for e in made.programs[1].edges] == [("q", "q.final")]
    assert [(s.name, s.side, s.depth) for s in made.sequences] == [
        ("p", -1, 3), ("q", -1, 1), ("x", -1, 1), ("x", 1, 2)]


def test_how_a_window_is_said() -> None:
    says = {(0,): "x", (0, -1): "x[t], x[t-1]", (-1, 1): "x[t-1], x[t+1]", (0, -1, -2, -3): "x[t], x[t-1], x[t-2], x[t-3]",
            (0, -2, -4, -6, -8): "x[t], x[t-2] … x[t-8]", (0, 1, 2, 3, 5): "x[t], x[t+1], x[t+2], x[t+3], x[t+5]"}
    assert {lags: Dense("x", lags, ()).multiplied for lags in says} == says
    assert "1. one matrix product with x[t], x[t-1]: gate\n" in CELLS["window"].explain()
    assert "1. one matrix product with x: h.gate, h.impulse, forget, enter, leave, update\n" in gilr_lstm.explain()


def test_a_plan_that_reads_a_window_at_a_lag() -> None:
    made = plan(CELLS["window"])
    (dense, stage) = made.steps
    late = replace(stage.program, edges=(*stage.program.edges, Edge("gate.x", -1, 1, 0.0)))
    with pytest.raises(InternalError, match=r"'gate\.x'}, products of windows, are read at a lag"):
        replace(made, steps=(dense, Stage(late))).check()


def test_the_same_map_twice_has_one_weight() -> None:
    @lr.cell
    def twice(x: lr.Input, u: lr.Input, h: lr.State, W: lr.Affine):
        h[t] = sigmoid(W(x[t])) * h[t - 1] + W(u[t])
        return h[t]

    made = plan(twice)
    assert [a.name for a in made.affines] == ["W"]
    dense = [s for s in made.steps if isinstance(s, Dense)]
    assert [(d.source, [b.affine for b in d.blocks]) for d in dense] == [("x", ["W"]), ("u", ["W"])]
    assert str(made.programs[0]).count("W.bias") == 3  # listed once, added twice


def test_lines_are_computed_again_and_recurrences_are_not() -> None:
    @lr.cell
    def deep(x: lr.Input, a: lr.State, b: lr.State, U: lr.Affine):
        g = sigmoid(x[t])
        a[t] = g * a[t - 1] + x[t]
        b[t] = g * b[t - 1] + relu(U(a[t])) * a[t - 1]
        return b[t]

    first, second = plan(deep).programs
    assert [k.name for k in first.keeps] == ["a"] and {b.name for b in second.buffers} == {"a.maps", "x", "a"}
    assert "g = sigmoid(x[t])" in str(first) and "g = sigmoid(x[t])" in str(second) and "scan a" not in str(second)


def test_what_no_output_needs_is_left_out_but_states_that_are_carried() -> None:
    @lr.cell
    def idle(x: lr.Input, h: lr.State, total: lr.State, W: lr.Affine):
        unread = tanh(W(x[t]))  # noqa: F841
        h[t] = sigmoid(W(x[t - 1])) * h[t - 1] + x[t]
        total[t] = total[t - 1] + h[t]
        return h[t]

    made = plan(idle)
    assert "unread" not in str(made) and "tanh" not in str(made)
    assert [s.name for s in made.carried] == ["h", "total"] and "total.final" in made.programs[-1].outputs


def test_sequences_in_the_order_of_h_n() -> None:
    @lr.cell
    def many(x: lr.Input, b: lr.State = lr.State(init=2), a: lr.State = lr.State(learned=True), c: lr.State = lr.State()):
        a[t] = 0.5 * a[t - 2] + x[t - 3]
        b[t] = a[t] * b[t - 1]
        c[t] = b[t] + a[t - 1]
        return c[t]

    made = plan(many)
    assert [(s.name, s.depth, s.init, s.learned) for s in made.carried] == [("b", 1, 2.0, False), ("a", 2, 0.0, True)]
    assert [(s.name, s.side, s.depth) for s in made.sequences if not s.state] == [("x", -1, 3)]


def test_reads_on_both_sides_have_two_edges() -> None:
    made = plan(CELLS["against"])
    assert made.reverse and [(s.name, s.side) for s in made.sequences] == [("g", 1), ("r", 1), ("r", -1)]


def test_a_cell_without_a_recurrence_is_one_program(golden: Any) -> None:
    @lr.cell
    def filtered(x: lr.Input, v: lr.Vector, y: lr.State):
        y[t] = v * x[t] + x[t - 1] / 2
        return y[t]

    assert str(plan(filtered)).replace(f":{filtered.spec.where.line + 1}", ":1") == golden
