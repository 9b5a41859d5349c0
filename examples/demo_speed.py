"""Seconds a training step against the length of the sequence: generated kernels, `torch.nn.LSTM`, and a loop in torch.

    python examples/demo_speed.py --batch 4         the part of demo.py that takes time, alone

The loop is the cell that the kernels run, with the same weights. It is written as one would write it for speed: its dense
maps are taken for all steps at once, and only the two recurrences go step by step. `torch.nn.LSTM` is another function (it
feeds its output back through a dense map), of the same width and depth: what one would use instead. Each is timed on one
thread and on all of torch's, in turn, and the better median counts: small matrices are often faster on one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lrdsl as lr

INPUTS, HIDDEN, LAYERS = 1, 64, 2
LENGTHS = (64, 256, 1024, 4096, 16384)
KERNELS, LSTM, LOOP = NAMES = ("lrdsl kernels", "torch.nn.LSTM", "torch loop")
PATIENCE = 5.0  # seconds that one step may take, judged by the length before


class Time(NamedTuple):
    """The median seconds of a step and its threads; what it would have been, judged by the length before, where not `run`."""

    seconds: float
    threads: int
    run: bool


Table = dict[int, dict[str, Time]]


def recurrence(a: Tensor, b: Tensor) -> Tensor:
    """h[t] = a[t] h[t-1] + b[t], a step at a time; (batch, time, channels)."""
    h, all_h = torch.zeros_like(b[:, 0]), []
    for a_t, b_t in zip(a.unbind(1), b.unbind(1), strict=True):
        h = a_t * h + b_t
        all_h.append(h)
    return torch.stack(all_h, 1)


def loop(layer: lr.RNN, x: Tensor) -> Tensor:
    """What `layer`, a GILR-LSTM, computes: Martin & Cundy 2018, section 3.3."""
    for part in layer.layers:
        weights = dict(part.named_parameters())

        def dense(name: str, *operands: Tensor, weights: dict[str, Tensor] = weights) -> Tensor:
            return F.linear(torch.cat(operands, -1), weights[f"{name}.weight"], weights[f"{name}.bias"])

        g, j = torch.sigmoid(dense("h.gate", x)), torch.tanh(dense("h.impulse", x))
        surrogate = recurrence(g, (1 - g) * j)
        before = F.pad(surrogate[:, :-1], (0, 0, 1, 0))  # at t-1, and 0 before the first step
        f, i, o = (torch.sigmoid(dense(name, x, before)) for name in ("forget", "enter", "leave"))
        x = o * recurrence(f, i * torch.tanh(dense("update", x, before)))
    return x


def measure(lengths: Sequence[int] = LENGTHS, batch: int = 1, runs: int = 3) -> Table:
    """The medians of `runs` or more interleaved steps at each length; what they are of is printed first."""
    threads = torch.get_num_threads()
    print(f"{LAYERS} layers of {HIDDEN} units, batch {batch}, float32; medians of {runs} or more interleaved runs"
          + (f", on 1 or {threads} threads,\nwhichever suits each better" if threads > 1 else ""), flush=True)
    torch.manual_seed(0)
    layer = lr.RNN(lr.cells.gilr_lstm, INPUTS, HIDDEN, num_layers=LAYERS, batch_first=True)
    lstm = nn.LSTM(INPUTS, HIDDEN, num_layers=LAYERS, batch_first=True)
    print(_agreement(layer), flush=True)
    steps = {KERNELS: _step(layer, lambda x: layer(x)[0]), LSTM: _step(lstm, lambda x: lstm(x)[0]),
             LOOP: _step(layer, lambda x: loop(layer, x))}
    ways = [(name, n) for n in sorted({1, threads}) for name in NAMES]
    times: dict[tuple[str, int], float] = dict.fromkeys(ways, 0.0)
    table: Table = {}
    for before, T in zip((1, *lengths), lengths, strict=False):
        x = torch.randn(batch, T, INPUTS)
        times = {way: seconds * T / before for way, seconds in times.items()}
        taken: dict[tuple[str, int], list[float]] = {way: [] for way in ways if times[way] <= PATIENCE}
        while taken and (min(map(len, taken.values())) < runs or sum(map(sum, taken.values())) < 1.0):
            for (name, n), seconds in taken.items():
                if n != torch.get_num_threads() or not seconds:
                    torch.set_num_threads(n)
                    steps[name](x[:, :256])  # warm-up: kernels compiled, threads awake
                seconds.append(steps[name](x))
        times.update((way, statistics.median(seconds)) for way, seconds in taken.items())
        table[T] = {name: min((Time(times[name, n], n, (name, n) in taken) for m, n in ways if m == name),
                              key=lambda time: (not time.run, time.seconds)) for name in NAMES}
    torch.set_num_threads(threads)
    return table


def _step(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], float]:
    """Forward and backward, timed."""
    def step(x: Tensor) -> float:
        module.zero_grad()
        start = time.perf_counter()
        forward(x).square().mean().backward()
        return time.perf_counter() - start
    return step


def _agreement(layer: lr.RNN) -> str:
    """Compare outputs and gradients of kernels and loop; a difference beyond rounding ends the program."""
    x = torch.randn(3, 257, INPUTS)
    found = []
    for forward in (lambda: layer(x)[0], lambda: loop(layer, x)):
        y = forward()
        found.append([y, *torch.autograd.grad(y.square().mean(), list(layer.parameters()))])
    worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*found, strict=True))
    if not worst < 1e-4:
        raise SystemExit(f"demo: kernels and loop differ by {worst:.1e} of the largest value; that is not rounding")
    return (f"kernels and loop agree: outputs and all gradients within {worst:.0e} of the largest value "
            f"(batch 3, length 257, float32)")


def show(table: Table) -> str:
    """The table as text; * marks the fastest of a row."""
    lines = [f"{'length':>8}" + "".join(f"{name:>18}" for name in NAMES) + f"{'LSTM / lrdsl':>16}{'loop / lrdsl':>15}"]
    for T, row in table.items():
        best = min(time.seconds for time in row.values())
        cells = [f"{t.seconds:.4f} {'*' if t.seconds == best else ' '}" if t.run else f"not run: ~{t.seconds:.0f} †"
                 for t in row.values()]
        ratios = [f"{row[name].seconds / row[KERNELS].seconds:.1f} {' ' if row[name].run else '†'}" for name in (LSTM, LOOP)]
        lines.append(f"{T:>8}" + "".join(f"{c:>18}" for c in cells) + f"{ratios[0]:>16}{ratios[1]:>15}")
    if any(not t.run for row in table.values() for t in row.values()):
        lines.append(f"† not run, for it would take more than {PATIENCE:.0f} s; extrapolated from the length before")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds a training step against the length of the sequence")
    parser.add_argument("--batch", type=int, default=1, help="sequences at once (default 1)")
    print(f"\n{show(measure(batch=parser.parse_args().batch))}")


if __name__ == "__main__":
    main()
