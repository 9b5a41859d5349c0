"""Errors: the user's mistakes (`CellError`), a compiler's refusal (`ToolchainError`) and our own faults (`InternalError`).

A CellError says what is wrong in the user's names, at the user's line, and the smallest change that helps. A cell with
several mistakes raises one `CellErrors` that holds them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .location import Location


class LrdslError(Exception):
    """The root of everything that lrdsl raises on purpose."""


class CellError(LrdslError):
    """A mistake in a cell or in its use. `what`, `where` (may be None) and `hint` are kept as attributes."""

    def __init__(self, what: str, where: Location | None = None, hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        parts = [what, where.excerpt() if where else "", f"  way out: {hint}" if hint else ""]
        super().__init__("\n".join(p for p in parts if p))

    @property
    def errors(self) -> tuple[CellError, ...]:
        """Every mistake that this error reports."""
        return (self,)


class CellErrors(CellError):
    """Several mistakes of one cell, in the order of their lines; of their class as well, where they share one."""

    def __init__(self, errors: Sequence[CellError]) -> None:
        self._errors = tuple(errors)
        texts = [f"{type(e).__name__}: {e}" for e in self._errors]
        super().__init__(f"{len(texts)} mistakes\n\n" + "\n\n".join(texts))

    @property
    def errors(self) -> tuple[CellError, ...]:
        return self._errors

    def __reduce__(self) -> tuple[Any, ...]:
        return together, (self._errors,)


class NotLinear(CellError):
    """A state does not depend linearly on its own past, so that no scan computes it."""


class CyclicStates(CellError):
    """States that need each other's value at the same step."""


class BothDirections(CellError):
    """A recurrence that reads its own past and its own future."""


class UnknownName(CellError):
    """A name that the signature does not declare."""


class UnusedName(CellError):
    """A declared name that no equation needs."""


class NoUpdate(CellError):
    """A state without an equation."""


class DuplicateUpdate(CellError):
    """A state with two equations."""


class UnsupportedFunction(CellError):
    """A function, power or object that has no meaning in a cell."""


class BranchOnSymbol(CellError):
    """Python's `if`, `and`, `==` … on a value that is known only when the cell runs."""


class BadLag(CellError):
    """A time index that is not `t` plus a constant integer."""


class BadDeclaration(CellError):
    """A signature, an option or an output that cannot be understood."""


class NotBuilt(CellError):
    """Part of the language that this version does not compile yet."""


class ShapeMismatch(CellError):
    """A tensor or an operand of the wrong shape."""


class DtypeMismatch(CellError):
    """A tensor of the wrong dtype or device."""


class BackendUnavailable(LrdslError):
    """The runner that was asked for cannot work on this machine; the text says what is missing and how to get it."""


class ToolchainError(LrdslError):
    """A compiler refused generated text: the command, its first error line, and where the source lies."""

    def __init__(self, command: Sequence[str], log: str, source: str) -> None:
        self.command, self.log, self.source = tuple(command), log, source
        first = next((line for line in log.splitlines() if "error" in line.lower()), log.strip()[:300])
        super().__init__(f"the compiler failed on generated text\n  command: {' '.join(command)}\n"
                         f"  says:    {first}\n  source:  {source}")


class InternalError(LrdslError):
    """A fault of lrdsl itself: a stage produced something ill-formed."""

    def __init__(self, stage: str, what: str, dump: str = "") -> None:
        super().__init__(f"lrdsl is at fault in stage {stage!r}: {what}\n"
                         "Please report this with the text below.\n" + dump)


def raise_all(errors: Sequence[CellError]) -> None:
    """Raise nothing, the one mistake, or all of them together."""
    ordered = sorted(errors, key=lambda e: (e.where.line if e.where else 0))
    if ordered:
        raise together(ordered)


def together(errors: Sequence[CellError]) -> CellError:
    """The one mistake, or all of them in one error."""
    if len(errors) == 1:
        return errors[0]
    kinds = {type(e) for e in errors}
    if len(kinds) > 1:
        return CellErrors(errors)
    kind = kinds.pop()
    both: type[CellErrors] = type(kind.__name__, (CellErrors, kind), {"__doc__": kind.__doc__, "__module__": kind.__module__})
    return both(errors)
