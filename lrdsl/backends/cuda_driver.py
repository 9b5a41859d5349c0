"""NVIDIA's driver through cuda.bindings: contexts, modules, launches. Nothing else talks to it.

A kernel runs in its device's primary context, which is torch's, on a stream of torch's. PyCUDA cannot do that: it shows no
function handle and takes no foreign stream. torch runs backward passes on threads of its own, where no context may be
current yet; so every launch looks first. A launch allocates nothing and waits for nothing, so that CUDA graphs can record it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BackendUnavailable, LrdslError

LARGEST_GRID = 2**31 - 1
_EARLIER = ("it may come from an earlier kernel, of any library: run again with CUDA_LAUNCH_BLOCKING=1, or under "
            "compute-sanitizer")
_NEWER = "nvcc may be newer than the driver: `nvidia-smi` tells the CUDA that the driver is for, CUDA_HOME chooses another nvcc"
_CAPTURE = "a kernel is compiled and loaded at its first call, which cannot be captured: make one call before"
HINTS = {
    "CUDA_ERROR_ILLEGAL_ADDRESS": _EARLIER,
    "CUDA_ERROR_INVALID_IMAGE": _NEWER,
    "CUDA_ERROR_LAUNCH_FAILED": _EARLIER,
    "CUDA_ERROR_MISALIGNED_ADDRESS": _EARLIER,
    "CUDA_ERROR_NO_BINARY_FOR_GPU": _NEWER,
    "CUDA_ERROR_OUT_OF_MEMORY": "code takes memory on the device, too: torch.cuda.empty_cache() gives back what torch keeps",
    "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT": _CAPTURE,
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": _CAPTURE,
}
_log = logging.getLogger("lrdsl.launch")


class CudaError(LrdslError):
    """The driver refused something. name: CUDA's name of the error."""

    def __init__(self, what: str, name: str) -> None:
        self.name = name
        hint = HINTS.get(name, "")
        super().__init__(f"CUDA refused to {what}: {name}" + (f"\n  way out: {hint}" if hint else ""))


@dataclass(frozen=True)
class Function:
    """The function `entry` of a module that is loaded on a device; `handle` is the driver's."""

    entry: str
    device: int
    handle: Any


class Driver:
    """The driver as one process uses it. Each device's primary context is retained once and kept.

    api: `cuda.bindings.driver`, or what behaves like it: functions give (CUresult, value). Threads may share it; a forked
    child cannot use its parent's. Raises BackendUnavailable where the driver cannot be used at all, CudaError later.
    """

    def __init__(self, api: Any) -> None:
        self._api = api
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._contexts: dict[int, int] = {}
        try:
            self._ask("start", "cuInit", 0)
        except CudaError as error:
            raise BackendUnavailable(f"no GPU that CUDA can use: {error.name}\n  way out: use a machine with an NVIDIA GPU and "
                                     "its driver, and see what CUDA_VISIBLE_DEVICES hides") from error
        except RuntimeError as error:  # cuda.bindings cannot open the library
            raise BackendUnavailable(f"no NVIDIA driver: {error}\n  way out: install it; in a container, start it with access "
                                     "to the GPU (docker run --gpus all)") from error

    def arch(self, device: int) -> str:
        """What nvcc compiles for: "sm_90" for compute capability 9.0."""
        kinds, handle = self._api.CUdevice_attribute, self._device(device)
        major, minor = (self._ask(f"describe device {device}", "cuDeviceGetAttribute", kind, handle) for kind in (
            kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR))
        return f"sm_{major}{minor}"

    def load(self, device: int, image: bytes, entry: str) -> Function:
        """The function `entry` of a cubin on a device. Its module is never unloaded: it ends with the process."""
        with self._bound(device):
            module = self._ask(f"load {entry} on device {device}", "cuModuleLoadData", image)
            handle = self._ask(f"find {entry} in its module", "cuModuleGetFunction", module, entry.encode())
        _log.info("loaded %s on device %d", entry, device)
        return Function(entry, device, handle)

    def launch(self, function: Function, grid: int, block: int, stream: int, words: Sequence[int]) -> None:
        """Start a function in `grid` blocks of `block` threads on a stream's handle; its one parameter is a struct of words."""
        if int(self._api.cuCtxGetCurrent()[1] or 0) == self._contexts[function.device]:
            self._launch(function, grid, block, stream, words)
        else:
            with self._bound(function.device):
                self._launch(function, grid, block, stream, words)

    def _launch(self, function: Function, grid: int, block: int, stream: int, words: Sequence[int]) -> None:
        struct = array("q", words)
        parameters = array("Q", (struct.buffer_info()[0],))  # the driver copies what they point to before it returns
        result, = self._api.cuLaunchKernel(function.handle, grid, 1, 1, block, 1, 1, 0, stream, parameters, 0)
        if result:
            raise CudaError(f"run {function.entry} on device {function.device} ({grid} blocks of {block} threads)", result.name)

    def check_process(self) -> None:
        """Raise BackendUnavailable in a forked child: CUDA does not work there."""
        if os.getpid() != self._process:
            raise BackendUnavailable(
                "this process was forked from one that uses CUDA, and cannot use it itself\n  way out: start it another way: "
                'multiprocessing.get_context("spawn"), DataLoader(..., multiprocessing_context="spawn")')

    @contextlib.contextmanager
    def _bound(self, device: int) -> Iterator[None]:
        """The device's primary context current on this thread. A thread that had none keeps it, which is what torch wants of
        its backward threads; one that had another gets that back, for torch reads from it which device is current."""
        context = self._context(device)
        before = int(self._ask("tell the current context", "cuCtxGetCurrent"))
        if before == context:
            yield
        elif not before:
            self._ask(f"bind device {device}", "cuCtxSetCurrent", context)
            yield
        else:
            self._ask(f"bind device {device}", "cuCtxPushCurrent", context)
            try:
                yield
            finally:
                self._ask("unbind it again", "cuCtxPopCurrent")

    def _context(self, device: int) -> int:
        with self._lock:
            if device not in self._contexts:
                handle = self._device(device)
                self._contexts[device] = int(self._ask(f"use device {device}", "cuDevicePrimaryCtxRetain", handle))
            return self._contexts[device]

    def _device(self, device: int) -> Any:
        return self._ask(f"find device {device}", "cuDeviceGet", device)

    def _ask(self, what: str, name: str, *arguments: Any) -> Any:
        """One call of the driver's. Raises CudaError."""
        result, *values = getattr(self._api, name)(*arguments)
        if result:
            raise CudaError(what, result.name)
        return values[0] if values else None


_driver: Driver | None = None
_lock = threading.Lock()


def driver() -> Driver:
    """The driver, started when first asked for. Raises BackendUnavailable, in a forked child too."""
    global _driver
    if _driver is None:
        with _lock:
            _driver = _driver or Driver(bindings())
    _driver.check_process()
    return _driver


def bindings() -> Any:
    """The module `cuda.bindings.driver`. Raises BackendUnavailable."""
    try:
        from cuda.bindings import driver as api
    except ImportError as error:
        raise BackendUnavailable(f"no cuda.bindings, which load and launch kernels on the GPU: {error}\n"
                                 "  way out: pip install cuda-bindings; builds of torch for CUDA bring it") from error
    return api
