"""torch's pool of threads, made visible to generated kernels.

A kernel calls `GOMP_parallel` if the process has it. torch's wheels bring their own libgomp; loading that copy for all to see
makes kernels share torch's threads and follow torch.set_num_threads.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from pathlib import Path

import torch


def share_threads() -> bool:
    """Make torch's libgomp visible; False where there is none, and kernels then run on the calling thread."""
    beside = Path(torch.__file__).parent / "lib"
    places = [*sorted(beside.glob("libgomp*.so*")), *sorted((beside.parent.parent / "torch.libs").glob("libgomp*.so*"))]
    # Python looks for the system's by running other programs, so only where torch has none.
    return any(map(_visible, map(str, places))) or _visible(ctypes.util.find_library("gomp") or "libgomp.so.1")


def _visible(name: str) -> bool:
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
