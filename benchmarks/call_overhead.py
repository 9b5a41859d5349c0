"""What a call costs beside its kernel: tiny inputs, (B, T, D) = (1, 4, 8), one thread.

    python -m benchmarks.call_overhead [--rounds N] [--csv FILE]

Microseconds a call: the smallest and the median of rounds of 20 calls, all cases by turns in each round, so that what else the
machine does meets them alike. Beside them torch's own costs: a product, an empty autograd.Function, an LSTM. Forward without
gradients, forward that will have them, and forward with backward.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lrdsl as lr

CALLS = 20  # few, so that some rounds end before another process has its turn
LIMITS = {"linear_scan, forward": 12.0, "linear_scan, both": 45.0}  # microseconds that the project allows


class Nothing(torch.autograd.Function):
    """Two tensors in, one out."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        a, b = ctx.saved_tensors
        return gradient + a, gradient + b


def cases() -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    a, b, x, ones = (torch.rand(1, 4, 8) for _ in range(4))
    leaves = a.clone().requires_grad_(), b.clone().requires_grad_()
    found: dict[str, Callable[[], Any]] = {}

    def both_ways(name: str, call: Callable[..., Tensor]) -> None:
        found[f"{name}, forward"] = lambda: call(a, b)
        found[f"{name}, forward to be differentiated"] = lambda: call(*leaves)
        found[f"{name}, both"] = lambda: torch.autograd.grad(call(*leaves), leaves, ones)

    def module(name: str, layer: Any) -> None:
        parameters = tuple(layer.parameters())

        def forward() -> Any:
            with torch.no_grad():
                return layer(x)

        found[f"{name}, forward"] = forward
        found[f"{name}, both"] = lambda: torch.autograd.grad(layer(x)[0], parameters, ones)

    both_ways("a * b", torch.mul)
    both_ways("autograd.Function", Nothing.apply)
    both_ways("linear_scan", lr.linear_scan)
    both_ways("function(linear_scan)", lr.function(lr.cells.linear_scan))
    module("RNN(sru)", lr.RNN(lr.cells.sru, 8, 8, batch_first=True))
    module("RNN(gilr)", lr.RNN(lr.cells.gilr, 8, 8, batch_first=True))
    module("torch.nn.LSTM", torch.nn.LSTM(8, 8, batch_first=True))
    return found


def measure(rounds: int) -> dict[str, list[float]]:
    """Microseconds a call, of each round."""
    every = cases()
    for call in every.values():
        for _ in range(CALLS):
            call()
    times: dict[str, list[float]] = {name: [] for name in every}
    for _ in range(rounds):
        for name, call in every.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append((time.perf_counter() - start) / CALLS * 1e6)
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--csv", type=Path)
    said = parser.parse_args()
    torch.set_num_threads(1)
    rows = [(name, min(found), statistics.median(found)) for name, found in measure(said.rounds).items()]
    print(f"{'':<46}{'smallest':>10}{'median':>10}   µs a call")
    for name, least, median in rows:
        limit = f"   (allowed: {LIMITS[name]:g})" if name in LIMITS else ""
        print(f"{name:<46}{least:>10.1f}{median:>10.1f}{limit}")
    if said.csv:
        with said.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("case", "smallest µs", "median µs"))
            writer.writerows((name, f"{least:.2f}", f"{median:.2f}") for name, least, median in rows)


if __name__ == "__main__":
    main()
