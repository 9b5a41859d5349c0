"""The emulated backend: what kernels compute and count, and how it behaves in its process."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrdsl.backends import emulated_build, native
from lrdsl.backends.emulated import SCHEDULES, EmulationError, Emulator, Schedule, Sectors, load
from lrdsl.errors import InternalError, ToolchainError

from .test_emulated import COPY, Memory, run, source

pytestmark = pytest.mark.usefixtures("compiler")
EVERY = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.threads}-{s.blocks}")
LANES = np.arange(64)


# What it computes.

TOGETHER: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "__shfl_sync(~0u, i, 5)": ("", lambda i: i // 32 * 32 + 5),
    "__shfl_sync(~0u, i, i + 3, 8)": ("", lambda i: i // 8 * 8 + (i + 3) % 8),
    "__shfl_up_sync(~0u, i, 3)": ("", lambda i: np.where(i % 32 < 3, i, i - 3)),
    "__shfl_down_sync(~0u, i, 3, 16)": ("", lambda i: np.where(i % 16 > 12, i, i + 3)),
    "__shfl_xor_sync(~0u, double(i) + 0.5, 6)": ("", lambda i: (i ^ 6) + 0.5),
    "__popc(__ballot_sync(~0u, i % 3 == 0))": ("", lambda i: np.where(i < 32, 11, 11)),
    "__ffs(__ballot_sync(~0u, i > 40))": ("", lambda i: np.where(i < 32, 0, 10)),
    "__any_sync(~0u, i == 40) + 2 * __all_sync(~0u, i < 32)": ("", lambda i: np.where(i < 32, 2, 1)),
    "__syncthreads_or(i == 40)": ("", lambda i: i * 0 + 1),
    "__syncthreads_and(i != 40)": ("", lambda i: i * 0),
    "__syncthreads_count(i % 3 == 0)": ("", lambda i: i * 0 + 22),
    "__shfl_sync(~0u, i, 1)": ("if (i % 2 == 0) {\n  a.y[i] = 0;\n  return;\n}",  # who has ended is not waited for
                               lambda i: np.where(i % 2, i // 32 * 32 + 1, 0)),
    "atomicMax(&s[1], i) * 0 + s[0]": ("__shared__ int s[2];\nif (i == 0) s[0] = 7, s[1] = 0;\n__syncthreads();",
                                       lambda i: i * 0 + 7),
}


@pytest.mark.parametrize("call", TOGETHER)
def test_threads_together(call: str) -> None:
    """Lanes and threads exchange what CUDA says, in whatever order they come."""
    before, wanted = TOGETHER[call]
    for schedule in SCHEDULES:
        y, _ = run(f"{before}\na.y[i] = {call};", schedule, block=64)
        np.testing.assert_array_equal(y[0], wanted(LANES))


def test_arithmetic_of_the_prelude() -> None:
    """Functions that no C library has, and the limits of a fast division."""
    calls = {"__uint_as_float(__float_as_uint(2.5f))": 2.5,
             "__hiloint2double(__double2hiint(-1.1), __double2loint(-1.1))": -1.1, "__fdividef(3, 2)": 1.5,
             "__fdividef(3, 1e38f)": 0.0, "normcdff(0.5f)": 0.5 * math.erfc(-0.5 / math.sqrt(2)),
             "fmaf(3, 4, 5)": 17, "isfinite(INFINITY)": 0, "isnan(NAN)": 1, "max(2, 3) + min(2.0f, 1.5f)": 4.5,
             "exp(float(1))": math.exp(1), "exp(1.0)": math.e, "__clz(1)": 31, "rsqrtf(4)": 0.5, "warpSize": 32,
             "double(make_double2(1, 2).y + make_uint4(1, 2, 3, 4).w)": 6}
    body = "".join(f"if (i == {k}) a.y[i] = {call};\n" for k, call in enumerate(calls))
    y, _ = run(f"{body}if (i >= {len(calls)}) a.y[i] = 0;")
    np.testing.assert_allclose(y[0, :len(calls)], np.float32(list(calls.values())), rtol=1e-7)


@EVERY
def test_blocks_and_copies(schedule: Schedule) -> None:
    """Each thread of each block walks a ring of cp.async in shared memory; some blocks are not full."""
    body = """__shared__ float4 ring[3][16];
    const int c = 16 * blockIdx.x + i;
    if (4 * c >= a.C) return;
    for (int t = 0; t < 2; ++t) {
      __pipeline_memcpy_async(&ring[t][i], a.x + t * a.x_time + 4 * c, 16, t == 1 ? 4 : 0);
      __pipeline_commit();
    }
    for (int t = 0; t < a.T; ++t) {
      if (t + 2 < a.T) __pipeline_memcpy_async(&ring[(t + 2) % 3][i], a.x + (t + 2) * a.x_time + 4 * c, 16);
      __pipeline_commit();
      __pipeline_wait_prior(2);
      __stcs((float4 *)(a.y + t * a.y_time) + c, ring[t % 3][i]);
    }"""
    memory = Memory(7, 200, gap=4)
    counts = Emulator(source(body, 16)).run(memory.values, schedule)
    wanted = memory.x.copy()
    wanted[0, 1, 3::4] = 0
    np.testing.assert_array_equal(memory.y, wanted)
    assert counts.loaded() == 4 * (7 * 200 - 50) and counts.stored() == 4 * 7 * 200


@EVERY
def test_inputs_may_share_memory(schedule: Schedule) -> None:
    """Rows that overlap, and another tensor in their midst."""
    memory = Memory(4, 32)
    x = memory.x.ravel()
    values = memory.values
    values[2], values[3] = 1, memory.x.ctypes.data + 4 * 2  # row t of x begins at element t; v at element 2
    body = "for (int t = 0; t < a.T; ++t) a.y[t * a.y_time + i] = __ldg(a.x + t * a.x_time + i) * a.v[i];"
    counts = Emulator(source(body)).run(values, schedule)
    np.testing.assert_array_equal(memory.y[0], [x[t:t + 32] * x[2:34] for t in range(4)])
    assert counts.loaded() == 2 * counts.stored()
    with pytest.raises(EmulationError, match="4 bytes beyond the end of x"):  # though there are more numbers
        Emulator(source("a.y[i] = a.x[4 + i];")).run(values, schedule)


# What it counts.

def test_bytes_are_counted_by_tensor() -> None:
    _, counts = run("a.y[i] = a.x[i] * __ldg(a.v) + (i < 3 ? a.v[i] : 0);", block=64)
    assert [(t.name, t.kind, t.loaded, t.stored) for t in counts.traffic] == [
        ("x", "sequence", 256, 0), ("v", "vector", 256 + 12, 0), ("y", "keep", 0, 256)]
    assert counts.loaded("x") == counts.loaded("sequence") == 256 and counts.loaded() == 524
    assert counts.stored("keep") == counts.stored() == 256 and counts.stored("x") == 0


def test_what_happens_is_counted() -> None:
    body = """uint4 m = make_uint4(1, 2, 3, 4);
    if (i < 8) emu_store_relaxed((uint4 *)a.scratch + 1 + i, m);
    __syncthreads();
    emu_load_relaxed((uint4 *)a.scratch + 1, m);
    atomicAdd(a.scratch, m.x);
    __syncthreads();
    a.y[i] = __shfl_sync(~0u, a.scratch[0] + m.w, 0);"""
    y, counts = run(body, chunk=1)
    assert (y == 36).all()
    assert (counts.atomics, counts.barriers, counts.collectives, counts.polls) == (32, 2, 1, 32)
    assert counts.messages == (32 * 16, 8 * 16)
    assert counts.loaded("scratch") == counts.stored() == 4 * 32


def test_sectors_by_line() -> None:
    """A warp that reads 32 floats side by side asks for 4 sectors; 32 bytes apart, for 32; all the same one, for 1."""
    body = ("real r = a.x[i];\nr += a.x[8 * i];\nr += __ldg((const float4 *)(a.x + 4 * i)).y;\nr += a.v[1];\n"
            "if (i < 16) r += a.x[i + 4];\n"
            "__stcs(a.y + i, r);\nfor (int k = 1; k < 8; ++k)\n  __stcs(a.y + i + 32 * k, r);")
    _, counts = run(f"if (i >= 32) return;\n{body}", block=256, sectors=True)
    text = source(f"if (i >= 32) return;\n{body}", 256).text.splitlines()
    first = next(k for k, line in enumerate(text, 1) if line.startswith("real r"))
    assert {line - first: s for line, s in counts.lines.items()} == {
        0: Sectors(1, 4, 128), 1: Sectors(1, 32, 128), 2: Sectors(1, 16, 512), 3: Sectors(1, 1, 128), 4: Sectors(1, 3, 64),
        5: Sectors(1, 4, 128), 7: Sectors(7, 28, 7 * 128)}
    assert [counts.lines[first + k].efficiency for k in (0, 1, 2)] == [1, 0.125, 1]


@EVERY
def test_a_schedule_repeats_itself(schedule: Schedule) -> None:
    """The same seed gives the same run, thread for thread; random ones differ from seed to seed."""
    body = "__shared__ int s[1];\nif (i == 0) s[0] = 0;\n__syncthreads();\na.y[blockIdx.x * n + i] = atomicAdd(s, 1);"
    runs = [run(body, s, C=128) for s in (schedule, schedule, Schedule("random", "random", 4, 100, seed=77))]
    assert runs[0][1] == runs[1][1] and runs[0][0].tobytes() == runs[1][0].tobytes()
    assert runs[0][0].tobytes() != runs[2][0].tobytes()
    assert all(sorted(row) == list(range(32)) for y, _ in runs for row in y.reshape(4, 32))


# How it behaves.

def test_nothing_is_launched_for_nothing() -> None:
    emulator = Emulator(source("__trap();"))
    assert emulator.run([0] * 10 + [0, 5, 3]).traffic == ()
    assert emulator.run([0] * 10 + [2, 0, 3]).switches == 0
    with pytest.raises(EmulationError, match="trap"):
        emulator.run(Memory(1, 32).values)


def test_what_cannot_be_launched_is_refused() -> None:
    memory, scratch = Memory(1, 32), np.zeros(1024, np.uint8)
    aligned = -(-scratch.ctypes.data // 16) * 16
    with pytest.raises(EmulationError, match="1025 threads"):
        Emulator(source(COPY, 1025)).run(memory.values)
    with pytest.raises(EmulationError, match="1 blocks of 64 threads"):
        Emulator(replace(source(COPY, 32), block=64)).run(memory.values)
    for wrong in (Schedule(resident=0), Schedule(preempt=1025), Schedule(threads="starved")):  # type: ignore[arg-type]
        with pytest.raises(EmulationError, match="makes no sense"):
            Emulator(source(COPY)).run(memory.values, wrong)
    talks = Emulator(source(COPY, chunk=1))
    talks.run(memory.values, scratch=aligned)
    with pytest.raises(EmulationError, match="aligned to 16 bytes"):
        talks.run(memory.values, scratch=aligned + 8)
    scratch[200] = 1
    with pytest.raises(EmulationError, match="all zero"):
        talks.run(memory.values, scratch=aligned)
    with pytest.raises(InternalError, match="takes 104 bytes, not 112"):
        Emulator(source(COPY)).run([*memory.values[:-3], 0, 1, 1, 32])


def test_a_launch_takes_what_every_backend_takes() -> None:
    memory = Memory(1, 64)
    launch = load(source("if (blockIdx.x * n + i < a.C) a.y[blockIdx.x * n + i] = 2 * a.x[blockIdx.x * n + i];", chunk=0))
    assert launch.extent(1, 1, 64).grid == 2
    launch(memory.values, 4, 0, 0, 0)
    np.testing.assert_array_equal(memory.y, 2 * memory.x)


def test_a_text_that_does_not_compile() -> None:
    with pytest.raises(ToolchainError, match="nothing_like_this") as found:
        Emulator(source("a.y[i] = nothing_like_this;"))
    kept = Path(found.value.source)
    assert "nothing_like_this" in kept.read_text()
    kept.unlink()


def test_a_text_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found needs no compiler; another line does."""
    body = f"// {os.getpid()}\n{COPY}"
    Emulator(source(body))

    def refuse(command: Sequence[str], text: str, name: str) -> bytes:
        raise AssertionError(name)

    monkeypatch.setattr(native, "compiled", refuse)
    Emulator(source(body))
    with pytest.raises(AssertionError, match="small"):
        Emulator(source(f"\n{body}"))


def test_memory_that_is_not_there() -> None:
    """A signal is a report with its line. Python's own handlers are in place again after it."""
    page = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert protect(address, 4096, 0) == 0
    heard: list[int] = []
    old = signal.signal(signal.SIGVTALRM, lambda number, _: heard.append(number))
    try:
        values = Memory(1, 32).values
        with pytest.raises(EmulationError, match="a segmentation fault at address") as found:
            Emulator(source("a.y[i] = a.x[i];")).run([address, *values[1:]])
        assert (found.value.text, found.value.block, found.value.thread) == ("a.y[i] = a.x[i];", 0, 0)
        os.kill(os.getpid(), signal.SIGVTALRM)
    finally:
        signal.signal(signal.SIGVTALRM, old)
        protect(address, 4096, 3)
    assert heard == [signal.SIGVTALRM]


def test_several_threads_of_python() -> None:
    emulator, bad = Emulator(source(COPY)), Emulator(source("a.y[i] = a.x[i - 1];"))
    right: list[bool] = []

    def work(number: int) -> None:
        for _ in range(20):
            memory = Memory(1, 32)
            if number % 2:
                emulator.run(memory.values, SCHEDULES[2])
                right.append(bool((memory.y == memory.x).all()))
            else:
                with pytest.raises(EmulationError, match="before the start of x"):
                    bad.run(memory.values)
                right.append(True)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert right == [True] * 80


def test_a_forked_child() -> None:
    """It runs, also where another thread of its parent held the lock."""
    from lrdsl.backends import emulated

    emulator, memory = Emulator(source(COPY)), Memory(1, 32)
    emulator.run(memory.values)
    with emulated._lock:
        child = os.fork()
        if child == 0:
            memory.y[...] = 0
            try:
                emulator.run(memory.values)
            finally:
                os._exit(0 if (memory.y == memory.x).all() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0


@pytest.mark.long
def test_the_portable_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no switch in assembly, the C library's does."""
    monkeypatch.setattr(emulated_build, "RUNTIME", (*emulated_build.RUNTIME, "-DEMU_UCONTEXT"))
    for schedule in SCHEDULES:
        y, counts = run("a.y[i] = __syncthreads_count(__shfl_xor_sync(~0u, i, 1) < 7);", schedule, block=64)
        assert (y == 7).all() and counts.switches > 64
    with pytest.raises(EmulationError, match="beyond the end of x"):
        run("a.y[i] = a.x[i + 1];")
