"""Golden texts: what the compiler writes, kept beside the tests, so that a change shows itself in review as a diff.

    assert str(program) == golden                           tests/golden/<test file>/<test>.txt
    assert str(backward) == golden("backward")              tests/golden/<test file>/<test>.backward.txt
    assert source == golden("forward.cu")                   tests/golden/<test file>/<test>.forward.cu

    pytest tests/frontend --update-golden                   writes them anew; read the diff before you commit it

Line ends and the end of the file aside, texts are compared as they are. Nothing machine-made belongs in one: cells whose
places are cited live in files of this repository, and tests run in its root, from which places are written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden texts anew instead of comparing")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--update-golden") and os.environ.get("CI"):
        raise pytest.UsageError("--update-golden: CI compares golden texts and never writes them (CI is set)")


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Golden(str):
    """The text in a file; a str, so that pytest shows how another text differs from it."""

    path: Path
    update: bool

    def __new__(cls, path: Path, update: bool) -> Golden:
        self = super().__new__(cls, path.read_text().rstrip("\n") if path.exists() and not update else "")
        self.path, self.update = path, update
        return self

    def __call__(self, name: str) -> Golden:
        """The golden text `name` of the same test; a name with an ending is a file name."""
        return Golden(self.path.with_name(f"{self.path.stem}.{name}" + ("" if "." in name else ".txt")), self.update)

    def __eq__(self, text: object) -> bool:
        assert isinstance(text, str), f"a golden text is compared with text, not with {type(text).__name__}: use str()"
        said = text.rstrip("\n")
        if self.update:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(said + "\n")
            return True
        if not self.path.exists():
            pytest.fail(f"there is no golden text {self.path.relative_to(ROOT)}; write it with --update-golden, and read it")
        return str.__eq__(self, said)

    __hash__ = None  # type: ignore[assignment]

    def __ne__(self, text: object) -> bool:
        return not self == text


@pytest.fixture
def golden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The golden text of the test that asks; `golden(name)` for one of several."""
    monkeypatch.chdir(ROOT)  # places are written from the working directory
    file = request.node.path.relative_to(ROOT / "tests").with_suffix("")
    test = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-").replace(".", "_")
    return Golden(GOLDEN / file / f"{test}.txt", request.config.getoption("--update-golden"))
