"""Spec: what the user said, and on which line.

    Spec      = name, declared kinds, statements in order, outputs
    Statement = Equation(name, expr)            a named line, or the update of a state at t
              | MapCall(name, affine, operands) a dense map applied to samples; `name[t]` stands for its value
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import sympy as sp

from ..errors import InternalError
from ..location import Location
from .complex import is_complex
from .shapes import spread
from .solver import Solver
from .symbols import At, Param, params, samples
from .text import show

KINDS = ("input", "state", "affine", "vector", "scalar", "mask", "first")


@dataclass(frozen=True)
class Declared:
    """A name of the signature: its kind and its options (a sorted tuple of pairs, so that a Spec can be hashed)."""

    kind: str
    name: str
    where: Location
    options: tuple[tuple[str, Any], ...] = ()

    def option(self, name: str, default: Any = None) -> Any:
        """What was said of one option."""
        return dict(self.options).get(name, default)

    @property
    def complex(self) -> bool:
        """Whether its values are complex numbers."""
        return bool(self.option("complex"))

    def __str__(self) -> str:
        said = ", ".join(f"{k}={v}" for k, v in self.options if not callable(v))
        return f"{self.kind} {self.name}" + (f"({said})" if said else "")


@dataclass(frozen=True)
class Equation:
    """`target[t] = expr`; `state` tells an update of a state from a named line."""

    target: str
    expr: sp.Expr
    where: Location
    state: bool = False

    def reads(self) -> tuple[At, ...]:
        """The samples that the statement reads."""
        return tuple(samples(self.expr))

    def __str__(self) -> str:
        return f"{self.target + '[t]' if self.state else self.target} = {show(self.expr)}"


@dataclass(frozen=True)
class MapCall:
    """`target[t]` is the dense map `affine` applied to the operands at t, bias included unless `bias` says otherwise.

    An operand may be the number 0: its columns of the weight are then left out.
    """

    target: str
    affine: str
    operands: tuple[sp.Expr, ...]
    where: Location
    bias: bool = True

    def reads(self) -> tuple[At, ...]:
        """The samples that the statement reads."""
        return tuple(s for operand in self.operands for s in samples(operand))

    def __str__(self) -> str:
        without = "" if self.bias else " without bias"
        return f"{self.target} = {self.affine}({', '.join(map(show, self.operands))}){without}"


Statement = Equation | MapCall


@dataclass(frozen=True)
class Spec:
    """A cell as written.

    notes: sentences that `explain()` repeats (a surrogate's, generated names). named: it returns a dict of outputs. solver: how
    recurrences are solved that are not linear; without one there are none. pairs: (name, real part, imaginary part) of the
    values that `passes.realify` took apart.
    """

    name: str
    doc: str
    where: Location
    declared: tuple[Declared, ...]
    statements: tuple[Statement, ...]
    outputs: tuple[tuple[str, At], ...]
    notes: tuple[str, ...] = ()
    source: str = field(default="", compare=False)
    named: bool = False
    solver: Solver | None = None
    pairs: tuple[tuple[str, str, str], ...] = ()

    def of(self, kind: str) -> tuple[Declared, ...]:
        """The declarations of one kind, in the order of the signature."""
        return tuple(d for d in self.declared if d.kind == kind)

    def names(self, kind: str) -> tuple[str, ...]:
        """Their names."""
        return tuple(d.name for d in self.of(kind))

    def __getitem__(self, name: str) -> Declared:
        return next(d for d in self.declared if d.name == name)

    @functools.cached_property
    def complex(self) -> frozenset[str]:
        """The names whose values are complex: declared, of lines and of values of maps (a map's own name is not among them)."""
        names = {d.name for d in self.declared if d.complex and d.kind != "affine"}
        for s in self.statements:
            if isinstance(s, MapCall):
                found = self[s.affine].complex or any(map(is_complex, s.operands))
            else:
                found = not s.state and is_complex(s.expr)
            names |= {s.target} if found else set()
        return frozenset(names)

    @property
    def axis(self) -> int:
        """N of the state axis, 0 where nothing has one."""
        return max([0, *(d.option("axis", 0) for d in self.declared)])

    @property
    def sized(self) -> tuple[str, ...]:
        """The names of the signature that were declared with the axis."""
        return tuple(d.name for d in self.declared if d.option("axis"))

    @property
    def wide(self) -> frozenset[str]:
        """All names that have the axis (see `shapes`)."""
        calls = [s.target for s in self.statements if isinstance(s, MapCall) and s.affine in self.sized]
        return spread({*self.sized, *calls}, [((s.target,), (s.expr,)) for s in self.statements if isinstance(s, Equation)])

    def mirrored(self) -> Spec:
        """The same cell run over time the other way: every lag changes its sign."""
        def turn(expr: sp.Basic) -> Any:
            return expr.xreplace({s: s.shift(-2 * s.lag) for s in samples(expr)})
        statements = tuple(replace(s, expr=turn(s.expr)) if isinstance(s, Equation)
                           else replace(s, operands=tuple(turn(o) for o in s.operands)) for s in self.statements)
        return replace(self, statements=statements)

    def check(self) -> Spec:
        """Raise InternalError unless every sample and parameter that is read was declared or computed, as what it is read."""
        known, complex = {d.name for d in self.declared} | {s.target for s in self.statements}, self.complex
        for statement in self.statements:
            for sample in statement.reads():
                if sample.base not in known:
                    raise InternalError("spec", f"{statement} reads {sample}, which nothing defines", str(self))
                if sample.complex != (sample.base in complex):
                    raise InternalError("spec", f"{statement} takes {sample} for what it is not, real or complex", str(self))
            for expr in ([statement.expr] if isinstance(statement, Equation) else statement.operands):
                if not {str(p) for p in params(expr)} <= set(self.names("vector") + self.names("scalar")):
                    raise InternalError("spec", f"{statement} reads an undeclared parameter", str(self))
        return self

    def __str__(self) -> str:
        lines = [f"cell {self.name}", *(f"  {d}" for d in self.declared)]
        lines += [f"  {s!s:<70} # {s.where.short}" for s in self.statements]
        lines += ["  return " + ", ".join(f"{n}: {e}" if n != str(e.base) else str(e) for n, e in self.outputs)]
        lines += [f"  solver {self.solver}"] if self.solver else []
        return "\n".join([*lines, *(f"  # {n}" for n in self.notes)])


__all__ = ["KINDS", "At", "Declared", "Equation", "MapCall", "Param", "Spec", "Statement"]
