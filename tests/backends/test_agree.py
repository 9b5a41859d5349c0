"""Native kernels against the reference, slot by slot: every kind of Program, size, layout of memory, edge and boundary."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

import lrdsl as lr
from lrdsl import t
from tests.backends.harness import KINDS, LAYOUTS, Problem, load, load_all, programs
from tests.cells_for_tests import CELLS

TIMES = (0, 1, 2, 31, 32, 33, 255, 256, 257, 1000)
CHANNELS = (1, 3, 15, 16, 17, 33, 100)
BATCHES = (0, 1, 3)
EDGES = tuple(itertools.product(("none", "some", "every"), ("given", "constant", "mixed"), ("", "time", "batch")))
CALLS = tuple(itertools.product(BATCHES, CHANNELS, LAYOUTS, (1, 2)))
# Of the largest magnitude of each output; for each 250 steps, because equal terms of a sum are all rounded the same way.
ALLOWED = {"float64": 2e-14, "float32": 1e-5}

pytestmark = pytest.mark.usefixtures("compiler", "always_threads", "compiled")


@lr.cell
def functions(x: lr.Input, y: lr.Input, v: lr.Vector, s: lr.Scalar, h: lr.State = lr.State(init=0.5)):
    """Every function of the language."""
    p = lr.softplus(x[t]) + lr.exp(y[t]) + lr.sqrt(1 + y[t] * y[t]) + lr.logaddexp(x[t], s)
    q = lr.log(1 + lr.abs(x[t])) + lr.log1p(y[t] * y[t]) + lr.expm1(x[t - 1]) + lr.gelu(v * y[t]) + lr.silu(x[t])
    r = lr.sin(q) * lr.cos(p) + lr.relu(x[t]) * lr.maximum(x[t], y[t]) - lr.minimum(x[t - 1], y[t])
    c = lr.where(lr.equal(x[t], y[t]), r, lr.where(x[t] >= 0.25, lr.detach(r), q))
    h[t] = lr.sigmoid(c / p) * h[t - 1] + lr.tanh(c) + lr.where(x[t] > y[t - 2], 1, 0) / (2 + y[t]) ** 3 + x[t] ** 5 - s / 3
    return h[t], lr.where(lr.equal(y[t], 0), x[t], 1) * h[t - 2] ** 2


@lr.cell
def letters(B: lr.Input, C: lr.Input, T: lr.Vector, h: lr.State):
    """The names that the paper of S6 uses, and that sizes have here."""
    h[t] = lr.sigmoid(B[t]) * h[t - 1] + C[t] * B[t - 1] * T
    return h[t]


OURS = {**CELLS, **{c.name: c for c in (lr.cells.linear_scan, lr.cells.linear_scan_reverse, functions, letters)}}
CASES = [(name, kind, dtype) for name in OURS for kind in KINDS for dtype in ("float64", "float32")]
# Compiling is most of the time: what is long here differs from its neighbours in nothing but the numbers.
SHORT = [c for c in CASES if c[1:] in (("forward", "float64"), ("backward", "float32"))
         or (c[0] in ("gilr", "order_two", "strata", "against", "rotation", "functions") and c[2] == "float64")]


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> None:
    """Compiles, two at a time, what the tests that were selected ask for."""
    cases = [i.callspec.params for i in request.session.items if i.path == request.path and hasattr(i, "callspec")]
    load_all([(p, c["dtype"]) for c in cases for p in programs(OURS[c["name"]], [c["kind"]])])


def agree(name: str, kind: str, dtype: str, times: Sequence[int], edges: Sequence[Any], share: int, first: int = 0) -> None:
    """At each time with each kind of edges: one call in `share`, other ones for each, from number `first` on."""
    for program in programs(OURS[name], [kind]):
        launch = load(program, dtype)
        for T, (k, (reset, edge, same)) in itertools.product(times, enumerate(edges)):
            # The same step again and again may grow: with coefficients below 1/3, no cell does.
            problem = Problem(program, T, reset=reset, edges=edge, same=same, size=0.3 if same == "time" else 0.5)
            for B, C, layout, threads in CALLS[(k + first) % share::share]:
                error = problem.error(problem.solve(launch, B, C, layout, dtype, threads))
                case = f"{program.name} at {(B, T, C, layout, threads, reset, edge, same)}"
                assert error <= ALLOWED[dtype] * max(1, T / 250), f"{case}: {error:.1e}"


@pytest.mark.parametrize(("name", "kind", "dtype"), SHORT)
def test_kernels_agree_with_the_reference(name: str, kind: str, dtype: str) -> None:
    """A part of the sizes, another one for each case; together they meet all."""
    n = SHORT.index((name, kind, dtype))
    times = (TIMES[n % 3], TIMES[3 + n % 3], TIMES[9] if name == "gilr" else TIMES[6 + n % 3])
    agree(name, kind, dtype, times, EDGES[n % 9::9] if n % 2 else EDGES[n % 14::14], 12, n)


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind", "dtype"), CASES)
def test_kernels_agree_at_every_size(name: str, kind: str, dtype: str) -> None:
    agree(name, kind, dtype, TIMES[:6], EDGES, 27)
    for k, T in enumerate(TIMES[6:]):
        agree(name, kind, dtype, [T], EDGES[k::7][:3], 9)


@pytest.mark.parametrize(("name", "kind", "dtype"), [("gilr", "backward", "float32"), ("against", "forward", "float64")])
def test_what_is_written_past_the_cache_is_the_same(name: str, kind: str, dtype: str) -> None:
    """The same numbers to the last bit, where rows are whole lines and where they are not."""
    [program] = programs(OURS[name], [kind])
    kept, past = load(program, dtype), load(program, dtype, lambda text: text.replace("CACHE = 32 << 20", "CACHE = 0"))
    problem = Problem(program, 40, C=96)
    for C, layout, threads in itertools.product((16, 32, 96, 33), LAYOUTS, (1, 2)):
        a, b = (problem.solve(launch, 3, C, layout, dtype, threads) for launch in (kept, past))
        assert all(a[n].tobytes() == b[n].tobytes() for n in a)


def test_a_thread_more_changes_no_bit() -> None:
    """What is computed does not depend on who computes it: the promise that makes runs repeatable."""
    [program] = programs(lr.cells.gilr, ["backward"])
    launch = load(program, "float32")
    problem = Problem(program, 300)
    for B, C in ((1, 100), (3, 100), (2, 33)):
        runs = [problem.solve(launch, B, C, "plain", "float32", threads) for threads in (1, 2, 2, 3, 8)]
        assert all(run[n].tobytes() == runs[0][n].tobytes() for run in runs for n in run)
