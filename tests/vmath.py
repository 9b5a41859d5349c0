"""templates/cpu/vmath.h as a library of functions over arrays, and what these should give: exact results, errors in ulp."""

from __future__ import annotations

import ctypes
import functools
import math
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

Array = Any
HEADER = Path(__file__).parents[1] / "templates" / "cpu" / "vmath.h"
FLAGS = ["-O2", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-std=gnu++17",
         "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unused-function"]
FUNCTIONS = ("exp", "expm1", "log", "log1p", "sigmoid", "silu", "tanh", "softplus", "sqrt", "sin", "cos", "erf", "gelu")
UNARY = [*FUNCTIONS, "relu", "abs"]
BINARY = ["maximum", "minimum", "logaddexp"]
CPU_FLAGS = {"native": set(), "x86-64": set(), "x86-64-v2": {"sse4_2", "ssse3"}, "x86-64-v3": {"avx2", "fma", "bmi2"}}
NUMPY = {"float": np.dtype("f4"), "double": np.dtype("f8")}
WIDE = {"float": "f8", "double": "g"}  # the type of the references


def header(dtype: str) -> str:
    """The header, for "float" or "double"."""
    return f"#define real {dtype}\n#define LR_DOUBLE {int(dtype == 'double')}\n{HEADER.read_text()}\n"


def source(dtype: str) -> str:
    """Every function over whole arrays, the lanes that are left at an end too; load_n, store_n and splat alone."""
    def loop(name: str, inputs: str) -> str:
        def call(read: str, more: str) -> str:
            return f"lr_{name}({', '.join(f'{read}({x} + i{more})' for x in inputs)})"
        return f"""
extern "C" void vector_{name}({', '.join(f'const real *{x}' for x in inputs)}, real *y, long n) {{
  long i = 0;
  for (; i + LANES <= n; i += LANES) store(y + i, {call('load', '')});
  if (i < n) store_n(y + i, {call('load_n', ', n - i')}, n - i);
}}"""
    return header(dtype) + """
extern "C" int lanes() { return LANES; }
extern "C" void loaded_n(const real *a, real *y, long n) { store(y, load_n(a, n)); }
extern "C" void stored_n(const real *a, real *y, long n) { store_n(y, load(a), n); }
extern "C" void splatted(const real *a, real *y, long) { store(y, splat(*a)); }
""" + "".join(loop(name, "a") for name in UNARY) + "".join(loop(name, "ab") for name in BINARY) + "\n"


class Library:
    """The functions of the header over whole arrays, and load_n and store_n alone."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.library = ctypes.CDLL(str(path))
        self.path, self.name, self.dtype = path, dtype, NUMPY[dtype]
        self.lanes = self.library.lanes()

    def __call__(self, function: str, *arguments: Array) -> Array:
        inputs = [np.ascontiguousarray(a, self.dtype) for a in arguments]
        result = np.empty_like(inputs[0])
        getattr(self.library, f"vector_{function}")(*pointers(*inputs, result), ctypes.c_long(result.size))
        return result


def pointers(*arrays: Array) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(a.ctypes.data) for a in arrays]


def cpu_flags() -> set[str]:
    """What this CPU says that it can."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return next((set(x.split()) for x in text.splitlines() if x.startswith("flags")), set())


@functools.cache
def build(compiler: str, march: str, dtype: str, directory: Path) -> Library:
    """The library for an instruction set; where it cannot be had or run the test is skipped."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on this machine")
    if march != "native" and platform.machine() != "x86_64":
        pytest.skip(f"{march} on {platform.machine()}")
    if not CPU_FLAGS[march] <= cpu_flags():
        pytest.skip(f"this CPU is not {march}")
    path = directory / f"{compiler}-{march}-{dtype}.so"
    compile_text([compiler, f"-march={march}", "-shared"], source(dtype), path)
    return Library(path, dtype)


def compile_text(command: Iterable[str], text: str, path: Path) -> None:
    """Text of C++ as a product at `path`; a warning is an error."""
    done = subprocess.run([*command, *FLAGS, "-xc++", "-", "-o", str(path)], input=text, text=True, capture_output=True,
                          check=False)
    assert done.returncode == 0, done.stderr


@functools.cache
def sample(dtype: str) -> Array:
    """Every 1999th float, denormals too; in double, a mesh of all magnitudes and two around 0."""
    if dtype == "float":
        x = np.arange(0, 2**32, 1999, dtype="u8").astype("u4").view("f4")
    else:
        bits = np.arange(0, 2**64 - 2**48, 2**48 + 10**9 + 7, dtype="u8")
        x = np.concatenate([bits.view("f8"), np.linspace(-760, 760, 20_001), np.linspace(-3, 3, 20_001)])
    return x[~np.isnan(x)]


@functools.cache
def hard(function: str, dtype: str) -> Array:
    """Numbers where a function changes its way, and their neighbours."""
    wide = np.dtype("g").type
    k = np.arange(-1100, 1101).astype("g")
    halves = (k + wide("0.5")) * np.log(wide(2))
    if function in ("sin", "cos"):  # the zeros, and where the reduction rounds to another
        ends = [np.arange(-63_700, 63_701) * (np.pi * wide("0.5") + wide("6.123233995736766e-17")), [1e5, 1e6, 1e8, 1e30]]
    elif function in ("log", "log1p"):  # powers of 2, the ends of [3/4, 3/2), and 1
        powers = np.ldexp(wide(1), np.arange(-1074, 1024))
        ends = [powers, powers * wide("0.75"), powers - 1, powers * wide("0.75") - 1, 1 + powers[:1074], 1 - powers[:1074]]
    else:
        ends = [halves, halves / 2, halves * 2, np.linspace(-40, 40, 801), [-760, -120, -104, 89, 710, 15, 39, 4, 6]]
    with np.errstate(over="ignore"):
        x = np.unique(np.concatenate([np.asarray(e, "g") for e in ends]).astype(NUMPY[dtype]))
    x = np.concatenate([x, np.nextafter(x, x.dtype.type(math.inf)), np.nextafter(x, x.dtype.type(-math.inf))])
    return x[np.isfinite(x)]


def exact(function: str, x: Array) -> Array:
    """The function at float64 or longdouble x, in that precision."""
    one = x.dtype.type(1)
    with np.errstate(all="ignore"):
        if function == "sigmoid":
            e = np.exp(-abs(x))
            return np.where(x < 0, e, one) / (one + e)
        if function == "silu":
            return x * exact("sigmoid", x)
        if function == "softplus":
            return np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))
        if function in ("erf", "gelu") and x.dtype == np.float64:
            double = {"erf": math.erf, "gelu": lambda v: 0.5 * v * math.erfc(v * -math.sqrt(0.5))}[function]
            return np.array([double(v) for v in x.tolist()])
        if function in ("erf", "gelu"):
            return np.array([x.dtype.type(mpmath.nstr(one_by_one(function, v), 25)) for v in x])
        return getattr(np, function)(x)


def one_by_one(function: str, x: Any) -> Any:
    if function == "gelu" and x < -60:  # beyond the exponents of an 80-bit float
        return mpmath.mpf(0)
    with mpmath.workdps(30):
        x = mpmath.mpf(float(x))
        return mpmath.erf(x) if function == "erf" else x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


@functools.cache
def reference(function: str, dtype: str) -> tuple[Array, Array]:
    """A sample and the exact results; smaller where Python computes them one by one."""
    x = sample(dtype)
    if function in ("erf", "gelu"):
        x = x[np.isfinite(x)]
        parts = [x[::7], np.linspace(-15, 15, 60_001)] if dtype == "float" else [x[::500], np.linspace(-8, 8, 2001)]
        x = np.concatenate(parts).astype(x.dtype)
    else:
        x = np.concatenate([x, hard(function, dtype)])
    return x, exact(function, x.astype(WIDE[dtype]))


def ulps(result: Array, expected: Array, scale: Array | None = None) -> Array:
    """The error in units of the last place of `expected`, or of a larger `scale`; inf counts as the first power of two that
    overflows. Where one is nan, both must be, or the error is inf."""
    info = np.finfo(result.dtype)
    above = np.ldexp(expected.dtype.type(1), int(info.maxexp))
    with np.errstate(invalid="ignore"):
        clipped = np.clip(expected, -above, above)
        error = abs(np.clip(result.astype(expected.dtype), -above, above) - clipped)
        exponent = np.frexp(clipped if scale is None else scale)[1]
        exponent = np.clip(exponent, info.minexp + 1, info.maxexp) - info.nmant - 1
        error = np.ldexp(error, -exponent)
    error[np.isnan(expected) & np.isnan(result)] = 0
    error[np.isnan(expected) != np.isnan(result)] = np.inf
    return error


def error(function: str, result: Array, x: Array, expected: Array) -> Array:
    """As `ulps`; of gelu, whose factor cancels, in ulp of x."""
    return ulps(result, expected, x if function == "gelu" else None)


def assert_same(result: Array, expected: Array, arguments: Iterable[Array]) -> None:
    """Equal, nan to nan, and zeros with their sign."""
    same = (result == expected) & (np.signbit(result) == np.signbit(expected))
    same |= np.isnan(result) & np.isnan(expected)
    wrong = np.flatnonzero(~same)[:5]
    rows = np.transpose([*arguments, result, expected])[wrong]
    assert not wrong.size, f"arguments, result, expected: {rows.tolist()}"
