"""The GPU backend on drivers that run nothing and record what they are asked to do.

In this process the driver is `driver/recorder.py`. The last tests run the file once more in a process that has loaded
`driver/fake.c` as its libcuda.so.1, through NVIDIA's own cuda.bindings, where these and gcc are installed.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import lrdsl as lr
from lrdsl.backends import cuda, cuda_compile, cuda_driver
from lrdsl.errors import BackendUnavailable, ShapeMismatch
from lrdsl.ir.source import Launch, Source, fields
from lrdsl.kernels import launch_of, source_of
from lrdsl.passes.schedule import chosen
from lrdsl.programs import plan_of
from tests.backends.driver import build
from tests.backends.driver.recorder import Recorder, Result

ROOT = Path(__file__).parents[2]
LIBRARY = os.environ.get("LRDSL_TEST_LIBCUDA")  # set by the last tests for the process that they start
PROGRAM = plan_of(lr.cells.linear_scan.spec).programs[0]
VALUES = [0x7F00_0000_1000, -3, 2, 100, 70]  # an address, a stride, B, T, C
BYTES = struct.pack("<5q", *VALUES).hex()

in_process = pytest.mark.skipif(bool(LIBRARY), reason="was tested by the process that started this one")
with_bindings = pytest.mark.skipif(bool(LIBRARY) or not build.gcc() or not build.has("cuda.bindings"),
                                   reason="needs gcc and cuda.bindings")


@dataclass
class Machine:
    """said: what its driver was asked, line by line. no_device: from now on it has none."""

    api: Any
    said: Callable[[], list[str]]
    no_device: Callable[[], None]

    def kernel(self, entry: str = "scan", image: str = "FAKE ARCH scan 40", block: int = 64, chunk: int = 0) -> Launch:
        """A Source whose text is its image, and five words its values."""
        source = Source("cuda", entry, image, PROGRAM, "float32", block, chunk)
        return Launch(cuda.Kernel(source, cuda_driver.driver()).run, source.extent)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Two devices, sm_90 and sm_80, that nobody has used yet."""
    monkeypatch.setattr(cuda_driver, "_driver", None)
    monkeypatch.setattr(cuda_compile, "cubin", lambda text, entry, arch: f"{text}\0".replace("ARCH", arch).encode())
    if LIBRARY:
        ctypes.CDLL(LIBRARY)
        log = tmp_path / "log"
        log.touch()
        monkeypatch.setenv("FAKE_CUDA_LOG", str(log))
        return Machine(cuda_driver.bindings(), lambda: log.read_text().splitlines(),
                       lambda: monkeypatch.setenv("FAKE_CUDA_INIT", str(build.NO_DEVICE)))
    recorder = Recorder()
    monkeypatch.setattr(cuda_driver, "bindings", lambda: recorder)
    return Machine(recorder, lambda: recorder.said, lambda: setattr(recorder, "init", Result.CUDA_ERROR_NO_DEVICE))


def on_a_fresh_thread(work: Callable[[], Any]) -> Any:
    """Where no context is current."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def launched(device: int = 0, blocks: int = 3, stream: int = 0, words: str = BYTES) -> str:
    return f"launch scan on {device}: {blocks}x64, stream {stream}, {words}"


FIRST = ["init", "retain 0", "set 0", "load scan on 0", launched()]


# ---- where and how a kernel is launched ------------------------------------------------------------------------------


def test_a_kernel_is_loaded_once_and_launched_with_exactly_its_words(machine: Machine) -> None:
    def work() -> None:
        launch = machine.kernel()
        launch(VALUES)
        launch(tuple(VALUES))

    on_a_fresh_thread(work)
    assert machine.said() == [*FIRST, launched()]


def test_the_stream_is_the_callers(machine: Machine) -> None:
    def work() -> None:
        launch = machine.kernel()
        for stream in (0, 2, 0x7FFF_FFFF_FFF0):
            launch(VALUES, stream=stream)

    on_a_fresh_thread(work)
    assert machine.said()[4:] == [launched(stream=s) for s in (0, 2, 0x7FFF_FFFF_FFF0)]


def test_scratch_memory_is_the_last_word_of_a_kernel_that_walks_in_chunks(machine: Machine) -> None:
    def work() -> None:
        machine.kernel(image="FAKE ARCH scan 48", chunk=32)(VALUES, scratch=0xABC0)

    on_a_fresh_thread(work)
    assert machine.said()[-1] == launched(blocks=5 * 4, words=BYTES + struct.pack("<q", 0xABC0).hex())


def test_nothing_is_launched_for_no_channels(machine: Machine) -> None:
    on_a_fresh_thread(lambda: machine.kernel()([*VALUES[:-1], 0]))
    assert machine.said() == ["init"]


# ---- contexts ----------------------------------------------------------------------------------------------------------


def test_each_device_has_its_own_code_and_the_thread_keeps_its_context(machine: Machine) -> None:
    def work() -> None:
        launch = machine.kernel()
        for device in (0, 1, 0, 1):
            launch(VALUES, device=device)

    on_a_fresh_thread(work)
    second = ["push 1", "load scan on 1", "pop 1"]
    assert machine.said() == [*FIRST, "retain 1", *second, "push 1", launched(1), "pop 1", launched(0),
                              "push 1", launched(1), "pop 1"]


def test_a_thread_without_a_context_gets_the_devices_and_keeps_it(machine: Machine) -> None:
    """As the threads that torch runs backward passes on."""
    launch = on_a_fresh_thread(machine.kernel)
    on_a_fresh_thread(lambda: launch(VALUES))
    before = len(machine.said())
    on_a_fresh_thread(lambda: [launch(VALUES), launch(VALUES)])
    assert machine.said()[before:] == ["set 0", launched(), launched()]
    on_a_fresh_thread(lambda: launch(VALUES, device=1))
    assert machine.said()[before + 3:] == ["retain 1", "set 1", "load scan on 1", launched(1)]


def test_a_thread_with_another_devices_context_gets_it_back(machine: Machine) -> None:
    launch = on_a_fresh_thread(machine.kernel)

    def work() -> list[int]:
        other = machine.api.cuDevicePrimaryCtxRetain(1)[1]
        machine.api.cuCtxSetCurrent(other)
        launch(VALUES)
        return [int(other), int(machine.api.cuCtxGetCurrent()[1])]

    other, after = on_a_fresh_thread(work)
    assert other == after and launched() in machine.said()


def test_a_refusal_gives_the_context_back_too(machine: Machine) -> None:
    def work() -> list[int]:
        machine.kernel()(VALUES, device=1)
        with pytest.raises(cuda_driver.CudaError):
            machine.kernel(image="not a cubin")(VALUES, device=0)
        return [int(c) for c in (machine.api.cuCtxGetCurrent()[1], machine.api.cuDevicePrimaryCtxRetain(1)[1])]

    now, before = on_a_fresh_thread(work)
    assert now == before


def test_threads_that_race_load_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    launch, start, compiled = on_a_fresh_thread(machine.kernel), threading.Barrier(8), cuda_compile.cubin

    def slow(*arguments: str) -> bytes:
        time.sleep(0.05)  # all are there before the first is done
        return compiled(*arguments)

    monkeypatch.setattr(cuda_compile, "cubin", slow)

    def work(_: int) -> None:
        start.wait()
        launch(VALUES)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    said = machine.said()
    assert said.count("load scan on 0") == said.count("retain 0") == 1 and said.count(launched()) == 8


# ---- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options, device, words", [
    ({"image": "FAKE sm_80 scan 40"}, 0, r"load scan on device 0: CUDA_ERROR_NO_BINARY_FOR_GPU"),
    ({"image": "not a cubin"}, 1, r"load scan on device 1: CUDA_ERROR_INVALID_IMAGE"),
    ({"image": "FAKE ARCH other 40"}, 0, r"find scan in its module: CUDA_ERROR_NOT_FOUND"),
    ({"block": 2048}, 0, r"run scan on device 0 \(1 blocks of 2048 threads\): CUDA_ERROR_INVALID_VALUE"),
    ({}, 2, r"find device 2: CUDA_ERROR_INVALID_DEVICE"),
], ids=["another arch", "no image", "no entry", "too many threads", "no such device"])
def test_what_cuda_refuses_is_told_by_name(options: dict[str, Any], device: int, words: str, machine: Machine) -> None:
    def work() -> None:
        launch = machine.kernel(**options)
        for _ in range(2):  # and is not remembered as loaded
            with pytest.raises(cuda_driver.CudaError, match=words):
                launch(VALUES, device=device)

    on_a_fresh_thread(work)
    assert not [line for line in machine.said() if line.startswith("launch")]


def test_more_channels_or_blocks_than_a_launch_holds(machine: Machine) -> None:
    launch = on_a_fresh_thread(machine.kernel)
    with pytest.raises(ShapeMismatch, match=r"counts its B \* C channels with 31 bits\n.*split the batch"):
        launch([*VALUES[:-1], 2**30])
    on_a_fresh_thread(lambda: launch([*VALUES[:-1], 2**30 - 32]))
    assert "33554431x64" in machine.said()[-1]
    cut = on_a_fresh_thread(lambda: machine.kernel(chunk=16))
    with pytest.raises(ShapeMismatch, match=r"\(2, 1048576, 33554432\) takes 137438953472 blocks.*\n.*split the batch"):
        cut([*VALUES[:-3], 2, 2**20, 2**25])


@in_process
def test_hints_fit_the_error() -> None:
    assert "CUDA_LAUNCH_BLOCKING" in str(cuda_driver.CudaError("run k", "CUDA_ERROR_ILLEGAL_ADDRESS"))
    assert "before" in str(cuda_driver.CudaError("load k", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"))
    assert str(cuda_driver.CudaError("run k", "CUDA_ERROR_UNKNOWN")) == "CUDA refused to run k: CUDA_ERROR_UNKNOWN"


def _child(launch: Launch, results: Any) -> None:
    for work in (lambda: launch(VALUES), cuda_driver.driver):
        try:
            results.put(work())
        except Exception as error:
            results.put(f"{type(error).__name__}: {error}")


def test_a_forked_child_is_told_to_start_another_way(machine: Machine) -> None:
    launch = on_a_fresh_thread(machine.kernel)
    on_a_fresh_thread(lambda: launch(VALUES))
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=_child, args=(launch, results))
    child.start()
    said = [results.get(), results.get()]
    child.join()
    assert child.exitcode == 0
    for text in said:
        assert text.startswith("BackendUnavailable: this process was forked") and 'get_context("spawn")' in text
    assert machine.said() == FIRST
    on_a_fresh_thread(lambda: launch(VALUES))  # and the parent works on
    assert machine.said() == [*FIRST, "set 0", launched()]


# ---- what is missing ----------------------------------------------------------------------------------------------------


def assert_unavailable(words: str) -> None:
    source = Source("cuda", "scan", "", PROGRAM, "float32", 64)
    with pytest.raises(BackendUnavailable, match=rf"{words}(?s:.*)\n  way out: "):
        cuda.load(source)


def test_no_device(machine: Machine) -> None:
    machine.no_device()
    assert_unavailable("no GPU that CUDA can use: CUDA_ERROR_NO_DEVICE")


@in_process
def test_no_driver(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(machine.api, "cuInit", refuse)
    assert_unavailable("no NVIDIA driver: Failed to dlopen libcuda.so.1")


@in_process
def test_no_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_driver", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert_unavailable("no cuda.bindings")


@in_process
def test_no_compiler(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_unavailable("no nvcc")
    (tmp_path / "nvcc").touch(0o700)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert_unavailable("no PyCUDA")


def test_load_with_all_that_it_needs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_compile, "nvcc", lambda: "nvcc")
    monkeypatch.setattr(cuda_compile, "require_pycuda", lambda: None)
    source = Source("cuda", "scan", "FAKE ARCH scan 40", PROGRAM, "float32", 64)
    launch = on_a_fresh_thread(lambda: cuda.load(source))
    assert machine.said() == ["init"] and launch.extent(2, 100, 70) == source.extent(2, 100, 70)
    on_a_fresh_thread(lambda: launch(VALUES))
    assert machine.said() == FIRST


def test_a_program_runs_by_the_strategy_of_its_size(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `launch_of` on: the entry and the grid are those of the kernel that the schedule chooses."""
    monkeypatch.setattr(cuda_compile, "cubin", lambda text, entry, arch: f"FAKE {arch} {entry} 8\0".encode())
    monkeypatch.setattr(cuda_compile, "nvcc", lambda: "nvcc")
    monkeypatch.setattr(cuda_compile, "require_pycuda", lambda: None)
    launch = launch_of.__wrapped__(PROGRAM, "float32", "cuda")
    sizes = (2, 5, 70), (1, 5000, 32)
    on_a_fresh_thread(lambda: [launch([*[0] * (len(fields(PROGRAM)) - 3), *size], scratch=16) for size in sizes])
    wanted = []
    for size in sizes:
        source = source_of(PROGRAM, "cuda", "float32", strategy=chosen(PROGRAM, "cuda", "float32", *size))
        assert launch.extent(*size) == source.extent(*size)
        wanted.append(f"launch {source.entry} on 0: {source.extent(*size).grid}x{source.block}, stream 0, {'00' * 8}")
    assert [line for line in machine.said() if line.startswith("launch")] == wanted and len(set(wanted)) == 2


# ---- once more, through cuda.bindings and a libcuda.so.1 ----------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.fake(tmp_path_factory.mktemp("libcuda"))


def python(library: Path, *arguments: str, log: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A Python process; cuda.bindings finds the library, which it must load first, by its name."""
    environment = {**os.environ, "LRDSL_TEST_LIBCUDA": str(library), **({"FAKE_CUDA_LOG": str(log)} if log else {})}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@with_bindings
def test_all_of_the_above_through_nvidias_own_bindings(library: Path) -> None:
    done = python(library, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__)
    assert done.returncode == 0, done.stdout[-5000:]
    there = [test for name, test in globals().items() if name.startswith("test_") and "machine" in signature(test).parameters]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= len(there) - 2 >= 12  # two of them only where the driver is in Python


SCRIPT = """
import ctypes, os, sys, threading
ctypes.CDLL(os.environ["LRDSL_TEST_LIBCUDA"])
from lrdsl.backends import cuda, cuda_compile, cuda_driver
from tests.backends.test_cuda import PROGRAM, VALUES, Source
cuda_compile.cubin = lambda text, entry, arch: f"FAKE {arch} scan 40".encode()
kernel = cuda.Kernel(Source("cuda", "scan", "", PROGRAM, "float32", 64), cuda_driver.driver())
for device in (0, 1):
    kernel.run(VALUES, 1, device, 0, 0)
    threading.Thread(target=kernel.run, args=(VALUES, 1, device, 0, 0)).start()
"""


@with_bindings
@pytest.mark.parametrize("end, status, said", [("", 0, ""), ("raise ValueError('mine')", 1, "ValueError: mine"),
                                               ("sys.exit(7)", 7, "")], ids=["end", "exception", "exit"])
def test_a_process_ends_as_it_should_with_modules_loaded(end: str, status: int, said: str, library: Path,
                                                         tmp_path: Path) -> None:
    done = python(library, "-c", SCRIPT + end, log=tmp_path / "log")
    lines = done.stderr.splitlines()
    assert (done.returncode, lines[-1] if lines else "") == (status, said)
    asked = (tmp_path / "log").read_text().splitlines()
    assert sum(line.startswith("launch") for line in asked) == 4
    assert not [line for line in asked if line.startswith("unload")]
