"""Packed segments of cells with a state axis: each is what a loop over its own steps gives, edges and last values included."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

import lrdsl as lr
from tests.axis_cells import mixed, mixed_loop, returns, returns_loop, s6, s6_loop, staged, staged_loop, turn
from tests.complex_axis_cells import s4d, s4d_loop
from tests.nn.compare import assert_close, gradients, leaf, parameters
from tests.nn.test_complex import gradients as complex_gradients
from tests.nn.test_complex import leaf as complex_leaf

LENGTHS = [3, 0, 1, 37, 2]
T, S, C, N = sum(LENGTHS), len(LENGTHS), 3, 3
BORDERS = torch.tensor([0, *LENGTHS]).cumsum(0)
PIECES = [slice(a, b) for a, b in pairwise(BORDERS.tolist())]


@pytest.fixture(params=["reference", "native", "emulated"])
def everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend of a machine without a GPU."""
    monkeypatch.setenv("LRDSL_BACKEND", request.param)
    return str(request.param)


@pytest.mark.parametrize("given", [False, True])
def test_mambas_selective_scan(given: bool, everywhere: str) -> None:
    layer = lr.RNN(s6(N), C, C)
    p, x, h_0 = parameters(layer), leaf(T, C), leaf(1, S, C, N)
    start = h_0[0] if given else torch.zeros(S, C, N)
    y, h_n = layer(x, h_0 if given else None, cu_seqlens=BORDERS)
    found = [s6_loop(x[None, at], p, start[k:k + 1]) if at.start < at.stop else (x[None, at], start[k:k + 1])
             for k, at in enumerate(PIECES)]
    want, last = torch.cat([y[0] for y, _ in found]), torch.cat([h for _, h in found])
    assert h_n.shape == (1, S, C, N)
    assert_close((y, h_n[0]), (want, last), 10)
    leaves = [x, h_0, *p.values()]
    assert_close(gradients((y, h_n[0]), leaves), gradients((want, last), leaves), 1000)


@pytest.mark.parametrize("given", [False, True])
def test_everything_that_an_axis_meets(given: bool, everywhere: str) -> None:
    """Shared inputs at lags on both sides, order two, each with an edge of its own in each segment."""
    f, tensors = lr.function(mixed(N)), [leaf(1, T, C), leaf(1, T, N), leaf(C, N), leaf(N), leaf(C)]
    edges = [leaf(S, C, N), leaf(S, C, 2, N), leaf(S, N)]
    got = f(*tensors, init=dict(zip("hqu", edges, strict=True)) if given else {}, cu_seqlens=BORDERS)
    start = edges if given else [torch.full((S, C, N), 0.5), torch.zeros(S, C, 2, N), torch.zeros(S, N)]
    parts = [mixed_loop(tensors[0][:, at], tensors[1][:, at], *tensors[2:], *(e[k:k + 1] for e in start))
             for k, at in enumerate(PIECES) if at.start < at.stop]
    want = [torch.cat(column, 1) for column in zip(*parts, strict=True)]
    assert_close(got, want, 100)
    assert_close(gradients(got, [*tensors, *edges]), gradients(want, [*tensors, *edges]), 1e4)


def test_from_the_right_and_in_two_programs(quick: None) -> None:
    """A learned initial state; states that a second Program reads."""
    layer, x = lr.RNN(returns(N), C, C), leaf(T, C)
    p, pieces = parameters(layer), [at for at in PIECES if at.start < at.stop]
    y, g_n = layer(x, cu_seqlens=BORDERS)
    found = [returns_loop(x[None, at], p) for at in pieces]
    want = torch.cat([y[0] for y, _ in found])
    assert_close((y,), (want,), 10)
    assert_close([g_n[0, [0, 2, 3, 4]], g_n[0, 1]], [torch.cat([g for _, g in found]), p["g_init"]], 10)
    assert_close(gradients((y,), [x, *p.values()]), gradients((want,), [x, *p.values()]), 1000)
    layer, h_0 = lr.RNN(staged(N), C, C), leaf(1, S, C, N)
    p = parameters(layer)
    y, h_n = layer(x, h_0, cu_seqlens=BORDERS)
    found = [staged_loop(x[None, at], p, h_0[0, k:k + 1], torch.zeros(1, at.stop - at.start, dtype=torch.bool))
             for k, at in enumerate(PIECES) if at in pieces]
    want = torch.cat([y[0] for y, _ in found])
    assert_close([y, h_n[0, [0, 2, 3, 4]], h_n[0, 1]], [want, torch.cat([h for _, h in found]), h_0[0, 1]], 10)
    assert_close(gradients((y,), [x, h_0, *p.values()]), gradients((want,), [x, h_0, *p.values()]), 1000)


def test_complex_states(quick: None) -> None:
    f, x, h_0 = lr.function(s4d(N)), complex_leaf(1, T, C, complex=False), complex_leaf(S, C, N)
    learned = [*(complex_leaf(C, N, complex=False) for _ in range(2)), complex_leaf(C, N),
               *(complex_leaf(C, complex=False) for _ in range(2))]
    y, carry = f(x, *learned, init={"h": h_0}, cu_seqlens=BORDERS, return_state=True)
    found = [s4d_loop(x[:, at], *learned, h_0[k:k + 1]) if at.start < at.stop else (x[:, at], h_0[k:k + 1])
             for k, at in enumerate(PIECES)]
    want = torch.cat([y for y, _ in found], 1), torch.cat([h for _, h in found])
    assert_close((y, carry.now["h"][:, 0]), want, 10)
    leaves = [x, *learned, h_0]
    assert_close(complex_gradients((y, carry.now["h"][:, 0]), leaves), complex_gradients(want, leaves), 1000)


def test_packed_sequences_chunks_and_a_step(quick: None) -> None:
    layer = lr.RNN(s6(N), C, C, num_layers=2)
    seqs, h_0 = [leaf(n, C) for n in (2, 5, 1)], torch.randn(2, 3, C, N)
    packed, carry = layer(pack_sequence(seqs, enforce_sorted=False), h_0, return_state=True)
    padded, _ = pad_packed_sequence(packed)
    alone = [layer(x, h_0[:, k], return_state=True) for k, x in enumerate(seqs)]
    assert_close([padded[:len(x), k] for k, x in enumerate(seqs)], [y for y, _ in alone])
    assert_close(carry.now.values(), [torch.cat([c.now[n] for _, c in alone]) for n in carry.now])
    more, borders = torch.randn(6, C), torch.tensor([0, 1, 4, 6])
    y, after = layer(more, carry, cu_seqlens=borders, return_state=True)
    whole = torch.cat([v for k, x in enumerate(seqs) for v in (x, more[borders[k]:borders[k + 1]])])
    ends = torch.tensor([0, 3, 11, 14])
    z, last = layer(whole, h_0, cu_seqlens=ends, return_state=True)
    assert_close([y], [torch.cat([z[e - n:e] for e, n in zip(ends[1:], borders.diff(), strict=True)])])
    assert_close(after.now.values(), last.now.values())
    x_t = torch.randn(3, C)
    stepped, _ = layer.step(x_t, after)
    assert_close([stepped], [torch.stack([layer.step(x_t[k], lr.Carry({n: v[k:k + 1] for n, v in after.now.items()}, {}))[0]
                                          for k in range(3)])])


@pytest.mark.long
@pytest.mark.parametrize("T", [3, 36])
def test_torch_checks_both_orders_and_forward_mode(T: int, quick: None) -> None:
    f, borders = lr.function(turn(1)), torch.tensor([0, 1, 1, T])
    args, edges = [leaf(1, T, 2), leaf(1, T, 1), leaf(2, 1), leaf(1, T, 2)], [leaf(3, 2, 1), leaf(3, 2, 1)]

    def run(*tensors: Tensor) -> Any:
        y, carry = f(*tensors[:4], init=dict(zip("pq", tensors[4:], strict=True)), cu_seqlens=borders, return_state=True)
        return y, *carry.now.values()

    assert gradcheck(run, (*args, *edges), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (*args, *edges), check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize(("cell", "dtype"), [(s6(N), torch.bfloat16), (lr.cells.gilr, torch.float16),
                                             (lr.cells.qrnn_fo, torch.bfloat16)], ids=str)
def test_segments_of_16_bits(cell: lr.Cell, dtype: torch.dtype, quick: None) -> None:
    """As each alone, up to how torch adds up another matrix product; a state that the cell returns is carried in float32, too,
    and given edges are not rounded."""
    layer = lr.RNN(cell, C, C).to(dtype)
    shape = (C, N) if cell.spec.axis else (C,)
    x, h_0 = torch.randn(T, C).to(dtype).requires_grad_(), torch.randn(1, S, *shape, dtype=torch.float32, requires_grad=True)
    for start in (h_0, h_0.to(dtype), None):
        y, carry = layer(x, start, cu_seqlens=BORDERS, return_state=True)
        alone = [layer(x[at], None if start is None else start[:, k], return_state=True) for k, at in enumerate(PIECES)]
        last = {n: torch.cat([c.now[n] for _, c in alone]) for n in carry.now}
        assert {n: v.dtype for n, v in last.items()} == {n: v.dtype for n, v in carry.now.items()}
        assert y.dtype == dtype and (y - torch.cat([y for y, _ in alone])).abs().max() <= 2 * torch.finfo(dtype).eps
        assert all((carry.now[n] - v).abs().max() <= 2 * torch.finfo(dtype).eps for n, v in last.items())
        if start is not h_0:
            continue
        weight, leaves = torch.linspace(-1, 1, T, dtype=dtype)[:, None].expand(T, C), [x, h_0, *layer.parameters()]
        got, want = (torch.autograd.grad(z, leaves, weight) for z in (y, torch.cat([y for y, _ in alone])))
        for a, b in zip(got, want, strict=True):
            assert a.dtype == b.dtype and (a - b).abs().max() <= 8 * torch.finfo(dtype).eps * b.abs().max().clamp(min=1)
