"""Program to Program: copies removed, subexpressions shared, dead lines dropped, a name for each function's value.

Never sympy.simplify (24 s for an LSTM's derivatives, and worse code). Names that the user gave survive.
Non-goals: changing what is computed; a rewritten Program gives the same values up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import sympy as sp

from ..ir import functions as f
from ..ir.program import Let, Nonlinear, Program, Recurrent, Step
from ..ir.symbols import At, params, samples


def fresh(name: str, taken: set[str]) -> str:
    """`name`, or `name_2`, … where it is taken; the choice is taken from then on."""
    unique, k = name, 2
    while unique in taken:
        unique, k = f"{name}_{k}", k + 1
    taken.add(unique)
    return unique


def names_of(program: Program) -> set[str]:
    """Every name that a Program uses."""
    return {*program.loads, *program.replayed, *(t for s in program.steps for t in s.targets), *program.inputs,
            *program.outputs}


def rewritten(step: Step, change: Callable[[Any], Any]) -> Step:
    """The step with `change` applied to each of its expressions."""
    if isinstance(step, Let):
        return replace(step, expr=change(step.expr))
    if isinstance(step, Nonlinear):
        return replace(step, exprs=tuple(map(change, step.exprs)))
    A = tuple(sp.ImmutableMatrix(m.rows, m.cols, [change(e) for e in m]) for m in step.A)
    return replace(step, A=A, b=tuple(change(e) for e in step.b))


def flatten(program: Program) -> Program:
    """Each function call becomes a line of its own, of atoms: what differentiation needs."""
    taken = names_of(program)
    steps: list[Step] = []
    known: dict[Any, Any] = {}

    def line(expr: Any, name: str, where: Any) -> Any:
        if expr.is_Atom:
            return expr
        if expr not in known:
            target = fresh(name, taken)
            steps.append(Let(target, expr, where))
            known[expr] = At(target)
        return known[expr]

    def flat(expr: Any, where: Any) -> Any:
        if expr.is_Atom:
            return expr
        args = [flat(a, where) for a in expr.args]
        if not isinstance(expr, f.Elementwise):
            return expr.func(*args)
        atoms = [line(a, f"{f.name_of(expr)}.of", where) for a in args]
        first = next((a for a in atoms if isinstance(a, At)), None)
        return line(expr.func(*atoms), f"{f.name_of(expr)}.{first.base if first else 'of'}", where)

    for step in program.steps:
        if isinstance(step, Let) and isinstance(step.expr, f.Elementwise):
            args = [line(flat(a, step.where), f"{step.target}.of", step.where) for a in step.expr.args]
            call = step.expr.func(*args)
            steps.append(replace(step, expr=call))
            known.setdefault(call, At(step.target))
        else:
            steps.append(rewritten(step, partial(flat, where=step.where)))
    return replace(program, steps=tuple(steps))


def prune(program: Program) -> Program:
    """Without lines, inputs and edges that no output needs."""
    edges = {e.base: e for e in program.registers}
    wanted = {n for k in program.keeps for n in k.samples} | {s.sample for s in program.sums}
    wanted |= {e.base for e in program.registers if e.final or e.crossing}
    steps = _until_stable(program, wanted)
    replay = program.replay if {*program.replayed} & {s.base for step in steps for s in _samples(step)} else None
    again = replay.program.steps if replay else ()
    read = {s for step in (*steps, *again) for s in _samples(step)}
    used = {s.base for s in read} | {border for _, border, _ in (replay.states if replay else ())}
    buffers = tuple(b for b in program.buffers if {b.name, *b.columns} & (used | wanted))
    vectors = {str(p) for step in (*steps, *again) for e in step.exprs for p in params(e)}
    computed = {t for s in steps for t in s.targets}
    lagged = {(s.base, 1 if s.lag > 0 else -1) for s in read if s.lag}
    lagged |= {(t, program.back) for s in steps if isinstance(s, Recurrent) for t in s.targets}
    kept = tuple(e for e in program.edges if (e.base, e.side) in lagged or (e.base in computed and e.base in edges
                                                                           and (e.final or e.crossing)))
    return replace(program, steps=tuple(steps), buffers=buffers, edges=kept, replay=replay,
                   vectors=tuple(v for v in program.vectors if v.name in vectors),
                   sized=tuple(n for n in program.sized if n in computed))


def _samples(step: Step) -> list[At]:
    return [s for e in step.exprs for s in samples(e)]


def _until_stable(program: Program, wanted: set[str]) -> list[Step]:
    size = -1
    while size != len(wanted):
        size = len(wanted)
        for step in reversed(program.steps):
            if set(step.targets) & wanted:
                wanted |= {s.base for e in step.exprs for s in samples(e)} | set(step.targets)
    return [s for s in program.steps if set(s.targets) & wanted]


def share(program: Program) -> Program:
    """Equal subexpressions are computed once; copies of a value are replaced by the value."""
    program = _reuse(program)
    exprs = [e for step in program.steps for e in step.exprs]
    taken = names_of(program)
    replacements, reduced = sp.cse(exprs, symbols=_fresh_samples(taken), order="canonical", list=True)
    pending = dict(replacements)
    values = iter(reduced)
    steps: list[Step] = []

    def define(expr: Any) -> None:
        for s in samples(expr):
            if s in pending:
                value = pending.pop(s)
                define(value)
                steps.append(Let(s.base, value))

    for step in program.steps:
        new = rewritten(step, lambda _: next(values))
        for e in new.exprs:
            define(e)
        steps.append(new)
    return _reuse(replace(program, steps=tuple(steps)))


def _fresh_samples(taken: set[str]) -> Iterator[At]:
    while True:
        yield At(fresh("v", taken))


def _reuse(program: Program) -> Program:
    """A line whose value has a name already is dropped, unless it is written or read at a lag."""
    fixed = {n for k in program.keeps for n in k.samples} | {s.sample for s in program.sums}
    fixed |= {e.base for e in program.registers} | {*program.sized}
    names: dict[Any, Any] = {}
    steps: list[Step] = []
    for step in program.steps:
        step = rewritten(step, lambda e: _named(e, names))
        if isinstance(step, Let):
            if step.target not in fixed and step.expr.is_Atom:
                names[At(step.target)] = step.expr
                continue
            if not step.expr.is_Atom and step.target not in program.sized:  # a name of the value, not of N times the value
                names.setdefault(step.expr, At(step.target))
        steps.append(step)
    return replace(program, steps=tuple(steps))


def _named(expr: Any, names: dict[Any, Any]) -> Any:
    if expr in names:
        return names[expr]
    if expr.is_Atom:
        return expr
    args = [_named(a, names) for a in expr.args]
    new = expr if all(a is b for a, b in zip(args, expr.args, strict=True)) else expr.func(*args)
    return names.get(new, new)


def simplify(program: Program) -> Program:
    """All of the above that cost nothing in accuracy."""
    return prune(share(prune(program))).check()
