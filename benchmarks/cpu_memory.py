"""Memory that the linear scan takes beyond its inputs: the peak of what is resident, each candidate in a process of its own.

    python -m benchmarks.cpu_memory 8 4096 512

Counted in tensors of the shape. Nobody needs less than one forward, h, and three with gradients: h and the gradients of a and
b. What a first call loads and compiles is not counted: a call at a tiny shape goes before.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import cpu_works as works
from . import peers, peers_jax
from .compare import Ready, said

NAMES = ("lrdsl", "numba by hand", "jax lax.scan", "mamba.py pscan", "torch loop", "associative_scan")
LIMIT = 60.0  # seconds for one candidate


def status(field: str) -> int:
    """Bytes, from /proc."""
    return int(re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) << 10


def peaks(ready: Ready, gradients: Sequence[torch.Tensor]) -> list[float]:
    """Bytes beyond what is resident now, at most, during a call forward and during one with gradients."""
    def forward() -> object:
        with torch.no_grad():
            return ready.call()
    before, found = status("VmRSS"), []
    for run in (forward, lambda: ready.back([ready.inward(g) for g in gradients])):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten
        run()
        found.append(float(status("VmHWM") - before))
    return found


def child(name: str, shape: works.Shape) -> list[float]:
    """The peaks of one candidate, in this process."""
    torch.set_num_threads(1)
    peers_jax.prepare(1)
    for size in ((2, 64, 8), shape):
        case = works.linear(size, "all")
        ready, gradients = case.candidates[name](case.inputs), case.drawn("cpu")
        found = peaks(ready, gradients)
    return found


def table(shape: works.Shape, level: str = "all") -> str:
    """A Markdown table; of `NAMES`, those that are there at a level of peers."""
    lines = [f"Memory beyond the inputs, ({', '.join(map(str, shape))}), one thread, in tensors of this shape:", "",
             "| candidate | forward | forward and backward |", "|---|---|---|"]
    there = [n for n in NAMES if n in {"lrdsl", *peers.more(level, shape)}]
    for name in there:
        command = [sys.executable, "-m", "benchmarks.cpu_memory", *map(str, shape), "--candidate", name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT,
                                  env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
            cells = [f"{size / (4 * math.prod(shape)):.2f}" for size in json.loads(done.stdout)]
        except subprocess.TimeoutExpired:
            cells = ["-", f"over {LIMIT:g} s"]
        except subprocess.CalledProcessError as failure:
            cells = ["-", (failure.stderr.strip().splitlines() or [said(failure)])[-1][:90]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or what one candidate takes as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", type=int, nargs=3)
    parser.add_argument("--candidate", help="this one alone, in bytes")
    asked = parser.parse_args()
    print(json.dumps(child(asked.candidate, tuple(asked.shape))) if asked.candidate else table(tuple(asked.shape)))


if __name__ == "__main__":
    main()
