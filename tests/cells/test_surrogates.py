"""Surrogates of every kind: of a GRU, by a window of the input, by a complex recurrence; against loops over time."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from sympy import I
from torch import Tensor

import lrdsl as lr
from lrdsl import t
from lrdsl.cells import gilr_gru, lstm, qrnn, window
from lrdsl.frontend.count import M, N, learned
from tests import truth
from tests.cells.both_ways import RESET, B, H, T, check_whole_is_chunked_is_stepped
from tests.cells.both_ways import I as IN
from tests.nn.compare import assert_close, gradients, leaf, parameters


@lr.cell
def turning(x: lr.Input, *, z: lr.State = lr.State(complex=True), speed: lr.Vector, decay: lr.Vector,
            enter: lr.Affine = lr.Affine(complex=True, bias=False), leave: lr.Affine):
    """A diagonal complex recurrence with real values, as the LRU is."""
    z[t] = lr.exp(-lr.exp(decay) + I * speed) * z[t - 1] + enter(x[t])
    return leave(lr.re(z[t]), lr.im(z[t]))


turning_lstm = lr.surrogate(lstm, h=turning)


def dense(params: Mapping[str, Tensor], name: str, *operands: Tensor) -> Tensor:
    return torch.nn.functional.linear(torch.cat(operands, -1), params[f"{name}.weight"], params.get(f"{name}.bias"))


def gilr_gru_loop(x: Tensor, params: Mapping[str, Tensor], h0: Tensor, s0: Tensor, reset: Tensor) -> list[Tensor]:
    """h, and h and s at the end: Cho et al.'s equations with s[t-1] in the dense maps; x (B, T, I)."""
    s, s_last = truth.gilr(x, {n.removeprefix("h."): p for n, p in params.items() if n.startswith("h.")}, s0, reset)
    h, out = h0, []
    for k in range(x.shape[1]):
        cut = reset[:, k, None] | (k == 0)
        heard, before = torch.where(cut, s0, s[:, k - 1]), torch.where(cut, h0, h)
        r, z = (torch.sigmoid(dense(params, name, x[:, k], heard)) for name in ("reset", "update"))
        h = z * before + (1 - z) * torch.tanh(dense(params, "candidate", x[:, k], r * heard))
        out.append(h)
    return [torch.stack(out, 1), h, s_last]


def test_a_gru_is_its_equations(backend: str) -> None:
    layer, x, h_0 = lr.RNN(gilr_gru, IN, H, batch_first=True), leaf(B, T, IN), (leaf(1, B, H), leaf(1, B, H))
    y, (h_n, s_n) = layer(x, h_0, reset=RESET)
    want = gilr_gru_loop(x, parameters(layer), h_0[0][0], h_0[1][0], RESET)
    assert_close((y, h_n[0], s_n[0]), want)
    leaves = [x, *h_0, *layer.parameters()]
    assert_close(gradients((y, h_n[0], s_n[0]), leaves), gradients(want, leaves), 10)


def test_chunks_and_steps(quick: None) -> None:
    check_whole_is_chunked_is_stepped(lr.surrogate(lstm, h=window(2)), IN)


@pytest.mark.parametrize("steps", [1, 3])
def test_an_lstm_that_reads_a_window_is_the_qrnn(steps: int, quick: None) -> None:
    """Martin & Cundy 2018, section 3.2: the same maps, parameters and equations."""
    layers = [lr.RNN(cell, IN, H) for cell in (lr.surrogate(lstm, h=window(steps)), qrnn("ifo", window=steps + 1))]
    layers[1].load_state_dict(layers[0].state_dict())
    x, found = leaf(T, B, IN), []
    for layer in layers:
        made, names = layer(x, reset=RESET.T), sorted(dict(layer.named_parameters()))
        found.append([*made, *gradients(made, [x, *(layer.get_parameter(n) for n in names)])])
    assert_close(*found)


def test_a_complex_recurrence_stands_in_for_h(quick: None) -> None:
    layer, x = lr.RNN(turning_lstm, IN, H, batch_first=True), leaf(B, T, IN)
    y, (c_n, z_n) = layer(x, reset=RESET)
    p = parameters(layer)
    none = torch.zeros(B, H)
    c, z, out = none, none + 0j, []
    for k in range(T):
        c, z = (torch.where(RESET[:, k, None], 0, before) for before in (c, z))
        heard = torch.where(RESET[:, k, None] | (k == 0), 0, dense(p, "h.leave", z.real, z.imag))
        f, i, o = (torch.sigmoid(dense(p, n, x[:, k], heard)) for n in ("forget", "enter", "leave"))
        c = f * c + i * torch.tanh(dense(p, "update", x[:, k], heard))
        z = torch.exp(torch.complex(-torch.exp(p["h.decay"]), p["h.speed"])) * z + dense(p, "h.enter", x[:, k] + 0j)
        out.append(o * c)
    want = [torch.stack(out, 1), c, z]
    assert_close((y, c_n[0], z_n[0]), want)
    leaves = [x, *layer.parameters()]
    assert_close(gradients((y, c_n[0], torch.view_as_real(z_n[0])), leaves),
                 gradients([*want[:2], torch.view_as_real(z)], leaves), 10)


@pytest.mark.parametrize("cell", [gilr_gru, lr.cells.gilr_lstm, turning_lstm, lr.surrogate(lstm, h=window(2)),
                                  lr.cells.qrnn_fo], ids=lambda c: c.name)
def test_what_is_learned_is_counted(cell: lr.Cell) -> None:
    layer = lr.RNN(cell, 3, 5)
    assert learned(cell.spec).subs({M: 3, N: 5}) == sum(p.numel() for p in layer.parameters())


def test_what_a_surrogate_costs_is_said() -> None:
    """The paper says 2n(n+m) more; its GILR, whose maps read x alone, has 2nm weights and 2n biases."""
    assert "surrogate: 2*m*n + 2*n parameters more, for m inputs and n hidden" in gilr_gru.explain()
    assert "surrogate: 8*m*n - 4*n**2 parameters more, for m inputs and n hidden" in lr.surrogate(lstm, h=window(2)).explain()


def test_a_window_has_steps() -> None:
    with pytest.raises(lr.BadDeclaration, match="steps is a positive integer, not 0"):
        window(0)
