"""Matrix products of many samples on the CPU, made in the fastest way that torch has on this machine, and piece by piece.

torch ships several products whose speed differs by 2 on some CPUs: those of its BLAS (`addmm`), and those of oneDNN. Which one
is faster is measured once a process for each class of products, on small whole numbers, which also shows that they agree.
A piece is as many samples as fit in a core's cache with what is made of them: a product that has no way to write where it is
told is copied while it is in cache, and whole outputs lie in the memory of `pool`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor, nn

from .. import options
from ..errors import BackendUnavailable
from . import pool

LEAST = 1 << 24  # multiplications; below it a product takes less than a millisecond, and F.linear is what it is
FEW = 256  # samples; fewer do not make up for what a product costs at once
SAMPLE = 1 << 25  # multiplications of a product that is measured
ROUNDS, ENOUGH = 10, 5e-3  # of it: the first ones find caches and threads cold, and oneDNN is slower by three; seconds for all
PIECE = 1 << 20  # numbers that a piece reads and writes, for each thread
GAIN = 0.9  # another way than torch's own must take less than this part of its time
PLAIN = {Tensor, nn.Parameter}
FLOATS = (torch.float32, torch.float64)
_chosen: dict[tuple[object, ...], Way] = {}


class Way(Protocol):
    """out (+)= a b, where one of a, b, a.T, b.T lies in memory row by row."""

    def __call__(self, a: Tensor, b: Tensor, out: Tensor, add: bool) -> None: ...


def blas(a: Tensor, b: Tensor, out: Tensor, add: bool) -> None:
    """By torch's BLAS."""
    if add:
        out.addmm_(a, b)
    else:
        torch.mm(a, b, out=out)


def onednn(a: Tensor, b: Tensor, out: Tensor, add: bool) -> None:
    """By oneDNN, which wants a row by row, and else copies it: then of a b and its transpose the one that copies less."""
    turned = a.stride(1) != 1 and b.shape[1] < a.shape[0]
    left, right = (b.t(), a) if turned else (a, b.t())
    found: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    found = found.t() if turned else found
    if add:
        out.add_(found)
    else:
        out.copy_(found)


WAYS: dict[str, Way] = {"blas": blas, "onednn": onednn}


def suits(samples: Tensor, weight: Tensor) -> bool:
    """Whether a product of samples (B, T, K) and a weight (N, K) is one for this module: large, of plain tensors on the CPU,
    and for its values only."""
    if torch.compiler.is_compiling() or not {type(samples), type(weight)} <= PLAIN or not samples.is_cpu:
        return False
    rows = samples.shape[0] * samples.shape[1]
    return rows >= FEW and rows * weight.numel() >= LEAST and samples.dtype in FLOATS and samples.dtype is weight.dtype and \
        weight.is_cpu and samples.layout is weight.layout is torch.strided and not torch.is_autocast_enabled("cpu") and \
        alone(samples, weight) and options.products() != "linear"


def alone(*tensors: Tensor) -> bool:
    """Whether a call on these is for their values only: no compiler, transform of functions or mode of torch takes part."""
    return not (torch.compiler.is_compiling() or torch._C._is_tracing() or torch._C._len_torch_dispatch_stack()
                or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
                or any(map(torch._C._functorch.is_legacy_batchedtensor, tensors)))


def linear(samples: Tensor, weight: Tensor, heights: Sequence[int]) -> tuple[Tensor, ...]:
    """(B, T, n) for each n of heights: samples (B, T, K) times as many rows of the weight (N, K)."""
    if torch.is_grad_enabled() and (samples.requires_grad or weight.requires_grad):
        return Linear.apply(samples, weight, tuple(heights))  # type: ignore[no-untyped-call]
    return forward(samples, weight, heights)


class Linear(torch.autograd.Function):
    """`linear` with its gradient, whose own gradient is torch's."""

    @staticmethod
    def forward(ctx, samples: Tensor, weight: Tensor, heights: tuple[int, ...]) -> tuple[Tensor, ...]:  # type: ignore
        ctx.save_for_backward(samples, weight)
        ctx.set_materialize_grads(False)
        ctx.heights = heights
        return forward(samples, weight, heights)

    @staticmethod
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore
        samples, weight = ctx.saved_tensors
        given = [(g, w) for g, w in zip(gradients, weight.split_with_sizes(ctx.heights), strict=True)]
        if all(g is None for g in gradients):
            return None, None, None
        if torch.is_grad_enabled() or not alone(*(g for g in gradients if g is not None)):
            return *differentiable(samples, given, ctx.needs_input_grad), None
        return *backward(samples, given, ctx.needs_input_grad), None


Given = Sequence[tuple[Tensor | None, Tensor]]


def differentiable(samples: Tensor, given: Given, wanted: Sequence[bool]) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of samples and weight by torch. given: (gradient of a product, its rows of the weight)."""
    parts = [F.linear(g, w.t()) for g, w in given if g is not None]
    rows = samples.flatten(0, 1)
    weights = [torch.zeros_like(w) if g is None else g.reshape(-1, w.shape[0]).t() @ rows for g, w in given]
    return sum(parts[1:], parts[0]) if wanted[0] else None, torch.cat(weights) if wanted[1] else None


def forward(samples: Tensor, weight: Tensor, heights: Sequence[int]) -> tuple[Tensor, ...]:
    """The values of `linear`."""
    rows = samples.flatten(0, 1)
    M, K = rows.shape
    outs = [pool.empty(samples, (*samples.shape[:2], n), samples.dtype) for n in heights]
    parts = [(out.flatten(0, 1), w.t(), way("samples", K, n, samples.dtype))
             for out, w, n in zip(outs, weight.split_with_sizes(list(heights)), heights, strict=True)]
    for at in pieces(M, K + sum(heights)):
        for out, w, times in parts:
            times(rows[at], w, out[at], False)
    return tuple(outs)


def backward(samples: Tensor, given: Given, wanted: Sequence[bool]) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of samples and weight, each made where it will lie. given: as in `differentiable`."""
    rows = samples.flatten(0, 1)
    M, K = rows.shape
    by_samples = pool.empty(samples, samples.shape, samples.dtype) if wanted[0] else None
    by_weight = samples.new_zeros(sum(w.shape[0] for _, w in given), K) if wanted[1] else None
    parts, low = [], 0
    for g, w in given:
        n, low = w.shape[0], low + w.shape[0]
        if g is not None:
            parts.append((g.reshape(M, n), w, None if by_weight is None else by_weight[low - n:low],
                          way("gradient", n, K, samples.dtype), way("weight", n, K, samples.dtype)))
    into = None if by_samples is None else by_samples.flatten(0, 1)
    for at in pieces(M, K + sum(g.shape[1] for g, *_ in parts)):
        for k, (g, w, total, times, over) in enumerate(parts):
            if total is not None:
                over(g[at].t(), rows[at], total, True)
            if into is not None:
                times(g[at], w, into[at], k > 0)
    return by_samples, by_weight


def pieces(rows: int, width: int, least: int = FEW) -> Iterator[slice]:
    """The rows of an output, some at a time; width: numbers that a row reads and writes."""
    step = max(least, PIECE * torch.get_num_threads() // width)
    return (slice(low, low + step) for low in range(0, rows, step))


def way(kind: str, k: int, n: int, dtype: torch.dtype) -> Way:
    """The way for products of a class, which has sizes up to the next powers of 2.

    kind: "samples" (m, k) (n, k).T, "gradient" (m, k) (k, n), "weight" (m, k).T (m, n).
    """
    said = options.products()
    if said not in ("", *WAYS):
        raise BackendUnavailable(f"LRDSL_PRODUCTS is {said!r}\n  way out: choose from linear, {', '.join(WAYS)}, or unset it")
    if said or torch.are_deterministic_algorithms_enabled():
        return WAYS[said or "blas"] if said != "onednn" or knows_onednn(dtype) else blas
    key = kind, k.bit_length(), n.bit_length(), dtype, torch.get_num_threads()
    return _chosen.get(key) or _chosen.setdefault(key, measured(kind, k, n, dtype))  # of two threads' findings the first


def knows_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN is here, not switched off, and multiplies this dtype."""
    return dtype is torch.float32 and torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled() and \
        hasattr(torch.ops.mkldnn, "_linear_pointwise")


@torch.no_grad()
def measured(kind: str, k: int, n: int, dtype: torch.dtype) -> Way:
    """The fastest way of those that agree; some 10 ms."""
    if not knows_onednn(dtype):
        return blas
    m = min(max(SAMPLE // (k * n), FEW), 2048)

    def whole(*shape: int) -> Tensor:
        return (torch.arange(shape[0] * shape[1], device="cpu") % 7 - 3).to(dtype).view(shape)
    a, b = {"samples": lambda: (whole(m, k), whole(n, k).t()), "gradient": lambda: (whole(m, k), whole(k, n)),
            "weight": lambda: (whole(m, k).t(), whole(m, n))}[kind]()
    outs = [a.new_empty(a.shape[0], b.shape[1]) for _ in WAYS]
    try:
        for times, out in zip(WAYS.values(), outs, strict=True):
            times(a, b, out, False)
        if not torch.equal(*outs):
            return blas
    except Exception:  # a way that this torch does not have after all
        return blas
    rounds = list[list[float]]()
    while len(rounds) < 3 or (len(rounds) < ROUNDS and sum(map(sum, rounds)) < ENOUGH):
        rounds.append([_clock(times, a, b, out) for times, out in zip(WAYS.values(), outs, strict=True)])
    first, second = (min(taken) for taken in zip(*rounds, strict=True))
    return onednn if second < GAIN * first else blas


def _clock(times: Way, a: Tensor, b: Tensor, out: Tensor) -> float:
    start = time.thread_time()  # not the time on the wall, which others at work on the machine prolong
    times(a, b, out, False)
    return time.thread_time() - start


__all__ = ["Linear", "linear", "suits"]
