"""Kernels over an axis as text: golden, without a clash of names or a warning, the same in every process; no spills."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest

import lrdsl as lr
from lrdsl.backends import native
from lrdsl.codegen.axis_memory import AxisLoad, AxisRegister
from lrdsl.codegen.axis_views import Across, AxisChunks, AxisView, LevelView, Loop, Meet, WalkView
from lrdsl.codegen.emit import emit_together
from lrdsl.codegen.environment import environment, text
from lrdsl.files import templates
from lrdsl.ir.dtypes import DTYPES
from lrdsl.ir.names import c_name
from lrdsl.ir.program import Program
from lrdsl.kernels import source_of
from lrdsl.passes.replay import unbordered
from lrdsl.passes.schedule import schedules
from lrdsl.programs import adjoint_of, backward_of, inner_keeps, plan_of, tangent_of

from ..axis_cells import mixed, returns, s6, turn
from ..complex_axis_cells import s4d, wave
from .test_cuda import needs_nvcc, spills

WARN = ["-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unused-function"]


def programs(cell: lr.Cell) -> list[Program]:
    """Forward, backward, the gradient of that, and the tangent."""
    found = []
    for p in plan_of(cell.spec).programs:
        every = unbordered(p)
        whole = adjoint_of(every, inner_keeps(every)).program
        found += [p, backward_of(p), adjoint_of(whole, frozenset()).program, tangent_of(p).program]
    return found


@pytest.mark.parametrize("target", ["cuda", "cpu"])
def test_golden(target: Any, golden: Any) -> None:
    """s6 with 4 states a channel, forward and backward; preludes have their own files."""
    said = emit_together([k for p in programs(s6(4))[:2] for k in schedules(p, target, "float32")], "")
    for prelude in ("cuda/prelude.cuh", "cuda/chunks.cuh", "cuda/axis.cuh", "cuda/axis_chunks.cuh", "cpu/vmath.h",
                    "cpu/common.h", "cpu/axis.h"):
        said = said.replace(text(prelude), f"// (templates/{prelude})\n")
    assert re.sub(r"_[0-9a-f]{8}(?=\b|_)", "_digest", said) == golden("s6.cu" if target == "cuda" else "s6.cpp")


def test_stages(golden: Any) -> None:
    """The Programs on paper, and the Kernel of the backward pass."""
    forward, backward = programs(s6(16))[:2]
    assert "\n\n".join(map(str, (forward, backward, *schedules(backward, "cuda", "float32")))) == golden
    assert "\n\n".join(map(str, programs(mixed(3))[:2])) == golden("mixed")


def test_explain(golden: Any) -> None:
    assert s6(16).explain() == golden  # type: ignore[attr-defined]


def test_templates_use_all_that_they_are_given() -> None:
    used: set[str] = set()
    for path in sorted(templates().rglob("axis*.j2")):
        used |= {node.attr for node in environment().parse(path.read_text()).find_all(jinja2.nodes.Getattr)}
    for kind in (AxisView, AxisChunks, WalkView, Meet, LevelView, Loop, Across, AxisLoad, AxisRegister):
        assert {f.name for f in dataclasses.fields(kind)} - {"shape", "value", "base", "depth"} <= used, kind


@pytest.mark.parametrize("target", ["cuda", "cpu"])
def test_no_name_of_a_cell_meets_a_name_of_the_text(target: Any) -> None:
    """Every word that a kernel says is the cell's, one that no name of a cell can be, or a function of CUDA's."""
    @lr.cell
    def qqcell(qqx: lr.Input, qqu: lr.Input = lr.Input(axis=3), *, qqh: lr.State = lr.State(size=3), qqg: lr.State,
               qqv: lr.Vector, qqw: lr.Vector = lr.Vector(size=3), qqs: lr.Scalar = lr.Scalar(size=3), qqo: lr.Scalar):
        qqg[lr.t] = lr.sigmoid(qqv) * qqg[lr.t - 1] + qqx[lr.t - 1] * qqo
        qqh[lr.t] = lr.exp(qqw) * qqh[lr.t - 1] + qqu[lr.t] * qqs + qqu[lr.t + 1] * qqg[lr.t]
        return lr.tanh(lr.sum(qqh[lr.t])) * qqx[lr.t]

    said: set[str] = set()
    for program in programs(qqcell):
        kernel = source_of(program, target, "float32").text
        kernel = kernel[kernel.index("\nnamespace qqcell"):]
        kernel = re.sub(r'//.*|"C"|#\w+|(?s:struct Args.*?\};)', "", kernel)
        cells = {n for k in schedules(program, target, "float32") for _, n in k.names}
        said |= set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", kernel)) - cells
    ours = {w for w in said if "qq" not in w and c_name(w, set()) == w}
    assert ours <= {"__syncwarp", "unroll", "__launch_bounds__", "__shared__", "__global__", "__attribute__", "always_inline",
                    "args", "threads", "share_blocks"}, ours


@pytest.mark.parametrize("cell", [s6(16), mixed(3), returns(1), turn(2), s4d(4)], ids=lambda c: c.name)
def test_generated_text_compiles_without_a_warning(cell: lr.Cell, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if not compiler:
        pytest.skip("there is no g++")
    flags = [f for f in native.FLAGS if f not in ("-w", "-shared", "-x", "c++")]
    for k, program in enumerate(programs(cell)):
        path = tmp_path / f"{k}.cpp"
        path.write_text(source_of(program, "cpu", DTYPES[(k + cell.spec.axis) % 4]).text)
        command = [compiler, *flags, *WARN, "-fsyntax-only", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:2000]


@pytest.mark.long
def test_the_same_bytes_in_every_process() -> None:
    """Whatever the seed of Python's hashes."""
    script = ("import hashlib\nfrom tests.axis_cells import mixed, s6\n"
              "from tests.codegen.test_axis import programs, source_of\n"
              "every = [p for cell in (s6(4), mixed(3)) for p in programs(cell)]\n"
              "said = [source_of(p, target, 'float32').text for p in every for target in ('cpu', 'cuda')]\n"
              "print(hashlib.sha256(''.join(said).encode()).hexdigest())")
    root = Path(__file__).parents[2]
    found = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root,
                            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}).stdout
             for seed in ("0", "1", "7")}
    assert len(found) == 1


@needs_nvcc
def test_nvcc_takes_it_and_spills_nothing(tmp_path: Path) -> None:
    """16 states a channel, forward, backward and tangent: all in registers but the segment that is computed again. (In chunks,
    a tangent's two strata of 16 states, each with what steps do to them, are more than a thread has registers for.)"""
    forward, backward, _, tangent = programs(s6(16))
    kernels = [k for p in (forward, backward, tangent) for k in schedules(p, "cuda", "float32")
               if p is not tangent or k.strategy == "serial"]
    found = spills(emit_together(kernels, "sm_90"), "sm_90", tmp_path)
    assert set(found) == {k.entry for k in kernels} and max(found.values()) == 0


@needs_nvcc
@pytest.mark.long
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("cell", [s6(1), s6(16), s6(40), mixed(3), returns(3), turn(2), s4d(16), wave(3)],
                         ids=lambda c: f"{c.name}{c.spec.axis}")
def test_nvcc_takes_every_program(cell: lr.Cell, arch: str, tmp_path: Path) -> None:
    """In every dtype; more numbers than registers spill, and must only compile."""
    for dtype in DTYPES:
        kernels = [k for p in programs(cell) for k in schedules(p, "cuda", dtype)]
        assert set(spills(emit_together(kernels, arch), arch, tmp_path)) == {k.entry for k in kernels}
