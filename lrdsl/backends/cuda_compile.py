"""From CUDA text to a cubin: PyCUDA runs nvcc, and what comes out is kept in our own cache.

PyCUDA's cache is not used: its entries do not appear whole, and its directory is not checked. No GPU and no driver is needed
here; `pycuda.driver` needs both, and is imported by PyCUDA only when nvcc refuses.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import time

from ..errors import BackendUnavailable, ToolchainError
from ..files import kept
from . import cache

# What nvcc says beside an error would become a Python warning at the user's line.
OPTIONS = ("-w", "-Wno-deprecated-gpu-targets")
VARIABLES = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")  # nvcc obeys them
_log = logging.getLogger("lrdsl.compile")


def find_nvcc() -> tuple[str, str] | None:
    """The path of nvcc, and where it was found; None where it is not."""
    if path := shutil.which("nvcc"):
        return os.path.abspath(path), "PATH"
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if (root := os.environ.get(variable)) and (path := shutil.which("nvcc", path=os.path.join(root, "bin"))):
            return os.path.abspath(path), f"${variable}"
    return None


def nvcc() -> str:
    """The path of nvcc. Raises BackendUnavailable."""
    if found := find_nvcc():
        return found[0]
    raise BackendUnavailable(
        "no nvcc, which compiles kernels for the GPU: looked on PATH and under $CUDA_HOME and $CUDA_PATH\n"
        "  way out: install NVIDIA's CUDA toolkit, and set CUDA_HOME to it when its bin is not on PATH")


def require_pycuda() -> None:
    """Raise BackendUnavailable unless PyCUDA can compile."""
    try:
        import pycuda.compiler  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(f"no PyCUDA, which compiles kernels for the GPU: {error}\n"
                                 "  way out: pip install pycuda; it is built with the CUDA toolkit and g++") from error


def cubin(text: str, entry: str, arch: str) -> bytes:
    """The machine code of a CUDA text for an `arch` as "sm_90", from the cache or compiled now.

    Raises ToolchainError where nvcc refuses the text, BackendUnavailable where nvcc or PyCUDA is missing or cannot be run.
    """
    compiler, options = nvcc(), [*OPTIONS, f"-arch={arch}"]
    flags = [os.environ.get(name, "") for name in VARIABLES]
    name = cache.key(["cuda", cache.code(text), *options, *flags, cache.identity(compiler)]) + ".cubin"
    try:
        place = cache.directory()
        data = cache.read(place, name)
        if data is None:
            data = _compile(text, entry, compiler, options)
            with contextlib.suppress(OSError):  # a full disk: then it is compiled again next time
                cache.put(place, name, data)
    except OSError as error:
        raise BackendUnavailable(f"a kernel cannot be compiled here: {error}\n"
                                 "  way out: name a directory that is your own, and not full, in TMPDIR") from error
    return data


def _compile(text: str, entry: str, compiler: str, options: list[str]) -> bytes:
    require_pycuda()
    from pycuda.compiler import compile_plain

    start = time.perf_counter()
    plain = text.encode("ascii", "xmlcharrefreplace").decode()  # PyCUDA writes it in the encoding of the locale
    try:
        data: bytes = compile_plain(plain, options, False, compiler, False, "cubin")
    except OSError:
        raise
    except Exception as error:  # pycuda.driver.CompileError; an ImportError where libcuda is missing, and nvcc's words with it
        path = kept(plain, entry, ".cu")
        command = [compiler, "--cubin", *options, path, "-o", os.devnull]
        again = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", errors="replace")
        raise ToolchainError(command, again.stderr or str(error), path) from error
    _log.info("compiled %s for %s in %.2f s", entry, options[-1], time.perf_counter() - start)
    return data
