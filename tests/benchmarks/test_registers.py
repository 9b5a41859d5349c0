"""Registers and spills: what ptxas says is read right, and nvcc, where it is, is asked for every architecture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import registers

SAID = """ 'scan' for 'sm_90'
ptxas info    : Function properties for scan
    32 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 32 bytes cumulative stack size, 4228 bytes smem
"""


def test_what_ptxas_says() -> None:
    kernel = registers.kernels(["linear_scan"], ["float32"])[0]
    found = registers._report(kernel, 64, SAID)
    assert found == registers.Report("linear_scan", "serial", "float32", "sm_90", 64, 80, 32, 12, 8, 4228)


def test_silence_is_an_error() -> None:
    kernel = registers.kernels(["linear_scan"], ["float32"])[0]
    with pytest.raises(RuntimeError, match="does not report registers"):
        registers._report(kernel, 64, " 'scan' for 'sm_90'\n")


def test_every_kernel_of_a_cell() -> None:
    found = {(k.program.name, k.dtype) for k in registers.kernels(["gilr_lstm"])}
    assert len(found) == 8 and {d for _, d in found} == {"float32", "float64"}  # two passes, each with its backward pass


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    one = [k for k in registers.kernels(["linear_scan"], ["float32"]) if k.strategy == "serial"][:1]
    monkeypatch.setattr(registers, "kernels", lambda *_: one)
    registers.main(["--arch", "sm_80", "sm_90", "--json", str(tmp_path / "r.json")])
    found = json.loads((tmp_path / "r.json").read_text())
    assert [r["arch"] for r in found] == ["sm_80", "sm_90"] and all(r["registers"] > 16 for r in found)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(found)
