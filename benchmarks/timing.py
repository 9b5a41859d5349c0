"""Side-by-side timing: every candidate once a round, many rounds, medians; these machines are shared and noisy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Clock = Callable[[Callable[[], object]], float]
FLUSHED = 256 << 20  # bytes written between two runs on a GPU: several times its L2, as triton.testing.do_bench does


@dataclass(frozen=True)
class Times:
    """Seconds of a candidate: the median, and what 20 % and 80 % of its `runs` runs stay below."""

    median: float
    low: float
    high: float
    runs: int

    @staticmethod
    def of(seconds: list[float]) -> Times:
        """Of at least one run."""
        fifths = statistics.quantiles(seconds, n=5, method="inclusive") if len(seconds) > 1 else seconds * 4
        return Times(statistics.median(seconds), fifths[0], fifths[-1], len(seconds))


def wall(run: Callable[[], object]) -> float:
    """Seconds of one run on the CPU."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def events() -> Clock:
    """A clock for a GPU: seconds between two events on torch's stream around one run, the L2 cache flushed before it.

    The host prepares a run while the flush is under way, so that a launch costs nothing here unless it takes longer than that.
    """
    flushed = torch.empty(FLUSHED, dtype=torch.uint8, device="cuda")
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def clock(run: Callable[[], object]) -> float:
        flushed.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3

    awake = time.perf_counter() + 0.3  # an idle GPU runs at a fraction of its clock
    while time.perf_counter() < awake:
        clock(flushed.zero_)
    return clock


def clock_of(device: str) -> Clock:
    """The clock for tensors on "cpu" or "cuda"."""
    return events() if device == "cuda" else wall


def measured(candidates: Mapping[str, Callable[[], object]], seconds: float = 8.0, rounds: int = 50,
             clock: Clock = wall) -> dict[str, Times]:
    """Times of each candidate. One unmeasured call each; then whole rounds, 3 at least, until either limit."""
    for run in candidates.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.perf_counter() + seconds
    for done in range(rounds):
        if done >= 3 and time.perf_counter() > end:
            break
        for name, run in candidates.items():
            taken[name].append(clock(run))
    return {name: Times.of(times) for name, times in taken.items()}


def interleaved(candidates: Mapping[str, Callable[[], object]], seconds: float = 8.0, rounds: int = 50) -> dict[str, float]:
    """The medians of `measured`, on the CPU."""
    return {name: times.median for name, times in measured(candidates, seconds, rounds).items()}


def stream(shape: tuple[int, ...], reads: int, writes: int, device: str = "cpu") -> Callable[[], None]:
    """Read and write this many tensors of a shape, with torch's own loops into memory that is there: the memory limit.

    torch.add(out=) reads two and writes one, copy_ reads and writes one, torch.sum reads one; together they move as much.
    """
    assert reads >= writes, "something is read for all that is written"
    sums = max(0, reads - 2 * writes)
    triads, copies = reads - sums - writes, 2 * writes - reads + sums
    a, b, c = (torch.rand(shape, device=device) for _ in range(3))

    def run() -> None:
        for _ in range(triads):
            torch.add(a, b, out=c)
        for _ in range(copies):
            c.copy_(a)
        for _ in range(sums):
            torch.sum(a)

    return run
