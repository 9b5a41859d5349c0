"""Dense maps: one matrix product for all maps of the same samples; of integers, which mean one-hot, rows looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ir.plan import Block
from . import matmul
from .windows import time_first

Weights = Mapping[tuple[str, int], Tensor]
INTEGERS = (torch.int64, torch.int32)  # the dtypes that mean one-hot vectors
NOTHING = -2**31  # the index of an edge: no entry of the vector is 1; not -1, which users have for other things


def fill_of(sequence: Tensor) -> int:
    """What an edge holds that is not given: zero, as an index or as a number."""
    return NOTHING if sequence.dtype in INTEGERS else 0


def product(samples: Tensor, weights: Weights, buffers: Sequence[Sequence[Block]], *, edges: bool) -> tuple[Tensor, ...]:
    """(B, T, blocks * H) for each buffer, a list of blocks, in the memory order of the samples (B, T, lags * size); N for the
    H of a map that gives N numbers.

    Integers (B, T, lags) are the places of the ones in one-hot vectors; `edges`: some may be NOTHING.
    """
    if time_first(samples):
        swapped = product(samples.transpose(0, 1), weights, buffers, edges=edges)
        return tuple(p.transpose(0, 1) for p in swapped)
    if samples.dtype in INTEGERS:
        return tuple(_cat([_looked_up(samples, weights, b, edges) for b in blocks], 2) for blocks in buffers)
    every = [b for blocks in buffers for b in blocks]
    weight = _cat([_cat([weights[b.affine, k] for k in b.operands], 1) for b in every], 0)
    rows = [sum(weights[b.affine, b.operands[0]].shape[0] for b in blocks) for blocks in buffers]
    if matmul.suits(samples, weight):
        return matmul.linear(samples, weight, rows)
    whole = F.linear(samples, weight)
    return (whole,) if len(buffers) == 1 else tuple(whole.split_with_sizes(rows, 2))


def _looked_up(places: Tensor, weights: Weights, block: Block, edges: bool) -> Tensor:
    """(B, T, H): the columns of a weight at these places, added up over the lags. No one-hot vector is built."""
    total: Tensor | None = None
    for at, k in zip(places.unbind(2), block.operands, strict=True):
        rows = weights[block.affine, k].t()
        if rows.shape[0] <= at.numel():
            rows = rows.contiguous()  # looked up by row; a copy of a larger table would cost more than it saves
        if edges:
            nothing = at == NOTHING
            found = torch.where(nothing.unsqueeze(2), 0.0, F.embedding(torch.where(nothing, 0, at), rows))
        else:
            found = F.embedding(at, rows)
        total = found if total is None else total + found
    assert total is not None
    return total


def _cat(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
