"""Calls that are prepared once: what was checked and worked out for some tensors holds for all of the same signature.

A call on a tiny input costs what Python does around the kernel, and one on a large input more than that: the caches, which the
last one has filled, hold nothing of Python's any more. So the checks, sizes, strides and outputs of a call are worked out when
its signature is first seen; later calls fill in addresses.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.nn import Parameter

from ..ir.source import Launch, Slot
from . import memory, pool

LARGE = 1 << 20  # bytes of a tensor that is not copied only to prepare a call
_waste = ctypes.c_char.from_buffer(mmap.mmap(-1, LARGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
WASTE = ctypes.addressof(_waste)  # where kernels write what nobody reads, up to LARGE bytes
MOST = 1000  # signatures that are remembered: a new length at every call may not fill the memory
_tracing, _transforming = torch._C._is_tracing, torch._C._are_functorch_transforms_active
_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_profiling, _casting = torch._C._autograd._profiler_enabled, torch._C._is_any_autocast_enabled
Part = tuple[type, bool, bool, torch.dtype, torch.Size, tuple[int, ...]]
Signature = tuple[Part | None, ...]
K = TypeVar("K")
V = TypeVar("V")
Out = tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]


def signature(args: Sequence[Tensor | None]) -> Signature:
    """All of some tensors that decides how an op runs on them, but for a device that is not the CPU."""
    return tuple([a if a is None else (type(a), a.is_cpu, a.is_neg(), a.dtype, a.shape, a.stride()) for a in args])


def plain(found: Signature) -> bool:
    """Whether these are tensors whose memory is what they say, on the CPU: no subclass, and no negation that is yet to come."""
    return all(part is None or (part[0] in (Tensor, Parameter) and part[1] and not part[2]) for part in found)


def unwatched() -> bool:
    """Whether an op of this thread is only its values and its gradient: nothing traces or transforms it, sees it or changes it
    (a mode, a profiler, an autocast region), so that it may be computed without asking torch's dispatcher."""
    return not (_tracing() or _transforming() or _modes() or _function_modes() or _profiling() or forward_ad._current_level >= 0
                or _casting())


def remember(known: dict[K, V], key: K, value: V) -> V:
    """Put a value among what is known of signatures."""
    if len(known) >= MOST:
        known.clear()
    known[key] = value
    return value


class Prepared:
    """A launch on the CPU, all but the addresses: called with tensors of the one signature that it was made for.

    values: the slots of `ir.source.fields`, with strides and sizes. ins: (slot, argument, its Slot where a dense copy is read)
    of each tensor that is given. outs: (slot, shape, strides, dtype) of each output. turned: see `Launch`. finish: what makes
    results of the outputs, if anything does. sizes: B, T, C; dtypes: of the results.
    """

    def __init__(self, launch: Launch, values: Sequence[int], ins: Sequence[tuple[int, int, Slot | None]],
                 outs: Sequence[Out], turned: bool, finish: Callable[[list[Tensor]], tuple[Tensor, ...]] | None,
                 sizes: tuple[int, int, int], dtypes: tuple[torch.dtype, ...]) -> None:
        self.launch, self.values, self.finish, self.sizes, self.dtypes = launch, list(values), finish, sizes, dtypes
        self.turned, self.ins = turned, tuple((slot, k) for slot, k, _ in ins)
        self.copied = tuple((at, k, slot) for at, k, slot in ins if slot)
        self.places, self.outs = tuple(out[0] for out in outs), tuple((*out[1:], pool.room(out[1], out[3])) for out in outs)

    def __call__(self, args: Sequence[Any]) -> tuple[Tensor, ...] | None:
        """The outputs; None of tensors without memory, which those of torch.autograd's own old vmap look as if they had."""
        values = self.values[:]
        try:
            for slot, k in self.ins:  # those that are copied, too: theirs may be the one without memory
                values[slot] = args[k].data_ptr()
        except RuntimeError:
            return None
        if self.copied:
            copies = [memory.dense(slot, args[k], self.turned) for _, k, slot in self.copied]  # alive until the kernel has run
            for (slot, *_), copy in zip(self.copied, copies, strict=True):
                values[slot] = copy.data_ptr()
        first, own = args[0], args[0].dtype  # which costs nothing to ask for again
        new = first.new_empty_strided
        outs = [pool.strided(first, shape, strides, dtype, room) if room else
                new(shape, strides) if dtype is own else new(shape, strides, dtype=dtype)
                for shape, strides, dtype, room in self.outs]
        for slot, out in zip(self.places, outs, strict=True):
            values[slot] = out.data_ptr()
        self.launch(values, torch.get_num_threads(), turned=self.turned)
        return self.finish(outs) if self.finish else tuple(outs)
