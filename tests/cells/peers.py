"""How the public implementations that cells are compared with are called."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import pytest


def quietly(run: Callable[[], Any]) -> Any:
    """What it gives, without its warnings, which are no business of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run()


def peer(module: str) -> Any:
    """The module; skips where it is not installed, or does not load beside this torch or this Python."""
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")
    try:
        return quietly(lambda: importlib.import_module(module))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        pytest.skip(f"{module} does not load here: {error}")
