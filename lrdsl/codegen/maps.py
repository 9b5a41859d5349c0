"""What steps do to the state of a recurrence, as text: a struct for each structure in a chunked kernel.

Its members are the few numbers of a `Structure`. Every sum of products is a chain of fused multiply-adds in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..ir.functions import name_of_class
from ..ir.structure import Structure, Term
from .printers import number


@dataclass(frozen=True)
class MapView:
    """apply: the state h after the steps, b where h is 0; nearly, without the rounding error of their matrix. after: the matrix
    of steps before (e) and these; once_after, where these are a single one. step_b, step_a: both after one step more, which
    `takes` coefficients and rests. once: that step of a state without a rest, where it is the same at all times: then the
    matrix is a power, and none of its numbers are carried. The rest is finished text too. held: its numbers within a block, of
    which `count` are told; one more is the rounding error of a single one."""

    name: str
    note: str
    size: int
    count: int
    held: int
    apply: tuple[str, ...]
    nearly: tuple[str, ...]
    after: tuple[str, ...]
    once_after: tuple[str, ...]
    norm: str
    takes: tuple[str, ...]
    step_b: tuple[str, ...]
    step_a: tuple[str, ...]
    once: tuple[str, ...]
    identity: tuple[str, ...]
    nothing: tuple[str, ...]
    zero: tuple[str, ...]


def map_view(name: str, structure: Structure, rests: tuple[bool, ...], dtype: str) -> MapView:
    """rests: which rows of a step have a rest that is not 0."""
    note = f"What steps do to a state: {structure.name}."
    if structure.algebra:
        join, zero = f"lr_{name_of_class(structure.algebra.sum)}", number(structure.algebra.zero, dtype)
        state, coefficient = (f"{join}(p[0] + h.of[0], b.of[0])",), ("p[0] + e.p[0]",)
        return MapView(name, note, 1, 1, 1, state, state, coefficient, coefficient, "0", ("c0", "r0"),
                       (f"{join}(c0 + h.of[0], r0)",), ("c0 + e.p[0]",), (), ("0",), (zero,), (zero,))
    n, powers = structure.size, structure.powers
    count = 0 if powers else structure.count
    places = [structure.place(k) for k in range(count)]
    uses = [sum(t.number == k for row in structure.many for t in row) for k in range(count)]
    norm = " + ".join((f"{times} * " if times > 1 else "") + f"lr_abs(p[{k}])" for k, times in enumerate(uses))
    takes = (*(f"c{k}" for k in range(len(structure.coefficients))), *(f"r{i}" for i in range(n) if rests[i]))

    def step(i: int, rest: str) -> str:
        return _sum(((_coefficient(t), f"h.of[{t.column}]") for t in structure.step[i]), rest)

    def applied(rest: str) -> tuple[str, ...]:
        rows = enumerate(structure.many)
        return tuple(_sum(((_own(t), f"h.of[{t.column}]") for t in row), rest.format(i)) for i, row in rows)

    held = structure.held if count else 0
    after = tuple(_sum(_products(structure.many[i], "p", structure, j)) for i, j in places)
    once_after = after
    step_a = tuple(_sum(_products(structure.step[i], "c", structure, j)) for i, j in places)
    if held > count:
        after += (f"lr_fma(p[1], e.p[0], {_error('p[0]')})",)
        once_after += (_error("p[0]"),)
        step_a += (_error(_coefficient(structure.step[0][0])),)
    rest = "lr_fma(p[1], h.of[{0}], b.of[{0}])" if held > count else "b.of[{0}]"
    return MapView(
        name, note, n, count, held, applied(rest), applied("b.of[{0}]"), after, once_after, norm or "0", takes,
        tuple(step(i, f"r{i}" if rests[i] else "") for i in range(n)), step_a,
        tuple(step(i, "") for i in range(n)) if powers else (),
        (*(str(k) for k in structure.identity[:count]), *["0"] * (held - count)), ("0",) * held, ("0",) * n)


def _error(factor: str) -> str:
    """What a factor makes of the error of e, and that of its own product, which a fused sum gives exactly (Ogita, Rump & Oishi,
    Accurate sum and dot product, 2005, TwoProductFMA). A factor "" is 1, "-" is -1."""
    if factor in ("", "-"):
        return f"{factor}e.p[1]"
    return f"lr_fma({factor}, e.p[1], lr_fma({factor}, e.p[0], -({factor} * e.p[0])))"


def _own(t: Term) -> str:
    return f"{'-' * (t.sign < 0)}p[{t.number}]"


def _coefficient(t: Term) -> str:
    """A factor of one step; "" for 1."""
    if t.number is None:
        return "" if t.sign > 0 else "-"
    return f"{'-' * (t.sign < 0)}c{t.number}"


def _products(row: Iterable[Term], who: str, structure: Structure, column: int) -> Iterable[tuple[str, str]]:
    """The factors of entry (row, column) of a product, whose right side are the numbers of e."""
    for t in row:
        for other in structure.many[t.column]:
            if other.column == column:
                left = _own(t) if who == "p" else _coefficient(t)
                if other.sign < 0:
                    left = left[1:] if left.startswith("-") else f"-{left}"
                yield left, f"e.p[{other.number}]"


def _sum(products: Iterable[tuple[str, str]], rest: str = "") -> str:
    """rest + the products, the first innermost. A factor "" is 1, "-" is -1."""
    text = rest
    for factor, value in products:
        if factor in ("", "-"):
            text = (f"{text} - {value}" if factor else f"{text} + {value}") if text else f"{factor}{value}"
        else:
            text = f"lr_fma({factor}, {value}, {text})" if text else f"{factor} * {value}"
    return text or "0"
