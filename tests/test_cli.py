"""The command line, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrdsl import check, cli

CELL = '''
import lrdsl as lr
from lrdsl import t


@lr.cell
def leaky(x: lr.Input, h: lr.State, decay: lr.Vector):
    """A leaky sum."""
    h[t] = decay * h[t - 1] + x[t]
    return h[t]


@lr.cell
def squared(x: lr.Input, h: lr.State):
    h[t] = h[t - 1] * h[t - 1] + x[t]
    return h[t]
'''


@pytest.fixture
def cells(tmp_path: Path) -> str:
    file = tmp_path / "my_cells.py"
    file.write_text(CELL)
    return str(file)


def test_list_names_every_cell_of_the_zoo_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(cli.zoo())
    assert "Gated impulse linear recurrence" in next(line for line in lines if line.startswith("gilr "))


def test_a_solver(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "indrnn"]) == 0
    assert 'way out' in (refused := capsys.readouterr().out) and 'solver="sequential" or "newton"' in refused
    assert cli.main(["explain", "indrnn", "--solver", "newton"]) == 0
    assert "solved by Newton's method" in capsys.readouterr().out
    assert cli.main(["source", "indrnn", "--solver", "newton", "--stage", "newton"]) == 0
    assert "indrnn_newton_" in (text := capsys.readouterr().out) and "indrnn_solved_" in text and "_backward" not in text
    assert cli.main(["source", "indrnn", "--solver", "sequential", "--stage", "newton"]) == 1


def test_explain_a_zoo_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "gilr_lstm"]) == 0
    out = capsys.readouterr().out
    assert "c[t] = A*c[t-1] + b" in out and "A = f" in out and "h_n: c, h.h" in out


def test_explain_says_why_a_cell_is_not_linear_and_succeeds(cells: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", f"{cells}:squared"]) == 0
    out = capsys.readouterr().out
    assert "h[t] is not linear in h[t-1]" in out and "my_cells.py:15" in out


@pytest.mark.parametrize(("target", "mark"), [("cuda", "__global__"), ("cpu", 'extern "C" void leaky_')])
def test_source_of_a_users_file(cells: str, target: str, mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["source", f"{cells}:leaky", "--target", target, "--arch", "sm_80", "--stage", "forward"]) == 0
    out = capsys.readouterr().out
    assert mark in out and "A = decay" in out and "leaky_backward" not in out
    assert ("sm_80" in out) == (target == "cuda")


def test_source_of_a_cell_that_is_not_linear_fails_with_its_line(cells: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["source", f"{cells}:squared"]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert "NotLinear" in said.err and "my_cells.py:15" in said.err


@pytest.mark.parametrize(("name", "says"), [
    ("gilrs", "did you mean gilr?"),
    ("nowhere.py:gilr", "there is no file nowhere.py"),
])
def test_an_unknown_cell_is_an_error_with_a_way_out(name: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["source", name]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(("body", "says"), [("1 / 0", "ZeroDivisionError: division by zero"), ("def f(:", "SyntaxError")])
def test_a_file_that_python_refuses_is_named(body: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.py").write_text(body)
    assert cli.main(["check", f"{tmp_path / 'broken.py'}:c"]) == 1
    said = capsys.readouterr().err
    assert says in said and "broken.py cannot be imported" in said and "Traceback" not in said


def test_a_file_with_several_cells_needs_a_name(cells: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", cells]) == 1
    assert "its cells are leaky, squared" in capsys.readouterr().err


def test_reserved_commands_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "gilr"]) == 1
    assert "not built yet" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["", "out of bounds"])
def test_check_tells_by_its_status_whether_all_is_right(fault: str, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    row = check.Row("gilr", "serial", "float32", 51, 1e-7, 12.0, 12, fault)
    monkeypatch.setattr(check, "check", lambda cell: check.Checked(cell.spec.name, (row,)))
    assert cli.main(["check", "gilr"]) == (1 if fault else 0)
    assert ("1 of 1 kernels are wrong" if fault else "all 1 kernels agree") in capsys.readouterr().out


def test_doctor_runs_anywhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert cli.main(["doctor"]) == 0
    assert "compiler" in capsys.readouterr().out


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["explode"])
    assert stop.value.code == 2
