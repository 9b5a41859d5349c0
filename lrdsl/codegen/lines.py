"""What templates see of memory, registers and recurrences: every text in these is finished."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..ir.program import Scan, Step
from .printers import PRODUCT, SUM, Printer


@dataclass(frozen=True)
class Window:
    """`depth` values of a sequence beyond its segment. given: the field of Args that points to them, or "". stored: they are
    read as the sequence is stored, in 16 bits. Over an axis, apart: how far the N numbers of a value lie apart; channels: False
    where the channels share them; numbers: N, or 1 where a value has one."""

    name: str
    given: str
    init: str
    stored: bool = False
    depth: int = 1
    apart: str = "0"
    channels: bool = True
    numbers: int = 1

    @property
    def rows(self) -> int:
        """Rows of scratch memory on a CPU: values of 16 bits are copied."""
        return self.depth * self.numbers if self.stored and self.given else 1


@dataclass(frozen=True)
class PairWindow:
    """Two windows as the rows of a sequence of pairs, whose elements are of `type`."""

    name: str
    re: str
    im: str
    depth: int
    type: str

    @property
    def window(self) -> str:
        """What each of the two is in CUDA, which reads 16 bits where they are given."""
        return "StoredWindow" if "Stored" in self.type else "Window"


@dataclass(frozen=True)
class Load:
    """`value` is read from the sequence whose row 0 is at `base`, `time` apart, at `lag` steps from t (`back` = |lag|).

    type: of its elements. fetched: it is the first to read its sequence, and so the one to fetch ahead (CPU). halves: where the
    elements are pairs, the values that `value` is taken apart into, (name, "re" or "im").
    """

    value: str
    base: str
    time: str
    side: int
    back: int
    start: str
    edge: str
    fetched: bool
    type: str
    halves: tuple[tuple[str, str], ...] = ()

    def only(self, names: Collection[str]) -> Load:
        """The same where no other values are wanted."""
        return replace(self, halves=tuple(h for h in self.halves if h[0] in names))

    @property
    def size(self) -> int:
        """Numbers of a channel that are read."""
        return 2 if self.halves else 1

    @property
    def values(self) -> tuple[str, ...]:
        """What lines call that which is read."""
        return tuple(name for name, _ in self.halves) or (self.value,)

    @property
    def step(self) -> str:
        """The step that it is read at, in t."""
        return f"(t {'-' if self.side < 0 else '+'} {self.back})" if self.side else "t"


@dataclass(frozen=True)
class Store:
    """`value` is written to the sequence of `type` whose row 0 is at `base`, `time` apart; `pointer` names its row. half: "re"
    or "im" where it is only that part of a pair. tensor, column: which of the sequences that lie in one tensor it is."""

    pointer: str
    base: str
    time: str
    value: str
    type: str
    half: str = ""
    tensor: str = ""
    column: int = 0

    @property
    def size(self) -> int:
        """Numbers of a channel that are written."""
        return 2 if self.type.startswith("Pair") and not self.half else 1


@dataclass(frozen=True)
class Total:
    """`value` is added up in `name`, or where it says so the largest is kept of values that are not below 0."""

    name: str
    value: str
    largest: bool = False


@dataclass(frozen=True)
class Register:
    """A shift register: `value` enters, past[k-1] is what it held k steps back. final, crossing: where row 0 is, or ""."""

    name: str
    value: str
    depth: int
    past: tuple[str, ...]
    start: str
    edge: str
    final: str
    crossing: str

    @property
    def moves(self) -> tuple[tuple[str, str], ...]:
        """(to, from) of one shift, in the order that loses nothing."""
        return tuple(zip(self.past, (self.value, *self.past), strict=False))[::-1]

    @property
    def shifts(self) -> tuple[tuple[str, str], ...]:
        """As `moves`, of the copy that ends as what is handed on."""
        return tuple((to, start if start == self.value else f"{start}_tail") for to, start in self.moves)


@dataclass(frozen=True)
class Constants:
    """What does not change with time: the lines that compute it, the learned numbers that they read, what steps read of it."""

    lines: tuple[str, ...]
    reads: frozenset[str]
    names: tuple[str, ...]


def step_lines(step: Step, names: Mapping[str, str], printer: Printer) -> list[str]:
    """The lines that compute a step."""
    if isinstance(step, Scan):
        return _scan_lines(step, names, printer)
    return [f"const V {names[target]} = {printer(e)};" for target, e in zip(step.targets, step.exprs, strict=True)]


def _scan_lines(scan: Scan, names: Mapping[str, str], printer: Printer) -> list[str]:
    """The recurrence, factor by factor, so that the compiler can fuse each product with its sum."""
    def term(expr: Any) -> str:
        return printer.text(expr, SUM if expr.is_Number else PRODUCT)

    if scan.other:
        return [f"const V {names[scan.targets[0]]} = {printer(scan.update(0))};"]
    lines = []
    for i, state in enumerate(scan.targets):
        terms = [{1: "", -1: "-"}.get(m[i, j], f"{term(m[i, j])}*") + term(scan.back(s, k + 1))
                 for k, m in enumerate(scan.A) for j, s in enumerate(scan.targets) if m[i, j] != 0]
        if scan.b[i] != 0 or not terms:
            terms.append(term(scan.b[i]) if terms else printer(scan.b[i]))
        rest = "".join(f" - {text[1:]}" if text.startswith("-") else f" + {text}" for text in terms[1:])
        lines.append(f"const V {names[state]} = {terms[0]}{rest};")
    return lines
