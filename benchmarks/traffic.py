"""Bytes that the CUDA kernels move, a step and channel, counted by the emulator; needs a C++ compiler, no GPU.

    python -m benchmarks.traffic                          the zoo at T = 65,536 and 64 channels
    python -m benchmarks.traffic --cells gilr --shape 1 4096 64 --dtype bfloat16 --json traffic.json

floor: every sequence read once and every output written once. kernel: all that is asked for, as a multiple of it, without
messages. rest: what of it is learned numbers, initial values and partial sums. told, heard: messages between chunks; those
heard lie in the L2 cache, and waiting for one that is not there yet asks again (polls, in this schedule).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lrdsl.backends.emulated import Emulator, Schedule
from lrdsl.ir.dtypes import DTYPES

from .cells import NAMES
from .gpu_layout import numbers, place
from .gpu_works import load, works

SCHEDULE = Schedule("in order", "in order", resident=8)


@dataclass(frozen=True)
class Row:
    """Bytes a step and channel; kernel: as a multiple of the floor."""

    kernel: str
    way: str
    strategy: str
    floor: float
    multiple: float
    rest: float
    told: float
    heard: float
    polls: int


def count(cells: list[str], shape: tuple[int, int, int], dtype: str = "float32") -> list[Row]:
    """Every kernel of the cells, forward and backward, on this many batch elements, steps and channels."""
    B, T, C = shape
    found, size = [], B * T * C
    for work in works(cells, dtype):
        for strategy, source in work.sources.items():
            call = place(work.program, load(source, "emulated"), numbers(work.program, B, T, C, "cpu", dtype), B, T, C)
            counts = Emulator(source).run(call.values, SCHEDULE, call.scratch.data_ptr())
            heard, told = counts.messages
            rest = counts.loaded("vector", "edge") + counts.stored("sum", "final", "crossing")
            moved = counts.loaded() + counts.stored() - counts.loaded("scratch") - counts.stored("scratch")
            found.append(Row(work.program.name, work.way, strategy, work.size, moved / size / work.size, rest / size,
                             told / size, heard / size, counts.polls))
    return found


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=list(NAMES))
    parser.add_argument("--shape", type=int, nargs=3, default=(1, 65536, 64), metavar=("B", "T", "C"))
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    said = parser.parse_args()
    rows = count(said.cells, tuple(said.shape), said.dtype)
    print(f"{'kernel':<26}{'way':<10}{'strategy':<10}{'floor B':>8}{'kernel x':>10}{'rest B':>8}{'told B':>8}{'heard B':>9}"
          f"{'polls':>9}")
    for r in rows:
        print(f"{r.kernel:<26}{r.way:<10}{r.strategy:<10}{r.floor:>8.0f}{r.multiple:>10.4f}{r.rest:>8.3f}{r.told:>8.3f}"
              f"{r.heard:>9.3f}{r.polls:>9}")
    if said.json:
        said.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
