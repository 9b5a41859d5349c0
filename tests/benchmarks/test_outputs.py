"""The benchmark of the memory of outputs: it runs, and each way is what it says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import outputs
from lrdsl.nn import pool


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads, own = torch.get_num_threads(), pool.POOL
    yield
    torch.set_num_threads(threads)
    pool.POOL = own


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = outputs.main(["--quick", "--out", str(tmp_path)])
    assert [(r.way, r.candidate) for r in rows] == [(w, c) for w in ("forward", "forward and backward") for c in outputs.WAYS]
    assert all(r.times and r.times.runs >= 3 and r.stream > 0 for r in rows)
    assert (tmp_path / "outputs.csv").exists() and "fresh huge pages" in capsys.readouterr().out


def test_the_ways_are_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_POOL", "3G")
    a, b = (torch.rand(1, 4096, 512) for _ in "ab")
    counts = {}
    for name, call in outputs.candidates(a, b, None).items():
        call()
        call()
        usage = pool.POOL.usage()
        counts[name] = usage.hits, usage.misses, usage.idle > 0
    assert counts == {"fresh pages": (0, 0, False), "fresh huge pages": (0, 2, False), "pool": (1, 1, True)}
    assert os.environ["LRDSL_POOL"] == "3G"
