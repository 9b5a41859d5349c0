"""How long a new cell takes until it runs on the CPU: cold (nothing compiled yet) and warm (its kernels are in the cache).

    python -m benchmarks.compile_time

Each run is a fresh process with torch and lrdsl imported before the clock starts, or one that has run another cell before
(templates parsed, libraries warm). Declared: the front end. Forward: until the first call of the module returns, compiler
included. Both: until its gradients are there too.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

RUN = '''
import time, torch, lrdsl as lr
from lrdsl import t, sigmoid, tanh
if OTHER:
    lr.RNN(lr.cells.gilr_lstm, 8, 64)(torch.zeros(16, 2, 8))[0].sum().backward()
start = time.perf_counter()
@lr.cell
def fresh(x: lr.Input, h: lr.State, gate: lr.Affine, impulse: lr.Affine):
    g = sigmoid(gate(x[t]))
    h[t] = g * h[t - 1] + (1 - g) * tanh(impulse(x[t]))
    return h[t]
declared = time.perf_counter()
layer = lr.RNN(fresh, 8, 64)
x = torch.zeros(16, 2, 8)
with torch.no_grad():
    layer(x)
forward = time.perf_counter()
layer(x)[0].sum().backward()
print(declared - start, forward - start, time.perf_counter() - start)
'''


def run(cache: str, other: bool) -> list[float]:
    """Seconds until declared, forward, both."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:  # a file, so that the body has a source to read
        file.write(f"OTHER = {other}\n{RUN}")
        file.flush()
        done = subprocess.run([sys.executable, file.name], capture_output=True, text=True, check=True,
                              env={**os.environ, "LRDSL_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(sys.path)})
    return [float(s) for s in done.stdout.split()]


def main(rounds: int = 7) -> None:
    """Print medians."""
    runs: dict[str, list[list[float]]] = {}
    for _ in range(rounds):
        for other in (False, True):
            with tempfile.TemporaryDirectory() as cache:
                for state in ("cold", "warm"):
                    runs.setdefault(f"{state}, {'after another cell' if other else 'first cell'}", []).append(run(cache, other))
    for name, times in runs.items():
        declared, forward, both = (statistics.median(r) * 1e3 for r in zip(*times, strict=True))
        print(f"{name:<24} declared after {declared:.0f} ms, forward after {forward:.0f} ms, both after {both:.0f} ms")


if __name__ == "__main__":
    main()
