"""The CPU kernels beside the memory limit and beside all that does the same: the table, growth, memory, compile times.

    python -m benchmarks.cpu --out DIR                     all of it, 10 minutes: DIR/cpu.csv, cpu.md and cpu.png
    python -m benchmarks.cpu --rows scan sru --peers fast
    python -m benchmarks.cpu --shape 8 4096 512 --threads 1 2 --peers none
    python -m benchmarks.cpu --quick                       each kind of row once, at a tiny shape: no time says anything

Through public torch functions and their autograd, float32, fresh outputs at each call. All candidates of a line run in turn in
one process, after each was held to a loop in float64. The limit is the time to stream as many bytes as a fused pass has to
read and write: torch's own loops with plain stores, into memory that is there, from copies of the line's inputs. It is no
bound: non-temporal stores do not read what they overwrite; loops written by hand that have them are timed too, and what these
take is the limit after the bar in the table. Before each run other memory is read, as whoever has more than one layer does, so
that nothing that the run before left in the caches helps or hinders it; but for growth, whose short sequences belong there.
What has one thread is timed in processor time, which other work on the machine does not change; what has more, on the wall, so
that it wants a machine of its own.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from . import cpu_memory, cpu_table, past_caches, peers_jax
from . import cpu_works as works
from .compare import Case, compare
from .cpu_table import Aims, Measured
from .table import Row, heading, show, write
from .timing import Clock, cold, processor, wall

Shape = works.Shape
CLOCKS: dict[str, Clock] = {"processor": processor, "wall": wall}
PEERS = ("none", "numba", "fast", "all")
TINY: Shape = (2, 64, 8)


@dataclass(frozen=True)
class Line:
    """A shape of the table. threads: it is measured with each of them; peers only with the first. few: beside quick peers
    alone. limit: instead of --limit."""

    row: str
    shape: Shape
    make: Callable[[Shape, str], Case]
    aims: Aims = field(default_factory=Aims)
    threads: tuple[int, ...] = (1,)
    few: bool = False
    limit: float | None = None


LINES = (
    Line("scan", (8, 4096, 512), works.linear, Aims(0.80, 0.80, 2.2, 10)),
    Line("scan", (8, 4096, 1536), works.linear, Aims(0.80, 0.80, 2.2, 10), few=True),
    Line("scan", (64, 256, 512), works.linear, Aims(0.80, 0.80, 2, 4)),
    Line("scan", (1, 65536, 64), works.linear, Aims(0.80, 0.80, 1.6, 6, two_threads=1.05), (1, 2)),
    Line("scan", (1, 1048576, 8), works.linear, Aims(0.80, 0.80, 3, 6, two_threads=1.05), (1, 2)),
    Line("scan", (1, 1048576, 1), works.linear, Aims(0.85, 1.0, 7, 5)),
    Line("turned", (8, 4096, 1536), works.turned, Aims(0.85, 0.85, 3, 3), few=True),
    *(Line("odd", (8, T, C), works.linear, few=True)
      for T, C in ((262144, 3), (32768, 33), (16384, 65), (8192, 100), (2048, 500))),
    Line("sru", (8, 4096, 512), works.sru, Aims(1.1, 1.0, None, 10), limit=90),
    Line("blocks", (8, 4096, 256), works.blocks, Aims(1.1, 1.1)),
    Line("complex", (8, 4096, 256), works.parts, Aims(1.1, 1.1)),
    Line("complex", (8, 4096, 256), works.complex_numbers, Aims(1.1, 1.1)),
    Line("constant", (1, 1048576, 1), works.cumsum),
    Line("constant", (1, 1048576, 1), works.decay),
    *(Line("T", (1, 10 ** k, 4), works.linear, threads=(1, 2), few=True) for k in range(3, 8)),
    *(Line("C", (1, (1 << 22) // C, C), works.linear, threads=(1, 2), few=True)
      for C in (1, 2, 3, 4, 8, 16, 33, 64, 100, 256, 500, 1024, 1536)),
)
GROWTH = ("T", "C")
ROWS = tuple(dict.fromkeys(line.row for line in LINES))
EXTRA = ("memory", "compile")


def chosen(said: argparse.Namespace) -> list[Line]:
    """The lines that were asked for, at the shapes and threads that were asked for."""
    lines = [line for line in LINES if line.row in said.rows]
    if said.quick or said.shape:
        kinds = {(line.row, line.make): line for line in reversed(lines)}
        shapes = [tuple(s) for s in said.shape or [TINY]]
        lines = [replace(k, shape=shape, aims=Aims(), threads=(1,)) for k in reversed(kinds.values()) for shape in shapes]
    return [replace(k, threads=tuple(said.threads or k.threads)) for k in lines]


def level(line: Line, threads: int, said: argparse.Namespace) -> str:
    """Peers of a line; with other threads than the first, with which alone jax started, those in numba."""
    most = "numba" if threads != line.threads[0] else "fast" if line.few else "all"
    return min(most, said.peers, key=PEERS.index)


def measure(line: Line, threads: int, said: argparse.Namespace) -> Measured:
    """Every way of a line with so many threads; what goes wrong is said, and costs this line alone."""
    torch.set_num_threads(threads)
    try:
        case = line.make(line.shape, level(line, threads, said))
        seconds, limit = said.seconds / 4 if line.row in GROWTH else said.seconds, line.limit or said.limit
        clock = CLOCKS[said.clock] if threads == 1 else wall
        clock = clock if line.row in GROWTH else cold(clock)
        rows = compare(case, "cpu", clock, seconds, said.rounds, _progress, limit, past_caches.loops())
    except Exception as failure:
        print(f"{line.row} {line.shape}, {threads} thread(s): {type(failure).__name__}: {failure}", flush=True)
        return Measured([], line.aims)
    for way in dict.fromkeys(r.way for r in rows):
        print("\n" + show([r for r in rows if r.way == way]), flush=True)
    return Measured(rows, line.aims)


@contextmanager
def at_most(gigabytes: float) -> Iterator[None]:
    """So much more memory for this process; what asks for more fails, and the machine does not."""
    used = int(re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[0]) << 10
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + int(gigabytes * (1 << 30)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS + EXTRA, help="of the table; without it all, or scan with --shape")
    parser.add_argument("--shape", type=int, nargs=3, action="append", metavar=("B", "T", "C"), help="instead; may be repeated")
    parser.add_argument("--threads", type=int, nargs="+", help="instead of 1, and 2 where the table has them")
    parser.add_argument("--peers", choices=PEERS, default="all")
    parser.add_argument("--seconds", type=float, default=4.0, help="to time a line forward, and again with gradients")
    parser.add_argument("--clock", choices=CLOCKS, default="processor", help="for one thread")
    parser.add_argument("--rounds", type=int, default=60, help="at most")
    parser.add_argument("--limit", type=float, default=15.0, help="seconds that one may take to compile and be checked")
    parser.add_argument("--memory", type=float, default=7.0, help="gigabytes that a line may take")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="a directory for the CSV files, the table in Markdown and the picture")
    return parser


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print, write."""
    said = options().parse_args(arguments)
    said.rows = said.rows or (("scan",) if said.shape else ROWS + EXTRA)
    if said.quick:
        said.seconds, said.peers, said.limit = min(said.seconds, 0.02), min(said.peers, "fast", key=PEERS.index), 5.0
    turns = [(line, threads) for line in chosen(said) for threads in line.threads]
    peers_jax.prepare(said.threads[0] if said.threads else 1)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes of its own, which would outlive a limit
    before = torch.get_num_threads()
    torch.manual_seed(0)
    found: list[tuple[str, Measured]] = []
    print("\n".join(heading("cpu")), flush=True)
    try:
        with at_most(said.memory):
            for line, threads in turns:
                found.append((line.row, measure(line, threads, said)))
                if said.out:  # a run that is cut short leaves what it has
                    write(_rows(found), said.out, "cpu", "cpu", draw=False)
    finally:
        torch.set_num_threads(before)
    shown, grown = ([m for row, m in found if (row in GROWTH) == growth] for growth in (False, True))
    text = [cpu_table.table(part) for part in (shown, grown) if part]
    if "memory" in said.rows and not said.quick:
        text.append(cpu_memory.table((8, 4096, 512), said.peers))
    if "compile" in said.rows and not said.quick:
        text.append(cpu_table.compiling())
    print("\n" + "\n\n".join(text), flush=True)
    if said.out:
        clock = f"clock: {said.clock} time for one thread, the wall's for more"
        Path(said.out, "cpu.md").write_text("\n\n".join(("  \n".join([*heading("cpu"), clock]), *text)) + "\n")
        if grown:
            cpu_table.picture([(row, m) for row, m in found if row in GROWTH], Path(said.out, "cpu.png"), heading("cpu")[0])
    return _rows(found)


def _rows(found: Sequence[tuple[str, Measured]]) -> list[Row]:
    return [row for _, m in found for row in m.rows]


if __name__ == "__main__":
    main()
