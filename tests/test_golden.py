"""The golden fixture itself, and that no golden text is left without its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .conftest import GOLDEN, ROOT, Golden, pytest_configure


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tests.conftest.ROOT", tmp_path)
    return tmp_path / "deep" / "test_x.txt"


def test_equal_different_and_missing(path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"no golden text deep/test_x.txt; write it with --update-golden"):
        assert "a" == Golden(path, update=False)  # noqa: SIM300
    assert "a\nb" == Golden(path, update=True)  # noqa: SIM300 - writes
    assert path.read_text() == "a\nb\n"
    golden = Golden(path, update=False)
    assert "a\nb" == golden and "a\nb\n" == golden and "a\nc" != golden and " a\nb" != golden  # noqa: SIM300
    assert str.__str__(golden) == "a\nb"  # what pytest shows the difference with
    with pytest.raises(AssertionError, match="compared with text, not with int"):
        assert golden == 3


def test_updating_replaces(path: Path) -> None:
    for text in ("old", "new"):
        assert text == Golden(path, update=True)
    assert "new" == Golden(path, update=False) and "old" != Golden(path, update=False)  # noqa: SIM300


def test_several_texts_of_one_test(path: Path) -> None:
    golden = Golden(path, update=True)
    assert "1" == golden and "2" == golden("two") and "3" == golden("three.cu")  # noqa: SIM300
    assert sorted(p.name for p in path.parent.iterdir()) == ["test_x.three.cu", "test_x.two.txt", "test_x.txt"]
    assert "2" == Golden(path, update=False)("two")  # noqa: SIM300


@pytest.mark.parametrize("named", ["a/b", "c d"])
def test_the_fixture_names_the_file_after_the_test(golden: Any, named: str) -> None:
    where = golden.path.relative_to(GOLDEN)
    assert where.parent == Path("test_golden") and re.fullmatch(
        r"test_the_fixture_names_the_file_after_the_test-[ac]-[bd]\.txt", where.name)
    assert Path.cwd() == ROOT


def test_ci_never_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Any = SimpleNamespace(getoption=lambda _: True)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.UsageError, match="CI compares"):
        pytest_configure(asked)
    monkeypatch.delenv("CI")
    pytest_configure(asked)


def test_every_golden_text_has_its_test() -> None:
    files = [p for p in GOLDEN.rglob("*") if p.is_file()]
    assert len(files) > 50
    for file in files:
        test = ROOT / "tests" / file.parent.relative_to(GOLDEN).with_suffix(".py")
        assert test.exists(), f"{file.relative_to(ROOT)} belongs to no test file"
        names = [n.name for n in ast.walk(ast.parse(test.read_text())) if isinstance(n, ast.FunctionDef)]
        assert any(re.match(rf"{name}(-|\.)", file.name) for name in names), f"{file.relative_to(ROOT)} belongs to no test"


def test_no_golden_text_knows_the_machine() -> None:
    for file in GOLDEN.rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert str(ROOT) not in text and not re.search(r"(?<![\w.])/(home|root|tmp|work|usr)/", text), file
