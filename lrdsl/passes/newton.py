"""Newton's method for the nonlinear recurrences of a Program: two Programs without any, the first of which is run repeatedly.

h[t] = F(h[t-1], x[t]) at all t is one system of equations, whose derivative has two bands, so that a step of Newton's method is
a linear recurrence over time (Lim, Zhu, Selfridge & Kasim, ICLR 2024, arXiv 2309.12252): from a guess g of h

    h[t] = J[t] h[t-1] + F(g[t-1], x[t]) - J[t] g[t-1],    J[t] = damped dF/dh at g[t-1]

With any J the solution is what stays as it is; `damped`, a number up to 1, is given with each step. A step is one pass: F and J
are computed where they are used.
Holds afterwards: both Programs read the states as the columns of one buffer, in full precision. The residual is the largest
|F(h[t-1]) - h[t]| / (1 + |h[t]|) of the states that are read, over everything. It says how well each step fits the one before;
how far the states are from the solution, where errors last for many steps, is told by what a step of the method changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sympy as sp

from ..ir import functions as f
from ..ir.program import Buffer, Keep, Let, Nonlinear, Program, Scan, Step, Sum, Vector
from ..ir.symbols import At, Param
from .nonlinear import Partials, closed
from .simplify import fresh, names_of, simplify


@dataclass(frozen=True)
class Iteration:
    """step: from the buffer `guess` to the Keep `states`, the next guess. finish: all that the Program gives, for the states in
    `guess`. residual: the Sum of both that tells how well `guess` fits. change: the Sum of `step` that tells the largest
    difference of the next guess to this one, in the same scale. damped: what `step` multiplies derivatives by. starts: the
    constants that the states start from."""

    step: Program
    finish: Program
    guess: str
    states: str
    residual: str
    change: str
    damped: str
    starts: tuple[float, ...]


def iteration(program: Program) -> Iteration:
    """The two Programs for one whose `solver` is Newton's method."""
    return _Work(program).iteration()


class _Work:
    """The names that both Programs share. columns: state -> its sequence in the guess."""

    def __init__(self, program: Program) -> None:
        self.program, self.taken = program, names_of(program)
        self.steps = closed(program.steps)
        self.states = [t for s in self.steps if isinstance(s, Nonlinear) for t in s.targets]
        self.guess, self.kept, self.residual, self.change, self.damped = (
            fresh(n, self.taken) for n in ("guess", "states", "residual", "change", "damped"))
        self.columns = {s: self.guess if len(self.states) == 1 else fresh(f"{s}.guess", self.taken) for s in self.states}

    def iteration(self) -> Iteration:
        """Both Programs."""
        edges = {e.base: e for e in self.program.registers}
        known = tuple(replace(edges[s], base=column, final=None, crossing=None) for s, column in self.columns.items()
                      if s in edges)
        step = self._made("newton", self._step)
        changed, change = self._largest(self.change, [_apart(At(g), At(s)) for s, g in self.columns.items()])
        step = replace(step, keeps=(Keep(self.kept, tuple(self.states)),), sums=(step.sums[-1], change),
                       steps=(*step.steps, changed),
                       full=(self.guess, self.kept, self.damped), vectors=(*step.vectors, Vector(self.damped, "one")),
                       edges=(*(replace(e, final=None, crossing=None) for e in step.edges), *known))
        finish = self._made("solved", self._finish)
        starts = tuple(edges[s].init if s in edges else 0.0 for s in self.states)
        return Iteration(simplify(step), simplify(finish), self.guess, self.kept, self.residual, self.change, self.damped,
                         starts)

    def _made(self, name: str, change: Callable[[Nonlinear, list[Any]], list[Step]]) -> Program:
        """The Program with other steps for its nonlinear ones, and the largest of what these miss by."""
        misses: list[Any] = []
        steps: list[Step] = []
        for s in self.steps:
            steps += change(s, misses) if isinstance(s, Nonlinear) else [s]
        missed, total = self._largest(self.residual, misses)
        return replace(self.program, name=f"{self.program.name}_{name}", solver=None, steps=(*steps, missed),
                       buffers=(*self.program.buffers, Buffer(self.guess, tuple(self.columns.values()))),
                       sums=(*self.program.sums, total), full=(*self.program.full, self.guess))

    def _largest(self, name: str, values: list[Any]) -> tuple[Let, Sum]:
        """The largest of some values, over everything."""
        largest = values[0]
        for value in values[1:]:
            largest = f.maximum(largest, value)
        line = Let(fresh(f"{name}.t", self.taken), largest)
        return line, Sum(name, line.target, "time and channels", largest=True)

    def _step(self, s: Nonlinear, misses: list[Any]) -> list[Step]:
        """Linear about the guess."""
        past = {a: At(self.columns[a.base], a.lag) for a in s.state}
        lines = self._values(s, past, misses, self.columns)
        partials = Partials(s.exprs)

        def slope(i: int, a: At) -> Any:
            partial = Param(self.damped) * partials(i, a).xreplace(past)
            if partial == 0:
                return partial
            lines.append(Let(fresh(f"slope.{s.targets[i]}.{a.base}", self.taken), partial, s.where))
            return At(lines[-1].targets[0])

        rows = range(len(s.targets))
        values = [At(line.targets[0]) for line in lines]
        A = [sp.ImmutableMatrix([[slope(i, s.back(t, k)) for t in s.targets] for i in rows])
             for k in range(1, max(s.orders) + 1)]
        b = tuple(values[i] - sp.Add(*(m[i, j] * At(self.columns[t], s.back(t, k).lag) for k, m in enumerate(A, 1)
                                       for j, t in enumerate(s.targets) if m[i, j] != 0)) for i in rows)
        return [*lines, Scan(s.targets, tuple(A), b, s.reverse, s.where)]

    def _finish(self, s: Nonlinear, misses: list[Any]) -> list[Step]:
        """The states as they are known."""
        states: list[Step] = [Let(t, At(self.columns[t]), s.where) for t in s.targets]
        return [*states, *self._values(s, {}, misses, {t: t for t in s.targets})]

    def _values(self, s: Nonlinear, past: Mapping[At, At], misses: list[Any], states: Mapping[str, str]) -> list[Step]:
        """F of the past, a line each state; how far it is from the state is added to `misses`."""
        lines: list[Step] = []
        for t, e in zip(s.targets, s.exprs, strict=True):
            lines.append(Let(fresh(f"{t}.value", self.taken), e.xreplace(past), s.where))
            misses.append(_apart(At(lines[-1].targets[0]), At(states[t])))
        return lines


def _apart(value: Any, state: Any) -> Any:
    """How far a value is from a state: relative to one that is large, absolute for one that is small."""
    return f.absolute(value - state) / (1 + f.absolute(state))
