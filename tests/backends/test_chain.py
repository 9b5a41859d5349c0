"""Kernels in blocks of time: against the reference, in every structure; the same bits whoever comes first; when they run."""

from __future__ import annotations

import functools
import multiprocessing
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lrdsl as lr
from lrdsl import exp, kernels, sigmoid, t, tanh
from lrdsl.backends import native
from lrdsl.codegen.emit import emit
from lrdsl.ir.kernel import Kernel, Strategy
from lrdsl.ir.program import Program
from lrdsl.ir.source import RESET, Launch
from lrdsl.kernels import source_of
from lrdsl.passes import chain, in_lanes, schedule
from tests.backends import harness
from tests.backends.harness import Problem, programs
from tests.backends.structures import STRUCTURES
from tests.backends.test_native import SHIM, alone
from tests.backends.test_not_finite import kinds, planted
from tests.cells_for_tests import CELLS

T = 203
ZOO = [getattr(lr.cells, name) for name in dir(lr.cells) if isinstance(getattr(lr.cells, name), lr.Cell)]
fork = multiprocessing.get_context("fork")

pytestmark = pytest.mark.usefixtures("compiler", "always_threads")


def load(program: Program, dtype: str = "float64", *, steps: int = 16, width: int = 0, lanes: bool = False,
         change: Callable[[str], str] = str) -> Launch:
    """A Program's kernel in blocks of so many steps and channels (0: of all)."""
    return load_kernel(schedule.schedule(program, "cpu", dtype, "chained_lanes" if lanes else "chained"), steps=steps,
                       width=width, change=change)


def load_kernel(kernel: Kernel, *, steps: int = 16, width: int = 0, change: Callable[[str], str] = str) -> Launch:
    [source] = emit([kernel])
    made = native.load(replace(source, text=change(source.text)))
    return Launch(lambda values, threads, *_: made.run(values, threads, steps, width or values[-1], 0), made.extent)


def chains(program: Program) -> bool:
    return not chain.hindrance(program)


def same_bits(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[n].tobytes() == other[n].tobytes() for n in one)


def wrong(cell: lr.Cell, *, lanes: bool, every: tuple[str, ...] = ("forward", "backward")) -> list[str]:
    """What differs from the reference, or between two runs on other numbers of threads."""
    found = []
    for program in filter(chains, programs(cell, every)):
        if lanes and in_lanes.hindrance(program):
            continue
        for reset, edges, steps, B, C in (("none", "constant", 16, 1, 4), ("some", "given", 23, 2, 3 if lanes else 37),
                                          ("every", "mixed", 64, 1, 1)):
            problem = Problem(program, T, reset=reset, edges=edges, B=B, C=C)
            launch = load(program, steps=steps, width=0 if lanes else 32, lanes=lanes)
            got = problem.solve(launch, B, C, threads=3)
            if not problem.error(got) < 2e-13:
                found.append(f"{program.name}, {reset}: {problem.error(got)}")
            if not same_bits(got, problem.solve(launch, B, C, threads=2)):
                found.append(f"{program.name}, {reset}: other bits")
    return found


@pytest.mark.parametrize("name", ["gilr", "strata", "against", "window"])
def test_blocks_are_as_the_reference(name: str) -> None:
    assert wrong(CELLS[name], lanes=False) == []


@pytest.mark.parametrize("name", ["order_two", "spiral"])
def test_blocks_of_steps_side_by_side_are_as_the_reference(name: str) -> None:
    assert wrong(CELLS[name], lanes=True) == []


@pytest.mark.long
@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("cell", [*ZOO, *CELLS.values(), *(c.cell for c in STRUCTURES.values())], ids=lambda c: str(c.name))
def test_blocks_of_every_cell_are_as_the_reference(cell: lr.Cell, lanes: bool) -> None:
    try:
        made = programs(cell, ["forward"])
    except lr.CellError:
        pytest.skip("it is not linear")
    assert made and wrong(cell, lanes=lanes, every=("forward", "backward", "second")) == []


@pytest.mark.parametrize("cell", [lr.cells.linear_scan, lr.cells.biquad, lr.cells.rotation, CELLS["against"],
                                  STRUCTURES["triangular"].cell, STRUCTURES["max-plus"].cell], ids=lambda c: str(c.name))
def test_registers_hold_what_rows_held(cell: lr.Cell) -> None:
    """Light walks add up tiles of channels, heavy ones rows: the same bits, in tiles of every width."""
    for program in programs(cell, ["forward", "backward"]):
        kernel = schedule.schedule(program, "cpu", "float64", "chained")
        assert kernel.links and all(link.light for link in kernel.links)
        by_rows = load_kernel(replace(kernel, links=tuple(replace(link, light=False) for link in kernel.links)))
        for C in (3, 8, 12, 21, 40, 125):
            for reset in ("none", "some"):
                problem = Problem(program, T, reset=reset, edges="mixed", B=1, C=C)
                got = problem.solve(load_kernel(kernel), 1, C, threads=2)
                assert problem.error(got) < 2e-13
                assert same_bits(got, problem.solve(by_rows, 1, C, threads=2)), (program.name, C, reset)


@pytest.mark.parametrize("cell", [lr.cells.gilr, lr.cells.sru, STRUCTURES["logaddexp-plus"].cell], ids=lambda c: str(c.name))
def test_walks_with_slow_functions_are_in_the_order_of_memory(cell: lr.Cell) -> None:
    for program in programs(cell, ["forward", "backward"]):
        assert not any(link.light for link in schedule.schedule(program, "cpu", "float32", "chained").links)


def test_the_same_bits_whatever_the_threads() -> None:
    [program] = programs(lr.cells.gilr, ["backward"])
    for lanes, C in ((False, 40), (True, 3)):
        problem = Problem(program, T, B=2, C=C)
        launch = load(program, steps=8, lanes=lanes)
        first = problem.solve(launch, 2, C, threads=1)
        assert problem.error(first) < 2e-13
        for n in range(20):
            assert same_bits(first, problem.solve(launch, 2, C, threads=(2, 3, 5)[n % 3]))


# ---- what walks leave for each other --------------------------------------------------------------------------------


@lr.cell
def leaking(x: lr.Input, h: lr.State):
    """Whose coefficient, a function's value, is an output as well."""
    f = exp(x[t])
    h[t] = f * h[t - 1] + x[t]
    return f


@lr.cell
def tower(x: lr.Input, h: lr.State, c: lr.State):
    """Whose second recurrence waits for the first, through functions."""
    h[t] = sigmoid(x[t]) * h[t - 1] + x[t]
    c[t] = sigmoid(h[t - 1]) * c[t - 1] + tanh(h[t])
    return c[t]


@lr.cell
def squares(x: lr.Input, h: lr.State, z: lr.State):
    """Whose second state is a line, read a step back."""
    z[t] = x[t] * x[t]
    h[t] = 0.5 * h[t - 1] + x[t]
    return z[t - 1], h[t]


@lr.cell
def taking_names(left: lr.Input, own: lr.Input, h: lr.State, *, LEAST: lr.Vector, ROUNDED: lr.Vector):
    """Named as what templates have."""
    flush = sigmoid(left[t] + LEAST)
    h[t] = flush * h[t - 1] + own[t] * ROUNDED
    return h[t]


def calls(program: Program, strategy: Strategy) -> int:
    """Calls of functions that are slow, in the text of a kernel."""
    text = source_of(program, "cpu", "float32", strategy=strategy).text
    return len(re.findall(r"lr_(sigmoid|tanh|exp|log|softplus|silu|gelu)\(", text[text.index("struct Args"):]))


@pytest.mark.parametrize("name", ["gilr", "gilr_lstm", "sru", "minlstm", "rglru"])
def test_no_function_is_computed_twice(name: str) -> None:
    for program in programs(getattr(lr.cells, name), ["forward", "backward"]):
        assert 0 < calls(program, "chained") <= calls(program, "rows")
        said = str(schedule.schedule(program, "cpu", "float32", "chained"))
        assert "; leaves " in said and "; leaves " not in str(schedule.schedule(program, "cpu", "float32", "chained_lanes"))


def test_what_is_left_is_not_flushed() -> None:
    """Products of coefficients that would be denormal are 0, other values are what they are."""
    [program] = programs(leaking, ["forward"])
    x = np.linspace(-103, -80, T)[None, :, None, None]
    problem = Problem(program, T, B=1, C=1, given={"x": x, "h.start": np.ones((1, 1, 1)), "h.edge": None, RESET: None})
    got, want = (problem.solve(found, 1, 1, dtype="float32", threads=2)
                 for found in (load(program, "float32"), harness.load(program, "float32")))
    y = got["f"].ravel()
    assert 0 < y[0] < 1e-44 and (y < np.finfo(np.float32).tiny).sum() > 100 and same_bits(got, want)


def test_what_is_told_as_it_is_is_not_flushed() -> None:
    """z is read a step back: its last value in a block is told the next."""
    [program] = programs(squares, ["forward"])
    given = {"x": np.full((1, T, 1, 1), 1e-20), "h.start": np.zeros((1, 1, 1)), "h.edge": None,
             "z.start": np.zeros((1, 1, 1)), "z.edge": None, RESET: None}
    problem = Problem(program, T, B=1, C=1, given=given)
    got, want = (problem.solve(found, 1, 1, dtype="float32", threads=2)
                 for found in (load(program, "float32"), harness.load(program, "float32")))
    assert same_bits(got, want) and any((out == np.float32(1e-40)).all() for out in (want[n].ravel()[1:] for n in want))


def test_names_of_walks_may_be_taken() -> None:
    """`left` is a field of theirs."""
    [program] = programs(taking_names, ["forward"])
    problem = Problem(program, T, B=1, C=5)
    assert problem.error(problem.solve(load(program), 1, 5, threads=2)) < 2e-13


@pytest.mark.parametrize(("old", "new"), [
    ("if (added < 2) add_2(of.s0, of.s1), start(of);", ""), ("add_2(of.s0, of.s1), start(of);", "add_2(of.s0, of.s1);"),
    ("store(at.left + c, ", "store(at.left + c, 1.0001*"),
], ids=["the ends leave nothing", "the ends begin where they ended", "something else is left"])
def test_a_walk_that_leaves_something_else_is_found(old: str, new: str) -> None:
    [program] = programs(tower, ["forward"])
    problem = Problem(program, T, B=1, C=4, reset="some", edges="given")

    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    good, bad = (problem.error(problem.solve(load(program, change=how), 1, 4, threads=2)) for how in (str, change))
    assert good < 2e-13 and not bad < 1e-9


# ---- what is not finite ---------------------------------------------------------------------------------------------


def not_finite(name: str, kind: str, lanes: bool) -> list[str]:
    """Outputs that are infinite or nan elsewhere than in the reference: in no block's sum is anything lost of that."""
    case = STRUCTURES[name]
    [program] = programs(case.cell, [kind])
    problem, _ = planted(program, case)
    C = 4 if lanes else problem.C
    with np.errstate(invalid="ignore"):
        got = problem.solve(load(program, "float64" if lanes else "float32", steps=24, lanes=lanes), problem.B, C,
                            dtype="float64" if lanes else "float32", threads=3)
    return [n for n, values in got.items() if (kinds(values) != kinds(problem.wanted(n, problem.B, C))).any()]


@pytest.mark.parametrize(("name", "kind"), [("order 2", "forward"), ("dense", "backward"), ("logaddexp-plus", "forward")])
def test_what_is_not_finite_goes_where_time_goes(name: str, kind: str) -> None:
    assert not_finite(name, kind, lanes=False) == []


@pytest.mark.long
@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_what_is_not_finite_goes_where_time_goes_in_every_structure(name: str, kind: str, lanes: bool) -> None:
    [program] = programs(STRUCTURES[name].cell, [kind])
    if not lanes or not in_lanes.hindrance(program):
        assert not_finite(name, kind, lanes) == []


@pytest.mark.parametrize("lanes", [False, True])
def test_a_block_whose_product_overflows_is_walked_in_order(lanes: bool) -> None:
    """Coefficients of 1e30 that meet a state of 0, and then ones that bring a large state back."""
    [program] = programs(STRUCTURES["diagonal"].cell, ["forward"])
    a, b = np.ones((1, 96, 1, 1)), np.zeros((1, 96, 1, 1))
    a[0, 20:30], b[0, 40], a[0, 41], a[0, 60] = 1e30, 1, 1e30, 1e-30
    given = {"a": a, "b": b, "h.start": np.zeros((1, 1, 1)), "h.edge": None, RESET: None}
    problem = Problem(program, 96, B=1, C=1, given=given)
    h = problem.solve(load(program, "float32", lanes=lanes), 1, 1, dtype="float32", threads=3)["h"].ravel()
    assert (h[:40] == 0).all()
    np.testing.assert_allclose(h[[40, 41, 59, 60, 95]], [1, 1e30, 1e30, 1, 1], rtol=1e-5)


@pytest.mark.parametrize("lanes", [False, True])
def test_products_lose_no_more_than_a_loop(lanes: bool) -> None:
    """Coefficients just below 1: products are all rounded the same way, unless their errors are kept."""
    [program] = programs(STRUCTURES["diagonal"].cell, ["forward"])
    steps = 1 << 14
    a, b = np.full((1, steps, 1, 1), np.float32(1 - 2e-4), np.float64), np.full((1, steps, 1, 1), np.float32(1e-3), np.float64)
    given = {"a": a, "b": b, "h.start": np.full((1, 1, 1), 9.0), "h.edge": None, RESET: None}
    problem = Problem(program, steps, B=1, C=1, given=given)
    error = problem.error(problem.solve(load(program, "float32", steps=4096, lanes=lanes), 1, 1, dtype="float32", threads=2))
    assert error < 1.5 * problem.error(problem.solve(harness.load(program, "float32"), 1, 1, dtype="float32"))


# ---- threads --------------------------------------------------------------------------------------------------------


def test_a_pool_of_one_thread_for_many_comes_to_an_end(tmp_path: Path, compiler: list[str]) -> None:
    """Blocks are taken in order, so that whoever is waited for has begun."""
    subprocess.run([*compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(tmp_path / "shim.so")], input=SHIM, text=True,
                   check=True)
    said = alone(f"""
import ctypes
pool = ctypes.CDLL({str(tmp_path / "shim.so")!r}, mode=ctypes.RTLD_GLOBAL)
from tests.backends.test_chain import *
native.SMALL = 0
[program] = programs(lr.cells.gilr, ["backward"])
problem = Problem(program, {T}, B=2, C=5)
print(problem.error(problem.solve(load(program), 2, 5, threads=4)) < 2e-13, pool.last())
""", tmp_path)
    assert said == "True 4\n"


def test_eight_python_threads_at_once() -> None:
    [program] = programs(lr.cells.gilr, ["backward"])
    problem = Problem(program, T, B=1, C=5)
    launch = load(program, steps=8)
    want = problem.solve(launch, 1, 5, threads=1)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: same_bits(want, problem.solve(launch, 1, 5, threads=1 + n % 3)), range(64)))


# ---- when they run --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing fits a cache."""
    for name, value in (("CACHE", 0), ("BLOCK", 1 << 10), ("SHORTEST", 8)):
        monkeypatch.setattr(schedule, name, value)
    kernels.launch_of.cache_clear()
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    kernels.launch_of.cache_clear()


def test_blocks_are_for_threads_without_work_and_memory_beyond_the_cache() -> None:
    [program] = programs(lr.cells.gilr, ["forward"])
    kernel = schedule.schedule(program, "cpu", "float32")
    chained = schedule.schedule(program, "cpu", "float32", "chained")
    assert schedule.spare(chained, 1, 64, 2) and not schedule.spare(chained, 1, 128, 2) and not schedule.spare(chained, 2, 8, 2)
    assert schedule.spare(chained, 1, 250, 2) and not schedule.spare(chained, 1, 500, 2)  # rows that do not fill lines
    assert schedule.blocks(kernel, 1, 1 << 20, 8) == (4096, 8) and schedule.blocks(kernel, 1, 1 << 16, 8) == (0, 0)
    assert schedule.blocks(kernel, 1, 1 << 20, 800)[1] == 416  # two of them, of whole cache lines


@pytest.mark.usefixtures("small_blocks")
def test_a_call_from_torch_runs_in_blocks(caplog: pytest.LogCaptureFixture) -> None:
    from lrdsl.nn.launch import Launcher  # whose kernels are loaded anew, with small blocks

    [program] = programs(lr.cells.gilr, ["forward"])
    tensors = [torch.rand(s.shape(1, 300, 5), dtype=torch.float64) if s.kind in ("sequence", "vector") else None
               for s in Launcher(program).ins]
    with caplog.at_level("INFO", "lrdsl.launch"):
        want = None
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found = Launcher(program).run(*tensors)
            want = want or found
            assert all(map(torch.allclose, found, want))
            assert ("blocks of 8 steps, 5 channels" in caplog.text) == (threads == 3)


@pytest.mark.usefixtures("small_blocks")
def test_a_program_is_scheduled_once_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    [program] = programs(lr.cells.gilr, ["forward"])
    asked: list[Any] = []
    monkeypatch.setattr(kernels, "schedule", lambda *what: asked.append(what) or schedule.schedule(*what))
    launch = kernels.launch_of(program, "float64", "native")
    monkeypatch.setattr(native, "SMALL", 0)
    for steps in (300, 301, 302):
        problem = Problem(program, steps, B=1, C=5)
        assert problem.error(problem.solve(launch, 1, 5, threads=2)) < 2e-13
    assert len(asked) == 1


def _in_child(work: Callable[[], Any], results: Any) -> None:
    results.put(work())


@pytest.mark.usefixtures("small_blocks")
def test_a_forked_child_takes_no_blocks() -> None:
    """It runs on one thread, which has nothing to add up, and waits for nobody."""
    [program] = programs(lr.cells.gilr, ["backward"])
    problem, launch = Problem(program, T, B=1, C=5), kernels.launch_of(program, "float64", "native")
    assert problem.error(problem.solve(launch, 1, 5, threads=2)) < 2e-13
    results = fork.SimpleQueue()
    work = functools.partial(_in_child, lambda: problem.error(problem.solve(launch, 1, 5, threads=2)), results)
    child = fork.Process(target=work, daemon=True)
    child.start()
    child.join(20)
    assert child.exitcode == 0 and results.get() < 2e-13


# ---- the checks can fail: spoiled kernels ---------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [
    ("return false;\n          if (n < LANES)", "{}\n          if (n < LANES)"),
    ("fill(at.h_upto + 0 * apart, 0, apart);\n        fill", "fill"),
    ("rows + after * state", "rows + k * state"),
    ("held[i], c + i * LANES, n, apart", "held[i], c, n, apart"),
], ids=["an overflow is handed on", "a boundary does not cut", "a state goes to the wrong block", "a tile is one vector"])
def test_a_spoiled_kernel_is_found(old: str, new: str) -> None:
    [program] = programs(STRUCTURES["diagonal"].cell, ["forward"])
    C = 40
    a, b = np.full((1, T, 1, C), 0.9), np.broadcast_to(np.arange(1.0, 1 + C), (1, T, 1, C)).copy()
    if "return" in old:
        a[0, 20:30], b[...] = 1e200, 0
    given = {"a": a, "b": b, "h.start": np.zeros((1, 1, C)), "h.edge": None, RESET: np.arange(T)[None] == 100}
    problem = Problem(program, T, B=1, C=C, given=given)

    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    good, bad = (problem.error(problem.solve(load(program, change=how), 1, C, threads=2)) for how in (str, change))
    assert good < 2e-13 and not bad < 1e-9
