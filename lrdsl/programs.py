"""The Programs of a cell, each made once in a process, and where that was remembered, once for all of them.

    Spec ─> Plan of forward Programs ─> adjoints, tangents, Newton's iterations, Programs of packed segments
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from . import stored
from .ir.plan import Plan, Stage
from .ir.program import Program
from .ir.spec import Spec
from .passes import precision
from .passes.adjoint import Adjoint
from .passes.newton import iteration
from .passes.partition import partition
from .passes.ragged import ragged
from .passes.realify import realify
from .passes.replay import bordered
from .passes.simplify import simplify
from .passes.stratify import stratify

tangent_of = functools.cache(precision.tangent)
iteration_of = functools.cache(iteration)
_adjoints: dict[tuple[Program, frozenset[str]], Adjoint] = {}


def with_keeps(plan: Plan) -> Plan:
    """The Programs simplified, and keeping what their backward passes read."""
    def kept(program: Program) -> Program:
        whole = precision.adjoint(simplify(program)).forward
        return precision.adjoint(bordered(whole)).forward if whole.axis else whole

    steps = tuple(Stage(kept(s.program)) if isinstance(s, Stage) else s for s in plan.steps)
    return replace(plan, steps=steps).check()


@functools.cache
def plan_of(spec: Spec) -> Plan:
    """The Plan that runs a cell. Raises NotLinear and its kin."""
    if stored_before := stored.find(spec):
        plan, adjoints = stored_before
        _adjoints.update({(program, frozenset(absent)): made for program, absent, made in adjoints})
    else:
        plan = with_keeps(partition(stratify(realify(spec))))
        every = [(p, absent) for p in plan.programs for absent in dict.fromkeys((frozenset[str](), inner_keeps(p)))]
        stored.put(spec, plan, [(p, tuple(sorted(absent)), adjoint_of(p, absent)) for p, absent in every])
    return plan


def ragged_of(program: Program, given: frozenset[str], narrow: bool = False) -> Program:
    """The Program of a plan for packed segments, whose edges in `given` come as sequences; see `ragged`."""
    return precision.adjoint(simplify(ragged(program, given, narrow))).forward


def adjoint_of(program: Program, absent: frozenset[str]) -> Adjoint:
    """The backward pass of a Program where the gradients of the Keeps in `absent` are zero."""
    known = program, absent
    if known not in _adjoints:
        _adjoints[known] = precision.adjoint(program, absent)
    return _adjoints[known]


def backward_of(program: Program) -> Program:
    """The backward pass as training runs it: only what the cell returns has a gradient from outside."""
    return adjoint_of(program, inner_keeps(program)).program


def inner_keeps(program: Program) -> frozenset[str]:
    """Keeps that exist for the backward pass alone: their samples are scanned here and written for nobody else."""
    return frozenset(k.name for k in program.keeps if k.inner)


def newton_of(programs: Sequence[Program]) -> tuple[Program, ...]:
    """The Programs that solve those of `programs` which Newton's method solves."""
    solved = [iteration_of(p) for p in programs if p.solver]
    return tuple(p for made in solved for p in (made.step, made.finish))
