"""A cell as text, and what can be read off it without lrdsl: which way its states run, and in which order they are known."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Line:
    """`target = text`, or `target[t] = text` of a state. stratum: which recurrence it belongs to; way: the side of t on which a
    state reads itself."""

    target: str
    text: str
    state: bool
    stratum: int = 0
    way: int = -1


@dataclass(frozen=True)
class Written:
    """A cell as text. signature: (name, kind, its default value as text or ""); outputs: (name in a dict or "", text);
    features: those of `forms.FEATURES` that it may have."""

    name: str
    signature: tuple[tuple[str, str, str], ...]
    lines: tuple[Line, ...]
    outputs: tuple[tuple[str, str], ...]
    features: frozenset[str] = frozenset()

    def of(self, *kinds: str) -> tuple[str, ...]:
        """The names of some kinds, in the order of the signature."""
        return tuple(n for n, kind, _ in self.signature if kind in kinds)

    @property
    def source(self) -> str:
        """Python; a name of the signature and a statement a line."""
        said = [f"    {n}: lr.{kind}{f' = lr.{kind}({default})' if default else ''}," for n, kind, default in self.signature]
        body = [f"    {line.target}{'[t]' if line.state else ''} = {line.text}" for line in self.lines]
        if self.outputs[0][0]:
            result = "{" + ", ".join(f'"{n}": {e}' for n, e in self.outputs) + "}"
        else:
            result = ", ".join(e for _, e in self.outputs)
        return "\n".join(["@lr.cell", f"def {self.name}(", *said, "):", *body, f"    return {result}", ""])

    def has(self, name: str, option: str) -> bool:
        """Whether a name is declared with an option."""
        return any(n == name and f"{option}=" in said for n, _, said in self.signature)

    @property
    def texts(self) -> tuple[str, ...]:
        """All expressions."""
        return (*(line.text for line in self.lines), *(e for _, e in self.outputs))

    @property
    def reverse(self) -> bool:
        """Whether the first recurrence runs from the right."""
        return next(line.way for line in self.lines if line.state) > 0

    @cached_property
    def sides(self) -> dict[str, int]:
        """The side that each state's run comes from, in the order of the signature, of those that are read at a lag: for one
        that is no recurrence the side on which it is read, or that of the first recurrence."""
        reads = {n: {1 if sign == "+" else -1 for text in self.texts for sign in re.findall(rf"\b{n}\[t ([+-])", text)}
                 for n in self.of("State")}
        ways = {line.target: line.way for line in self.lines if line.state}
        needs = {line.target: set(re.findall(r"\w+", line.text)) for line in self.lines}
        recurs = [n for n in ways if n in _reached(n, needs)]
        first = next((ways[n] for n in self.of("State") if n in recurs), -1)
        return {n: ways[n] if n in recurs else first if len(way) == 2 else min(way) for n, way in reads.items() if way}

    @property
    def both_ways(self) -> bool:
        """Whether some state is read against the run of another, or of itself, so that no order of steps knows all reads."""
        signs = {sign for n in self.of("State") for text in self.texts for sign in re.findall(rf"\b{n}\[t ([+-])", text)}
        return len(signs) == 2

    @property
    def sweeps(self) -> tuple[tuple[int, frozenset[str]], ...]:
        """How the text is to be run over time: (way, the states that are set meanwhile). Both ways take a sweep a stratum, and
        one for what the outputs read."""
        states = [line for line in self.lines if line.state]
        if not self.both_ways:
            return ((1 if self.reverse else -1, frozenset(line.target for line in states)),)
        strata = sorted({(line.stratum, line.way) for line in states})
        return (*((way, frozenset(s.target for s in states if s.stratum == n)) for n, way in strata), (-1, frozenset()))


def _reached(name: str, needs: dict[str, set[str]]) -> set[str]:
    """Everything that a name's value comes from, at any step."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        new = needs.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


def at(name: str, lag: int) -> str:
    """`x[t - 1]`."""
    return f"{name}[t {'-' if lag < 0 else '+'} {abs(lag)}]" if lag else f"{name}[t]"


def tidy(text: str) -> str:
    """An expression with no more brackets than it needs."""
    return ast.unparse(ast.parse(text, mode="eval"))


def mirror(text: str) -> str:
    """An expression with every lag of the other sign."""
    return re.sub(r"\[t ([-+]) ", lambda m: f"[t {'+' if m[1] == '-' else '-'} ", text)
