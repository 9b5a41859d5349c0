"""A fused SRU-like cell (two gates, tanh, highway) against the memory limit, eager torch and torch.compile.

    python -m benchmarks.highway                      the figures of the README: (8, 4096, 512), one thread
    python -m benchmarks.highway --shape 8 1024 256 --threads 2

Reported: forward, and forward plus backward with all gradients, through the public torch function and its autograd, as
multiples of the time to stream the same bytes (forward 4 reads + 2 writes, backward 6 reads + 4 writes of the shape).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch._higher_order_ops.associative_scan import associative_scan

import lrdsl as lr
from lrdsl import sigmoid, t, tanh

from .timing import interleaved, stream


@lr.cell
def highway(z: lr.Input, f_in: lr.Input, r_in: lr.Input, x: lr.Input, c: lr.State, b_f: lr.Vector, b_r: lr.Vector):
    """A simple recurrent unit whose gates see the input only."""
    f = sigmoid(f_in[t] + b_f)
    r = sigmoid(r_in[t] + b_r)
    c[t] = f * c[t - 1] + (1 - f) * z[t]
    return r * tanh(c[t]) + (1 - r) * x[t]


def eager(z, f_in, r_in, x, b_f, b_r):
    """The same equations, a torch loop over time."""
    f, r = torch.sigmoid(f_in + b_f), torch.sigmoid(r_in + b_r)
    c, states = torch.zeros_like(z[:, 0]), []
    for a, b in zip(f.unbind(1), ((1 - f) * z).unbind(1), strict=True):
        c = a * c + b
        states.append(c)
    return r * torch.tanh(torch.stack(states, 1)) + (1 - r) * x


def scanned(z, f_in, r_in, x, b_f, b_r):
    """The same equations on torch's associative_scan, for torch.compile."""
    f, r = torch.sigmoid(f_in + b_f), torch.sigmoid(r_in + b_r)
    _, c = associative_scan(lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1]), (f, (1 - f) * z), 1, combine_mode="generic")
    return r * torch.tanh(c) + (1 - r) * x


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(8, 4096, 512), metavar=("B", "T", "C"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each of the two tables")
    parser.add_argument("--peers", nargs="*", default=["eager", "compile"], help="eager, compile")
    said = parser.parse_args()
    torch.set_num_threads(said.threads)
    B, T, C = said.shape
    torch.manual_seed(0)
    tensors = [torch.randn(B, T, C, requires_grad=True) for _ in range(4)] + [
        torch.randn(C, requires_grad=True) for _ in range(2)]
    candidates = {"lrdsl": lr.function(highway)}
    if "eager" in said.peers:
        candidates["eager loop"] = eager
    if "compile" in said.peers:
        candidates["torch.compile"] = torch.compile(scanned)
    gradient = torch.randn(B, T, C)
    truth = eager(*(x.detach().double() for x in tensors))
    for name, run in candidates.items():
        print(f"{name}: largest difference from the loop in float64 {(run(*tensors) - truth).abs().max():.1e}", flush=True)

    def forward(run: Callable[..., torch.Tensor]) -> Callable[[], object]:
        def call() -> object:
            with torch.no_grad():
                return run(*tensors)
        return call

    def both(run: Callable[..., torch.Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(run(*tensors), tensors, gradient)

    for title, wrap, reads, writes in (("forward", forward, 4, 2), ("forward and backward", both, 10, 6)):
        times = interleaved({"stream": stream((B, T, C), reads, writes)} | {n: wrap(r) for n, r in candidates.items()},
                            said.seconds)
        limit = times.pop("stream")
        print(f"\n{title}, ({B}, {T}, {C}) float32, {said.threads} thread(s); streaming the same bytes: {limit * 1e3:.1f} ms "
              f"({(reads + writes) * 4 * B * T * C / limit / 1e9:.0f} GB/s)")
        for name, seconds in times.items():
            print(f"  {name:<16}{seconds * 1e3:10.1f} ms {seconds / limit:8.2f} x")


if __name__ == "__main__":
    main()
