"""The emulated backend on small texts: for each sin one that commits it, found at its line, and a twin that does not."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrdsl.backends.emulated import SCHEDULES, Counts, EmulationError, Emulator, Schedule
from lrdsl.ir.program import Buffer, Keep, Program, Vector
from lrdsl.ir.source import Source

pytestmark = pytest.mark.usefixtures("compiler")

PROGRAM = Program("small", False, (Buffer("x", ("x",)),), (Vector("v"),), (), (), (Keep("y", ("y",)),))
TEXT = """typedef float real;
typedef long long Index;
{before}
namespace small_ {{
struct Args {{
  const real *x;
  Index x_batch, x_time;
  const real *v;
  real *y;
  Index y_batch, y_time;
  const unsigned char *reset;
  Index reset_batch, reset_time, B, T, C;
{scratch}}};
extern "C" __global__ void __launch_bounds__({block}) small(const Args a) {{
  const int i = threadIdx.x, n = blockDim.x;
{body}
}}
}}
"""


def source(body: str, block: int = 32, chunk: int = 0, before: str = "") -> Source:
    """A text with the slots of PROGRAM around the body of its kernel; `before` is at its top. A chunk comes with scratch."""
    text = TEXT.format(body=body, block=block, before=before, scratch="  unsigned *scratch;\n" if chunk else "")
    return Source("cuda", "small", text, PROGRAM, "float32", block, chunk, int(chunk > 0))


class Memory:
    """x (1, T, C): 0, 1, 2 …; v (C,): ones; y (1, T, C): nan. Rows lie `gap` apart, and there is room around them."""

    def __init__(self, T: int, C: int, gap: int = 0) -> None:
        self.T, self.C = T, C
        self.x, self.y = (self._strided(fill, gap) for fill in (np.arange(T * C), np.full(T * C, np.nan)))
        self.v = np.ones(C, np.float32)

    def _strided(self, fill: Any, gap: int) -> Any:
        room = np.full(self.T * (self.C + gap) + 256, 7e7, np.float32)
        start = 64 + -room.ctypes.data // 4 % 64  # aligned as a GPU's memory
        part = room[start:start + self.T * (self.C + gap)].reshape(1, self.T, self.C + gap)[..., :self.C]
        part[...] = fill.reshape(1, self.T, self.C)
        return part

    @property
    def values(self) -> list[int]:
        """The slots of a call."""
        x, y = ([a.ctypes.data, a.strides[0] // 4, a.strides[1] // 4] for a in (self.x, self.y))
        return [*x, self.v.ctypes.data, *y, 0, 0, 0, 1, self.T, self.C]


def run(body: str, schedule: Schedule = Schedule(), *, T: int = 1, C: int = 0, gap: int = 0, sectors: bool = False,
        **how: Any) -> tuple[Any, Counts]:
    """(y, counts). The grid is one block, or T of them where `chunk` is 1 and C 32."""
    memory = Memory(T, C or how.get("block", 32), gap)
    counts = Emulator(source(body, **how)).run(memory.values, replace(schedule, seconds=0.3), sectors=sectors)
    return memory.y[0], counts


def caught(body: str, schedule: Schedule = Schedule(), **how: Any) -> EmulationError:
    """The error of a text. Its line is the one that ends in `// here`, if any does."""
    with pytest.raises(EmulationError) as found:
        run(body, schedule, **how)
    error, text = found.value, source(body, how.get("block", 32), how.get("chunk", 0), how.get("before", "")).text.splitlines()
    marked = [(k, line.strip()) for k, line in enumerate(text, 1) if line.endswith("// here")]
    assert (error.line, error.text) in (marked or [(0, "")]), error
    assert not marked or f"line {error.line} of small: {error.text}" in str(error)
    assert f"again with {replace(schedule, seconds=0.3)}" in str(error)
    return error


COPY = "a.y[i] = a.x[i];"
ROWS = "for (int t = 0; t < 2; ++t)\n  a.y[t * {to} + i] = a.x[t * {of} + i];"
SHARED = "__shared__ real s[64];\ns[i] = i;\n"
HALF = SHARED + """if (i < 16) {{
  __syncwarp(0xffffu);
  real r = s[i ^ 1];{1}
  __syncwarp(3u << (i & ~1));  // of two lanes
  s[{0}] = r;{1}
}}
a.y[i] = a.x[i];"""
STORED = "__syncthreads();\na.y[i] = s[n - 1 - i];"

# name: (what is said, the sin, its twin without it, how it is run)
SINS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "a load beyond the end": (
        "out of bounds: a load of 4 bytes, 4 bytes beyond the end of x",
        "a.y[i] = a.x[i / 31 * 32];  // here", "a.y[i] = a.x[i / 32 * 31];", {}),
    "a load before the start": (
        "out of bounds: a load of 4 bytes, 8 bytes before the start of v",
        "a.y[i] = __ldg(a.v - i / 31 * 2);  // here", "a.y[i] = __ldg(a.v + i);", {}),
    "a store beyond the end": (
        "out of bounds: a store of 8 bytes, 8 bytes beyond the end of y",
        "if (i <= 16)\n  __stcs((float2 *)a.y + i, make_float2(1, 2));  // here",
        "if (i < 16)\n  __stcs((float2 *)a.y + i, make_float2(1, 2));", {}),
    "a null pointer": (
        "out of bounds: a load of 1 bytes through a null pointer",
        "a.y[i] = a.reset[i];  // here", "a.y[i] = a.reset ? a.reset[i] : 0;", {}),
    "a load between rows": (
        r"out of bounds: a load of 4 bytes between the rows of x, (4|8|12|16) bytes after x\[0, 0, 31\]",
        ROWS.format(to="a.y_time", of="a.C") + "  // here", ROWS.format(to="a.y_time", of="a.x_time"), {"T": 2, "gap": 4}),
    "a store between rows": (
        r"out of bounds: a store of 4 bytes between the rows of y, (4|8|12|16) bytes after y\[0, 0, 31\]",
        ROWS.format(to="a.C", of="a.x_time") + "  // here", ROWS.format(to="a.y_time", of="a.x_time"), {"T": 2, "gap": 4}),
    "a large copy": (
        "out of bounds: a load of 128 bytes, 4 bytes beyond the end of x",
        "struct Row { real at[32]; } row;\nif (i) return;\nmemcpy(&row, a.x + 1, sizeof row);  // here\n*(Row *)a.y = row;",
        "struct Row { real at[32]; } row;\nif (i) return;\nmemcpy(&row, a.x, sizeof row);\n*(Row *)a.y = row;", {}),
    "an index of a shared array": (
        "out of bounds: the index 64 of an array",
        SHARED + "s[i + 33] = 1;  // here\n" + COPY, SHARED + "s[i + 32] = 1;\n" + COPY, {}),
    "misaligned double": (
        "misaligned: a load of 8 bytes, 4 bytes off",
        "a.y[i] = *(const double *)(a.x + 1);  // here", "a.y[i] = *(const double *)(a.x + 2);", {}),
    "misaligned vector": (
        "misaligned: a load of 16 bytes, 8 bytes off",
        "a.y[i] = __ldg((const float4 *)(a.x + 2)).w;  // here", "a.y[i] = __ldg((const float4 *)(a.x + 4)).w;", {}),
    "misaligned vector without an intrinsic": (
        "misaligned: 8 bytes off an address that is a multiple of 16",
        "const float4 q = *(const float4 *)(a.x + 2);  // here\na.y[i] = q.w;",
        "const float4 q = *(const float4 *)(a.x + 4);\na.y[i] = q.w;", {}),
    "an input is written": (
        r"store to the input x\[0, 0, \d+\]",
        COPY + "\n((real *)a.x)[i] = 2;  // here", COPY, {}),
    "an output is written twice": (
        r"a second store to y\[0, 0, 4\]",
        "a.y[i] = 1;  // here\nif (i == 3) a.y[i + 1] = 2;  // here",
        "if (i != 4) a.y[i] = 1;\nif (i == 3) a.y[i + 1] = 2;", {}),
    "an output is never written": (
        r"never written: y\[0, 0, 5\], the first of 2 elements",
        "if (i != 5 && i != 9) a.y[i] = 1;", "a.y[i] = 1;", {}),
    "an output is read before": (
        r"read of y\[0, 0, \d+\], which nobody has written",
        "a.y[i] = a.y[31 - i];  // here",
        "if (i < 16) a.y[i] = 1;\n__syncthreads();\nif (i >= 16) a.y[i] = a.y[i - 16];", {}),
    "a read-only load of an output": (
        r"a read-only load \(__ldg\) of y, which the kernel writes",
        "if (i < 16) a.y[i] = 1;\n__syncthreads();\nif (i >= 16) a.y[i] = __ldg(a.y + i - 16);  // here",
        "if (i < 16) a.y[i] = 1;\n__syncthreads();\nif (i >= 16) a.y[i] = __ldcg(a.y + i - 16);", {}),
    "an atomic on an output": (
        "an atomic on y; only scratch and shared memory have any",
        "atomicAdd(a.y + i, 1.0f);  // here", "a.y[i] = 1;", {}),
    "a global load of shared memory": (
        "a load of shared memory by an instruction for global memory",
        SHARED + "a.y[i] = __ldg(s + i);  // here", SHARED + "a.y[i] = s[i];", {}),
    "shared memory that nobody wrote": (
        "a read of shared memory that nobody has written",
        "__shared__ real s[32];\na.y[i] = s[i];  // here", "__shared__ real s[32];\ns[i] = 1;\na.y[i] = s[i];", {}),
    "the shared memory of another block": (
        "a read of shared memory that nobody has written",
        "__shared__ real s[32];\nif (blockIdx.x == 0) s[i] = 1;\na.y[blockIdx.x * n + i] = s[i];  // here",
        "__shared__ real s[32];\ns[i] = 1;\na.y[blockIdx.x * n + i] = s[i];", {"C": 64}),
    "a race with a read": (
        "a race in shared memory: one thread (reads|stores over) what another (reads|stores)",
        SHARED + STORED + "  // here\ns[i] = 2;  // here\n", SHARED + STORED + "\n__syncthreads();\ns[i] = 2;", {"block": 64}),
    "a race of stores": (
        "a race in shared memory: one thread stores over what another stores",
        SHARED + "s[63] = i;  // here\n" + COPY, SHARED + "s[63 - i] = i;\n" + COPY, {}),
    "a race in a warp": (
        "a race in shared memory",
        SHARED + "__syncwarp();\nreal r = s[i ^ 1];  // here\ns[i] = r;  // here\n" + COPY,
        SHARED + "__syncwarp();\nreal r = s[i ^ 1];\n__syncwarp();\ns[i] = r;\n" + COPY, {}),
    "a race in half a warp": (
        "a race in shared memory", HALF.format("i ^ 2", "  // here"), HALF.format("i", ""), {}),
    "a shuffle that is taken for a barrier": (
        "a race in shared memory|a read of shared memory that nobody has written",
        SHARED + "__shfl_sync(~0u, i, 3);\na.y[i] = s[i ^ 1];  // here",
        SHARED + "__shfl_sync(~0u, i, 3);\n__syncwarp();\na.y[i] = s[i ^ 1];", {}),
    "a warp's barrier between warps": (
        "a race in shared memory|a read of shared memory that nobody has written",
        SHARED + "__syncwarp();\na.y[i] = s[63 - i];  // here", SHARED + STORED, {"block": 64}),
    "an atomic against a store": (
        "a race in shared memory",
        SHARED + "__syncwarp();\natomicAdd(&s[1], 1.0f);  // here\nif (i == 9) s[1] = 3;  // here\n" + COPY,
        SHARED + "__syncwarp();\natomicAdd(&s[1], 1.0f);\n" + COPY, {}),
    "a copy that is not waited for": (
        "a read of shared memory that nobody has written",
        "__shared__ real s[32];\n__pipeline_memcpy_async(s + i, a.x + i, 4);\n__pipeline_commit();\na.y[i] = s[i];  // here",
        "__shared__ real s[32];\n__pipeline_memcpy_async(s + i, a.x + i, 4);\n__pipeline_commit();\n__pipeline_wait_prior(0);\n"
        "a.y[i] = s[i];", {}),
    "a copy of an odd size": (
        "cp.async copies 4, 8 or 16 bytes, not 12",
        "__shared__ real s[32];\n__pipeline_memcpy_async(s, a.x, 12);  // here\n" + COPY, COPY, {}),
    "divergent barriers": (
        "divergent barrier: threads of one block wait at different ones",
        "if (i < 16)\n  __syncthreads();  // here\nelse\n  __syncthreads();  // here\n" + COPY,
        "__syncthreads();\n" + COPY, {}),
    "a shuffle of other lanes": (
        "a shuffle reads lane 20, which takes no part",
        "a.y[i] = i < 16 ? __shfl_sync(0xffffu, i, 20) : 0;  // here",
        "a.y[i] = i < 16 ? __shfl_sync(0xffffu, i, 12) : 0;", {}),
    "a lane that its mask leaves out": (
        "a lane calls a warp's collective that its own mask 0x0000ffff leaves out",
        "a.y[i] = __shfl_sync(0xffffu, i, 12);  // here", "a.y[i] = __shfl_sync(~0u, i, 12);", {}),
    "lanes that meet in different collectives": (
        "lanes of one warp meet in different collectives",
        "int k;\nif (i < 16)\n  k = __shfl_sync(~0u, i, 3);  // here\nelse\n  k = __ballot_sync(~0u, i);  // here\na.y[i] = k;",
        "a.y[i] = __shfl_sync(~0u, i, 3);", {}),
    "a deadlock": (
        "deadlock: no thread of block 0 can go on",
        "if (i < 16)\n  __syncthreads();  // here\nelse\n  __syncwarp();  // here\n" + COPY,
        "if (i < 16)\n  __syncwarp(0xffffu);\nelse\n  __syncwarp(0xffff0000u);\n" + COPY, {}),
    "a livelock": (
        "livelock: the 1 resident blocks only poll, and 0 have not begun",
        "while (*(volatile unsigned *)a.scratch == 0) {}  // here\n" + COPY,
        "if (i == 31) *(volatile unsigned *)a.scratch = 1;\nwhile (*(volatile unsigned *)a.scratch == 0) {}\n" + COPY,
        {"chunk": 1}),
    "an endless loop": (
        "the time limit of 0.3 s is over: an endless loop?",
        "unsigned sum = 0;\nfor (unsigned k = 1; k; k *= 3) sum += k ^ i;  // here\na.y[i] = sum;",
        "unsigned sum = 0;\nfor (unsigned k = 1; k != 27; k *= 3) sum += k ^ i;\na.y[i] = sum;", {}),
    "an endless loop of accesses": (
        "the time limit of 0.3 s is over: an endless loop?",
        "__shared__ unsigned s[32];\nfor (unsigned k = 1; k; k *= 3) s[i] = k;  // here\n" + COPY, COPY, {}),
    "a division by zero": (
        "an arithmetic exception, as of a division of integers by zero",
        "a.y[i] = 7 / int(a.T - 1);  // here", "a.y[i] = 7 / int(a.T);", {}),
    "a trap": ("__trap()", "if (i == 3) __trap();  // here\n" + COPY, "if (i == 32) __trap();\n" + COPY, {}),
    "local variables without end": (
        "the local variables of a thread take more than the 262144 bytes of its stack",
        "real s[70000];\nfor (int k = 0; k < 70000; ++k) s[k] = a.x[(k + i) % 32];\na.y[i] = s[69999] + s[int(a.T)];",
        "real s[2000];\nfor (int k = 0; k < 2000; ++k) s[k] = a.x[(k + i) % 32];\na.y[i] = s[1999] + s[int(a.T)];", {}),
    "more shared memory than there is": (
        "a block has 65536 bytes of static shared memory; there are 49152",
        "__shared__ real s[16384];\ns[i] = 1;\na.y[i] = s[i];", "__shared__ real s[12000];\ns[i] = 1;\na.y[i] = s[i];", {}),
}


@pytest.mark.parametrize("sin", SINS)
def test_a_sin_is_found_at_its_line(sin: str) -> None:
    """Under every schedule; and the twin passes. After each the process goes on as if nothing had been."""
    what, body, twin, how = SINS[sin]
    schedules = SCHEDULES[:1] if "endless" in sin else SCHEDULES
    for schedule in schedules:
        if sin == "local variables without end":  # the line is where the kernel begins: it makes room for them first
            with pytest.raises(EmulationError, match=what):
                run(body, schedule, **how)
        else:
            error = caught(body, schedule, **how)
            assert re.search(what, error.what), error
    for schedule in schedules:
        run(twin, schedule, **how)
