"""The README and docs/ are true: their Python runs, what they show is what comes out, their commands, links and lists hold.

The Python blocks of a page are one file, `gilr.py`. A block of text or CUDA after one is what it prints; a line `…` stands for
any lines.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import lrdsl as lr
from lrdsl import cli, options

ROOT = Path(__file__).parents[1]
PAGES = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in
         (ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCKS = {name: re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for name, text in PAGES.items()}
PYTHON = [name for name, blocks in BLOCKS.items() if any(language == "python" for language, _ in blocks)]
SHELL = list(dict.fromkeys(line for blocks in BLOCKS.values() for language, code in blocks if language == "sh"
                           for line in code.splitlines() if line.startswith("lrdsl ")))
MARK = "\x1e"


def printed(page: str, place: Path) -> list[str]:
    """What each Python block of a page prints."""
    blocks = [code for language, code in BLOCKS[page] if language == "python"]
    (place / "gilr.py").write_text("".join(f"{code}print({MARK!r}, end='')\n" for code in blocks), encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, "gilr.py"], cwd=place, text=True, capture_output=True, check=False,
                          env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(MARK)[:-1]


def matches(shown: str, said: str) -> bool:
    """Whether `said` is what is shown, where a line `…` stands for any lines."""
    lines = [r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()) + r" *\n" for line in shown.splitlines()]
    return re.fullmatch("".join(lines), said) is not None


@pytest.mark.parametrize("page", PYTHON)
def test_python_prints_what_is_shown(page: str, tmp_path: Path) -> None:
    said = iter(printed(page, tmp_path))
    for (language, code), (kind, shown) in pairwise([*BLOCKS[page], ("", "")]):
        if language != "python":
            continue
        out = next(said)
        if kind in ("text", "cuda"):
            out = out if kind == "text" else re.sub(r"^ +", "", out, flags=re.MULTILINE)
            assert matches(shown, out), f"shown:\n{shown}\nprinted:\n{out}"
        else:
            assert out == "", f"not shown: {out}\nof\n{code}"
    assert next(said, None) is None


def test_there_is_something_to_run() -> None:
    assert {"README.md", "docs/language.md", "docs/gpu.md"} <= set(PYTHON) and len(SHELL) > 4


def test_a_line_of_dots_stands_for_any_lines() -> None:
    assert matches("a\n…\nd\n", "a\nb\nc\nd\n") and matches("…\nd\n", "d\n")
    assert not matches("a\n…\nd\n", "a\nb\n") and not matches("a\n", "a\nb\n")


@pytest.mark.parametrize("line", [pytest.param(x, marks=pytest.mark.long) if x.startswith("lrdsl check") else x for x in SHELL])
def test_commands_run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(shlex.split(line, comments=True)[1:]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = (ROOT / page).parent
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", PAGES[page]):
        there = here / link if link else ROOT / page
        assert there.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles], anchor
    for path in re.findall(r"`((?:tests|lrdsl|examples|docs)/[\w/.]+)`", PAGES[page]):
        assert (ROOT / path).exists(), path


def test_lists_are_complete() -> None:
    assert re.findall(r"^\| `(LRDSL_\w+)`", PAGES["README.md"], re.MULTILINE) == [v.name for v in options.ENVIRONMENT]
    listed = re.search(r"- Functions: `([\w\s]+?)`\.", PAGES["README.md"])
    assert listed
    built = {n for n in lr.__all__ if getattr(getattr(lr, n), "__module__", "") == "lrdsl.frontend.functions"}
    assert set(listed[1].split()) == built
    text = PAGES["README.md"]
    zoo = text[text.index("**The zoo.**"):text.index("## In torch")]
    assert set(lr.cells.__all__) - {"qrnn"} <= set(re.findall(r"`(\w+)", zoo))
    differences = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+) \|", differences, re.MULTILINE)))
    assert named and set(named) <= set(lr.cells.__all__)


def curved() -> None:
    """A nonlinear recurrence in a cell with a state axis."""
    @lr.cell
    def c(x: lr.Input, h: lr.State = lr.State(size=2)):
        h[lr.t] = lr.tanh(h[lr.t - 1] + x[lr.t])
        return lr.sum(h[lr.t])
    lr.function(c, solver="sequential")


def test_what_is_said_not_to_be_built_says_so() -> None:
    layer = lr.RNN(lr.cells.gilr, 3, 4)
    for refused in (lambda: layer(torch.zeros(2, 1, 3), cp=1), curved):
        with pytest.raises(lr.NotBuilt):
            refused()
