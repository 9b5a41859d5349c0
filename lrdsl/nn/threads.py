"""torch's pool of threads, made visible to generated kernels.

A kernel calls `GOMP_parallel` if the process has it. torch's wheels bring their own libgomp; loading that copy for all to see
makes kernels share torch's threads and follow torch.set_num_threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch


def share_threads() -> bool:
    """Make torch's libgomp visible; False where there is none, and kernels then run on the calling thread."""
    beside = Path(torch.__file__).parent / "lib"
    places = [*sorted(beside.glob("libgomp*.so*")), *sorted((beside.parent.parent / "torch.libs").glob("libgomp*.so*"))]
    for name in itertools.chain(map(str, places), _elsewhere()):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
            return True
    return False


def _elsewhere() -> Iterator[str]:
    """The system's; only asked for where torch has none, because that takes another process."""
    yield ctypes.util.find_library("gomp") or "libgomp.so.1"
