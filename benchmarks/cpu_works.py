"""What `benchmarks.cpu` measures: the linear scan in two layouts, fused cells, and recurrences with constant coefficients.

Numbers are as in `benchmarks.scan`: coefficients near to 1, so that a step that is lost would show itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan

import lrdsl as lr
from lrdsl import sigmoid, t, tanh

from . import peers, scan
from .compare import Case, Make, Outputs, Ready, Tensors, leaves
from .exact import exact

Shape = tuple[int, int, int]
Run = Callable[..., Outputs]


def linear(shape: Shape, level: str) -> Case:
    """The linear scan of contiguous (B, T, C)."""
    a, b = scan.numbers(*shape, "cpu")
    candidates = {"lrdsl": peers.plain(lr.linear_scan), **peers.more(level, shape)}
    return Case("linear_scan", shape, {"a": a, "b": b}, exact, scan.WORDS, candidates)


def turned(shape: Shape, level: str) -> Case:
    """The same of tensors that are (B, C, T) in memory, whose (B, T, C) are views."""
    a, b = (x.mT.contiguous().mT for x in scan.numbers(*shape, "cpu"))
    candidates = {"lrdsl": peers.plain(lr.linear_scan), **peers.more(level, shape, turned=True)}
    return Case("linear_scan as (B, C, T)", shape, {"a": a, "b": b}, exact, scan.WORDS, candidates, like=b)


def candidate(run: Run, names: tuple[str, ...]) -> Make:
    """One that takes the case's inputs in this order."""
    def make(inputs: Tensors) -> Ready:
        own = leaves(inputs)
        return Ready(lambda: run(*(own[n] for n in names)), own)
    return make


def fused(name: str, inputs: dict[str, Tensor], words: tuple[tuple[int, int], tuple[int, int]], loop: Run, cell: Any,
          others: dict[str, Run], outputs: int = 1) -> Case:
    """A cell of several inputs, each (B, T, C) but for vectors, as a public function of lrdsl, beside others."""
    names, like = tuple(inputs), next(iter(inputs.values()))
    B, T, C = like.shape
    ways = {"lrdsl": lr.function(cell), **others}
    return Case(name, (B, T, C), inputs, lambda x: loop(*x.values()), words, {n: candidate(r, names) for n, r in ways.items()},
                outputs=outputs, like=like)


# A simple recurrent unit behind its dense maps: Lei & Zhang 2017 (arXiv 1709.02755 v1), equations 3 to 7.

@lr.cell
def highway(z: lr.Input, f_in: lr.Input, r_in: lr.Input, x: lr.Input, c: lr.State, b_f: lr.Vector, b_r: lr.Vector):
    """A simple recurrent unit whose gates see the input only."""
    f = sigmoid(f_in[t] + b_f)
    r = sigmoid(r_in[t] + b_r)
    c[t] = f * c[t - 1] + (1 - f) * z[t]
    return r * tanh(c[t]) + (1 - r) * x[t]


def over(way: peers.Scan) -> Run:
    """The same equations in torch over one way to scan."""
    def run(z: Tensor, f_in: Tensor, r_in: Tensor, x: Tensor, b_f: Tensor, b_r: Tensor) -> Tensor:
        f, r = torch.sigmoid(f_in + b_f), torch.sigmoid(r_in + b_r)
        return r * torch.tanh(way(f, (1 - f) * z)) + (1 - r) * x
    return run


def sru_package(inputs: Tensors) -> Ready:
    """The CPU kernel of the package sru 2.6, for inference alone; it takes (T, B, C, 3), which is not timed."""
    run, (z, f_in, r_in, x, b_f, b_r) = import_module("sru.ops").elementwise_recurrence_inference, inputs.values()
    U, x = torch.stack((z, f_in, r_in), -1).transpose(0, 1).flatten(2).contiguous(), x.transpose(0, 1).contiguous()
    B, _, C = z.shape
    weights, biases, start = z.new_zeros(2 * C), torch.cat((b_f, b_r)), z.new_zeros(B, C)
    return Ready(lambda: run(U, x, weights, biases, start, 1, C, False, True)[0].transpose(0, 1), leaves(inputs))


def sru(shape: Shape, level: str) -> Case:
    """Two gates, tanh and a highway around the scan."""
    drawn = {n: torch.randn(shape) for n in ("z", "f_in", "r_in", "x")} | {n: torch.randn(shape[2]) for n in ("b_f", "b_r")}
    others: dict[str, Run] = {}
    if level in ("fast", "all"):
        others["torch loop"] = over(peers.loop)
    if level == "all":
        others["associative_scan, compiled"] = torch.compile(over(peers.generic), dynamic=False)
    case = fused("SRU, fused", drawn, ((4, 2), (6, 4)), over(peers.loop), highway, others)
    package = {"sru package": sru_package} if level == "all" and find_spec("sru") else {}
    return replace(case, candidates={**case.candidates, **package})


# A full 2x2 block a channel, and a complex number a channel.

@lr.cell
def pair(a: lr.Input, b: lr.Input, c: lr.Input, d: lr.Input, x: lr.Input, y: lr.Input, p: lr.State, q: lr.State):
    """A 2x2 block that changes with time."""
    p[t] = a[t] * p[t - 1] + b[t] * q[t - 1] + x[t]
    q[t] = c[t] * p[t - 1] + d[t] * q[t - 1] + y[t]
    return p[t], q[t]


@lr.cell
def planar(a: lr.Input, b: lr.Input, x: lr.Input, y: lr.Input, p: lr.State, q: lr.State):
    """h[t] = (a + ib) h[t-1] + x + iy, h = p + iq, each part a tensor of its own."""
    p[t] = a[t] * p[t - 1] - b[t] * q[t - 1] + x[t]
    q[t] = b[t] * p[t - 1] + a[t] * q[t - 1] + y[t]
    return p[t], q[t]


@lr.cell
def complex_scan(a: lr.Input = lr.Input(complex=True), b: lr.Input = lr.Input(complex=True),
                 h: lr.State = lr.State(complex=True)):
    """The linear scan of complex numbers."""
    h[t] = a[t] * h[t - 1] + b[t]
    return h[t]


def paired(a: Tensor, b: Tensor, c: Tensor, d: Tensor, x: Tensor, y: Tensor) -> Outputs:
    """`pair`, a step at a time."""
    p = q = torch.zeros_like(x[:, 0])
    steps = []
    for a_t, b_t, c_t, d_t, x_t, y_t in zip(*(v.unbind(1) for v in (a, b, c, d, x, y)), strict=True):
        p, q = a_t * p + b_t * q + x_t, c_t * p + d_t * q + y_t
        steps.append((p, q))
    return torch.stack([p for p, _ in steps], 1), torch.stack([q for _, q in steps], 1)


def joined(a: Tensor, b: Tensor, c: Tensor, d: Tensor, x: Tensor, y: Tensor) -> Outputs:
    """`pair` over torch's associative_scan."""
    def combine(m: tuple[Tensor, ...], n: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (a, b, c, d, x, y), (e, f, g, h, u, v) = m, n
        return e * a + f * c, e * b + f * d, g * a + h * c, g * b + h * d, e * x + f * y + u, g * x + h * y + v
    return associative_scan(combine, (a, b, c, d, x, y), 1, combine_mode="generic")[4:]


def turning(shape: Shape) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of coefficients within 8/T of the unit circle."""
    size, angle = 1 - 8 / max(shape[1], 16) * torch.rand(shape), 2 * math.pi * torch.rand(shape)
    return size * angle.cos(), size * angle.sin()


def blocks(shape: Shape, level: str) -> Case:
    """A full 2x2 block: damped rotations, of which the entries are taken as independent."""
    a, b = turning(shape)
    drawn = dict(zip("abcdxy", (a, -b, b, a.clone(), torch.randn(shape), torch.randn(shape)), strict=True))
    others: dict[str, Run] = {"torch loop": paired} if level in ("fast", "all") else {}
    if level == "all":
        others["associative_scan"] = joined
    return fused("2x2 scan", drawn, ((6, 2), (8, 6)), paired, pair, others, outputs=2)


def parts(shape: Shape, level: str) -> Case:
    """The complex scan of real and imaginary parts, four real tensors."""
    a, b = turning(shape)
    drawn = dict(zip("abxy", (a, b, torch.randn(shape), torch.randn(shape)), strict=True))

    def stepwise(a: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Outputs:
        h = peers.loop(torch.complex(a, b), torch.complex(x, y))
        return h.real, h.imag
    others: dict[str, Run] = {"torch loop": stepwise} if level in ("fast", "all") else {}
    return fused("complex scan of parts", drawn, ((4, 2), (6, 4)), stepwise, planar, others, outputs=2)


def complex_numbers(shape: Shape, level: str) -> Case:
    """The complex scan of complex64 tensors."""
    drawn = {"a": torch.complex(*turning(shape)), "b": torch.randn(shape, dtype=torch.complex64)}
    others: dict[str, Run] = {"torch loop": peers.loop} if level in ("fast", "all") else {}
    if level == "all":
        others["associative_scan"] = peers.generic
    return fused("complex scan", drawn, ((4, 2), (6, 4)), peers.loop, complex_scan, others)


# Constant coefficients: other programs do less work.

DECAY = 0.99


class Filter(torch.autograd.Function):
    """scipy.signal.lfilter along time, and its gradient, the same filter from the end."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Filter.run(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return Filter.run(gradient.flip(1)).flip(1)

    @staticmethod
    def run(x: Tensor) -> Tensor:
        """One way."""
        one = torch.ones(1).numpy()
        poles = torch.tensor([1, -DECAY]).numpy()
        return torch.from_numpy(import_module("scipy.signal").lfilter(one, poles, x.detach().numpy(), axis=1))


def constant(name: str, factor: float, cell: Any, others: dict[str, Run]) -> Callable[[Shape, str], Case]:
    """A recurrence whose factor is a number."""
    def make(shape: Shape, level: str) -> Case:
        def truth(x: Tensor) -> Tensor:
            return exact({"a": torch.full_like(x, factor), "b": x})
        return fused(name, {"x": torch.randn(shape)}, ((1, 1), (1, 1)), truth, cell, others if level in ("fast", "all") else {})
    return make


cumsum = constant("cumsum", 1.0, lr.cells.cumsum, {"torch.cumsum": lambda x: torch.cumsum(x, 1)})
decay = constant("filter", DECAY, lr.cells.lfilter([1.0], [1.0, -DECAY]),
                 {"scipy lfilter": Filter.apply} if find_spec("scipy") else {})
