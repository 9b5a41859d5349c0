"""Registers and spills of the generated CUDA text, as ptxas reports them; needs nvcc, no GPU.

    python -m benchmarks.registers                          a table, for sm_80, sm_90 and sm_100
    python -m benchmarks.registers --arch sm_90 --cells gilr sru --dtypes float32 --json registers.json

One line for each kernel: cell's Program, forward or backward, strategy, dtype and architecture. Spilled bytes are per thread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import lrdsl as lr
from lrdsl.codegen.emit import emit
from lrdsl.frontend.cell import Cell
from lrdsl.ir.dtypes import DTYPES
from lrdsl.ir.kernel import Kernel
from lrdsl.passes.schedule import schedules

from .cells import zoo
from .cpu_works import highway

CELLS = ("linear_scan", "gilr", "gilr_lstm", "sru", "qrnn", "highway")


@dataclass(frozen=True)
class Report:
    """What ptxas says of one kernel. stack, stores, loads: bytes a thread, of frame and spills; shared: bytes a block."""

    kernel: str
    strategy: str
    dtype: str
    arch: str
    block: int
    registers: int
    stack: int
    stores: int
    loads: int
    shared: int


def kernels(names: Iterable[str], dtypes: Sequence[str] = ("float32", "float64")) -> list[Kernel]:
    """Every kernel of the cells that this version has, forward and backward, in every strategy."""
    cells = [highway if n == "highway" else zoo(n) for n in names]
    return [k for cell in cells if cell for dtype in dtypes for p in programs(cell) for k in schedules(p, "cuda", dtype)]


def programs(cell: Cell) -> list[lr.ir.program.Program]:
    """The fused passes of a cell, forward and backward."""
    stages = lr.compile(cell, "cpu").stages
    return [*stages["forward"], *stages["backward"]]


def ptxas(kernel: Kernel, archs: Sequence[str]) -> list[Report]:
    """A report for each architecture. Raises CalledProcessError where nvcc refuses the text, RuntimeError for what it says."""
    source = emit([kernel], archs[0])[0]
    codes = [f"-gencode=arch={a.replace('sm', 'compute')},code={a}" for a in archs]
    with tempfile.TemporaryDirectory() as place:
        text = Path(place, "kernel.cu")
        text.write_text(source.text)
        done = subprocess.run(["nvcc", "-fatbin", *codes, "-Xptxas", "-v", text, "-o", Path(place, "kernel.fatbin")],
                              capture_output=True, text=True, check=True)
    found = [_report(kernel, source.block, part) for part in done.stderr.split("Compiling entry function")[1:]]
    if {r.arch for r in found} != {*archs}:
        raise RuntimeError(f"ptxas reported {sorted(r.arch for r in found)}, not {', '.join(archs)}:\n{done.stderr}")
    return found


def _report(kernel: Kernel, block: int, text: str) -> Report:
    """The part of ptxas's words that follows one `Compiling entry function`."""
    def said(pattern: str) -> int:
        return sum(int(n) for n in re.findall(rf"(\d+) {pattern}", text))
    arch = re.search(r"for '(sm_\w+)'", text)
    registers = re.search(r"Used (\d+) registers", text)
    if not arch or not registers:
        raise RuntimeError(f"ptxas does not report registers: {text}")
    return Report(kernel.program.name, kernel.strategy, kernel.dtype, arch[1], block, int(registers[1]),
                  *map(said, ("bytes stack frame", "bytes spill stores", "bytes spill loads", "bytes smem")))


def reports(found: Sequence[Kernel], archs: Sequence[str]) -> Iterable[Report]:
    """Reports in order, as they come; one nvcc a processor."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in pool.map(lambda k: ptxas(k, archs), found):
            yield from part


def main(arguments: list[str] | None = None) -> None:
    """Print a line a kernel; --json writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["sm_80", "sm_90", "sm_100"])
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"], choices=DTYPES)
    parser.add_argument("--json", type=Path, help="a file for the same figures as JSON")
    said = parser.parse_args(arguments)
    print(f"{'kernel':<28}{'strategy':<10}{'dtype':<10}{'arch':<8}{'block':>6}{'registers':>10}{'stack':>7}{'spill stores':>13}"
          f"{'spill loads':>12}{'shared':>8}", flush=True)
    found = []
    for r in reports(kernels(said.cells, said.dtypes), said.arch):
        print(f"{r.kernel:<28}{r.strategy:<10}{r.dtype:<10}{r.arch:<8}{r.block:>6}{r.registers:>10}{r.stack:>7}{r.stores:>13}"
              f"{r.loads:>12}{r.shared:>8}", flush=True)
        found.append(asdict(r))
    if said.json:
        said.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
