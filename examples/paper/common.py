"""What the programs of this directory share: options, timing, results as JSON, a table and a picture."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from benchmarks.table import heading, origin
from benchmarks.timing import Times, clock_of, measured, wall

HERE = Path(__file__).parent
RESULTS = HERE / "results"
QUICK = Path("out", "paper")
PATIENCE = 20.0  # seconds
Record = Mapping[str, Any]
T = TypeVar("T")


def options(text: str | None) -> argparse.ArgumentParser:
    """What every program understands."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all of it runs; says nothing else")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of torch, on the CPU (default: torch's; 1 with --quick)")
    parser.add_argument("--out", type=Path, help=f"a directory for the results (default {RESULTS.name}/ beside the program; "
                                                 f"{QUICK} with --quick)")
    return parser


def resumable(text: str | None, name: str) -> argparse.ArgumentParser:
    """The same for a program that keeps what it has done; see `kept`."""
    parser = options(text)
    parser.add_argument("--runs", type=Path, help=f"where it keeps what it has done (default {Path('out', name)})")
    parser.add_argument("--fresh", action="store_true", help="begin anew instead of going on; --quick always does")
    parser.set_defaults(name=name)
    return parser


def prepare(said: argparse.Namespace) -> None:
    """Threads, arithmetic of products, seed, directories."""
    said.threads = said.threads or (1 if said.quick else torch.get_num_threads())
    torch.set_num_threads(said.threads)
    torch.backends.cudnn.allow_tf32 = False  # as for torch's other products, so that all candidates do the same
    torch.manual_seed(0)
    said.out = said.out or (QUICK if said.quick else RESULTS)
    if "runs" in said:
        said.runs = said.runs or Path("out", said.name + "-quick" * said.quick)
        if said.fresh or said.quick:
            shutil.rmtree(said.runs, ignore_errors=True)


def kept(path: Path, settings: object, make: Callable[[], Any]) -> Any:
    """What `make` made for these settings, now or in an earlier run of the program."""
    if path.exists() and (there := torch.load(path, map_location="cpu", weights_only=True))["settings"] == repr(settings):
        return there["made"]
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    torch.save({"settings": repr(settings), "made": made}, fresh)
    os.replace(fresh, path)
    return made


def conditions(said: argparse.Namespace) -> object:
    """What a time depends on beside what is timed, for `kept`: those of another commit do not go into one table."""
    return said.device, said.threads, origin()


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """A bar on stderr, where that is a terminal."""
    return tqdm(items, desc=what, total=total, file=sys.stderr, ncols=100, disable=None)


def timed(runs: Mapping[str, Callable[[], object]], device: str, seconds: float, rounds: int = 50) -> dict[str, Times]:
    """Every candidate in turn, on the clock of a device; see `benchmarks.timing.measured`. Whose first call takes longer than
    PATIENCE is not called again: that was its time."""
    first = {name: wall(run) for name, run in runs.items()}
    times = {name: Times.of([taken]) for name, taken in first.items() if taken > PATIENCE}
    return times | measured({n: run for n, run in runs.items() if n not in times}, seconds, rounds, clock_of(device))


def repeated(run: Callable[[], object], seconds: float = 1e-3) -> tuple[Callable[[], object], int]:
    """A run as often as fills this time at least, which a clock can tell from nothing, and how often that is."""
    run()
    once = max(min(wall(run) for _ in range(3)), 1e-7)
    count = max(1, round(seconds / once))

    def many() -> None:
        for _ in range(count):
            run()
    return (many, count) if count > 1 else (run, 1)


def save(said: argparse.Namespace, name: str, rows: Sequence[Mapping[str, Any]], render: Callable[[Record], str],
         draw: Callable[[Record, Any], None], **facts: Any) -> Record:
    """Write OUT/name-device.json, .md and .png, and print the table. render: a record as markdown; draw: on a Figure."""
    record = {"name": name, "device": said.device, "quick": said.quick, "measured on": heading(said.device), **facts,
              "rows": list(rows)}
    said.out.mkdir(parents=True, exist_ok=True)
    stem = said.out / f"{name}-{said.device}"
    stem.with_suffix(".json").write_text(as_json(record), encoding="utf-8")
    text = f"{render(record)}\n\n{where(record)}\n"
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"\n{text}")
    picture(stem.with_suffix(".png"), lambda sheet: draw(record, sheet))
    return record


def as_json(record: Record) -> str:
    """A record with each of its rows on a line, which may hold a whole curve."""
    rows = ",\n".join(json.dumps(row) for row in record["rows"])
    head = json.dumps({name: value for name, value in record.items() if name != "rows"}, indent=1).removesuffix("\n}")
    return f'{head},\n "rows": [\n{rows}\n]}}\n'


def where(record: Record) -> str:
    """A line of a record under its table: the hardware, and a warning where sizes were small."""
    quick = "**A quick run, too small to say anything.** " if record["quick"] else ""
    return quick + "Measured on: " + "; ".join(record["measured on"]) + "."


def picture(path: Path, draw: Callable[[Any], None]) -> None:
    """A figure in a file; without matplotlib a line that says so."""
    try:
        from matplotlib import figure
    except ImportError:
        print(f"no picture {path.name}: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)
        return
    sheet = figure.Figure(figsize=(11, 4.5), layout="constrained")
    draw(sheet)
    sheet.savefig(path, dpi=120)


def legend(ax: Any, **options: Any) -> None:
    """Of the lines of a panel, one entry a label; none where there are no lines."""
    named = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    if named:
        ax.legend(named.values(), named.keys(), **options)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table, its columns aligned, the first to the left and the others to the right."""
    lines = [list(head), *([str(x) for x in row] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"
    rule = "|" + "|".join("-" * (w + 1) + ("-" if not k else ":") for k, w in enumerate(widths)) + "|"
    return "\n".join([line(lines[0]), rule, *map(line, lines[1:])])


def ratio(x: float | None) -> str:
    """A quotient as the paper prints its own: 0.06, 1.02, 38.5."""
    return "–" if x is None else f"{x:.2f}" if x < 10 else f"{x:.1f}" if x < 100 else f"{x:.0f}"


def spread(times: Times) -> dict[str, Any]:
    """Times as JSON."""
    return asdict(times)
