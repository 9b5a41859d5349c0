"""The coefficients in templates/cpu/vmath.h are those that the fits give."""

from __future__ import annotations

import pytest

from benchmarks import minimax
from tests import vmath

SLOW = ("erf double", "gelu double", "log double", "exp double", "sin double", "gelu float")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in SLOW else n for n in minimax.fits()])
def test_a_fit_gives_what_the_header_has(name: str) -> None:
    found, error = minimax.coefficients(minimax.fits()[name])
    text = vmath.HEADER.read_text()
    assert all(c in text for c in found if c != "0x1p-1"), found
    assert error < (-53 if name.endswith("double") else -26)
