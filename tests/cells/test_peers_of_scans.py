"""Scans, and cells that are mostly a scan, beside public implementations with the same weights: values and gradients.

A test is skipped where its package is not installed. What differs is in docs/differences.md.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu, softplus

import lrdsl as lr
from lrdsl import cells
from tests.cells.peers import peer
from tests.nn.compare import assert_close, gradients, leaf, parameters

T, B, H, N = 13, 2, 4, 3


@pytest.fixture(autouse=True)
def native(quick: None) -> None:
    """What is compared here does not depend on the backend."""


def map_of(layer: lr.RNN, name: str, x: Tensor) -> Tensor:
    p = parameters(layer)
    return linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))


def assert_the_same(got: Any, want: Any, leaves: list[Tensor], scale: float = 10) -> None:
    """Values within 1e-12 scale, gradients within ten times that, relative to the largest."""
    assert_close(got, want, scale)
    assert_close(gradients(got, leaves), gradients(want, leaves), 10 * scale)


# accelerated-scan


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [2, 13, 64])
def test_the_linear_scan_is_accelerated_scans(steps: int, reverse: bool) -> None:
    """Its reference, a tree over time, which comes last there."""
    scan, a, b = peer("accelerated_scan.ref").scan, leaf(B, steps, H), leaf(B, steps, H)
    got = lr.linear_scan(a, b, reverse=reverse)
    assert_the_same([got], [scan(a.mT, b.mT, reverse=reverse).mT], [a, b])


# mamba.py


@pytest.mark.parametrize("steps", [1, 13, 64])
def test_s6_is_the_selective_scan_of_mamba_py(steps: int) -> None:
    """A tree over time, with a backward pass by hand; its step is a map of low rank, of full rank here."""
    scan = peer("mambapy.mamba").MambaBlock.selective_scan
    layer, x = lr.RNN(cells.mamba_s6(N), H, H, batch_first=True), leaf(B, steps, H)
    p, step = parameters(layer), softplus(map_of(layer, "step", x))
    want = scan(None, x, step, -torch.exp(p["A_log"]), map_of(layer, "B", x), map_of(layer, "C", x), p["D"])
    assert_the_same([layer(x)[0]], [want], [x, *layer.parameters()])


# fla, the recurrence of its HGRN


@pytest.mark.parametrize("given", [False, True])
def test_hgrn_is_flas(given: bool) -> None:
    """With the logarithm of the gate, and what enters multiplied before, as in its layer. It computes in float32."""
    naive = peer("fla.ops.hgrn.naive").naive_recurrent_hgrn
    layer, x, h_0 = lr.RNN(cells.hgrn(0.5), H, H, batch_first=True), leaf(B, T, H), leaf(1, B, H)
    f = 0.5 + 0.5 * torch.sigmoid(map_of(layer, "forget", x))
    want, last = naive((1 - f) * silu(map_of(layer, "update", x)), f.log(), h_0[0] if given else None, True)
    y, h_n = layer(x, h_0 if given else None)
    torch.testing.assert_close((y, h_n[0]), (want, last.double()), rtol=1e-5, atol=1e-6)
    leaves = [x, *layer.parameters(), *([h_0] if given else [])]
    torch.testing.assert_close(gradients([y], leaves), gradients([want], leaves), rtol=1e-4, atol=1e-5)


# rwkv, the time mixing of RWKV-4


def test_wkv_is_rwkvs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32. Its keys and values are maps of x after a layer norm; what leaves is x + R wkv, with R = sigmoid(0) here."""
    monkeypatch.setenv("RWKV_JIT_ON", "0")
    mix = peer("rwkv.model").RWKV.att_seq
    torch.set_default_dtype(torch.float32)  # the fixture `seed` puts it back
    x, keys, values, w, u = leaf(T, H), leaf(H, H), leaf(H, H), torch.rand(H, requires_grad=True), leaf(H)
    zero, one, eye = torch.zeros(H), torch.ones(H), torch.eye(H)
    y, _, *want = mix(None, x, zero, zero, zero, zero - 1e30, one, zero, one, one, one, -w, u, keys, values, 0 * eye, eye,
                      *[None] * 16)
    norm = layer_norm(x, (H,))
    wkv, last = lr.function(cells.rwkv4_wkv, dim=0)((norm @ keys)[:, None], (norm @ values)[:, None], w, u, return_state=True)
    got = [wkv[:, 0], *(last.now[n][0, 0] for n in ("num", "den", "p"))]
    torch.testing.assert_close(got, [2 * (y - x), *want], rtol=1e-5, atol=1e-6)
    leaves = [x, keys, values, w, u]
    torch.testing.assert_close(gradients(got[:1], leaves), gradients([2 * (y - x)], leaves), rtol=1e-4, atol=1e-5)


# xlstm


def test_slstm_is_xlstms_without_its_recurrent_matrix() -> None:
    """The step in torch of the package, whose first m is the i of the first step."""
    vanilla = peer("xlstm.blocks.slstm.src.vanilla")
    layer, x = lr.RNN(cells.slstm(), H, H), leaf(T, B, H)
    gates = torch.cat([map_of(layer, name, x) for name in ("enter", "forget", "new", "leave")], -1)
    states, last, _ = vanilla.slstm_forward(gates, torch.zeros(4, B, H), torch.zeros(1, 4 * H, H), torch.zeros(4 * H),
                                            vanilla.slstm_pointwise_function_registry["slstm"])
    y, h_n = layer(x)
    assert_the_same([y, *(h[0] for h in h_n)], [states[0, 1:], *last[1:]], [x, *layer.parameters()])


@pytest.mark.parametrize("kind", ["step by step", "all at once"])
def test_the_normaliser_of_an_mlstm_is_xlstms(kind: str) -> None:
    """A head of one dimension of values, all 1: what leaves is n·q over the denominator. Its steps start with m = 0."""
    peers = peer("xlstm.blocks.mlstm.backends")
    q, k, i, f = leaf(B, T, H), leaf(B, T, H), leaf(B, T, 1), leaf(B, T, 1)
    ones = torch.ones(B, T, H)
    if kind == "all at once":
        want = peers.parallel_stabilized_simple(*(v[:, None] for v in (q, k, ones, i, f)), eps=0)[:, 0, :, 0]
    else:
        state, out = (torch.zeros(B, 1, H, H), torch.zeros(B, 1, H, 1), torch.zeros(B, 1, 1, 1)), []
        for s in range(T):
            now = (v[:, None, s:s + 1].clone() for v in (q, k, ones, i, f))
            h, state = peers.recurrent_step_stabilized_simple(*state, *now, eps=0)
            out.append(h[:, 0, 0, 0])
        want = torch.stack(out, 1)
    start = {"m": 0.0} if kind == "step by step" else None
    n, m = lr.function(cells.mlstm_normaliser)(k / math.sqrt(H), i.expand(B, T, H), f.expand(B, T, H), init=start)
    dot = (n * q).sum(-1)
    got = dot / torch.maximum(dot.abs(), torch.exp(-m[..., 0]))
    if kind == "step by step":
        assert_close([n[:, -1], m[:, -1]], [state[1][:, 0, :, 0], state[2][:, 0, 0].expand(B, H)], 10)
    assert_the_same([got], [want], [q, k, i, f])


# recurrentgemma


@pytest.mark.parametrize("given", [False, True])
def test_rglru_is_recurrentgemmas_with_one_head(given: bool) -> None:
    """Of one block, so that its gates are dense. It computes 1 - a² without expm1, and states in float32.

    Its first step is scaled where segment_pos says that something came before.
    """
    other = peer("recurrentgemma.torch.layers").RGLRU(H, 1)
    layer = lr.RNN(cells.rglru, H, H, batch_first=True, dtype=torch.float32)
    x, h_0 = leaf(B, T, H).float(), torch.randn(1, B, H).float()
    p = parameters(layer)
    weights = {"a_param": p["Lambda"], "input_gate.w": p["enter.weight"].T[None], "input_gate.b": p["enter.bias"][None],
               "a_gate.w": p["recur.weight"].T[None], "a_gate.b": p["recur.bias"][None]}
    place = torch.arange(T).expand(B, T) + given
    want, last = torch.func.functional_call(other, weights, (x, place, h_0[0] if given else None))
    y, h_n = layer(x, h_0 if given else None)
    torch.testing.assert_close((y, h_n[0]), (want, last), rtol=1e-4, atol=1e-5)
    leaves = [x, *layer.parameters()]
    torch.testing.assert_close(gradients([y], leaves), gradients([want], leaves), rtol=1e-3, atol=1e-4)
