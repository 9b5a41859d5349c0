"""How the tensors of a call lie in memory: what a kernel takes as it is, the strides it is told, what is allocated for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..ir.source import Extent, Slot
from . import pool
from .dtypes import compute
from .windows import time_first

New = Callable[[Tensor, tuple[int, ...], torch.dtype], Tensor]  # (like, shape, dtype): a contiguous tensor of any content


def steps_adjacent(slots: Sequence[Slot], tensors: Sequence[Tensor | None]) -> bool:
    """Whether sequences lie as (B, C, T) in memory: the first one in which not one number stands for all decides."""
    for slot, tensor in zip(slots, tensors, strict=True):
        if slot.kind != "sequence" or tensor is None or tensor.dim() != 3 + slot.paired:
            return False
        step, channel, *_ = strides(slot, tensor)[1:]
        if step or channel:
            return step == 1 != channel and min(tensor.shape[1:3]) > 1
    return False


def dense(slot: Slot, tensor: Tensor, turned: bool) -> Tensor:
    """The tensor, or a copy, whose channels are contiguous, or its steps where sequences are `turned`."""
    whole = not slot.paired or _of_pairs(tensor)
    if turned and slot.kind == "sequence":
        return tensor if whole and strides(slot, tensor)[1] == 1 else tensor.transpose(1, 2).contiguous().transpose(1, 2)
    if slot.kind == "reset" or not tensor.dim():
        return tensor
    channel = 2 if slot.paired else -1
    return tensor if whole and (strides(slot, tensor)[channel] == 1 or tensor.shape[channel] <= 1) else tensor.contiguous()


def allocate(slots: Sequence[Slot], dtypes: Sequence[torch.dtype], first: Tensor, dtype: torch.dtype,
             sizes: tuple[int, int, int], extent: Extent, turned: bool, new: New = pool.empty) -> list[Tensor]:
    """The outputs of a call in `dtype`, contiguous in the memory order of the first sequence, whatever its strides: a permuted
    dense input would hand on strides that the fake cannot know. No views: autograd would not let users change them in place."""
    (B, T, C), in_time = sizes, time_first(first)
    outs = []
    for slot, kind in zip(slots, dtypes, strict=True):
        rows, *width = slot.shape(B, T, C)[1:]
        if slot.kind == "keep" and turned:
            outs.append(new(first, (B, width[0], rows, *width[1:]), kind).transpose_(1, 2))
        elif slot.kind == "keep" and in_time:
            outs.append(new(first, (rows, B, *width), kind).transpose_(0, 1))
        else:
            outs.append(new(first, slot.shape(B, T, C, extent), compute(dtype) if slot.kind in ("sum", "shared") else kind))
    return outs


def unwritten(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A `New` that nobody writes: while a compiler looks on, sizes may be symbols and tensors fake."""
    return like.new_empty(shape, dtype=dtype)


def fields(ins: Sequence[Slot], tensors: Sequence[Tensor | None], outs: Sequence[Slot], given: Sequence[Tensor],
           sizes: tuple[int, int, int], turned: bool) -> list[int]:
    """The 64-bit slots of a call, in the order of `ir.source.fields`: addresses, strides, sizes. The last of `ins` is reset."""
    values, row = list[int](), 2 if turned else 1
    for slot, tensor in zip(ins[:-1], tensors, strict=False):
        if tensor is None:
            values += (0, 0, 0)
        elif slot.kind == "vector":
            values.append(tensor.data_ptr())
        else:
            steps = strides(slot, tensor)
            values += (tensor.data_ptr(), steps[0], steps[row if slot.kind == "sequence" else 1])
    for slot, tensor in zip(outs, given, strict=True):
        steps = strides(slot, tensor)
        values += (tensor.data_ptr(), steps[0], steps[row]) if slot.kind == "keep" else (tensor.data_ptr(),)
    reset = tensors[-1]
    values += (0, 0, 0) if reset is None else (reset.data_ptr(), reset.stride(0), reset.stride(1))
    return [*values, *sizes]


def strides(slot: Slot, tensor: Tensor) -> tuple[int, ...]:
    """In elements, which may be pairs."""
    return tuple([n // 2 for n in tensor.stride()]) if slot.paired else tensor.stride()


def _of_pairs(tensor: Tensor) -> bool:
    """Whether the numbers of a (…, 2) lie in memory as complex ones do."""
    return tensor.stride(-1) == 1 and not any(n % 2 for n in tensor.stride()[:-1])
