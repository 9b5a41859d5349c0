"""Cells as source text, grown from a table of forms (`forms`).

Each cell has one meaning and stays tame: gates are at most 0.9, so that no recurrence grows; the argument of a logarithm, a
root or a quotient keeps away from 0; a state that starts at infinity is read at a lag behind a maximum or a minimum. What a
kink makes of numbers that are nearly equal is noticed when the text is run (see `meaning`).
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

from .forms import FEATURES, LEAVES, fits, forms_of
from .written import Line, Written, at, tidy

X = TypeVar("X")

HOLE = re.compile(r"{(\w+)}")
LAGS = (0, 0, 0, 1, 1, 2, 0, 1, 0, 3, 0, 1, 8)  # of an input, on either side
BACK = (0, 0, 1, 2, 1, 0, 1, 4)  # of a solved state, against the run
ORDERS = (1, 1, 1, 2, 1, 2, 3, 1, 4, 8)
INPUTS, STATES, LINES, LEARNED, MAPS = "xyz", "hkpq", "fgimow", "uvs", "UVW"
SIZED, WIDE, COMPLEX, ROOT, COMPLEX_MAP, MASK = "encrRb"  # names that are there once: inputs of a size, of an axis …
AXES = (2, 3, 1, 5)
FOLDS = {"maximum": -1, "minimum": 1, "logaddexp": -1}  # and the sign of the infinity that changes no sum


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


class Grower:
    """One cell while it grows; a small one compiles in half the time."""

    def __init__(self, dice: Dice, small: bool = False) -> None:
        self.dice, self.small, self.depth = dice, small, 1 if small else 2
        pick = dice.pick
        self.features = frozenset[str]()
        for feature in (pick(["", "", "", "", *FEATURES]), pick(["", "", "", "", *FEATURES])):
            if feature and fits(self.features | {feature}):
                self.features |= {feature}
        self.forms = forms_of(self.features)
        self.way = pick([-1, -1, 1])
        self.sides = (-1, 1) if "both ways" in self.features else pick([(self.way,), (-1, 1)])  # where inputs are read
        self.axis = pick(AXES) if "axis" in self.features else 0
        self.inputs = list(INPUTS[:pick([1, 2, 2, 3])])
        self.learned = list(LEARNED[:pick([0, 1, 2, 3])])
        self.maps = list(MAPS[:pick([0, 0, 1, 2, 3])])
        self.sized = SIZED if self.maps and pick([False, False, True]) else ""  # an input that only maps read
        self.wide = {n for n in (*self.learned, *self.maps[1:]) if self.axis and pick([False, True])}
        self.wide |= {WIDE} if self.axis else set()
        self.complex = {COMPLEX} if "complex" in self.features else set[str]()
        if self.complex and pick([False, True]):
            self.learned.append(ROOT)
            self.complex |= {ROOT}
        if self.complex and self.maps and pick([False, True]):
            self.maps.append(COMPLEX_MAP)
            self.complex |= {COMPLEX_MAP}
        self.inputs += sorted({WIDE, COMPLEX} & (self.wide | self.complex))
        self.operands: dict[str, int] = {}
        self.solved: dict[str, int] = {}  # states that are complete, and their ways
        self.infinite: dict[str, int] = {}  # the signs of those that start at infinity
        self.named: list[str] = []  # lines
        self.past: list[str] = []  # what a linear form may read
        self.fold = ""
        self.lines: list[Line] = []
        self.outputs: list[str] = []
        self.strata = 0
        self.inside_map = self.spread = False  # spread: N numbers along the axis may stand where an expression is to be

    def grow(self) -> Written:
        """The whole cell."""
        dice = self.dice
        left = list(STATES[:dice.pick([1, 1, 2] if self.small else [1, 2, 2, 3, 4])])
        while left:
            if "both ways" in self.features:
                self.way = dice.pick([-1, 1])
            how = dice.pick(["folded", "folded", "linear", "stabilised"]) if "algebra" in self.features else "linear"
            most = {"folded": 1, "stabilised": 2}.get(how, dice.pick([1, 1, 1, 2, 3]))
            group = [left.pop(0) for _ in range(min(len(left), most))]
            self.stratum(group, "folded" if how == "stabilised" and len(group) == 1 else how)
        sorts = ["value", "value", "zvalue"] if self.complex else ["value"]
        outputs = [self.spell(dice.pick(sorts), 1) for _ in range(dice.pick([1, 1, 2] if self.small else [1, 1, 2, 3]))]
        live = self.live(outputs)
        self.lines = [line for line in self.lines if line.state or line.target in live]
        outputs[0] = " + ".join([self.narrow([*self.solved][-1]), *self.unused(outputs), outputs[0]])
        self.outputs = texts = list(dict.fromkeys(tidy(o) for o in outputs))
        named = dice.pick([False, False, True])
        return Written("cell", tuple(self.signature()), tuple(self.lines),
                       tuple((f"y{k}" if named else "", text) for k, text in enumerate(texts)), self.features)

    def stratum(self, group: list[str], how: str) -> None:
        """Lines, then the equations of states that need each other's past."""
        dice, number = self.dice, self.strata
        self.strata += 1
        for _ in range(dice.pick([0, 1] if self.small else [0, 1, 1, 2])):
            left = [n for n in LINES if n not in self.named]
            if left:
                self.spread = bool(self.axis) and dice.pick([False, True])
                sort = "mapped" if self.maps and dice.pick([False, True]) else "value"
                if self.complex and dice.pick([False, True]):
                    sort = "zvalue"
                    self.complex |= {left[0]}
                self.line(left[0], self.spell(sort, self.depth), False, number)
                self.wide |= {left[0]} if self.is_wide(self.lines[-1].text) else set()
                self.named.append(left[0])
        self.spread = bool(self.axis) and dice.pick([True, True, False])
        z = "z" if self.complex and how == "linear" and dice.pick([True, True, False]) else ""
        if how == "linear":
            self.coupled(group[:2] if z else group, number, z)
            group, rest = (group[:2], group[2:]) if z else (group, [])
        else:
            self.fold = dice.pick([*FOLDS] if how == "folded" else ["maximum", "logaddexp"])
            self.infinite |= {group[0]: FOLDS[self.fold]} if dice.pick([False, True]) else {}
            (self.folded if how == "folded" else self.stabilised)(group, number)
            rest = []
        self.past = []
        self.solved |= dict.fromkeys(group, self.way)
        self.wide |= set(group) if self.spread else set()
        self.complex |= set(group) if z else set()
        self.spread = False
        if rest:
            self.stratum(rest, "linear")

    def coupled(self, group: list[str], number: int, z: str) -> None:
        """A recurrence over (+, *); z: of complex values."""
        dice, way = self.dice, self.way
        order = min(dice.pick(ORDERS), (4 if z else 8) // len(group))
        for k, state in enumerate(group):
            self.past = [at(s, way * lag) for lag in range(1, order + 1) for s in group] + [at(s, 0) for s in group[:k]]
            terms = [f"{self.spell(f'{z}gate', 1)} * {at(state, way * order)}"] if k == 0 else []
            terms += [self.spell(f"{z}linear", self.depth) for _ in range(dice.pick([0, 1] if self.small else [0, 1, 1, 2]))]
            total = " + ".join(f"({term})" for term in terms) or "0"
            if len(terms) > 1:
                total = f"({total}) / {len(terms)}"
            self.line(state, f"{total} + ({self.spell(f'{z}value', self.depth)})", True, number)

    def folded(self, group: list[str], number: int) -> None:
        """A recurrence over another algebra."""
        self.past = [at(group[0], self.way)]
        self.line(group[0], self.spell("folded", self.depth), True, number)

    def stabilised(self, group: list[str], number: int) -> None:
        """A running maximum of exponents, and a sum that is scaled by it, as in RWKV-4 and mLSTM."""
        m, n = group
        decay, weight, value = (self.spell(sort, 1) for sort in ("bounded", "value", "bounded"))
        self.line(m, f"{self.fold}({at(m, self.way)} + {decay}, {weight})", True, number)
        self.line(n, f"exp({at(m, self.way)} + {decay} - {m}[t]) * 0.9 * {at(n, self.way)} + exp({weight} - {m}[t]) * {value}",
                  True, number)

    def line(self, target: str, text: str, state: bool, stratum: int) -> None:
        self.lines.append(Line(target, tidy(text), state, stratum, self.way))

    def spell(self, sort: str, depth: int) -> str:
        """An expression of a sort."""
        if sort not in self.forms:
            text: str = getattr(self, f"_{sort}")(depth)
            return f"({text})"
        forms = self.forms[sort]
        form = self.dice.pick(forms if depth > 0 or sort == "number" else forms[:LEAVES.get(sort, 1)])
        holes, outside = HOLE.findall(form), self.spread
        self.spread |= "sum(" in form
        parts = [self.spell(hole, depth - 1) for hole in holes]
        self.spread = outside
        if twice := [part for part, hole in zip(parts, holes, strict=True) if parts.count(part) > 1 and hole not in
                     ("past", "fold")]:  # x - x is 0, and then nothing needs x
            if sort.startswith("z"):
                return self.spell("zinput", 0) if sort != "zlinear" else twice[0]
            if not ("sum(" in form and not outside):
                return f"({twice[0]} > 0.5)" if sort == "condition" and sort not in holes else twice[0]
        left = iter(parts)
        return "(" + HOLE.sub(lambda _: next(left), form) + ")"

    def is_wide(self, text: str) -> bool:
        """Whether an expression has N numbers along the axis."""
        def wide(node: ast.AST) -> bool:
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("sum", *MAPS, COMPLEX_MAP):
                return getattr(node.func, "id", "") in self.wide
            return getattr(node, "id", "") in self.wide or any(map(wide, ast.iter_child_nodes(node)))
        return wide(ast.parse(text, mode="eval"))

    def narrow(self, name: str, by: str = "") -> str:
        """A sequence at t, added up over the axis that it may have."""
        text = f"{name} * {by}" if by else f"{name}[t]"
        return f"sum({text})" if name in self.wide else text

    def known(self, names: Collection[str], z: bool = False) -> list[str]:
        """Those that may stand here: complex or real, and no wider than what is to be."""
        return [n for n in names if (n in self.complex) == z and (self.spread or n not in self.wide)]

    def _input(self, _: int) -> str:
        return at(self.dice.pick(self.known(self.inputs)), self._lag())

    def _zinput(self, _: int) -> str:
        return at(COMPLEX, self._lag())

    def _lag(self) -> int:
        lag = self.dice.pick(LAGS)
        return lag * self.dice.pick(self.sides) if lag else 0

    def _past(self, _: int) -> str:
        return self.dice.pick(self.past)

    def _fold(self, _: int) -> str:
        return self.fold

    def _mask(self, _: int) -> str:
        return f"{MASK}[t]"

    def _learned(self, _: int) -> str:
        names = self.known(self.learned)
        return self.dice.pick(names) if names else self._input(0)

    def _zlearned(self, _: int) -> str:
        return ROOT if ROOT in self.learned and not self.inside_map else self._zinput(0)

    def _state(self, names: Sequence[str], lag: int | None = None) -> str:
        """A state that is solved, at any step that its readers may know; behind a clamp where that may be infinite."""
        name = self.dice.pick(names)
        if lag is None:
            lag = self.dice.pick(BACK)
            lag *= self.dice.pick((-1, 1)) if lag and "both ways" in self.features else self.solved[name]
        if lag and name in self.infinite:
            return f"maximum({at(name, lag)}, -3)" if self.infinite[name] < 0 else f"minimum({at(name, lag)}, 3)"
        return at(name, lag)

    def _sample(self, depth: int) -> str:
        """A value that is known at this step."""
        sort = self.dice.pick(["input", "state", "line", "input", "learned", "state"])
        states, lines = self.known(self.solved), self.known(self.named)
        if sort == "state" and states:
            return self._state(states)
        if sort == "line" and lines:
            return self.dice.pick(lines)
        return self._learned(0) if sort == "learned" and not self.inside_map else self._input(0)

    def _zsample(self, depth: int) -> str:
        sort = self.dice.pick(["input", "state", "line", "input", "learned", "state"])
        states, lines = self.known(self.solved, z=True), self.known(self.named, z=True)
        if sort == "state" and states:
            return self._state(states)
        if sort == "line" and lines:
            return self.dice.pick(lines)
        return self._zlearned(0) if sort == "learned" else self._zinput(0)

    def _wide(self, depth: int, z: bool = False) -> str:
        """A value that has N numbers along the axis."""
        names = [n for n in (WIDE, *self.solved, *self.named, *self.learned) if n in self.wide and (n in self.complex) == z]
        if not names:
            return f"({self._wide(depth)} * {self._zinput(0)})"
        name = self.dice.pick(names)
        return self._state([name]) if name in self.solved else at(name, self._lag()) if name == WIDE else name

    def _zwide(self, depth: int) -> str:
        return self._wide(depth, z=True)

    def _map(self, depth: int, z: bool = False) -> str:
        """A dense map of one to three operands; called again, of as many and of the same sizes. z: of complex value, because it
        or an operand is complex."""
        names = [n for n in self.maps if (self.spread or n not in self.wide) and (z or n not in self.complex)]
        names = [n for n in names if not (z and self.sized and n == self.maps[0])]
        if not names or self.inside_map:
            return self._zsample(depth) if z else self._sample(depth)
        outside, self.inside_map, self.spread = self.spread, True, False
        name = self.dice.pick(names)
        first = name not in self.operands
        count = self.operands.setdefault(name, self.dice.pick([1, 2, 2, 3]) if first else 0)
        operands: list[str] = [self._zsample(0)] if z else []
        for _ in range(count - z):
            how = self.dice.pick(["sample", "later", "again", "sample", "value", "later"])
            if operands and how in ("again", "later"):  # the same sequence, at another lag
                operands.append(operands[-1] if how == "again" else re.sub(r"(\w+)\[t.*?\]", self._elsewhere, operands[-1]))
            else:
                operands.append(f"tanh({self.spell('sample', 0)} + {self._input(0)})" if how == "value" else self._sample(0))
        if self.sized and name == self.maps[0]:
            operands[0] = at(self.sized, self._lag())
        self.inside_map, self.spread = False, outside
        return f"{name}({', '.join(operands)})"

    def _zmap(self, depth: int) -> str:
        return self._map(depth, z=True)

    def _elsewhere(self, sample: re.Match[str]) -> str:
        name = sample[1]
        if name == "first":
            return sample[0]
        return self._state([name], 0 if name in self.infinite else None) if name in self.solved else at(name, self._lag())

    def unused(self, outputs: list[str]) -> list[str]:
        """Terms for what the signature has and nothing reads yet."""
        read = set(re.findall(r"\w+", " ".join([*(line.text for line in self.lines), *outputs])))
        terms = [self.narrow(n) for n in (*self.inputs, *[*self.solved][:-1]) if n not in read]
        terms += [self.narrow(n, f"{self.inputs[0]}[t]") for n in self.learned if n not in read]
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

        def of(name: str, kind: str, *options: str, size: str = "size") -> tuple[str, str, str]:
            mine = [f"{size}={self.axis}"] if name in self.wide else []
            mine += ["complex=True"] if name in self.complex else []
            return name, kind, ", ".join(filter(None, [*options, *mine]))

        found = [of(n, "Input", size="axis") for n in self.inputs]
        found += [(self.sized, "Input", "size=4")] if self.sized else []
        inits: list[Any] = ["", "init=0.5", "init=-0.3", "init=1.25"]
        for k, n in enumerate(self.solved):  # no two the same, which would make ties
            init = pick(["", inits[k] or "init=0.1"])
            learned = bool(self.maps) and pick([False, False, True])
            if n in self.infinite:
                init, learned = f'init=float("{"-" if self.infinite[n] < 0 else ""}inf")', False
            elif n in self.complex and init:
                init += " - 0.2j"
            found.append(of(n, "State", init, "learned=True" if learned else ""))
        found += [of(n, pick(["Vector", "Scalar"])) for n in self.learned]
        found += [of(n, "Affine", pick(["", "", "bias=False", "bias=0.5"]), size="axis") for n in self.maps]
        if any(re.search(rf"\b{MASK}\[", text) for text in (*(line.text for line in self.lines), *self.outputs)):
            found.append((MASK, "Mask", pick(["", "p=0.3"])))
        return sorted(found, key=lambda s: bool(s[2]))  # as Python wants it


def grow(dice: Dice, name: str = "cell", small: bool = False) -> Written:
    """A cell of the grammar."""
    return replace(Grower(dice, small).grow(), name=name)
