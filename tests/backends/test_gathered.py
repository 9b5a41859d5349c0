"""Rows that begin no lines of the cache, gathered until they fill lines: the numbers of `rows`, to the last bit."""

from __future__ import annotations

import itertools
import shutil

import pytest
import torch

import lrdsl as lr
from lrdsl.ir.program import Program
from lrdsl.passes.schedule import chosen, schedules, strategies
from lrdsl.programs import plan_of
from tests.backends.harness import LAYOUTS, Problem, load, programs
from tests.backends.structures import STRUCTURES
from tests.backends.test_agree import OURS
from tests.backends.test_native import MARCHES, cpu_has
from tests.nn.complex_cells import gated

CELLS = {**OURS, "dense": STRUCTURES["dense"].cell, "pairs": gated}
CASES = [("gilr", "forward", "float32"), ("gilr", "backward", "float32"), ("gilr_lstm", "backward", "float64"),
         ("against", "forward", "float64"), ("against", "backward", "float32"), ("dense", "backward", "float32"),
         ("pairs", "forward", "float32"), ("pairs", "backward", "float64"), ("gilr_lstm", "forward", "bfloat16"),
         ("gilr", "backward", "float16")]


def always(text: str) -> str:
    """A kernel that finds all of a call larger than the cache."""
    assert "CACHE = 32 << 20" in text
    return text.replace("CACHE = 32 << 20", "CACHE = 0")


def differ(program: Program, dtype: str, spoil: dict[str, str], sizes: list[int], times: list[int]) -> list[tuple[object, ...]]:
    """The calls of which a gathering kernel, in whose text something may be replaced, gives another bit than `rows`."""
    def spoiled(text: str) -> str:
        for old, new in spoil.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return always(text)
    rows, gathered = load(program, dtype), load(program, dtype, spoiled, "gathered")
    found: list[tuple[object, ...]] = []
    for T in times:
        problem = Problem(program, T, C=max(sizes), dtype=dtype)
        for C, layout, threads in itertools.product(sizes, LAYOUTS, (1, 2)):
            a, b = (problem.solve(launch, 3, C, layout, dtype, threads) for launch in (rows, gathered))
            if any(a[n].tobytes() != b[n].tobytes() for n in a):
                found.append((T, C, layout, threads))
    return found


@pytest.mark.parametrize(("name", "kind", "dtype"), CASES)
def test_gathered_rows_are_rows(name: str, kind: str, dtype: str) -> None:
    for program in programs(CELLS[name], [kind]):
        assert "gathered" in strategies(program, "cpu")
        assert differ(program, dtype, {}, [1, 5, 33, 96, 300], [1, 3, 40]) == []


@pytest.mark.parametrize("march", MARCHES)
def test_other_instruction_sets_gather(march: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is one vector, or several."""
    if not shutil.which("g++") or not cpu_has(MARCHES[march]):
        pytest.skip(f"g++ -march={march} does not run here")
    monkeypatch.setenv("CXX", f"g++ -march={march}")
    for kind in ("forward", "backward"):
        assert differ(programs(CELLS["gilr"], [kind])[0], "float32", {}, [5, 33], [3, 40]) == []


@pytest.mark.parametrize(("cell", "old", "new"), [
    (lr.cells.linear_scan, "for (long i = full ? LINE : 0;", "for (long i = LINE;"),
    (lr.cells.linear_scan, "__builtin_memcpy(at(stage, 0, LINE), at(stage, lines, LINE), LINE);", ""),
    (lr.cells.linear_scan, "if (full) done(LINE);", ""),
    (lr.cells.linear_scan, "next -= lines, full = 0;", "next -= lines;"),
    (lr.cells.linear_scan, "h_rows.done();", ""),
    (lr.cells.linear_scan_reverse, "if (n > 0)", "if (n > 0 && !back)"),
], ids=["a whole first line", "what is left", "part of the first line", "a first line twice", "the last line", "the other way"])
def test_a_spoiled_kernel_is_found(cell: lr.Cell, old: str, new: str) -> None:
    [program] = programs(cell, ["forward"])
    assert differ(program, "float32", {old: new}, [33], [40])


def test_rows_are_gathered_where_they_fill_no_lines_and_no_cache() -> None:
    [program] = plan_of(lr.cells.linear_scan.spec).programs
    sizes = {(8, 4096, 512): "rows", (8, 4096, 500): "gathered", (8, 32, 500): "rows", (8, 1 << 18, 3): "lanes"}
    assert {size: chosen(program, "cpu", "float32", *size) for size in sizes} == sizes
    assert chosen(program, "cpu", "bfloat16", 8, 4096, 520) == "gathered"
    only_sums = [k.strategy for p in programs(CELLS["gilr"], ["forward"]) for k in schedules(p, "cpu", "float32")]
    assert only_sums.count("gathered") == only_sums.count("rows")


def test_a_large_call_from_torch_gathers(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    a, b = (torch.rand(2, 30_011, 49) for _ in "ab")
    with caplog.at_level("INFO", "lrdsl.launch"):
        h = lr.linear_scan(a, b)
    assert "(B, T, C) = (2, 30011, 49): gathered" in caplog.text
    state, double = torch.zeros(2, 49, dtype=torch.float64), [x.double() for x in (a, b)]
    worst = 0.0
    for t in range(a.shape[1]):
        state = double[0][:, t] * state + double[1][:, t]
        worst = max(worst, float((h[:, t] - state).abs().max()))
    assert worst < 1e-5
