"""The mistakes of writing that show only when the whole cell has been read."""

from __future__ import annotations

from ..errors import BadDeclaration, BothDirections, CellError, CyclicStates, NoUpdate, ShapeMismatch, UnusedName
from ..ir.spec import Equation, MapCall, Spec
from ..ir.symbols import params
from ..location import Location
from .axes import axes


def review(spec: Spec, *, complete: bool) -> list[CellError]:
    """Missing equations, unused names, circles, recurrences in both directions. `complete`: the body ran to its end."""
    errors: list[CellError] = []
    if complete:
        errors += [*_names(spec), *sizes(spec), *axes(spec), *_circles(spec)]
    return errors + _directions(spec)


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
        elif d.kind not in ("state", "first") and d.name not in needed:
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


def sizes(spec: Spec) -> list[CellError]:
    """An input or a map's value with a size of its own has no channels: only a dense map may read it."""
    sized = {d.name: d.option("size") for d in spec.of("input") if d.option("size") != "channel"}
    mapped = {s.target: spec[s.affine] for s in spec.statements if isinstance(s, MapCall) and spec[s.affine].option("size")}
    errors: list[CellError] = []
    for s in spec.statements:
        plain = s.operands if isinstance(s, MapCall) else ()
        for name in dict.fromkeys(r.base for r in s.reads() if r.base in mapped and r not in plain):
            said, map = mapped[name].option("size"), mapped[name].name
            many = "as many numbers a step as the input" if said == "input" else f"{said} numbers a step"
            errors.append(ShapeMismatch(f"{map} gives {many}, not one a channel: only dense maps and outputs can read it",
                                        s.where, f"map it: declare gate: lr.Affine and write gate({map}(…)); or take size out"))
        for name in dict.fromkeys(r.base for r in s.reads() if r.base in sized and r not in plain):
            errors.append(ShapeMismatch(f"{name} has {sized[name]} numbers a step, not one a channel: only dense maps can "
                                        f"read it", s.where, f"map it: gate({name}[t]); or declare {name}: lr.Input"))
    return errors


def _directions(spec: Spec) -> list[CellError]:
    """A recurrence reads its own states backwards, or ahead: what is solved may be read on both sides."""
    return [BothDirections(
        f"{' and '.join(states)} {'is' if len(states) == 1 else 'are one recurrence,'} read from the past and from the future, "
        f"so that neither direction can compute {'it' if len(states) == 1 else 'them'}",
        max(found.values(), key=lambda w: w.line), "use two states, one a direction")
        for states, found in recurrences(spec).items() if len(found) == 2]


def recurrences(spec: Spec) -> dict[tuple[str, ...], dict[int, Location]]:
    """The states of each recurrence, with the sides on which it reads itself (-1: earlier, +1: later), and where."""
    needs = {s.target: {r.base for r in s.reads()} for s in spec.statements}
    comes_from = {name: _reached(name, needs) for name in needs}
    found: dict[tuple[str, ...], dict[int, Location]] = {}
    for statement in spec.statements:
        name = statement.target
        for read in statement.reads():
            if read.lag and name in comes_from.get(read.base, ()):
                states = tuple(n for n in spec.names("state") if n in comes_from[name] and name in comes_from.get(n, ()))
                found.setdefault(states, {}).setdefault(1 if read.lag > 0 else -1, statement.where)
    return found


def _reached(name: str, needs: dict[str, set[str]]) -> set[str]:
    """Everything that a name's value comes from, at any step."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        new = needs.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


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
