"""The README is true: its Python runs, what it shows is what comes out, its commands, links and lists hold.

Its Python blocks are one file, `gilr.py`. A block of text or CUDA after one is what it prints; a line `…` stands for any lines.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lrdsl as lr
from lrdsl import cli, options

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines() if line.startswith("lrdsl ")]
MARK = "\x1e"


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each Python block prints."""
    place = tmp_path_factory.mktemp("readme")
    (place / "gilr.py").write_text("".join(f"{code}print({MARK!r}, end='')\n" for code in PYTHON), encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, "gilr.py"], cwd=place, text=True, capture_output=True, check=False,
                          env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(MARK)[:-1]


def matches(shown: str, said: str) -> bool:
    """Whether `said` is what is shown, where a line `…` stands for any lines."""
    lines = [r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()) + r" *\n" for line in shown.splitlines()]
    return re.fullmatch("".join(lines), said) is not None


def test_python_prints_what_is_shown(printed: list[str]) -> None:
    assert len(printed) == len(PYTHON) > 3
    number = shown = 0
    for (language, code), after in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True):
        if language != "python":
            continue
        if after[0] in ("text", "cuda"):
            said = printed[number] if after[0] == "text" else re.sub(r"^ +", "", printed[number], flags=re.MULTILINE)
            assert matches(after[1], said), f"shown:\n{after[1]}\nprinted:\n{said}"
            shown += 1
        else:
            assert printed[number] == "", f"not shown: {printed[number]}\nof\n{code}"
        number += 1
    assert shown > 3


def test_a_line_of_dots_stands_for_any_lines() -> None:
    assert matches("a\n…\nd\n", "a\nb\nc\nd\n") and matches("…\nd\n", "d\n")
    assert not matches("a\n…\nd\n", "a\nb\n") and not matches("a\n", "a\nb\n")


@pytest.mark.parametrize("line", SHELL)
def test_commands_run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(shlex.split(line, comments=True)[1:]) == 0
    assert capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    for name in ("README.md", "SECURITY.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / link).exists(), f"{name}: {link}"
    for path in re.findall(r"`((?:tests|lrdsl|examples)/[\w/.]+)`", TEXT):
        assert (ROOT / path).exists(), path


def test_lists_are_complete() -> None:
    assert re.findall(r"^\| `(LRDSL_\w+)`", TEXT, re.MULTILINE) == [v.name for v in options.ENVIRONMENT]
    listed = re.search(r"- Functions: `([\w\s]+?)`\.", TEXT)
    assert listed
    built = {n for n in lr.__all__ if getattr(getattr(lr, n), "__module__", "") == "lrdsl.frontend.functions"}
    assert set(listed[1].split()) == built
    zoo = TEXT[TEXT.index("**The zoo.**"):TEXT.index("### Recurrences over")]
    assert set(lr.cells.__all__) - {"qrnn"} <= set(re.findall(r"`(\w+)", zoo))
    differences = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+) \|", differences, re.MULTILINE)))
    assert named and set(named) <= set(lr.cells.__all__)


def axial(add: Any = lambda a, b: a + b, **options: Any) -> lr.Cell:
    """A cell with a state axis, and with another thing beside it."""
    @lr.cell
    def c(x: lr.Input, v: lr.Vector = lr.Vector(**options), h: lr.State = lr.State(size=2)):
        h[lr.t] = add(h[lr.t - 1], x[lr.t] * lr.re(v))
        return lr.sum(h[lr.t])
    return c


def test_what_is_said_not_to_be_built_says_so() -> None:
    layer, wide, x = lr.RNN(lr.cells.gilr, 3, 4), lr.RNN(axial(), 3, 3), torch.zeros(2, 1, 3)
    for refused in (lambda: lr.RNN(lr.cells.lstm, 3, 4, solver=""), lambda: layer(x, cp=1), lambda: axial(complex=True),
                    lambda: wide.bfloat16()(x.bfloat16()), lambda: wide.float()(x, cu_seqlens=torch.tensor([0, 2])),
                    lambda: lr.function(axial(lr.maximum))):
        with pytest.raises(lr.NotBuilt):
            refused()
