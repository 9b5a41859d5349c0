"""From Spec to Strata: which values depend on which, and which of them recur.

A group is a set of values that depend on each other through time (a strongly connected component); one without a cycle is a
plain value. Groups come in an order in which each reads only earlier ones, at any lag.
Holds afterwards: no group with a cycle contains a dense map.
Non-goals: whether a recurrence is linear (`extract`), where a program ends (`partition`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CellError, NotLinear, raise_all
from ..ir.spec import Equation, MapCall, Spec, Statement


@dataclass(frozen=True)
class Group:
    """Statements that depend on each other through time, in the order of their values at one step."""

    statements: tuple[Statement, ...]
    recurrent: bool

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(s.target for s in self.statements)

    @property
    def reverse(self) -> bool:
        """Whether the recurrence runs from the right: it reads itself ahead."""
        return any(r.lag > 0 and r.base in self.targets for s in self.statements for r in s.reads())

    def __str__(self) -> str:
        return f"{'recurrence' if self.recurrent else 'value'} {', '.join(self.targets)}"


@dataclass(frozen=True)
class Strata:
    """The groups of a cell in order."""

    spec: Spec
    groups: tuple[Group, ...]

    def __str__(self) -> str:
        return "\n".join([f"strata {self.spec.name}", *(f"  {g}" for g in self.groups)])


def stratify(spec: Spec) -> Strata:
    """Group the statements; NotLinear for each state that a dense map feeds back."""
    statement = {s.target: s for s in spec.statements}
    needs = {s.target: list(dict.fromkeys(r.base for r in s.reads() if r.base in statement)) for s in spec.statements}
    groups = []
    for names in _components(needs):
        recurrent = len(names) > 1 or names[0] in needs[names[0]]
        groups.append(Group(_at_one_step([statement[n] for n in names]), recurrent))
    raise_all([e for g in groups if g.recurrent for e in _fed_back(g, spec)])
    return Strata(spec, tuple(groups))


def _fed_back(group: Group, spec: Spec) -> list[CellError]:
    """A NotLinear for each state of the group that its dense maps read."""
    errors: list[CellError] = []
    kind = "a recurrence" if spec.solver else "a linear recurrence"
    calls = [s for s in group.statements if isinstance(s, MapCall)]
    own = [n for n in spec.names("state") if n in group.targets]
    for state in own:
        feeding = [c for c in calls if any(r.base == state for r in c.reads())]
        if feeding:
            read = next(r for r in feeding[0].reads() if r.base == state)
            maps = ", ".join(dict.fromkeys(c.affine for c in feeding))
            errors.append(NotLinear(
                f"{state}[t] depends on {read} through the dense map{'s' * (len(feeding) > 1)} {maps}, so that it is not "
                f"{kind} channel by channel", feeding[0].where,
                f"give {state} a linear surrogate: {_surrogate(spec, state)}, or read an input there"))
    if calls and not errors:
        errors.append(NotLinear(
            f"{own[0]}[t] depends on its own past through the dense map {calls[0].affine}, so that it is not {kind} "
            f"channel by channel", calls[0].where,
            f"give {own[0]} a linear surrogate: {_surrogate(spec, own[0])}, or read an input there"))
    return errors


def _surrogate(spec: Spec, state: str) -> str:
    if spec[state].complex:
        return f"lr.surrogate({spec.name}, {state}=…) with a linear cell of complex values"
    return f"lr.surrogate({spec.name}, {state}=lr.cells.gilr)"


def _at_one_step(statements: list[Statement]) -> tuple[Statement, ...]:
    """Sorted so that each statement comes after those it reads at lag 0; else in the order written."""
    names = {s.target for s in statements}
    done: dict[str, Statement] = {}

    def visit(s: Statement) -> None:
        for r in s.reads():
            if r.lag == 0 and r.base in names and r.base not in done:
                visit(next(o for o in statements if o.target == r.base))
        done.setdefault(s.target, s)

    for s in statements:
        visit(s)
    return tuple(done.values())


def _components(needs: dict[str, list[str]]) -> list[list[str]]:
    """Tarjan's strongly connected components: each after those it needs, members in the order of `needs`."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in needs[v]:
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            component = [stack.pop()]
            while component[-1] != v:
                component.append(stack.pop())
            found.append([n for n in needs if n in component])

    for v in needs:
        if v not in index:
            visit(v)
    return found


__all__ = ["Equation", "Group", "Strata", "stratify"]
