"""The window of a dense map against its definition, sample by sample, and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vmap

from lrdsl.nn.carry import Window
from lrdsl.nn.windows import time_first, windowed
from tests.nn.compare import assert_close, gradients, leaf

B, C, K = 3, 2, 4
LAGS = [(0, -1), (0, 1), (-1, 1), (0, 0, -1), (-2, 3), (0, -1, -2, -3), (3, 1, -4, 0)]


def slow(sequence: Tensor, lags: tuple[int, ...], edges: dict[int, Window], reset: Tensor | None) -> Tensor:
    """What each read gets: the sample, unless a step on the way to it crosses a boundary or leaves the sequence; the first such
    step decides, and how far beyond it the read goes."""
    T = sequence.shape[1]

    def read(b: int, t: int, lag: int) -> Tensor:
        side = 1 if lag > 0 else -1
        for k in range(1, abs(lag) + 1):
            boundary = t + k if side > 0 else t - k + 1
            start, edge = edges[side]
            if reset is not None and 0 <= boundary < T and reset[b, boundary]:
                return torch.zeros(C) if edge is None else edge[b, abs(lag) - k]
            if boundary == (T if side > 0 else 0):
                return torch.zeros(C) if start is None else start[b, abs(lag) - k]
        return sequence[b, t + lag]

    rows = [torch.cat([read(b, t, lag) for lag in lags]) for b in range(B) for t in range(T)]
    return torch.stack(rows).reshape(B, T, -1) if rows else sequence.new_zeros((B, T, len(lags) * C))


def sides(lags: tuple[int, ...]) -> list[int]:
    return [side for side in (-1, 1) if any(side * lag > 0 for lag in lags)]


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("given", ["nothing", "start", "both"])
@pytest.mark.parametrize("T", [0, 1, 2, 7])
@pytest.mark.parametrize("lags", LAGS, ids=str)
def test_it_is_its_definition(lags: tuple[int, ...], T: int, given: str, resets: bool) -> None:
    sequence, reset = leaf(B, T, C), torch.rand(B, T) < 0.4 if resets else None
    edges = {side: (leaf(B, K, C) if given != "nothing" else None, leaf(B, K, C) if given == "both" else None)
             for side in sides(lags)}
    got, want = windowed(sequence, lags, edges, reset), slow(sequence, lags, edges, reset)
    assert torch.equal(got, want)
    if T:
        leaves = [sequence, *(w for window in edges.values() for w in window if w is not None)]
        want = want + 0 * sequence.sum()  # it may have read none of the samples
        assert_close(gradients([got], leaves), gradients([want], leaves), 10)


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("lags", [(0, -2), (-1, 0, 2)], ids=str)
def test_it_keeps_the_memory_order(lags: tuple[int, ...], resets: bool) -> None:
    batch_first, reset = torch.randn(B, 5, C), torch.rand(B, 5) < 0.3 if resets else None
    as_time_first = batch_first.transpose(0, 1).contiguous().transpose(0, 1)
    edges: dict[int, Window] = {side: (torch.randn(B, K, C), None) for side in sides(lags)}
    a, b = (windowed(x, lags, edges, reset) for x in (batch_first, as_time_first))
    assert torch.equal(a, b)
    assert a.is_contiguous() and not time_first(a)
    assert b.transpose(0, 1).is_contiguous() and time_first(b)


@pytest.mark.parametrize("lags", [(0, -2), (-1, 2)], ids=str)
def test_torch_checks_first_and_second_order(lags: tuple[int, ...]) -> None:
    reset = torch.tensor([[False, True, False, False], [True, False, True, True], [False, False, False, False]])
    many = [leaf(B, 4, C), *(leaf(B, 2, C) for _ in range(2 * len(sides(lags))))]

    def run(sequence: Tensor, *given: Tensor) -> Tensor:
        edges: dict[int, Window] = {side: (given[2 * k], given[2 * k + 1]) for k, side in enumerate(sides(lags))}
        return windowed(sequence, lags, edges, reset).sin()

    assert gradcheck(run, many, check_forward_ad=True)
    assert gradgradcheck(run, many, check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0), (2, 1)], ids=str)
def test_vmap(dims: tuple[int | None, int | None]) -> None:
    sequences, resets = torch.randn(5, B, 4, C), torch.rand(5, B, 4) < 0.4
    edges: dict[int, Window] = {-1: (torch.randn(B, 1, C), None), 1: (None, torch.randn(B, 2, C))}
    args = [a if d == 0 else a[0] if d is None else a.movedim(0, d) for a, d in zip((sequences, resets), dims, strict=True)]
    got = vmap(lambda x, reset: windowed(x, (0, -1, 2), edges, reset), dims)(*args)
    want = [windowed(sequences[k if dims[0] is not None else 0], (0, -1, 2), edges, resets[k if dims[1] is not None else 0])
            for k in range(5)]
    assert torch.equal(got, torch.stack(want))


@pytest.mark.parametrize("lags", [(0, -1, -2), (0, 1, 2)], ids=str)
def test_a_nan_behind_a_boundary_stays_there(lags: tuple[int, ...]) -> None:
    """In values and in gradients: of the sequence, of its start and of its edge."""
    sequence = torch.randn(1, 6, C)
    sequence[:, 2:4] = torch.nan
    sequence.requires_grad_()
    reset = torch.tensor([[False, False, True, False, True, False]])
    start, edge = leaf(1, 2, C), leaf(1, 2, C)
    y = windowed(sequence, lags, {sides(lags)[0]: (start, edge)}, reset)
    whole = torch.tensor([0, 1, 4, 5])
    assert y[:, whole].isfinite().all() and y[:, 2:4].isnan().any()
    grads = torch.autograd.grad(y[:, whole].square().sum(), [sequence, start, edge])
    assert all(g.isfinite().all() for g in grads)
    assert not grads[0][:, 2:4].any() and grads[0][:, whole].all() and grads[1].any() and grads[2].any()
