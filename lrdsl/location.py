"""Where in the user's files something was said."""

from __future__ import annotations

import linecache
import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Location:
    """A line of a file; `line` counts from 1. Every equation carries one, and every error cites it."""

    file: str
    line: int

    def __str__(self) -> str:
        """`cells/gilr.py:12`, from the working directory where the file lies below it."""
        path = os.path.relpath(self.file) if os.path.isabs(self.file) else self.file
        return f"{self.file if path.startswith('..') else path}:{self.line}"

    @property
    def short(self) -> str:
        """`gilr.py:12`: the form for generated text, which may not depend on where anything lies."""
        return f"{Path(self.file).name}:{self.line}"

    def excerpt(self) -> str:
        """The place and the line itself, as compilers print it."""
        text = linecache.getline(self.file, self.line).strip()
        return f"  {self}\n  {self.line:4d} | {text}" if text else f"  {self}"


def caller(depth: int = 2) -> Location:
    """The line that called the function that calls this one (`depth` frames up)."""
    frame = sys._getframe(depth)
    return Location(frame.f_code.co_filename, frame.f_lineno)
