"""What runs found, beside the paper's Table 3: a JSON file that holds every loss, and of that a table and a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from benchmarks.table import heading

from . import common
from .memory_run import Phase, read_checkpoint

# (network, T): iterations and hours until five minibatches in a row were right, mean and standard deviation; None: never.
PAPER: dict[tuple[str, int], tuple[tuple[float, float], tuple[float, float]] | None] = {
    ("gilr_lstm", 1024): ((550, 40), (0.031, 0.002)), ("lstm", 1024): ((1000, 400), (0.28, 0.08)),
    ("gilr_lstm", 8192): ((560, 160), (0.10, 0.03)), ("lstm", 8192): ((440, 50), (0.58, 0.06)),
    ("gilr_lstm", 1048576): ((14000, 3000), (9.7, 1.7)), ("lstm", 1048576): None}
HEAD = ("T", "network", "units", "rate", "from T =", "learned", "it., 5 in a row", "it., 256 fresh", "minutes, 5 in a row",
        "minutes, 256 fresh", "s/it. at T", "peak GB", "paper: it.", "paper: minutes")
NOTE = """Mean ± standard deviation over the seeds that have learned. Iterations and minutes count all lengths from the first
one on; minutes count the tests, too, which have to be passed to go on. Minibatches of {batch}. Adam, gradients clipped to a
norm of 1; memories that last from the start (`memory_model.remember`), alike for both networks. The paper: five minibatches
in a row, the full length from the start, 512 units (64 for T = 1,048,576), a forget bias of 5, a Tesla K80, 5 runs. "First
only": e₁ comes nowhere else."""


def gather(runs: Path, device: str, quick: bool) -> common.Record:
    """What all runs in a directory found on a device, and this machine."""
    rows = [row for path in runs.glob("*/checkpoint.pt") if (row := of_run(path))["device"] == device]
    rows.sort(key=lambda row: (*kind(row), row["seed"]))
    return {"name": "memory", "device": device, "quick": quick, "measured on": heading(device), "rows": rows}


def kind(row: common.Record) -> tuple[Any, ...]:
    """What the seeds of a network have in common, in the order of the table."""
    return row["length"], not row["first_only"], row["start"], row["hidden"], row["cell"]


def of_run(path: Path) -> dict[str, Any]:
    """What a run has found up to its checkpoint."""
    settings, progress, _ = read_checkpoint(path)
    lines = lines_of(path.with_name("log.jsonl"), progress.log)
    return {**asdict(settings), "learned": progress.done(settings), "phases": [asdict(p) for p in progress.phases],
            "peak": progress.peak, "loss": [float(f"{line['loss']:.3g}") for line in lines],
            "right": [line["right"] for line in lines]}


def write(record: common.Record, out: Path) -> str:
    """OUT/memory-device.json, .md and .png; the table is returned."""
    out.mkdir(parents=True, exist_ok=True)
    stem = out / f"{record['name']}-{record['device']}"
    stem.with_suffix(".json").write_text(common.as_json(record), encoding="utf-8")
    text = f"{render(record)}\n\n{common.where(record)}\n"
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    picture(record, stem.with_suffix(".png"))
    return text


def render(record: common.Record) -> str:
    """The table as markdown, a row for all seeds of a network, and what is to be known about it."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---:|:---|" + "---:|" * (len(HEAD) - 2)]
    for _, same in groupby(record["rows"], key=kind):
        lines.append("| " + " | ".join(cells(list(same))) + " |")
    batches = sorted({row["batch"] for row in record["rows"]})
    return "\n".join(lines) + "\n\n" + NOTE.format(batch=" or ".join(map(str, batches)))


def cells(rows: Sequence[common.Record]) -> list[str]:
    """A line of the table."""
    first, learned = rows[0], [row for row in rows if row["learned"]]
    phases = [[Phase(**phase) for phase in row["phases"]] for row in learned]
    five, fresh = ([until(p, p[-1].five) for p in phases], [until(p, p[-1].fresh) for p in phases])
    paper = PAPER.get((first["cell"], first["length"]))
    theirs = ["never", "in days"] if (first["cell"], first["length"]) in PAPER else ["–", "–"]
    if paper:
        (steps, more), (hours, longer) = paper
        theirs = [f"{short(steps, 3)} ± {short(more, 2)}", f"{short(60 * hours, 3)} ± {short(60 * longer, 2)}"]
    pace = spread(p[-1].training / p[-1].steps for p in phases)
    return [f"{first['length']:,}", first["cell"] + (", first only" if first["first_only"] else ""), str(first["hidden"]),
            f"{first['rate']:g}", f"{first['start']:,}", f"{len(learned)} of {len(rows)}", spread(n for n, _ in five),
            spread(n for n, _ in fresh), spread(s / 60 for _, s in five), spread(s / 60 for _, s in fresh), pace,
            f"{max(row['peak'] for row in rows) / 1e9:.1f}", *theirs]


def until(phases: Sequence[Phase], reached: tuple[int, float] | None) -> tuple[int, float]:
    """Steps and seconds in all phases, until something was reached in the last."""
    assert reached is not None, "the last length was learned"
    return reached[0] + sum(p.steps for p in phases[:-1]), reached[1] + sum(p.seconds for p in phases[:-1])


def spread(values: Iterable[float]) -> str:
    """Mean and sample standard deviation."""
    found = list(values)
    if not found:
        return "–"
    text = short(statistics.mean(found), 3)
    return f"{text} ± {short(statistics.stdev(found), 2)}" if len(found) > 1 else text


def short(value: float, digits: int) -> str:
    """A number to some digits, whole where it is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.{digits}g}"


def picture(record: common.Record, path: Path) -> None:
    """The loss of every run, smoothed, a panel each length; dots where one length was learned and the next began."""
    from matplotlib import figure

    lengths = sorted({row["length"] for row in record["rows"]})
    sheet = figure.Figure(figsize=(5.5 * len(lengths), 4), layout="constrained")
    for ax, T in zip(sheet.subplots(1, len(lengths), squeeze=False)[0], lengths, strict=True):
        for row in (row for row in record["rows"] if row["length"] == T):
            color, loss = {"gilr_lstm": "tab:blue", "lstm": "tab:orange"}[row["cell"]], smooth(row["loss"])
            ax.plot(range(1, len(loss) + 1), loss, color=color, alpha=0.8, linewidth=1, label=row["cell"],
                    linestyle=":" if row["first_only"] else "-")
            borders = list(accumulate(phase["steps"] for phase in row["phases"] if phase["fresh"]))
            ax.plot(borders, [loss[b - 1] for b in borders], "o", color=color, markersize=4)
        ax.set(title=f"{T:,} steps", xscale="log", xlabel="iteration; a dot where a length was learned",
               yscale="log", ylabel="loss, smoothed")
        ax.grid(alpha=0.3)
        common.legend(ax)
    sheet.savefig(path, dpi=120)


def lines_of(log: Path, size: int) -> list[dict[str, Any]]:
    """The first `size` bytes of a log: those of the checkpoint."""
    return [json.loads(line) for line in log.read_bytes()[:size].splitlines()]


def smooth(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """A running mean over about 1/(1 - keep) values, unbiased at the start."""
    found, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + 1 - keep
        found.append(mean / weight)
    return found
