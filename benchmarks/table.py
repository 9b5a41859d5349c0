"""Results as an aligned table, a CSV file and a picture, under a heading that says where they were measured."""

from __future__ import annotations

import csv
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch

import lrdsl

from .gpu_records import origin
from .timing import Times

COLUMNS = ("cell", "way", "B", "T", "C", "threads", "candidate", "error", "median_ms", "low_ms", "high_ms", "runs",
           "times_stream", "GB_per_s", "first_s", "note")


@dataclass(frozen=True)
class Row:
    """One candidate, one way (forward, forward and backward). error: see `compare.error`, None where nothing is compared.
    times: None where it was not timed. stream: seconds to move the same bytes; size: these bytes. first: seconds of its first
    call forward, compiling included. threads: of torch."""

    cell: str
    way: str
    B: int
    T: int
    C: int
    candidate: str
    error: float | None
    times: Times | None
    stream: float
    size: int
    note: str = ""
    first: float | None = None
    threads: int = field(default_factory=torch.get_num_threads)

    @property
    def ratio(self) -> float | None:
        """The median over the time to move the same bytes."""
        return self.times and self.times.median / self.stream

    @property
    def values(self) -> tuple[str, ...]:
        """One text a column."""
        head = (self.cell, self.way, str(self.B), str(self.T), str(self.C), str(self.threads), self.candidate,
                "" if self.error is None else f"{self.error:.1e}")
        tail = ("" if self.first is None else f"{self.first:.3g}", self.note)
        if self.times is None:
            return (*head, *[""] * 6, *tail)
        t = self.times
        return (*head, *(f"{s * 1e3:.4g}" for s in (t.median, t.low, t.high)), str(t.runs), f"{t.median / self.stream:.2f}",
                f"{self.size / t.median / 1e9:.3g}", *tail)


def heading(device: str) -> list[str]:
    """Machine and what else it does, versions, threads, commit; a line each."""
    busy = f", {os.getloadavg()[0]:.1f} processes at work" if hasattr(os, "getloadavg") else ""
    lines = [f"machine: {processor()}, {os.cpu_count()} processors{busy}, {torch.get_num_threads()} thread(s) of torch",
             f"versions: lrdsl {lrdsl.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
             f"{platform.system()} {platform.release()}",
             "measured: {}, commit {commit}, tree {tree}".format(date.today().isoformat(), **origin())]
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        lines.insert(1, f"GPU: {gpu.name}, {gpu.multi_processor_count} multiprocessors, CUDA {torch.version.cuda}; "
                        "products in full float32, in cuDNN too")
    return lines


def processor() -> str:
    """What the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown CPU"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def show(rows: Sequence[Row]) -> str:
    """The rows of one case and way as text, the fastest first."""
    first = rows[0]
    lines = [f"{first.cell}, {first.way}, ({first.B}, {first.T}, {first.C}) float32, {first.threads} thread(s)",
             f"  {'candidate':<28}{'ms':>10}{'20 %':>10}{'80 %':>10}{'runs':>6}{'x stream':>10}{'GB/s':>8}{'error':>10}"]
    for row in sorted(rows, key=lambda r: (r.times is None, r.times and r.times.median)):
        *_, name, error, median, low, high, runs, ratio, rate, _, note = row.values
        lines.append(f"  {name:<28}{median or 'not timed':>10}{low:>10}{high:>10}{runs:>6}{ratio:>10}{rate:>8}{error:>10}"
                     + (f"  {note}" if note else ""))
    return "\n".join(lines)


def write(rows: Sequence[Row], out: Path, name: str, device: str, draw: bool = True) -> None:
    """`name`.csv and, if asked for, `name`.png in a directory; without matplotlib no picture, and a line that says so."""
    out.mkdir(parents=True, exist_ok=True)
    with Path(out, f"{name}.csv").open("w", newline="") as file:
        file.writelines(f"# {line}\n" for line in heading(device))
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(row.values for row in rows)
    if draw:
        picture(rows, Path(out, f"{name}.png"), heading(device)[0])


def picture(rows: Sequence[Row], path: Path, title: str) -> None:
    """Median against T with the band from 20 to 80 %, a panel each cell and way; log scales."""
    try:
        from matplotlib import figure
    except ImportError:
        print(f"no picture {path.name}: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)
        return
    panels = list(dict.fromkeys((r.cell, r.way) for r in rows))
    names = list(dict.fromkeys(r.candidate for r in rows if r.times))
    sheet = figure.Figure(figsize=(11, 1 + 3.5 * ((len(panels) + 1) // 2)), layout="constrained")
    axes = sheet.subplots((len(panels) + 1) // 2, 2, squeeze=False).flat
    for (cell, way), ax in zip(panels, axes, strict=False):
        for k, name in enumerate(names):
            own = sorted((r.T, r.times) for r in rows if (r.cell, r.way, r.candidate) == (cell, way, name) and r.times)
            if own:
                steps, times = zip(*own, strict=True)
                ax.plot(steps, [t.median * 1e3 for t in times], marker="o", color=f"C{k}", label=name)
                ax.fill_between(steps, [t.low * 1e3 for t in times], [t.high * 1e3 for t in times], color=f"C{k}", alpha=0.2)
        ax.set(xscale="log", yscale="log", title=f"{cell}, {way}", xlabel="T", ylabel="ms, median")
        ax.set_xticks(sorted({r.T for r in rows}), [str(T) for T in sorted({r.T for r in rows})])
        ax.xaxis.minorticks_off()
        ax.legend(fontsize=7)
    sheet.suptitle(title, fontsize=9)
    sheet.savefig(path, dpi=120)
