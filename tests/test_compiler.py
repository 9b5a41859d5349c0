"""The driver: stages in order, dumps, sources without any tool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lrdsl as lr
from lrdsl import kernels, programs
from lrdsl.errors import BackendUnavailable, BadDeclaration, NotBuilt, NotLinear
from lrdsl.ir.plan import Plan
from lrdsl.ir.program import Program
from lrdsl.ir.spec import Spec

STAGES = ["spec", "real", "strata", "plan", "forward", "backward", "kernels", "source"]


def test_every_stage_is_remembered_in_order_and_prints() -> None:
    made = lr.compile(lr.cells.gilr_lstm, target="cpu")
    assert list(made.stages) == STAGES
    assert isinstance(made.stages["spec"], Spec) and isinstance(made.stages["plan"], Plan)
    assert all(isinstance(p, Program) for p in (*made.stages["forward"], *made.stages["backward"]))
    assert all(str(stage) for stage in made.stages.values())
    with pytest.raises(TypeError):
        made.stages["spec"] = None  # type: ignore[index]


def test_the_backward_pass_of_training_reads_no_gradient_of_what_is_kept_for_it_alone() -> None:
    last = lr.compile(lr.cells.gilr_lstm, target="cpu").stages["backward"][-1]
    assert "h.grad" in last.loads and "c.grad" not in last.loads


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_source_holds_both_passes_or_one(target: str) -> None:
    whole, forward, backward = (lr.cells.gilr.source(target, stage) for stage in (None, "forward", "backward"))
    assert "gilr_backward" in whole and "gilr_backward" in backward and "gilr_backward" not in forward
    assert lr.compile(lr.cells.gilr, target).source("forward") == forward


def test_dump_writes_each_stage_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_DUMP", str(tmp_path))
    lr.compile(lr.cells.gilr, target="cuda")
    (place,) = tmp_path.iterdir()
    assert place.name.startswith("gilr-")
    names = sorted(f.name for f in place.iterdir())
    assert names == ["0-spec.txt", "1-real.txt", "2-strata.txt", "3-plan.txt", "4-forward.txt", "5-backward.txt",
                     "6-kernels.txt", "7-gilr.cu", "7-gilr_backward.cu"]
    assert "scan h" in (place / "4-forward.txt").read_text()
    assert "__global__" in (place / "7-gilr.cu").read_text()


def test_what_is_not_linear_is_refused_where_it_is_to_run() -> None:
    for run in (lambda: lr.compile(lr.cells.lstm), lambda: lr.cells.lstm.source("cpu"),
                lambda: lr.RNN(lr.cells.lstm, 3, 4)):
        with pytest.raises(NotLinear, match="through the dense maps forget, enter, leave, update"):
            run()
    assert "It cannot run as it is" in lr.cells.lstm.explain()


def test_unknown_targets_dtypes_and_stages_name_what_there_is() -> None:
    with pytest.raises(BadDeclaration, match="the targets are cpu, cuda"):
        lr.compile(lr.cells.gilr, target="tpu")
    with pytest.raises(BadDeclaration, match="the dtypes are float32, float64, bfloat16, float16"):
        lr.compile(lr.cells.gilr, dtype="float8")
    with pytest.raises(BadDeclaration, match="ask for forward or backward"):
        lr.cells.gilr.source("cuda", "sideways")


@pytest.mark.parametrize(("backend", "says"), [("cuda", "way out"), ("tpu", "does not exist")])
def test_a_backend_that_cannot_run_says_what_to_do(backend: str, says: str) -> None:
    program = programs.plan_of(lr.cells.gilr.spec).programs[0]
    with pytest.raises(BackendUnavailable, match=says):
        kernels.launch_of(program, "float32", backend)


def test_reserved_methods_say_so() -> None:
    for name in ("report", "export"):
        with pytest.raises(NotBuilt, match="reserved"):
            getattr(lr.cells.gilr, name)("somewhere")


def test_any_source_is_generated_without_compiler_driver_or_torch() -> None:
    program = ("import sys, lrdsl as lr; text = lr.cells.gilr_lstm.source('cuda') + lr.cells.gilr_lstm.source('cpu'); "
               "assert 'torch' not in sys.modules and 'pycuda' not in sys.modules; print(len(text))")
    done = subprocess.run([sys.executable, "-c", program], env={"PATH": "/nonexistent", "PYTHONPATH": ":".join(sys.path)},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10000


def test_logs_tell_what_runs() -> None:
    """Where LRDSL_LOGS is set when the package is imported."""
    program = ("import torch, lrdsl as lr\n"
               "for T in (20, 300): lr.linear_scan(torch.rand(1, T, 3), torch.rand(1, T, 3))")
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={
        **os.environ, "PYTHONPATH": ":".join(sys.path), "LRDSL_BACKEND": "emulated", "LRDSL_LOGS": "launch,codegen"}).stderr
    assert "lrdsl.launch: linear_scan at (B, T, C) = (1, 20, 3): serial" in said
    assert "lrdsl.launch: linear_scan at (B, T, C) = (1, 300, 3): chunked" in said
    assert "lrdsl.codegen: wrote linear_scan_" in said
