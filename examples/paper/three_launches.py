"""The paper's kernel, for comparison: three launches on a GPU (three_launches.cu), three phases on a CPU (three_phases.cpp).

Not a strategy of lrdsl: it reads what it scans twice. Written from Algorithm 1 of Martin & Cundy (ICLR 2018) and from what
their code says of its sizes: a warp is a processor, 32 warps a block, at most 30 blocks, which is twice the 15 multiprocessors
that it counts on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import lrdsl as lr
from lrdsl.backends import cuda_compile, cuda_driver, emulated_abi, native
from lrdsl.backends.emulated import Emulator
from lrdsl.backends.emulated_counts import Counts
from lrdsl.ir.program import Program
from lrdsl.ir.source import Source
from lrdsl.nn.threads import share_threads

HERE = Path(__file__).parent
ENTRIES = ("paper_sums", "paper_blocks", "paper_states")
WARPS, LANES, BLOCKS = 32, 32, 30
# What each launch reads and writes, of the arrays of three_launches.cu.
ARRAYS = ("a", "b", "product", "sum", "block_product", "block_sum", "start", "before", "h")
WRITES = {"paper_sums": ("product", "sum", "block_product", "block_sum"), "paper_blocks": ("start",),
          "paper_states": ("before", "h")}


def blocks(T: int) -> int:
    """Blocks of the first and the last launch."""
    return min(-(-T // WARPS), BLOCKS)


def slices(T: int) -> list[int]:
    """Steps of each warp, as three_launches.cu deals them out."""
    each = -(-T // blocks(T))
    of_blocks = [min(each, max(0, T - k * each)) for k in range(blocks(T))]
    return [min(-(-n // WARPS), max(0, n - w * -(-n // WARPS))) if n else 0 for n in of_blocks for w in range(WARPS)]


class ThreeLaunches:
    """h[t] = a[t] h[t-1] + b[t] for a and b of shape (T, C), float32, h before the first step 0."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.T, self.C = a.shape
        n = blocks(self.T)
        shapes = {"product": (n, WARPS), "sum": (n, WARPS), "block_product": (n,), "block_sum": (n,), "start": (n,),
                  "before": (n, WARPS), "h": (self.T,)}
        self.arrays = {"a": a.contiguous(), "b": b.contiguous()} | {
            name: torch.full((*shape, self.C), float("nan"), device=a.device) for name, shape in shapes.items()}
        self.words = [*(self.arrays[name].data_ptr() for name in ARRAYS), self.T, self.C, n]

    @property
    def h(self) -> Tensor:
        """The result, (T, C)."""
        return self.arrays["h"]

    def emulate(self) -> list[Counts]:
        """Run on the emulator, where every access is checked; what each launch moved, by sectors too."""
        return [Emulator(_source(e)).launch(self.words, self._memory(e), self._grid(e), sectors=True) for e in ENTRIES]

    def on_gpu(self) -> Callable[[], None]:
        """Compile with nvcc; the call launches on torch's stream. Raises BackendUnavailable where there is no GPU."""
        driver, device = cuda_driver.driver(), self.h.get_device()
        made = [(driver.load(device, cuda_compile.cubin(_source(e).text, e, driver.arch(device)), e), self._grid(e))
                for e in ENTRIES]

        def run() -> None:
            stream = torch.cuda.current_stream().cuda_stream
            for function, grid in made:
                driver.launch(function, grid, WARPS * LANES, stream, self.words)
        return run

    def _grid(self, entry: str) -> int:
        return 1 if entry == "paper_blocks" else blocks(self.T)

    def _memory(self, entry: str) -> list[tuple[str, str, emulated_abi.Tensor]]:
        found = []
        for name in ARRAYS:
            shape = self.arrays[name].shape
            full, role = (1, *shape) if len(shape) == 2 else shape, emulated_abi.INPUT
            if name in WRITES[entry]:
                role = emulated_abi.OUTPUT
            found.append((name, "sequence" if name in "abh" else "scratch",
                          emulated_abi.tensor(name, self.arrays[name].data_ptr(), role, 4, full, ())))
        return found


def _source(entry: str) -> Source:
    text = (HERE / "three_launches.cu").read_text(encoding="utf-8")
    return Source("cuda", entry, text, _program(), "float32", block=WARPS * LANES)


def _program() -> Program:
    return lr.compile(lr.cells.linear_scan).stages["forward"][0]


def three_phases(a: Tensor, b: Tensor, h: Tensor, each_thread: int, threads: int) -> Callable[[], None]:
    """The same on a CPU, into h, with `each_thread` (1, 4 or 8) slices of time a thread; with 0, the last phase alone, on one
    thread. All are (T, C), contiguous."""
    T, C = a.shape
    product, total = torch.empty(2, max(each_thread, 1) * threads, C)
    text = (HERE / "three_phases.cpp").read_text(encoding="utf-8")
    share_threads()
    kernel = ctypes.CDLL(str(native.build(Source("cpu", "three_phases", text, _program(), "float32")))).three_phases
    kernel.argtypes, kernel.restype = (*[ctypes.c_void_p] * 5, *[ctypes.c_long] * 4), None
    arrays = (a, b, h, product, total)

    def run() -> None:
        kernel(*(x.data_ptr() for x in arrays), T, C, each_thread, threads)
    return run
