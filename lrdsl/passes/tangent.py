"""Forward mode: Program to Program. The result computes the tangents of all outputs, next to the values they need.

The tangent of a Scan is a Scan with the same A, whose b is the rest of the derivative; over another
algebra, and of what is not linear, see `slopes`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sympy as sp

from ..ir import functions as f
from ..ir.program import Edge, Let, Nonlinear, Program, Scan, Step, Sum, Vector
from ..ir.symbols import At, Param, params, samples
from .nonlinear import closed
from .simplify import flatten, fresh, names_of, simplify
from .slopes import linearised


@dataclass(frozen=True)
class Tangent:
    """takes: for each input of `program`, ("input" | "tangent", name of a forward input). gives: for each forward output the
    name of its tangent, or None where it is zero."""

    program: Program
    takes: tuple[tuple[Literal["input", "tangent"], str], ...]
    gives: tuple[str | None, ...]


@dataclass
class _Names:
    taken: set[str]
    of: dict[str, str] = field(default_factory=dict)

    def __call__(self, name: str) -> str:
        if name not in self.of:
            self.of[name] = fresh(f"{name}.dot", self.taken)
        return self.of[name]

    def atom(self, a: Any) -> Any:
        return At(self(a.base), a.lag) if isinstance(a, At) else Param(self(str(a)))


def tangent(program: Program) -> Tangent:
    """The Program that maps inputs and their tangents to the tangents of the outputs."""
    source = flatten(program)
    source = replace(source, steps=closed(source.steps))
    dot = _Names(names_of(source))
    steps: list[Step] = []

    def line(name: str, expr: Any) -> At:
        target = fresh(name, dot.taken)
        steps.append(Let(target, expr))
        return At(target)

    for step in source.steps:
        steps.append(step)
        if isinstance(step, Scan | Nonlinear):
            linear, slopes = linearised(source, step, line)
            b = []
            for i in range(len(step.targets)):
                update = linear.update(i)
                atoms = [a for a in (*samples(update), *params(update)) if a not in slopes.union(step.past)]
                b.append(sp.Add(*(dot.atom(a) * sp.diff(update, a) for a in atoms)))
            steps.append(replace(linear, targets=tuple(dot(s) for s in step.targets), b=tuple(b)))
        else:
            steps.append(Let(dot(step.target), _derivative(step, dot), step.where))
    buffers = tuple(replace(b, name=dot(b.name), columns=tuple(map(dot, b.columns)), every=1) for b in source.buffers)
    vectors = tuple(Vector(dot(v.name), v.shape) for v in source.vectors)
    edges = tuple(Edge(dot(e.base), e.side, e.depth, 0.0, *(dot(n) if n else None for n in (e.start, e.edge, e.final,
                                                                                            e.crossing)))
                  for e in source.edges)
    keeps = tuple(replace(k, name=dot(k.name), samples=tuple(map(dot, k.samples)), inner=False)
                  for k in source.keeps if not k.every)
    sums = tuple(Sum(dot(s.name), dot(s.sample), s.over) for s in source.sums if not s.largest)
    values = tuple(replace(e, final=None, crossing=None) for e in source.edges)
    whole = Program(f"{program.name}_tangent", source.reverse, source.buffers + buffers, source.vectors + vectors,
                    values + edges, tuple(steps), keeps, sums, source.axis, (*source.sized, *(dot(n) for n in source.sized)))
    result = simplify(whole)
    back = {dot(n): n for n in program.inputs}
    takes = tuple(("tangent", back[n]) if n in back else ("input", n) for n in result.inputs)
    return Tangent(result, takes, tuple(dot(n) if dot(n) in result.outputs else None  # type: ignore[arg-type]
                                        for n in program.outputs))


def _derivative(step: Let, dot: _Names) -> Any:
    if isinstance(step.expr, f.Elementwise):
        dots = tuple(dot.atom(a) if isinstance(a, At | Param) else sp.S.Zero for a in step.expr.args)
        return f.pushforward(step.expr, At(step.target), dots)
    return sp.Add(*(dot.atom(a) * sp.diff(step.expr, a) for a in (*samples(step.expr), *params(step.expr))))
