"""Side by side: what is wrong is said and not timed, what is right is timed in turn; tables say what was measured."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import scan, table
from benchmarks.compare import Case, compare
from benchmarks.peers import loop, plain
from benchmarks.timing import Times, measured, stream, wall

SHAPE = (2, 40, 5)


def with_candidate(run: object) -> Case:
    """The scan with one candidate."""
    case = scan.case(*SHAPE, "cpu", compiled=False)
    return Case(case.name, case.shape, case.inputs, case.truth, case.words, {"other": plain(run)})  # type: ignore[arg-type]


def late(a: Tensor, b: Tensor) -> Tensor:
    """Wrong values: the last step is lost."""
    h = loop(a, b)
    return torch.cat([h[:, :-1], h[:, -2:-1]], 1)


def rows(run: object) -> list[table.Row]:
    return compare(with_candidate(run), "cpu", wall, seconds=0.01)


def test_a_right_candidate_is_timed_both_ways_beside_the_stream() -> None:
    found = rows(loop)
    assert [(r.candidate, r.way) for r in found] == [
        ("stream the same bytes", "forward"), ("other", "forward"), ("stream the same bytes", "forward and backward"),
        ("other", "forward and backward")]
    assert all(r.times and r.times.runs >= 3 and 0 < r.times.low <= r.times.median <= r.times.high for r in found)
    assert {r.size for r in found} == {4 * 400 * 3, 4 * 400 * 8}


def test_wrong_values_are_said_and_not_timed() -> None:
    wrong = [r for r in rows(late) if r.candidate == "other"]
    assert [r.times for r in wrong] == [None] and "wrong by" in wrong[0].note


@pytest.mark.parametrize(("run", "said"), [
    (lambda a, b: loop(a.detach(), b), "gradient of a missing"),
    (lambda a, b: loop(a.detach() + 0 * a, b), "gradient of a zero"),
    (lambda a, b: loop(1.5 * a - 0.5 * a.detach(), b), "gradient of a wrong by"),
], ids=["missing", "zero", "wrong"])
def test_wrong_gradients_are_said_and_forward_alone_is_timed(run: object, said: str) -> None:
    found = [r for r in rows(run) if r.candidate == "other"]
    assert [r.way for r in found] == ["forward"] and found[0].times and said in found[0].note


def test_a_candidate_that_raises_is_a_line_and_nan_never_passes() -> None:
    def raises(a: Tensor, b: Tensor) -> Tensor:
        raise OSError("no such thing")
    assert [r.note for r in rows(raises) if r.candidate == "other"] == ["OSError: no such thing"]
    assert [r.times for r in rows(lambda a, b: loop(a, b) * float("nan")) if r.candidate == "other"] == [None]


def test_a_candidate_that_cannot_go_back_is_timed_forward() -> None:
    def forward_only(a: Tensor, b: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise MemoryError("T * T numbers\nand more")
        return loop(a, b)
    found = [r for r in rows(forward_only) if r.candidate == "other"]
    assert [(r.way, r.note) for r in found] == [("forward", "no gradient: MemoryError: T * T numbers")] and found[0].times


def test_times_are_medians_and_fifths() -> None:
    assert Times.of([5.0, 1.0, 2.0, 3.0, 4.0, 6.0]) == Times(3.5, 2.0, 5.0, 6)
    assert Times.of([2.0]) == Times(2.0, 2.0, 2.0, 1)


def test_candidates_are_timed_in_turn() -> None:
    turns: list[str] = []
    measured({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, seconds=0, rounds=9)
    assert turns == ["a", "b"] * 4  # one unmeasured call each, then three rounds


@pytest.mark.parametrize(("reads", "writes"), [(2, 1), (5, 3), (1, 1), (9, 2)])
def test_the_stream_moves_as_many_tensors(reads: int, writes: int) -> None:
    moved = 0

    class Counting(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal moved
            moved += {"add": 3, "copy_": 2, "sum": 1}.get(function.__name__, 0)
            return function(*args, **(kwargs or {}))
    run = stream((4,), reads, writes)
    with Counting():
        run()
    assert moved == reads + writes


def test_tables_name_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--quick` writes what it prints."""
    found = scan.main(["--quick", "--shape", "1", "16", "3", "--seconds", "0.01", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "thread(s) of torch" in said and f"torch {torch.__version__}" in said and "lrdsl" in said
    lines = (tmp_path / "scan.csv").read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert "machine:" in comments[0] and len(list(csv.DictReader(lines[len(comments):]))) == len(found)
    ours = [r for r in found if r.candidate == "lrdsl"]
    assert len(ours) == 2 and all(r.error < 1e-5 and r.times for r in ours)


def test_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table.picture(rows(loop), tmp_path / "a.png", "here")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
