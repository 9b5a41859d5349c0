"""Every cell of the zoo against the loop that was written from its paper: one case a cell, of more steps than a chunk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lrdsl.passes.schedule import SHORT
from tests.cells.test_zoo import check
from tests.cells.zoo import BOUND

T = 150


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """The loops compute in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", BOUND)
def test_it_is_its_paper(name: str, device: str) -> None:
    assert T > SHORT
    check(name, (T, True, True), torch.float32, 2e-5, device)
