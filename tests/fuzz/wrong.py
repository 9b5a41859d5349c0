"""Wrong cells: a right one with one mistake, and the line that must be named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lrdsl.errors import CellError
from lrdsl.nn.pipeline import pipeline_of

from .grammar import Dice
from .problems import load
from .written import Written, at


@dataclass(frozen=True)
class Wrong:
    """A text with a mistake in `line`. kinds: of the CellErrors that say so; also: of those that may follow from it."""

    source: str
    name: str
    line: int
    kinds: tuple[str, ...]
    also: tuple[str, ...]


class Page:
    """The lines of a cell's text, to be spoiled: how a mistake says where it is."""

    def __init__(self, written: Written, dice: Dice) -> None:
        self.written, self.dice, self.pick = written, dice, dice.pick
        self.lines = written.source.splitlines()
        self.body = 4 + len(written.signature)  # the number of its first line

    def numbers(self, state: bool = False) -> list[int]:
        """The numbers of the lines of the body, `return` included; or of the states' alone."""
        every = [self.body + k for k, line in enumerate(self.written.lines) if line.state or not state]
        return every if state else [*every, self.body + len(self.written.lines)]

    def add(self, number: int, term: str) -> int:
        """Add a term to the (first) value of a line."""
        line = self.lines[number - 1]
        if re.match(r"\s*return \{", line):
            self.lines[number - 1] = re.sub(r'(\{"\w+": )', rf"\g<1>{term} + ", line, count=1)
        else:
            self.lines[number - 1] = re.sub(r"(return | = )", rf"\g<1>{term} + ", line, count=1)
        return number

    def anywhere(self, term: str) -> int:
        """Add a term to any line."""
        return self.add(self.pick(self.numbers()), term)

    def insert(self, number: int, text: str) -> int:
        """A new line before another one."""
        self.lines.insert(number - 1, f"    {text}")
        return number

    def somewhere(self, text: str) -> int:
        """A new line anywhere."""
        return self.insert(self.pick(self.numbers()), text)

    def declare(self, text: str) -> int:
        """A new name with a default value, at the end of the signature."""
        return self.insert(self.body - 1, text + ",")

    def option(self, name: str, kind: str, options: str) -> int:
        """Other options of a name, which moves to the end for it."""
        line = next(k for k, text in enumerate(self.lines) if text.startswith(f"    {name}: "))
        del self.lines[line]
        return self.insert(self.body - 2, f"{name}: lr.{kind} = lr.{kind}({options}),")

    @property
    def input(self) -> str:
        """An input that has channels, and real ones."""
        return self.pick([n for n, kind, said in self.written.signature if kind == "Input" and not said])

    @property
    def state(self) -> tuple[str, int]:
        """A state and the line that sets it."""
        k, line = self.pick([(k, line) for k, line in enumerate(self.written.lines) if line.state])
        return line.target, self.body + k

    @property
    def plain_state(self) -> tuple[str, int, int] | None:
        """One that is real and has no axis, its line and its way; None where there is none."""
        states = [(line.target, self.body + k, line.way) for k, line in enumerate(self.written.lines) if line.state
                  and not self.written.has(line.target, "size") and not self.written.has(line.target, "complex")]
        return self.pick(states) if states else None


def _mistake_on_state(form: str) -> Callable[[Page], int | None]:
    """A term with a state's past."""
    def spoil(page: Page) -> int | None:
        if not (found := page.plain_state):
            return None
        state, number, way = found
        back, ahead, far = (at("", lag)[1:-1] for lag in (way, -way, 9 * way))
        return page.add(number, form.format(h=state, back=back, ahead=ahead, far=far, x=page.input))
    return spoil


def _mistake_anywhere(form: str) -> Callable[[Page], int]:
    return lambda page: page.anywhere(form.format(x=page.input, h=page.state[0]))


def _statement(form: str) -> Callable[[Page], int]:
    return lambda page: page.somewhere(form.format(x=page.input, h=page.state[0]))


def _twice(page: Page) -> int:
    state, number = page.state
    return page.insert(page.pick([n for n in page.numbers() if n > number]), f"{state}[t] = {page.input}[t]")


def _missing(page: Page) -> int:
    """Its line is the declaration's."""
    state, number = page.state
    del page.lines[number - 1]
    return next(k for k, text in enumerate(page.lines, 1) if text.startswith(f"    {state}: "))


def _no_return(page: Page) -> int:
    page.lines.pop()
    return 2


def _feeds_back(page: Page) -> int | None:
    maps = [n for n in page.written.of("Affine") if not page.written.has(n, "axis") and not page.written.has(n, "complex")]
    called = re.search(rf"\b({'|'.join(maps)})\((?!e\[)", page.written.source) if maps else None
    found = page.plain_state
    if not called or not found:
        return None
    affine, (state, number, way) = called[1], found
    count = _operands(page.written.source, affine)
    return page.add(number, f"{affine}({', '.join([at(state, way), *[f'{page.input}[t]'] * (count - 1)])})")


def _operands(text: str, affine: str) -> int:
    """How many operands a map is called with."""
    start = re.search(rf"\b{affine}\(", text).end()  # type: ignore[union-attr]
    depth, count = 1, 1
    for letter in text[start:]:
        depth += (letter in "([{") - (letter in ")]}")
        count += letter == "," and depth == 1
        if not depth:
            break
    return count


def _other_arity(page: Page) -> int | None:
    """Said of the later one of two calls."""
    maps = page.written.of("Affine")
    if not maps:
        return None
    affine = page.pick(maps)
    count = _operands(page.written.source, affine)
    return page.add(page.numbers()[-1], f"{affine}({', '.join([f'{page.input}[t]'] * (count + 1))})")


# name -> (what it does to a page, the kinds of CellError that may say so). It gives the number of the line to be named, or None
# where the cell has no place for it.
MISTAKES: dict[str, tuple[Callable[[Page], int | None], tuple[str, ...]]] = {
    "unknown name": (_mistake_anywhere("nobody"), ("UnknownName",)),
    "unknown function": (_mistake_anywhere("lr.sinh({x}[t])"), ("UnknownName",)),
    "unknown sequence": (_mistake_anywhere("nobody[t]"), ("UnknownName",)),
    "set twice": (_twice, ("DuplicateUpdate",)),
    "a square": (_mistake_on_state("0.1 * {h}[{back}] ** 2"), ("NotLinear",)),
    "a product": (_mistake_on_state("{h}[{back}] * {h}[{back}]"), ("NotLinear",)),
    "a function of the past": (_mistake_on_state("tanh({h}[{back}])"), ("NotLinear",)),
    "a quotient": (_mistake_on_state("1 / (2 + {h}[{back}])"), ("NotLinear",)),
    "a condition on the past": (_mistake_on_state("where({h}[{back}] > 0, 1, 2)"), ("NotLinear",)),
    "a maximum of a multiple of the past": (_mistake_on_state("maximum({h}[{back}] / 2, {x}[t])"), ("NotLinear",)),
    "order 9": (_mistake_on_state("{h}[{far}]"), ("NotLinear", "NotBuilt")),
    "a circle": (_mistake_on_state("0.5 * {h}[t]"), ("CyclicStates",)),
    "fed back": (_feeds_back, ("NotLinear",)),
    "an if": (_statement("if {x}[t] > 0: pass"), ("BranchOnSymbol",)),
    "an and": (_mistake_anywhere("where({x}[t] > 0 and {x}[t] < 1, 1, 0)"), ("BranchOnSymbol",)),
    "a not": (_mistake_anywhere("where(not {x}[t] > 0, 1, 0)"), ("BranchOnSymbol",)),
    "a chain": (_mistake_anywhere("where(0 < {x}[t] < 1, 1, 0)"), ("BranchOnSymbol",)),
    "==": (_mistake_anywhere("where({x}[t] == 1, 1, 0)"), ("BranchOnSymbol",)),
    "if on a value": (_mistake_anywhere("(1 if {x}[t] > 0 else 0)"), ("BranchOnSymbol",)),
    "python's max": (_mistake_anywhere("max({x}[t], 0)"), ("BranchOnSymbol",)),
    "a fraction of a step": (_mistake_anywhere("{x}[t - 0.5]"), ("BadLag",)),
    "a number as index": (_mistake_anywhere("{x}[1]"), ("BadLag",)),
    "twice the time": (_mistake_anywhere("{x}[2 * t]"), ("BadLag",)),
    "a sample as lag": (_mistake_anywhere("{x}[t - {x}[t]]"), ("BadLag",)),
    "the time as a number": (_mistake_anywhere("t * {x}[t]"), ("BadLag",)),
    "set at a lag": (_statement("{h}[t - 1] = {x}[t]"), ("BadLag",)),
    "set ahead": (_statement("{h}[t + 1] = {x}[t]"), ("BadLag",)),
    "no equation": (_missing, ("NoUpdate",)),
    "an input that nobody reads": (lambda p: p.declare("more: lr.Input = lr.Input()"), ("UnusedName",)),
    "a vector that nobody reads": (lambda p: p.declare("more: lr.Vector = lr.Vector()"), ("UnusedName",)),
    "a map that nobody calls": (lambda p: p.declare("more: lr.Affine = lr.Affine()"), ("UnusedName",)),
    "a state that nobody sets": (lambda p: p.declare("more: lr.State = lr.State()"), ("NoUpdate",)),
    "no kind": (lambda p: p.declare("more=0.5"), ("BadDeclaration",)),
    "a kind that is none": (lambda p: p.declare('more: "lr.Stat" = lr.State()'), ("BadDeclaration",)),
    "two kinds": (lambda p: p.declare("more: lr.Input = lr.State()"), ("BadDeclaration",)),
    "both directions": (_mistake_on_state("0.1 * ({h}[{ahead}] + {h}[{back}])"), ("BothDirections",)),
    "init is a word": (lambda p: p.option(p.state[0], "State", 'init="zero"'), ("BadDeclaration",)),
    "init is nan": (lambda p: p.option(p.state[0], "State", 'init=float("nan")'), ("BadDeclaration",)),
    "a size of 0": (lambda p: p.declare("more: lr.Input = lr.Input(size=0)"), ("BadDeclaration",)),
    "a bias that is a word": (lambda p: p.declare('more: lr.Affine = lr.Affine(bias="yes")'), ("BadDeclaration",)),
    "an option that there is not": (lambda p: p.declare("more: lr.State = lr.State(initial=1.0)"), ("BadDeclaration",)),
    "too many arguments": (_mistake_anywhere("sigmoid({x}[t], {x}[t])"), ("UnsupportedFunction",)),
    "too few arguments": (_mistake_anywhere("maximum({x}[t])"), ("UnsupportedFunction",)),
    "a map of other operands": (_other_arity, ("ShapeMismatch",)),
    "a bare sequence": (_mistake_anywhere("{x}"), ("UnsupportedFunction",)),
    "a bare sequence in a function": (_mistake_anywhere("tanh({x})"), ("UnsupportedFunction",)),
    "a sequence that is called": (_mistake_anywhere("{x}(t)"), ("UnsupportedFunction",)),
    "a value that is read at a lag": (_mistake_anywhere("tanh({x}[t])[t - 1]"), ("UnsupportedFunction",)),
    "math": (_mistake_anywhere("__import__('math').sin({x}[t])"), ("UnsupportedFunction",)),
    "numpy": (_mistake_anywhere("__import__('numpy').tanh({x}[t])"), ("UnsupportedFunction",)),
    "a broken power": (_mistake_anywhere("{x}[t] ** 0.3"), ("UnsupportedFunction",)),
    "a power of a sample": (_mistake_anywhere("2 ** {x}[t]"), ("UnsupportedFunction",)),
    "a remainder": (_mistake_anywhere("{x}[t] % 2"), ("UnsupportedFunction",)),
    "a quotient rounded down": (_mistake_anywhere("{x}[t] // 2"), ("UnsupportedFunction",)),
    "a rounded value": (_mistake_anywhere("round({x}[t])"), ("UnsupportedFunction",)),
    "a whole number": (_mistake_anywhere("int({x}[t])"), ("UnsupportedFunction",)),
    "a division by zero": (_mistake_anywhere("{x}[t] / 0"), ("UnsupportedFunction",)),
    "an infinite number": (_mistake_anywhere("float('inf') * {x}[t]"), ("UnsupportedFunction",)),
    "a condition as a number": (_mistake_anywhere("({x}[t] > 0)"), ("UnsupportedFunction",)),
    "a list": (_mistake_anywhere("[{x}[t]]"), ("UnsupportedFunction",)),
    "a text": (_mistake_anywhere("'1'"), ("UnsupportedFunction",)),
    "none": (_mistake_anywhere("None"), ("UnsupportedFunction",)),
    "an unknown attribute": (_mistake_anywhere("{x}.previous"), ("UnsupportedFunction",)),
    "setting an input": (_statement("{x}[t] = 1.0"), ("BadDeclaration",)),
    "a state as a name": (_statement("{h} = tanh({x}[t])"), ("BadDeclaration",)),
    "two names for three values": (_statement("one, two = {x}[t], {x}[t], {x}[t]"), ("UnsupportedFunction",)),
    "nothing returned": (_no_return, ("BadDeclaration",)),
}
FOLLOWS = {"no equation": ("UnusedName",)}


def spoil(written: Written, name: str, dice: Dice) -> Wrong | None:
    """A cell with the mistake of that name, where it has a place for it."""
    page = Page(written, dice)
    change, kinds = MISTAKES[name]
    line = change(page)
    return None if line is None else Wrong("\n".join(page.lines) + "\n", written.name, line, kinds, FOLLOWS.get(name, ()))


def fault(wrong: Wrong) -> str:
    """How lrdsl fails to name the mistake, in words; "" where it does."""
    try:
        pipeline_of(load(wrong.source, wrong.name, f"<{wrong.name}>").spec)
    except CellError as error:
        said = [(type(e).__name__, e.where.line if e.where else 0) for e in error.errors]
        right = [kind in wrong.kinds and line == wrong.line for kind, line in said]
        also = [kind in wrong.also for kind, _ in said]
        if any(right) and all(r or a for r, a in zip(right, also, strict=True)):
            return ""
        return f"line {wrong.line} should be a {' or '.join(wrong.kinds)}, not {said}\n{error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"nobody minds line {wrong.line}"
