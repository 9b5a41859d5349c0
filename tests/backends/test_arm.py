"""NEON and SVE: functions and whole kernels, the same text as everywhere, under an emulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lrdsl as lr
from lrdsl.kernels import source_of
from tests import vmath
from tests.backends import arm
from tests.backends.harness import KINDS, LAYOUTS, Problem, programs
from tests.backends.test_agree import functions
from tests.cells_for_tests import CELLS

OURS = {c.name: c for c in (functions, lr.cells.sru, lr.cells.logcumsumexp, *map(CELLS.get, ("gilr", "order_two", "rotation")))}
ALLOWED = {"float64": 2e-14, "float32": 1e-5, "bfloat16": 1e-2}
SHORT = [("functions", "backward", "float32", "neon"), ("gilr", "forward", "float64", "neon"),
         ("gilr", "backward", "bfloat16", "neon"), ("gilr", "backward", "float32", "sve256")]
ALL = [*((name, kind, dtype, "neon") for name in OURS for kind in KINDS for dtype in ALLOWED),
       *((name, "backward", dtype, width) for name in OURS for dtype in ALLOWED for width in ("sve256", "sve512"))]
LONG = [case for case in ALL if case not in SHORT]


@pytest.mark.parametrize(("name", "kind", "dtype", "width"),
                         [*SHORT, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG)])
def test_kernels_of_arm_agree_with_the_reference(name: str, kind: str, dtype: str, width: str, tmp_path: Path) -> None:
    for program in programs(OURS[name], [kind]):
        source = source_of(program, "cpu", dtype)
        command = arm.build(source.text, f"{source.entry}((const {source.entry}_::Args *)values, 1)", width, tmp_path)
        for T, C, layout in ((37, 33, LAYOUTS[0]), (5, 100, LAYOUTS[1]), (12, 16, LAYOUTS[2])):
            problem = Problem(program, T, dtype=dtype)
            call = problem.lay_out(2, C, layout, dtype)
            arm.run(command, call.values, [whole for whole, _ in call.memory])
            assert problem.error(problem.read(call, dtype)) < ALLOWED[dtype]
            assert not call.disturbed()


@pytest.mark.parametrize("width", ["neon", "sve256", pytest.param("sve512", marks=pytest.mark.long)])
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_functions_of_arm(dtype: str, width: str, tmp_path: Path) -> None:
    """To the bit what AVX2 with fma gives, whose text differs in nothing but the width."""
    here = vmath.build("g++", "x86-64-v3", dtype, tmp_path)
    calls = "".join(f"vector_{f}((const real *)values[0], (real *)values[1] + {k} * values[2], values[2]);"
                    for k, f in enumerate(vmath.UNARY))
    command = arm.build(vmath.source(dtype), calls, width, tmp_path)
    x = np.concatenate([vmath.sample(dtype)[::97], vmath.hard("exp", dtype)[::5], [np.nan, np.inf, -np.inf, 0.0, -0.0]])
    x = np.concatenate([x, vmath.hard("sin", dtype)[::101]]).astype(vmath.NUMPY[dtype])
    out = np.empty((len(vmath.UNARY), x.size), x.dtype)
    arm.run(command, [x.ctypes.data, out.ctypes.data, x.size], [x, out])
    for name, found in zip(vmath.UNARY, out, strict=True):
        ours = abs(x) <= 1e5 if name in ("sin", "cos") else slice(None)  # beyond, it is the C library's
        vmath.assert_same(found[ours], here(name, x[ours]), [x[ours]])
