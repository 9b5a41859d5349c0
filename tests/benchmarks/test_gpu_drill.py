"""The GPU drill, rehearsed: every line is a whole record, and neither a failure nor a part over its limit ends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_drill, gpu_kernels, gpu_profile, gpu_works
from benchmarks.gpu_layout import coefficients, difference, numbers, place, wanted
from benchmarks.gpu_records import FIELDS, Records, read
from benchmarks.timing import Times, wall
from lrdsl.kernels import launch_of

ROOT = Path(__file__).parents[2]
EMULATES = shutil.which("g++") is not None
Found = list[dict[str, Any]]


def drill(out: Path, *options: str, **environment: str) -> tuple[int, Found]:
    """The exit status and the records of a rehearsal; each record is checked for what all have."""
    done = subprocess.run(["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(out), "--device", "emulated", *options],
                          env={**os.environ, "PY": sys.executable, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = [json.loads(line, parse_constant=pytest.fail) for line in (out / "results.jsonl").read_text().splitlines()]
    for record in found:
        assert tuple(record) == FIELDS
        assert record["device"] == "emulated" and record["commit"] and record["tree"] and record["version"]
        assert record["seconds"] is None and record["share"] is None, "a time of the emulator is not a speed"
    assert len(list(out.iterdir())) <= 8
    return done.returncode, found


def outcomes(found: Found) -> dict[str, str]:
    return {r["part"]: r["note"] for r in found if r["kind"] == "outcome"}


@pytest.mark.skipif(not EMULATES, reason="the emulator needs g++")
def test_kernels_are_rehearsed(tmp_path: Path) -> None:
    status, found = drill(tmp_path, "--parts", "check kernels", "--cells", "linear_scan")
    assert (status, outcomes(found)) == (0, {"check": "passed", "kernels": "passed"}), (tmp_path / "log.txt").read_text()
    assert found[-1]["kind"] == "outcome"
    for kind in ("check", "kernel"):
        own = [r for r in found if r["kind"] == kind]
        assert {(r["kernel"], r["strategy"]) for r in own} == {
            (k, s) for k in ("linear_scan", "linear_scan_backward") for s in ("serial", "chunked")}
        assert all(r["error"] < 1e-5 and len(r["shape"]) == 3 and r["way"] in ("forward", "backward") for r in own)
    for r in (r for r in found if r["kind"] == "kernel"):
        assert r["bytes"] <= r["facts"]["loaded"] + r["facts"]["stored"] + 1000  # all is read and written once, but no edge


def test_a_part_that_fails_and_one_over_its_limit_do_not_end_it(tmp_path: Path) -> None:
    status, found = drill(tmp_path, "--parts", "environment profile picture", "--fail", "environment", "--hang", "profile",
                          "--limit", "profile=3")
    assert (status, outcomes(found)) == (1, {"environment": "failed with status 1", "profile": "over its limit of 3 s",
                                             "picture": "passed"})
    assert "environment was told to fail" in (tmp_path / "log.txt").read_text()


def test_wheels_are_installed_for_the_run_and_a_bad_one_keeps_none_out(tmp_path: Path) -> None:
    pytest.importorskip("pip")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "a_broken-1-py3-none-any.whl").write_text("no archive")
    with zipfile.ZipFile(wheels / "accelerated_scan-9.9-py3-none-any.whl", "w") as wheel:
        for name, text in (("METADATA", "Metadata-Version: 2.1\nName: accelerated-scan\nVersion: 9.9\n"), ("RECORD", ""),
                           ("WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")):
            wheel.writestr(f"accelerated_scan-9.9.dist-info/{name}", text)
    status, found = drill(tmp_path / "out", "--parts", "environment", WHEELS=str(wheels))
    assert status == 0 and found[0]["facts"]["packages"]["accelerated-scan"] == "9.9"
    assert "not installed:" in (tmp_path / "out" / "log.txt").read_text()


def records(out: Path, device: str = "emulated") -> Records:
    return Records(out, "part", device)


def test_a_wrong_kernel_is_recorded_and_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_works, "load", lambda source, device: launch_of(source.program, "float32", "native"))
    monkeypatch.setattr(gpu_works, "difference", lambda got, want: 0.1 if len(read(tmp_path)) == 1 else 0.0)
    with pytest.raises(SystemExit, match="1 kernels are wrong"):
        gpu_works.check(records(tmp_path), ["linear_scan"])
    assert [r["note"] for r in read(tmp_path)][:2] == ["", "wrong by 1.0e-01"]
    wrong = read(tmp_path)[1]
    for work in gpu_works.ready(["linear_scan"], records(tmp_path)):
        assert (wrong["strategy"] in work.launches) == (work.program.name != wrong["kernel"])


def test_what_another_tree_found_right_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = records(tmp_path)
    other._common["tree"] = "another"
    other.write("check", kernel="linear_scan", strategy="serial")
    with pytest.raises(SystemExit, match="no kernel right"):
        gpu_works.ready(["linear_scan"], records(tmp_path))


@pytest.mark.parametrize("cell", ["linear_scan", "gilr_lstm"])
def test_tensors_are_laid_out_as_kernels_read_them(cell: str) -> None:
    for work in gpu_works.works([cell]):
        inputs = numbers(work.program, 2, 9, 5, "cpu", "float64")
        got = place(work.program, launch_of(work.program, "float64", "native"), inputs, 2, 9, 5).solve(work.program)
        assert difference(got, wanted(work.program, inputs)) < 1e-12


def test_coefficients_are_near_one() -> None:
    forward, backward = gpu_works.works(["linear_scan"])
    assert coefficients(forward.program) == coefficients(backward.program) == {"a"}
    a = numbers(forward.program, 1, 800, 3, "cpu")["a"]
    assert 0.99 <= a.min() < a.max() <= 1


def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> gpu_works.Work:
    """Both strategies of the linear scan, run by another backend: what is timed on a GPU, and how it is recorded."""
    monkeypatch.setattr(gpu_kernels, "tensors_on", lambda device: "cpu")
    work = next(gpu_works.works(["linear_scan"]))
    native = launch_of(work.program, "float32", "native")
    return replace(work, launches={"serial": native, "chunked": native})


def test_shares_of_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = on_the_cpu(monkeypatch)
    gpu_kernels.measure(work, (2, 300, 8), records(tmp_path, "cuda"), wall, 1e9)
    found = read(tmp_path)
    assert [(r["strategy"], r["facts"]) for r in found] == [("serial", {"chosen": False}), ("chunked", {"chosen": True})]
    for r in found:
        assert r["bytes"] == 4 * 3 * 4800 and r["share"] == pytest.approx(r["bytes"] / r["seconds"]["median"] / 1e9)


def test_a_kernel_that_differs_at_a_size_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = on_the_cpu(monkeypatch)
    monkeypatch.setattr(gpu_kernels, "difference", lambda got, want: 0.0 if got is want else 0.5)
    assert [*gpu_kernels.measure(work, (1, 9, 8), records(tmp_path, "cuda"), wall, 1e9)] == ["serial"]
    assert [(bool(r["seconds"]), r["note"]) for r in read(tmp_path)] == [(True, ""), (False, "differs from serial by 5.0e-01")]


def test_where_serial_begins_to_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With serial ahead at 8 and from 32 channels on, the answer is 32."""
    def times(serial: float) -> dict[str, Times]:
        return {"serial": Times.of([serial]), "chunked": Times.of([1.0])}
    taken = {8: times(0.5), 16: times(2.0), 32: times(0.9), 64: times(0.1)}
    monkeypatch.setattr(gpu_kernels, "measure", lambda work, shape, *_: taken[shape[2]])
    gpu_kernels._cross(on_the_cpu(monkeypatch), 40, [*taken], records(tmp_path, "cuda"), wall, 1.0)
    assert [(r["note"], r["facts"]) for r in read(tmp_path)] == [("serial wins from 32 channels on", {"serial_from": 32})]


def test_speeds_of_a_gpu_are_kept_and_nan_is_a_name(tmp_path: Path) -> None:
    records(tmp_path, "cuda").write("kernel", seconds={"median": 1.0}, share=0.5, error=float("nan"))
    (found,) = read(tmp_path)
    assert (found["seconds"], found["share"], found["error"]) == ({"median": 1.0}, 0.5, "nan")


def test_tests_are_recorded_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests" / "gpu").mkdir(parents=True)
    (tmp_path / "tests" / "gpu" / "test_it.py").write_text(
        "import pytest\ndef test_good(): pass\ndef test_bad(): assert 0\ndef test_none(): pytest.skip('no GPU')\n")
    monkeypatch.setattr(gpu_drill, "ROOT", tmp_path)
    with pytest.raises(SystemExit):
        gpu_drill.tests(records(tmp_path), ())
    assert {r["facts"]["test"].split("::")[1]: r["note"] for r in read(tmp_path)} == {
        "test_good": "passed", "test_bad": "failed", "test_none": "skipped"}


def test_counters_of_nsight_compute() -> None:
    said = '==PROF== Connected\n"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n' \
           '"0","gilr","dram__bytes_read.sum","Mbyte","402.6"\n"0","gilr","launch__registers_per_thread","register/thread","64"\n'
    assert gpu_profile.counters(said) == {"dram__bytes_read.sum": "402.6 Mbyte",
                                          "launch__registers_per_thread": "64 register/thread"}
    assert gpu_profile.counters("==ERROR== no permission\n") == {}


def test_a_picture_of_shares(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    own = records(tmp_path, "cuda")
    for strategy, share in (("serial", 0.9), ("chunked", 0.5)):
        own.write("kernel", kernel="gilr", strategy=strategy, shape=(1, 64, 32), share=share)
    gpu_drill.picture(own, ())
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")
