"""The Jinja environment: the only door to the templates. They decide nothing and fail on a missing name."""

from __future__ import annotations

import functools

import jinja2

from ..files import templates


@functools.cache
def environment() -> jinja2.Environment:
    """Strict: a name that a template needs and does not get is an error, not an empty string."""
    return jinja2.Environment(loader=jinja2.FileSystemLoader(templates()), undefined=jinja2.StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)


@functools.cache
def text(name: str) -> str:
    """A file of the template directory as it is."""
    return (templates() / name).read_text(encoding="utf-8")
