"""The CPU backend: g++ or clang++ compiles the generated text, ctypes loads it, torch's own threads run it."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import BackendUnavailable, ToolchainError
from ..files import kept
from ..ir.source import Extent, Launch, Source, fields
from . import cache

COMPILERS = ("g++", "clang++", "c++")
# Not -ffast-math: linked with it, a library changes the arithmetic of the whole process (denormals become 0).
FLAGS = ("-std=gnu++17", "-O2", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions",
         "-fno-asynchronous-unwind-tables", "-fPIC", "-shared", "-w", "-x", "c++")
SMALL = 1 << 15  # numbers; below it a second thread costs more than it does
_PROCESS = os.getpid()
_log = logging.getLogger("lrdsl.compile")


def compiler() -> list[str]:
    """The C++ compiler: `$CXX`, or the first of COMPILERS that is there. Raises BackendUnavailable."""
    said = shlex.split(os.environ.get("CXX", ""))
    for command in ([said] if said else [[name] for name in COMPILERS]):
        path = shutil.which(command[0])
        if path:
            return [path, *command[1:]]
    raise BackendUnavailable(
        f"no C++ compiler: looked for {said[0] if said else ', '.join(COMPILERS)} on PATH\n"
        "  way out: install one (Debian, Ubuntu: apt-get install g++; macOS: xcode-select --install), set CXX to it,\n"
        "  or run on the slow definition of the language with LRDSL_BACKEND=reference")


def _command() -> list[str]:
    """The compiler with its flags. It compiles for this machine unless `$CXX` says `-march=…` itself."""
    command = compiler()
    native = () if any(said.startswith(("-march=", "-mcpu=")) for said in command) else ("-march=native", *_lengths())
    return [*command, *native, *FLAGS]


@functools.cache
def _lengths() -> tuple[str, ...]:
    """SVE's vectors are as long as the machine's: what is compiled for one length runs on no other."""
    ask = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" and os.uname().machine == "aarch64" else None
    length = ask(51, 0, 0, 0, 0) if ask else -1  # PR_SVE_GET_VL
    return (f"-msve-vector-bits={(length & 0xffff) * 8}",) if length > 0 and length & 0xffff > 16 else ()


@functools.cache
def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What -march=native and the C library depend on."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    cpu = [next((line for line in lines if line.startswith(what)), "")
           for what in ("model name", "flags", "Features", "CPU implementer", "CPU part")]
    libc = "CS_GNU_LIBC_VERSION"
    uname = os.uname()
    return " ".join([uname.sysname, uname.machine, os.confstr(libc) or "" if libc in os.confstr_names else uname.release,
                     *cpu])


def build(source: Source, place: Path | None = None) -> Path:
    """The shared object of a Source, from the cache or compiled now. Raises ToolchainError, BackendUnavailable."""
    command, place = _command(), place or cache.directory()
    name = cache.key([cache.code(source.text), *command, cache.identity(command[0]), machine()]) + ".so"
    return cache.find(place, name) or cache.put(place, name, compiled([*command, "-"], source.text, source.entry))


def compiled(command: Sequence[str], text: str, name: str) -> bytes:
    """The shared object that a compiler makes of a text, which it reads where the command says "-". Raises ToolchainError."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lrdsl-") as work:
        product = Path(work, f"{name}.so")
        done = subprocess.run([*command, "-o", str(product)], input=text, capture_output=True, check=False, cwd=work,
                              encoding="utf-8", errors="replace", env={**os.environ, "LC_ALL": "C"})
        if done.returncode == 0 and product.exists():
            _log.info("compiled %s in %.2f s", name, time.perf_counter() - start)
            return product.read_bytes()
    path = kept(text, name, ".cpp")
    said = [path if word == "-" else word for word in command]
    raise ToolchainError(said, done.stderr or f"nothing, with exit status {done.returncode}", path)


def load(source: Source) -> Launch:
    """The Source as something to launch on the slots of `ir.source.fields` with a number of threads.

    Sequences are addressed with channels contiguous. A kernel in blocks of time takes steps and channels of a block after the
    threads. Work on fewer than SMALL numbers runs on the caller's thread, and so
    does everything in a forked child, which has none of its parent's threads.
    """
    kernel = getattr(_library(source), source.entry)
    more = 2 if source.chained else 1 if source.lanes else 0
    kernel.argtypes, kernel.restype = (ctypes.c_char_p, ctypes.c_long, *[ctypes.c_long] * more), None
    names = fields(source.program)
    pack = struct.Struct(f"{len(names)}q").pack
    columns = sum(len(b.columns) for b in source.program.buffers)

    def run(values: Sequence[int], threads: int, *given: int, turned: bool = False) -> None:
        B, T, C = values[-3:]
        alone = threads == 1 or B * T * C * columns < SMALL or forked()
        kernel(pack(*values), 1 if alone else threads, *(given[:2] if source.chained else [turned] * source.lanes))

    return Launch(run, source.extent if source.together else lambda *_: Extent(0),
                  functools.partial(run, turned=True) if source.lanes else None)


def forked() -> bool:
    """Whether this is a child of the process that loaded kernels: it has none of its parent's threads."""
    return os.getpid() != _PROCESS


def _library(source: Source) -> ctypes.CDLL:
    """Loaded; from a directory of this process where the cache cannot be written or may not hold code (noexec)."""
    error: OSError | None = None
    for place in (cache.directory, cache.private_directory):
        try:
            return ctypes.CDLL(str(build(source, place())))
        except OSError as failed:
            error = failed
    raise BackendUnavailable(
        f"a kernel cannot be compiled or loaded here: {error}\n"
        "  way out: name a directory that is your own, not full, and not mounted noexec in LRDSL_CACHE_DIR or TMPDIR")
