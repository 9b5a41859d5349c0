"""Kernels whose sequences have 16 bits, slot by slot: reading is exact, what is written is rounded once, all else is float32.

The definition, in float64, reads the same rounded numbers. An output may be off by what a float32 kernel may, and by half a
unit of its last bit (bound B8): where it is stored in 16 bits, and not where it is a state or a sum.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import lrdsl as lr
from lrdsl import sigmoid, t, tanh
from lrdsl.backends import emulated
from lrdsl.backends.emulated import SCHEDULES
from lrdsl.ir.dtypes import NARROW
from lrdsl.kernels import launch_of, source_of
from lrdsl.passes.precision import with_full
from lrdsl.passes.schedule import strategies
from lrdsl.programs import adjoint_of, inner_keeps, plan_of
from tests.backends.harness import KINDS, LAYOUTS, Problem, load, load_all, programs
from tests.bounds import ROUNDOFF, SUBNORMAL
from tests.cells_for_tests import CELLS

FLOAT32 = 1e-5  # as in test_agree
TIMES = (1, 2, 33, 257)
SIZES = ((1, 1), (3, 15), (1, 16), (3, 33), (3, 100))
EDGES = tuple(itertools.product(("none", "some", "every"), ("given", "constant", "mixed")))

pytestmark = pytest.mark.usefixtures("compiler", "always_threads", "compiled")


@lr.cell
def lagged(x: lr.Input, y: lr.Input, v: lr.Vector, s: lr.Scalar, h: lr.State = lr.State(init=0.5)):
    """Inputs behind, a state that only the backward pass reads, learned numbers of both shapes."""
    h[t] = sigmoid(x[t - 1] + v) * h[t - 1] + tanh(y[t - 2]) * s
    return h[t] * tanh(x[t] + h[t - 2])


OURS = {"lagged": lagged, "linear_scan": lr.cells.linear_scan, **{n: CELLS[n] for n in ("gilr_lstm", "strata", "against",
                                                                                       "order_two", "rotation")}}
# What differs from float32 is how memory is read and written: one cell shows all of it, others that nothing was forgotten.
CASES = [("lagged", kind, dtype) for kind in KINDS for dtype in NARROW]
CASES += [(name, KINDS[k % 4], NARROW[k % 2]) for k, name in enumerate(OURS, 1) if name != "lagged"]


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> None:
    """Compiles, two at a time, what the tests that were selected ask for."""
    cases = [i.callspec.params for i in request.session.items if i.path == request.path and hasattr(i, "callspec")]
    load_all([(p, c["dtype"]) for c in cases if "kind" in c for p in programs(OURS[c["name"]], [c["kind"]])])


def check(problem: Problem, outputs: Mapping[str, Any], dtype: str, where: Any) -> None:
    """Every number within B8."""
    for name, got in outputs.items():
        want, kind = problem.wanted(name, got.shape[0], got.shape[-1]), problem.slots[name].dtype(dtype)
        bound = FLOAT32 * max(1, problem.T / 250) * (1 + np.abs(want).max(initial=0.0))
        if kind in NARROW:
            bound = bound + ROUNDOFF[kind] * (np.abs(want) + bound) + SUBNORMAL[kind]
        off = np.abs(got - want)
        assert (off <= bound).all(), f"{problem.program.name} at {where}: {name} is off by {(off / bound).max():.1f} times"


@pytest.mark.parametrize(("name", "kind", "dtype"), CASES)
def test_native_kernels_agree_with_the_definition(name: str, kind: str, dtype: str) -> None:
    n = CASES.index((name, kind, dtype))
    for program in programs(OURS[name], [kind]):
        launch = load(program, dtype)
        for k, (T, (reset, edge)) in enumerate(itertools.product(TIMES, EDGES[n % 3::3])):
            problem = Problem(program, T, reset=reset, edges=edge, dtype=dtype)
            for j, (B, C) in enumerate(SIZES):
                layout, threads = LAYOUTS[(j + k + n) % 3], 1 + (j + k) % 2
                check(problem, problem.solve(launch, B, C, layout, dtype, threads), dtype, (B, T, C, layout, reset, edge))


@pytest.mark.parametrize(("name", "kind", "dtype"), [c for c in CASES if c[0] not in ("gilr_lstm", "against")])
def test_cuda_text_agrees_with_the_definition(name: str, kind: str, dtype: str) -> None:
    """In every strategy, with what the emulator sees: no access of a wrong size or beyond an end."""
    n = CASES.index((name, kind, dtype))
    [program] = programs(OURS[name], [kind])
    for strategy in strategies(program, "cuda"):
        source = source_of(program, "cuda", dtype, strategy=strategy)
        launch = emulated.load(source, SCHEDULES[n % len(SCHEDULES)])
        for k, T in enumerate((1, 33, (source.chunk or 32) + 1)):
            reset, edge = EDGES[(n + 2 * k) % len(EDGES)]
            problem = Problem(program, T, reset=reset, edges=edge, dtype=dtype)
            for j, (B, C) in enumerate(((3, 5), (1, 33))):
                layout = LAYOUTS[(j + k + n) % 3]
                check(problem, problem.solve(launch, B, C, layout, dtype), dtype, (strategy, B, T, C, layout, reset, edge))


@pytest.mark.parametrize("dtype", NARROW)
def test_the_definition_rounds_what_it_writes(dtype: str) -> None:
    for program in programs(OURS["gilr_lstm"], ["forward", "backward"]):
        problem = Problem(program, 20, dtype=dtype)
        check(problem, problem.solve(launch_of(program, dtype, "reference"), 2, 7, "columns", dtype), dtype, "reference")


@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_written_past_the_cache_is_the_same(dtype: str) -> None:
    """The same numbers to the last bit, where rows are whole lines and where they are not; a state in full beside others."""
    [_, program] = programs(OURS["gilr_lstm"], ["forward"])
    assert [s.dtype(dtype) for s in Problem(program, 1).slots.values() if s.kind == "keep"] == [dtype, "float32"]
    kept, past = load(program, dtype), load(program, dtype, lambda text: text.replace("CACHE = 32 << 20", "CACHE = 0"))
    problem = Problem(program, 40, C=192, dtype=dtype)
    for C, layout, threads in itertools.product((16, 32, 64, 192, 33), LAYOUTS, (1, 2)):
        a, b = (problem.solve(launch, 3, C, layout, dtype, threads) for launch in (kept, past))
        assert all(a[n].tobytes() == b[n].tobytes() for n in a)


@pytest.mark.parametrize("dtype", NARROW)
def test_every_width_gives_the_same_numbers(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the instructions that convert: F16C, AVX-512."""
    [program] = programs(lr.cells.linear_scan, ["backward"])
    problem, found = Problem(program, 64, dtype=dtype), []
    for march in ("native", "x86-64-v3", "x86-64"):
        monkeypatch.setenv("CXX", f"g++ -march={march} -ffp-contract=off")
        found.append(problem.solve(load(program, dtype, lambda text, m=march: f"// {m}\n{text}"), 3, 37, "columns", dtype))
    assert all(run[n].tobytes() == found[0][n].tobytes() for run in found for n in run)


def test_what_is_kept_in_full() -> None:
    """A state that only the backward pass reads, in every derivative: a state that the caller gets is as the caller gets it."""
    [program] = programs(lagged, ["forward"])
    backward = adjoint_of(program, inner_keeps(program)).program
    assert program.full == () and program.full_names == {"h"} and backward.full == ("h",)
    second = adjoint_of(backward, frozenset()).program
    assert {"h", "back.h"} <= set(second.full) and all("h" in n.split(".") for n in second.full)
    assert adjoint_of(plan_of(lr.cells.linear_scan.spec).programs[0], frozenset()).program.full == ()
    numbers = adjoint_of(with_full(program, {"v", "s"}), inner_keeps(program)).program
    assert set(numbers.full) == {"h", "v", "s", "d.v", "d.s"}
    assert numbers.digest != backward.digest  # another kernel, and another op


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("target", ["cpu", "emulated"])
def test_learned_numbers_may_stay_in_full(target: str, dtype: str) -> None:
    """Numbers that 16 bits do not hold: rounded, v = 1 + 2^-12 would be 1."""
    [plain] = programs(lagged, ["forward"])
    for kind in ("forward", "backward"):
        program = with_full(plain, {"v", "s"})
        program = program if kind == "forward" else adjoint_of(program, inner_keeps(program)).program
        problem = Problem(program, 40, dtype=dtype)
        assert {s.name for s in problem.slots.values() if s.kind == "vector" and s.full} == {"v", "s"}
        launch = load(program, dtype) if target == "cpu" else emulated.load(source_of(program, "cuda", dtype))
        check(problem, problem.solve(launch, 2, 33, "plain", dtype), dtype, (target, kind))
