"""`lr.surrogate`: the paper's framework (Martin & Cundy 2018, section 3.2).

A linear surrogate RNN decouples the two uses of a state: s[t] = f(s~[t-1], x[t]) reads, inside its dense maps, the previous
value of a linearly computable s~ instead of its own.
"""

from __future__ import annotations

import linecache
import re
from dataclasses import replace
from typing import Any

from ..errors import BadDeclaration, BothDirections, CellError, NotBuilt, UnknownName, UnusedName, raise_all
from ..ir.spec import Equation, MapCall, Spec, Statement
from ..ir.symbols import At, Param, params, samples
from ..location import Location, caller
from .axes import axes
from .cell import Cell
from .review import directions


def surrogate(cell: Cell, *, delay: int = 1, **surrogates: Cell) -> Cell:
    """The linear surrogate of a nonlinear cell: `lr.surrogate(lstm, h=gilr)`.

    Inside the dense maps of `cell`, the previous value of each named state is read from its surrogate, a cell whose Inputs
    bind by name to those of `cell`: at t-1 (`delay=1`, the paper's equations) or at t (`delay=0`, the paper's code). The
    surrogate's names get the state's name in front: `h.gate`. The replaced state keeps its equation and loses its carry.

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
        elif not any(_previous(r, state) for s in _written_out(spec, state) if isinstance(s, MapCall) for r in s.reads()):
            errors.append(UnusedName(f"no dense map of {spec.name} reads {state}[t-1], so that it needs no surrogate",
                                     where, "leave it out"))
    raise_all(errors)
    for state, other in surrogates.items():
        spec = _replace(spec, state, other.spec, delay)
    if directions(spec):
        raise BothDirections(f"{', '.join(c.name for c in surrogates.values())} and {cell.name} run in opposite directions",
                             where, "write both for the same direction; lr.RNN(…, bidirectional=True) mirrors the whole")
    raise_all(axes(spec))
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


def _previous(sample: At, state: str) -> bool:
    return sample.base == state and abs(sample.lag) == 1


def _written_out(spec: Spec, state: str) -> list[Statement]:
    """The statements, and in what a dense map reads the lines that come from the state's previous value, written out."""
    lines = {At(s.target): s.expr for s in spec.statements if isinstance(s, Equation) and not s.state}

    def out(expr: Any) -> Any:
        inner = {s: out(lines[s]) for s in samples(expr) if s in lines}
        return expr.xreplace({s: e for s, e in inner.items() if any(_previous(r, state) for r in samples(e))})

    return [replace(s, operands=tuple(map(out, s.operands))) if isinstance(s, MapCall) else s for s in spec.statements]


def _replace(spec: Spec, state: str, other: Spec, delay: int) -> Spec:
    inner = _prefixed(other, state)
    value = inner.outputs[0][1]
    statements = []
    for s in _written_out(spec, state):
        if isinstance(s, MapCall):
            turn = {r: At(value.base, r.lag * delay) for r in s.reads() if _previous(r, state)}
            s = replace(s, operands=tuple(o.xreplace(turn) for o in s.operands))
        statements.append(s)
    read = f"{value.base}[t-1]" if delay else f"{value.base}[t]"
    note = f"surrogate: the dense maps read {read}, of {other.name}, instead of {state}[t-1]"
    return replace(spec, declared=spec.declared + tuple(d for d in inner.declared if d.kind != "input"),
                   statements=inner.statements + tuple(statements), notes=(*spec.notes, *inner.notes, note))


def _prefixed(spec: Spec, state: str) -> Spec:
    """The surrogate with the state's name in front of all its names but the inputs'."""
    inputs = set(spec.names("input"))

    def name(n: str) -> str:
        return n if n in inputs else f"{state}.{n}"

    def expr(e: Any) -> Any:
        turn: dict[Any, Any] = {s: At(name(s.base), s.lag) for s in samples(e)}
        return e.xreplace(turn | {p: Param(name(str(p))) for p in params(e)})

    statements = tuple(
        replace(s, target=name(s.target), expr=expr(s.expr)) if isinstance(s, Equation) else
        replace(s, target=name(s.target), affine=name(s.affine), operands=tuple(expr(o) for o in s.operands))
        for s in spec.statements)
    return replace(spec, declared=tuple(replace(d, name=name(d.name)) for d in spec.declared), statements=statements,
                   outputs=tuple((n, expr(e)) for n, e in spec.outputs))
