"""`lrdsl doctor`: what this machine has, what is missing, what that costs and how to get it.

Every check is made when `report` is called, never at import, and none of them raises: a check that breaks is itself a
finding. Libraries are looked up by name, for the doctor must work where they do not.
"""

import contextlib
import ctypes
import importlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import options
from .backends import blocks, cache, cuda_compile

BACKENDS = ("reference", "native", "cuda", "emulated")
COMPILERS = ("g++", "clang++", "c++")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for. `cost` is what one loses without it, `remedy` how to get it.

    `word` names its state when it is not ok: what is here but unusable is "wrong".
    """

    name: str
    ok: bool
    detail: str
    cost: str = ""
    remedy: str = ""
    word: str = "missing"


def report() -> list[Finding]:
    """Look at everything and return what was found, in the order to read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and pycuda warn about missing hardware; that is our report's part
        found = [_guard(name, check) for name, check in _CHECKS]
        found += [_guard(f"{name} backend", partial(_backend, name, found)) for name in BACKENDS]
        given = [var for var in options.ENVIRONMENT if os.environ.get(var.name, "").strip()]
        found += [_guard(var.name, partial(_variable, var)) for var in given]
    return found


def render(findings: list[Finding]) -> str:
    """The findings as aligned text; cost and remedy are told only of what is missing."""
    if not findings:
        return ""
    width = max(len(f.name) for f in findings)
    margin = " " * (width + 11)
    lines = []
    for f in findings:
        lines.append(f"{f.name:<{width}}  {'ok' if f.ok else f.word:<7}  {f.detail}".rstrip())
        if not f.ok:
            lines += [f"{margin}{label}{text}" for label, text in (("without it: ", f.cost), ("way out:    ", f.remedy))
                      if text]
    return "\n".join(lines)


# ---- libraries ----------------------------------------------------------------------------------------------------


def _python() -> Finding:
    detail = f"{platform.python_version()}, {sys.executable or 'embedded'}"
    ok = sys.version_info >= (3, 11)
    return Finding("Python", ok, detail, "lrdsl, which needs 3.11 or later", "install a newer Python", "wrong")


def _torch() -> Finding:
    remedy = "pip install torch"
    try:
        torch = _load("torch")
    except Exception as error:
        return Finding("torch", False, _said(error), "lr.RNN, lr.function: everything that runs on tensors", remedy)
    cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
    build = f"CUDA {cuda} build" if cuda else f"ROCm {hip} build" if hip else "CPU build"
    threads = torch.get_num_threads()
    return Finding("torch", True, f"{torch.__version__}, {build}, {threads} thread{'s' * (threads != 1)}")


def _package(name: str, cost: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", cost, f"pip install {name}")


def _pycuda() -> Finding:
    try:
        version = _load("pycuda").VERSION_TEXT
        _load("pycuda.compiler")
    except Exception as error:
        return Finding("PyCUDA", False, _said(error), "compiling kernels for a GPU, and running on one",
                       "pip install pycuda (it is built with the CUDA toolkit and g++)")
    try:
        _load("pycuda.driver")
    except Exception as error:  # we do without it; it needs libcuda.so.1
        return Finding("PyCUDA", True, f"{version}; it compiles, but pycuda.driver cannot be imported: {_said(error)}")
    return Finding("PyCUDA", True, version)


def _cuda_bindings() -> Finding:
    try:
        version = str(_load("cuda.bindings").__version__)
        _load("cuda.bindings.driver")
    except Exception as error:
        return Finding("cuda.bindings", False, _said(error), "running on a GPU: it loads and launches the kernels",
                       "pip install cuda-bindings, of the CUDA version that torch is built for")
    return Finding("cuda.bindings", True, version)


# ---- compilers and hardware ---------------------------------------------------------------------------------------


def _compiler() -> Finding:
    name, cost = "C++ compiler", "the native backend: on a CPU only the slow reference remains"
    remedy = "install g++ (Debian, Ubuntu: apt-get install g++), or name a compiler in $CXX"
    if wanted := shlex.split(os.environ.get("CXX", "")):
        path = shutil.which(wanted[0])
        if path is None:
            remedy = "correct $CXX, or unset it so that g++, clang++ or c++ is taken"
            return Finding(name, False, f"$CXX names {wanted[0]}, which is not here", cost, remedy)
        return Finding(name, True, f"{_version(path)}, {path} (from $CXX)")
    for candidate in COMPILERS:
        if path := shutil.which(candidate):
            return Finding(name, True, f"{_version(path)}, {path}")
    return Finding(name, False, f"none of {', '.join(COMPILERS)} is in PATH", cost, remedy)


def _nvcc() -> Finding:
    if found := cuda_compile.find_nvcc():
        path, place = found
        return Finding("nvcc", True, f"{_version(path, 'release')}, {path} (from {place})")
    cost = "compiling generated CUDA text; it can still be generated and read"
    return Finding("nvcc", False, "neither in PATH nor under $CUDA_HOME or $CUDA_PATH", cost,
                   "install the CUDA toolkit, and set CUDA_HOME when it is not in PATH")


def _driver() -> Finding:
    name = "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        return Finding("NVIDIA driver", False, _said(error), "running on a GPU",
                       "install the NVIDIA driver; in a container, start it with access to the GPU")
    number = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return Finding("NVIDIA driver", True, f"{name} is here, but does not tell its version")
    return Finding("NVIDIA driver", True, f"{name}, for CUDA up to {number.value // 1000}.{number.value % 1000 // 10}")


def _gpu() -> Finding:
    cost = "running on a GPU; CUDA text can still be generated and compiled for one"
    try:
        torch = _load("torch")
    except Exception:
        return Finding("GPU", False, "unknown, for torch is missing", cost, "install torch first")
    if torch.cuda.is_available():
        names = []
        for i in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(i)
            names.append(f"{torch.cuda.get_device_name(i)} (sm_{major}{minor})")
        return Finding("GPU", True, ", ".join(names))
    if not torch.version.cuda:
        return Finding("GPU", False, "torch cannot see one: it is built without CUDA", cost,
                       "where there is a GPU, install a CUDA build of torch")
    return Finding("GPU", False, "torch sees none", cost, "use a machine with an NVIDIA GPU and its driver")


# ---- the cache, the backends and the settings ---------------------------------------------------------------------


def _cache() -> Finding:
    name, path = "kernel cache", options.cache_dir()
    cost = "compiled kernels are not kept: each process compiles them again"
    remedy = "name a directory of your own in $LRDSL_CACHE_DIR"
    if not os.path.lexists(path):
        parent = next(p for p in path.absolute().parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            return Finding(name, False, f"{path} cannot be made: {parent} is not writable", cost, remedy, "wrong")
        if not (trouble := cache.exposed(path)):
            return Finding(name, True, f"{path}, not made yet")
    else:
        trouble = cache.trouble(path)
    if trouble:
        return Finding(name, False, f"{path} {trouble}", cost, f"chmod 700 {path}" if "(mode" in trouble else remedy, "wrong")
    return Finding(name, True, f"{path}, {_size(path)}")


def _pool() -> Finding:
    name, huge = "output pool", Path("/sys/kernel/mm/transparent_hugepage/enabled")
    usage = blocks.POOL.usage()
    if not usage.limit:
        return Finding(name, False, "LRDSL_POOL is 0", "fresh pages for large outputs, which cost more than the kernel",
                       "unset LRDSL_POOL", "off")
    if huge.exists() and "[never]" in huge.read_text():
        return Finding(name, True, f"{usage}; without huge pages, which {huge} switches off")
    return Finding(name, True, str(usage))


def _backend(name: str, found: list[Finding]) -> Finding:
    """Which backend runs follows from the other findings."""
    needs = {"reference": ("numpy",), "native": ("C++ compiler",), "emulated": ("C++ compiler",),
             "cuda": ("nvcc", "NVIDIA driver", "PyCUDA", "cuda.bindings", "GPU")}[name]
    lacks = [f.name for f in found if f.name in needs and not f.ok]
    if not lacks:
        return Finding(f"{name} backend", True, "runs here")
    cost = {"reference": "checking results", "native": "speed on a CPU", "cuda": "speed on a GPU",
            "emulated": "checking kernels for a GPU without one"}[name]
    return Finding(f"{name} backend", False, f"lacks: {', '.join(lacks)}", cost, "see above")


def _variable(var: options.EnvVar) -> Finding:
    value = os.environ[var.name].strip()
    known = {"LRDSL_BACKEND": BACKENDS, "LRDSL_LOGS": options.LOGS, "LRDSL_PRODUCTS": options.PRODUCTS}.get(var.name)
    given = {"LRDSL_BACKEND": {options.backend()}, "LRDSL_LOGS": options.logs(),
             "LRDSL_PRODUCTS": {options.products()}}.get(var.name, frozenset())
    if known and (strange := sorted(str(name) for name in given if name not in known)):
        detail = f"{value}: unknown is {', '.join(strange)}"
        return Finding(var.name, False, detail, "what it asks for", f"choose from {', '.join(known)}", "wrong")
    if var.name == "LRDSL_POOL":
        try:
            options.pool()
        except ValueError as error:
            return Finding(var.name, False, _said(error), "every call with a large output", "give such a number, or unset it",
                           "wrong")
    return Finding(var.name, True, value)


_CHECKS: tuple[tuple[str, Callable[[], Finding]], ...] = (
    ("Python", _python),
    ("torch", _torch),
    ("sympy", partial(_package, "sympy", "everything: equations are sympy expressions")),
    ("jinja2", partial(_package, "jinja2", "generating source text")),
    ("numpy", partial(_package, "numpy", "the reference backend")),
    ("C++ compiler", _compiler),
    ("nvcc", _nvcc),
    ("NVIDIA driver", _driver),
    ("PyCUDA", _pycuda),
    ("cuda.bindings", _cuda_bindings),
    ("GPU", _gpu),
    ("kernel cache", _cache),
    ("output pool", _pool),
)


# ---- helpers ------------------------------------------------------------------------------------------------------


def _guard(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        detail = f"the check itself failed: {_said(error)}"
        return Finding(name, False, detail, "knowing", "please report this with the text above", "wrong")


def _load(name: str) -> Any:
    return importlib.import_module(name)


def _said(error: BaseException) -> str:
    """An error on one line."""
    first = next(iter(str(error).strip().splitlines()), "")
    return first or type(error).__name__


def _version(path: str, mark: str = "") -> str:
    """The line of ``path --version`` that holds `mark`, cut to what matters."""
    try:
        result = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"version unknown ({_said(error)})"
    line = next((line.strip() for line in result.stdout.splitlines() if mark in line), "")
    return line[line.find(mark):] if line else "version unknown"


def _size(directory: Path, limit: int = 10_000) -> str:
    """How much a directory holds; it stops counting at `limit` files."""
    sizes = []
    for size in _file_sizes(directory):
        sizes.append(size)
        if len(sizes) == limit:
            break
    more = "more than " * (len(sizes) == limit)
    return f"{more}{len(sizes)} file{'s' * (len(sizes) != 1)}, {more}{sum(sizes) / 2**20:.1f} MiB" if sizes else "empty"


def _file_sizes(directory: Path) -> Iterator[int]:
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # another process may have removed it
                yield os.lstat(os.path.join(folder, name)).st_size
