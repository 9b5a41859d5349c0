"""The window of a dense map: a sequence's samples at several lags side by side, with its edges where they leave a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .carry import Window


def time_first(sequence: Tensor) -> bool:
    """Whether a (B, T, C) lies in memory as (T, B, C)."""
    return sequence.stride(0) < sequence.stride(1)


def windowed(sequence: Tensor, lags: Sequence[int], edges: Mapping[int, Window], reset: Tensor | None,
             fill: float = 0.0) -> Tensor:
    """(B, T, len(lags) * C) of a sequence (B, T, C), in its memory order; differentiable any number of times.

    edges: (start, edge) of the sides that are read, -1 earlier and +1 later, each (B, k, C), nearest first, `fill` where None.
    reset (B, T). A read at a lag means what it does in `ir.program`: the edge is selected, so that a nan behind a boundary
    reaches neither values nor gradients.
    """
    samples = {0: sequence}
    for side, window in edges.items():
        away = _away(sequence, side, max(side * lag for lag in lags), window, reset, fill)
        samples |= {side * k: sample for k, sample in enumerate(away, 1)}
    return joined([samples[lag] for lag in lags], 2, time_first(sequence))


def _away(sequence: Tensor, side: int, depth: int, window: Window, reset: Tensor | None, fill: float) -> list[Tensor]:
    """The samples 1 … depth steps away, (B, T, C) each; without a boundary views of one tensor.

    What a reader k steps away sees is what one k-1 steps away sees a step further on, or the edge if a boundary lies before
    that step. `seen` begins with the sequence and what lies beyond it, and is a step shorter each time.
    """
    (B, T, C), (start, edge) = sequence.shape, window
    beyond = sequence.new_full((B, depth, C), fill) if start is None else start[:, :depth]
    seen = joined([beyond.flip(1), sequence] if side < 0 else [sequence, beyond], 1, time_first(sequence))
    between = None  # the boundaries between the steps of `seen`; reset[t] lies between t-1 and t
    if reset is not None:
        between = F.pad(reset, (depth - 1, 0)) if side < 0 else F.pad(reset, (0, depth))[:, 1:]
    found = []
    for k in range(1, depth + 1):
        seen = seen[:, :-1] if side < 0 else seen[:, 1:]
        if between is not None:
            crossed = between[:, k - 1:] if side < 0 else between[:, :T + depth - k]
            seen = torch.where(crossed.unsqueeze(2), fill if edge is None else edge[:, k - 1:k], seen)
        found.append(seen[:, depth - k:] if side < 0 else seen[:, :T])
    return found


def joined(parts: Sequence[Tensor], dim: int, in_time: bool) -> Tensor:
    """torch.cat of (B, T, …), laid out in memory as (T, B, …) where `in_time`."""
    if not in_time:
        return torch.cat(list(parts), dim)
    return torch.cat([p.transpose(0, 1) for p in parts], (1, 0, 2)[dim]).transpose(0, 1)
