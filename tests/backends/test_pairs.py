"""Complex numbers in their own memory: kernels that read and write pairs, in every strategy, against the reference."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

import lrdsl as lr
from lrdsl import t
from lrdsl.backends import emulated, native
from lrdsl.backends.emulated import SCHEDULES
from lrdsl.ir.source import slots
from lrdsl.kernels import source_of
from lrdsl.passes.schedule import strategies
from tests.backends.harness import KINDS, LAYOUTS, Problem, load, programs
from tests.backends.test_agree import ALLOWED
from tests.backends.test_chain import wrong
from tests.backends.test_narrow import check
from tests.backends.test_native import MARCHES, WARN, cpu_has
from tests.nn.complex_cells import crossed, gated, second

pytestmark = pytest.mark.usefixtures("compiler", "always_threads")
TIMES, CHANNELS = (1, 2, 33, 100), (1, 3, 7, 8, 9, 15, 16, 17, 33, 100)
BEYOND = tuple(itertools.product(("none", "some", "every"), ("given", "constant", "mixed")))


@lr.cell
def both_ways(z: lr.Input = lr.Input(complex=True), w: lr.Input = lr.Input(complex=True), x: lr.Input = lr.Input(),
              h: lr.State = lr.State(complex=True, init=0.5 - 0.25j), v: lr.Vector = lr.Vector()):
    """Read at lags on both sides, a part alone, and written from a register and from another walk."""
    h[t] = z[t] * h[t - 1] / 2 + v * lr.conjugate(w[t - 1]) + lr.im(w[t + 2]) * x[t]
    return h[t], h[t - 2] * lr.re(z[t - 1]), w[t + 1] * 1j, lr.re(h[t]) + 1j * x[t]


CELLS = {c.name: c for c in (both_ways, gated, second, crossed)}
SHORT = [("both_ways", "forward", "float64"), ("both_ways", "backward", "float32")]
EVERY = [pytest.param(*case, marks=pytest.mark.long) for case in itertools.product(CELLS, KINDS, ("float64", "float32"))
         if case not in SHORT]


def test_what_is_paired() -> None:
    """Inputs, outputs, what is read again, and gradients of all of these."""
    forward, backward = programs(both_ways, ["forward", "backward"])
    assert [s.name for s in slots(forward) if s.paired] == ["z", "w", "h", *(k.name for k in forward.keeps[1:])]
    assert {"z", "w", "h", "h.grad", "d.z", "d.w"} < {s.name for s in slots(backward) if s.paired}
    assert {s.name for s in slots(backward) if s.kind in ("sequence", "keep") and not s.paired} == {"x", "d.x"}


def assert_agrees(name: str, kind: str, dtype: str, strategy: Any, channels: tuple[int, ...], layouts: tuple[str, ...]) -> None:
    """At each time two sizes, in turn."""
    turn = itertools.count()
    for program in programs(CELLS[name], [kind]):
        launch = load(program, dtype, strategy=strategy)
        for T, _ in itertools.product(TIMES, range(len(channels))):
            n = next(turn)
            reset, edges = BEYOND[n % len(BEYOND)]
            problem = Problem(program, T, reset=reset, edges=edges)
            B, C, layout = 1 + n % 3, channels[n % len(channels)], layouts[n % len(layouts)]
            error = problem.error(problem.solve(launch, B, C, layout, dtype, 1 + n % 2))
            assert error <= ALLOWED[dtype], f"{program.name} at {(B, T, C, layout, reset, edges)}: {error:.1e}"


@pytest.mark.parametrize(("name", "kind", "dtype"), [*SHORT, *EVERY])
def test_rows_of_pairs(name: str, kind: str, dtype: str) -> None:
    assert_agrees(name, kind, dtype, "rows", CHANNELS, LAYOUTS)


@pytest.mark.parametrize(("name", "kind", "dtype"), [pytest.param(*SHORT[0], marks=pytest.mark.long), SHORT[1], *EVERY])
def test_pairs_in_lanes(name: str, kind: str, dtype: str) -> None:
    if all("lanes" in strategies(p, "cpu") for p in programs(CELLS[name], [kind])):
        assert_agrees(name, kind, dtype, "lanes", (1, 2, 3, 4, 5, 8, 16), (*LAYOUTS, "turned"))


@pytest.mark.parametrize(("name", "lanes"), [("gated", True), *(pytest.param(*case, marks=pytest.mark.long) for case in
                                             itertools.product(CELLS, (False, True)) if case != ("gated", True))])
def test_blocks_of_time(name: str, lanes: bool) -> None:
    assert wrong(CELLS[name], lanes=lanes) == []


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.long)])
def test_what_is_written_past_the_cache_is_the_same(dtype: str) -> None:
    """The same numbers to the last bit, where rows are whole lines and where they are not."""
    [program] = programs(gated, ["backward"])
    kept, past = load(program, dtype), load(program, dtype, lambda text: text.replace("CACHE = 32 << 20", "CACHE = 0"))
    problem = Problem(program, 40, C=96)
    for C, layout in itertools.product((16, 96, 33), LAYOUTS):
        a, b = (problem.solve(launch, 3, C, layout, dtype) for launch in (kept, past))
        assert all(a[n].tobytes() == b[n].tobytes() for n in a)


@pytest.mark.parametrize(("kind", "dtype"), [
    ("backward", "bfloat16"), pytest.param("forward", "float16", marks=pytest.mark.long)])
def test_pairs_of_16_bits(kind: str, dtype: str) -> None:
    for program in programs(both_ways, [kind]):
        launch = load(program, dtype)
        for k, (reset, edges) in enumerate(BEYOND):
            problem = Problem(program, 33, reset=reset, edges=edges, dtype=dtype)
            for C in (3, 16, 33):
                check(problem, problem.solve(launch, 2, C, LAYOUTS[k % 3], dtype), dtype, (C, reset, edges))


@pytest.mark.parametrize(("name", "kind", "dtype"), [
    ("gated", "backward", "float32"),
    *(pytest.param(*c, marks=pytest.mark.long) for c in itertools.product(CELLS, KINDS, ("float64", "float32", "bfloat16")))])
def test_cuda_text_agrees_with_the_reference(name: str, kind: str, dtype: str) -> None:
    """In every strategy, with what the emulator sees: pairs are aligned, and no access goes beyond an end."""
    turn = itertools.count()
    for program in programs(CELLS[name], [kind]):
        for strategy in strategies(program, "cuda"):
            source = source_of(program, "cuda", dtype, strategy=strategy)
            for T in (1, 33, (source.chunk or 32) + 1):
                n = next(turn)
                reset, edges = BEYOND[n % len(BEYOND)]
                problem = Problem(program, T, reset=reset, edges=edges, dtype="bfloat16" if dtype == "bfloat16" else "float32")
                launch = emulated.load(source, SCHEDULES[n % len(SCHEDULES)])
                for C in (5, 33):
                    check(problem, problem.solve(launch, 2, C, LAYOUTS[n % 3], dtype), dtype, (strategy, T, C, reset, edges))


def test_a_pair_that_is_cut_is_found() -> None:
    """The same call on a kernel that takes the parts for each other."""
    [program] = programs(gated, ["forward"])
    problem = Problem(program, 5, reset="none", edges="constant")
    swapped = load(program, "float64", lambda text: text.replace("a__pair.re;", "a__pair.im;"))
    assert problem.error(problem.solve(load(program, "float64"))) < 1e-14 < 1e-3 < problem.error(problem.solve(swapped))
    assert np.isfinite(problem.want["h"]).all()


@pytest.mark.long
@pytest.mark.parametrize("compiler_name", ["g++", "clang++"])
@pytest.mark.parametrize("march", MARCHES)
def test_other_instruction_sets_give_the_same(march: str, compiler_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of every length, and what they are sorted with; without a warning."""
    if not shutil.which(compiler_name) or not cpu_has(MARCHES[march]):
        pytest.skip(f"{compiler_name} -march={march} does not run here")
    monkeypatch.setenv("CXX", f"{compiler_name} -march={march}")
    ways: tuple[tuple[Any, tuple[int, ...]], ...] = ("rows", CHANNELS), ("lanes", (1, 2, 3, 4, 8))
    for (name, kind, dtype), (strategy, channels) in itertools.product(SHORT, ways):
        assert_agrees(name, kind, dtype, strategy, channels, LAYOUTS)
        [program] = programs(CELLS[name], [kind])
        flags = [f"-march={march}", *(f for f in native.FLAGS if f not in ("-w", "-shared")), *WARN]
        done = subprocess.run([compiler_name, *flags, "-S", "-", "-o", os.devnull], capture_output=True, text=True, check=False,
                              input=source_of(program, "cpu", dtype, strategy=strategy).text)
        assert done.stderr == ""
