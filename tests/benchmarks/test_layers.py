"""The benchmark of whole layers: every candidate has a row, what is written can be read, and no setting stays changed."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
import torch

from benchmarks import layers


def test_a_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_PRODUCTS", "blas")
    threads = torch.get_num_threads()
    rows = layers.main(["--quick", "--cells", "gilr_lstm", "--seconds", "0", "--peers", "lstm", "--out", str(tmp_path)])
    assert [r.candidate for r in rows if not r.candidate.startswith(" ")] == [
        "layer", "products", "products, as chosen", "kernels", "torch.nn.LSTM"]
    inner = [r for r in rows if r.candidate.startswith(" ")]
    assert len(inner) == 6, "forward, gradient of the samples, gradient of the weight, of x and of h"
    assert rows[1].times.median == pytest.approx(sum(r.times.median for r in inner))
    assert rows[0].error is not None and rows[0].error < 1e-5
    with Path(tmp_path, "layers.csv").open() as file:
        found = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert tuple(found[0]) == layers.COLUMNS and [f["candidate"] for f in found] == [r.candidate.strip() for r in rows]
    assert os.environ["LRDSL_PRODUCTS"] == "blas" and torch.get_num_threads() == threads


def test_ways_are_products() -> None:
    a, b = torch.randn(30, 7), torch.randn(5, 7)
    for way in layers.WAYS.values():
        torch.testing.assert_close(way(a, b), a @ b.T)
    for way in layers.OVER.values():
        torch.testing.assert_close(way(a.T.contiguous().T, b), a @ b.T)
