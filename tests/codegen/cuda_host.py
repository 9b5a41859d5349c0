"""Runs the unchanged text of `serial` CUDA kernels on the CPU: g++, a page of stand-ins, one thread after another.

The kernels have no barrier and no thread reads what another writes, so that a plain loop over threads is exact. Reads by
`__ldg` are checked against the arrays of the call and counted.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrdsl.ir.program import Program
from lrdsl.ir.source import Source, slots

Array = Any
Launch = Callable[[Sequence[int], Sequence[Array]], int]

STAND_INS = """
#include <cmath>
#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(threads)
struct Place { unsigned x; };
static thread_local Place threadIdx, blockIdx;
struct Span { const char *from, *to; };
static thread_local const Span *spans;
static thread_local long count, stray, bytes;
template <class T> static T __ldg(const T *p) {
  for (long i = 0; i < count; ++i)
    if ((const char *)p >= spans[i].from && (const char *)(p + 1) <= spans[i].to) return bytes += sizeof(T), *p;
  return ++stray, T(7e7);
}
static inline float __fdividef(float a, float b) { return a / b; }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }
static inline float normcdff(float x) { return normcdf(double(x)); }
template <class Args, void (*KERNEL)(const Args)>
static long launch(const Args &a, unsigned threads, const Span *some, long n) {
  spans = some, count = n, stray = bytes = 0;
  for (blockIdx.x = 0; blockIdx.x * threads < a.B * a.C; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) KERNEL(a);
  return stray ? -stray : bytes;
}
"""


def build(sources: Sequence[Source], directory: Path) -> dict[str, Launch]:
    """Entry -> something to call with slots and the arrays that may be read; it returns the number of bytes read."""
    assert len({s.dtype for s in sources}) == 1, "texts for float and double define the same names"
    assert len({s.entry for s in sources}) == len(sources)
    parts = []
    for number, s in enumerate(sources):
        space = f"text_{number}"
        parts.append(f"namespace {space} {{\n{s.text}\n}}\n"
                     f'extern "C" long launch_{s.entry}(const void *args, const Span *spans, long n) {{\n'
                     f"  using namespace {space}::{s.entry}_;\n"
                     f"  return launch<Args, {s.entry}>(*(const Args *)args, {s.block}, spans, n);\n}}\n")
    loaded = ctypes.CDLL(str(compiled("".join(parts), directory)))
    return {s.entry: _launch(loaded, s.entry) for s in sources}


def compiled(text: str, directory: Path) -> Path:
    """The shared object of a CUDA text."""
    source, library = directory / "host.cpp", directory / "host.so"
    source.write_text(STAND_INS + text, encoding="utf-8")
    command = ["g++", "-std=c++17", "-O0", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-parameter",
               "-Wno-unused-variable", "-Wno-unused-function", "-Wno-maybe-uninitialized", "-Wno-sign-compare", "-Werror",
               "-fPIC", "-shared", str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return library


def _launch(loaded: ctypes.CDLL, entry: str) -> Launch:
    function = getattr(loaded, f"launch_{entry}")
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long), ctypes.c_long

    def launch(values: Sequence[int], readable: Sequence[Array]) -> int:
        spans = [edge for a in readable for edge in (a.ctypes.data, a.ctypes.data + a.nbytes)]
        read: int = function((ctypes.c_int64 * len(values))(*values), (ctypes.c_int64 * len(spans))(*spans), len(readable))
        assert read >= 0, f"{-read} loads outside of the arrays"
        return read

    return launch


def available() -> bool:
    """Whether there is a g++."""
    return shutil.which("g++") is not None


def run(program: Program, launch: Launch, tensors: Mapping[str, Array | None], reset: Array | None, dtype: str,
        shape: tuple[int, int, int]) -> tuple[dict[str, Array], int]:
    """Every output, as `backends.reference.partial_run` gives them, and the bytes read. Outputs start as nan."""
    B, T, C = shape
    values: list[int] = []
    readable: list[Array] = []
    outputs: dict[str, Array] = {}
    for s in slots(program):
        array: Array | None
        if s.kind in ("keep", "sum", "window"):
            size = {"keep": (B, T, s.columns * C), "sum": (B, C), "window": (B, s.depth, C)}[s.kind]
            array = outputs[s.name] = np.full(size, np.nan, dtype)
        elif s.kind == "reset":
            array = None if reset is None else np.asarray(reset, np.uint8)
        else:
            given = tensors[s.name]
            array = None if given is None else np.asarray(given, dtype)
        if array is not None and s.name not in outputs:
            readable.append(array.base if array.base is not None else array)
        values.append(0 if array is None else array.ctypes.data)
        if len(s.fields) > 1:
            values += [0, 0] if array is None else [n // array.itemsize for n in array.strides[:2]]
    return outputs, launch([*values, B, T, C], readable)
