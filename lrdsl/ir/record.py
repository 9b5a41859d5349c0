"""Values of the IR as text, exactly, and back: JSON of the classes that are named here or by the caller, and nothing that runs.

    text  = [shared values in order, value]
    value = null | true | number | "text" | ["", value …] a tuple | ["complex", re, im] | ["@", k] place k
          | ["=", k] shared value k: an expression, or a Program | ["Class", field …]

An expression is its head and the numbers of its arguments, in the order that sympy has them: what is read is what was written,
to the last bit of each number, and no rule of sympy's is run. Source locations are numbers of places that the reader knows, so
that a record of a cell fits the same cell on other lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import mpmath  # type: ignore[import-untyped]
import sympy as sp

from ..location import Location
from . import complex as _complex
from . import functions as _functions
from .symbols import At, Param

_HEADS: dict[str, Any] = {
    "Add": sp.Add, "Mul": sp.Mul, "Pow": sp.Pow, "And": sp.And, "Or": sp.Or, "Not": sp.Not,
    **{f"real {name}": call for name, call in _functions.FUNCTIONS.items()},
    **{f"complex {name}": call for name, call in _complex.OF_COMPLEX.items()}}
_NAMES = {head: name for name, head in _HEADS.items()}
_CONSTANTS: dict[str, Any] = {"oo": sp.oo, "-oo": -sp.oo, "nan": sp.nan, "I": sp.I}


class Unrecordable(Exception):
    """A value of a class that has no form here: then it is made again instead of read."""


class _Writer:
    """shared: what is written once; `places` are the locations that have numbers, None where none are written."""

    def __init__(self, classes: Mapping[str, type], places: Mapping[Location, int] | None, loose: bool) -> None:
        self.classes, self.places, self.loose = classes, places, loose
        self.shared: list[Any] = []
        self.seen: dict[Any, int] = {}

    def value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, tuple):
            return ["", *map(self.value, value)]
        if isinstance(value, complex):
            return ["complex", value.real, value.imag]
        if isinstance(value, Location):
            return None if self.places is None else ["@", self.places[value]] if value in self.places else self.refused(value)
        if isinstance(value, sp.Basic | sp.MatrixBase):
            return ["=", self.node(value)]
        if is_dataclass(value) and self.classes.get(name := type(value).__name__) is type(value):
            written = [name, *(self.value(getattr(value, f.name)) for f in fields(value) if f.compare)]
            return ["=", self.share(value, written)] if name == "Program" else written
        return "callable" if self.loose and callable(value) else self.refused(value)

    def node(self, expr: Any) -> int:
        if expr in self.seen:
            return self.seen[expr]
        if isinstance(expr, At):
            return self.share(expr, ["At", expr.base, expr.lag, expr.complex])
        if isinstance(expr, Param):
            return self.share(expr, ["Param", expr.name, expr.complex])
        if isinstance(expr, sp.Integer):
            return self.share(expr, ["Integer", int(expr)])
        if isinstance(expr, sp.Rational):
            return self.share(expr, ["Rational", int(expr.p), int(expr.q)])
        if isinstance(expr, sp.Float):
            return self.share(expr, ["Float", *map(int, expr._mpf_), int(expr._prec)])
        if isinstance(expr, sp.MatrixBase):
            return self.share(expr, ["matrix", expr.rows, expr.cols, *map(self.node, expr)])
        constant = next((name for name, c in _CONSTANTS.items() if c is expr), None)
        head = constant or _NAMES.get(type(expr)) or self.refused(expr)
        return self.share(expr, [head, *map(self.node, expr.args)] if constant is None else [constant])

    def share(self, value: Any, written: list[Any]) -> int:
        if value not in self.seen:
            self.seen[value] = len(self.shared)
            self.shared.append(written)
        return self.seen[value]

    def refused(self, value: Any) -> Any:
        raise Unrecordable(f"{type(value).__name__} {value}")


def write(value: Any, classes: Mapping[str, type], places: Sequence[Location] | None = None, loose: bool = False) -> str:
    """The text of a value. classes: those that may be in it. places: the locations in it; None writes none. loose: for a key,
    where a callable is only said to be one. Raises Unrecordable."""
    writer = _Writer(classes, None if places is None else {place: k for k, place in enumerate(places)}, loose)
    written = writer.value(value)
    return json.dumps([writer.shared, written], separators=(",", ":"))


def read(text: str, classes: Mapping[str, type], places: Sequence[Location] = ()) -> Any:
    """The value that `write` made a text of. Raises ValueError, TypeError, LookupError for what is none."""
    shared: list[Any] = []

    def value(v: Any) -> Any:
        if not isinstance(v, list):
            return v
        head, *rest = v
        if head == "=":
            return shared[rest[0]]
        if head == "":
            return tuple([value(x) for x in rest])
        if head == "@":
            return places[rest[0]]
        return complex(*rest) if head == "complex" else classes[head](*[value(x) for x in rest])

    nodes, last = json.loads(text)
    for head, *rest in nodes:
        shared.append(value([head, *rest]) if head in classes else _expression(head, rest, shared))
    return value(last)


def _expression(head: str, rest: Sequence[Any], shared: Sequence[Any]) -> Any:
    if head == "At":
        return At(*rest)
    if head == "Param":
        return Param(*rest)
    if head == "Integer":
        return sp.Integer(*rest)
    if head == "Rational":
        return sp.Rational(*rest)
    if head == "Float":
        sign, mantissa, exponent, bits, precision = rest
        return sp.Float._new((sign, mpmath.libmp.MPZ(mantissa), exponent, bits), precision, zero=False)
    if head in _CONSTANTS:
        return _CONSTANTS[head]
    if head == "matrix":
        return sp.ImmutableMatrix(rest[0], rest[1], [shared[k] for k in rest[2:]])
    args = [shared[k] for k in rest]
    if head in ("Add", "Mul"):
        return _HEADS[head]._from_args(args)
    return _HEADS[head](*args, evaluate=False)
