"""Segments of a packed time axis: `cu_seqlens`, and the edges and last values of each segment. Nothing is padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import DtypeMismatch, ShapeMismatch
from .carry import Window
from .checks import insist
from .windows import windowed


class Segments:
    """n segments of T steps, one after another; some may be empty. borders (n+1,): where each begins, and T."""

    def __init__(self, borders: Tensor, T: int) -> None:
        self.n, self.T = borders.shape[0] - 1, T
        borders = borders.long()
        self.starts, self.ends = borders[:-1], borders[1:]
        flags = torch.zeros(T + 1, dtype=torch.bool, device=borders.device)
        self.reset = flags.index_fill(0, borders, True)[:T].unsqueeze(0)  # (1, T), as a call has it

    def beyond(self, window: Tensor, side: int, k: int, fill: float = 0.0) -> Tensor:
        """(1, T, C): what a read k steps away gets where it leaves its segment, minus `fill`; 0 where it does not.

        window (n, depth, C), nearest first; side -1 for reads of earlier steps, +1 for later ones.
        """
        steps = torch.arange(k, device=window.device)  # from the border
        near, far = (self.starts, self.ends) if side < 0 else (self.ends - 1, self.starts - 1)
        at = near.unsqueeze(1) - side * steps
        inside = at < far.unsqueeze(1) if side < 0 else at > far.unsqueeze(1)
        at = torch.where(inside, at, self.T)  # one row more, for what is beyond the other border as well
        rows = window[:, :k].flip(1)
        rows = rows - fill if fill else rows
        zeros = window.new_zeros((self.T + 1, window.shape[2]))
        return zeros.index_add(0, at.flatten(), rows.flatten(0, 1))[:self.T].unsqueeze(0)

    def last(self, sequence: Tensor, window: Tensor, reverse: bool) -> Tensor:
        """(n, k, C): the last k samples of each segment of (1, T, C) in the direction of the run, nearest first; those that a
        short segment lacks come from its `window` (n, k, C)."""
        if self.T == 0:
            return window
        steps = torch.arange(window.shape[1], device=sequence.device)
        lacks = steps - (self.ends - self.starts).unsqueeze(1)  # (n, k); below 0 where the segment has the sample
        at = self.starts.unsqueeze(1) + steps if reverse else self.ends.unsqueeze(1) - 1 - steps
        own = sequence.squeeze(0).index_select(0, at.clamp(0, self.T - 1).flatten()).unflatten(0, at.shape)
        before = window.gather(1, lacks.clamp(min=0).unsqueeze(2).expand(window.shape))
        return torch.where((lacks < 0).unsqueeze(2), own, before)

    def windowed(self, sequence: Tensor, lags: Sequence[int], edges: dict[int, Window], fill: float = 0.0) -> Tensor:
        """As `windows.windowed`, with the `start` of each segment: (n, depth, C)."""
        inner = windowed(sequence, lags, dict.fromkeys(edges, (None, None)), self.reset, fill)
        if all(start is None for start, _ in edges.values()):
            return inner
        parts = []
        for lag in lags:
            start = edges[1 if lag > 0 else -1][0] if lag else None
            parts.append(torch.zeros_like(sequence) if start is None else
                         self.beyond(start, 1 if lag > 0 else -1, abs(lag), fill))
        return inner + torch.cat(parts, 2)


def segments_of(cu_seqlens: Any, T: int, device: torch.device) -> Segments:
    """Segments from their borders, checked. Raises DtypeMismatch, ShapeMismatch; on a GPU wrong borders fail an assertion of
    the device, as an index out of range does in torch."""
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dtype not in (torch.int32, torch.int64):
        said = cu_seqlens.dtype if isinstance(cu_seqlens, Tensor) else f"a {type(cu_seqlens).__name__}"
        raise DtypeMismatch(f"cu_seqlens is {said}, not a tensor of int32 or int64", None,
                            "give the borders of the segments: torch.tensor([0, 3, 8]) for two, of 3 and of 5 steps")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] == 0:
        raise ShapeMismatch(f"cu_seqlens has shape {tuple(cu_seqlens.shape)}, not (segments + 1,)", None,
                            "give the borders of the segments, from 0 to the number of steps")
    if cu_seqlens.device != device:
        raise DtypeMismatch(f"cu_seqlens is on {cu_seqlens.device}, the inputs on {device}", None,
                            f'give cu_seqlens.to("{device}")')
    right = (cu_seqlens[0] == 0) & (cu_seqlens[-1] == T) & (cu_seqlens[1:] >= cu_seqlens[:-1]).all()
    insist(right, lambda: _wrong(cu_seqlens.tolist(), T), "cu_seqlens must go from 0 to the number of steps, and never down")
    return Segments(cu_seqlens, T)


def _wrong(borders: list[int], T: int) -> ShapeMismatch:
    said = str(borders) if len(borders) <= 8 else f"[{', '.join(map(str, borders[:6]))}, … {borders[-1]}]"
    return ShapeMismatch(f"cu_seqlens is {said}: it must go from 0 to {T}, the number of steps, and never down", None,
                         "it holds where each segment begins, and the end of the last one")
