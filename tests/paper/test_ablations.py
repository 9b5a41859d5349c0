"""The ablations: what they compare, what they keep, and what they say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

for needed in ("matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(needed)
ablations, parts, precision, report, run = (
    import_module(f"examples.paper.{n}") for n in
    ("ablations", "ablations_parts", "ablations_precision", "ablations_report", "memory_run"))
pytestmark = [pytest.mark.usefixtures("one_thread"),
              pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler")]
SMALL = run.Settings("gilr_lstm", 64, hidden=4, batch=2)


def quick(tmp_path: Path, *some: str) -> Any:
    """The record of a quick run of some parts; its table and picture stand beside it."""
    ablations.main(["--quick", "--out", str(tmp_path), "--runs", str(tmp_path / "runs"), "--parts", *some])
    record = json.loads((tmp_path / "ablations-cpu.json").read_text())
    assert (tmp_path / "ablations-cpu.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "ablations-cpu.md").read_text()
    assert text.startswith(ablations.render(record)) and "A quick run" in text and "nan" not in text
    return record


def test_delays(tmp_path: Path) -> None:
    record = quick(tmp_path, "delay")
    runs = report.of(record, "delay", "loss")
    assert [(r["seed"], r["cell"]) for r in runs] == [(0, cell) for cell in parts.DELAYS]
    assert all(len(r["loss"]) == parts.QUICK.most for r in runs)


@pytest.mark.long
def test_digits(tmp_path: Path) -> None:
    record = quick(tmp_path, "digits")
    read = {r["network"]: r for r in report.of(record, "digits", "accuracy")}
    assert read.keys() == parts.NETWORKS.keys()
    assert [bool(r["iterations"]) for r in read.values()] == [name == parts.NEWTON for name in read]
    [timed] = report.of(record, "digits", "seconds")
    assert timed["seconds"].keys() == {*parts.NETWORKS, parts.SEQUENTIAL} and timed["apart"] < 1e-4


@pytest.mark.long
def test_precisions(tmp_path: Path) -> None:
    """Each measured in a process of its own."""
    record = quick(tmp_path, "precision")
    runs, compared = report.of(record, "precision", "loss"), report.of(record, "precision", "errors")
    assert {(r["precision"], r["length"]) for r in runs} == {(p, T) for p in parts.TRAINED for T in (64, 256)}
    exact, mixed = compared
    assert not any(exact["errors"][0].values()) and all(0 < e < 0.5 for e in mixed["errors"][0].values())
    assert all(r["peak"] >= 0 and len(r["seconds"]) == 1 for r in compared)


@pytest.mark.long
def test_less_precise_is_further_off(tmp_path: Path) -> None:
    """From one network, on the same batches."""
    begun = run.Run(SMALL, tmp_path)
    for parameter in begun.network.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    begun.keep()
    found = {name: precision.measure(replace(SMALL, precision=name), begun.path, 2, 1) for name in parts.FULL.compared}
    assert all(len(f["seconds"]) == 2 and f["peak"] >= 0 for f in found.values())
    for batch in (0, 1):
        off = [precision.errors(found[name]["found"][batch], found["float64"]["found"][batch]) for name in parts.FULL.compared]
        for kind in off[0]:
            exact, single, mixed, narrow = (each[kind] for each in off)
            assert exact == 0 < single < 0.05 * min(mixed, narrow), kind


def test_a_run_ends_where_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, row = parts.learn(SMALL, tmp_path, 3)
    assert len(row["loss"]) == 3 and not row["learned"]
    monkeypatch.setattr(parts.memory, "train", None)
    assert parts.learn(SMALL, tmp_path, 3)[1] == row


def test_the_table_of_delays_pairs_seeds() -> None:
    def row(cell: str, seed: int, steps: int, learned: bool = True) -> dict[str, Any]:
        phase = run.asdict(run.Phase(64, steps, 60.0, 50.0, (steps, 50.0), (steps, 60.0) if learned else None))
        return {**run.asdict(replace(SMALL, cell=cell, seed=seed)), "part": "delay", "learned": learned, "phases": [phase],
                "loss": [1.0, 0.5]}
    rows = [row("gilr_lstm", 0, 10), row("gilr_lstm", 1, 20), row("gilr_lstm_delay0", 0, 14),
            row("gilr_lstm_delay0", 1, 22), row("gilr_lstm", 2, 30), row("gilr_lstm_delay0", 2, 9, learned=False)]
    text = report.render({"rows": rows})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert lines[2:] == [["t-1 (text)", "3 of 3", "20 ± 10", "1 ± 0"], ["t (code)", "2 of 3", "18 ± 5.7", "1 ± 0"]]
    assert "reading it at t took 3 ± 1.4 iterations more (2 seeds)" in text
