"""From the caller's layout to (batch, time, features) and back."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Time at `dim`, features last, all other dimensions are batch: `batch` are their sizes in order."""

    dim: int
    batch: tuple[int, ...]
    T: int

    @classmethod
    def of(cls, shape: torch.Size, dim: int) -> Layout:
        """The layout of a sequence of that shape; dim counts from 0 and is not the last."""
        return cls(dim, (*shape[:dim], *shape[dim + 1:-1]), shape[dim])

    @property
    def B(self) -> int:
        return prod(self.batch)

    @property
    def plain(self) -> bool:
        """Whether it is (B, T, C) itself."""
        return len(self.batch) == 1 and self.dim == 1

    def inward(self, sequence: Tensor) -> Tensor:
        """(B, T, C) of a sequence, a view where strides allow it."""
        if len(self.batch) == 1:
            return sequence if self.dim == 1 else sequence.transpose(0, 1)
        return sequence.movedim(self.dim, -2).reshape(self.B, self.T, sequence.shape[-1])

    def outward(self, sequence: Tensor) -> Tensor:
        """The caller's layout of a (B, T, C)."""
        if len(self.batch) == 1:
            return sequence if self.dim == 1 else sequence.transpose(0, 1)
        return sequence.reshape(*self.batch, self.T, sequence.shape[-1]).movedim(-2, self.dim)

    def flags(self, reset: Tensor) -> Tensor:
        """(B, T) of flags whose shape is a sequence's without features."""
        return reset.movedim(self.dim, -1).reshape(self.B, self.T)

    def window(self, value: Tensor, depth: int, axes: int = 0) -> Tensor:
        """(B, k, C) of an edge (batch…, C), with k at the end when it is above 1; behind it the state's axes."""
        value = value.unsqueeze(-1 - axes) if depth == 1 else value
        return value.reshape(self.B, *value.shape[-2 - axes:]).transpose(1, 2)
