"""The table of elementary functions is measured and written."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from benchmarks import vmath


@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
def test_a_table_says_how_long_and_how_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "--functions exp gelu --dtypes float --march native --seconds 0.01 --out"
    vmath.main([*asked.split(), str(tmp_path)])
    lines = [line for line in (tmp_path / "vmath.csv").read_text().splitlines() if not line.startswith("#")]
    exp, gelu = csv.DictReader(lines)
    assert (exp["function"], gelu["function"]) == ("exp", "gelu")
    assert 0.9 < float(exp["error"]) < 1.1 and 0.5 < float(exp["torch_error"]) < 1
    assert all(0 < float(row[key]) < 1000 for row in (exp, gelu) for key in ("ns", "cycles"))
    if exp["libmvec_ns"]:
        assert 1 < float(exp["libmvec_error"]) < 4 and not gelu["libmvec_ns"]
    assert "libmvec" in capsys.readouterr().out
