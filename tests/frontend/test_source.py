"""Where a cell's text is: a file, a notebook, nowhere; and what passes through a body that is not about the language."""

from __future__ import annotations

import linecache
import math
from typing import Any

import pytest

import lrdsl as lr
from lrdsl import t

from .test_cell import said

TEXT = """\
import lrdsl as lr
from lrdsl import sigmoid, t

@lr.cell
def c(x: lr.Input, h: lr.State, gate: lr.Affine):
    g = sigmoid(gate(x[t]))
    h[t] = g*h[t-1] + (1 - g)*x[t]
    return h[t]
"""


def made_from(text: str, name: str, *, known: bool) -> lr.Cell:
    """The cell of a text, run as a notebook does (its lines known), or as exec does."""
    if known:
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    scope: dict[str, Any] = {}
    exec(compile(text, name, "exec"), scope)
    cell: lr.Cell = scope["c"]
    return cell


def test_a_notebook_has_lines() -> None:
    cell = made_from(TEXT, "<ipython-input-3-5f2>", known=True)
    assert said(cell)[1:] == ["g = sigmoid(gate[t])", "h[t] = g[t]*h[t-1] + x[t]*(1 - g[t])"]
    assert [s.where.line for s in cell.spec.statements] == [6, 6, 7] and not cell.spec.notes


def test_text_without_a_file_still_makes_a_cell_and_says_so() -> None:
    cell = made_from(TEXT, "<typed>", known=False)
    assert said(cell) == ["gate = gate(x[t])", "h[t] = h[t-1]*sigmoid(gate[t]) + x[t]*(1 - sigmoid(gate[t]))"]
    assert "no source" in str(cell.spec) and "no source" in cell.explain() and cell.spec.where.line in (4, 5)
    with pytest.raises(lr.UnknownName, match=r"(?s)zebra.*<typed>:7"):
        made_from(TEXT.replace("(1 - g)", "zebra"), "<typed>", known=False)


def test_text_that_has_changed_since_is_not_believed() -> None:
    linecache.cache["<edited>"] = (1, None, TEXT.replace("def c(x", "def c(u").splitlines(keepends=True), "<edited>")
    assert "no source" in str(made_from(TEXT, "<edited>", known=False).spec)


def test_python_errors_that_are_not_about_the_language_pass_through() -> None:
    with pytest.raises(ValueError, match="mine"):
        @lr.cell
        def c(x: lr.Input, h: lr.State):
            h[t] = h[t - 1] + x[t]
            raise ValueError("mine")
    with pytest.raises(ZeroDivisionError):
        @lr.cell
        def d(x: lr.Input, h: lr.State):
            h[t] = h[t - 1] + x[t] / (1 // 0)
            return h[t]


def test_a_mistake_remembers_what_python_said() -> None:
    with pytest.raises(lr.UnsupportedFunction) as caught:
        @lr.cell
        def c(x: lr.Input, h: lr.State):
            h[t] = h[t - 1] + math.floor(x[t])
            return h[t]
    assert isinstance(caught.value.__cause__, TypeError)
