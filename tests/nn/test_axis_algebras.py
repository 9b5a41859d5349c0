"""Recurrences over (max, +), (min, +) and (logaddexp, +) in cells with a state axis, against loops over time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import lrdsl as lr
from lrdsl import exp, t
from lrdsl.passes.replay import SEGMENT
from tests.nn.compare import assert_close, gradients, leaf, parameters

B, C, N, INF = 2, 3, 3, float("inf")


@pytest.fixture(params=["reference", "native", "emulated"])
def everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend of a machine without a GPU."""
    monkeypatch.setenv("LRDSL_BACKEND", request.param)
    return str(request.param)


@lr.cell
def best(x: lr.Input, u: lr.Input = lr.Input(axis=N), *, h: lr.State = lr.State(size=N, init=-INF),
         v: lr.Vector = lr.Vector(size=N)):
    h[t] = lr.maximum(h[t - 1] + v, x[t] * u[t])
    return lr.sum(h[t] * u[t - 1])


@lr.cell
def least(x: lr.Input, u: lr.Input = lr.Input(axis=N), *, h: lr.State = lr.State(size=N, init=INF),
          v: lr.Vector = lr.Vector(size=N)):
    h[t] = lr.minimum(h[t + 1] + v, x[t] * u[t])
    return lr.sum(h[t] * u[t + 1])


@lr.cell
def evidence(x: lr.Input, u: lr.Input = lr.Input(axis=N), *, h: lr.State = lr.State(size=N, init=-INF),
             v: lr.Vector = lr.Vector(size=N)):
    h[t] = lr.logaddexp(h[t - 1] + v, x[t] * u[t])
    return lr.sum(h[t] * u[t - 1])


JOINS: dict[str, Any] = {"best": torch.maximum, "least": torch.minimum, "evidence": torch.logaddexp}


def loop(name: str, x: Tensor, u: Tensor, v: Tensor, h0: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, T, C), u (B, T, N), v (C, N), h0 (B, C, N), reset (B, T); y and the last h. `least` runs from the right."""
    h, ys, (rows, T, _) = h0, {}, x.shape
    reverse = name == "least"
    ends = torch.cat([reset, torch.ones(rows, 1, dtype=torch.bool)], 1)
    for at in reversed(range(T)) if reverse else range(T):
        edge = ends[:, at + 1, None] if reverse else ends[:, at, None] | (at == 0)
        near = torch.where(edge, 0.0, u[:, min(at + 1, T - 1)] if reverse else u[:, at - 1]).unsqueeze(1)
        h = JOINS[name](torch.where(edge.unsqueeze(2), h0, h) + v, x[:, at].unsqueeze(2) * u[:, at].unsqueeze(1))
        ys[at] = (h * near).sum(2)
    return torch.stack([ys[at] for at in range(T)], 1), h


def arguments(T: int, rows: int = B, edges: int = B) -> tuple[Tensor, ...]:
    """x, u, v and h before the run."""
    return leaf(rows, T, C), leaf(rows, T, N), leaf(C, N), leaf(edges, C, N)


@pytest.mark.parametrize("T", [1, SEGMENT + 4])
@pytest.mark.parametrize("cell", [best, least, evidence], ids=lambda c: c.name)
def test_each_algebra(cell: lr.Cell, T: int, everywhere: str) -> None:
    """Edges, boundaries, last values; a state that begins at infinity."""
    f, (*given, h0), reset = lr.function(cell), arguments(T), torch.rand(B, T) < 0.1
    y, carry = f(*given, init={"h": h0}, reset=reset, return_state=True)
    got, want = (y, carry.now["h"][:, 0]), loop(cell.name, *given, h0, reset)
    if cell.name == "least":  # which goes on to the boundary before its last step
        want = want[0], torch.where(reset[:, 0, None, None], h0, want[1])
    assert_close(got, want, 100)
    assert_close(gradients(got, [*given, h0]), gradients(want, [*given, h0]), 1e4)
    begin = torch.full_like(h0, cell.spec["h"].option("init"))
    got, want = (f(*given, reset=reset),), loop(cell.name, *given, begin, reset)[:1]
    assert_close(got, want, 100)
    assert_close(gradients(got, given), gradients(want, given), 1e4)


@lr.cell
def mlstm(x: lr.Input, *, c: lr.State = lr.State(size=N), n: lr.State = lr.State(size=N), m: lr.State = lr.State(init=-INF),
          q: lr.Affine = lr.Affine(axis=N), k: lr.Affine = lr.Affine(axis=N), v: lr.Affine, enter: lr.Affine,
          forget: lr.Affine):
    """The mLSTM of Beck et al. 2024 (arXiv 2405.04517, section 2.3), a gate a channel, its exponential forget gate."""
    i, f = enter(x[t]), forget(x[t])
    m[t] = lr.maximum(f + m[t - 1], i)
    keep, add = exp(f + m[t - 1] - m[t]), exp(i - m[t])
    c[t] = keep * c[t - 1] + add * v(x[t]) * k(x[t])
    n[t] = keep * n[t - 1] + add * k(x[t])
    return lr.sum(c[t] * q(x[t])) / lr.maximum(lr.abs(lr.sum(n[t] * q(x[t]))), exp(-m[t]))


def mlstm_loop(x: Tensor, p: Mapping[str, Tensor], reset: Tensor) -> tuple[Tensor, ...]:
    """x (B, T, C), {q,k,v,enter,forget}.{weight,bias}, reset (B, T); y (B, T, C) and the last c, n (B, C, N) and m (B, C)."""
    rows = x.shape[0]
    c0, m0 = torch.zeros(rows, C, N), torch.full((rows, C), -INF)
    c, n, m, ys = c0, c0, m0, []
    for at in range(x.shape[1]):
        cut = reset[:, at, None]
        c, n, m = torch.where(cut.unsqueeze(2), c0, c), torch.where(cut.unsqueeze(2), c0, n), torch.where(cut, m0, m)
        q, k, v, i, f = (F.linear(x[:, at], p[f"{a}.weight"], p[f"{a}.bias"]) for a in ("q", "k", "v", "enter", "forget"))
        largest = torch.maximum(f + m, i)
        keep, add = torch.exp(f + m - largest).unsqueeze(2), torch.exp(i - largest).unsqueeze(2)
        c, n, m = keep * c + add * v.unsqueeze(2) * k.unsqueeze(1), keep * n + add * k.unsqueeze(1), largest
        below = torch.maximum((n * q.unsqueeze(1)).sum(2).abs(), torch.exp(-m))
        ys.append((c * q.unsqueeze(1)).sum(2) / below)
    return torch.stack(ys, 1), c, n, m


def test_a_stabilised_state_of_n_numbers(everywhere: str) -> None:
    """A maximum of one number a channel scales linear states of N, with exponents of 300."""
    layer, T = lr.RNN(mlstm, C, C, batch_first=True), SEGMENT + 6
    p, x, reset = parameters(layer), leaf(B, T, C), torch.rand(B, T) < 0.1
    with torch.no_grad():
        for name in ("enter.weight", "forget.weight"):
            p[name].mul_(300)
    y, (c, n, m) = layer(x, reset=reset)
    want = mlstm_loop(x, p, reset)
    assert_close((y, c[0], n[0], m[0]), want, 1000)
    leaves = [x, *p.values()]
    assert_close(gradients((y, c[0], n[0]), leaves), gradients(want[:3], leaves), 1e6)


@pytest.mark.parametrize("cell", [best, evidence], ids=lambda c: c.name)
def test_chunks_steps_and_segments(cell: lr.Cell, quick: None) -> None:
    f, T = lr.function(cell), SEGMENT + 5
    x, u, v, h0 = arguments(T, 1, 3)
    whole, after = f(x, u, v, return_state=True)
    carry, parts = None, []
    for at in (slice(0, 1), slice(1, SEGMENT), slice(SEGMENT, T)):
        y, carry = f(x[:, at], u[:, at], v, init=carry, return_state=True)
        parts.append(y)
    assert carry is not None
    assert_close([whole, *after.now.values()], [torch.cat(parts, 1), *carry.now.values()], 10)
    borders = [0, 3, 4, T]
    got = f(x, u, v, init={"h": h0}, cu_seqlens=torch.tensor(borders))
    want = torch.cat([loop(cell.name, x[:, lo:hi], u[:, lo:hi], v, h0[k:k + 1], torch.zeros(1, hi - lo, dtype=torch.bool))[0]
                      for k, (lo, hi) in enumerate(pairwise(borders))], 1)
    assert_close([got], [want], 100)
    assert_close(gradients([got], [x, u, v, h0]), gradients([want], [x, u, v, h0]), 1e4)


@pytest.mark.parametrize("cell", [best, evidence], ids=lambda c: c.name)
def test_torch_checks_both_orders_and_forward_mode(cell: lr.Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_BACKEND", "reference")
    f, given, reset = lr.function(cell), arguments(3, 1, 1), torch.tensor([[False, False, True]])

    def run(*tensors: Tensor) -> Any:
        y, carry = f(*tensors[:3], init={"h": tensors[3]}, reset=reset, return_state=True)
        return y, carry.now["h"]

    assert gradcheck(run, given, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, given, fast_mode=True)


def test_beside_16_bits(quick: None) -> None:
    """The state is float32, and begins at -inf."""
    f, (x, u, v, _) = lr.function(evidence), arguments(SEGMENT + 1)
    small = [a.detach().bfloat16().requires_grad_() for a in (x, u, v)]
    exact = [a.detach().double().requires_grad_() for a in small]
    y, carry = f(*small, return_state=True)
    want, last = loop("evidence", *exact, torch.full((B, C, N), -INF), torch.zeros(B, SEGMENT + 1, dtype=torch.bool))
    assert y.dtype == torch.bfloat16 and carry.now["h"].dtype == torch.float32
    assert (carry.now["h"][:, 0] - last).abs().max() <= 1e-5 * last.abs().max()
    got, wanted = torch.autograd.grad(y.sum(), small), torch.autograd.grad(want.sum(), exact)
    for a, b in zip((y, *got), (want, *wanted), strict=True):
        assert a.dtype == torch.bfloat16 and ((a - b).abs() <= 2**-8 * b.abs() + 2e-5 * b.abs().max()).all()
