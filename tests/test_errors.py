"""Errors as objects: one or many, copies, and the other families. Their texts are in tests/frontend/test_errors.py."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from lrdsl.errors import CellError, CellErrors, InternalError, LrdslError, NotLinear, ToolchainError, UnknownName, raise_all
from lrdsl.location import Location, caller

HERE = Path(__file__)
EARLY, LATE = Location("cells.py", 3), Location("cells.py", 9)


def caught(*errors: CellError) -> CellError:
    """What `raise_all` raises."""
    with pytest.raises(CellError) as found:
        raise_all(errors)
    return found.value


def test_nothing_one_or_all() -> None:
    raise_all([])
    one, other = NotLinear("h", LATE, "help"), UnknownName("g", EARLY)
    assert caught(one) is one and one.errors == (one,)
    both = caught(one, other)
    assert type(both) is CellErrors and both.errors == (other, one)  # by line
    assert str(both).startswith("2 mistakes\n\nUnknownName: g\n  cells.py:3") and str(one).endswith("way out: help")


def test_mistakes_of_one_class_are_caught_by_it() -> None:
    both = caught(NotLinear("h", LATE), NotLinear("c", EARLY))
    assert isinstance(both, NotLinear) and isinstance(both, CellErrors) and type(both).__name__ == "NotLinear"
    with pytest.raises(NotLinear, match="2 mistakes"):
        raise_all(both.errors)


@pytest.mark.parametrize("error", [
    NotLinear("h", LATE, "help"), caught(NotLinear("h", LATE), UnknownName("g", EARLY)),
    caught(NotLinear("h", LATE), NotLinear("c", EARLY)),
])
def test_copies(error: CellError) -> None:
    """Errors cross process boundaries whole."""
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, CellError) and str(copy) == str(error) and type(copy).__name__ == type(error).__name__
    assert [(type(e), e.what, e.where, e.hint) for e in copy.errors] == [(type(e), e.what, e.where, e.hint)
                                                                      for e in error.errors]


def test_the_other_families() -> None:
    failed = ToolchainError(["nvcc", "-O3", "k.cu"], "warning: x\nk.cu(3): error: no such thing\n", "/where/k.cu")
    assert "nvcc -O3 k.cu" in str(failed) and "k.cu(3): error: no such thing" in str(failed) and "warning" not in str(failed)
    ours = InternalError("extract", "no A", "the dump")
    assert "stage 'extract': no A" in str(ours) and str(ours).endswith("the dump")
    assert isinstance(failed, LrdslError) and isinstance(ours, LrdslError) and not isinstance(ours, CellError)


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    def here() -> Location:
        return caller()

    place = here()
    assert place.file == __file__ and place.short == f"test_errors.py:{place.line}"
    monkeypatch.chdir(HERE.parent)
    assert str(place) == f"test_errors.py:{place.line}"
    monkeypatch.chdir(HERE.parents[1])
    assert str(place) == f"tests/test_errors.py:{place.line}"
    assert place.excerpt() == f"  tests/test_errors.py:{place.line}\n  {place.line:4d} | place = here()"
    assert str(Location("<typed>", 3)) == "<typed>:3" and Location("<typed>", 3).excerpt() == "  <typed>:3"
