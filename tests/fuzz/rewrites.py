"""Other cells that must say the same: each is a call with the tensors and results of the original, by its names."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .grammar import Dice
from .problems import Call, Problem, Subject, Tensors, call_of, chunked, depths
from .written import Line, Written, mirror

X = TypeVar("X")

# Names that generated text uses itself, that C++ reserves, and that differ in little.
AWKWARD = tuple("B C T a b n at real double new lo past width board s0 x_prev h_kept total h_final maps h_start edge d_x "
                "back d h hh H int x X args template k v V v_2 reset_time state_of cross step i j grad x_grad dot zeros "
                "word".split())


def renamed(subject: Subject, problem: Problem, dice: Dice) -> Call | None:
    """Other names, in another order."""
    written = subject.written
    old = [*(n for n, _, _ in written.signature), *(line.target for line in written.lines if not line.state)]
    left = [n for n in AWKWARD if not (subject.module and hasattr(torch.nn.Module, n))]
    new = {n: left.pop(left.index(dice.pick(left))) for n in old}
    signature = list(written.signature)
    shuffled = [signature.pop(signature.index(dice.pick(signature))) for _ in written.signature]
    other = replace(_rewritten(written, lambda e: _words(e, new)), name=f"{written.name}_renamed",
                    signature=tuple(sorted(((new[n], *rest) for n, *rest in shuffled), key=lambda s: bool(s[2]))))
    other = replace(other, lines=tuple(replace(line, target=new[line.target]) for line in other.lines))
    back = {v: k for k, v in new.items()}

    inner = _like(subject, Subject(other), problem, new)
    return inner and (lambda tensors: _keys(inner(_keys(tensors, new)), back))


def rearranged(subject: Subject, problem: Problem, dice: Dice) -> Call | None:
    """Sums and products the other way round, differences and quotients as sums and products, squares as products."""
    written, rearrange = subject.written, _Rearrange(dice)
    other = replace(_rewritten(written, rearrange.of), name=f"{written.name}_rearranged")
    return _like(subject, Subject(other), problem)


def hoisted(subject: Subject, problem: Problem, dice: Dice) -> Call | None:
    """Samples at lags, calls and products get lines of their own."""
    written, lines = subject.written, list[Line]()

    def out(text: str, stratum: int) -> str:
        hoist = _Hoist(dice, f"n{len(lines)}_")
        tree = hoist.visit(ast.parse(text, mode="eval"))
        lines.extend(Line(name, ast.unparse(value), False, stratum) for name, value in hoist.found)
        return ast.unparse(tree)

    for line in written.lines:
        text = out(line.text, line.stratum)  # which adds lines before it
        lines.append(replace(line, text=text))
    outputs = tuple((name, out(text, 9)) for name, text in written.outputs)
    other = replace(written, name=f"{written.name}_hoisted", lines=tuple(lines), outputs=outputs)
    return _like(subject, Subject(other), problem)


def reordered(subject: Subject, problem: Problem, dice: Dice) -> Call | None:
    """States may be set in any order; a line must stand before what reads it."""
    left, lines = list(subject.written.lines), list[Line]()
    while left:
        waiting = {line.target for line in left if not line.state}
        free = [line for line in left if not waiting & (set(re.findall(r"\w+", line.text)) - {line.target})]
        lines.append(left.pop(left.index(dice.pick(free))))
    other = replace(subject.written, name=f"{subject.written.name}_reordered", lines=tuple(lines))
    return _like(subject, Subject(other), problem)


def mirrored(subject: Subject, problem: Problem, dice: Dice) -> Call | None:
    """Every lag with the other sign, on sequences run backwards. A boundary before step 0 would lie behind the last one."""
    if problem.reset is not None and problem.reset[:, 0].any():
        return None
    written = _rewritten(subject.written, mirror)
    lines = tuple(replace(line, way=-line.way) for line in written.lines)
    other = Subject(replace(written, name=f"{written.name}_mirrored", lines=lines))
    reset = problem.reset if problem.reset is None else torch.cat([problem.reset[:, :1], problem.reset[:, 1:].flip(1)], 1)
    inputs, outputs = set(written.of("Input", "Mask")), {f"out{k}" for k in range(len(written.outputs))}

    inner = _like(subject, other, replace(problem, reset=reset, lengths=problem.lengths[::-1]))

    def turned(tensors: Mapping[str, Tensor], sequences: set[str]) -> Tensors:
        """Sequences backwards, and the edges of segments in the order of these."""
        rows = [0] if problem.lengths else []
        return {n: x.flip(1 if n in sequences else rows if ":" in n else []) for n, x in tensors.items()}
    return inner and (lambda tensors: turned(inner(turned(tensors, inputs)), outputs))


def split(subject: Subject, problem: Problem, dice: Dice) -> Call | None:
    """Two cells, one of which reads what the other gives."""
    written = subject.written
    strata = sorted({line.stratum for line in written.lines})
    if len(strata) < 2:
        return None
    cut = dice.pick(strata[1:])
    before, after = ([line for line in written.lines if (line.stratum < cut) is first] for first in (True, False))
    texts = " ".join([*(line.text for line in after), *(e for _, e in written.outputs)])
    needed = [line for line in before if re.search(rf"\b{line.target}\b", texts)]
    values = {line.target: f"{line.target}[t]" for line in needed if not line.state}
    if any(written.has(line.target, "size") for line in needed) or "first" in written.features or (
            values and {"axis", "complex"} & written.features):
        return None  # such a value cannot be handed on, or it does not say what it is
    handed = tuple((n.target, "Input", "complex=True" if written.has(n.target, "complex") else "") for n in needed)
    one = _part(written, "first", before, tuple(("", f"{n.target}[t]" if n.state else n.target) for n in needed), ())
    two = _part(written, "second", [replace(line, text=_words(line.text, values)) for line in after],
                tuple((n, _words(e, values)) for n, e in written.outputs), handed)
    if not needed or not one.of("Input") or one.both_ways or two.both_ways:
        return None
    first, second = Subject(one), Subject(two)
    sizes = {"B": problem.B, "C": problem.C}

    def call(tensors: Mapping[str, Tensor]) -> Tensors:
        whole = {n: x.expand(sizes["B"], -1, x.shape[2] if x.shape[2] > 1 else sizes["C"])
                 if n in written.of("Input") and not written.has(n, "axis") else x for n, x in tensors.items()}
        a = _of_part(first, subject, problem, whole)
        b = _of_part(second, subject, problem, whole | {n.target: a[f"out{k}"] for k, n in enumerate(needed)})
        longest = {n: v for n, v in b.items() if n not in a or n.startswith("out") or v.shape[1] > a[n].shape[1]}
        found = {n: v for n, v in a.items() if not n.startswith("out")} | longest
        return {n: v for n, v in found.items() if n.startswith("out") or n.removesuffix(":final") in depths(subject)}
    return call


def in_pieces(subject: Subject, problem: Problem, dice: Dice) -> Call | None:
    """Time in pieces, or step by step, from carry to carry."""
    if subject.pipeline.looks_ahead or subject.written.both_ways or problem.T < 2 or problem.lengths:
        return None
    cuts = dice.pick([[problem.T // 2], list(range(1, problem.T)), [1], sorted({problem.T // 3 + 1, problem.T - 1})])
    return chunked(subject, problem, [c for c in cuts if 0 < c < problem.T][:12])


REWRITES: dict[str, Callable[[Subject, Problem, Dice], Call | None]] = {
    f.__name__: f for f in (renamed, rearranged, hoisted, reordered, mirrored, split, in_pieces)}


def _like(subject: Subject, other: Subject, problem: Problem, new: Mapping[str, str] | None = None) -> Call | None:
    """The other cell's call; none where the two do not read the same sequences at lags: sympy sees some terms cancel, in one
    form or the other."""
    reads, others = ({k: s.depth for k, s in x.pipeline.sequences.items()} for x in (subject, other))
    return call_of(other, problem) if _keys(reads, new or {}) == others else None


def _rewritten(written: Written, change: Callable[[str], str]) -> Written:
    """The cell with each of its expressions changed."""
    return replace(written, lines=tuple(replace(line, text=change(line.text)) for line in written.lines),
                   outputs=tuple((n, change(e)) for n, e in written.outputs))


def _words(text: str, new: Mapping[str, str]) -> str:
    return re.sub(r"\b\w+\b", lambda m: new.get(m[0], m[0]), text)


def _keys(tensors: Mapping[str, X], new: Mapping[str, str]) -> dict[str, X]:
    """The same tensors under the names that their owners have now: `x.ahead:now`, `W.weight`, `h_init`, `h:final`."""
    def key(name: str) -> str:
        owner, end = re.fullmatch(r"(.+?)((?:_init|[.:].*)?)", name).groups()  # type: ignore[union-attr]
        return new.get(owner, owner) + end
    return {key(n): x for n, x in tensors.items()}


def _part(written: Written, name: str, lines: list[Line], outputs: tuple[tuple[str, str], ...],
          handed: tuple[tuple[str, str, str], ...]) -> Written:
    """Some lines of a cell as a cell."""
    read = set(re.findall(r"\w+", " ".join([*(line.text for line in lines), *(e for _, e in outputs)])))
    states = {line.target for line in lines if line.state}
    own = [s for s in written.signature if s[0] in states or (s[0] in read and s[1] != "State")]
    signature = tuple(sorted([*(s for s in own if s[1] == "Input"), *handed, *(s for s in own if s[1] != "Input")],
                             key=lambda s: bool(s[2])))
    return replace(written, name=f"{written.name}_{name}", signature=signature, lines=tuple(lines), outputs=outputs)


def _of_part(part: Subject, whole: Subject, problem: Problem, tensors: Mapping[str, Tensor]) -> Tensors:
    """A part's results, by the names of the whole: it takes its own tensors, and an edge of all that it reads at a lag."""
    names = {n for n, _, _ in part.written.signature}
    given = {n: x for n, x in tensors.items() if re.split(r"[.:]", n.removesuffix("_init"))[0] in names and ":" not in n}
    like = next(x for n, x in tensors.items() if n in part.written.of("Input"))
    meaning, keys = whole.meaning, {(s.name, s.side): key for key, s in whole.pipeline.sequences.items()}
    owners: dict[str, str] = {}  # of final windows
    for key, s in part.pipeline.sequences.items():
        theirs = keys[s.name, s.side]
        owners |= {} if s.ahead else {f"{key}:final": f"{theirs}:final"}
        shape = (problem.rows, s.depth, meaning.axis if s.name in meaning.wide and s.name in whole.written.of("Input") else
                 meaning.sizes.get(s.name, problem.C), *([s.size] if s.size else []))
        for end in ("now", "edge"):
            edge = next((tensors[n] for n in (f"{theirs}:{end}", f"{theirs}:init") if n in tensors), None)
            if edge is None and f"{s.name}_init" in tensors and not theirs.endswith(".ahead"):
                edge = tensors[f"{s.name}_init"].expand(shape)
            dtype = like.dtype.to_complex() if s.name in meaning.complex else like.dtype.to_real()
            given[f"{key}:{end}"] = (torch.full(shape, meaning.constants.get(s.name, 0.0), dtype=dtype) if edge is None else
                                     edge[:, :s.depth])
    found = call_of(part, replace(problem, edges="carry and edges"))(given)
    return {owners.get(n, n): y for n, y in found.items() if not n.endswith(":final") or n in owners}


class _Rearrange(ast.NodeTransformer):
    """Each operation as it is, or as its equal. What rounds otherwise is changed everywhere or nowhere, so that ties stay."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.quotients, self.sigmoids = dice.pick([False, True]), dice.pick([False, False, True])

    def of(self, text: str) -> str:
        return ast.unparse(ast.fix_missing_locations(self.visit(ast.parse(text, mode="eval"))))

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return node  # the time index is no number

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if self.quotients if isinstance(node.op, ast.Div) else self.dice.pick([False, True]):
            match node.op:
                case ast.Add() | ast.Mult():
                    return ast.BinOp(node.right, node.op, node.left)
                case ast.Sub():
                    return ast.BinOp(ast.UnaryOp(ast.USub(), node.right), ast.Add(), node.left)
                case ast.Div():
                    return ast.BinOp(ast.BinOp(ast.Constant(1), ast.Div(), node.right), ast.Mult(), node.left)
                case ast.Pow() if isinstance(node.right, ast.Constant) and node.right.value == 2:
                    return ast.BinOp(node.left, ast.Mult(), node.left)
        return node

    def visit_Call(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        if node.func.id in ("maximum", "minimum", "logaddexp", "equal"):
            node.args = node.args[::-1]
        if node.func.id == "sigmoid" and self.sigmoids:
            return ast.parse(f"1 / (1 + exp(-({ast.unparse(node.args[0])})))", mode="eval").body
        return node

    def visit_Compare(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        turned: dict[type, Any] = {ast.Gt: ast.Lt, ast.Lt: ast.Gt, ast.GtE: ast.LtE, ast.LtE: ast.GtE}
        return ast.Compare(node.comparators[0], [turned[type(node.ops[0])]()], [node.left])


class _Hoist(ast.NodeTransformer):
    """Expressions replaced by names; `found` are these, in order."""

    def __init__(self, dice: Dice, prefix: str) -> None:
        self.dice, self.prefix, self.found = dice, prefix, list[tuple[str, ast.expr]]()

    def _name(self, node: Any) -> ast.AST:
        name = f"{self.prefix}{len(self.found)}"
        self.found.append((name, node))
        return ast.Name(name, ast.Load())

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return self._name(node)

    def _maybe(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        return self._name(node) if self.dice.pick([False, True]) else node

    visit_Call = visit_BinOp = _maybe  # noqa: N815

