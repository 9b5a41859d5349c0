"""Every mistake a user can make in a cell: its class, its line, a way out, and its whole text (golden)."""

from __future__ import annotations

import linecache
from typing import Any

import pytest

from lrdsl.errors import CellError

from .mistakes import (
    Cases,
    algebras,
    axes,
    branches,
    complexes,
    declarations,
    functions,
    lags,
    layers,
    linearity,
    names,
    several,
    surrogates,
    uses,
)

THEMES: dict[str, Cases] = {m.__name__.rpartition(".")[2]: m.mistake for m in (
    linearity, names, functions, uses, branches, lags, declarations, surrogates, several, algebras, complexes,
    layers, axes)}
EVERY = [pytest.param(theme, name, id=f"{theme}-{name}") for theme, cases in THEMES.items() for name in cases.found]


def raised(theme: str, name: str) -> CellError:
    """The error of one wrong cell."""
    with pytest.raises(CellError) as caught:
        THEMES[theme].found[name][0]()
    return caught.value


@pytest.mark.parametrize(("theme", "name"), EVERY)
def test_class_line_and_way_out(theme: str, name: str) -> None:
    _, classes = THEMES[theme].found[name]
    error = raised(theme, name)
    assert tuple(type(e) for e in error.errors) == classes
    for mistake in error.errors:
        assert mistake.what and mistake.hint
        assert "0x" not in mistake.what and "object at" not in mistake.what
    places = [e.where for e in error.errors if e.where]
    if (theme, name) != ("linearity", "lstm"):  # its line is the zoo's
        assert all("# <-" in linecache.getline(p.file, p.line) for p in places), [str(p) for p in places]
        assert len(places) == len(classes) or name == "a_kind_outside_a_cell"
    assert [p.line for p in places] == sorted(p.line for p in places)


@pytest.mark.parametrize("theme", THEMES)
def test_texts(theme: str, golden: Any) -> None:
    texts = []
    for name in THEMES[theme].found:
        error = raised(theme, name)
        texts.append(f"[{name}]\n{type(error).__name__}: {error}")
    assert "\n\n".join(texts) == golden


def test_every_marked_line_is_cited() -> None:
    """A mark that no error reaches is a mistake of the test."""
    cited = {(p.file, p.line) for theme, cases in THEMES.items() for name in cases.found
             for e in raised(theme, name).errors if (p := e.where)}
    for module in (linearity, names, functions, uses, branches, lags, declarations, surrogates, several, algebras, complexes,
                   layers, axes):
        file = str(module.__file__)
        marked = {n for n, line in enumerate(linecache.getlines(file), 1) if "# <-" in line}
        assert marked and not {n for n in marked if (file, n) not in cited}, file
