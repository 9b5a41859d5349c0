"""The text of recurrences over other algebras, and what compilers say of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lrdsl.codegen.emit import emit
from lrdsl.ir.kernel import Target
from lrdsl.kernels import source_of
from lrdsl.passes.schedule import schedule
from lrdsl.programs import plan_of
from tests.cells_of_algebras import CELLS

from .test_cuda import compile_all, forward_and_backward, needs_nvcc, programs_of

GXX = shutil.which("g++")


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_text_says_the_recurrence(target: Target) -> None:
    """In the header as on paper, in the body as a call; the edge is infinite, before the first step and at a boundary."""
    text = source_of(plan_of(CELLS["cummax"].spec).programs[0], target, "float32").text
    assert "//   h[t] = max(h[t-1], b)   (cells_of_algebras.py:" in text and "//       b = x[t]" in text and "A =" not in text
    assert "const V h = lr_maximum(h_prev, x);" in text and text.count("(-1.0f/0.0f));") == 2
    text = source_of(plan_of(CELLS["evidence"].spec).programs[0], target, "float32").text
    assert "//   h[t] = logaddexp(A + h[t-1], b)" in text and "//       A = a[t]" in text
    assert "const V h = lr_logaddexp(a_ + h_prev, b_);" in text


def test_what_steps_do_is_said_in_the_algebra() -> None:
    """A stretch adds its coefficients up; where it does nothing, its rest is the zero of the algebra."""
    text = emit([schedule(plan_of(CELLS["cheapest"].spec).programs[0], "cuda", "float32", "chunked")])[0].text
    assert "return {{lr_minimum(p[0] + h.of[0], b.of[0])}};" in text and "return {{p[0] + e.p[0]}};" in text
    assert "b = {{lr_minimum(c0 + h.of[0], r0)}};" in text and "zero() { return {{(1.0f/0.0f)}}; }" in text


def test_the_call_of_a_recurrence_counts() -> None:
    """It stands in the row of steps that is written out, like any other."""
    def ahead(name: str) -> int:
        return schedule(plan_of(CELLS[name].spec).programs[0], "cuda", "float64").ahead
    assert ahead("levels") < ahead("longest")


@pytest.mark.skipif(not GXX, reason="no g++")
@pytest.mark.parametrize("name", ["cummin", "mixture", "levels"])
def test_a_compiler_of_cpp_has_nothing_to_say(name: str) -> None:
    command = [GXX or "", "-std=gnu++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-x", "c++", "-"]
    for program in forward_and_backward(CELLS[name]):
        [source] = emit([schedule(program, "cpu", "float64")])
        done = subprocess.run(command, input=source.text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]


@needs_nvcc
def test_nvcc_takes_it_and_spills_nothing(tmp_path: Path) -> None:
    assert compile_all(forward_and_backward(CELLS["levels"]), "float32", "sm_90", tmp_path) == 0


@needs_nvcc
@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", CELLS)
def test_nvcc_takes_every_program(name: str, precision: str, tmp_path: Path) -> None:
    most = 96 if (name, precision) == ("picked", "float64") else 64  # bytes of the one cell that spills more
    assert compile_all(programs_of(CELLS[name]), precision, "sm_90", tmp_path) <= most
