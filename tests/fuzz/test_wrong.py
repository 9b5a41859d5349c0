"""A wrong cell ends in a CellError at the mistake's line: never in a number, and never in somebody else's error."""

from __future__ import annotations

import pytest

from .grammar import Choices, grow
from .wrong import MISTAKES, fault, spoil


def faults(name: str, seeds: range) -> list[str]:
    """What went wrong with one mistake in some cells; the mistake must have been possible in one of them."""
    found = []
    for seed in seeds:
        dice = Choices(seed)
        wrong = spoil(grow(dice, f"wrong_{seed}", small=True), name, dice)
        if wrong:
            found.append(f"{fault(wrong)}\n{wrong.source}" if fault(wrong) else "")
    assert found, f"no cell has a place for: {name}"
    return list(filter(None, found))


@pytest.mark.parametrize("name", MISTAKES)
def test_the_line_of_a_mistake_is_named(name: str) -> None:
    assert faults(name, range(4) if name not in ("fed back", "a map of other operands") else range(12)) == []


@pytest.mark.long
@pytest.mark.parametrize("name", MISTAKES)
def test_the_line_of_a_mistake_is_named_in_many_cells(name: str) -> None:
    assert faults(name, range(100, 130)) == []
