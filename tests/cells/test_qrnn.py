"""QRNNs against the loop over their equations, against convolutions, and against the formula of their authors' code."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lrdsl as lr
from lrdsl import sigmoid, t, tanh
from lrdsl.cells import qrnn
from tests import truth
from tests.cells.both_ways import (
    B,
    H,
    I,
    T,
    Truth,
    check_both_ways,
    check_nan_stays_behind,
    check_two_layers,
    check_whole_is_chunked_is_stepped,
    influence,
    set_map,
)
from tests.nn.compare import assert_close, parameters

POOLINGS = ("f", "fo", "ifo")
# T is 6: 7 is wider than the sequence.
CASES = [(pooling, window) for pooling in POOLINGS for window in (1, 2, 3, 7)]
every_window = pytest.mark.parametrize(("pooling", "window"), CASES)
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)


def loop(pooling: str, window: int) -> Truth:
    """The truth of one cell."""
    def run(x: Tensor, params: Mapping[str, Tensor], c0: Tensor | None, reset: Tensor | None,
            reverse: bool) -> tuple[Tensor, Tensor]:
        return truth.qrnn(x, params, pooling, window, c0, reset, reverse)
    return run


def without_memory(pooling: str, window: int) -> lr.RNN:
    """A layer whose forget gate is shut: it sees its window and nothing else."""
    layer = lr.RNN(qrnn(pooling, window), I, H)
    set_map(layer, "forget", -800.0)
    return layer


# Equations


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("given", [False, True])
@every_window
def test_it_is_its_equations(pooling: str, window: int, given: bool, resets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_BACKEND", "reference")
    check_both_ways(qrnn(pooling, window), I, loop(pooling, window), given, resets)


@pytest.mark.parametrize("window", [10, 20])
@every_pooling
def test_wide_windows(pooling: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_BACKEND", "reference")
    check_both_ways(qrnn(pooling, window), I, loop(pooling, window), given=True, resets=True)
    check_two_layers(qrnn(pooling, window), I, loop(pooling, window))
    check_whole_is_chunked_is_stepped(qrnn(pooling, window), I)


@every_pooling
def test_a_kernel_reads_the_same_whatever_the_window(pooling: str) -> None:
    """One number a gate and step, and no edge of x."""
    kernels = [lr.compile(qrnn(pooling, window)).stages["kernels"]["forward"] for window in (1, 2, 20)]
    gates = {"f": 2, "fo": 3, "ifo": 4}[pooling]
    assert {k.words[0] for group in kernels for k in group} == {gates}
    state = "h" if pooling == "f" else "c"
    assert {n for group in kernels for k in group for n in k.program.inputs if n.endswith((".start", ".edge"))} == {
        f"{state}.start", f"{state}.edge"}


@pytest.mark.parametrize(("pooling", "window"), [(p, w) if w == 2 else pytest.param(p, w, marks=pytest.mark.long)
                                                 for p, w in CASES])
def test_native_kernels_are_its_equations(pooling: str, window: int, quick: None) -> None:
    check_both_ways(qrnn(pooling, window), I, loop(pooling, window), given=True, resets=True)


@every_window
def test_layers(pooling: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_BACKEND", "reference")
    check_two_layers(qrnn(pooling, window), I, loop(pooling, window))


@every_window
def test_whole_is_chunked_is_stepped(pooling: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_BACKEND", "reference")
    after = check_whole_is_chunked_is_stepped(qrnn(pooling, window), I)
    state = "h" if pooling == "f" else "c"
    sizes = {"layers.0.x": I, "layers.1.x": H}
    shapes = {f"layers.{k}.{state}": (B, 1, H) for k in (0, 1)}
    shapes |= {n: (B, window - 1, size) for n, size in sizes.items() if window > 1}
    assert {n: tuple(v.shape) for n, v in after.now.items()} == shapes


def test_a_carry_holds_the_window_nearest_first(quick: None) -> None:
    layer, x = lr.RNN(qrnn("f", 3), I, H, batch_first=True), torch.randn(B, T, I)
    assert torch.equal(layer(x, return_state=True)[1].now["layers.0.x"], x[:, [T - 1, T - 2]])


@pytest.mark.parametrize("window", [2, 3])
@every_pooling
def test_gates_are_causal_convolutions(pooling: str, window: int, quick: None) -> None:
    """Gates by conv1d, padded on the left; c[t] as the sum over s of what entered at s times all f after it."""
    layer, x = lr.RNN(qrnn(pooling, window), I, H, batch_first=True), torch.randn(B, T, I)
    params = parameters(layer)

    def gate(name: str) -> Tensor:
        """(B, T, H): column block k of the weight is the filter's tap for x[t-k]."""
        taps = params[f"{name}.weight"].reshape(H, window, I).flip(1).transpose(1, 2)
        return F.conv1d(F.pad(x.transpose(1, 2), (window - 1, 0)), taps, params[f"{name}.bias"]).transpose(1, 2)

    f, z = torch.sigmoid(gate("forget")), torch.tanh(gate("update"))
    enters = (torch.sigmoid(gate("enter")) if pooling == "ifo" else 1 - f) * z
    c = torch.stack([sum(enters[:, s] * f[:, s + 1:end].prod(1) for s in range(end)) for end in range(1, T + 1)], 1)
    assert_close([layer(x)[0]], [c if pooling == "f" else torch.sigmoid(gate("leave")) * c])


# Polarity


@every_pooling
def test_an_open_forget_gate_keeps_the_old_state(pooling: str, quick: None) -> None:
    """And what leaves is not squashed: 3 stays 3, and with an input gate of its own the state grows."""
    layer, x, h_0 = lr.RNN(qrnn(pooling, 2), I, H, batch_first=True), torch.randn(B, T, I), torch.full((1, B, H), 3.0)
    for name in ("forget", "enter", "leave"):
        if f"{name}.weight" in parameters(layer):
            set_map(layer, name, 800.0)
    set_map(layer, "update", 800.0)
    grown = torch.arange(1.0, T + 1) if pooling == "ifo" else torch.zeros(T)
    y, h_n = layer(x, h_0)
    assert_close([y], [3 + grown[None, :, None].expand(B, T, H)])
    assert_close([h_n[0]], [y[:, -1]])


@every_pooling
def test_a_shut_forget_gate_takes_the_new_value(pooling: str, quick: None) -> None:
    layer, x, h_0 = without_memory(pooling, 1), torch.randn(T, I), torch.full((1, H), 3.0)
    params = parameters(layer)
    want = torch.tanh(F.linear(x, params["update.weight"], params["update.bias"]))
    for name in {"ifo": ("enter", "leave"), "fo": ("leave",), "f": ()}[pooling]:
        want = want * torch.sigmoid(F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"]))
    assert_close([layer(x, h_0)[0]], [want])


@pytest.mark.parametrize("negated", [False, True])
def test_the_forget_gate_of_its_authors_code_is_the_other_way_round(negated: bool, quick: None) -> None:
    """torchqrnn: Z, F, O = a linear map of [x[t], x[t-1]] in three parts; c = F Z + (1 - F) c; sigmoid(O) c."""
    layer, x = lr.RNN(lr.cells.qrnn_fo, I, H), torch.randn(T, B, I)
    params = parameters(layer)
    both = torch.cat([x, torch.cat([torch.zeros(1, B, I), x[:-1]])], 2)
    sign = -1 if negated else 1
    Z, F_, O = (F.linear(both, k * params[f"{name}.weight"], k * params[f"{name}.bias"])
                for name, k in (("update", 1), ("forget", sign), ("leave", 1)))
    c, outputs = torch.zeros(B, H), []
    for step in range(T):
        c = torch.sigmoid(F_[step]) * torch.tanh(Z[step]) + (1 - torch.sigmoid(F_[step])) * c
        outputs.append(torch.sigmoid(O[step]) * c)
    error = (layer(x)[0] - torch.stack(outputs)).abs().max()
    assert error < 1e-12 if negated else error > 1e-2


# The window


@every_window
def test_a_window_looks_back_and_no_further(pooling: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory y[t] sees x[t-window+1] … x[t]; with it, all of the past; never what comes."""
    monkeypatch.setenv("LRDSL_BACKEND", "reference")
    at, seen = torch.arange(T)[:, None], torch.arange(T)
    past = seen <= at
    assert torch.equal(influence(without_memory(pooling, window), I), past & (at - seen < window))
    assert torch.equal(influence(lr.RNN(qrnn(pooling, window), I, H), I), past)


@every_window
def test_a_boundary_cuts_the_window(pooling: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A boundary between s and t hides x[s] from y[t], through the window and through the state."""
    monkeypatch.setenv("LRDSL_BACKEND", "reference")
    reset = torch.tensor([False, False, True, False, True, False])
    segment = reset.cumsum(0)
    at, seen = torch.arange(T)[:, None], torch.arange(T)
    past = (seen <= at) & (segment[:, None] == segment)
    assert torch.equal(influence(without_memory(pooling, window), I, reset), past & (at - seen < window))
    assert torch.equal(influence(lr.RNN(qrnn(pooling, window), I, H), I, reset), past)


@every_pooling
def test_the_first_steps_see_zeros_as_after_a_boundary(pooling: str, quick: None) -> None:
    layer, x, h_0 = lr.RNN(qrnn(pooling, 3), I, H), torch.randn(T, I), torch.randn(1, H)
    y, _ = layer(x, h_0, reset=torch.arange(T) == 2)
    assert_close([y], [torch.cat([layer(x[:2], h_0)[0], layer(x[2:], h_0)[0]])])
    bare = without_memory(pooling, 3)
    padded = torch.cat([torch.zeros(2, I), x])
    assert_close([bare(x)[0]], [bare(padded)[0][2:]])


@every_pooling
def test_a_nan_behind_a_boundary_stays_there(pooling: str, quick: None) -> None:
    check_nan_stays_behind(qrnn(pooling, 3), I)


# The factory


def test_the_zoo_holds_window_2() -> None:
    assert [lr.cells.qrnn_f, lr.cells.qrnn_fo, lr.cells.qrnn_ifo] == [qrnn(pooling, 2) for pooling in POOLINGS]
    assert qrnn() == lr.cells.qrnn_fo


def test_cells_of_other_windows_are_other_cells() -> None:
    cells = [qrnn(pooling, window) for pooling in POOLINGS for window in (1, 2, 3)]
    assert len(set(cells)) == len({c.name for c in cells}) == len({c.source("cpu") for c in cells}) == len(cells)
    again = [qrnn(pooling, window) for pooling in POOLINGS for window in (1, 2, 3)]
    assert cells == again and [c.source("cuda") for c in cells] == [c.source("cuda") for c in again]


def test_names_are_readable() -> None:
    cell = qrnn("ifo", 3)
    said = cell.explain()
    assert "qrnn_ifo_3" in said and "A = f\n" in said and "b = i*z\n" in said and "a Carry holds x (2 steps)" in said
    assert "forget = forget(x[t], x[t-1], x[t-2])" in str(cell.spec)
    layer = lr.RNN(cell, I, H)
    assert {n: tuple(p.shape) for n, p in parameters(layer).items() if "weight" in n} == dict.fromkeys(
        ("forget.weight", "enter.weight", "update.weight", "leave.weight"), (H, 3 * I))


def test_a_window_may_be_written_in_the_call() -> None:
    window = 3

    @lr.cell
    def qrnn_f_3(x: lr.Input, h: lr.State, forget: lr.Affine, update: lr.Affine):
        f = sigmoid(forget(*(x[t - k] for k in range(window))))
        z = tanh(update(*(x[t - k] for k in range(window))))
        h[t] = f * h[t - 1] + (1 - f) * z
        return h[t]

    ours, theirs = ({s.target: str(s) for s in c.spec.statements} for c in (qrnn_f_3, qrnn("f", window)))
    assert ours == theirs and ours["f"] == "f = sigmoid(forget[t])"


@pytest.mark.parametrize(("pooling", "window", "says"), [
    ("of", 2, "(?s)no pooling 'of'.*f, fo, ifo"), ("f", 0, "positive integer, not 0"), ("f", True, "not True"),
    ("f", 1.5, "not 1.5"),
])
def test_a_cell_that_there_is_not(pooling: str, window: int, says: str) -> None:
    with pytest.raises(lr.BadDeclaration, match=says):
        qrnn(pooling, window)
