"""Kernels and functions for ARM, by a cross compiler, run by an emulator of its instructions (Debian: g++-aarch64-linux-gnu,
qemu-user), on numbers that come through a pipe."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrdsl.backends.native import FLAGS

Array = Any
COMPILER = ("aarch64-linux-gnu-g++", *(flag for flag in FLAGS if flag not in ("-fPIC", "-shared")), "-static")
# Vectors of each width that the templates know there: what the compiler is told, and the emulator.
WIDTHS = {"neon": (["-march=armv8-a"], ["-cpu", "cortex-a72"]),
          "sve256": (["-march=armv8.2-a+sve", "-msve-vector-bits=256"], ["-cpu", "max,sve256=on,sve512=off"]),
          "sve512": (["-march=armv8.2-a+sve", "-msve-vector-bits=512"], ["-cpu", "max,sve512=on"])}

# Reads pieces of memory (address, size, bytes) and numbers, of which those that are addresses in a piece are moved along;
# calls `entry`; writes the pieces.
DRIVER = """
#include <stdio.h>
#include <stdlib.h>
#ifdef __ARM_FEATURE_SVE
#include <sys/prctl.h>
#endif
struct Piece { unsigned long address, size; char *here; };
static void need(bool holds) { if (!holds) exit(9); }
int main() {
#ifdef __ARM_FEATURE_SVE
  need(prctl(PR_SVE_SET_VL, __ARM_FEATURE_SVE_BITS / 8) == __ARM_FEATURE_SVE_BITS / 8);
#endif
  unsigned long sizes[2];
  need(fread(sizes, 8, 2, stdin) == 2);
  Piece *pieces = new Piece[sizes[0]];
  for (unsigned long k = 0; k < sizes[0]; ++k) {
    need(fread(&pieces[k], 8, 2, stdin) == 2);
    pieces[k].here = (char *)aligned_alloc(64, (pieces[k].size + pieces[k].address % 64 + 127) / 64 * 64);
    pieces[k].here += pieces[k].address % 64;
    need(fread(pieces[k].here, 1, pieces[k].size, stdin) == pieces[k].size);
  }
  unsigned long *values = new unsigned long[sizes[1]];
  need(fread(values, 8, sizes[1], stdin) == sizes[1]);
  for (unsigned long v = 0; v < sizes[1]; ++v)
    for (unsigned long k = 0; k < sizes[0]; ++k)
      if (values[v] - pieces[k].address < pieces[k].size) {
        values[v] += (unsigned long)pieces[k].here - pieces[k].address;
        break;
      }
  ENTRY(values);
  for (unsigned long k = 0; k < sizes[0]; ++k) fwrite(pieces[k].here, 1, pieces[k].size, stdout);
}
"""


def build(text: str, call: str, width: str, directory: Path) -> list[str]:
    """The command that runs a text's `call` of the numbers `values`. Without compiler or emulator the test is skipped."""
    emulator = next(filter(None, map(shutil.which, ("qemu-aarch64", "qemu-aarch64-static"))), None)
    if not emulator or not shutil.which(COMPILER[0]):
        pytest.skip("no g++-aarch64-linux-gnu, or no qemu-user")
    product = directory / f"{width}-{len(list(directory.iterdir()))}"
    driver = DRIVER.replace("ENTRY(values)", call)
    done = subprocess.run([*COMPILER, *WIDTHS[width][0], "-o", str(product), "-"], input=f"{text}\n{driver}", text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return [emulator, *WIDTHS[width][1], str(product)]


def run(command: Sequence[str], values: Sequence[int], memory: Sequence[Array]) -> None:
    """Call it on numbers, some of which are addresses in arrays; these change as they would if it ran here."""
    parts = [np.array([len(memory), len(values)], "u8").tobytes()]
    for piece in memory:
        parts += [np.array([piece.ctypes.data, piece.nbytes], "u8").tobytes(), piece.tobytes()]
    said = subprocess.run(command, input=b"".join([*parts, np.array(values, "i8").tobytes()]), capture_output=True, check=True)
    assert len(said.stdout) == sum(piece.nbytes for piece in memory), said.stderr
    start = 0
    for piece in memory:
        piece[...] = np.frombuffer(said.stdout, piece.dtype, piece.size, start).reshape(piece.shape)
        start += piece.nbytes
