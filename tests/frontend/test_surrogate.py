"""`lr.surrogate`: which reads it replaces, which it leaves, and what the new cell is called and carries."""

from __future__ import annotations

import lrdsl as lr
from lrdsl import sigmoid, t, tanh
from lrdsl.ir.spec import MapCall
from lrdsl.passes.partition import partition
from lrdsl.passes.stratify import stratify
from tests.cells_for_tests import gilr, gilr_lstm, gilr_lstm_now, lstm


def maps(cell: lr.Cell) -> list[str]:
    """The map calls of a cell."""
    return [str(s) for s in cell.spec.statements if isinstance(s, MapCall)]


def carried(cell: lr.Cell) -> list[str]:
    """The states of h_n, in order."""
    return [s.name for s in partition(stratify(cell.spec)).carried]


@lr.cell
def gru(x: lr.Input, h: lr.State, update: lr.Affine, reset: lr.Affine, candidate: lr.Affine):
    """A GRU, whose candidate maps a line of the body."""
    z, r = sigmoid(update(x[t], h[t - 1])), sigmoid(reset(x[t], h[t - 1]))
    kept = r * h[t - 1]
    h[t] = (1 - z) * h[t - 1] + z * tanh(candidate(x[t], kept))
    return h[t]


def test_maps_read_the_surrogate_a_step_ago_or_now() -> None:
    assert maps(gilr_lstm)[2:] == [f"{n} = {n}(x[t], h.h[t-1])" for n in ("forget", "enter", "leave", "update")]
    assert maps(gilr_lstm_now)[2:] == [f"{n} = {n}(x[t], h.h[t])" for n in ("forget", "enter", "leave", "update")]
    assert maps(gilr_lstm)[:2] == ["h.gate = h.gate(x[t])", "h.impulse = h.impulse(x[t])"]


def test_names_kinds_and_notes() -> None:
    spec = gilr_lstm.spec
    assert spec.names("input") == ("x",) and spec.names("state") == ("h", "c", "h.h")
    assert spec.names("affine") == ("forget", "enter", "update", "leave", "h.gate", "h.impulse")
    assert spec.notes == ("surrogate: the dense maps forget, enter, leave, update read h.h[t-1], of gilr, instead of h[t-1]",
                          "surrogate: 2*m*n + 2*n parameters more, for m inputs and n hidden")
    assert (gilr_lstm.name, gilr_lstm_now.name) == ("gilr_lstm", "gilr_lstm_now")
    assert [lr.surrogate(lstm, h=gilr, delay=d).name for d in (1, 0)] == ["lstm_h_gilr", "lstm_h_gilr_delay0"]
    assert gilr_lstm.spec.outputs == lstm.spec.outputs


def test_the_replaced_state_loses_its_carry() -> None:
    assert carried(gilr_lstm) == carried(gilr_lstm_now) == ["c", "h.h"]


def test_a_state_that_is_read_outside_the_maps_keeps_its_carry() -> None:
    made = lr.surrogate(gru, h=gilr)
    assert carried(made) == ["h", "h.h"]
    assert "h[t] = h[t-1]*(1 - z[t]) + z[t]*tanh(candidate[t])" in str(made.spec)


def test_lines_that_come_from_the_state_are_written_out_in_the_maps() -> None:
    assert maps(lr.surrogate(gru, h=gilr))[-1] == "candidate = candidate(x[t], h.h[t-1]*r[t])"


def test_a_surrogate_may_return_an_expression() -> None:
    @lr.cell
    def scaled(x: lr.Input, s: lr.State, v: lr.Vector):
        s[t] = v * s[t - 1] + x[t]
        return 2 * s[t]

    late, now = lr.surrogate(lstm, h=scaled), lr.surrogate(lstm, h=scaled, delay=0)
    assert maps(late)[0] == "forget = forget(x[t], h.y[t-1])" and carried(late) == ["c", "h.s"]
    assert maps(now)[0] == "forget = forget(x[t], h.y[t])" and carried(now) == ["c", "h.s"]


def test_a_window_stands_in_place_of_the_state() -> None:
    """One operand for each output, and the input itself, which need not have the hidden size."""
    made = lr.surrogate(lstm, h=lr.cells.window(2))
    assert maps(made)[0] == "forget = forget(x[t], x[t-1], x[t-2])" and carried(made) == ["c"]
    assert maps(lr.surrogate(lstm, h=lr.cells.window(2), delay=0))[0] == "forget = forget(x[t], x[t], x[t-1])"
    assert maps(lr.surrogate(gru, h=lr.cells.window(2)))[-1] == "candidate = candidate(x[t], r[t]*x[t-1], r[t]*x[t-2])"


def test_a_convolution_is_a_surrogate() -> None:
    @lr.cell
    def conv(x: lr.Input, W: lr.Affine):
        return tanh(W(x[t], x[t - 1])), x[t]

    made = lr.surrogate(lstm, h=conv)
    assert maps(made)[:2] == ["h.W = h.W(x[t], x[t-1])", "forget = forget(x[t], h.y[t-1], x[t-1])"]


def test_two_surrogates_at_once() -> None:
    @lr.cell
    def tied(x: lr.Input, a: lr.State, b: lr.State, W: lr.Affine, U: lr.Affine):
        a[t] = tanh(W(x[t], b[t - 1])) + 0.5 * a[t - 1]
        b[t] = tanh(U(a[t - 1])) + 0.5 * b[t - 1]
        return a[t], b[t]

    both = lr.surrogate(tied, a=gilr, b=gilr)
    assert maps(both)[-2:] == ["W = W(x[t], b.h[t-1])", "U = U(a.h[t-1])"] and carried(both) == ["a", "b", "a.h", "b.h"]


def test_a_mirrored_surrogate_reads_ahead() -> None:
    back = lr.Cell(gilr_lstm.spec.mirrored())
    assert maps(back)[2] == "forget = forget(x[t], h.h[t+1])"
    assert lr.surrogate(lr.Cell(lstm.spec.mirrored()), h=lr.Cell(gilr.spec.mirrored())).spec.statements == back.spec.statements


def test_a_surrogate_may_run_the_other_way() -> None:
    """The maps read its value a step ago, which knows all that comes."""
    spec = lr.surrogate(lstm, h=lr.Cell(gilr.spec.mirrored())).spec
    assert [str(r) for s in spec.statements for r in s.reads() if r.base == "h.h"] == ["h.h[t+1]"] + ["h.h[t-1]"] * 4


def test_what_is_solved_is_no_previous_value() -> None:
    """A map of the other way reads h itself a step ahead; where h runs from the right, it is the other way round."""
    @lr.cell
    def both(x: lr.Input, h: lr.State, b: lr.State, W: lr.Affine, V: lr.Affine):
        h[t] = sigmoid(W(x[t], h[t - 1])) * h[t - 1] + x[t]
        b[t] = sigmoid(V(h[t + 1])) * b[t + 1] + x[t]
        return h[t] * b[t]

    assert maps(lr.surrogate(both, h=gilr))[-2:] == ["W = W(x[t], h.h[t-1])", "V = V(h[t+1])"]
    turned = lr.surrogate(lr.Cell(both.spec.mirrored()), h=gilr)
    assert maps(turned)[-2:] == ["W = W(x[t], h.h[t+1])", "V = V(h[t-1])"]
    assert turned.spec.notes[0] == "surrogate: the dense maps W read h.h[t+1], of gilr, instead of h[t+1]"
