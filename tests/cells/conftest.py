"""Cells are tested as modules are: the same backends, float64, a fixed seed."""

from collections.abc import Iterator

import pytest
import torch

from tests.nn.conftest import backend, every_backend, quick, seed

__all__ = ["backend", "every_backend", "one_thread", "quick", "seed"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For sizes so small a second thread costs milliseconds a call, on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
