"""Tensors in the blocks of `backends.blocks`.

They are tensors like those that torch.from_numpy gives: everything works on them but what makes their storage larger or smaller
(`resize_` to more numbers, `out=` of another size, `untyped_storage().resize_`), which torch refuses with its own error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..backends.blocks import POOL, Usage, limit

SMALLEST = 4 << 20  # bytes; what is smaller the C library keeps at hand itself


def empty(like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A contiguous tensor of any content on the device of `like`; large ones on the CPU come from the pool."""
    pooled = _pooled(shape, dtype) if like.is_cpu else None
    # Its shape by resize_, because a view could not be changed in place where autograd looks on.
    return like.new_empty(shape, dtype=dtype) if pooled is None else pooled.resize_(tuple(shape))


def strided(like: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The same without gaps in another order of memory."""
    pooled = _pooled(shape, dtype) if like.is_cpu else None
    return like.new_empty_strided(shape, strides, dtype=dtype) if pooled is None else pooled.as_strided_(shape, strides)


def holds(shape: Sequence[int], dtype: torch.dtype) -> bool:
    """Whether such a tensor comes from the pool, where there is one."""
    return math.prod(shape) * dtype.itemsize >= SMALLEST


def _pooled(shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
    """As many numbers in a block; None of few, and where there is no pool, or no memory, which torch will say."""
    if not holds(shape, dtype):
        return None
    POOL.keep(most := limit())
    if not most:
        return None
    count = math.prod(shape)
    try:
        return torch.frombuffer(POOL.buffer(count * dtype.itemsize), dtype=dtype, count=count)
    except (OSError, OverflowError, ValueError):
        return None


def pool_usage() -> Usage:
    """What the memory pool of large outputs on the CPU holds, in bytes, and how often it had what was asked for."""
    return POOL.usage()


def empty_pool() -> None:
    """Give all idle blocks of the pool back to the system."""
    POOL.trim(0)
