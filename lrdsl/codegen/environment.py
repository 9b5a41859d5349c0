"""The Jinja environment: the only door to the templates. They decide nothing and fail on a missing name."""

from __future__ import annotations

import contextlib
import functools
import marshal
from typing import Protocol

import jinja2
from jinja2.bccache import Bucket

from ..files import templates


class Store(Protocol):
    """What keeps bytes by a key for later processes, with all else that these follow from: this package's code, and Python."""

    def find(self, key: str) -> bytes | None:
        """What an earlier process put there; None where there is nothing."""

    def put(self, key: str, data: bytes) -> None:
        """Keep it, if that can be."""


class Parsed(jinja2.BytecodeCache):
    """Templates as the code that Jinja makes of them: to parse them takes longer than all other stages of a new cell. Not in
    the form that Jinja writes, which is read by pickle."""

    store: Store | None = None  # `stored` puts one here

    def load_bytecode(self, bucket: Bucket) -> None:
        """Jinja asks for a template's code, and parses it where there is none."""
        if self.store and (data := self.store.find(self._key(bucket))):
            with contextlib.suppress(EOFError, ValueError, TypeError):
                bucket.code = marshal.loads(data)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Jinja has parsed a template."""
        if self.store:
            self.store.put(self._key(bucket), marshal.dumps(bucket.code))

    @staticmethod
    def _key(bucket: Bucket) -> str:
        return f"{jinja2.__version__} {bucket.key} {bucket.checksum}"  # the file's path, and its text


@functools.cache
def environment() -> jinja2.Environment:
    """Strict: a name that a template needs and does not get is an error, not an empty string."""
    return jinja2.Environment(loader=jinja2.FileSystemLoader(templates()), undefined=jinja2.StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
                              bytecode_cache=Parsed())


@functools.cache
def text(name: str) -> str:
    """A file of the template directory as it is."""
    return (templates() / name).read_text(encoding="utf-8")
