"""Cells as source text, grown from a table of forms.

Each cell has one meaning and stays tame: gates are at most 0.9, so that no recurrence grows; the argument of a logarithm, a
root or a quotient keeps away from 0. What a kink makes of numbers that are nearly equal is noticed when the text is run (see
`meaning`).
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from hypothesis import strategies as st

X = TypeVar("X")

# The grammar: sort of expression -> its forms, the simplest first; {holes} are sorts again, or what `Grower` knows of the cell:
# {input} {sample} {learned} {map} {past}. To add a production, add a form. To add a sort, add a line, and a hole that reads
# it. A sort's promise must hold for every form: `bounded` lies in [-1, 1], `gate` in [-0.9, 0.9], `linear` is at most as large
# as the largest {past} and linear in it, `value` grows by no more than a few times what it reads. A new function needs its
# meaning in `meaning.FUNCTIONS`; a new kind of name (a state with an axis, complex samples) a list in `Grower.signature`.
FORMS: dict[str, tuple[str, ...]] = {
    "number": ("0.5", "2", "0.25", "-1.5", "3", "0.7"),
    "condition": ("{sample} > {number}", "{input} <= 0.25", "{input} >= {input}", "equal({input}, 0.5)", "{input} < {input}",
                  "{input} >= {learned}", "{sample} < {bounded}", "({condition}) & ({condition})",
                  "({condition}) | ({condition})", "~({condition})"),
    "bounded": ("tanh({value})", "sin({value})", "{input}", "cos({value})", "sigmoid({value})", "{bounded} * {bounded}",
                "where({condition}, {bounded}, {bounded})", "minimum({bounded}, {bounded})", "-{bounded}", "{bounded} ** 2",
                "({bounded} + {bounded}) / 2"),
    "gate": ("0.9 * sigmoid({value})", "{learned}", "{input} * 0.9", "0.5", "0.8 * tanh({value})", "{gate} * {bounded}",
             "-{gate}", "where({condition}, {gate}, {gate})", "exp(-1 - softplus({value}))", "1 / (2.5 + {bounded})",
             "maximum({gate}, {gate})"),
    "value": ("{sample}", "{sample} + {number}", "{value} + {value}", "{value} - {value}", "{bounded} * {value}",
              "{number} * {sample}", "-{value}", "{value} / {number}", "relu({value})", "silu({value})", "gelu({value})",
              "softplus({value})", "abs({value})", "maximum({value}, {value})", "minimum({value}, {value})",
              "logaddexp({value}, {value})", "where({condition}, {value}, {value})", "where({condition}, {bounded}, {value})",
              "where({condition}, {number}, {value})", "exp({bounded})", "expm1({bounded})",
              "log(1.5 + {bounded})", "log1p({bounded} / 2)", "sqrt(1.25 + {bounded})", "{value} / (2 + {bounded})",
              "{bounded} ** 3", "(1.5 + {bounded}) ** -2", "(1.5 + {bounded}) ** 0.5", "detach({value})", "{map}", "{bounded}"),
    "mapped": ("{map}", "sigmoid({map})", "tanh({map})", "{map} * {bounded}"),
    "linear": ("{gate} * {past}", "{past}", "{past} * {gate}", "{past} / 2", "-{linear}", "({linear} + {linear}) / 2",
               "{bounded} * {linear}", "({linear} - {linear}) * 0.5", "where({condition}, {linear}, {linear})"),
}
LEAVES = {"condition": 6}  # so many forms, not the first alone, may stand where a cell is to grow no deeper
HOLE = re.compile(r"{(\w+)}")
LAGS = (0, 0, 0, 1, 1, 2, 0, 1, 0, 3, 0, 1, 8)  # of an input, on either side
BACK = (0, 0, 1, 2, 1, 0, 1, 4)  # of a solved state, against the run
ORDERS = (1, 1, 1, 2, 1, 2, 3, 1, 4, 8)
INPUTS, STATES, LINES, LEARNED, MAPS = "xyz", "hkpq", "fgimow", "uvs", "UVW"


class Dice(Protocol):
    """Makes the choices of which a cell is grown; the first option is the simplest."""

    def pick(self, options: Sequence[X]) -> X:
        """One of the options."""


class Choices:
    """Dice by a seed; or those that were `taken` before, and the simplest options after them."""

    def __init__(self, seed: int | None = None, replay: Sequence[int] = ()) -> None:
        self._random = None if seed is None else random.Random(seed)
        self._replay, self.taken = replay, list[int]()

    def pick(self, options: Sequence[X]) -> X:
        """One of the options."""
        k = len(self.taken)
        if k < len(self._replay):
            number = self._replay[k] % len(options)
        else:
            number = self._random.randrange(len(options)) if self._random else 0
        self.taken.append(number)
        return options[number]


class _Drawn:
    """Dice that hypothesis throws, and shrinks."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def pick(self, options: Sequence[X]) -> X:
        return self._draw(st.sampled_from(options))


@st.composite
def cells(draw: st.DrawFn, small: bool = True) -> Written:
    """The strategy: any cell of the grammar."""
    return grow(_Drawn(draw), small=small)


@dataclass(frozen=True)
class Line:
    """`target = text`, or `target[t] = text` of a state. stratum: which recurrence it belongs to."""

    target: str
    text: str
    state: bool
    stratum: int = 0


@dataclass(frozen=True)
class Written:
    """A cell as text. signature: (name, kind, its default value as text or ""); outputs: (name in a dict or "", text)."""

    name: str
    signature: tuple[tuple[str, str, str], ...]
    lines: tuple[Line, ...]
    outputs: tuple[tuple[str, str], ...]
    reverse: bool

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


def at(name: str, lag: int) -> str:
    """`x[t - 1]`."""
    return f"{name}[t {'-' if lag < 0 else '+'} {abs(lag)}]" if lag else f"{name}[t]"


def tidy(text: str) -> str:
    """An expression with no more brackets than it needs."""
    return ast.unparse(ast.parse(text, mode="eval"))


class Grower:
    """One cell while it grows; a small one compiles in half the time."""

    def __init__(self, dice: Dice, small: bool = False) -> None:
        self.dice, self.small, self.depth = dice, small, 1 if small else 2
        self.reverse = dice.pick([False, False, True])
        self.way = 1 if self.reverse else -1
        self.sides = dice.pick([(self.way,), (-1, 1)])  # where inputs are read
        self.inputs = list(INPUTS[:dice.pick([1, 2, 2, 3])])
        self.learned = list(LEARNED[:dice.pick([0, 1, 2, 3])])
        self.maps = list(MAPS[:dice.pick([0, 0, 1, 2, 3])])
        self.sized = "e" if self.maps and dice.pick([False, False, True]) else ""  # an input that only maps read
        self.operands: dict[str, int] = {}
        self.solved: list[str] = []  # states that are complete
        self.named: list[str] = []  # lines
        self.past: list[str] = []  # what a linear form may read
        self.lines: list[Line] = []
        self.inside_map = False

    def grow(self) -> Written:
        """The whole cell."""
        dice, stratum = self.dice, 0
        left = list(STATES[:dice.pick([1, 1, 2] if self.small else [1, 2, 2, 3, 4])])
        while left:
            group = [left.pop(0) for _ in range(min(len(left), dice.pick([1, 1, 1, 2, 3])))]
            self.stratum(group, stratum)
            stratum += 1
        outputs = [self.spell("value", 1) for _ in range(dice.pick([1, 1, 2] if self.small else [1, 1, 2, 3]))]
        live = self.live(outputs)
        self.lines = [line for line in self.lines if line.state or line.target in live]
        outputs[0] = " + ".join([f"{self.solved[-1]}[t]", *self.unused(outputs), outputs[0]])
        texts = list(dict.fromkeys(tidy(o) for o in outputs))
        named = dice.pick([False, False, True])
        return Written("cell", tuple(self.signature()), tuple(self.lines),
                       tuple((f"y{k}" if named else "", text) for k, text in enumerate(texts)), self.reverse)

    def stratum(self, group: list[str], number: int) -> None:
        """Lines, then the equations of states that need each other's past."""
        dice, way = self.dice, self.way
        for _ in range(dice.pick([0, 1] if self.small else [0, 1, 1, 2])):
            left = [n for n in LINES if n not in self.named]
            if left:
                sort = "mapped" if self.maps and dice.pick([False, True]) else "value"
                self.line(left[0], self.spell(sort, self.depth), False, number)
                self.named.append(left[0])
        order = min(dice.pick(ORDERS), 8 // len(group))
        for k, state in enumerate(group):
            self.past = [at(s, way * lag) for lag in range(1, order + 1) for s in group] + [at(s, 0) for s in group[:k]]
            terms = [at(state, way * order)] if k == 0 else []
            terms = [f"{self.spell('gate', 1)} * {p}" for p in terms]
            terms += [self.spell("linear", self.depth) for _ in range(dice.pick([0, 1] if self.small else [0, 1, 1, 2]))]
            total = " + ".join(f"({term})" for term in terms) or "0"
            if len(terms) > 1:
                total = f"({total}) / {len(terms)}"
            self.line(state, f"{total} + ({self.spell('value', self.depth)})", True, number)
        self.past = []
        self.solved += group

    def line(self, target: str, text: str, state: bool, stratum: int) -> None:
        self.lines.append(Line(target, tidy(text), state, stratum))

    def spell(self, sort: str, depth: int) -> str:
        """An expression of a sort."""
        if sort not in FORMS:
            text: str = getattr(self, f"_{sort}")(depth)
            return f"({text})"
        form = self.dice.pick(FORMS[sort] if depth > 0 or sort == "number" else FORMS[sort][:LEAVES.get(sort, 1)])
        holes = HOLE.findall(form)
        parts = [self.spell(hole, depth - 1) for hole in holes]
        if twice := [part for part in parts if parts.count(part) > 1]:  # x - x is 0, and then nothing needs x
            return f"({twice[0]} > 0.5)" if sort == "condition" and sort not in holes else twice[0]
        left = iter(parts)
        return "(" + HOLE.sub(lambda _: next(left), form) + ")"

    def _input(self, _: int) -> str:
        return at(self.dice.pick(self.inputs), self._lag())

    def _lag(self) -> int:
        lag = self.dice.pick(LAGS)
        return lag * self.dice.pick(self.sides) if lag else 0

    def _past(self, _: int) -> str:
        return self.dice.pick(self.past)

    def _learned(self, _: int) -> str:
        return self.dice.pick(self.learned) if self.learned else self._input(0)

    def _sample(self, depth: int) -> str:
        """A value that is known at this step."""
        sort = self.dice.pick(["input", "state", "line", "input", "learned", "state"])
        if sort == "state" and self.solved:
            return at(self.dice.pick(self.solved), self.way * self.dice.pick(BACK))
        if sort == "line" and self.named:
            return self.dice.pick(self.named)
        return self._learned(0) if sort == "learned" and not self.inside_map else self._input(0)

    def _map(self, depth: int) -> str:
        """A dense map of one to three operands; called again, of as many and of the same sizes."""
        if not self.maps or self.inside_map:
            return self._sample(depth)
        self.inside_map = True
        name = self.dice.pick(self.maps)
        first = name not in self.operands
        count = self.operands.setdefault(name, self.dice.pick([1, 2, 2, 3]) if first else 0)
        operands: list[str] = []
        for _ in range(count):
            how = self.dice.pick(["sample", "later", "again", "sample", "value", "later"])
            if operands and how in ("again", "later"):  # the same sequence, at another lag
                operands.append(operands[-1] if how == "again" else re.sub(r"(\w+)\[t.*?\]", self._elsewhere, operands[-1]))
            else:
                operands.append(f"tanh({self.spell('sample', 0)} + {self._input(0)})" if how == "value" else self._sample(0))
        if self.sized and name == self.maps[0]:
            operands[0] = at(self.sized, self._lag())
        self.inside_map = False
        return f"{name}({', '.join(operands)})"

    def _elsewhere(self, sample: re.Match[str]) -> str:
        name = sample[1]
        return at(name, self.way * self.dice.pick(BACK) if name in self.solved else self._lag())

    def unused(self, outputs: list[str]) -> list[str]:
        """Terms for what the signature has and nothing reads yet."""
        read = set(re.findall(r"\w+", " ".join([*(line.text for line in self.lines), *outputs])))
        terms = [f"{n}[t]" for n in (*self.inputs, *self.solved[:-1]) if n not in read]
        terms += [f"{n} * {self.inputs[0]}[t]" for n in self.learned if n not in read]
        self.maps = [m for m in self.maps if m in read]
        self.sized = self.sized if self.sized in read else ""
        return terms

    def live(self, outputs: list[str]) -> set[str]:
        """The lines that a state or an output comes from."""
        live: set[str] = set()
        waiting = [*outputs, *(line.text for line in self.lines if line.state)]
        texts = {line.target: line.text for line in self.lines if not line.state}
        while waiting:
            new = {n for n in re.findall(r"\w+", waiting.pop()) if n in texts} - live
            live |= new
            waiting += [texts[n] for n in new]
        return live

    def signature(self) -> list[tuple[str, str, str]]:
        """(name, kind, options) of every name that is read."""
        pick = self.dice.pick
        found = [(n, "Input", "") for n in self.inputs]
        found += [(self.sized, "Input", "size=4")] if self.sized else []
        inits = ["", "init=0.5", "init=-0.3", "init=1.25"]
        for k, n in enumerate(self.solved):  # no two the same, which would make ties
            init = pick(["", inits[k] or "init=0.1"])
            learned = bool(self.maps) and pick([False, False, True])
            found.append((n, "State", ", ".join(filter(None, [init, "learned=True" if learned else ""]))))
        found += [(n, pick(["Vector", "Scalar"]), "") for n in self.learned]
        found += [(n, "Affine", pick(["", "", "bias=False", "bias=0.5"])) for n in self.maps]
        return sorted(found, key=lambda s: bool(s[2]))  # as Python wants it


def grow(dice: Dice, name: str = "cell", small: bool = False) -> Written:
    """A cell of the grammar."""
    return replace(Grower(dice, small).grow(), name=name)
