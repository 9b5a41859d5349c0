"""From CUDA text to a shared object for the emulator, by g++ or clang++, and the runtime that it calls. Both are cached."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
import sys
import threading
from pathlib import Path

from ..errors import BackendUnavailable
from ..files import templates
from ..ir.source import Source
from . import cache, native

# Not -ffast-math. What nvcc may contract to a multiply-add, this may: where the machine has one.
COMMON = ("-fPIC", "-shared", "-fvisibility=hidden", "-w", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
          "-fno-exceptions", "-fno-strict-aliasing")
RUNTIME = ("-std=c++17", "-O2", "-U_FORTIFY_SOURCE")  # fortified, longjmp refuses to leave a fiber's stack
# Every access is announced to the runtime from its place in the text. With -O1 none is merged with another; none may move out
# of the loop that it stands in, and no call may give its frame away to the one after it.
TEXT = ("-std=c++17", "-O1", "-g1", "-gdwarf-4", "-fsanitize=thread,bounds", "-fno-plt", "-fno-optimize-sibling-calls",
        "-fstack-clash-protection", "-nodefaultlibs")
GCC = ("-fno-tree-loop-im", "--param", "tsan-distinguish-volatile=1", "--param", "tsan-instrument-func-entry-exit=0")
CLANG = ("-mllvm", "-tsan-distinguish-volatile=1", "-mllvm", "-tsan-instrument-func-entry-exit=0")
# Compilers make several accesses of one to a vector, each of them aligned; their own check sees the whole. It takes long.
VECTOR, ALIGNMENT = re.compile(r"(float|double|int|longlong)[24] *\*"), ("-fsanitize=alignment",)
NAME = "text.cu"  # of a Source, in the lines of its shared object

TAIL = """
}}  // namespace
extern "C" __attribute__((weak, visibility("hidden"))) char __start_emu_shared[], __stop_emu_shared[];
__attribute__((no_sanitize("thread"))) static void emu_call(const void *args) {{
  {entry}_::{entry}(*static_cast<const {entry}_::Args *>(args));
}}
extern "C" __attribute__((visibility("default"))) const EmuModule emu_module = {{
    emu_call, sizeof({entry}_::Args), __start_emu_shared, __stop_emu_shared}};
"""


def folder() -> Path:
    """The C++ of the emulator."""
    return templates() / "emulated"


@functools.cache
def _file(name: str) -> str:
    return (folder() / name).read_text(encoding="utf-8")


@functools.cache
def _is_clang(path: str, _: str) -> bool:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return "clang" in said


def _command() -> tuple[list[str], list[str]]:
    """The compiler, and what makes of a machine's code another machine's: the parts of a key beside text and flags."""
    command = native.compiler()
    identity = cache.identity(command[0])
    if not any(said.startswith(("-march=", "-mcpu=")) for said in command):
        command = [*command, "-march=native"]
    return command, [*command, identity, native.machine()]


def runtime(place: Path) -> Path:
    """The shared object of the runtime, from the cache or compiled now."""
    command, known = _command()
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder().iterdir()) if path.name != "cuda.h"]
    key = cache.key([*texts, *known, *COMMON, *RUNTIME])
    link = [f"-I{folder()}", "-", "-lpthread", "-Wl,--no-undefined", f"-Wl,-soname,lrdsl-{key}.so"]
    found = cache.find(place, key + ".so")
    return found or cache.put(place, key + ".so", native.compiled([*command, *COMMON, *RUNTIME, "-x", "c++", *link],
                                                           '#include "runtime.cpp"\n', "emulator"))


def module(source: Source, runtime: Path) -> Path:
    """The shared object of a Source, beside the runtime, to be loaded after it."""
    command, known = _command()
    flags = [*COMMON, *TEXT, *(CLANG if _is_clang(command[0], known[-2]) else GCC),
             *(ALIGNMENT if VECTOR.search(source.text) else ())]
    text = (f'#line 1 "calls.h"\n{_file("calls.h").replace("#pragma once", "")}#line 1 "cuda.h"\n{_file("cuda.h")}'
            f'namespace {{\n#line 1 "{NAME}"\n{source.text}\n#line 1 "tail"{TAIL.format(entry=source.entry)}')
    name = cache.key([text, *known, *flags, runtime.name]) + ".so"
    # The module names the runtime by its soname, and finds it because it is loaded.
    link = ["-x", "c++", "-", "-x", "none", str(runtime), "-lm", "-lgcc", "-lc", "-Wl,-z,now", "-Wl,--no-undefined"]
    place = runtime.parent
    return cache.find(place, name) or cache.put(place, name, native.compiled([*command, *flags, *link], text, source.entry))


_runtimes: dict[str, ctypes.CDLL] = {}  # by name: a module finds its runtime by it, wherever the file lies
_loading = threading.Lock()


def libraries(source: Source) -> tuple[ctypes.CDLL, ctypes.CDLL, Path]:
    """The runtime and the text, loaded, and where the text's object lies. Raises ToolchainError, BackendUnavailable."""
    if sys.platform != "linux":
        raise BackendUnavailable("the backend 'emulated' needs Linux\n  way out: LRDSL_BACKEND=native or reference")
    error: OSError | None = None
    for place in (cache.directory, cache.private_directory):
        try:
            with _loading:
                base = runtime(place())
                if base.name not in _runtimes:
                    _runtimes[base.name] = ctypes.CDLL(str(base))
            path = module(source, base)
            return _runtimes[base.name], ctypes.CDLL(str(path)), path
        except OSError as failed:
            error = failed
    raise BackendUnavailable(
        f"a kernel cannot be compiled or loaded here: {error}\n"
        "  way out: name a directory that is your own, not full, and not mounted noexec in LRDSL_CACHE_DIR or TMPDIR")
