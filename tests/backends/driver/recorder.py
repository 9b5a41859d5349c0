"""`fake.c` once more in Python, with the functions of `cuda.bindings.driver`: for machines that lack cuda.bindings.

The same calls give the same record from both; the rules and the form of a module are described there.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import threading
from array import array
from dataclasses import dataclass
from typing import Any


class Result(enum.IntEnum):
    """What a call gives first."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_DEVICE = 101
    CUDA_ERROR_INVALID_IMAGE = 200
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_NOT_FOUND = 500


class CUdevice_attribute(enum.IntEnum):  # noqa: N801
    """What can be asked of a device."""

    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


@dataclass
class Module:
    """A module with one function, and the context that it is loaded in."""

    context: int
    entry: str
    size: int


CAPABILITIES = ((9, 0), (8, 0))
CONTEXTS = (0x1000, 0x2000)
OK = Result.CUDA_SUCCESS


class Recorder:
    """A driver. said: what it was asked, line by line; init: what cuInit gives."""

    CUdevice_attribute = CUdevice_attribute

    def __init__(self) -> None:
        self.said: list[str] = []
        self.init = OK
        self._here = threading.local()
        self._modules: dict[int, Module] = {}
        self._handles = itertools.count(1)

    @property
    def _stack(self) -> list[int]:
        if not hasattr(self._here, "stack"):
            self._here.stack = []
        return self._here.stack

    def cuInit(self, flags: int) -> tuple[Any, ...]:
        if not self.init:
            self.said.append("init")
        return (self.init,)

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:
        return (OK, ordinal) if 0 <= ordinal < len(CONTEXTS) else (Result.CUDA_ERROR_INVALID_DEVICE, None)

    def cuDeviceGetAttribute(self, attribute: CUdevice_attribute, device: int) -> tuple[Any, ...]:
        return OK, CAPABILITIES[device][attribute - CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR]

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:
        self.said.append(f"retain {device}")
        return OK, CONTEXTS[device]

    def cuCtxGetCurrent(self) -> tuple[Any, ...]:
        return OK, self._stack[-1] if self._stack else 0

    def cuCtxSetCurrent(self, context: int) -> tuple[Any, ...]:
        self._stack[-1:] = [context]
        self.said.append(f"set {CONTEXTS.index(context)}")
        return (OK,)

    def cuCtxPushCurrent(self, context: int) -> tuple[Any, ...]:
        self._stack.append(context)
        self.said.append(f"push {CONTEXTS.index(context)}")
        return (OK,)

    def cuCtxPopCurrent(self) -> tuple[Any, ...]:
        context = self._stack.pop()
        self.said.append(f"pop {CONTEXTS.index(context)}")
        return OK, context

    def cuModuleLoadData(self, image: bytes) -> tuple[Any, ...]:
        if not self._stack:
            return Result.CUDA_ERROR_INVALID_CONTEXT, None
        device = CONTEXTS.index(self._stack[-1])
        match image.decode("latin-1").rstrip("\0").split():
            case ["FAKE", arch, entry, size]:
                major, minor = CAPABILITIES[device]
                if int(arch[3]) != major or int(arch[4]) > minor:
                    return Result.CUDA_ERROR_NO_BINARY_FOR_GPU, None
                handle = next(self._handles)
                self._modules[handle] = Module(self._stack[-1], entry, int(size))
                self.said.append(f"load {entry} on {device}")
                return OK, handle
        return Result.CUDA_ERROR_INVALID_IMAGE, None

    def cuModuleGetFunction(self, module: int, entry: bytes) -> tuple[Any, ...]:
        return (OK, module) if self._modules[module].entry == entry.decode() else (Result.CUDA_ERROR_NOT_FOUND, None)

    def cuLaunchKernel(self, function: int, grid_x: int, grid_y: int, grid_z: int, block_x: int, block_y: int, block_z: int,
                       shared: int, stream: int, parameters: array[int], extra: int) -> tuple[Any, ...]:
        module = self._modules[function]
        if not self._stack:
            return (Result.CUDA_ERROR_INVALID_CONTEXT,)
        if module.context != self._stack[-1]:
            return (Result.CUDA_ERROR_INVALID_HANDLE,)
        flat = (grid_y, grid_z, block_y, block_z, shared, extra) == (1, 1, 1, 1, 0, 0)
        if not (0 < grid_x < 2**31 and block_x <= 1024 and flat):
            return (Result.CUDA_ERROR_INVALID_VALUE,)
        data = ctypes.string_at(parameters[0], module.size)
        self.said.append(f"launch {module.entry} on {CONTEXTS.index(module.context)}: {grid_x}x{block_x}, stream {stream}, "
                         f"{data.hex()}")
        return (OK,)
