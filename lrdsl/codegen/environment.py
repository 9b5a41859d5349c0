"""The Jinja environment: the only door to the templates. They decide nothing and fail on a missing name."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from ..errors import InternalError


def template_directory() -> Path:
    """`lrdsl/templates` in a wheel, `templates` beside the package in a checkout or an editable install."""
    package = Path(__file__).resolve().parent.parent
    for place in (package / "templates", package.parent / "templates"):
        if (place / "cpu").is_dir():
            return place
    raise InternalError("templates", f"neither {package / 'templates'} nor {package.parent / 'templates'} holds them")


@functools.cache
def environment() -> jinja2.Environment:
    """Strict: a name that a template needs and does not get is an error, not an empty string."""
    return jinja2.Environment(loader=jinja2.FileSystemLoader(template_directory()), undefined=jinja2.StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)


@functools.cache
def text(name: str) -> str:
    """A file of the template directory as it is."""
    return (template_directory() / name).read_text(encoding="utf-8")
