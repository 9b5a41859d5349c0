"""Other ways to h[t] = a[t] h[t-1] + b[t]: in torch, by hand in numba, and packages for a GPU where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan

from .compare import Make, Ready, Tensors, leaves

Scan = Callable[[Tensor, Tensor], Tensor]


def loop(a: Tensor, b: Tensor) -> Tensor:
    """A step at a time; (B, T, C)."""
    h, states = torch.zeros_like(b[:, 0]), []
    for a_t, b_t in zip(a.unbind(1), b.unbind(1), strict=True):
        h = a_t * h + b_t
        states.append(h)
    return torch.stack(states, 1)


def combine(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """First the step p, then q."""
    return p[0] * q[0], q[0] * p[1] + q[1]


def generic(a: Tensor, b: Tensor) -> Tensor:
    """torch's associative_scan out of slices and sums; (B, T, C)."""
    return associative_scan(combine, (a, b), 1, combine_mode="generic")[1]


def pointwise(a: Tensor, b: Tensor) -> Tensor:
    """torch's associative_scan as one kernel: under torch.compile, on a GPU."""
    return associative_scan(combine, (a, b), 1, combine_mode="pointwise")[1]


def scans(device: str, compiled: bool = True) -> dict[str, Scan]:
    """What takes a and b as they are, by name; those that are compiled are slow to start."""
    found: dict[str, Scan] = {"torch loop": loop, "associative_scan": generic}
    if compiled:
        found["associative_scan, compiled"] = torch.compile(generic, dynamic=False)
        if device == "cuda":
            found["associative_scan, pointwise"] = torch.compile(pointwise, dynamic=False)
    if device == "cpu" and find_spec("numba"):
        found["numba by hand"] = by_hand()
    return found


def plain(scan: Scan) -> Make:
    """A candidate that takes a and b as they are."""
    def make(inputs: Tensors) -> Ready:
        own = leaves(inputs)
        return Ready(lambda: scan(own["a"], own["b"]), own)
    return make


def packages(device: str) -> dict[str, Make]:
    """Packages that take a and b another way; each keeps its tensors in its own layout, which is not timed."""
    found: dict[str, Make] = {}
    if device == "cuda" and find_spec("accelerated_scan"):
        found["accelerated-scan"] = _accelerated
    if device == "cuda" and find_spec("fla"):
        found["fla fused_recurrent_hgrn"] = lambda inputs: _hgrn("fused_recurrent_hgrn", inputs)
        found["fla chunk_hgrn"] = lambda inputs: _hgrn("chunk_hgrn", inputs)
    return found


def _accelerated(inputs: Tensors) -> Ready:
    """accelerated-scan 0.3 (Triton), on contiguous (B, C, T)."""
    scan = import_module("accelerated_scan.scalar").scan

    def turned(x: Tensor) -> Tensor:
        return x.transpose(1, 2).contiguous()
    own = leaves({n: turned(x) for n, x in inputs.items()})
    return Ready(lambda: scan(own["a"], own["b"]), own, turned, turned)


def _hgrn(name: str, inputs: Tensors) -> Ready:
    """fla's hgrn, which takes log a; gives (h, final state)."""
    run = getattr(import_module("fla.ops.hgrn"), name)
    a = inputs["a"]
    own = leaves({"a": a.log(), "b": inputs["b"]})

    def of_a(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**gradients, "a": gradients["a"] / a}
    return Ready(lambda: run(own["b"], own["a"])[0], own, gradients=of_a)


def by_hand() -> Scan:
    """The loop and its gradient as one would write them in numba: batch and channels in parallel, channels innermost."""
    numba: Any = import_module("numba")
    block = 64  # channels that one thread takes through time: 256 bytes of each row

    @numba.njit(parallel=True, cache=False)
    def forward(a: Any, b: Any, h: Any) -> None:
        batch, steps, channels = a.shape
        blocks = (channels + block - 1) // block
        for task in numba.prange(batch * blocks):
            n, low = task // blocks, task % blocks * block
            high = min(low + block, channels)
            state = np.zeros(block, a.dtype)
            for t in range(steps):
                a_row, b_row, h_row = a[n, t, low:high], b[n, t, low:high], h[n, t, low:high]
                for c in range(high - low):
                    state[c] = a_row[c] * state[c] + b_row[c]
                    h_row[c] = state[c]

    @numba.njit(parallel=True, cache=False)
    def backward(a: Any, h: Any, grad: Any, a_grad: Any, b_grad: Any) -> None:
        batch, steps, channels = a.shape
        blocks = (channels + block - 1) // block
        for task in numba.prange(batch * blocks):
            n, low = task // blocks, task % blocks * block
            high = min(low + block, channels)
            carry, before = np.zeros(block, a.dtype), np.zeros(channels, a.dtype)
            for t in range(steps - 1, -1, -1):
                a_row, grad_row, h_row = a[n, t, low:high], grad[n, t, low:high], (h[n, t - 1] if t else before)[low:high]
                a_out, b_out = a_grad[n, t, low:high], b_grad[n, t, low:high]
                for c in range(high - low):
                    total = grad_row[c] + carry[c]
                    b_out[c] = total
                    a_out[c] = total * h_row[c]
                    carry[c] = a_row[c] * total

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
            h = torch.empty_like(b)
            forward(*(x.detach().numpy() for x in (a, b, h)))
            ctx.save_for_backward(a, h)
            return h

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            a, h = ctx.saved_tensors
            a_grad, b_grad = torch.empty_like(a), torch.empty_like(a)
            backward(*(x.detach().contiguous().numpy() for x in (a, h, grad, a_grad, b_grad)))
            return a_grad, b_grad

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    return ByHand.apply
