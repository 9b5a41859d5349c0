"""The CUDA target: the text itself, its functions, and nvcc's opinion of it. What it computes: backends/test_cuda_text.py."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest

import lrdsl as lr
from lrdsl.backends.reference import MEANING
from lrdsl.cells import linear_scan
from lrdsl.codegen.chunked import ChunksView, Meet, WalkView
from lrdsl.codegen.emit import View, emit, emit_together
from lrdsl.codegen.environment import environment, text
from lrdsl.codegen.lines import Load, Register, Store, Window
from lrdsl.files import templates
from lrdsl.ir.names import c_name
from lrdsl.ir.program import Program
from lrdsl.ir.source import Source
from lrdsl.passes.schedule import schedule, schedules
from lrdsl.programs import adjoint_of, backward_of, plan_of, tangent_of

from ..cells_for_tests import CELLS as SHARED
from . import cuda_host
from .cells import CELLS, functions


def forward_and_backward(cell: lr.Cell) -> list[Program]:
    forward = plan_of(cell.spec).programs
    return [*forward, *map(backward_of, forward)]


@functools.cache
def programs_of(cell: lr.Cell) -> tuple[Program, ...]:
    """The Programs of a cell and of its mirror image, each with those that are derived from it."""
    found: dict[str, Program] = {}
    for spec in (cell.spec, cell.spec.mirrored()):
        for p in plan_of(spec).programs:
            full = adjoint_of(p, frozenset()).program
            for q in (p, backward_of(p), full, adjoint_of(full, frozenset()).program, tangent_of(p).program):
                found.setdefault(q.digest, q)
    return tuple(found.values())


def sources(program: Program, dtype: str = "float32", arch: str = "sm_90") -> tuple[Source, ...]:
    """The text for each strategy."""
    return emit(schedules(program, "cuda", dtype), arch)


# The functions of the prelude.

@pytest.fixture(scope="module", params=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


INF, NAN = math.inf, math.nan
UNARY = ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "erf", "abs", "sigmoid", "tanh", "relu", "silu", "gelu",
         "softplus", "signum")
BINARY = ("maximum", "minimum", "logaddexp")


def exact(name: str) -> Callable[..., Any]:
    """The meaning of a function, without the digits that `reference` loses near its limits."""
    def sigmoid(x: Any) -> Any:
        return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
    better = {"sigmoid": sigmoid, "signum": np.sign, "silu": lambda x: x * sigmoid(x),
              "gelu": lambda x: 0.5 * x * np.vectorize(math.erfc)(-x / math.sqrt(2))}
    return better.get(name) or MEANING[name]


@pytest.fixture(scope="module")
def prelude(dtype: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A function of the prelude over arrays."""
    if not cuda_host.available():
        pytest.skip("no g++ on this machine")
    real = {"float32": "float", "float64": "double"}[dtype]
    lines = [f"typedef {real} real;", f"#define LR_DOUBLE {int(dtype == 'float64')}", text("cuda/prelude.cuh")]
    for name in (*UNARY, *BINARY):
        call = f"lr_{name}(a[i]{', b[i]' if name in BINARY else ''})"
        lines.append(f'extern "C" void each_{name}(const real *a, const real *b, real *y, long n) {{\n'
                     f"  for (long i = 0; i < n; ++i) y[i] = {call};\n}}")
    library = ctypes.CDLL(str(cuda_host.compiled("\n".join(lines), tmp_path_factory.mktemp("prelude"))))

    def apply(name: str, *arguments: Any) -> Any:
        a = [np.ascontiguousarray(x, dtype) for x in arguments]
        y = np.empty_like(a[0])
        getattr(library, f"each_{name}")(*(ctypes.c_void_p(x.ctypes.data) for x in (a[0], a[-1], y)), ctypes.c_long(y.size))
        return y

    return apply


def test_functions_are_accurate(prelude: Callable[..., Any], dtype: str) -> None:
    """With the C library in the place of NVIDIA's, so that what is measured is what is composed of it."""
    rng = np.random.default_rng(0)
    tiny = np.finfo(dtype).tiny
    small = 10.0 ** rng.uniform(-30, 1.3, 4000) * rng.choice([-1, 1], 4000)
    x = np.concatenate([small, rng.normal(size=4000) * 5]).astype(dtype)
    domain = {"log": np.abs(x), "sqrt": np.abs(x), "log1p": x[x > -1], "gelu": x[x > -2]}
    for name in UNARY:
        here = domain.get(name, x)
        with np.errstate(all="ignore"):
            want = exact(name)(here.astype(np.float64))
        error = np.abs(prelude(name, here) - want) / np.maximum(np.abs(want), tiny) / np.finfo(dtype).eps
        assert error.max() < (8 if dtype == "float64" or name == "gelu" else 4), (name, here[error.argmax()])
    y = rng.permutation(x)
    for name in BINARY:
        want = exact(name)(x.astype(np.float64), y.astype(np.float64))
        assert np.abs(prelude(name, x, y) - want).max() <= 4 * np.finfo(dtype).eps * np.abs(want).max()


def test_functions_at_their_limits(prelude: Callable[..., Any]) -> None:
    """Infinities, nan and both zeros."""
    x = np.array([-INF, -1e4, -1e3, -90, -0.0, 0.0, 90, 1e3, 1e4, INF, NAN])
    for name in UNARY:
        with np.errstate(all="ignore"):
            want = exact(name)(x).astype(prelude("abs", x).dtype)
        np.testing.assert_allclose(prelude(name, x), want, rtol=1e-5, atol=1e-44, err_msg=name)
    a, b = (m.reshape(-1) for m in np.meshgrid(x, x))
    for name in BINARY:
        with np.errstate(all="ignore"):
            want = exact(name)(a, b)
        np.testing.assert_allclose(prelude(name, a, b), want, rtol=1e-6, err_msg=name)
    for name in ("expm1", "log1p", "tanh", "sin", "erf", "silu", "gelu", "sqrt"):
        assert np.signbit(prelude(name, [-0.0]))[0], name


# The text.

def test_text_is_clean() -> None:
    for cell in CELLS.values():
        for said in (s.text for program in forward_and_backward(cell) for s in sources(program)):
            assert said.endswith("_\n") and "\t" not in said and "\n\n\n" not in said
            assert "#include" not in said and not re.search(r"[\s\"'(]/(home|tmp|usr|work|root)", said)
            for line in said.splitlines():
                assert line == line.rstrip(), line
                assert not re.search(r"\+ -|- -|\b0 \*|\* 1 ?\*|\+ 0\b(?!\.)", line), line


def test_arch_is_named_once() -> None:
    program = plan_of(SHARED["gilr"].spec).programs[0]
    for ninety, hundred in zip(sources(program, arch="sm_90"), sources(program, arch="sm_100"), strict=True):
        assert ninety.text.splitlines()[0].count("for sm_90.") == 1
        assert ninety.text.replace("sm_90", "sm_100") == hundred.text and ninety.text.count("sm_90") == 1


def test_templates_use_all_that_they_are_given() -> None:
    used: set[str] = set()
    for path in sorted(templates().rglob("*.j2")):
        tree = environment().parse(path.read_text())
        used |= {node.attr for node in tree.find_all(jinja2.nodes.Getattr)}
    for kind in (View, Load, Store, Register, Window, ChunksView, WalkView, Meet):
        assert {f.name for f in dataclasses.fields(kind)} <= used, kind


def test_steps_in_flight() -> None:
    """Many for a light program, few where registers or instructions would run out."""
    def ahead(cell: lr.Cell, dtype: str, part: int = -1) -> int:
        return schedule(forward_and_backward(cell)[part], "cuda", dtype).ahead
    assert [ahead(linear_scan, d, 0) for d in ("float32", "float64")] == [16, 8]
    assert [ahead(SHARED["gilr_lstm"], d) for d in ("float32", "float64")] == [4, 2]
    assert ahead(functions, "float32") == 2


def test_no_name_of_a_cell_meets_a_name_of_the_text() -> None:
    """Every word that a kernel says is the cell's, one that no name of a cell can be, or a function of CUDA's."""
    @lr.cell
    def qqcell(qqx: lr.Input, qqz: lr.Input, qqh: lr.State, qqk: lr.State, qqo: lr.State, qqp: lr.State, qqv: lr.Vector,
               qqs: lr.Scalar):
        qqg = lr.where(qqx[lr.t] > 0, lr.sigmoid(qqx[lr.t - 1]), qqs)
        qqh[lr.t] = qqg * qqh[lr.t - 1] + qqz[lr.t + 1] * qqv
        qqk[lr.t] = qqx[lr.t] * qqk[lr.t - 1] + qqh[lr.t - 2]
        qqo[lr.t] = qqx[lr.t] * qqo[lr.t - 1] + qqz[lr.t] * qqo[lr.t - 2] + qqh[lr.t]
        qqp[lr.t] = qqx[lr.t] * qqp[lr.t - 1] + qqo[lr.t - 1]
        qqy = qqh[lr.t] * qqk[lr.t - 1] + qqp[lr.t]
        return qqy

    said: set[str] = set()
    for program in forward_and_backward(qqcell):
        for source in sources(program):
            kernel = source.text[source.text.index("\nnamespace"):]
            kernel = re.sub(r'//.*|"C"|#\w+|(?s:struct (?:Args|Map\d*) .*?\n\};)', "", kernel)
            said |= set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", kernel))
    ours = {w for w in said if "qq" not in w and c_name(w, set()) == w}
    assert ours <= {"atomicAdd", "__syncthreads", "unroll"}, ours


def test_steps_of_a_chunk() -> None:
    """Many for a light program; a heavy one has a multiprocessor for itself; at least as many as are read back."""
    def chunks(cell: lr.Cell, dtype: str, part: int = -1) -> tuple[int, int]:
        found = schedule(forward_and_backward(cell)[part], "cuda", dtype, "chunked").chunks
        assert found and found.warps == 8
        return found.steps, found.at_once
    assert [chunks(linear_scan, d, 0) for d in ("float32", "float64")] == [(16, 2), (8, 2)]
    assert chunks(SHARED["gilr"], "float32", 0) == (16, 2) and chunks(SHARED["gilr"], "float32") == (8, 2)
    assert chunks(SHARED["gilr_lstm"], "float32") == (8, 1) and chunks(SHARED["gilr_lstm"], "float64") == (4, 1)
    assert chunks(SHARED["strata"], "float64")[0] >= 3


def test_golden(golden: Any) -> None:
    """The text of gilr, forward and backward; without the preludes, which have their own files, and the Programs' digests."""
    said = emit_together([k for p in forward_and_backward(SHARED["gilr"]) for k in schedules(p, "cuda", "float32")], "sm_90")
    for prelude in ("cuda/prelude.cuh", "cuda/chunks.cuh"):
        assert said.count(text(prelude)) == 1
        said = said.replace(text(prelude), f"// (templates/{prelude})\n")
    assert re.sub(r"_[0-9a-f]{8}(?=\b|_)", "_digest", said) == golden("gilr.cu")


# What nvcc says.

NVCC = shutil.which("nvcc")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="no nvcc on this machine: the CUDA text is not compiled")


def spills(said: str, arch: str, directory: Path) -> dict[str, int]:
    """Entry -> bytes of registers spilled. No warning is accepted."""
    assert NVCC
    path = directory / "kernels.cu"
    path.write_text(said, encoding="utf-8")
    command = [NVCC, "-cubin", f"-arch={arch}", "-Werror", "all-warnings", "-Xptxas", "-v", "-o",
               str(path.with_suffix(".cubin")), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    found = re.findall(r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr, re.DOTALL)
    return {entry: int(stores) + int(loads) for entry, stores, loads in found}


def compile_all(programs: Iterable[Program], dtype: str, arch: str, directory: Path) -> int:
    """The most bytes that one of the kernels spills, all of them in one file."""
    kernels = [k for p in programs for k in schedules(p, "cuda", dtype)]
    found = spills(emit_together(kernels, arch), arch, directory)
    assert set(found) == {k.entry for k in kernels}
    return max(found.values())


@needs_nvcc
@pytest.mark.parametrize("dtype", ["float32", *(pytest.param(d, marks=pytest.mark.long) for d in ("bfloat16", "float16"))])
def test_nvcc_takes_it_and_spills_nothing(dtype: str, tmp_path: Path) -> None:
    assert compile_all(forward_and_backward(SHARED["gilr_lstm"]), dtype, "sm_90", tmp_path) == 0


@needs_nvcc
@pytest.mark.long
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", ["gilr", "gilr_lstm", "order_two", "sru"])
def test_nvcc_takes_it_everywhere(name: str, precision: str, arch: str, tmp_path: Path) -> None:
    """And nothing is spilled."""
    assert compile_all(forward_and_backward(CELLS[name]), precision, arch, tmp_path) == 0


@needs_nvcc
@pytest.mark.long
@pytest.mark.parametrize("name", CELLS)
def test_nvcc_takes_every_program(name: str, tmp_path: Path) -> None:
    """Two steps are always held, so that derivatives of derivatives of coupled states may spill a few registers."""
    assert compile_all(programs_of(CELLS[name]), "float32", "sm_90", tmp_path) <= (128 if name == "spiral" else 64)
