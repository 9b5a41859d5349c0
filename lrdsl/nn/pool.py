"""Tensors in the blocks of `backends.blocks`.

They are tensors like those that torch.from_numpy gives: everything works on them but what makes their storage larger or smaller
(`resize_` to more numbers, `out=` of another size, `untyped_storage().resize_`), which torch refuses with its own error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..backends.blocks import POOL, Usage, limit, size_class

SMALLEST = 4 << 20  # bytes; what is smaller the C library keeps at hand itself
Room = tuple[int, int]  # bytes of a block, and how many numbers are to lie in it


def empty(like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A contiguous tensor of any content on the device of `like`; large ones on the CPU come from the pool."""
    pooled = _pooled(room(shape, dtype), dtype) if like.is_cpu else None
    # Its shape by resize_, because a view could not be changed in place where autograd looks on.
    return like.new_empty(shape, dtype=dtype) if pooled is None else pooled.resize_(tuple(shape))


def strided(like: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, found: Room | None) -> Tensor:
    """The same on the CPU, without gaps in another order of memory. found: its `room`."""
    pooled = _pooled(found, dtype)
    return like.new_empty_strided(shape, strides, dtype=dtype) if pooled is None else pooled.as_strided_(shape, strides)


def room(shape: Sequence[int], dtype: torch.dtype) -> Room | None:
    """What such a tensor takes of the pool, where there is one; None of what is small."""
    count = math.prod(shape)
    size = count * dtype.itemsize
    return (size_class(size), count) if size >= SMALLEST else None


def _pooled(found: Room | None, dtype: torch.dtype) -> Tensor | None:
    """As many numbers in a block; None without room, and where there is no pool, or no memory, which torch will say."""
    if found is None:
        return None
    POOL.keep(most := limit())
    if not most:
        return None
    size, count = found
    try:
        return torch.frombuffer(POOL.of_class(size), dtype=dtype, count=count)
    except (OSError, OverflowError, ValueError):
        return None


def pool_usage() -> Usage:
    """What the memory pool of large outputs on the CPU holds, in bytes, and how often it had what was asked for."""
    return POOL.usage()


def empty_pool() -> None:
    """Give all idle blocks of the pool back to the system."""
    POOL.trim(0)
