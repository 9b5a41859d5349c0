"""The GPU backend: PyCUDA has nvcc compile the generated text, NVIDIA's driver runs it where torch works.

A kernel is compiled for a device when it first runs there, and loaded once. It is launched on the stream that it is given,
in the device's primary context, and nothing here waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ..errors import ShapeMismatch
from ..ir.source import Launch, Source
from . import cuda_compile
from .cuda_driver import LARGEST_GRID, Driver, Function, driver


def load(source: Source) -> Launch:
    """The Source as something to launch on the slots of `ir.source.fields`, a device's number and a stream's handle.

    Raises BackendUnavailable where the driver, a GPU, cuda.bindings, PyCUDA or nvcc is missing. The call raises
    ToolchainError where nvcc refuses the text, CudaError where CUDA refuses the kernel.
    """
    nvidia = driver()
    cuda_compile.nvcc()
    cuda_compile.require_pycuda()
    return Launch(Kernel(source, nvidia).run, source.extent)


class Kernel:
    """One Source on every device that it is called on."""

    def __init__(self, source: Source, driver: Driver) -> None:
        self._source, self._driver = source, driver
        self._functions: dict[int, Function] = {}
        self._lock = threading.Lock()

    def run(self, values: Sequence[int], threads: int, device: int, stream: int, scratch: int) -> None:
        """Launch on a device's stream; `threads` are the CPU's. Addresses are the device's.

        scratch: where `Extent.scratch` bytes are zero, for kernels that walk in chunks. Raises BackendUnavailable in a forked
        child, ShapeMismatch where the call needs too many blocks, CudaError with the entry's and CUDA's name.
        """
        self._driver.check_process()
        source = self._source
        B, T, C = values[-3:]
        grid = source.extent(B, T, C).grid
        if grid > LARGEST_GRID:
            raise ShapeMismatch(f"{source.entry} on (B, T, C) = ({B}, {T}, {C}) takes {grid} blocks; CUDA starts no more than "
                                f"{LARGEST_GRID} at once", None, "split the batch")
        if grid:
            function = self._functions.get(device) or self._load(device)
            self._driver.launch(function, grid, source.block, stream, [*values, scratch] if source.chunk else values)

    def _load(self, device: int) -> Function:
        with self._lock:
            if device not in self._functions:
                source = self._source
                image = cuda_compile.cubin(source.text, source.entry, self._driver.arch(device))
                self._functions[device] = self._driver.load(device, image, source.entry)
            return self._functions[device]
