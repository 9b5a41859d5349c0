"""The CPU backend: g++ or clang++ compiles the generated text, ctypes loads it, torch's own threads run it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import shlex
import shutil
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import BackendUnavailable
from ..ir.kernel import Strategy
from ..ir.program import Program
from ..ir.source import Extent, Launch, Source, fields
from . import cache
from .native_build import Build, compiled

__all__ = ["compiled", "build", "begin", "load", "recall", "launch", "compiler", "machine", "toolchain"]
COMPILERS = ("g++", "clang++", "c++")
# Not -ffast-math: linked with it, a library changes the arithmetic of the whole process (denormals become 0).
FLAGS = ("-std=gnu++17", "-O2", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions",
         "-fno-asynchronous-unwind-tables", "-fPIC", "-shared", "-w", "-x", "c++")
# The text, and what it is linked with: nothing but the compiler's own helpers. What else a kernel calls is libc's, which the
# process has; to look through libstdc++, libm and libc for it takes a sixth of the time that a kernel takes.
LINKED = ("-nodefaultlibs", "-", "-lgcc") if sys.platform == "linux" else ("-",)
FLAGS_OF_SOURCE = ("together", "lanes", "chained")  # what is to be known of one whose text is not
SMALL = 1 << 15  # numbers; below it a second thread costs more than it does
_forked = False
_running: dict[str, Build] = {}  # by the name of the entry that each will be


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
    """The compiler on a text from stdin. It compiles for this machine unless `$CXX` says `-march=…` itself, and links what it
    likes where `$CXX` has flags, which may need that, or clang's helpers may be others than gcc's."""
    command = compiler()
    native = () if any(said.startswith(("-march=", "-mcpu=")) for said in command) else ("-march=native", *_lengths())
    return [*command, *native, *FLAGS, *(LINKED if len(command) == 1 and "clang" not in Path(command[0]).name else ("-",))]


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


def toolchain() -> tuple[list[str], list[str]]:
    """The compiler on a text from stdin, and all that a build depends on beside the text."""
    command = _command()
    return command, [*command, cache.identity(command[0]), machine()]


def build(source: Source, place: Path | None = None) -> Path:
    """The shared object of a Source, from the cache or compiled now. Raises ToolchainError, BackendUnavailable."""
    (command, made_by), place = toolchain(), place or cache.directory()
    name = cache.key([cache.code(source.text), *made_by]) + ".so"
    if found := cache.find(place, name):
        return found
    running = _running.pop(name, None)
    if running is None or running.owner != os.getpid():
        running = Build(command, source.text, source.entry)
    return cache.put(place, name, running.finish())


def begin(program: Program, dtype: str, strategy: Strategy, versions: Sequence[str], text: Callable[[], Source]) -> None:
    """Start to compile what `recall` will soon be asked for, unless it is there: two kernels then take the time of one."""
    with contextlib.suppress(OSError):  # which `recall` will tell
        if _recalled(program, dtype, strategy, versions)[2] is not None:
            return
        source, (command, made_by) = text(), toolchain()
        name = cache.key([cache.code(source.text), *made_by]) + ".so"
        if name not in _running and not cache.find(cache.directory(), name):
            _running[name] = Build(command, source.text, source.entry)


def load(source: Source) -> Launch:
    """The Source as something to launch, see `launch`."""
    return launch(_library(source), source)


def recall(program: Program, dtype: str, strategy: Strategy, versions: Sequence[str], text: Callable[[], Source]) -> Launch:
    """`load` of the Source that `text` makes of a Program, without making it where an earlier process has.

    An entry says which shared object it was, and by which code, compiler, flags and machine it came to be; where any of these
    is another today, it is none.
    """
    try:
        place, name, said = _recalled(program, dtype, strategy, versions)
    except OSError:  # no directory, not even one of this process: `load` says what to do about it
        return load(text())
    if said is not None:
        with contextlib.suppress(OSError, AttributeError):  # no library, or one without the entry
            known = Source("cpu", said["entry"], "", program, dtype, **{name: said[name] for name in FLAGS_OF_SOURCE})
            return launch(ctypes.CDLL(str(place / said["library"])), known)
    source = text()
    loaded = _library(source)
    library = Path(loaded._name)
    if library.parent == place:
        entry = {"made by": _made_by(versions), "library": library.name, "entry": source.entry,
                 **{name: getattr(source, name) for name in FLAGS_OF_SOURCE}}
        with contextlib.suppress(OSError):
            cache.put(place, name, json.dumps(entry).encode(), sync=False)
    return launch(loaded, source)


def _made_by(versions: Sequence[str]) -> list[str]:
    return [*versions, *toolchain()[1]]


def _recalled(program: Program, dtype: str, strategy: Strategy,
              versions: Sequence[str]) -> tuple[Path, str, dict[str, Any] | None]:
    """The cache, the name of a Program's entry there, and what it says if that holds today and its shared object is whole."""
    place, made_by = cache.directory(), _made_by(versions)
    name = cache.key(["launch", program.digest, dtype, strategy, *made_by]) + ".json"
    data = cache.read(place, name)
    if data is not None:
        with contextlib.suppress(ValueError, TypeError, LookupError):
            said = json.loads(data)
            if said["made by"] == made_by and {"entry", *FLAGS_OF_SOURCE} < said.keys() and cache.find(place, said["library"]):
                return place, name, said
    return place, name, None


def launch(library: ctypes.CDLL, source: Source) -> Launch:
    """The entry of a loaded Source as something to launch on the slots of `ir.source.fields` with a number of threads.

    Sequences are addressed with channels contiguous. A kernel in blocks of time takes steps and channels of a block after the
    threads. Work on fewer than SMALL numbers runs on the caller's thread, and so
    does everything in a forked child, which has none of its parent's threads.
    """
    kernel = getattr(library, source.entry)
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
    """Whether this is a child of the process that imported this: it has none of its parent's threads."""
    return _forked


def _in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):  # every call of a kernel asks, and getpid asks the system
    os.register_at_fork(after_in_child=_in_child)


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
