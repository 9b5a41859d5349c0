"""`cell.explain()`: what the compiler found in a cell, for people."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

import sympy as sp

from .errors import CellError
from .ir import functions as f
from .ir.kernel import CHAINED, Kernel
from .ir.plan import Dense, Plan, Sized, Stage
from .ir.program import Nonlinear, Program, Recurrent, Scan
from .ir.spec import Equation, MapCall, Spec
from .ir.symbols import At, samples
from .ir.text import show
from .passes.footprint import Footprint
from .passes.halves import halves, whole

Kernels = Mapping[str, tuple[Kernel, ...]]
WIDTH = 100


def refused(spec: Spec, error: CellError) -> str:
    """The cell as written, and why no linear recurrence computes it."""
    return "\n".join([*_title(spec), "", "It cannot run as it is", *textwrap.indent(str(error), "  ").splitlines()])


def text(spec: Spec, real: Spec, found: Plan, plan: Plan, backward: tuple[Program, ...], kernels: Mapping[str, Kernels],
         memory: Footprint, dtype: str) -> str:
    """The cell as written, and of `real` values; its recurrences with A and b as `found`; what runs, is kept, moves."""
    pairs = [f"{z} = {re} + i {im}" for z, (re, im) in halves(spec).items()]
    said = textwrap.wrap(f"(complex: {', '.join(pairs)})", WIDTH, initial_indent="  ", subsequent_indent="   ") if pairs else []
    lines = [*_title(spec), *said, "", *_found(real, found), "", *_runs(plan), "", *_backward(plan, backward)]
    lines += ["", f"Kernels, {dtype} (bytes a step and channel; a sequence that is read at several lags counts once)"]
    for target, stages in kernels.items():
        lines += _kernels(target, stages)
    lines += ["", *_memory(spec, memory, dtype)]
    return "\n".join([*lines, "", _carried(whole(plan, spec))])


def _title(spec: Spec) -> list[str]:
    lines = [f"{spec.name}   ({spec.where.short})", "", "As written", *_written(spec)]
    return lines + [line for note in spec.notes for line in
                    textwrap.wrap(f"({note})", WIDTH, initial_indent="  ", subsequent_indent="   ")]


def _written(spec: Spec) -> list[str]:
    """The user's own lines; what was understood of them where there is no source."""
    if spec.source:
        return textwrap.indent(spec.source.rstrip(), "  ").splitlines()
    lines = [f"  {_statement(spec, s):<64} {s.where.short}" for s in spec.statements if not isinstance(s, MapCall)]
    returned = [_read(spec, e) if n == e.base else f"{n} = {_read(spec, e)}" for n, e in spec.outputs]
    return [*lines, f"  return {', '.join(returned)}"]


def _read(spec: Spec, expr: Any) -> str:
    """An expression in the user's words: maps as calls, lines of the body by their names."""
    calls = {s.target: s for s in spec.statements if isinstance(s, MapCall)}
    sequences = {*spec.names("input"), *spec.names("state")}
    flags = [At(m) for m in spec.names("mask")] + [At(n, k) for n in spec.names("first") for k in (-1, 1)]
    expr = expr.xreplace({f.greater(s, sp.S.Zero): sp.Symbol(f"{s.base}[t]") for s in flags})

    def word(s: At) -> Any:
        if s.base in calls and s.lag == 0:
            call = calls[s.base]
            return sp.Symbol(f"{call.affine}({', '.join(_read(spec, o) for o in call.operands)})")
        return sp.Symbol(s.base) if s.lag == 0 and s.base not in sequences else s

    return show(expr.xreplace({s: word(s) for s in samples(expr)}))


def _statement(spec: Spec, statement: Any) -> str:
    target = f"{statement.target}[t]" if statement.state else statement.target
    return f"{target} = {_read(spec, statement.expr)}"


def _count(n: int, noun: str, plural: str = "s") -> str:
    return f"{n} {noun}{'' if n == 1 else plural}"


def _found(spec: Spec, plan: Plan) -> list[str]:
    """The recurrences as extracted, before anything is shared or kept."""
    scans = [(p, step) for p in plan.programs for step in p.steps if isinstance(step, Scan)]
    bent = [step for p in plan.programs for step in p.steps if isinstance(step, Nonlinear)]
    found = [_count(len(scans), "linear recurrence")] if scans or not bent else []
    lines = [f"Found: {' and '.join([*found, *([_count(len(bent), 'nonlinear recurrence')] if bent else [])])}"]
    for program, scan in scans:
        lines += _recurrence(spec, program, scan)
    for step in bent:
        lines += _nonlinear(spec, step)
    return lines if scans or bent else [*lines, "  every value follows from the inputs at a fixed number of steps"]


def _nonlinear(spec: Spec, step: Nonlinear) -> list[str]:
    """The user's equations of its states, and how they are solved."""
    written = {s.target: s for s in spec.statements if isinstance(s, Equation)}
    way = "from the right" if step.reverse else "from the left"
    rows = [f"  {f'{s}[t] = {_read(spec, written[s].expr)}':<40}  {way if not i else '':<26}  {written[s].where.short}"
            for i, s in enumerate(step.targets)]
    if spec.solver == "sequential":
        return [*rows, "      solved one step after another"]
    return [*rows, "      solved by Newton's method on all steps at once, each iteration one linear recurrence"]


def _recurrence(spec: Spec, program: Program, scan: Scan) -> list[str]:
    """`h[t] = A*h[t-1] + b`, and what A and b are."""
    lines: list[str] = []
    where = {s.target: s.where.short for s in spec.statements}
    kind = f"{program.structure(scan).name}, {'from the right' if scan.reverse else 'from the left'}"
    if scan.other:
        [state], A, b = scan.targets, scan.A[0][0, 0], scan.b[0]
        equation = f"{state}[t] = {scan.other.equation('A' if A != 0 else '0', str(scan.past[0]), 'b')}"
        lines = [f"  {equation:<40}  {kind:<26}  {where[state]}"]
        return lines + [f"      A = {_read(spec, A)}"] * (A != 0) + [f"      b = {_read(spec, b)}"]
    for i, state in enumerate(scan.targets):
        entries = [(k, j, f"A{k + 1 if scan.order > 1 else ''}{f'[{i},{j}]' if len(scan.targets) > 1 else ''}")
                   for k, m in enumerate(scan.A) for j in range(len(scan.targets)) if m[i, j] != 0]
        terms = [f"{name}*{scan.back(scan.targets[j], k + 1)}" for k, j, name in entries]
        lines.append(f"  {f'{state}[t] = ' + ' + '.join([*terms, 'b']):<40}  {kind if i == 0 else '':<26}  {where[state]}")
        lines += [f"      {name} = {_read(spec, scan.A[k][i, j])}" for k, j, name in entries]
        lines.append(f"      b = {_read(spec, scan.b[i])}")
    return lines


def _runs(plan: Plan) -> list[str]:
    """The steps of the plan, a line each."""
    lines = [f"Runs, in order: {_count(len(plan.steps), 'step')}"]
    for number, step in enumerate(plan.steps, 1):
        if isinstance(step, Dense):
            maps = ", ".join(dict.fromkeys(b.affine for b in step.blocks))
            lines += textwrap.wrap(f"{number}. one matrix product with {step.multiplied}: {maps}", WIDTH,
                                   initial_indent="  ", subsequent_indent="     ")
        elif isinstance(step, Sized):
            lines.append(f"  {number}. {step}")
        elif isinstance(step, Stage):
            scans = [f"{s}[t]" for x in step.program.steps if isinstance(x, Recurrent) for s in x.targets]
            writes = ", ".join(f"{n} every {k.every} steps" if k.every else n
                               for k in step.program.keeps for n in k.samples) or "last values only"
            solves = f"solves {', '.join(scans)}; " if scans else ""
            over = _way(step.program) if len({p.reverse for p in plan.programs}) == 2 else "over time"
            name, solver = step.program.name, step.program.solver
            passes = f"one fused pass {over}, {name}" if not solver else \
                f"up to {solver.max_iter} fused passes {over}, {name}_newton, then {name}_solved (or {name} alone)"
            lines.append(f"  {number}. {passes}: {solves}writes {writes}")
    return lines


def _way(program: Program) -> str:
    return "from the right" if program.reverse else "from the left"


def _backward(plan: Plan, programs: tuple[Program, ...]) -> list[str]:
    kept = [n for p in plan.programs for k in p.keeps if k.inner and not k.every for n in k.samples]
    borders = {n: k.every for p in plan.programs for k in p.keeps if k.every for n in k.samples}
    returned = {sample for _, sample in plan.outputs}
    read = list(dict.fromkeys(c for p in programs for b in p.buffers for c in b.columns
                              if c in returned or any(c in k.samples for f in plan.programs for k in f.keeps)))
    scans = Counter(_way(p) for p in programs for s in p.steps if isinstance(s, Scan))
    recurrences = " and ".join(f"{_count(n, 'recurrence')} {way}" for way, n in scans.items()) or "no recurrence"
    lines = [f"Backward: {_count(len(programs), 'fused pass', 'es')}, {recurrences}"]
    said = [f"computes {', '.join(borders)} again, from what is kept every {max(borders.values())} steps"] if borders else []
    if read or not borders:
        said.append(f"reads {', '.join(read) or 'no state'} again" + (f" ({', '.join(kept)} kept for it)" if kept else ""))
    return [*lines, f"  {'; '.join(said)}; everything else is recomputed from the inputs"]


def _kernels(target: str, kernels: Kernels) -> list[str]:
    """A line a Program, with the strategies that it has kernels for, and when each of them runs."""
    of_program: dict[tuple[str, str], list[Kernel]] = {}
    for stage, group in kernels.items():
        for kernel in group:
            of_program.setdefault((stage, kernel.program.name), []).append(kernel)
    lines = []
    for (stage, name), own in of_program.items():
        read, written = own[0].bytes
        first = [k for k in own if k.strategy not in ("gathered", *CHAINED)]
        ways = " or ".join(f"chunks of {k.chunk}" if k.chunk else k.strategy for k in first)
        ways += ", chained" if any(k.strategy in CHAINED for k in own) else ""
        lines.append(f"  {target:<5}{ways:<24}{name:<30}{stage:<10}reads {read:>3g}, writes {written:>3g}")
    reasons = dict.fromkeys(k.reason for own in of_program.values() for k in own)
    return lines + [line for reason in reasons for line in textwrap.wrap(
        reason, WIDTH, initial_indent="       ", subsequent_indent="         ")]


def _memory(spec: Spec, memory: Footprint, dtype: str) -> list[str]:
    """What the sequences of a layer hold between the passes, and at most."""
    own = [f"{', '.join(names)} {size:g}" for names, size in memory.saved]
    beside = [n for n in memory.beside if n not in spec.names("first")]
    parts = [*own, *([f"and {', '.join(beside)}"] if beside else [])]
    said = f"saved for the backward pass: {memory.total:g}" + (f" ({'; '.join(parts)})" if parts else "")
    saved = textwrap.wrap(said, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return [f"Memory, {dtype} (bytes a step and channel, beside the inputs)", *saved,
            f"  at most at once, forward and backward: {memory.peak:g}"]


def _carried(plan: Plan) -> str:
    states = [f"{s.name}{f' ({s.depth} steps)' if s.depth > 1 else ''}{f' ({s.size} a channel)' if s.size else ''}"
              for s in plan.carried]
    inputs = [f"{s.name} ({_count(s.depth, 'step')})" for s in plan.sequences if not s.state]
    text = f"h_n: {', '.join(states) or 'nothing; no state is read at a lag'}"
    if plan.both_ways:
        return f"{text}; no Carry, because {plan.both_ways}"
    return text + (f"; a Carry holds {', '.join(inputs)} as well" if inputs else "")
