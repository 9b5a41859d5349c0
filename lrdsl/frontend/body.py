"""Running a cell's body once on symbols; every statement is guarded, so that one run finds all mistakes.

Where there is no source to rewrite (a function typed at a prompt) the function itself runs under one guard: it stops at the
first mistake, and its lines have no names.
"""

from __future__ import annotations

import linecache
import types
from typing import Any

import sympy as sp

from ..errors import BadDeclaration, CellError, UnsupportedFunction
from ..location import Location
from . import rewrite
from .mistakes import KNOWN, branch, mistake
from .recording import Recording


class Body:
    """One run of a cell's body, and what the rewritten text calls while it runs."""

    def __init__(self, function: types.FunctionType, recording: Recording) -> None:
        self.function, self.recording = function, recording
        self.file = function.__code__.co_filename
        self.start = Location(self.file, function.__code__.co_firstlineno)
        self.returned: Location | None = None
        self.failed: set[str] = set()
        self.definition = rewrite.definition(function)
        if self.definition:
            self.start = Location(self.file, self.definition.tree.lineno)

    def place(self, name: str) -> Location:
        """Where a name of the signature stands."""
        return Location(self.file, self.definition.lines[name]) if self.definition else self.start

    def run(self, arguments: dict[str, Any]) -> Any:
        """The body's value; mistakes are in `recording.errors`."""
        if self.definition:
            return rewrite.rewrite(self.function, self.definition.tree, self)(**arguments)
        with self.guard(self.start.line, ()):
            return self.function(**arguments)

    def guard(self, line: int, names: tuple[str, ...]) -> Guard:
        """What stands around each statement; `names` are those it gives values to."""
        return Guard(self, line, names)

    def let(self, names: Any, value: Any, line: int) -> Any:
        """A value with a name of its own line; plain Python values pass as they are."""
        if names is None:
            return value
        if isinstance(names, str):
            if names in self.recording.states and isinstance(value, sp.Basic):
                raise BadDeclaration(f"{names} = … makes {names} the name of something else; {names} is a state", None,
                                     f"write {names}[t] = …, or take another name")
            named = isinstance(value, sp.Expr)  # a condition is none
            return self.recording.let(names, value, Location(self.file, line)) if named else value
        values = list(value)
        if len(values) != len(names):
            raise UnsupportedFunction(f"{len(names)} names for {len(values)} values", None, "give each value one name")
        return tuple(self.let(n, v, line) for n, v in zip(names, values, strict=True))

    def truth(self, asked_by: str, value: Any) -> Any:
        """A value whose truth Python is about to ask for."""
        if isinstance(value, sp.Basic) and value.free_symbols:
            raise branch(asked_by)
        return value

    def same(self, sign: str, a: Any, b: Any) -> Any:
        """a == b or a != b: not for symbols, whose equality says nothing of their values."""
        if any(isinstance(v, sp.Basic) and v.free_symbols for v in (a, b)):
            raise branch(sign)
        return a == b if sign == "==" else a != b

    def result(self, value: Any, line: int) -> Any:
        """The value of the body."""
        self.returned = Location(self.file, line)
        return value


class Guard:
    """Turns what went wrong in one statement into the user's mistake at its line, and goes on."""

    def __init__(self, body: Body, line: int, names: tuple[str, ...]) -> None:
        self.body, self.line, self.names = body, line, names

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        where, text = self._place(traceback)
        found = mistake(error, where, text, self.body)
        if found is None:
            return False
        if found is not KNOWN:
            self.body.recording.errors.extend(found.errors)
        self.body.failed.update(self.names)
        return True

    def _place(self, traceback: Any) -> tuple[Location, str]:
        """The innermost line of the user's file that was at work, and the text of its expression."""
        line, text = self.line, ""
        while traceback is not None:
            code = traceback.tb_frame.f_code
            if code.co_filename == self.body.file:
                line = traceback.tb_lineno
                text = _segment(code.co_filename, *list(code.co_positions())[traceback.tb_lasti // 2])
            traceback = traceback.tb_next
        return Location(self.body.file, line), text


def _segment(file: str, line: int | None, end: int | None, left: int | None, right: int | None) -> str:
    """The text between two places of a file."""
    if line is None or end is None or left is None or right is None:
        return ""
    lines = [linecache.getline(file, n).encode() for n in range(line, end + 1)]
    lines[-1] = lines[-1][:right]
    lines[0] = lines[0][left:]
    return " ".join(part.decode(errors="replace").strip() for part in lines)


__all__ = ["Body", "CellError", "Guard"]
