"""The CPU backend: compilers and their errors, instruction sets, threads, forks, and no step beyond any tensor."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lrdsl as lr
from lrdsl.backends import native
from lrdsl.errors import BackendUnavailable, ToolchainError
from lrdsl.ir.source import Source
from lrdsl.kernels import source_of
from tests.backends.harness import Problem, load, load_all, programs
from tests.backends.test_agree import functions
from tests.cells_for_tests import CELLS

ROOT = Path(__file__).parents[2]
WARN = ["-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unused-function"]
X86 = platform.machine() == "x86_64"
MARCHES = {"x86-64": set(), "x86-64-v2": {"sse4_2", "ssse3"}, "x86-64-v3": {"avx2", "fma", "bmi2"},
           "x86-64-v4": {"avx512f", "avx512vl", "avx512bw", "avx512dq"}}
fork = multiprocessing.get_context("fork")

pytestmark = pytest.mark.usefixtures("compiler")


def cpu_has(flags: set[str]) -> bool:
    found = Path("/proc/cpuinfo")
    return X86 and found.exists() and flags <= set(found.read_text().split())


def gilr_backward() -> tuple[Any, Problem]:
    [program] = programs(lr.cells.gilr, ["backward"])
    return program, Problem(program, 60, C=100)


# ---- compilers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_generated_text_compiles_without_a_warning(compiler: str) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"there is no {compiler}")
    flags = [f for f in native.FLAGS if f not in ("-w", "-shared")]

    def check(source: Source) -> str:
        done = subprocess.run([compiler, "-march=native", *flags, *WARN, "-S", "-", "-o", os.devnull], input=source.text,
                              capture_output=True, text=True, check=False)
        return done.stderr

    cells = [lr.cells.gilr, CELLS["order_two"], CELLS["against"], CELLS["rotation"], functions]
    sources = [source_of(p, "cpu", dtype) for c in cells for kind, dtype in (("forward", "float64"), ("backward", "float32"))
               for p in programs(c, [kind])]
    sources += [source_of(s.program, "cpu", s.dtype, strategy=way) for s in sources for way in ("lanes", "gathered")]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(check, sources)) == [""] * len(sources)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("march", MARCHES)
def test_other_instruction_sets_give_the_same(march: str, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """$CXX may name another one than this machine's; vectors are then of another length."""
    if not shutil.which(compiler) or not cpu_has(MARCHES[march]):
        pytest.skip(f"{compiler} -march={march} does not run here")
    monkeypatch.setenv("CXX", f"{compiler} -march={march}")
    monkeypatch.setattr(native, "SMALL", 0)
    [forward], (backward, problem) = programs(functions, ["forward"]), gilr_backward()
    load_all([(forward, "float64"), (forward, "float32"), (backward, "float32")])
    def uncached(text: str) -> str:
        return text.replace("CACHE = 32 << 20", "CACHE = 0")

    past = load(backward, "float32", uncached)
    for dtype, kind in (("float64", "forward"), ("float32", "backward")):
        [program], T = programs(functions, [kind]), 150
        found, launch = Problem(program, T, reset="none", C=20), load(program, dtype, uncached, "lanes")
        for C, layout in itertools.product((1, 2, 3, 4, 5, 8), ("plain", "columns", "turned")):
            assert found.error(found.solve(launch, 3, C, layout, dtype, 2)) < {"float64": 2e-14, "float32": 1e-5}[dtype]
    for launch, found, dtype in ((load(forward, "float64"), Problem(forward, 20), "float64"),
                                 (load(forward, "float32"), Problem(forward, 20), "float32"),
                                 (load(backward, "float32"), problem, "float32"), (past, problem, "float32")):
        for C, layout in itertools.product((1, 3, 4, 9, 96, 100), ("plain", "columns")):
            error = found.error(found.solve(launch, 3, C, layout, dtype, 2))
            assert error < {"float64": 2e-14, "float32": 1e-5}[dtype]


def test_cxx_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its arguments, and before what would be found."""
    monkeypatch.delenv("CXX", raising=False)
    assert native.compiler()[1:] == [] and "-march=native" in native._command()
    assert native._command()[-len(native.LINKED):] == list(native.LINKED)
    script = tmp_path / "my c++"
    script.write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/said'\nexec g++ \"$@\"\n")
    script.chmod(0o700)
    monkeypatch.setenv("CXX", f"'{script}' -DANSWER=42 -march=x86-64")
    monkeypatch.setenv("LRDSL_CACHE_DIR", str(tmp_path / "cache"))
    assert native.compiler() == [str(script), "-DANSWER=42", "-march=x86-64"]
    assert native._command()[-1] == "-"  # flags like -fsanitize=address need libraries
    source = Source("cpu", "f", 'extern "C" int f() { return ANSWER; }', programs(lr.cells.gilr, ["forward"])[0], "float32")
    assert ctypes.CDLL(str(native.build(source))).f() == 42
    said = (tmp_path / "said").read_text()
    assert said.startswith("-DANSWER=42 -march=x86-64 ") and "-march=native" not in said


@pytest.mark.parametrize("said", ["", "no-such-compiler", "no-such-compiler -O3"])
def test_without_a_compiler_the_error_tells_the_ways_out(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", said)
    if not said:
        monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BackendUnavailable) as caught:
        native.load(source_of(programs(lr.cells.gilr, ["forward"])[0], "cpu", "float32"))
    text = str(caught.value)
    assert (said.split()[0] if said else "g++, clang++, c++") in text
    assert "apt-get install g++" in text and "CXX" in text and "LRDSL_BACKEND=reference" in text


def test_a_refusal_names_the_command_the_error_and_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    source = Source("cpu", "broken", "int fine;\nint f( { return ü; }\n", programs(lr.cells.gilr, ["forward"])[0], "float32")
    with pytest.raises(ToolchainError) as caught:
        native.build(source)
    error = caught.value
    kept, = (Path(word) for word in error.command if word.endswith(".cpp"))
    try:
        assert error.command[0] == native.compiler()[0] and "-O2" in error.command
        assert "says:    <stdin>:2:" in str(error) and "error: expected" in str(error) and str(kept) in str(error)
        assert kept.read_text() == source.text
        again = subprocess.run([*error.command, "-fsyntax-only"], capture_output=True, text=True, check=False)
        assert again.returncode and "error: expected" in again.stderr  # as it stands there
    finally:
        kept.unlink()


@pytest.mark.parametrize("command", ["false", "true", "sh -c 'kill -9 $$'"])
def test_a_compiler_that_says_nothing_is_refused(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", command)
    source = Source("cpu", "f", f"int f; // {command}", programs(lr.cells.gilr, ["forward"])[0], "float32")
    with pytest.raises(ToolchainError, match=r"says:    nothing, with exit status (1|0|-9)") as caught:
        native.build(source)
    kept, = (Path(word) for word in caught.value.command if word.endswith(".cpp"))
    kept.unlink()


def test_loading_a_kernel_leaves_the_arithmetic_of_the_process_alone() -> None:
    """A library linked with -ffast-math would flush the denormals of everybody."""
    load(gilr_backward()[0], "float32")
    tiny = np.float32(1e-40) * np.float32(0.5)
    assert 0 < tiny < 1e-40 and not any("fast" in flag for flag in native.FLAGS)


# ---- threads and forks ----------------------------------------------------------------------------------------------


def test_eight_threads_run_one_kernel() -> None:
    """The first use too: each compiles, or finds what another one compiled."""
    program, problem = gilr_backward()
    source = source_of(program, "cpu", "float64")
    fresh = Source("cpu", source.entry, f"{source.text}\n// {os.getpid()}\n", program, "float64")

    def work(n: int) -> float:
        launch = native.load(fresh)
        return max(problem.error(problem.solve(launch, 1 + n % 3, 100 - n, "plain", "float64", 1 + n % 2)) for _ in range(30))

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(8))) < 2e-14


def _in_child(problem: Problem, launch: Callable[..., None], results: Any) -> None:
    results.put(problem.error(problem.solve(launch, threads=2)))


@pytest.mark.usefixtures("always_threads")
@pytest.mark.parametrize("name", ["gilr", "rotation"])
def test_threads_that_share_channels_give_the_same_bits(name: str) -> None:
    """700 of them, whose rows do not fill lines: blocks of 256, 256 and 188. 192, whose rows do: blocks of 64."""
    for dtype, allowed, C in (("float64", 2e-13, 700), ("float32", 1e-5, 700), ("float64", 2e-13, 192), ("float32", 1e-5, 192)):
        for program in programs(CELLS[name], ["forward", "backward"]):
            problem, launch = Problem(program, 20, B=1, C=C), load(program, dtype)
            alone, shared = (problem.solve(launch, 1, C, dtype=dtype, threads=n) for n in (1, 3))
            assert problem.error(shared) < allowed
            assert all(alone[n].tobytes() == shared[n].tobytes() for n in alone)


@pytest.mark.usefixtures("always_threads")
def test_a_forked_child_computes() -> None:
    """It has none of its parent's threads, and would wait for them for ever."""
    program, problem = gilr_backward()
    launch = load(program, "float64")
    assert problem.error(problem.solve(launch, threads=2)) < 2e-14  # a parallel region in the parent
    results = fork.SimpleQueue()
    child = fork.Process(target=_in_child, args=(problem, launch, results), daemon=True)
    child.start()
    child.join(20)
    assert child.exitcode == 0 and results.get() < 2e-14
    assert problem.error(problem.solve(launch, threads=2)) < 2e-14


@pytest.mark.usefixtures("always_threads")
def test_a_loader_that_forks_may_run_kernels() -> None:
    from torch.utils.data import DataLoader

    program, problem = gilr_backward()
    launch = load(program, "float64")
    assert problem.error(problem.solve(launch, threads=2)) < 2e-14

    class Items:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, k: int) -> float:
            return problem.error(problem.solve(launch, threads=2)) if k < 4 else 0.0

    items: Any = Items()
    loader: Any = DataLoader(items, num_workers=2, multiprocessing_context="fork", timeout=20)
    assert max(float(x) for x in loader) < 2e-14


SHIM = """
static int asked;
extern "C" int last() { int n = asked; asked = 0; return n; }
extern "C" void GOMP_parallel(void (*run)(void *), void *data, unsigned n, unsigned) {
  asked = n;
  for (unsigned k = 0; k < n; ++k) run(data);
}
"""


def alone(code: str, tmp_path: Path, **environment: str) -> str:
    """What a fresh process, without torch, prints."""
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=300,
                          env={**os.environ, **environment})
    return done.stdout + done.stderr[-3000:]


def test_only_large_work_of_several_pieces_is_shared_and_without_a_pool_none(tmp_path: Path, compiler: list[str]) -> None:
    subprocess.run([*compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(tmp_path / "shim.so")], input=SHIM, text=True,
                   check=True)
    said = alone(f"""
import ctypes
from tests.backends.harness import *
[program] = programs(lr.cells.gilr, ["backward"])
assert "torch" not in sys.modules
before = load(program, "float64")
pool = ctypes.CDLL({str(tmp_path / "shim.so")!r}, mode=ctypes.RTLD_GLOBAL)
after = load(program, "float64", lambda text: text + "typedef int loaded_later;")
large, small = Problem(program, 1 + native.SMALL // 400), Problem(program, 5)
piece = Problem(program, native.SMALL // 24, B=1, C=8)  # three sequences or more
print(large.error(large.solve(before, threads=4)) < 1e-13, pool.last(), end=" ")
for problem, threads in ((large, 4), (large, 1), (small, 4), (piece, 4)):
    print(problem.error(problem.solve(after, problem.B, problem.C, threads=threads)) < 1e-13, pool.last(), end=" ")
""", tmp_path)
    assert said == "True 0 True 4 True 0 True 0 True 0 "


# ---- bounds ---------------------------------------------------------------------------------------------------------

# The portable path: what masked instructions leave out, no sanitizer sees.
SANITIZED = "g++ -march=x86-64-v2 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
WALK = """
from tests.backends import harness
from tests.backends.harness import *
harness.GUARD = 0  # a tensor ends where its memory does
def walk(names, kinds, times, change=str):
    from tests.cells_for_tests import CELLS
    for name in names:
        for program in programs(CELLS[name], kinds):
            launch = load(program, "float32", change)
            for T in times:
                for reset, edges in (("none", "constant"), ("some", "given"), ("every", "mixed")):
                    problem = Problem(program, T, reset=reset, edges=edges, B=2, C=33)
                    for B, C in ((1, 1), (2, 3), (1, 7), (2, 8), (1, 9), (2, 17), (1, 33)):
                        assert problem.error(problem.solve(launch, B, C, LAYOUTS[C % 3], "float32")) < 1e-5
"""


def sanitized(code: str, tmp_path: Path) -> str:
    library = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=False).stdout.strip()
    if not os.path.isabs(library) or not cpu_has(MARCHES["x86-64-v3"]):
        pytest.skip("no libasan of g++ for this machine")
    return alone(WALK + code, tmp_path, CXX=SANITIZED, LD_PRELOAD=library, ASAN_OPTIONS="detect_leaks=0",
                 LRDSL_CACHE_DIR=str(tmp_path / "cache"))


def test_no_kernel_reads_or_writes_beyond_a_tensor(tmp_path: Path) -> None:
    code = 'walk(["order_two"], ["forward", "backward"], (0, 1, 5))\nprint("clean")'
    assert sanitized(code, tmp_path) == "clean\n"


@pytest.mark.long
@pytest.mark.parametrize("name", CELLS)
def test_no_kernel_of_any_cell_reads_or_writes_beyond_a_tensor(name: str, tmp_path: Path) -> None:
    code = f'walk([{name!r}], ("forward", "backward", "second", "tangent"), (0, 1, 2, 9))\nprint("clean")'
    assert sanitized(code, tmp_path) == "clean\n"


@pytest.mark.parametrize("old, new", [
    ("if (i < n) v[i] = p[i];", "v[i] = p[i];"),
    pytest.param("if (i < n) p[i] = v[i];", "p[i] = v[i];", marks=pytest.mark.long),
    pytest.param("rows + (t - k) * time", "rows + (t - k - 1) * time", marks=pytest.mark.long),
    pytest.param("rows(long count) {", "rows(long count) { next += LR_BYTES;", marks=pytest.mark.long),
])
def test_a_step_beyond_is_seen(old: str, new: str, tmp_path: Path) -> None:
    said = sanitized(f'walk(["order_two"], ["forward"], (5,), lambda text: text.replace({old!r}, {new!r}))', tmp_path)
    assert "AddressSanitizer: heap-buffer-overflow" in said
