"""`lr.surrogate`: the paper's framework (Martin & Cundy 2018, section 3.2).

A linear surrogate RNN decouples the two uses of a state: s[t] = f(s~[t-1], x[t]) reads, inside its dense maps, the previous
value of a linearly computable s~ instead of its own.
"""

from __future__ import annotations

import linecache
import re
from dataclasses import replace
from typing import Any

from ..errors import BadDeclaration, CellError, NotBuilt, UnknownName, UnusedName, raise_all
from ..ir.complex import is_complex
from ..ir.spec import Equation, MapCall, Spec, Statement
from ..ir.symbols import At, Param, params, samples
from ..ir.text import show
from ..location import Location, caller
from .axes import axes
from .cell import Cell
from .count import M, N, learned
from .review import recurrences, sizes


def surrogate(cell: Cell, *, delay: int = 1, **surrogates: Cell) -> Cell:
    """The linear surrogate of a nonlinear cell: `lr.surrogate(lstm, h=gilr)`.

    Inside the dense maps of `cell`, the previous value of each named state is read from its surrogate, a cell whose Inputs
    bind by name to those of `cell`: at t-1 (`delay=1`, the paper's equations) or at t (`delay=0`, the paper's code). The
    surrogate's names get the state's name in front: `h.gate`. The replaced state keeps its equation and loses its carry. In a
    cell that runs from the right the previous value is that at t+1; the surrogate itself may run either way.

    A surrogate without a state is a convolution; `return x[t], x[t-1]` is a bare window of the input, the paper's reading of
    the QRNN and the strongly-typed RNNs. The operand of each map that reads the state stands there once for each output of the
    surrogate, in order, and its columns of the weight with it. Before the first step and across a boundary a surrogate is the
    initial value of its state, and 0 where it returns anything else.

    Raises UnknownName for a state that `cell` does not have or an input that does not bind; UnusedName where no dense map
    reads the state's previous value.
    """
    where = caller()
    if not isinstance(cell, Cell):
        raise BadDeclaration(f"lr.surrogate was given {cell!r}, not a cell", where, "declare it with @lr.cell")
    if delay not in (0, 1):
        raise BadDeclaration(f"delay={delay!r}: a surrogate is read at t-1 (delay=1) or at t (delay=0)", where,
                             "write delay=1, or leave it out")
    if not surrogates:
        raise BadDeclaration("lr.surrogate names no state", where, f"write lr.surrogate({cell.name}, h=lr.cells.gilr)")
    errors: list[CellError] = []
    spec = cell.spec
    previous = {state: _previous(spec, state) for state in surrogates}
    for state, other in surrogates.items():
        if not isinstance(other, Cell):
            errors.append(NotBuilt(f"the surrogate of {state} is {other!r}; only cells can be surrogates yet", where,
                                   "declare it with @lr.cell"))
        elif state not in spec.names("state"):
            errors.append(UnknownName(f"{spec.name} has no state {state}", where,
                                      f"its states are {', '.join(spec.names('state'))}"))
        elif missing := sorted(set(other.spec.names("input")) - set(spec.names("input"))):
            errors.append(UnknownName(f"the surrogate {other.name} of {state} reads {', '.join(missing)}, which "
                                      f"{spec.name} has not", where, "inputs bind by name: rename them"))
        elif clash := _clash(spec, state, other.spec):
            errors.append(BadDeclaration(clash, where, "declare both real, or both with complex=True"))
        elif not any(previous[state].intersection(s.reads()) for s in _written_out(spec, previous[state])
                     if isinstance(s, MapCall)):
            errors.append(UnusedName(f"no dense map of {spec.name} reads {max(previous[state], key=str)}, so that it needs no "
                                     "surrogate", where, "leave it out"))
    raise_all(errors)
    for state, other in surrogates.items():
        spec = _replace(spec, state, previous[state], other.spec, delay)
    raise_all([*sizes(spec), *axes(spec)])
    what = ", ".join(f"{c.name} as the linear surrogate of {s}" for s, c in surrogates.items())
    doc = f"{cell.name} with {what}, read at {'t-1' if delay else 't'}.\n\n{cell.spec.doc}".rstrip()
    line = linecache.getline(where.file, where.line).strip()
    parts = dict.fromkeys(c.spec.source.strip() for c in (*surrogates.values(), cell))
    source = "\n\n".join([*parts, line]) + "\n" if line and all(parts) else ""
    return Cell(replace(spec, name=_name(where, cell, surrogates, delay), doc=doc, where=where, source=source).check())


def _name(where: Location, cell: Cell, surrogates: dict[str, Cell], delay: int) -> str:
    """The name that the user's line assigns to; else one made of the parts."""
    assigned = re.match(r"\s*([A-Za-z_]\w*)\s*(?::[^=]+)?=[^=]", linecache.getline(where.file, where.line))
    if assigned:
        return assigned.group(1)
    return "_".join([cell.name, *(f"{s}_{c.name}" for s, c in surrogates.items())]) + ("_delay0" if delay == 0 else "")


def _previous(spec: Spec, state: str) -> frozenset[At]:
    """The sample that is a state's previous value: by its recurrence h[t-1] or h[t+1], either of them if it is none."""
    sides = next((found for states, found in recurrences(spec).items() if state in states), (-1, 1))
    return frozenset(At(state, side, state in spec.complex) for side in sides)


def _clash(spec: Spec, state: str, other: Spec) -> str:
    """Where one cell has complex values and the other real ones; "" where they agree."""
    kind = {True: "complex", False: "real"}
    pairs = [(f"the input {n}", other[n].complex, spec[n].complex) for n in other.names("input")]
    pairs += [(f"the value for {state}", e.complex, spec[state].complex) for _, e in other.outputs]
    return next((f"{what} is {kind[a]} in {other.name} and {kind[b]} in {spec.name}" for what, a, b in pairs if a != b), "")


def _written_out(spec: Spec, previous: frozenset[At]) -> list[Statement]:
    """The statements, and in what a dense map reads the lines that come from the state's previous value, written out."""
    lines = {At(s.target, complex=is_complex(s.expr)): s.expr for s in spec.statements
             if isinstance(s, Equation) and not s.state}

    def out(expr: Any) -> Any:
        inner = {s: out(lines[s]) for s in samples(expr) if s in lines}
        return expr.xreplace({s: e for s, e in inner.items() if previous.intersection(samples(e))})

    return [replace(s, operands=tuple(map(out, s.operands))) if isinstance(s, MapCall) else s for s in spec.statements]


def _replace(spec: Spec, state: str, previous: frozenset[At], other: Spec, delay: int) -> Spec:
    inner, values = _bare(_prefixed(other, state))
    statements: list[Statement] = []
    maps: dict[str, None] = {}
    read: dict[At, list[At]] = {}
    for s in _written_out(spec, previous):
        if isinstance(s, MapCall) and previous.intersection(s.reads()):
            turns = [{r: value.shift(r.lag * delay) for r in s.reads() if r in previous} for value in values]
            for was in turns[0]:
                read[was] = [turn[was] for turn in turns]
            operands = ([o.xreplace(turn) for turn in turns] if previous.intersection(samples(o)) else [o] for o in s.operands)
            s = replace(s, operands=tuple(o for group in operands for o in group))
            maps[s.affine] = None
        statements.append(s)
    made = replace(spec, declared=spec.declared + tuple(d for d in inner.declared if d.kind != "input"),
                   statements=inner.statements + tuple(statements), notes=spec.notes + inner.notes)
    instead = ", and ".join(f"{', '.join(map(str, now))}, of {other.name}, instead of {was}" for was, now in read.items())
    return replace(made, notes=(*made.notes, f"surrogate: the dense maps {', '.join(maps)} read {instead}",
                                f"surrogate: {_cost(learned(made) - learned(spec))}"))


def _cost(more: Any) -> str:
    """In parameters."""
    letters = " and ".join(text for letter, text in ((M, "m inputs"), (N, "n hidden")) if more.has(letter))
    said = "no parameter more or fewer" if more == 0 else f"{show(more)} parameters more"
    if more.could_extract_minus_sign():
        said = f"{show(-more)} parameters fewer"
    return f"{said}, for {letters}" if letters else said


def _bare(spec: Spec) -> tuple[Spec, list[At]]:
    """The samples that a cell returns. A line that only names a sample is left out: a bare input has its own size, which no
    line of channels has."""
    lines = {s.target: s.expr for s in spec.statements if isinstance(s, Equation) and not s.state and isinstance(s.expr, At)}
    values: list[At] = [lines.get(e.base, e) for _, e in spec.outputs]
    read = {r.base for s in spec.statements for r in s.reads()}
    kept = tuple(s for s in spec.statements if s.target not in lines or s.target in read)
    return replace(spec, statements=kept), values


def _prefixed(spec: Spec, state: str) -> Spec:
    """The surrogate with the state's name in front of all its names but the inputs'."""
    inputs = set(spec.names("input"))

    def name(n: str) -> str:
        return n if n in inputs else f"{state}.{n}"

    def expr(e: Any) -> Any:
        turn: dict[Any, Any] = {s: At(name(s.base), s.lag, s.complex) for s in samples(e)}
        return e.xreplace(turn | {p: Param(name(str(p)), p.complex) for p in params(e)})

    statements = tuple(
        replace(s, target=name(s.target), expr=expr(s.expr)) if isinstance(s, Equation) else
        replace(s, target=name(s.target), affine=name(s.affine), operands=tuple(expr(o) for o in s.operands))
        for s in spec.statements)
    return replace(spec, declared=tuple(replace(d, name=name(d.name)) for d in spec.declared), statements=statements,
                   outputs=tuple((n, expr(e)) for n, e in spec.outputs))
