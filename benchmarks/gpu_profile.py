"""Nsight Compute on three kernels of the GPU drill: memory, occupancy and stalls, from the hardware's own counters.

    python -m benchmarks.gpu_profile gilr forward chunked 1 32768 1024        what it profiles: two launches of one kernel
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys

from .gpu_layout import numbers, place
from .gpu_records import ROOT, Records
from .gpu_works import load, works

KERNELS = (("gilr", "forward", "serial", (64, 512, 1024)), ("gilr", "forward", "chunked", (1, 32768, 1024)),
           ("gilr", "backward", "chunked", (1, 32768, 1024)))
METRICS = (
    "gpu__time_duration.sum", "dram__throughput.avg.pct_of_peak_sustained_elapsed", "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active", "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio", "launch__registers_per_thread",
    "launch__occupancy_limit_registers")


def profile(records: Records) -> None:
    """A record for each of KERNELS, or one that says that ncu is missing. The clocks are left as they are."""
    ncu = shutil.which("ncu")
    if records.device == "emulated" or ncu is None:
        records.write("profile", note="there is no GPU to profile" if records.device == "emulated" else "ncu is not installed")
        return
    for cell, way, strategy, shape in KERNELS:
        command = [ncu, "--csv", "--clock-control", "none", "--target-processes", "all", "--launch-skip", "1", "--launch-count",
                   "1", "--kernel-name", f"regex:{cell}", "--metrics", ",".join(METRICS), sys.executable, "-m",
                   "benchmarks.gpu_profile", cell, way, strategy, *map(str, shape)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        found = counters(done.stdout)
        records.write("profile", kernel=cell, way=way, strategy=strategy, dtype="float32", shape=shape, facts=found,
                      note="" if found else f"ncu gave nothing: {(done.stdout + done.stderr).strip()[-300:]}")


def counters(text: str) -> dict[str, str]:
    """{metric: value with its unit} of ncu's CSV, whatever stands before it."""
    lines = text.splitlines()
    first = next((k for k, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    return {row["Metric Name"]: f"{row['Metric Value']} {row['Metric Unit']}".strip() for row in csv.DictReader(lines[first:])}


def main(cell: str, way: str, strategy: str, *sizes: str) -> None:
    """Launch one kernel twice: the second is profiled."""
    B, T, C = map(int, sizes)
    work = next(w for w in works([cell]) if w.way == way)
    call = place(work.program, load(work.sources[strategy], "cuda"), numbers(work.program, B, T, C, "cuda"), B, T, C)
    call()
    call()


if __name__ == "__main__":
    main(*sys.argv[1:])
