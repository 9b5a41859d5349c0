"""One part of the GPU drill; `gpu.sh` runs them all, each under its own limit.

    python -m benchmarks.gpu_drill kernels OUT --device cuda
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import cells, gpu_kernels, gpu_profile, gpu_works, peers, registers, scan
from .compare import Case, compare
from .gpu_records import ROOT, Records, read
from .gpu_works import tensors_on
from .table import processor, show
from .timing import clock_of

OUTCOME = re.compile(r"^(\S+::.+?) (PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)\b")
Shapes = tuple[tuple[int, int, int], ...]
SCANS: Shapes = ((8, 4096, 1024), (1, 32768, 1024), (32, 1024, 1024))
LAYERS: Shapes = ((32, 1024, 512), (16, 4096, 256))
TINY: Shapes = ((2, 40, 8),)


def environment(records: Records, names: Sequence[str]) -> None:
    """What there is: GPU, driver, compilers, packages."""
    tools = {"driver": ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"),
             "nvcc": ("nvcc", "--version"), "g++": ("g++", "--version"), "ncu": ("ncu", "--version"),
             "cuobjdump": ("cuobjdump", "--version")}
    facts: dict[str, Any] = {name: _says(command) for name, command in tools.items()}
    packages = ("torch", "triton", "pycuda", "cuda-bindings", "numpy", "sympy", "jinja2", "accelerated-scan", "fla-core")
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        facts |= {"multiprocessors": gpu.multi_processor_count, "memory": gpu.total_memory, "L2": gpu.L2_cache_size,
                  "capability": f"{gpu.major}.{gpu.minor}"}
    records.write("environment", facts={
        "python": platform.python_version(), "system": platform.platform(), "processor": processor(),
        "processors": os.cpu_count(), "cuda": torch.version.cuda, "packages": {p: _version(p) for p in packages}, **facts})


def _says(command: Sequence[str]) -> str:
    """The line in which a tool names its version, or that it is missing."""
    if shutil.which(command[0]) is None:
        return "missing"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return next((line for line in done.stdout.splitlines() if re.search(r"\d+\.\d+", line)), "no version")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def tests(records: Records, names: Sequence[str]) -> None:
    """tests/gpu: a record a test, as soon as it has ended; raises SystemExit where one failed."""
    first = ("test_launching.py", "test_cells.py")  # what everything else stands on
    every = sorted(Path(ROOT, "tests", "gpu").glob("test_*.py"))
    files = sorted(every, key=lambda p: first.index(p.name) if p.name in first else len(first))
    command = [sys.executable, "-m", "pytest", *(str(p.relative_to(ROOT)) for p in files), "-v", "--no-header", "--color=no",
               "-p", "no:cacheprovider"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            if found := OUTCOME.match(line):
                records.write("test", note=found[2].lower(), facts={"test": found[1]})
    if running.returncode:
        raise SystemExit(running.returncode)


def peers_beside(records: Records, names: Sequence[str]) -> None:
    """The public functions beside torch's associative_scan, accelerated-scan, fla and cuDNN's LSTM."""
    device, tiny = tensors_on(records.device), records.device == "emulated"
    torch.backends.cudnn.allow_tf32 = False
    clock = clock_of(device)
    made: list[Callable[[], Case]] = []
    if "gilr_lstm" in names:
        made += [partial(cells.case, "gilr_lstm", B, T, H, device, False) for B, T, H in (TINY if tiny else LAYERS)]
    if "linear_scan" in names:
        made += [partial(_scan, shape, device) for shape in (TINY if tiny else SCANS)]
    for make in made:
        case = make()
        rows = compare(_without_loop(case), device, clock, 0.1 if tiny else 2.0, 5 if tiny else 30)
        for row in rows:
            records.write("peer", kernel=row.cell, way=row.way, strategy=row.candidate, dtype="float32", shape=case.shape,
                          size=row.size, seconds=asdict(row.times) if row.times else None, error=row.error, note=row.note,
                          facts={} if tiny else {"stream": row.stream})
        if not tiny:
            print(show([r for r in rows if r.way == "forward and backward"]), flush=True)


def _scan(shape: tuple[int, int, int], device: str) -> Case:
    case = scan.case(*shape, device, compiled=False)
    if device != "cuda":
        return case
    pointwise = peers.plain(torch.compile(peers.pointwise, dynamic=False))
    return replace(case, candidates={**case.candidates, "associative_scan, pointwise": pointwise})


def _without_loop(case: Case) -> Case:
    """A loop of many small launches takes seconds, and is not what is asked here."""
    return replace(case, candidates={n: c for n, c in case.candidates.items() if n != "torch loop"})


def resources(records: Records, names: Sequence[str]) -> None:
    """Registers and spills for the GPU that is here, or for sm_90."""
    if shutil.which("nvcc") is None:
        records.write("registers", note="nvcc is not on PATH")
        return
    arch = "sm_{}{}".format(*torch.cuda.get_device_capability()) if records.device == "cuda" else "sm_90"
    for r in registers.reports(registers.kernels(names, ("float32",)), [arch]):
        records.write("registers", kernel=r.kernel, strategy=r.strategy, dtype=r.dtype, facts={
            k: v for k, v in asdict(r).items() if k not in ("kernel", "strategy", "dtype")})


def picture(records: Records, names: Sequence[str]) -> None:
    """OUT/kernels.png: the share of the copy bandwidth against the number of channels."""
    try:
        from matplotlib import figure
    except ImportError:
        records.write("picture", note="matplotlib is not installed")
        return
    rows = [r for r in read(records.path.parent) if r["kind"] == "kernel" and r["share"] is not None]
    if not rows:
        records.write("picture", note="no kernel was timed")
        return
    programs = list(dict.fromkeys(r["kernel"] for r in rows))
    height = -(-len(programs) // 3)
    sheet = figure.Figure(figsize=(14, 1 + 3 * height), layout="constrained")
    for name, ax in zip(programs, sheet.subplots(height, 3, squeeze=False).flat, strict=False):
        for k, strategy in enumerate(("serial", "chunked")):
            points = sorted((r["shape"][0] * r["shape"][2], r["share"]) for r in rows
                            if (r["kernel"], r["strategy"]) == (name, strategy))
            if points:
                ax.plot(*zip(*points, strict=True), marker="o", color=f"C{k}", label=strategy)
                ax.legend(fontsize=7)
        ax.set(xscale="log", ylim=(0, 1.05), title=name, xlabel="channels (batch * hidden)", ylabel="share of a copy")
    sheet.suptitle(f"{records.device}, commit {rows[0]['commit']}; as many bytes at every size", fontsize=9)
    sheet.savefig(records.path.parent / "kernels.png", dpi=110)
    records.write("picture", note="kernels.png")


PARTS: dict[str, Callable[[Records, Sequence[str]], None]] = {
    "environment": environment, "tests": tests, "check": gpu_works.check, "kernels": gpu_kernels.kernels, "peers": peers_beside,
    "crossover": lambda records, names: gpu_kernels.crossover(records), "registers": resources,
    "profile": lambda records, names: gpu_profile.profile(records), "picture": picture}


def main(arguments: list[str] | None = None) -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=("cuda", "emulated"), default="cuda")
    parser.add_argument("--cells", nargs="+", default=list(cells.NAMES), choices=cells.NAMES)
    parser.add_argument("--fail", help=argparse.SUPPRESS)  # a part that is to fail, and one that is to hang: for the tests
    parser.add_argument("--hang", help=argparse.SUPPRESS)
    said = parser.parse_args(arguments)
    if said.part == said.fail:
        raise SystemExit(f"{said.part} was told to fail")
    if said.part == said.hang:
        time.sleep(3600)
    there = torch.cuda.is_available()
    if said.device == "cuda" and not there and said.part != "picture":
        raise SystemExit("torch sees no GPU; --device emulated rehearses the drill without one")
    gpu = torch.cuda.get_device_name() if said.device == "cuda" and there else None
    PARTS[said.part](Records(said.out, said.part, said.device, gpu), said.cells)


if __name__ == "__main__":
    main()
