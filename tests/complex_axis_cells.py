"""Cells of complex values with a state axis, and the truth of each: a loop over time in complex128, from its equations.

`s4d` is the diagonal state space of Gu et al. 2022 (arXiv 2206.11893, section 3): A = -exp(a) + i w, zero-order hold, of each
conjugate pair one number is kept, so that its real part counts twice. `wave` has all else that complex values meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

import lrdsl as lr
from lrdsl import conjugate, exp, im, re, sigmoid, t, tanh


@cache
def s4d(N: int = 4) -> lr.Cell:
    """N complex states a channel, the same decays and turns at every step."""
    @lr.cell
    def s4d(x: lr.Input, *, h: lr.State = lr.State(size=N, complex=True), a: lr.Vector = lr.Vector(size=N),
            w: lr.Vector = lr.Vector(size=N), C: lr.Vector = lr.Vector(size=N, complex=True), step: lr.Vector, D: lr.Vector):
        A = -exp(a) + 1j * w
        decay = exp(exp(step) * A)
        h[t] = decay * h[t - 1] + (decay - 1) / A * x[t]
        return 2 * re(lr.sum(C * h[t])) + D * x[t]
    return s4d


def s4d_loop(x: Tensor, a: Tensor, w: Tensor, C: Tensor, step: Tensor, D: Tensor, h: Tensor,
             reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x (B, T, D), a, w, C (D, N), step, D (D,), h (B, D, N); y (B, T, D), h_last (B, D, N)."""
    A, edge, ys = torch.complex(-a.exp(), w), h, []
    decay = torch.exp(step.exp().unsqueeze(1) * A)
    for at in range(x.shape[1]):
        h = h if reset is None else torch.where(reset[:, at, None, None], edge, h)
        h = decay * h + (decay - 1) / A * x[:, at].unsqueeze(2)
        ys.append(2 * (C * h).sum(2).real + D * x[:, at])
    return torch.stack(ys, 1), h


@cache
def wave(N: int = 3) -> lr.Cell:
    """Inputs and maps that the channels share, read at lags; a state and its conjugate; parts of which one alone has the axis;
    sums that gate, are mapped, and are returned; a real state of one number beside complex ones of N."""
    @lr.cell
    def wave(x: lr.Input, u: lr.Input = lr.Input(axis=N, complex=True), *, g: lr.State,
             h: lr.State = lr.State(size=N, complex=True, init=0.5 - 0.25j), v: lr.Vector = lr.Vector(size=N),
             s: lr.Scalar = lr.Scalar(size=N, complex=True), B: lr.Affine = lr.Affine(axis=N, complex=True),
             out: lr.Affine = lr.Affine(complex=True)):
        g[t] = sigmoid(x[t]) * g[t - 1] + re(lr.sum(u[t - 1] * s))
        uneven = tanh(v) + 1j * x[t]
        h[t] = sigmoid(g[t - 1] * v) * h[t - 1] + conjugate(h[t - 1]) * (0.25 + 0.5j) + B(x[t]) * u[t + 1]
        total = lr.sum(uneven * h[t])
        return tanh(re(total)) + im(lr.sum(uneven)) * g[t], out(total / (1 + lr.abs(total))) + lr.sum(re(uneven) + h[t - 1])
    return wave


def wave_loop(x: Tensor, u: Tensor, p: Mapping[str, Tensor], h0: Tensor, reset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, T, C), u (B, T, N), v (C, N), s (N,), {B,out}.{weight,bias}, h0 (B, C, N), reset (B, T); both outputs and the last
    h; u and g are 0 beyond a segment."""
    (B, T, C), N = x.shape, u.shape[2]
    h, g, firsts, seconds = h0, x.new_zeros(B, C), [], []
    for at in range(T):
        edge = (reset[:, at] | (at == 0)).reshape(B, 1)
        cut = (reset[:, at + 1] if at + 1 < T else torch.ones(B, dtype=torch.bool)).reshape(B, 1)
        u_before = torch.where(edge, 0.0, u[:, at - 1])
        u_after = torch.where(cut, 0.0, u[:, min(at + 1, T - 1)])
        before, g_before = torch.where(edge.unsqueeze(2), h0, h), torch.where(edge, 0.0, g)
        now = x[:, at]
        g = torch.sigmoid(now) * g_before + (u_before * p["s"]).sum(1, keepdim=True).real
        mapped = F.linear(now + 0j, p["B.weight"], p["B.bias"])
        uneven = torch.complex(torch.tanh(p["v"]).expand(B, C, N), now.unsqueeze(2).expand(B, C, N))
        h = torch.sigmoid(g_before.unsqueeze(2) * p["v"]) * before + before.conj() * (0.25 + 0.5j)
        h = h + (mapped * u_after).unsqueeze(1)
        total = (uneven * h).sum(2)
        firsts.append(torch.tanh(total.real) + uneven.sum(2).imag * g)
        seconds.append(F.linear(total / (1 + total.abs()), p["out.weight"], p["out.bias"]) + (uneven.real + before).sum(2))
    return torch.stack(firsts, 1), torch.stack(seconds, 1), h
