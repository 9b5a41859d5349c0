"""How long a new cell takes until it is trained on the CPU: cold (nothing compiled yet) and warm (an earlier process knew it).

    python -m benchmarks.compile_time [--rounds N] [--csv FILE]

In between is a new cell where another process has compiled others: Jinja's templates are then known as code. Each run is a
fresh process, of one thread. torch and lrdsl are imported, and torch has run a layer of its own, before the clock starts; in
some lrdsl has run another cell, too (templates parsed). Declared: the front end. Forward: until the first call of the module
returns, one that will have gradients. Both: until its gradients are there. Processor: what the process itself worked for that,
without compilers; where others use the machine this is the steadier number. Allowed are 150 ms cold and 15 ms warm.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = '''
import time, torch, lrdsl as lr
from lrdsl import t, sigmoid, tanh
torch.set_num_threads(1)
lr.RNN
torch.nn.Linear(8, 64)(torch.zeros(16, 2, 8)).sum().backward()
if OTHER:
    lr.RNN(lr.cells.gilr_lstm, 8, 64)(torch.zeros(16, 2, 8))[0].sum().backward()
start, worked = time.perf_counter(), time.thread_time()
@lr.cell
def fresh(x: lr.Input, h: lr.State, gate: lr.Affine, impulse: lr.Affine):
    g = sigmoid(gate(x[t]))
    h[t] = g * h[t - 1] + (1 - g) * tanh(impulse(x[t]))
    return h[t]
declared = time.perf_counter()
layer = lr.RNN(fresh, 8, 64)
y = layer(torch.zeros(16, 2, 8))[0]
forward = time.perf_counter()
y.sum().backward()
print(declared - start, forward - start, time.perf_counter() - start, time.thread_time() - worked)
'''


def run(cache: str, other: bool) -> list[float]:
    """Seconds until declared, forward, both; and of the processor."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:  # a file, so that the body has a source to read
        file.write(f"OTHER = {other}\n{RUN}")
        file.flush()
        done = subprocess.run([sys.executable, file.name], capture_output=True, text=True, check=True,
                              env={**os.environ, "LRDSL_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(sys.path)})
    return [float(s) for s in done.stdout.split()]


def main() -> None:
    """Print medians, and the best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--csv", type=Path)
    said = parser.parse_args()
    runs: dict[str, list[list[float]]] = {}
    for _ in range(said.rounds):
        for other in (False, True):
            with tempfile.TemporaryDirectory() as cache:
                for state in ("cold", "warm", "cold, templates known"):
                    if state == "cold, templates known":
                        for entry in (e for e in Path(cache).iterdir() if e.suffix != ".code"):
                            entry.unlink()
                    runs.setdefault(f"{state}, {'after another cell' if other else 'first cell'}", []).append(run(cache, other))
    rows = []
    for name, times in runs.items():
        columns = [[1e3 * s for s in column] for column in zip(*times, strict=True)]
        rows.append((name, *map(statistics.median, columns), min(columns[2]), min(columns[3])))
        declared, forward, both, worked, best, least = rows[-1][1:]
        print(f"{name:<42} declared after {declared:.0f} ms, forward after {forward:.0f} ms, both after {both:.0f} ms (best "
              f"{best:.0f}), processor {worked:.0f} ms (best {least:.0f})")
    if said.csv:
        with said.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("run", *(f"{n} ms" for n in ("declared", "forward", "both", "processor", "best both",
                                                          "best processor"))))
            writer.writerows((name, *(f"{v:.2f}" for v in values)) for name, *values in rows)


if __name__ == "__main__":
    main()
