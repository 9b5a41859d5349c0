"""The emulated backend: the generated CUDA text itself, unchanged, run on the CPU and attacked.

Each CUDA thread is a fiber; every access of the text is seen. A `Schedule` says in which order threads and blocks go on and
how late a block's stores reach the others. What no order may do is an `EmulationError` with the line of the text: out of
bounds, misaligned, an output written twice or never, memory read before it was written, races, divergent barriers, deadlocks,
endless loops and more. Everything that passed is counted.

    counts = Emulator(source).run(values, Schedule(threads="random", seed=3))

Non-goals: speed, and what a GPU alone can show: its rounding of elementary functions, the ordering of loads, its time.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from ..errors import InternalError, LrdslError
from ..ir.source import Launch, Source
from . import emulated_abi as abi
from .emulated_build import libraries
from .emulated_counts import Counts, Sectors, Traffic
from .emulated_lines import chosen, first_of_kernel, lines_of

Order = Literal["in order", "reversed", "random"]


@dataclass(frozen=True)
class Schedule:
    """In which order what may run at once is run.

    threads, blocks: who goes first. "random" threads change at any access with the chance `preempt` in 1024. "starved"
    blocks: late ones run ahead of early ones, who publish as late as they can. resident: blocks that run side by side.
    weak: stores to scratch memory reach other blocks late, out of order, and in the pieces that the memory model keeps whole.
    seconds: of the processor's time, for one launch.
    """

    threads: Order = "in order"
    blocks: Order | Literal["starved"] = "in order"
    resident: int = 1
    preempt: int = 0
    weak: bool = False
    seed: int = 0
    seconds: float = 60.0

    def __str__(self) -> str:
        said = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default)
        return f"Schedule({', '.join(said)})"


# Each finds what others miss: stores late under `weak`, tickets with few residents, long look-backs where early blocks starve.
SCHEDULES = (
    Schedule(),
    Schedule("reversed", "reversed", resident=3),
    Schedule("random", "random", resident=4, preempt=100, seed=1),
    Schedule("random", "random", resident=16, preempt=20, weak=True, seed=2),
    Schedule("in order", "starved", resident=8, weak=True, seed=3),
    Schedule("random", "starved", resident=32, preempt=20, weak=True, seed=4),
)


class EmulationError(LrdslError):
    """A kernel did what no kernel may do.

    what: in a sentence. line, text: where in the Source (0 and "" where no place is known). block, thread: whose (-1: of
    all). schedule: with which it happens again.
    """

    def __init__(self, what: str, line: int = 0, text: str = "", block: int = -1, thread: int = -1,
                 schedule: Schedule | None = None, places: Sequence[str] = ()) -> None:
        self.what, self.line, self.text, self.block, self.thread, self.schedule = what, line, text, block, thread, schedule
        again = [f"  again with {schedule}"] if schedule else []
        super().__init__("\n".join([what, *(f"  {p}" for p in places), *again]))


_lock = threading.Lock()  # the runtime has one launch at a time


def _renew_lock() -> None:
    """A forked child has none of the threads that might hold the lock."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class Emulator:
    """A CUDA Source, compiled for this machine. Raises ToolchainError and BackendUnavailable."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._runtime, library, self._path = libraries(source)
        self._module = abi.Module.in_dll(library, "emu_module")
        self._lines = source.text.splitlines()
        self._first = first_of_kernel(source.text, source.entry)

    def run(self, values: Sequence[int], schedule: Schedule = Schedule(), scratch: int = 0, sectors: bool = False) -> Counts:
        """Launch on the slots of `ir.source.fields`; nothing runs where B * T * C is 0. Raises EmulationError.

        scratch: address of as many zero bytes as `source.extent` says; memory of our own where it is 0. sectors: count them
        by line, which is slow; addresses should be aligned as a GPU's, to 256 bytes.
        """
        B, T, C = values[-3:]
        if not B * T * C:
            return Counts((), 0, 0, 0, 0, 0, {})
        extent = self.source.extent(B, T, C)
        own = None if scratch or not extent.scratch else ctypes.create_string_buffer(extent.scratch + 16)
        if own is not None:
            scratch = -(-ctypes.addressof(own) // 16) * 16
        self._check(schedule, extent.grid, extent.scratch, scratch)
        words = [*values, scratch] if self.source.chunk else list(values)
        return self.launch(words, abi.tensors(self.source, values, scratch), extent.grid, schedule, sectors)

    def launch(self, words: Sequence[int], tensors: Sequence[tuple[str, str, abi.Tensor]], grid: int,
               schedule: Schedule = Schedule(), sectors: bool = False) -> Counts:
        """Launch `grid` blocks on a struct of words. tensors: (name, kind, where it lies) of all memory that they may touch;
        those of the role SCRATCH are neither written once nor whole. Raises EmulationError."""
        if 8 * len(words) != self._module.bytes:
            raise InternalError("emulated", f"{self.source.entry} takes {self._module.bytes} bytes, not {8 * len(words)}")
        args = ctypes.create_string_buffer(struct.pack(f"{len(words)}q", *words))
        memory = (abi.Tensor * len(tensors))(*(t for _, _, t in tensors))
        call = abi.Call(
            ctypes.addressof(self._module), ctypes.addressof(args), ctypes.addressof(memory), len(tensors), schedule.seed,
            schedule.seconds, grid, self.source.block, abi.ORDERS.index(schedule.threads),
            abi.ORDERS.index(schedule.blocks), schedule.resident, schedule.preempt, schedule.weak, sectors)
        with _lock:
            self._runtime.emu_launch(ctypes.byref(call))
            sites = (abi.Site * call.counts.sites)()
            self._runtime.emu_sites(sites)
        if call.report.failed:
            raise self._error(call.report, schedule)
        traffic = (Traffic(name, kind, t.loaded, t.stored, t.message_loaded, t.message_stored)
                   for (name, kind, _), t in zip(tensors, memory, strict=True))
        c = call.counts
        return Counts(tuple(traffic), c.atomics, c.barriers, c.collectives, c.polls, c.switches, self._by_line(sites))

    def _check(self, schedule: Schedule, grid: int, size: int, scratch: int) -> None:
        block, promised = self.source.block, re.search(r"__launch_bounds__\((\d+)", self.source.text)
        if not 1 <= block <= (int(promised[1]) if promised else 1024) <= 1024 or not 1 <= grid < 1 << 31:
            raise EmulationError(f"a GPU cannot launch {grid} blocks of {block} threads")
        if schedule.resident < 1 or not 0 <= schedule.preempt <= 1024 or schedule.threads not in abi.ORDERS[:3]:
            raise EmulationError(f"{schedule} makes no sense: at least one block is resident, a chance is 0 to 1024, and "
                                 f"threads go {', '.join(abi.ORDERS[:3])}")
        if size and (scratch % 16 or ctypes.string_at(scratch, size).strip(b"\0")):
            raise EmulationError("scratch memory must be aligned to 16 bytes, and all zero")

    def _error(self, report: abi.Report, schedule: Schedule) -> EmulationError:
        places = [p for p in report.place[:report.places] if p.pc or p.label]
        found = lines_of(self._path, tuple(p.pc for p in places))
        said, seen = list[str](), set[int]()
        for place, numbers in zip(places, found, strict=True):
            main = chosen(numbers, self._first)
            label = place.label.decode()
            said.append(f"{label}, line {main} of {self.source.entry}: {self._text(main)}" if main else label)
            said += [f"    in line {n}: {self._text(n)}" for n in dict.fromkeys(numbers) if n not in (main, *seen)]
            seen |= set(numbers)
        line = chosen(found[0], self._first) if found else 0
        return EmulationError(report.what.decode(), line, self._text(line), report.block, report.thread, schedule, said)

    def _text(self, line: int) -> str:
        return self._lines[line - 1].strip() if line else ""

    def _by_line(self, sites: Sequence[abi.Site]) -> dict[int, Sectors]:
        found: dict[int, Sectors] = {}
        for site, numbers in zip(sites, lines_of(self._path, tuple(s.pc for s in sites)), strict=True):
            line = chosen(numbers, self._first)
            had = found.get(line, Sectors(0, 0, 0))
            found[line] = Sectors(had.requests + site.requests, had.sectors + site.sectors, had.bytes + site.bytes)
        return dict(sorted(found.items()))


def load(source: Source, schedule: Schedule = Schedule()) -> Launch:
    """A CUDA Source as something to launch; number of threads, device and stream are ignored.

    The default schedule is the quickest, and the least adverse: one block after the other. It checks every access all the
    same, but no race between blocks can show; `SCHEDULES` are for that.
    """
    emulator = Emulator(source)

    def run(values: Sequence[int], threads: int, device: int, stream: int, scratch: int) -> None:
        emulator.run(values, schedule, scratch)

    return Launch(run, source.extent)


__all__ = ["SCHEDULES", "Counts", "EmulationError", "Emulator", "Schedule", "Sectors", "Traffic", "load"]
