"""Cells with a state axis, and the truth of each: a float64 loop over time, written from the equations and from nothing else.

`s6` is Mamba's selective scan (Gu & Dao 2023, arXiv 2312.00752, section 3.2, algorithm 2), with the step that its authors'
code takes for B: A is discretised exactly, exp(d A), B by Euler, d B, and A = -exp(A_log). `mixed` has all else that an axis
can meet.
Golden texts cite their lines: append, do not insert.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

import lrdsl as lr
from lrdsl import exp, sigmoid, softplus, t, tanh


@cache
def s6(N: int = 16) -> lr.Cell:
    """Mamba's selective scan with N states a channel."""
    @lr.cell
    def s6(x: lr.Input, *, h: lr.State = lr.State(size=N), A: lr.Vector = lr.Vector(size=N), step: lr.Affine,
           B: lr.Affine = lr.Affine(axis=N), C: lr.Affine = lr.Affine(axis=N), D: lr.Vector):
        d = softplus(step(x[t]))
        h[t] = exp(d * -exp(A)) * h[t - 1] + d * B(x[t]) * x[t]
        return lr.sum(C(x[t]) * h[t]) + D * x[t]
    return s6


def s6_loop(x: Tensor, p: Mapping[str, Tensor], h0: Tensor, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """d = softplus(W x + b); h[t] = exp(d A) h[t-1] + d B[t] x[t]; y[t] = C[t] h[t] + D x[t], with A = -exp(A_log).

    x (B, T, D), A_log (D, N), {step,B,C}.{weight,bias}, D (D,), h0 (B, D, N), reset (B, T); y (B, T, D), h_last (B, D, N).
    """
    assert x.dtype == torch.float64
    h, ys = h0, []
    for at in range(x.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, at, None, None], h0, h)
        now = x[:, at]
        d = F.softplus(F.linear(now, p["step.weight"], p["step.bias"]), threshold=1e9).unsqueeze(2)
        B, C = (F.linear(now, p[f"{n}.weight"], p[f"{n}.bias"]).unsqueeze(1) for n in ("B", "C"))
        h = torch.exp(d * -torch.exp(p["A"])) * h + d * B * now.unsqueeze(2)
        ys.append((C * h).sum(2) + p["D"] * now)
    return torch.stack(ys, 1), h


@cache
def mixed(N: int = 3) -> lr.Cell:
    """Inputs and scalars that the channels share, at lags on both sides; a state of one number beside those of N, each in the
    other's gates; order two; a sum behind a sum; a value of one number where N are wanted; two outputs."""
    @lr.cell
    def mixed(x: lr.Input, u: lr.Input = lr.Input(axis=N), *, h: lr.State = lr.State(size=N, init=0.5), g: lr.State,
              q: lr.State = lr.State(size=N), w: lr.Vector = lr.Vector(size=N), s: lr.Scalar = lr.Scalar(size=N), v: lr.Vector):
        g[t] = sigmoid(x[t]) * g[t - 1] + x[t] + lr.sum(u[t - 1] + x[t - 1])
        h[t] = sigmoid(g[t - 1] * w) * h[t - 1] + u[t] * s + g[t]
        q[t] = q[t - 1] / 2 + q[t - 2] * tanh(h[t - 1]) / 4 + u[t + 1] * x[t]
        z = tanh(lr.sum(h[t] * q[t - 1]) / 8)
        return z + v * g[t], lr.sum(w * u[t] * h[t - 1] * z)
    return mixed


def mixed_loop(x: Tensor, u: Tensor, w: Tensor, s: Tensor, v: Tensor, h0: Tensor, q0: Tensor, u0: Tensor,
               reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x (B, T, C), u (B, T, N), w (C, N), s (N,), v (C,), h0 (B, C, N), q0 (B, C, 2, N) nearest first, u0 (B, N): u[-1]."""
    (B, T, C), N = x.shape, u.shape[2]
    assert x.dtype == torch.float64
    nothing = x.new_zeros(B, C)
    h, q, g, outs = h0, [q0[:, :, 0], q0[:, :, 1]], nothing, []
    for at in range(T):
        def cut(edge: Tensor, value: Tensor, there: int = at) -> Tensor:
            """What is read across the boundary before step `there`."""
            if reset is None:
                return value
            return torch.where(reset[:, there].reshape(-1, *[1] * (value.dim() - 1)), edge, value)

        u_before = cut(u0, u[:, at - 1]) if at else u0
        x_before = cut(nothing, x[:, at - 1]) if at else nothing
        u_after = cut(torch.zeros(B, N), u[:, at + 1], at + 1) if at + 1 < T else torch.zeros(B, N)
        h_before, g_before = cut(h0, h), cut(nothing, g)
        q_before = [cut(q0[:, :, k], q[k]) for k in (0, 1)]
        now = x[:, at]
        g = torch.sigmoid(now) * g_before + now + (u_before.unsqueeze(1) + x_before.unsqueeze(2)).sum(2)
        h = torch.sigmoid(g_before.unsqueeze(2) * w) * h_before + (u[:, at] * s).unsqueeze(1) + g.unsqueeze(2)
        q = [q_before[0] / 2 + q_before[1] * torch.tanh(h_before) / 4 + u_after.unsqueeze(1) * now.unsqueeze(2), q_before[0]]
        z = torch.tanh((h * q_before[0]).sum(2) / 8)
        outs.append((z + v * g, (w * u[:, at].unsqueeze(1) * h_before * z.unsqueeze(2)).sum(2)))
    first, second = zip(*outs, strict=True)
    return torch.stack(first, 1), torch.stack(second, 1)


@cache
def returns(N: int = 3) -> lr.Cell:
    """N discounts at once: a recurrence from the right, whose initial states are learned."""
    @lr.cell
    def returns(r: lr.Input, *, g: lr.State = lr.State(size=N, init=0.25, learned=True), a: lr.Vector = lr.Vector(size=N),
                b: lr.Affine = lr.Affine(axis=N, bias=False)):
        g[t] = sigmoid(a) * g[t + 1] + r[t] * b(r[t + 1])
        return lr.sum(g[t] * a)
    return returns


def returns_loop(r: Tensor, p: Mapping[str, Tensor], reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """r (B, T, C), a and g_init (C, N), b.weight (N, C); y (B, T, C) and the last g (B, C, N), at step 0."""
    B, T, _ = r.shape
    edge = p["g_init"].expand(B, *p["g_init"].shape)
    g, ys = edge, []
    for at in reversed(range(T)):
        after = r[:, at + 1] if at + 1 < T else torch.zeros_like(r[:, 0])
        if reset is not None and at + 1 < T:
            g, after = (torch.where(reset[:, at + 1].reshape(-1, *[1] * (x.dim() - 1)), e, x)
                        for x, e in ((g, edge), (after, torch.zeros_like(after))))
        g = torch.sigmoid(p["a"]) * g + r[:, at].unsqueeze(2) * F.linear(after, p["b.weight"]).unsqueeze(1)
        ys.insert(0, (g * p["a"]).sum(2))
    return torch.stack(ys, 1), g


@cache
def turn(N: int = 3) -> lr.Cell:
    """N rotations a channel: two coupled states, of which the output and the gradient of c and s need the one or the other."""
    @lr.cell
    def turn(x: lr.Input, u: lr.Input = lr.Input(axis=N), *, p: lr.State = lr.State(size=N), q: lr.State = lr.State(size=N),
             c: lr.Vector = lr.Vector(size=N), s: lr.Input):
        p[t] = c * p[t - 1] - s[t] * q[t - 1] + x[t] * u[t]
        q[t] = 0.5 * p[t - 1] + tanh(s[t]) * q[t - 1]
        return lr.sum(p[t] * u[t])
    return turn


def turn_loop(x: Tensor, u: Tensor, c: Tensor, s: Tensor, p0: Tensor, q0: Tensor, reset: Tensor | None = None) -> Tensor:
    """x, s (B, T, C), u (B, T, N), c (C, N), p0, q0 (B, C, N)."""
    p, q, ys = p0, q0, []
    for at in range(x.shape[1]):
        if reset is not None:
            p, q = (torch.where(reset[:, at, None, None], edge, value) for edge, value in ((p0, p), (q0, q)))
        now, there, turned = x[:, at].unsqueeze(2), u[:, at].unsqueeze(1), s[:, at].unsqueeze(2)
        p, q = c * p - turned * q + now * there, 0.5 * p + torch.tanh(turned) * q
        ys.append((p * there).sum(2))
    return torch.stack(ys, 1)


@cache
def staged(N: int = 3) -> lr.Cell:
    """States that a second Program reads, behind a dense map of their sum: these are written at every step."""
    @lr.cell
    def staged(x: lr.Input, *, h: lr.State = lr.State(size=N), A: lr.Vector = lr.Vector(size=N), gate: lr.Affine,
               B: lr.Affine = lr.Affine(axis=N)):
        h[t] = sigmoid(A) * h[t - 1] + B(x[t - 1]) * x[t]
        z = sigmoid(gate(lr.sum(h[t])))
        return lr.sum(h[t - 1] * A) * z
    return staged


def staged_loop(x: Tensor, p: Mapping[str, Tensor], h0: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, T, C), A (C, N), {gate,B}.{weight,bias}, h0 (B, C, N), reset (B, T); y (B, T, C), h_last (B, C, N)."""
    h, ys = h0, []
    for at in range(x.shape[1]):
        edge = reset[:, at, None] | (at == 0)
        before = torch.where(edge.unsqueeze(2), h0, h)
        earlier = torch.where(edge, torch.zeros_like(x[:, 0]), x[:, max(at - 1, 0)])
        B = F.linear(earlier, p["B.weight"], p["B.bias"])
        h = torch.sigmoid(p["A"]) * before + B.unsqueeze(1) * x[:, at].unsqueeze(2)
        z = torch.sigmoid(F.linear(h.sum(2), p["gate.weight"], p["gate.bias"]))
        ys.append((before * p["A"]).sum(2) * z)
    return torch.stack(ys, 1), h


@cache
def meets(N: int = 3) -> lr.Cell:
    """States with an axis that run both ways: two Programs, the second of which reads h a step earlier."""
    @lr.cell
    def meets(x: lr.Input, *, h: lr.State = lr.State(size=N), g: lr.State = lr.State(size=N), v: lr.Vector = lr.Vector(size=N),
              B: lr.Affine = lr.Affine(axis=N)):
        h[t] = sigmoid(v) * h[t - 1] + B(x[t]) * x[t]
        g[t] = 0.5 * g[t + 1] + h[t - 1] * x[t]
        return lr.sum(g[t] + h[t])
    return meets


def meets_loop(x: Tensor, p: Mapping[str, Tensor], reset: Tensor) -> Tensor:
    """x (B, T, C), v (C, N), B.{weight,bias}, reset (B, T); y (B, T, C)."""
    none = x.new_zeros(*x.shape[::2], len(p["B.bias"]))
    h, g, hs, ys = none, none, [], []
    for at in range(x.shape[1]):
        now, edge = x[:, at].unsqueeze(2), (reset[:, at] | (at == 0))[:, None, None]
        hs.append((torch.where(edge, none, h), edge))
        B = F.linear(x[:, at], p["B.weight"], p["B.bias"]).unsqueeze(1)
        h = torch.sigmoid(p["v"]) * hs[at][0] + B * now
        ys.append(h)
    for at in reversed(range(x.shape[1])):
        before, edge = hs[at]
        g = 0.5 * g + before * x[:, at].unsqueeze(2)
        ys[at] = (g + ys[at]).sum(2)
        g = torch.where(edge, none, g)
    return torch.stack(ys, 1)


@cache
def gaps(N: int = 3) -> lr.Cell:
    """A recurrence of one number a channel, with a gap in what it reads of itself, beside an input with the axis."""
    @lr.cell
    def gaps(x: lr.Input, u: lr.Input = lr.Input(axis=N), *, g: lr.State):
        g[t] = sigmoid(x[t]) * g[t + 4] + x[t]
        return g[t + 1] * lr.sum(u[t])
    return gaps


@cache
def lagged(N: int = 3) -> lr.Cell:
    """A state that is no recurrence, which another one reads at t and a step back."""
    @lr.cell
    def lagged(x: lr.Input, *, h: lr.State = lr.State(size=N), k: lr.State = lr.State(size=N, init=0.5),
               p: lr.State = lr.State(size=N)):
        h[t] = 0.5 * h[t - 1] + x[t]
        k[t] = tanh(x[t]) * h[t - 1]
        p[t] = sigmoid(k[t - 1]) * p[t - 1] + k[t]
        return lr.sum(p[t])
    return lagged


def lagged_loop(x: Tensor, N: int) -> Tensor:
    """x (B, T, C); y (B, T, C). All N numbers are the same."""
    h, p = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
    k, ys = torch.full_like(h, 0.5), []
    for now in x.unbind(1):
        h, k_before, k = 0.5 * h + now, k, torch.tanh(now) * h
        p = torch.sigmoid(k_before) * p + k
        ys.append(N * p)
    return torch.stack(ys, 1)
