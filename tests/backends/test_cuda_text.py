"""The CUDA text of every kernel, run by the emulator under every kind of schedule, against the reference."""

from __future__ import annotations

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import lrdsl as lr
from lrdsl.backends import emulated
from lrdsl.backends.emulated import SCHEDULES, Counts, Emulator, Schedule
from lrdsl.ir.program import Program
from lrdsl.ir.source import Launch
from lrdsl.kernels import source_of
from lrdsl.passes.schedule import strategies
from tests.backends.harness import KINDS, LAYOUTS, Problem, programs
from tests.codegen.cells import CELLS

pytestmark = pytest.mark.usefixtures("compiler", "compiled")

ALLOWED = {"float64": 2e-14, "float32": 1e-5}
CASES = [(name, kind, dtype) for name in CELLS for kind in KINDS for dtype in ("float64", "float32")]
SHORT = [c for n, c in enumerate(CASES) if c[1:] == (("forward", "float64"), ("backward", "float32"))[n // 8 % 2]
         or (c[0] in ("gilr", "linear_scan") and c[2] == "float64")]  # a cell forward, the next one backward


@functools.cache
def emulator(program: Program, dtype: str, strategy: Any) -> Emulator:
    return Emulator(source_of(program, "cuda", dtype, strategy=strategy))


def launch(program: Program, dtype: str, strategy: Any, schedule: Schedule) -> Launch:
    made = emulator(program, dtype, strategy)
    return Launch(lambda values, threads, device, stream, scratch: (made.run(values, schedule, scratch), None)[1],
                  made.source.extent)


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> None:
    """Compiles, two at a time, what the tests that were selected ask for."""
    cases = [i.callspec.params for i in request.session.items if i.path == request.path and hasattr(i, "callspec")]
    wanted = [(p, c["dtype"], s) for c in cases if {"name", "kind", "dtype"} <= c.keys()
              for p in programs(CELLS[c["name"]], [c["kind"]]) for s in strategies(p, "cuda")]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda w: emulator(*w), wanted))


def lengths(program: Program, dtype: str, strategy: Any) -> tuple[int, ...]:
    """Times at which something begins or ends."""
    chunk = source_of(program, "cuda", dtype, strategy=strategy).chunk
    return (1, 2, 31, 32, 33, *((chunk - 1, chunk, chunk + 1) if chunk else (15, 16, 17)), 1000)


EDGES = tuple(itertools.product(("none", "some", "every"), ("given", "constant", "mixed"), ("", "time", "batch")))
SIZES = tuple(itertools.product((1, 2, 3), (1, 3, 31, 33, 65, 100), LAYOUTS))


def agree(name: str, kind: str, dtype: str, first: int, share: int) -> None:
    """Every strategy at every length; schedules, sizes, edges and boundaries in turn: each `share`-th combination."""
    turn = itertools.count(first)
    for program in programs(CELLS[name], [kind]):
        for strategy in strategies(program, "cuda"):
            for T in lengths(program, dtype, strategy):
                n = next(turn)
                reset, edges, same = EDGES[n * 7 % len(EDGES)]
                # Coefficients that stay the same let a state grow for as long as it runs.
                size = 0.2 if name == "order_four" else 0.3 if same == "time" else 0.5
                problem = Problem(program, T, reset=reset, edges=edges, same=same, size=size)
                for B, C, layout in SIZES[n % share::share]:
                    schedule = SCHEDULES[next(turn) % len(SCHEDULES)]
                    error = problem.error(problem.solve(launch(program, dtype, strategy, schedule), B, C, layout, dtype))
                    case = f"{program.name}, {strategy}, at {(B, T, C, layout, reset, edges, same)} under {schedule}"
                    assert error <= ALLOWED[dtype] * max(1, T / 250), f"{case}: {error:.1e}"


@pytest.mark.parametrize(("name", "kind", "dtype"), SHORT)
def test_kernels_agree_with_the_reference(name: str, kind: str, dtype: str) -> None:
    agree(name, kind, dtype, SHORT.index((name, kind, dtype)), 27)


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind", "dtype"), CASES)
def test_kernels_agree_at_every_size(name: str, kind: str, dtype: str) -> None:
    for first in range(3):
        agree(name, kind, dtype, first, 9)


@pytest.mark.long
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("name", CELLS)
def test_kernels_agree_over_many_chunks(name: str, kind: str, schedule: Schedule) -> None:
    """Over 4097 steps, which are several groups of chunks."""
    for program in programs(CELLS[name], [kind]):
        problem = many(program)
        for strategy in strategies(program, "cuda"):
            error = problem.error(problem.solve(launch(program, "float64", strategy, schedule), 1, 5, "columns"))
            assert error <= 4097 / 250 * ALLOWED["float64"], f"{program.name}, {strategy}: {error:.1e}"


@functools.cache
def many(program: Program) -> Problem:
    """Solved once for all schedules."""
    return Problem(program, 4097, reset="some", edges="mixed", B=1, C=5)


# What reaches across chunks: coefficients near 1, so that the first step is still felt at the last.

def near_one(cell: lr.Cell, kind: str, T: int, **other: Any) -> Problem:
    """A Problem whose recurrence forgets little: gates that are open, or coefficients within 8 / T of 1."""
    [program] = programs(cell, [kind])
    rng = np.random.default_rng(T)
    shape = (3, T, 1, 100)
    if cell is lr.cells.linear_scan:
        given = {"a": (1 - 8 / T * rng.random(shape)).astype(np.float32).astype(np.float64)}
    else:
        maps = rng.uniform(-0.5, 0.5, (3, T, 2, 100))
        maps[:, :, 0] += np.log(T / 4)
        given = {"x.maps": maps.astype(np.float32).astype(np.float64)}
    return Problem(program, T, edges="given", reset="none", size=0.5, given=given, **other)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("name", ["linear_scan", "gilr"])
def test_the_first_step_is_felt_at_the_last(name: str, kind: str, schedule: Schedule) -> None:
    """Over two groups of chunks and a part of a third."""
    problem = near_one(CELLS[name], kind, 4097)
    run = launch(problem.program, "float64", "chunked", schedule)
    assert problem.error(problem.solve(run, 1, 3)) < 1e-13
    start = problem.inputs["h.start" if kind == "forward" else "h.final.grad"]
    assert np.abs(start).max() * 1e-5 > 1e-13, "a start that is lost would not show"


@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_the_order_of_events_changes_no_bit(kind: str) -> None:
    problem = near_one(lr.cells.linear_scan, kind, 4097)
    found = set()
    for seed in range(20):
        schedule = Schedule("random", ("random", "starved")[seed % 2], resident=2 + 3 * seed, preempt=30, weak=True, seed=seed)
        outputs = problem.solve(launch(problem.program, "float32", "chunked", schedule), 1, 33, dtype="float32")
        found.add(b"".join(outputs[n].tobytes() for n in sorted(outputs)))
    assert len(found) == 1


# Coefficients above 1, and numbers that are none: what chunks make of them is what a thread that walks time does.

def both(program: Program, given: dict[str, Any], T: int, dtype: str = "float32", **other: Any) -> tuple[Any, Any]:
    """The outputs of `serial` and of `chunked`, under an adverse schedule."""
    problem = Problem(program, T, edges="given", reset=other.pop("reset", "none"), given=given, **other)
    with np.errstate(over="ignore", invalid="ignore"):
        return tuple(problem.solve(launch(program, dtype, s, SCHEDULES[5]), 2, 33, dtype=dtype) for s in ("serial", "chunked"))


def same_numbers(serial: Any, chunked: Any, what: str) -> None:
    """Equal where they are not finite; elsewhere up to rounding, of a sum's largest term where it cancels."""
    for name in serial:
        a, b = serial[name].astype(np.float64), chunked[name].astype(np.float64)
        finite = np.isfinite(a)
        assert (np.isfinite(b) == finite).all(), f"{what}: {name} is finite elsewhere"
        assert (np.isnan(b) == np.isnan(a)).all() and (a[np.isinf(a)] == b[np.isinf(a)]).all(), f"{what}: {name}"
        a, b = np.where(finite, a, 0), np.where(finite, b, 0)
        assert (np.abs(a - b) <= 2e-4 * (1 + np.abs(a).max(axis=1, keepdims=True))).all(), f"{what}: {name}"


@pytest.mark.parametrize("reset", ["none", "some"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_that_overflow_are_not_used(dtype: str, reset: str) -> None:
    """|a| = 1.5 over 1000 steps: the product overflows, while states that begin at 0 with no input stay 0."""
    [program] = programs(lr.cells.linear_scan, ["forward"])
    T = 1000 if dtype == "float32" else 6000
    b = np.zeros((3, T, 1, 100))
    b[:, T // 2:, :, ::2] = 1.0
    zeros = np.zeros((3, 1, 100))
    serial, chunked = both(program, {"a": np.full((3, T, 1, 100), 1.5), "b": b, "h.start": zeros, "h.edge": zeros}, T, dtype,
                           reset=reset)
    same_numbers(serial, chunked, "growing")
    states = chunked["h"].reshape(2, T, -1)
    assert (states[:, :T // 2] == 0).all() and (states[:, :, 1::2] == 0).all()
    assert np.isinf(states).any() == (reset == "none") and (states[:, :, ::2] > 1e30).any() == (reset == "none")


@pytest.mark.parametrize("size", [1.0, 1e12, 1e25])
def test_large_numbers_alone_make_no_chunk_wait(size: float) -> None:
    """A state near 1e25 is far from overflowing where coefficients are below 1: no chunk goes through its warps in order."""
    [program] = programs(lr.cells.linear_scan, ["forward"])
    made, T = emulator(program, "float32", "chunked"), 3000
    b = size * np.random.default_rng(0).normal(size=(1, T, 1, 33))
    problem = Problem(program, T, B=1, C=33, edges="constant", reset="none", given={"a": np.full((1, T, 1, 33), 0.99), "b": b})
    counts = made.run(problem.lay_out(1, 33, "plain", "float32", made.source.extent(1, T, 33).parts).values)
    blocks = made.source.extent(1, T, 33).grid
    assert counts.barriers == 6 * blocks


def grow(made: Emulator, launches: int) -> int:
    """Coefficients of all sizes, which bring products and states near the largest number, under an adverse schedule. Gives the
    number of states that ran over: the problem is there."""
    over = 0
    schedule = Schedule("random", "starved", resident=8, preempt=20, weak=True, seed=1, seconds=20)
    T = 20 * made.source.chunk + 7
    for seed in range(launches):
        rng = np.random.default_rng(seed)
        largest = 10.0 ** rng.uniform(0, 3 if made.source.dtype == "float32" else 12)
        sizes = largest ** rng.uniform(-1, 1, (1, T, 1, 33)) * 10.0 ** rng.uniform(-0.3, 0.6, (1, 1, 1, 33))
        problem = Problem(made.source.program, T, B=1, C=33, edges="given", reset=("none", "some")[seed % 2],
                          given={"a": sizes * rng.choice([-1, 1], (1, T, 1, 33))})
        call = problem.lay_out(1, 33, "plain", made.source.dtype, made.source.extent(1, T, 33).parts)
        with np.errstate(over="ignore"):
            made.run(call.values, schedule)
        over += sum(int((~np.isfinite(out)).sum()) for out in call.outputs.values())
    return over


@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whoever_waits_is_told(dtype: str, kind: str) -> None:
    """Chunks decide for themselves who tells a state and who waits for one; they must all decide alike."""
    [program] = programs(lr.cells.linear_scan, [kind])
    assert grow(emulator(program, dtype, "chunked"), 25) > 0


def test_who_decides_by_other_numbers_waits_for_ever() -> None:
    """Rounded twice: what these kernels once did wrong."""
    [program] = programs(lr.cells.linear_scan, ["forward"])
    source = source_of(program, "cuda", "float32", strategy="chunked")
    once = "if (LOOSE) whole.round_up();"
    told = "tell_transition(at.of(at.chunk, slot), whole);"
    assert once in source.text and told in source.text
    twice = source.text.replace(told, "{ " + once + told + " }").replace(once + "  // as it was told", "")
    with pytest.raises(emulated.EmulationError, match=r"wait|poll"):
        grow(Emulator(replace(source, text=twice)), 25)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["a", "b"])
@pytest.mark.parametrize("reset", ["none", "some"])
def test_what_is_not_finite_goes_where_time_goes(poison: float, column: str, reset: str) -> None:
    """From its step on, in its channel alone, and never across a boundary."""
    [program] = programs(lr.cells.linear_scan, ["forward"])
    T, rng = 500, np.random.default_rng(3)
    given = {n: rng.uniform(-1, 1, (3, T, 1, 100)) for n in ("a", "b")}
    given["a"][:, ::50] = 0.0
    for channel, at in ((2, 0), (5, 127), (8, 128), (11, 300), (32, 499)):
        given[column][:, at, :, channel] = poison
    serial, chunked = both(program, given, T, reset=reset)
    same_numbers(serial, chunked, f"{poison} in {column}")
    touched = ~np.isfinite(chunked["h"].reshape(2, T, 33)).all(axis=1)
    assert set(np.nonzero(touched.any(axis=0))[0]) <= {2, 5, 8, 11, 32}


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_stays_so_where_gates_are_bounded(poison: float) -> None:
    [program] = programs(CELLS["gilr"], ["forward"])
    maps = np.random.default_rng(5).uniform(-1, 1, (3, 500, 2, 100))
    for channel, at in ((2, 0), (5, 127), (8, 300)):
        maps[:, at, 1, channel] = poison if np.isnan(poison) else np.nan
    serial, chunked = both(program, {"x.maps": maps}, 500, reset="some")
    for name in serial:
        assert (np.isfinite(serial[name]) == np.isfinite(chunked[name])).all(), name


# Bytes.

def traffic(name: str, kind: str, strategy: Any, T: int, C: int, dtype: str = "float32") -> tuple[Counts, int]:
    """What one launch without boundaries and given edges moved, and its number of steps and channels."""
    [program] = programs(CELLS[name], [kind])
    made = emulator(program, dtype, strategy)
    problem = Problem(program, T, B=1, C=C, reset="none", edges="constant")
    extent = made.source.extent(1, T, C)
    call = problem.lay_out(1, C, "plain", dtype, extent.parts)
    return made.run(call.values, SCHEDULES[0]), T * C


@pytest.mark.parametrize("strategy", ["serial", "chunked"])
@pytest.mark.parametrize(("name", "kind", "words"), [("linear_scan", "forward", 3), ("linear_scan", "backward", 5),
                                                     ("gilr", "forward", 3), ("gilr", "backward", 6)])
@pytest.mark.parametrize(("dtype", "item"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_each_number_crosses_the_bus_once(name: str, kind: str, words: int, strategy: str, dtype: str, item: int) -> None:
    """Sequences: the floor, exactly; of the state before, which backward reads, there is one step less. All else is small, and
    float32 where sequences have 16 bits."""
    counts, size = traffic(name, kind, strategy, 2304, 64, dtype)
    assert counts.loaded("sequence") + counts.stored("keep") == item * (words * size - (64 if kind == "backward" else 0))
    others = counts.loaded("vector", "edge") + counts.stored("sum", "final", "crossing")
    assert others <= (0.001 if strategy == "serial" else 0.05) * 4 * words * size
    assert sum(counts.messages) == 0 if strategy == "serial" else 0 < counts.messages[1] <= 0.04 * 4 * words * size


def test_the_prefetch_loads_nothing_twice() -> None:
    """At no length, and nothing past the end."""
    for T in (1, 5, 16, 33, 100):
        counts, size = traffic("gilr", "forward", "serial", T, 3)
        assert counts.loaded("sequence") == 2 * 4 * size


def test_emulated_is_a_backend_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule chooses by size: more than 128 steps of few channels are cut in chunks."""
    import torch
    seen = []
    real = emulated.Emulator.run

    def run(self: Emulator, *args: Any) -> Counts:
        seen.append(self.source.chunk)
        return real(self, *args)

    monkeypatch.setattr(emulated.Emulator, "run", run)
    monkeypatch.setenv("LRDSL_BACKEND", "emulated")
    for T, chunks in ((64, False), (300, True)):
        torch.manual_seed(0)
        a, b = (torch.rand(2, T, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
        seen.clear()
        h = lr.linear_scan(a, b)
        gradients = torch.autograd.grad(h.square().sum(), (a, b))
        assert len(seen) == 2 and all((c > 0) == chunks for c in seen)
        state, states = torch.zeros(2, 5, dtype=torch.float64), []
        for t in range(T):
            state = a[:, t] * state + b[:, t]
            states.append(state)
        want = torch.stack(states, 1)
        torch.testing.assert_close(h, want)
        torch.testing.assert_close(gradients, torch.autograd.grad(want.square().sum(), (a, b)))
