"""Numbers of 16 bits: every conversion that a kernel makes, of all targets, beside torch's own."""

from __future__ import annotations

import ctypes
import functools
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrdsl.backends.memory import numbers, stored
from lrdsl.codegen.environment import text
from lrdsl.files import templates

TORCH = {"bfloat16": torch.bfloat16, "float16": torch.float16}
ALL = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)

# get<>, put<> and write<> with whole vectors, then the lanes that are left, as a kernel walks a row.
CPU = """
extern "C" void up(const Stored *x, float *y, long n) {
  long i = 0;
  for (; i + LANES <= n; i += LANES) put<true>(y + i, get<true>(x + i, LANES), LANES);
  if (i < n) put<false>(y + i, get<false>(x + i, n - i), n - i);
}
extern "C" void down(const float *x, Stored *y, long n, bool past) {
  long i = 0;
  for (; i + LANES <= n; i += LANES) write<true>(y + i, get<true>(x + i, LANES), LANES, past);
  if (i < n) write<false>(y + i, get<false>(x + i, n - i), n - i, past);
}
extern "C" void same(const Stored *x, float *y, long n) {
  for (long i = 0; i < n; ++i) y[i] = splat(x[i])[0];
}
extern "C" long lanes() { return LANES; }
"""
CUDA = """
extern "C" __attribute__((visibility("default"))) void up(const Stored *x, float *y, long n) {
  for (long i = 0; i < n; ++i) y[i] = widened(x[i]);
}
extern "C" __attribute__((visibility("default"))) void down(const float *x, Stored *y, long n, bool) {
  for (long i = 0; i < n; ++i) y[i] = narrowed(x[i]);
}
"""
WAYS = [("cpu", "g++", "native"), ("cpu", "g++", "x86-64-v3"), ("cpu", "g++", "x86-64"), ("cpu", "clang++", "native"),
        ("cpu", "clang++", "x86-64-v3"), ("cuda", "g++", "native"), ("cuda", "clang++", "native")]


def source(target: str, dtype: str) -> str:
    """The headers of a kernel, and loops over them."""
    head = f"typedef float real;\n#define LR_DOUBLE 0\n#define LR_BFLOAT {int(dtype == 'bfloat16')}\n"
    if target == "cpu":
        return head + "".join(text(f"cpu/{name}.h") for name in ("vmath", "common", "narrow")) + CPU
    emulator = "".join(text(f"emulated/{name}.h").replace("#pragma once", "") for name in ("calls", "cuda"))
    return emulator + head + "".join(text(f"cuda/{name}.cuh") for name in ("prelude", "narrow")) + CUDA


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("narrow")

    @functools.cache
    def build(target: str, compiler: str, march: str, dtype: str) -> ctypes.CDLL:
        if not shutil.which(compiler):
            pytest.skip(f"no {compiler}")
        if platform.machine() != "x86_64":
            pytest.skip("the widths are x86's")
        if march == "x86-64-v3" and "f16c" not in Path("/proc/cpuinfo").read_text():
            pytest.skip("this CPU does not run x86-64-v3")
        library = place / f"{target}-{compiler}-{march}-{dtype}.so"
        command = [compiler, "-std=gnu++17", "-O2", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-x", "c++",
                   f"-march={march}", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unused-function",
                   "-Wno-unused-parameter", "-Wno-unused-variable", "-Wno-unknown-pragmas", "-o", str(library), "-"]
        done = subprocess.run(command, input=source(target, dtype), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:3000]
        return ctypes.CDLL(str(library))

    return build


def up(library: ctypes.CDLL, bits: Any, function: str = "up") -> Any:
    out = np.full(len(bits), 7, np.float32)
    getattr(library, function)(*(ctypes.c_void_p(a.ctypes.data) for a in (bits, out)), ctypes.c_long(len(bits)))
    return out


def down(library: ctypes.CDLL, values: Any, past: bool = False) -> Any:
    room = np.full(len(values) + 64, 7, np.uint16)
    out = room[-room.ctypes.data % 64 // 2:][:len(values)]
    library.down(*(ctypes.c_void_p(a.ctypes.data) for a in (values, out)), ctypes.c_long(len(values)), ctypes.c_bool(past))
    return out


def floats(dtype: str) -> Any:
    """Every number of the dtype, the midpoints of neighbours, the floats beside both; all the edges of float32; many others."""
    bits = torch.from_numpy(ALL.view(np.int16)).view(TORCH[dtype]).double().numpy()
    finite = np.unique(bits[np.isfinite(bits)])
    beyond = 2 * finite[-1] - finite[-2]
    ends = np.concatenate([[-beyond], finite, [beyond]])
    near = np.concatenate([finite, (ends[1:] + ends[:-1]) / 2]).astype(np.float32)  # bfloat16's last midpoint is inf
    tiny = np.ldexp(1.0, [-149, -148, -134, -133, -127, -126, -25, -24, -15, -14]).astype(np.float32)
    rng = np.random.default_rng(0)
    any_bits = rng.integers(0, 1 << 32, 1 << 21, dtype=np.uint64).astype(np.uint32).view(np.float32)
    specials = np.array([0.0, np.inf, np.nan, 3.4028235e38, 65519.996, 65520, 65504], np.float32)
    plain = np.concatenate([near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf)), tiny,
                            specials, any_bits])
    return np.concatenate([plain, -plain])


def assert_same(got: Any, want: Any) -> None:
    """The same bits, but any nan for a nan."""
    kind = got.dtype
    got, want = (torch.from_numpy(a.view(np.int16)).view(TORCH[want[1]]) if kind == np.uint16 else torch.from_numpy(a)
                 for a in (got, want[0]))
    both = torch.isnan(got) & torch.isnan(want)
    view = torch.int16 if kind == np.uint16 else torch.int32
    bad = ~both & (got.view(view) != want.view(view))
    assert not bad.any(), (got[bad][:5], want[bad][:5])


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize(("target", "compiler", "march"), WAYS)
def test_all_numbers_are_read_as_torch_reads_them(built: Any, target: str, compiler: str, march: str, dtype: str) -> None:
    library = built(target, compiler, march, dtype)
    want = torch.from_numpy(ALL.view(np.int16)).view(TORCH[dtype]).float().numpy()
    assert_same(up(library, ALL), (want, dtype))
    assert_same(up(library, ALL[3:]), (want[3:], dtype))  # rows may begin anywhere
    if target == "cpu":
        assert_same(up(library, ALL, "same"), (want, dtype))


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize(("target", "compiler", "march"), WAYS)
def test_numbers_are_rounded_as_torch_rounds_them(built: Any, target: str, compiler: str, march: str, dtype: str) -> None:
    library, values = built(target, compiler, march, dtype), floats(dtype)
    want = torch.from_numpy(values).to(TORCH[dtype]).view(torch.int16).numpy().view(np.uint16)
    assert_same(down(library, values), (want, dtype))
    assert_same(down(library, values, past=True), (want, dtype))
    assert_same(down(library, values[5:1000]), (want[5:1000], dtype))


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("march", ["native", "x86-64-v3", "x86-64"])
def test_lanes_that_are_not_there_are_left_alone(built: Any, march: str, dtype: str) -> None:
    library = built("cpu", "g++", march, dtype)
    for n in range(1, 2 * library.lanes()):
        values, room = np.linspace(1, 2, n).astype(np.float32), np.full(n + 40, 7, np.uint16)
        library.down(*(ctypes.c_void_p(a.ctypes.data) for a in (values, room[1:])), ctypes.c_long(n), ctypes.c_bool(False))
        assert room[0] == 7 and (room[n + 1:] == 7).all()
        assert_same(room[1:n + 1], (stored(values, dtype).view(np.uint16), dtype))


@pytest.mark.parametrize("dtype", TORCH)
def test_the_definition_rounds_once(dtype: str) -> None:
    """From float64: through float32 a number just beside a midpoint would be rounded twice, and to the wrong side."""
    values = floats(dtype)
    want = torch.from_numpy(values).to(TORCH[dtype]).view(torch.int16).numpy().view(np.uint16)
    assert_same(stored(values, dtype).view(np.uint16), (want, dtype))
    back = numbers(ALL if dtype == "bfloat16" else ALL.view(np.float16), dtype)
    with np.errstate(invalid="ignore"):
        back = back.astype(np.float32)
    assert_same(back, (torch.from_numpy(ALL.view(np.int16)).view(TORCH[dtype]).float().numpy(), dtype))
    middle = 1 + 2.0**-8 if dtype == "bfloat16" else 1 + 2.0**-11
    up_, even = (numbers(stored(np.array([v]), dtype), dtype)[0] for v in (middle + 2.0**-40, middle))
    assert even == 1 and up_ > 1


def test_headers_include_nothing() -> None:
    for name in ("cpu/narrow.h", "cuda/narrow.cuh"):
        said = (templates() / name).read_text()
        assert "#include" not in said and not any(mark in said for mark in ("{{ ", "{%", "{#"))
