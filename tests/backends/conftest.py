"""Kernels of this directory run on torch's threads, and even the smallest on two where it asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lrdsl.backends import native
from lrdsl.errors import BackendUnavailable
from lrdsl.nn.threads import share_threads


@pytest.fixture(scope="session", autouse=True)
def threads() -> bool:
    """Whether there are threads: asked before the first kernel is loaded."""
    return share_threads()


@pytest.fixture
def compiler() -> list[str]:
    """The C++ compiler of this machine; without one the test is skipped."""
    try:
        return native.compiler()
    except BackendUnavailable as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.fixture
def always_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No work is too small for a second thread."""
    monkeypatch.setattr(native, "SMALL", 0)
    yield
