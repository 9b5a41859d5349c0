"""Side-by-side timing: every candidate once a round, many rounds, medians; these machines are shared and noisy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(candidates: Mapping[str, Callable[[], object]], seconds: float = 8.0, rounds: int = 50) -> dict[str, float]:
    """Median seconds of each candidate. One unmeasured call each; then whole rounds, 3 at least, until either limit."""
    for run in candidates.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.perf_counter() + seconds
    for done in range(rounds):
        if done >= 3 and time.perf_counter() > end:
            break
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def stream(shape: tuple[int, ...], reads: int, writes: int) -> Callable[[], None]:
    """Read and write this many tensors of a shape, with torch's own loops into memory that is there: the memory limit.

    torch.add(out=) reads two and writes one, copy_ reads and writes one; together they move the same number of bytes.
    """
    triads, copies = reads - writes, 2 * writes - reads
    assert triads >= 0 and copies >= 0, "between one and two reads a write"
    a, b, c = (torch.ones(shape) for _ in range(3))

    def run() -> None:
        for _ in range(triads):
            torch.add(a, b, out=c)
        for _ in range(copies):
            c.copy_(a)

    return run
