"""The linear scan and its gradient as one would write them by hand in numba, in the two orders that one may hold numbers in.

Outputs are numpy's, which asks for huge pages; torch does not, and numba would pay for that at every call. Where they are
kept, each call writes over those of the call before: no function for others, but what its loops take alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compare import Make, Ready, Tensors, leaves

Pass = Callable[..., None]
BLOCK = 64  # channels that one thread takes through time: 256 bytes of each row


def by_hand(kept: bool = False) -> Make:
    """(B, T, C): batch and channels in parallel, channels innermost."""
    def make(inputs: Tensors) -> Ready:
        own, run = leaves(inputs), _function(*_rows(), kept)
        return Ready(lambda: run(own["a"], own["b"]), own)
    return make


def along_time(kept: bool = False) -> Make:
    """(B, C, T): sequences in parallel, time innermost. Takes (B, T, C) where that is a view of it, as for one channel."""
    def make(inputs: Tensors) -> Ready:
        own = leaves(inputs)
        turned = {n: x.mT for n, x in own.items()}
        if not all(x.is_contiguous() for x in turned.values()):
            raise ValueError("time is not innermost")
        run = _function(*_times(), kept)
        return Ready(lambda: run(turned["a"], turned["b"]).mT, own)
    return make


def _function(forward: Pass, backward: Pass, kept: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The two passes as a function for autograd."""
    held: dict[int, np.ndarray] = {}

    def output(place: int, like: Tensor) -> np.ndarray:
        if kept and place in held:
            return held[place]
        made = np.empty(like.shape, np.float32)
        if kept:
            held[place] = made
        return made

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
            h = output(0, a)
            forward(a.detach().numpy(), b.detach().numpy(), h)
            states = torch.from_numpy(h)
            ctx.save_for_backward(a, states)
            return states

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
            a, h = ctx.saved_tensors
            found = output(1, a), output(2, a)
            backward(*(x.detach().contiguous().numpy() for x in (a, h, gradient)), *found)
            return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    numba: Any = import_module("numba")
    numba.config.THREADING_LAYER = "workqueue"  # over OpenMP, it would change the number of torch's threads
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    return ByHand.apply


@cache
def _rows() -> tuple[Pass, Pass]:
    numba: Any = import_module("numba")

    @numba.njit(parallel=True, cache=False)
    def forward(a: Any, b: Any, h: Any) -> None:
        batch, steps, channels = a.shape
        blocks = (channels + BLOCK - 1) // BLOCK
        for task in numba.prange(batch * blocks):
            n, low = task // blocks, task % blocks * BLOCK
            high = min(low + BLOCK, channels)
            state = np.zeros(BLOCK, a.dtype)
            for t in range(steps):
                a_row, b_row, h_row = a[n, t, low:high], b[n, t, low:high], h[n, t, low:high]
                for c in range(high - low):
                    state[c] = a_row[c] * state[c] + b_row[c]
                    h_row[c] = state[c]

    @numba.njit(parallel=True, cache=False)
    def backward(a: Any, h: Any, gradient: Any, a_out: Any, b_out: Any) -> None:
        batch, steps, channels = a.shape
        blocks = (channels + BLOCK - 1) // BLOCK
        for task in numba.prange(batch * blocks):
            n, low = task // blocks, task % blocks * BLOCK
            high = min(low + BLOCK, channels)
            carry, before = np.zeros(BLOCK, a.dtype), np.zeros(channels, a.dtype)
            for t in range(steps - 1, -1, -1):
                a_row, g_row, h_row = a[n, t, low:high], gradient[n, t, low:high], (h[n, t - 1] if t else before)[low:high]
                a_found, b_found = a_out[n, t, low:high], b_out[n, t, low:high]
                for c in range(high - low):
                    total = g_row[c] + carry[c]
                    b_found[c] = total
                    a_found[c] = total * h_row[c]
                    carry[c] = a_row[c] * total

    return forward, backward


@cache
def _times() -> tuple[Pass, Pass]:
    numba: Any = import_module("numba")

    @numba.njit(parallel=True, cache=False)
    def forward(a: Any, b: Any, h: Any) -> None:
        batch, channels, steps = a.shape
        for task in numba.prange(batch * channels):
            n, c = task // channels, task % channels
            state = np.float32(0)
            for t in range(steps):
                state = a[n, c, t] * state + b[n, c, t]
                h[n, c, t] = state

    @numba.njit(parallel=True, cache=False)
    def backward(a: Any, h: Any, gradient: Any, a_out: Any, b_out: Any) -> None:
        batch, channels, steps = a.shape
        for task in numba.prange(batch * channels):
            n, c = task // channels, task % channels
            carry = np.float32(0)
            for t in range(steps - 1, -1, -1):
                total = gradient[n, c, t] + carry
                b_out[n, c, t] = total
                a_out[n, c, t] = total * h[n, c, t - 1] if t else np.float32(0)
                carry = a[n, c, t] * total

    return forward, backward
