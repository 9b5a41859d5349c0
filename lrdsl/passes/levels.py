"""From a Program with an axis to loops over its N numbers: which line is computed once a step, which in which loop.

A sum over the axis is ready when the loop that adds it up is over, so that lines which need it, and what they need in turn,
stand behind: one number a channel first, then the next loop. A cell needs a loop for each sum behind sums, not for each sum.
What does not change with time is computed before all steps.
Holds afterwards: each sum is a line of its own, and every line of a level reads only what stands before it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from ..ir.functions import Elementwise, axis_sum, name_of
from ..ir.kernel import Level
from ..ir.program import Let, Program, Step
from ..ir.shapes import AXIAL, is_wide
from ..ir.symbols import At, params, samples
from .simplify import fresh, names_of, rewritten


def prepared(program: Program) -> tuple[Program, tuple[Let, ...]]:
    """The Program with a line for each sum, its replay too; and the lines that are computed before all steps."""
    taken = names_of(program) | (names_of(program.replay.program) if program.replay else set())
    constants: dict[Any, Let] = {}
    steps = _prepared(program, taken, constants, alone=not program.replay)
    replay = program.replay
    if replay:
        again = _prepared(replay.program, taken, constants, alone=False)
        replay = replace(replay, program=replace(replay.program, steps=again))
    found = tuple(constants.values())
    wide = {v.name for v in program.vectors if v.shape in AXIAL}
    for let in found:
        wide |= {let.target} if is_wide(let.expr, wide) else set()
    still = tuple(let.target for let in found if let.target in wide)
    if replay:
        replay = replace(replay, program=replace(replay.program, sized=(*replay.program.sized, *still)))
    return replace(program, steps=steps, replay=replay, sized=(*program.sized, *still)), found


def _prepared(program: Program, taken: set[str], constants: dict[Any, Let], alone: bool) -> tuple[Step, ...]:
    fixed = {n for k in program.keeps for n in k.samples} | {s.sample for s in program.sums} | {*program.sized}
    fixed |= {e.base for e in program.registers}
    swap: dict[Any, Any] = {}
    steps: list[Step] = []

    def still(expr: Any) -> bool:
        """Whether a value is the same at every step."""
        return not expr.has(axis_sum) and all(s in known for s in samples(expr))

    known = {At(let.target) for let in constants.values()}

    def constant(expr: Any, name: str, where: Any) -> At:
        if expr not in constants:
            constants[expr] = Let(fresh(name, taken), expr, where)
            known.add(At(constants[expr].target))
        return At(constants[expr].target)

    def out(expr: Any, where: Any) -> Any:
        """The expression with names for what does not change and for sums."""
        expr = expr.xreplace(swap)
        if expr.is_Atom:
            return expr
        if isinstance(expr, Elementwise) and still(expr) and params(expr):
            return constant(expr, f"{name_of(expr)}.{params(expr)[0]}", where)
        new = expr.func(*(out(a, where) for a in expr.args))
        if isinstance(new, axis_sum):
            target = fresh("sum", taken)
            steps.append(Let(target, new, where))
            return At(target)
        return new

    for step in program.steps:
        if isinstance(step, Let):
            expr = step.expr.xreplace(swap)
            if step.target not in fixed and still(expr) and not expr.is_Atom and (params(expr) or samples(expr)):
                if alone:  # the line is moved, its name with it
                    taken.discard(step.target)
                swap[At(step.target)] = constant(expr, step.target, step.where)
            elif isinstance(expr, axis_sum) and expr.args[0].is_Atom:
                steps.append(replace(step, expr=expr))
            else:
                steps.append(replace(step, expr=out(step.expr, step.where)))
        else:
            steps.append(rewritten(step, partial(out, where=step.where)))
    return tuple(steps)


def levels(program: Program) -> tuple[Level, ...]:
    """The steps of a prepared Program in order, cut in levels."""
    wide = program.wide
    level: dict[str, int] = {}
    summed = {s.target for s in program.steps if isinstance(s, Let) and isinstance(s.expr, axis_sum)}
    loops: dict[int, list[Step]] = {}
    lines: dict[int, list[Step]] = {}
    for step in program.steps:
        reads = [s.base for e in step.exprs for s in samples(e) if s.lag == 0 and s.base in level]
        at = max([0, *(level[n] + (n in summed) for n in reads)])
        level |= dict.fromkeys(step.targets, at)
        loop = step.targets[0] in wide or (isinstance(step, Let) and isinstance(step.expr, axis_sum))
        (loops if loop else lines).setdefault(at, []).append(step)
    return tuple(Level(tuple(lines.get(k, ())), tuple(loops.get(k, ()))) for k in range(1 + max([0, *level.values()])))
