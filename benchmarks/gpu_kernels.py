"""The kernels of the GPU drill, each launched on raw addresses: its share of the copy bandwidth in every strategy and size.

At the size that is timed a kernel is held to the other strategy; one that differs is recorded and not timed. Times are of the
launch and the memset of its scratch memory. On the device "emulated" there are none; what is counted there is bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import torch

from lrdsl.backends import emulated
from lrdsl.errors import LrdslError
from lrdsl.passes.schedule import chosen

from .cells import NAMES
from .compare import TOLERANCE
from .gpu_layout import Call, difference, numbers, place
from .gpu_records import Records
from .gpu_works import Work, ready, tensors_on
from .timing import Clock, Times, clock_of, measured

# (B, T, C): 32 to 131,072 channels, the same bytes everywhere, those that say most first
SHAPES = tuple((B, (1 << 25) // (B * C), C) for B, C in (
    (1, 1024), (32, 1024), (1, 128), (8, 1024), (64, 1024), (1, 32), (4, 1024), (16, 1024), (1, 256), (128, 1024)))
TINY = ((1, 300, 33),)
CROSSING = {"T": (256, 4096, 65536), "N": (64, 256, 1024, 4096, 16384, 65536)}
TINY_CROSSING = {"T": (40,), "N": (8, 40)}
ROUNDS, SECONDS = 20, 0.4


def bandwidth(records: Records, clock: Clock) -> float:
    """Bytes a second of a large copy, read and written; recorded."""
    count = 1 << 28 if records.device == "cuda" else 1 << 10
    source = torch.rand(count, device=tensors_on(records.device))
    target = torch.empty_like(source)
    times = measured({"copy": lambda: target.copy_(source)}, SECONDS, ROUNDS, clock)["copy"]
    records.write("copy", size=8 * count, seconds=asdict(times), share=1.0, note="a copy on the device, bytes read and written")
    return 8 * count / times.median


def kernels(records: Records, cells: Sequence[str] = NAMES) -> None:
    """The copy, then every kernel at every size."""
    clock = clock_of(tensors_on(records.device))
    rate, found = bandwidth(records, clock), ready(cells, records)
    for shape in SHAPES if records.device == "cuda" else TINY:
        for work in found:
            _guarded(records, work, shape, partial(measure, work, shape, records, clock, rate))


def measure(work: Work, shape: tuple[int, int, int], records: Records, clock: Clock, rate: float,
            kind: str = "kernel") -> dict[str, Times]:
    """Time the strategies of one Program in turn at one size, and record them."""
    B, T, C = shape
    inputs = numbers(work.program, B, T, C, tensors_on(records.device))
    calls = {s: place(work.program, launch, inputs, B, T, C) for s, launch in work.launches.items()}
    solved = {s: call.solve(work.program) for s, call in calls.items()}
    first, *_ = solved
    errors = {s: difference(got, solved[first]) for s, got in solved.items()}
    good = {s: call for s, call in calls.items() if errors[s] <= TOLERANCE}
    times = measured(good, SECONDS, ROUNDS, clock) if records.device == "cuda" else {}
    size, default = work.size * B * T * C, chosen(work.program, "cuda", "float32", B, T, C)
    for strategy, call in calls.items():
        spent = times.get(strategy)
        records.write(
            kind, kernel=work.program.name, way=work.way, strategy=strategy, dtype="float32", shape=shape, size=size,
            seconds=asdict(spent) if spent else None, share=size / spent.median / rate if spent else None,
            error=errors[strategy], note="" if strategy in good else f"differs from {first} by {errors[strategy]:.1e}",
            facts={"chosen": strategy == default} | (counted(work, strategy, call) if records.device == "emulated" else {}))
    return times


def counted(work: Work, strategy: str, call: Call) -> dict[str, int]:
    """Bytes that the threads of an emulated launch ask for and write, messages between chunks apart."""
    call.scratch.zero_()
    counts = emulated.Emulator(work.sources[strategy]).run(call.values, scratch=call.scratch.data_ptr())
    return {"loaded": counts.loaded(), "stored": counts.stored(), "messages": sum(counts.messages)}


def crossover(records: Records) -> None:
    """For a light and a heavy Program, serial and chunked side by side over channels, at three lengths."""
    clock = clock_of(tensors_on(records.device))
    rate = bandwidth(records, clock)
    grid = CROSSING if records.device == "cuda" else TINY_CROSSING
    for work in ready(("linear_scan", "gilr"), records):
        if len(work.launches) > 1:
            for T in grid["T"]:
                _guarded(records, work, (1, T, 0), partial(_cross, work, T, grid["N"], records, clock, rate))


def _cross(work: Work, T: int, channels: Sequence[int], records: Records, clock: Clock, rate: float) -> None:
    """Record where serial begins to win at one length: the fewest channels of those tried from which on it stays ahead."""
    wins: dict[int, bool] = {}
    for N in (n for n in channels if n * T <= 1 << 27):
        times = measure(work, (1, T, N), records, clock, rate, "crossover")
        if len(times) == 2:
            wins[N] = times["serial"].median <= times["chunked"].median
    ahead = list(itertools.takewhile(lambda N: wins[N], reversed(wins)))
    note = "nothing was timed" if not wins else f"serial wins from {ahead[-1]} channels on" if ahead else \
        f"chunked wins at up to {max(wins)} channels"
    records.write("crossover", kernel=work.program.name, way=work.way, dtype="float32", shape=(1, T, 0), note=note,
                  facts={"serial_from": ahead[-1] if ahead else None})


def _guarded(records: Records, work: Work, shape: tuple[int, int, int], run: Callable[[], object]) -> None:
    """One size that fails, for memory or another reason, is a record."""
    try:
        run()
    except (LrdslError, RuntimeError) as error:
        records.write("kernel", kernel=work.program.name, way=work.way, dtype="float32", shape=shape,
                      note=f"{type(error).__name__}: {str(error).splitlines()[0]}")
        if records.device == "cuda":
            torch.cuda.empty_cache()
