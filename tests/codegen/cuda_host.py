"""The functions of the CUDA prelude, compiled for the CPU with the C library in the place of NVIDIA's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

STAND_INS = """
#include <cmath>
#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(threads)
template <class T> static T __ldg(const T *p) { return *p; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }
static inline float normcdff(float x) { return normcdf(double(x)); }
"""


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


def available() -> bool:
    """Whether there is a g++."""
    return shutil.which("g++") is not None

