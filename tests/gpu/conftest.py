"""Every test of this directory is marked `gpu`, and skipped where the `cuda` backend cannot run.

In a rehearsal, with LRDSL_BACKEND=emulated, those that name no GPU (`device`) run on the emulator instead.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lrdsl import options
from lrdsl.backends import cuda_compile, cuda_driver
from lrdsl.errors import BackendUnavailable

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch's deterministic mode wants it set before cuBLAS begins
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]


REHEARSAL = options.backend() == "emulated"


@functools.cache
def missing() -> str:
    """What the backend lacks on this machine; "" where it lacks nothing."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    try:
        cuda_driver.driver()
        cuda_compile.nvcc()
        cuda_compile.require_pycuda()
    except BackendUnavailable as error:
        return str(error).splitlines()[0]
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)
            rehearsed = REHEARSAL and "device" in getattr(item, "fixturenames", ())
            if missing() and not rehearsed:
                item.add_marker(pytest.mark.skip(reason=missing()))


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    """A fixed seed; and what a test has broken on the device is found here, not in the next one."""
    torch.manual_seed(0)
    yield
    if not REHEARSAL:
        torch.cuda.synchronize()


@pytest.fixture
def device() -> str:
    """Where tensors lie."""
    return "cpu" if REHEARSAL else "cuda"


@pytest.fixture
def fresh() -> Run:
    """Run Python text in a process of its own, whose CUDA nobody has used yet; `under`: a tool and its options."""
    def run(text: str, *under: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*under, sys.executable, "-c", text], capture_output=True, text=True, cwd=ROOT, timeout=300,
                              check=False)

    return run
