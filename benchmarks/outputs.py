"""What the memory of outputs costs: a linear scan whose outputs come on fresh pages, on fresh huge pages, and from the pool.

    python -m benchmarks.outputs --out DIR                  a table, and DIR/outputs.csv and DIR/outputs.png
    python -m benchmarks.outputs --quick                    one small shape

Forward, and forward with all gradients, float32, one thread, processor time of this process, the system's part included: page
faults are its work, and other programs do not count. The limit is the time to stream the same bytes through memory that is
there.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

import lrdsl as lr
from lrdsl.backends.blocks import Pool
from lrdsl.nn import pool

from .table import Row, heading, show, write
from .timing import measured, stream

SHAPES = ((8, 4096, 512), (64, 256, 512), (1, 1048576, 8), (1, 65536, 64))
# What LRDSL_POOL says: no pool; one that keeps nothing, so that each block is fresh; the usual one.
WAYS = {"fresh pages": "0", "fresh huge pages": "1", "pool": ""}


def processor_time(run: Callable[[], object]) -> float:
    """Seconds that this process worked, and the system for it."""
    start = time.process_time()
    run()
    return time.process_time() - start


@contextmanager
def saying(value: str) -> Iterator[None]:
    """With LRDSL_POOL set."""
    before = os.environ.get("LRDSL_POOL")
    os.environ["LRDSL_POOL"] = value
    try:
        yield
    finally:
        del os.environ["LRDSL_POOL"]
        if before is not None:
            os.environ["LRDSL_POOL"] = before


def candidates(a: torch.Tensor, b: torch.Tensor, gradient: torch.Tensor | None) -> Mapping[str, Callable[[], object]]:
    """A call in each way, with a pool of its own, and a backward pass where a gradient is given. What it made dies with it."""
    def run(value: str, own: Pool) -> None:
        with saying(value):
            pool.POOL = own
            h = lr.linear_scan(a, b)
            if gradient is not None:
                torch.autograd.grad(h, (a, b), gradient)
            del h

    return {name: partial(run, value, Pool()) for name, value in WAYS.items()}


def rows(B: int, T: int, C: int, seconds: float) -> Iterator[Row]:
    """Both passes of one shape."""
    a, b, gradient = (torch.rand(B, T, C) for _ in range(3))
    both = a.clone().requires_grad_(), b.clone().requires_grad_()
    for way, (reads, writes), calls in (("forward", (2, 1), candidates(a, b, None)),
                                        ("forward and backward", (5, 3), candidates(*both, gradient))):
        times = measured({"stream": stream((B, T, C), reads, writes), **calls}, seconds, 200, processor_time)
        limit = times.pop("stream").median
        for name, found in times.items():
            yield Row("linear_scan", way, B, T, C, name, None, found, limit, (reads + writes) * a.nbytes)


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, action="append", metavar=("B", "T", "C"), help="may be repeated")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each table")
    parser.add_argument("--quick", action="store_true", help="one small shape, 0.3 s a table")
    parser.add_argument("--out", type=Path, help="a directory for the CSV file and the picture")
    said = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("\n".join(heading("cpu")), flush=True)
    found: list[Row] = []
    for B, T, C in ((1, 4096, 512),) if said.quick else said.shape or SHAPES:
        new = list(rows(B, T, C, 0.3 if said.quick else said.seconds))
        for way in dict.fromkeys(r.way for r in new):
            print("\n" + show([r for r in new if r.way == way]), flush=True)
        found += new
    if said.out:
        write(found, said.out, "outputs", "cpu")
    return found


if __name__ == "__main__":
    main()
