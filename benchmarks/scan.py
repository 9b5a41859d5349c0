"""The linear scan h[t] = a[t] h[t-1] + b[t] beside other ways to compute it, through public torch functions and autograd.

    python -m benchmarks.scan --out DIR                     a table, and DIR/scan.csv and DIR/scan.png
    python -m benchmarks.scan --quick                       one short shape, nothing that compiles for long
    python -m benchmarks.scan --shape 8 65536 512 --device cuda

Forward, and forward with all gradients, float32, fresh outputs at each call. All candidates run in turn, in one process; every
one is first held to a loop in float64. The limit is the time to stream the same bytes: 2 reads and 1 write of the shape
forward, 3 and 2 more backward. Coefficients are within 8/T of 1 (T at most 65536), so that a step that is lost would show.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import lrdsl as lr

from .compare import Case, compare
from .peers import loop, packages, plain, scans
from .table import Row, heading, show, write
from .timing import clock_of

WORDS = ((2, 1), (3, 2))
LONG = 1 << 16  # steps that a state lasts, at most: float32 loses too much over more
SHAPES = ((8, 256, 256), (8, 1024, 256), (8, 4096, 256))


def numbers(B: int, T: int, C: int, device: str) -> tuple[Tensor, Tensor]:
    """a and b."""
    generator = torch.Generator(device).manual_seed(0)
    a = 1 - 8 / min(max(T, 16), LONG) * torch.rand(B, T, C, device=device, generator=generator)
    return a, torch.randn(B, T, C, device=device, generator=generator)


def case(B: int, T: int, C: int, device: str, compiled: bool = True) -> Case:
    """The linear scan of one shape."""
    a, b = numbers(B, T, C, device)
    ways = {"lrdsl": lr.linear_scan, **scans(device, compiled)}
    return Case("linear_scan", (B, T, C), {"a": a, "b": b}, lambda x: loop(x["a"], x["b"]), WORDS,
                {name: plain(scan) for name, scan in ways.items()} | packages(device))


def options(text: str) -> argparse.ArgumentParser:
    """What `scan` and `cells` understand."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, action="append", metavar=("B", "T", "C"), help="may be repeated")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=2.0, help="for each table")
    parser.add_argument("--quick", action="store_true", help="the first shape alone, without torch.compile, 0.5 s a table")
    parser.add_argument("--out", type=Path, help="a directory for the CSV file and the picture")
    return parser


def run(said: argparse.Namespace, name: str, makes: list[Callable[[], Case]]) -> list[Row]:
    """Measure, print and write the cases, each made when its turn comes."""
    torch.manual_seed(0)
    print("\n".join(heading(said.device)), flush=True)
    clock, rows = clock_of(said.device), list[Row]()
    for make in makes:
        found = compare(make(), said.device, clock, said.seconds, say=_progress)
        for way in dict.fromkeys(r.way for r in found):
            print("\n" + show([r for r in found if r.way == way]), flush=True)
        rows += found
    if said.out:
        write(rows, said.out, name, said.device)
    return rows


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def prepare(said: argparse.Namespace, shapes: tuple[tuple[int, int, int], ...]) -> None:
    """Fill in shapes, set threads and the arithmetic of products."""
    said.shape = [(B, T, C) for B, T, C in said.shape or shapes]
    if said.quick:
        said.shape, said.seconds = said.shape[:1], min(said.seconds, 0.5)
    torch.set_num_threads(said.threads)
    torch.backends.cudnn.allow_tf32 = False  # as for torch's other products, so that all candidates do the same


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure and print."""
    said = options(__doc__ or "").parse_args(arguments)
    prepare(said, SHAPES)
    return run(said, "scan", [partial(case, B, T, C, said.device, not said.quick) for B, T, C in said.shape])


if __name__ == "__main__":
    main()
