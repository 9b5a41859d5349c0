"""Where a nan or an infinity goes: from its step on, in the direction of the run, within its channel and coupled block and what
sums over it, and never past a boundary. In every structure and algebra, forward and backward.

One number is planted in each channel of each batch element, which know nothing of each other. Which outputs are then not finite
is compared with the reference, number by number; and where a forward pass may have any at all, with the rule itself.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pytest

from lrdsl.ir.program import Program
from lrdsl.ir.source import RESET
from lrdsl.passes.schedule import strategies
from tests.backends.harness import Problem, programs
from tests.backends.structures import STRUCTURES, Case
from tests.backends.test_structure_bounds import RUNNERS, Change, launch

Array = Any
T, B = 203, 2
PLACES = (0, 1, 63, 64, 100, 127, 128, T - 1)  # ends, the first and last steps of chunks, and between

pytestmark = pytest.mark.usefixtures("compiler", "always_threads")


class Plant(NamedTuple):
    """A number that is not finite: in which input, at which step or depth, of which batch element and channel."""

    name: str
    at: int
    poison: float
    b: int
    c: int


def planted(program: Program, case: Case) -> tuple[Problem, list[Plant]]:
    """A problem with one such number in each channel but a few, and as many places as there are."""
    windows = [n for e in program.edges for n in (e.start, e.edge) if n]
    places = [(b.name, at) for b in program.buffers for at in PLACES]
    places += [(e_name, k) for e in program.edges for e_name in (e.start, e.edge) if e_name in windows for k in range(e.depth)]
    found = [Plant(name, at, poison, n % B, n // B)
             for n, ((name, at), poison) in enumerate((p, x) for p in dict.fromkeys(places) for x in (np.nan, np.inf, -np.inf))]
    C = len(found) // B + 4
    rng = np.random.default_rng(len(found))
    coefficients = case.numbers(rng, B, T, C)
    problem = Problem(program, T, reset="none", edges="given", B=B, C=C, size=1.0)
    problem.inputs |= {n: v[:, :, None] if v.ndim == 3 else v for n, v in coefficients.items() if n in problem.inputs}
    problem.inputs[RESET] = rng.random((B, T)) < 2 / T
    for p in found:
        tensor = problem.inputs[p.name]
        problem.inputs[p.name] = tensor = tensor if tensor.flags.writeable else tensor.copy()
        tensor[(p.b, p.at, 0, p.c) if tensor.ndim == 4 else (p.b, p.at, p.c)] = p.poison
    return problem, found


def astray(name: str, kind: str, runner: str, change: Change = str) -> list[str]:
    """What is not as the definition has it."""
    case = STRUCTURES[name]
    [program] = programs(case.cell, [kind])
    problem, plants = planted(program, case)
    with np.errstate(invalid="ignore"):  # parts of a sum, an infinity of each sign
        layout = "turned" if runner == "lanes" else "plain"
        got = problem.solve(launch(program, runner, change), B, problem.C, layout, "float32", 2)
    wrong, any_at_all = [], False
    for n, values in got.items():
        ours, true = kinds(values), kinds(problem.wanted(n, B, problem.C))
        if runner == "chunked":  # an infinity may have met a product that underflowed
            ours, true = ours != 0, true != 0
        any_at_all |= bool(true.any())
        differ = (ours != true).any(axis=tuple(range(1, true.ndim - 1)))  # (B, C)
        wrong += [f"{n}: {next((p for p in plants if (p.b, p.c) == at), 'nothing was planted')}"
                  for at in zip(*np.nonzero(differ), strict=True)]
    assert any_at_all, "nothing was reached"
    if kind == "forward":
        wrong += [f"{n} against the rule: {p}" for n in case.states for p in plants
                  if (~np.isfinite(got[n][p.b, :, 0, p.c]) & ~reach(program, problem.inputs[RESET][p.b], p)).any()]
    return wrong


def kinds(values: Array) -> Array:
    """0 where a number is finite; 1, 2, 3 for inf, -inf and nan."""
    return np.select([np.isnan(values), np.isposinf(values), np.isneginf(values)], [3, 1, 2], 0)


def reach(program: Program, reset: Array, p: Plant) -> Array:
    """(T,): the steps that a number may reach in a forward pass."""
    steps, way = np.arange(T), -1 if program.reverse else 1
    segment = np.cumsum(reset)  # which of the sequence's parts a step is in
    if p.name in program.loads:
        return (segment == segment[p.at]) & (way * (steps - p.at) >= 0)
    first = segment == (segment[-1] if program.reverse else segment[0])
    behind = segment != (segment[-1] if program.reverse else 0)  # where the edge of a boundary is read
    return first if p.name.endswith(".start") and not (reset[0] and not program.reverse) else behind


SHORT = [("order 2", "forward", "lanes"), ("dense", "backward", "lanes"), ("order 2", "forward", "chunked"),
         ("dense", "backward", "native"), ("max-plus", "forward", "chunked"),
         ("logaddexp-plus", "backward", "serial")]
ALL = [(name, kind, runner) for name in STRUCTURES for kind in ("forward", "backward", "second") for runner in RUNNERS
       if runner != "lanes" or all("lanes" in strategies(p, "cpu") for p in programs(STRUCTURES[name].cell, [kind]))]


@pytest.mark.parametrize(("name", "kind", "runner"), SHORT)
def test_what_is_not_finite_goes_where_time_goes(name: str, kind: str, runner: str) -> None:
    assert astray(name, kind, runner) == []


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind", "runner"), ALL)
def test_what_is_not_finite_goes_where_time_goes_in_every_kernel(name: str, kind: str, runner: str) -> None:
    assert astray(name, kind, runner) == []


@pytest.mark.parametrize(("runner", "then", "last"), [("native", 1e-30, 1e5), ("lanes", 0.0, 0.0), ("serial", 1e-30, 1e5),
                                                      ("chunked", 1e-30, 0.0)])
def test_a_product_that_underflows_within_a_chunk_is_0(runner: str, then: float, last: float) -> None:
    """What docs/compiler.md says differs: larger coefficients, in a later warp or vector, do not bring the state back."""
    [program] = programs(STRUCTURES["diagonal"].cell, ["forward"])
    a = np.ones((1, 128, 1, 1))
    a[0, [5, 6, 40, 60], 0, 0] = 1e-25, 1e-25, 1e20, 1e15
    given = {"a": a, "b": np.zeros(a.shape), "h.start": np.full((1, 1, 1), 1e20), "h.edge": None, RESET: None}
    h = Problem(program, 128, B=1, C=1, given=given).solve(launch(program, runner), 1, 1, dtype="float32")["h"].ravel()
    np.testing.assert_allclose(h[[4, 5, 15, 127]], [1e20, 1e-5, then, last], rtol=1e-5)


@pytest.mark.parametrize(("runner", "last"), [("native", np.inf), ("serial", np.inf), ("chunked", np.nan)])
def test_an_infinite_state_may_become_nan_where_gates_are_bounded(runner: str, last: float) -> None:
    """What docs/compiler.md says differs: in the next chunk it meets a product that underflowed."""
    [program] = programs(STRUCTURES["shared, bounded"].cell, ["forward"])
    rows: dict[str, Array] = {n: np.zeros((1, 300, 1, 1)) for n in "apq"}
    rows["a"][:], rows["p"][0, 50] = -30, np.inf
    given = {**dict.fromkeys(program.inputs), **rows, RESET: None}
    got = Problem(program, 300, B=1, C=1, given=given).solve(launch(program, runner), 1, 1, dtype="float32")
    x, y = (got[n].ravel() for n in "xy")
    assert (x[:50] == 0).all() and np.isinf(x[50]) and kinds(x[-1:]) == kinds(np.array([last])) and (y == 0).all()


# ---- the check can fail: spoiled kernels -----------------------------------------------------------------------------


def put(old: str, new: str) -> Change:
    """A change of a kernel's text, which applies."""

    def change(text: str) -> str:
        changed = re.sub(old, new, text, flags=re.S)
        assert changed != text, "the mutant is none"
        return changed

    return change


MUTANTS: dict[str, tuple[str, str, str, Change]] = {
    "a boundary multiplies by 0": (
        "order 2, bounded", "forward", "chunked", put(r"return cut \? b : a\(h, b\)", "return a(h, b)")),
    "the first warp multiplies by 1 and 0": ("turning", "backward", "chunked", put(r"w \? upto\(h\) : h", "upto(h)")),
    "no boundary is seen": ("dense", "backward", "native", put(r"if \(reset\.at\(t( \+ 1)?\)\) cross\(\);", "")),
    "a maximum loses a nan": ("max-plus", "forward", "chunked", put(r"a > b \|\| a != a \? a : b", "a > b ? a : b")),
    "an infinity becomes the largest number": (
        "logaddexp-plus", "forward", "serial", put(r"(const V h = )(lr_logaddexp[^;]*);", r"\1fminf(3.4e38f, \2);")),
    "states that decay alike are mixed": ("shared, bounded", "forward", "chunked", put(
        r"lr_fma\(p\[1\], h\.of\[1\], b\.of\[1\]\)", "lr_fma(p[1], h.of[1], b.of[1] + 0 * h.of[0])")),
    "a chunk multiplies what it has heard of by 0": (
        "order 2, bounded", "forward", "chunked", put(r"h = sum\(h\);", "h = sum(h), h.of[0] += 0 * mine.b.of[0];")),
    "the step before is reached": ("dense", "forward", "chunked", put(
        r"put\(to_x_row, x\)", "put(to_x_row, x + 0 * at[k + 1 < n ? k + 1 : k].p)")),
}

QUICK = ("a boundary multiplies by 0", "a maximum loses a nan")


@pytest.mark.parametrize("mutant", [pytest.param(m, marks=() if m in QUICK else pytest.mark.long) for m in MUTANTS])
def test_a_spoiled_kernel_is_found_out(mutant: str) -> None:
    name, kind, runner, change = MUTANTS[mutant]
    assert astray(name, kind, runner, change)
