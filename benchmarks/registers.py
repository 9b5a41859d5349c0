"""Registers and spills of the generated CUDA text, as ptxas reports them; needs nvcc, no GPU.

    python -m benchmarks.registers --arch sm_90
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

import lrdsl as lr

from .highway import highway


def ptxas(text: str, arch: str) -> tuple[int, int, int]:
    """(registers, bytes of spilled stores, of spilled loads) of a file with one kernel."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "kernel.cu")
        source.write_text(text)
        done = subprocess.run(["nvcc", "-cubin", f"-arch={arch}", "-Xptxas", "-v", source, "-o", Path(place, "kernel.cubin")],
                              capture_output=True, text=True, check=True)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    registers = re.search(r"Used (\d+) registers", done.stderr)
    assert spills and registers, done.stderr
    return int(registers[1]), int(spills[1]), int(spills[2])


def main() -> None:
    """Print a line a kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="sm_90")
    arch = parser.parse_args().arch
    print(f"{arch:<28}{'dtype':<10}{'registers':>10}{'spill stores':>14}{'spill loads':>13}")
    for cell in (lr.cells.linear_scan, lr.cells.gilr, lr.cells.gilr_lstm, highway):
        for dtype in ("float32", "float64"):
            for sources in lr.compile(cell, "cuda", arch, dtype).stages["source"].values():
                for source in sources:
                    registers, stores, loads = ptxas(source.text, arch)
                    print(f"{source.program.name:<28}{dtype:<10}{registers:>10}{stores:>14}{loads:>13}")


if __name__ == "__main__":
    main()
