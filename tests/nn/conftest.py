"""Backends for the tests of this directory; float64 and a fixed seed."""

from collections.abc import Iterator

import pytest
import torch

from lrdsl.backends import native
from lrdsl.errors import BackendUnavailable


def _there() -> bool:
    try:
        native.compiler()
    except BackendUnavailable:
        return False
    return True


@pytest.fixture(params=["reference", "native"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two backends of a machine without a GPU."""
    if request.param == "native" and not _there():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("LRDSL_BACKEND", request.param)
    return str(request.param)


@pytest.fixture(params=["reference", "native", "emulated"])
def every_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """And the CUDA text, run on the CPU."""
    if request.param != "reference" and not _there():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("LRDSL_BACKEND", request.param)
    return str(request.param)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster of them, for what does not depend on the backend."""
    monkeypatch.setenv("LRDSL_BACKEND", "native" if _there() else "reference")


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The CUDA text is run kernel by kernel in tests/backends; here, where each case costs compilers, it is long, but for cells
    that hold everything at once."""
    for item in items:
        params = getattr(item, "callspec", None)
        if item.path.parent.name == "nn" and item.path.name != "test_strange_cells.py" and params is not None \
                and "emulated" in params.params.values():
            item.add_marker(pytest.mark.long)
