"""Where the package's own files lie."""

from __future__ import annotations

from pathlib import Path

from .errors import InternalError


def templates() -> Path:
    """`lrdsl/templates` in a wheel, `templates` beside the package in a checkout or an editable install."""
    package = Path(__file__).resolve().parent
    for place in (package / "templates", package.parent / "templates"):
        if (place / "cpu").is_dir():
            return place
    raise InternalError("templates", f"neither {package / 'templates'} nor {package.parent / 'templates'} holds them")
