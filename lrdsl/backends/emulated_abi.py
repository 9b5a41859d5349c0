"""What Python and the emulator's runtime tell each other: a mirror of templates/emulated/launch.h, field by field.

Non-goals: what any of it means to a user; that is in `emulated`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from ..ir import dtypes
from ..ir.source import OUTPUTS, Extent, Slot, Source, slots

INPUT, OUTPUT, SCRATCH = range(3)
ORDERS = ("in order", "reversed", "random", "starved")
SCRATCH_NAME = ".scratch"  # no name of a user's


class Tensor(ctypes.Structure):
    """Elements [i, j, k], k of them contiguous; strides count elements. loaded, stored: bytes, a result."""

    _fields_ = (("name", ctypes.c_char_p), ("address", ctypes.c_uint64), ("role", ctypes.c_int64), ("item", ctypes.c_int64),
                ("rank", ctypes.c_int64), ("count", ctypes.c_int64 * 2), ("stride", ctypes.c_int64 * 2),
                ("width", ctypes.c_int64), ("loaded", ctypes.c_uint64), ("stored", ctypes.c_uint64),
                ("message_loaded", ctypes.c_uint64), ("message_stored", ctypes.c_uint64))


class Place(ctypes.Structure):
    """A return address in the text's machine code, and who was there."""

    _fields_ = (("pc", ctypes.c_uint64), ("label", ctypes.c_char * 128))


class Report(ctypes.Structure):
    """What went wrong."""

    _fields_ = (("failed", ctypes.c_int64), ("block", ctypes.c_int64), ("thread", ctypes.c_int64),
                ("places", ctypes.c_int64), ("what", ctypes.c_char * 768), ("place", Place * 12))


class Counters(ctypes.Structure):
    """How often something happened."""

    _fields_ = tuple((name, ctypes.c_uint64)
                     for name in ("atomics", "barriers", "collectives", "polls", "switches", "sites"))


class Site(ctypes.Structure):
    """Sectors of one instruction."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("pc", "requests", "sectors", "bytes"))


class Module(ctypes.Structure):
    """`EmuModule` of calls.h."""

    _fields_ = (("call", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("shared", ctypes.c_void_p),
                ("shared_end", ctypes.c_void_p))


class Call(ctypes.Structure):
    """`EmuLaunch`: one launch, its counters and its report."""

    _fields_ = (("module", ctypes.c_void_p), ("args", ctypes.c_void_p), ("tensors", ctypes.c_void_p),
                ("tensor_count", ctypes.c_int64), ("seed", ctypes.c_uint64), ("seconds", ctypes.c_double),
                ("grid", ctypes.c_uint32), ("block", ctypes.c_uint32), ("threads", ctypes.c_int32),
                ("blocks", ctypes.c_int32), ("resident", ctypes.c_int32), ("preempt", ctypes.c_int32),
                ("weak", ctypes.c_int32), ("sectors", ctypes.c_int32), ("counts", Counters), ("report", Report))


def tensors(source: Source, values: Sequence[int], scratch: int) -> list[tuple[str, str, Tensor]]:
    """(name, kind, where it lies) of each tensor that a call has, in the order of its slots, then the scratch memory."""
    B, T, C = values[-3:]
    extent = source.extent(B, T, C)
    rest = iter(values)
    found: list[tuple[str, str, Tensor]] = []
    for s in slots(source.program):
        address, *strides = (next(rest) for _ in s.fields)
        if address:
            shape = _shape(s, (B, T, C), extent)
            strides = [2 * n for n in strides] if s.paired else strides  # in numbers, each of which is written once
            role = OUTPUT if s.kind in OUTPUTS else INPUT
            found.append((s.name, s.kind, tensor(s.name.lstrip("."), address, role, dtypes.size(s.dtype(source.dtype)),
                                                  shape, strides)))
    if extent.scratch:
        found.append((SCRATCH_NAME, "scratch", tensor("scratch memory", scratch, SCRATCH, 1, (extent.scratch,), ())))
    return found


def _shape(slot: Slot, sizes: tuple[int, int, int], extent: Extent) -> tuple[int, ...]:
    """At most three axes: those before the last two are one."""
    found = slot.shape(*sizes, extent)
    if slot.paired:
        return (*found[:2], 2 * sizes[2])
    return (found[0] // sizes[0], sizes[0], found[-1]) if slot.kind == "sum" else found


def tensor(name: str, address: int, role: int, item: int, shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    """strides: of the first two axes, in elements; contiguous where there are none."""
    rank = len(shape)
    width = shape[-1] if rank != 2 else 1
    outer = list(shape[:2]) if rank > 1 else [1, 1]
    apart = list(strides) or [outer[1] * width, width]
    return Tensor(name.encode(), address, role, item, rank, (ctypes.c_int64 * 2)(*outer), (ctypes.c_int64 * 2)(*apart), width)
