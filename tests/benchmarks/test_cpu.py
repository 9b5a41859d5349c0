"""The CPU benchmark: its truth is the loop, its candidates agree, its limits hold, and its table says what was measured."""

from __future__ import annotations

import csv
import math
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import cpu, cpu_memory, cpu_table, past_caches, peers, table
from benchmarks import cpu_works as works
from benchmarks.compare import PAST, STREAM, WAYS, Case, Ready, compare, solve
from benchmarks.cpu_table import Aims, Measured
from benchmarks.exact import exact
from benchmarks.timing import Times, cold, limited, measured, processor, stream, wall

SHAPE = (2, 16, 3)


@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1), (3, 40, 1)])
def test_the_loop_in_c_is_the_loop(shape: works.Shape) -> None:
    case = works.linear(shape, "none")
    gradients = case.drawn("cpu")
    found, want = (solve(truth, case.inputs, gradients) for truth in (exact, lambda x: peers.loop(x["a"], x["b"])))
    assert torch.equal(found[0][0], want[0][0])
    for name in ("a", "b"):
        torch.testing.assert_close(found[1][name], want[1][name], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("make", [works.linear, works.turned, works.sru, works.blocks, works.parts, works.complex_numbers,
                                  works.cumsum, works.decay],
                         ids=["linear", "turned", "sru", "blocks", "parts", "complex", "cumsum", "decay"])
def test_candidates_agree(make: Callable[[works.Shape, str], Case]) -> None:
    """All that needs no compiling, forward and backward."""
    case = make(SHAPE, "all")
    quick = {n: c for n, c in case.candidates.items() if "compiled" not in n and "package" not in n}
    found = compare(replace(case, candidates=quick), "cpu", wall, seconds=0.0, rounds=1)
    assert {r.candidate for r in found if r.times and r.way == WAYS[1]} == {*quick, STREAM}, {
        r.candidate: r.note for r in found}
    assert all(r.error is None or r.error < 1e-5 for r in found)


def test_numba_in_both_orders_agrees() -> None:
    pytest.importorskip("numba")
    for case in (works.linear((2, 16, 1), "numba"), works.turned(SHAPE, "numba"), works.linear(SHAPE, "numba")):
        found = compare(case, "cpu", wall, seconds=0.0, rounds=1)
        assert all(r.times and (r.error is None or r.error < 1e-5) for r in found), [r.note for r in found]
        assert any(r.candidate.startswith("numba") for r in found)


def test_a_turned_scan_is_turned() -> None:
    """Inputs and the gradient of the output have time innermost."""
    case = works.turned(SHAPE, "none")
    assert all(x.mT.is_contiguous() and x.shape == SHAPE for x in (*case.inputs.values(), *case.drawn("cpu")))


def test_what_is_over_its_limit_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    start = time.perf_counter()
    with pytest.raises(TimeoutError, match=r"over 0\.05 s"), limited(0.05):
        while time.perf_counter() < start + 5:
            pass
    with pytest.raises(TimeoutError), limited(0.05):
        time.sleep(5)
    assert time.perf_counter() < start + 4
    assert signal.getitimer(signal.ITIMER_REAL) == signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    with limited(None):
        pass
    other = threading.Thread(target=lambda: limited(0.01).__enter__())  # signals are for the first thread alone
    other.start()
    other.join()


def test_a_slow_candidate_sits_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.timing.PATIENCE", 0.0)
    monkeypatch.setattr("benchmarks.timing.interruptions", lambda: 0)
    turns: list[str] = []
    times = {"quick": 0.001, "slow": 1.0, "endless": 9.0}

    def clock(run: object) -> float:
        run()  # type: ignore[operator]
        return times[turns[-1]]
    found = measured({n: lambda n=n: turns.append(n) for n in times}, seconds=8.0, rounds=20, clock=clock)
    assert {n: t.runs for n, t in found.items()} == {"quick": 20, "slow": 3, "endless": 1}


def test_interrupted_runs_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times, left = iter([1.0, 9.0, 2.0, 3.0, 4.0, 9.0]), iter([0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2])
    monkeypatch.setattr("benchmarks.timing.interruptions", lambda: next(left))
    assert measured({"a": int}, 100.0, 6, lambda run: next(times))["a"] == Times.of([1.0, 2.0, 3.0, 4.0])
    times, left = iter([1.0, 9.0, 2.0]), iter([0, 0, 0, 1, 1, 1])
    assert measured({"a": int}, 100.0, 3, lambda run: next(times))["a"].runs == 3  # too few to choose from


def test_the_stream_reads_what_it_is_given() -> None:
    x, y = torch.rand(2, 3, 4).mT, torch.rand(2, 4, 3)
    seen: list[int] = []

    class Recording(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.extend(a.data_ptr() for a in args if isinstance(a, torch.Tensor))
            return function(*args, **(kwargs or {}))
    run = stream((2, 4, 3), 2, 1, sources=[x, y])
    with Recording():
        run()
    assert seen == [x.data_ptr(), y.data_ptr()]


def test_loops_past_the_caches_add_and_copy(one_thread: None) -> None:
    loops = past_caches.loops()
    if loops is None:
        pytest.skip("wants g++ and an x86 processor")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for n in (1, 15, 16, 31, 1000, 4099):
            a, b, out = torch.randn(n), torch.randn(n), loops.memory((n,), "cpu")
            loops.add(a, b, out)
            assert torch.equal(out, a + b)
            loops.copy(a, out)
            assert torch.equal(out, a)


def test_processor_time_is_what_a_run_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, passed = [1.0], [7.0]
    monkeypatch.setattr("benchmarks.timing.time.process_time", lambda: taken[0])
    monkeypatch.setattr("benchmarks.timing.time.perf_counter", lambda: passed[0])

    def run(processors: float, wall: float) -> None:
        taken[0] += processors
        passed[0] += wall
    assert processor(lambda: run(2.5, 4.0)) == 2.5
    assert processor(lambda: run(0.0, 2.0 ** -15)) == 2.0 ** -15, "too short for the processor's clock"


def test_a_cold_clock_reads_other_memory_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = cold(size=1 << 12), []
    monkeypatch.setattr(torch.Tensor, "sum", lambda self: order.append(self.numel()))
    assert clock(lambda: order.append("run")) > 0 and order == [1 << 10, "run"]


def test_memory_is_bounded() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with cpu.at_most(0.25), pytest.raises(RuntimeError):
        torch.ones(1 << 28)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_peaks_are_of_what_is_resident() -> None:
    size = 64 << 20

    def call(tensors: int = 1) -> torch.Tensor:
        return torch.ones(tensors * size // 4)
    forward, both = cpu_memory.peaks(Ready(call, {}, both=lambda _: [call(2)]), [])
    assert forward == pytest.approx(size, rel=0.1) and both == pytest.approx(2 * size, rel=0.1)


def row(candidate: str, way: str, ms: float, threads: int = 1) -> table.Row:
    return table.Row("scan", way, 1, 2, 3, candidate, None, Times(ms, ms, ms, 3), 10.0, 1, threads=threads)


def test_the_table_sets_figures_beside_their_aims() -> None:
    both = WAYS[1]
    rows = [row("lrdsl", WAYS[0], 7.0), row("lrdsl", both, 9.0), row("numba by hand", both, 18.0),
            row("numba along time", both, 36.0), row("jax", both, 90.0), row("loop", both, 99.0),
            row(STREAM, both, 10.0), row(PAST, both, 7.5)]
    lines = cpu_table.table([Measured(rows, Aims(0.8, 0.8, 2.2, 4)), Measured(rows[:1], Aims()), Measured([], Aims()),
                             Measured([row("lrdsl", WAYS[0], 11.0, threads=2)], Aims(0.8, two_threads=1.05))]).splitlines()
    assert lines[2] == ("| scan | 1, 2, 3 | 1 | 0.70 (≤ 0.8) | **0.90** (≤ 0.8) / 0.75 | "
                        "**2.0×** (≥ 2.2) numba by hand; 4.0× numba along time | 10.0× (≥ 4) jax |")
    assert lines[3] == "| scan | 1, 2, 3 | 1 | 0.70 | - | - | - |"
    assert lines[4:] == ["| scan | 1, 2, 3 | 2 | **1.10** (≤ 1.05) | - | - | - |"]


def test_a_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind of row once; a file for each thing that is said."""
    threads = torch.get_num_threads()
    found = cpu.main(["--quick", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert torch.get_num_threads() == threads
    assert {r.cell for r in found} == {"linear_scan", "linear_scan as (B, C, T)", "SRU, fused", "2x2 scan",
                                       "complex scan of parts", "complex scan", "cumsum", "filter"}
    assert all(r.times and r.error < 1e-5 for r in found if r.candidate == "lrdsl")
    written = (tmp_path / "cpu.md").read_text()
    assert written.count("| linear_scan |") == 4 and written.splitlines()[0].startswith("machine:") and "| 2x2 scan |" in said
    lines = [line for line in (tmp_path / "cpu.csv").read_text().splitlines() if not line.startswith("#")]
    assert len(list(csv.DictReader(lines))) == len(found)
    assert all(math.isfinite(float(r["times_stream"])) for r in csv.DictReader(lines) if r["candidate"] == "lrdsl")


def test_a_line_that_fails_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(shape: works.Shape, level: str) -> Case:
        raise MemoryError("too large")
    monkeypatch.setattr(cpu, "LINES", (cpu.Line("scan", SHAPE, broken), cpu.Line("scan", SHAPE, works.linear)))
    found = cpu.main(["--rows", "scan", "--seconds", "0.01", "--peers", "none", "--threads", "1"])
    assert "MemoryError: too large" in capsys.readouterr().out and {r.candidate for r in found} >= {"lrdsl", STREAM}
