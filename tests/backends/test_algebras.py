"""Kernels of recurrences over other algebras against the reference, slot by slot: native, and the CUDA text on the emulator."""

from __future__ import annotations

import itertools

import pytest

from lrdsl.backends.problem import ALLOWED
from lrdsl.check import check
from tests.backends.harness import LAYOUTS, Problem, load, programs
from tests.cells_of_algebras import CELLS

pytestmark = pytest.mark.usefixtures("compiler")

KINDS = ("forward", "backward", "second", "tangent")
SIZES = ((1, 1, 1), (2, 33, 17), (3, 256, 100))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["longest", "cheapest", "evidence", "cummin", "levels", "folded"])
def test_native_kernels_agree_with_the_reference(name: str, kind: str) -> None:
    """Ties too: every other channel has multiples of 1/4. Infinite edges stand where none is given. In float32 a sum that is
    rounded otherwise may win where it lost: a gradient is compared only where there is no sum, or no winner."""
    dtypes = ("float64", "float32") if kind == "forward" or name in ("evidence", "cummin") else ("float64",)
    for program, dtype in itertools.product(programs(CELLS[name], [kind]), dtypes):
        launch = load(program, dtype)
        for k, ((B, T, C), reset) in enumerate(itertools.product(SIZES, ("none", "some", "every"))):
            problem = Problem(program, T, reset=reset, edges=("given", "constant", "mixed")[k % 3])
            error = problem.error(problem.solve(launch, B, C, LAYOUTS[k % 3], dtype))
            assert error <= {"float64": 1e-13, "float32": 1e-5}[dtype] * max(1, T / 32), (B, T, C, reset)


@pytest.mark.long
def test_the_cuda_text_is_right_far_within_what_is_allowed() -> None:
    checked = check(CELLS["evidence"])
    assert checked.right and all(r.error < ALLOWED[r.dtype] / 10 for r in checked.rows if "16" not in r.dtype), str(checked)
    assert {(r.program, r.strategy) for r in checked.rows} == {
        (f"evidence{kind}", s) for kind in ("", "_backward", "_backward_backward", "_tangent") for s in ("serial", "chunked")}


@pytest.mark.long
@pytest.mark.parametrize("name", CELLS)
def test_every_cuda_text_is_right_under_every_schedule(name: str) -> None:
    checked = check(CELLS[name])
    assert checked.right, str(checked)
