"""Bugs planted in the compiler itself, each of which some random cell must show: the fuzzer is tested.

A bug is an edit of a function's source while cells are looked at. None may show in the compiler as it is, and all must within
CELLS cells; how many a bug took is printed (-s).
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import inspect
import itertools
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from lrdsl.codegen import emit, lines, printers
from lrdsl.codegen.axis import Lines as AxisLines
from lrdsl.frontend import first, functions, recording
from lrdsl.ir import functions as table
from lrdsl.nn import carry, pieces, pipeline, segments, windows
from lrdsl.passes import adjoint, extract, partition, realify, recompute, schedule, simplify, tangent, walks
from lrdsl.passes import algebras as linear

from .battery import Finding, Look, all_looks, search, trials
from .grammar import Choices, grow
from .kernels import Kernels

CELLS, TOGETHER = 120, 8


@dataclass(frozen=True)
class Bug:
    """`old` becomes `new` in the source of a function; a lambda becomes `new`. backend: where it shows: in the text of its
    kernels alone, or, for the reference, everywhere. feature: without which no cell can show it."""

    name: str
    function: Any
    old: str
    new: str
    backend: str = "reference"
    feature: str = ""

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """The function with the bug, for all who know it."""
        function: types.FunctionType = inspect.unwrap(self.function)
        scope = dict(function.__globals__)
        if function.__name__ == "<lambda>":
            wrong = eval(self.new, scope)
        else:
            source = textwrap.dedent(inspect.getsource(function))
            assert self.old in source and self.old != self.new, f"nothing to change for: {self.name}"
            tree: Any = ast.parse(source.replace(self.old, self.new))
            tree.body[0].decorator_list = []
            exec(compile(tree, "<planted>", "exec", __future__.annotations.compiler_flag), scope)
            wrong = scope[function.__name__]
        right, function.__code__ = function.__code__, wrong.__code__
        try:
            yield
        finally:
            function.__code__ = right


def found_by(bug: Bug, mark: str, cells: int = CELLS) -> tuple[int, Finding | None]:
    """How many cells it took to find something, and what."""
    backend = bug.backend

    def looks(number: int) -> list[Look]:
        rewritten = [look for look in all_looks(number) if look.rewrite and look.backend == "reference"]
        if backend == "reference":
            return [Look("", backend, torch.float64), *rewritten[number % 3::3]]
        return [Look("", backend, torch.float64)]

    able = (n for n in itertools.count() if not bug.feature or bug.feature in grow(Choices(n), small=n % 2 == 0).features)
    for tried in range(0, cells, TOGETHER):
        numbers = itertools.islice(able, TOGETHER)
        given = (each for n in numbers for each in trials([n], looks, small=n % 2 == 0, mark=mark))
        if finding := next(search(given, Kernels()), None):
            return tried + TOGETHER, finding
    return cells, None


BUGS = (
    Bug("a coupled block is not transposed", adjoint._scan, "step.A[k - 1][j, i] for j", "step.A[k - 1][i, j] for j"),
    Bug("what is sent two steps back is lost", adjoint._scan, "int((j, other) == (i, k + 1))", "0"),
    Bug("what a line sends is added once", adjoint._let, "for atom in (*samples(step.expr), *params(step.expr)):",
        "for atom in samples(step.expr):"),
    Bug("the gradient of what is no input at t is lost", adjoint._shifted, "Piece(keep.name, \"shifted\", lag)",
        "Piece(keep.name, \"shifted\", -lag)"),
    Bug("a where without an else forgets its value", extract.affine_parts, "if (ra, rb) != (0, 0)", "if 0 not in (ra, rb)"),
    Bug("the last of several terms is lost", extract.affine_parts, "sp.Add(*(c[k] for c, _ in parts if k in c))",
        "next(c[k] for c, _ in parts if k in c)"),
    Bug("a state's constant is 0 at edges", partition._init, 'option("init", 0.0)) if', 'option("none", 0.0)) if'),
    Bug("maps of equal weights are one product", partition._product, "p.block.affine, p.block.operands) == wanted",
        "p.block.affine, operands) == wanted"),
    Bug("a window's samples are in the order of the call", partition._map,
        "reads.sort(key=lambda read: (abs(read[1]), read[1]))", "reads.sort(key=lambda read: read[0]); reads[:] = ["
        "(a, b[1]) for (a, _), b in zip(reads, sorted(reads, key=lambda r: abs(r[1])))]"),
    Bug("a copy that is read at a lag is dropped", simplify._reuse, "{e.base for e in program.registers} |", ""),
    Bug("the tangent of a learned number is 0", tangent.tangent, "(*samples(update), *params(update))", "samples(update)"),
    Bug("a value is computed again from the wrong step", recompute._recomputed, "step.update(0)", "step.b[0]"),
    Bug("|x| has the sign of 1", table.TABLE["abs"].partials, "", "lambda y, x: (sp.S.One,)"),
    Bug("the derivative of silu forgets a term", table.TABLE["silu"].partials, "",
        "lambda y, x: (sigmoid(x) * (1 + x),)"),
    Bug("logaddexp's gradients are exchanged", table.TABLE["logaddexp"].partials, "",
        "lambda y, a, b: (sigmoid(b - a), sigmoid(a - b))"),
    Bug("<= is <", functions._condition, "_apply(f.greater_equal, c.args[1], c.args[0])",
        "_apply(f.greater, c.args[1], c.args[0])"),
    Bug("a or b is a and b", functions._condition, "sp.Add(*(_condition(a) for a in c.args))",
        "sp.Mul(*(_condition(a) for a in c.args))"),
    Bug("a square root is a power", recording._power, "power = f.sqrt(base)", "power = base"),
    Bug("a carry is farthest first", carry.last_window, "sequence[:, t:t + 1], window[:, :-1]",
        "window[:, 1:], sequence[:, t:t + 1]"),
    Bug("a window crosses boundaries", windows._away, "crossed.unsqueeze(2), fill", "crossed.unsqueeze(2) & False, fill"),
    Bug("gradients of an edge cross a boundary", pieces._at_edge, "_hit(reset, lag, j) & _clear(reset, lag, j - 1)",
        "_hit(reset, lag, j)"),
    Bug("the edge of a product is that of its start", pipeline.Pipeline._dense, 'values.get(f"{key}.{end}")',
        'values.get(f"{key}.start")'),
    Bug("a register forgets how deep it is", lines.Register.moves.fget, "[::-1]", "[:]", "serial"),  # type: ignore[attr-defined]
    Bug("a sum is printed without its brackets", printers.Printer.text, "self._wrap(self._sum(expr), SUM, level)",
        "self._sum(expr)", "native"),
    Bug("a quotient is printed without its brackets", printers.Printer._product, "self.text(g, ATOM)", "self.text(g, PRODUCT)",
        "serial"),
    Bug("numbers have six digits", printers.number, "str(np.dtype(dtype).type(float(value)))", "f'{float(value):.6g}'",
        "native"),
    Bug("loads go beyond the end", emit._inside, "+ {2 * kernel.ahead + before} <= a.T", "<= a.T", "serial"),
    Bug("a chunk reads beyond the end", emit._inside, "+ {kernel.chunks.steps + before} <= a.T", "<= a.T", "chunked"),
    Bug("a past is read before it is known", walks._first_walks, "return walk[a.base] + bool(waits)", "return walk[a.base]",
        "chunked"),
    Bug("a walk forgets what later ones need", walks.walks, "tuple(a for a in later if a in defined)",
        "tuple(a for a in later if a in defined and a.lag == 0)", "chunked"),
    Bug("a warp has fewer steps than it hands on", schedule._chunks, "max([steps, *(e.depth for w in found for e in w.tails)])",
        "2", "chunked"),
    Bug("edges are read on the wrong side", schedule._reads, "program.edge(s.base, 1 if s.lag > 0 else -1)",
        "program.edge(s.base, -1) or program.edge(s.base, 1)", "serial"),
    Bug("i times i is 1", realify._product, "re * a - im * b", "re * a + im * b", feature="complex"),
    Bug("the conjugate of a factor is the factor", realify._Work._parts, "return a, -b", "return a, b", feature="complex"),
    Bug("what lies around a sum of an algebra is forgotten", linear.over, "algebra.times(rest, by)", "rest", feature="algebra"),
    Bug("a tie goes to one of two", table.TABLE["maximum"].partials, "", "lambda y, a, b: (greater(a, b), 1 - greater(a, b))"),
    Bug("a gradient is sent to one number of the axis", adjoint._Tape.total, "f.axis_sum(sp.Add(*wide))", "sp.Add(*wide)",
        feature="axis"),
    Bug("a register over an axis is not moved on", AxisLines.walk, "ends[at] += self.shift(r)", "pass", "native", "axis"),
    Bug("all sides are those of the run", partition._ahead, "side != work.side", "side == work.side", feature="both ways"),
    Bug("the first step is the last", first.with_first, "max(ways, default=-1)", "-max(ways, default=-1)", feature="first"),
    Bug("no step is the first", pipeline.Pipeline.not_first, "if given is None:", "if given is not None:", feature="first"),
    Bug("a short segment ends on another one's steps", segments.Segments.last, "(lacks < 0)", "(lacks < 9)"),
    Bug("an edge of a segment is farthest first", segments.Segments.beyond, "window[:, :k].flip(1)", "window[:, :k]"),
)


@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    with bug.planted():
        cells, finding = found_by(bug, f"_bug{BUGS.index(bug)}")
    assert finding, "nobody noticed"
    print(f"\n{bug.name}: within {cells} cells, {finding.look}: {finding.what.splitlines()[0]}")


@pytest.mark.parametrize("name", ["i times i is 1", "all sides are those of the run",
                                  "a register over an axis is not moved on"])
def test_some_planted_bugs_are_found(name: str) -> None:
    bug = next(b for b in BUGS if b.name == name)
    with bug.planted():
        assert found_by(bug, f"_some{BUGS.index(bug)}")[1], "nobody noticed"


def test_there_are_enough_bugs() -> None:
    assert len(BUGS) >= 35 and len({b.name for b in BUGS}) == len(BUGS)
    assert {b.backend for b in BUGS} == {"reference", "native", "serial", "chunked"}
