"""Side-by-side timing: every candidate once a round, many rounds, medians; these machines are shared and noisy."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

Clock = Callable[[Callable[[], object]], float]
SHORT = 100e-6  # seconds
PATIENCE = 2.0  # seconds that a slow candidate may take, whatever the limit
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


def processor(run: Callable[[], object]) -> float:
    """Seconds of processors that one run took, in all threads of the process. For what has one thread, this is the time on the
    wall of a machine that does nothing else, and does not change when it has to share a processor. Of what is SHORT, the time
    on the wall: this clock may stand still for as long."""
    start, since = time.process_time(), time.perf_counter()
    run()
    passed = time.perf_counter() - since
    return passed if passed < SHORT else max(time.process_time() - start, 1e-9)


def cold(clock: Clock = wall, size: int = 128 << 20) -> Clock:
    """Another clock for the CPU: one run after so many bytes were read, several times what caches hold, so that nothing
    the run reads is in them. They are read and not written: what is written would have to leave the caches during the run."""
    evicting = torch.ones(size // 4)

    def after(run: Callable[[], object]) -> float:
        evicting.sum()
        return clock(run)
    return after


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
    """Times of each candidate. One unmeasured call each; then rounds, until the limit or until all have had enough: a candidate
    sits out after 3 runs once they have taken its share of `seconds`; at once, if it has taken all of them and `PATIENCE`.
    Runs in which the machine gave a processor to someone else do not count, where 3 others do."""
    for run in candidates.values():
        run()
    taken, undisturbed = ({name: list[float]() for name in candidates} for _ in range(2))
    share = seconds / max(len(candidates), 1)
    for done in range(rounds):
        for name, run in candidates.items():
            if sum(taken[name]) <= (share if done >= 3 else max(share, seconds, PATIENCE)):
                before = interruptions()
                taken[name].append(clock(run))
                if interruptions() == before:
                    undisturbed[name].append(taken[name][-1])
    return {name: Times.of(undisturbed[name] if len(undisturbed[name]) >= 3 else times) for name, times in taken.items()}


def interruptions() -> int:
    """How often this process had to leave a processor though it had work."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """A TimeoutError where what is within takes a processor for longer, or four times as long by the clock, as it may wait for
    others, and longer on a machine that has more to do; in a thread other than the first, and without a limit, nothing.

    It comes between two lines of Python: a call into a library ends first."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_: object) -> None:
        raise TimeoutError(f"over {seconds:g} s")
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, 4 * busy * seconds))
    before = [signal.signal(number, over) for _, number, _ in timers]
    for timer, _, left in timers:
        signal.setitimer(timer, left, 1.0)  # again and again: a library's callback may swallow the first
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@dataclass(frozen=True)
class Loops:
    """What a stream is made of: out = a + b, out = a, the sum of a, and memory to write to; all of it flat."""

    add: Callable[[Tensor, Tensor, Tensor], object]
    copy: Callable[[Tensor, Tensor], object]
    sum: Callable[[Tensor], object]
    memory: Callable[[tuple[int, ...], str], Tensor]


TORCH = Loops(lambda a, b, out: torch.add(a, b, out=out), lambda a, out: out.copy_(a), torch.sum,
              lambda shape, device: torch.rand(shape, device=device))


def stream(shape: tuple[int, ...], reads: int, writes: int, device: str = "cpu", sources: Sequence[Tensor] = (),
           loops: Loops = TORCH) -> Callable[[], None]:
    """Read and write this many tensors of a shape into memory that is there, with torch's own loops: the memory limit.

    An addition reads two and writes one, a copy reads and writes one, a sum reads one; together they move as much. What is
    read are the sources in turn, or two tensors of its own; each write has a tensor of its own, as in a fused pass.
    """
    assert reads >= writes, "something is read for all that is written"
    sums = max(0, reads - 2 * writes)
    triads, copies = reads - sums - writes, 2 * writes - reads + sums
    read = itertools.cycle([_flat(s) for s in sources] or [TORCH.memory(shape, device).flatten() for _ in range(2)])
    written = iter([loops.memory(shape, device).flatten() for _ in range(writes)])
    steps: list[Callable[[], object]] = [partial(loops.add, next(read), next(read), next(written)) for _ in range(triads)]
    steps += [partial(loops.copy, next(read), next(written)) for _ in range(copies)]
    steps += [partial(loops.sum, next(read)) for _ in range(sums)]

    def run() -> None:
        for step in steps:
            step()

    return run


def _flat(x: Tensor) -> Tensor:
    """The numbers of a tensor without gaps, in the order of memory."""
    return x.detach().permute(sorted(range(x.dim()), key=x.stride, reverse=True)).view(-1)
