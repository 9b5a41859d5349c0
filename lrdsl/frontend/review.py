"""The mistakes of writing that show only when the whole cell has been read."""

from __future__ import annotations

from ..errors import BadDeclaration, BothDirections, CellError, CyclicStates, NotBuilt, NoUpdate, ShapeMismatch, UnusedName
from ..ir.spec import Equation, MapCall, Spec
from ..ir.symbols import params
from ..location import Location
from .axes import axes


def review(spec: Spec, *, complete: bool) -> list[CellError]:
    """Missing equations, unused names, states in a circle, both directions. `complete`: the body ran to its end."""
    errors: list[CellError] = []
    if complete:
        errors += [*_names(spec), *_sizes(spec), *axes(spec), *_circles(spec)]
    return errors + directions(spec)


def _names(spec: Spec) -> list[CellError]:
    errors: list[CellError] = []
    updated = {s.target for s in spec.statements if isinstance(s, Equation) and s.state}
    read = {s.base for statement in spec.statements for s in statement.reads()} | {e.base for _, e in spec.outputs}
    needed = _needed(spec)
    for d in spec.declared:
        if d.kind == "state" and d.name not in updated:
            errors.append(NoUpdate(f"the state {d.name} has no equation", d.where, f"set it: {d.name}[t] = …"))
        elif d.kind == "state" and d.name not in read:
            errors.append(UnusedName(f"the state {d.name} is set, but nothing reads or returns it", d.where,
                                     f"return {d.name}[t], or take it out"))
        elif d.kind != "state" and d.name not in needed:
            errors.append(UnusedName(f"the {d.kind} {d.name} is declared, but no equation needs it", d.where,
                                     "use it, or take it out of the signature"))
    if not spec.of("input"):
        errors.append(BadDeclaration(f"{spec.name} has no Input, so that its length is unknown", spec.where,
                                     "declare one: x: lr.Input"))
    return errors


def _needed(spec: Spec) -> set[str]:
    """The declared names that an output or a state comes from; a line of the body that nothing reads needs nothing."""
    statements = {s.target: s for s in spec.statements}
    waiting = [e.base for _, e in spec.outputs] + [s.target for s in spec.statements if isinstance(s, Equation) and s.state]
    seen: set[str] = set()
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        statement = statements.get(name)
        if statement is None:
            found.add(name)
        elif name not in seen:
            seen.add(name)
            waiting += [s.base for s in statement.reads()]
            exprs = statement.operands if isinstance(statement, MapCall) else (statement.expr,)
            found |= {str(p) for e in exprs for p in params(e)}
            found |= {statement.affine} if isinstance(statement, MapCall) else set()
    return found


def _sizes(spec: Spec) -> list[CellError]:
    """An input with a size of its own has no channels: only a dense map may read it."""
    sized = {d.name: d.option("size") for d in spec.of("input") if d.option("size") != "channel"}
    errors: list[CellError] = []
    for s in spec.statements:
        plain = s.operands if isinstance(s, MapCall) else ()
        for name in dict.fromkeys(r.base for r in s.reads() if r.base in sized and r not in plain):
            errors.append(ShapeMismatch(f"{name} has {sized[name]} numbers a step, not one a channel: only dense maps can "
                                        f"read it", s.where, f"map it: gate({name}[t]); or declare {name}: lr.Input"))
    return errors


def directions(spec: Spec) -> list[CellError]:
    """States read only backwards, or only ahead; one direction in all (two need two passes, which come later)."""
    errors: list[CellError] = []
    ways: dict[str, dict[int, Location]] = {}
    for statement in spec.statements:
        for s in statement.reads():
            if s.lag and s.base in spec.names("state"):
                ways.setdefault(s.base, {}).setdefault(1 if s.lag > 0 else -1, statement.where)
    for state, found in ways.items():
        if len(found) == 2:
            errors.append(BothDirections(
                f"{state} is read from the past and from the future, so that neither direction can compute it",
                max(found.values(), key=lambda w: w.line), "use two states, one a direction"))
    single = {state: next(iter(found)) for state, found in ways.items() if len(found) == 1}
    if not errors and len(set(single.values())) == 2:
        back = next(s for s, way in single.items() if way < 0)
        ahead = next(s for s, way in single.items() if way > 0)
        errors.append(NotBuilt(f"{back} runs from the left and {ahead} from the right: forward and reverse states in one "
                               f"cell are part of the language but not built yet", spec.where,
                               "write two cells and feed one's output to the other"))
    return errors


def _circles(spec: Spec) -> list[CellError]:
    """Values that need each other at the same step."""
    needs = {s.target: [r.base for r in s.reads() if r.lag == 0] for s in spec.statements}
    where = {s.target: s.where for s in spec.statements}
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name):]
        if name in done or name not in needs:
            return []
        for other in needs[name]:
            circle = visit(other, [*path, name])
            if circle:
                return circle
        done.add(name)
        return []

    for name in needs:
        circle = visit(name, [])
        if circle:
            chain = " -> ".join(f"{n}[t]" for n in [*circle, circle[0]])
            return [CyclicStates(f"values need each other at the same step: {chain}", where[circle[0]],
                                 f"read one of them a step earlier: {circle[-1]}[t-1]")]
    return []
