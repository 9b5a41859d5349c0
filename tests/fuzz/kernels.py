"""Many Programs in one call of the compiler: a translation unit's prelude is most of what a small kernel costs.

    kernels = Kernels()
    with kernels.used() as asked:  # lrdsl's ops ask here for their kernels
        run(…)                     # on the backend "reference", which needs none
        kernels.build((*a, "serial") for a in asked)
        run(…)                     # on "native", "serial" or "chunked": emulated, by that strategy where a Program has it
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import lrdsl.nn.launch
import lrdsl.nn.ops
from lrdsl.backends import emulated_abi, emulated_build, native, reference
from lrdsl.backends.emulated import SCHEDULES, Emulator, Schedule
from lrdsl.backends.emulated_lines import first_of_kernel
from lrdsl.errors import ToolchainError
from lrdsl.ir.program import Program
from lrdsl.ir.source import Launch, Source
from lrdsl.kernels import source_of
from lrdsl.passes.schedule import strategies

BACKENDS = ("native", "lanes", "serial", "chunked")
Wanted = tuple[Program, str, str]  # with dtype and backend
Asked = tuple[Program, str]
Make = Callable[[dict[Wanted, Source]], dict[Wanted, Launch]]

_numbers, _loading = itertools.count(), threading.Lock()
# Each kernel's own shared memory, as if its text were alone.
SHARED = '#undef __shared__\n#define __shared__ static __attribute__((section("emu_{entry}"), used))\n'
TAIL = """
extern "C" __attribute__((weak, visibility("hidden"))) char __start_emu_{entry}[], __stop_emu_{entry}[];
__attribute__((no_sanitize("thread"))) static void call_{entry}(const void *args) {{
  {entry}_::{entry}(*static_cast<const {entry}_::Args *>(args));
}}
extern "C" __attribute__((visibility("default"))) const EmuModule module_{entry} = {{
    call_{entry}, sizeof({entry}_::Args), __start_emu_{entry}, __stop_emu_{entry}}};
"""


class Kernels:
    """What stands in for `kernels.launch_of`. level: of optimisation, 0 to 2; 0 takes a fifth of the time of 2. The emulator
    wants no more than 1."""

    def __init__(self, level: int = 0, schedule: Schedule = SCHEDULES[0]) -> None:
        self.level, self.schedule = level, schedule
        self.launches: dict[Wanted, Future[dict[Wanted, Launch | ToolchainError]]] = {}
        self.asked: dict[Asked, None] = {}
        self._pool = ThreadPoolExecutor(2)
        self._place = tempfile.mkdtemp(prefix="lrdsl-fuzz-")
        weakref.finalize(self, shutil.rmtree, self._place, ignore_errors=True)

    @contextlib.contextmanager
    def used(self) -> Iterator[dict[Asked, None]]:
        """lrdsl's ops ask here for their kernels; what they asked for is given. Names of ops are numbers meanwhile, because
        real ones cost a second derivative each."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lrdsl.nn.launch, "launch_of", self.launch_of)
            patch.setattr(lrdsl.nn.launch, "turns", lambda program: False)  # each launch here is one kernel, mostly of rows
            patch.setattr(lrdsl.nn.ops, "name_of", lambda program: f"fuzz_{next(_numbers)}")
            yield self.asked

    def launch_of(self, program: Program, dtype: str, backend: str) -> Launch:
        """The Program on a backend; from what was built, but on the reference."""
        if backend == "reference":
            self.asked[program, dtype] = None
            return reference.load(program, dtype)
        wanted = program, dtype, backend
        found = self.launches[wanted].result()[wanted]
        if isinstance(found, ToolchainError):
            raise found
        return found

    def build(self, wanted: Iterable[Wanted]) -> None:
        """Begin to compile them, in a unit for each backend and dtype; whoever needs one waits for its unit."""
        groups: dict[tuple[str, str], list[Wanted]] = {}
        for w in wanted:
            if w not in self.launches:
                groups.setdefault(w[1:], []).append(w)
        for (_, backend), group in groups.items():
            sources = {w: _source(*w) for w in dict.fromkeys(group)}  # in this thread: sympy's cache is everybody's
            self.launches |= dict.fromkeys(sources, self._pool.submit(self._compiled, backend, sources))

    def _compiled(self, backend: str, sources: dict[Wanted, Source]) -> dict[Wanted, Launch | ToolchainError]:
        units: dict[tuple[bool, bool], dict[Wanted, Source]] = {}  # of kernels that have the same text before them
        for w, s in sources.items():
            units.setdefault((bool(s.chunk) or s.lanes, "Pair<" in s.text), {})[w] = s
        make = self._native if backend in ("native", "lanes") else self._emulated
        return {w: launch for unit in units.values() for w, launch in self._one_by_one(make, unit).items()}

    def _one_by_one(self, make: Make, unit: dict[Wanted, Source]) -> Mapping[Wanted, Launch | ToolchainError]:
        """A unit; where the compiler fails, its parts, until it is known which Programs it fails on."""
        try:
            return make(unit)
        except ToolchainError as error:
            if len(unit) == 1:
                return dict.fromkeys(unit, error)
            every = [*unit.items()]
            halves = dict(every[:len(every) // 2]), dict(every[len(every) // 2:])
            return {w: launch for half in halves for w, launch in self._one_by_one(make, half).items()}

    def _native(self, sources: dict[Wanted, Source]) -> dict[Wanted, Launch]:
        first, *rest = [_parts(s) for s in sources.values()]
        command = [f"-O{self.level}" if word == "-O2" else word for word in native._command()]
        library, _ = _loaded(native.compiled(command, "".join([*first, *(text for _, text in rest)]), "fuzz"),
                             self._place)
        with _loading, pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "_library", lambda _: library)
            return {w: native.load(s) for w, s in sources.items()}

    def _emulated(self, sources: dict[Wanted, Source]) -> dict[Wanted, Launch]:
        runtime = emulated_build.libraries(next(iter(sources.values())))[0] if not _runtimes else _runtimes[0]
        _runtimes[:] = [runtime]
        command, _ = emulated_build._command()
        flags = [*emulated_build.COMMON, *emulated_build.TEXT]
        flags[flags.index("-O1")] = f"-O{min(self.level, 1)}"
        flags += emulated_build.GCC if "clang" not in command[0] else emulated_build.CLANG
        parts = {s.entry: _parts(s) for s in sources.values()}
        unit = next(iter(parts.values()))[0] + "".join(SHARED.format(entry=n) + text for n, (_, text) in parts.items())
        calls, cuda = (emulated_build._file(n).replace("#pragma once", "") for n in ("calls.h", "cuda.h"))
        text = f'{calls}{cuda}namespace {{\n#line 1 "{emulated_build.NAME}"\n{unit}\n}}'
        text += "".join(TAIL.format(entry=s.entry) for s in sources.values())
        link = ["-x", "c++", "-", "-x", "none", runtime._name, "-lm", "-lgcc", "-lc", "-Wl,-z,now", "-Wl,--no-undefined"]
        library, path = _loaded(native.compiled([*command, *flags, *link], text, "fuzz"), self._place)
        return {w: self._launch(_Emulator(s, runtime, library, path, unit)) for w, s in sources.items()}

    def _launch(self, emulator: Emulator) -> Launch:
        return Launch(lambda values, *where: emulator.run(values, self.schedule, where[-1]), emulator.source.extent)


_runtimes: list[Any] = []


class _Emulator(Emulator):
    """The emulator of one kernel in a unit of many."""

    def __init__(self, source: Source, runtime: Any, library: Any, path: Path, text: str) -> None:
        self.source, self._runtime, self._path = source, runtime, path
        self._module = emulated_abi.Module.in_dll(library, f"module_{source.entry}")
        self._lines, self._first = text.splitlines(), first_of_kernel(text, source.entry)


def _source(program: Program, dtype: str, backend: str) -> Source:
    if backend in ("native", "lanes"):
        return source_of(program, "cpu", dtype, strategy="lanes" if backend in strategies(program, "cpu") else "rows")
    return source_of(program, "cuda", dtype, strategy=backend if backend in strategies(program, "cuda") else "serial")


def _parts(source: Source) -> tuple[str, str]:
    """What all kernels of a target have in common, and the kernel's own text."""
    head, mark, rest = source.text.partition(f"namespace {source.entry}_ {{")
    assert mark
    return head, mark + rest


def _loaded(product: bytes, place: str) -> tuple[ctypes.CDLL, Path]:
    """A library of this process, which keeps it when the file is gone."""
    path = Path(place, f"{next(_numbers)}.so")
    path.write_bytes(product)
    return ctypes.CDLL(str(path)), path
