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
    numbers = math.prod(shape)
    size = numbers * dtype.itemsize
    if size < SMALLEST or not like.is_cpu:
        return like.new_empty(shape, dtype=dtype)
    POOL.keep(most := limit())
    if not most:
        return like.new_empty(shape, dtype=dtype)
    try:
        held = POOL.buffer(size)
    except (OSError, OverflowError, ValueError):
        return like.new_empty(shape, dtype=dtype)  # which says what is missing
    # Its shape by resize_, because a view could not be changed in place where autograd looks on.
    return torch.frombuffer(held, dtype=dtype, count=numbers).resize_(tuple(shape))


def pool_usage() -> Usage:
    """What the memory pool of large outputs on the CPU holds, in bytes, and how often it had what was asked for."""
    return POOL.usage()


def empty_pool() -> None:
    """Give all idle blocks of the pool back to the system."""
    POOL.trim(0)
