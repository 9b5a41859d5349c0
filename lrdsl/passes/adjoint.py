"""The backward pass: Program to Program, in reverse mode (Martin & Cundy 2018, section 2.2, for any Program).

For each sequence s that step t reads k steps back, `back.s` (at lag k) is what step t sends to s[t-k]: a register that runs
the other way. The gradient of s[t] is what its readers at t send, plus back.s[t+k]. For a Scan, back.h[t] = A[t]' d.h[t] is
itself a linear recurrence, with A at t: nothing is read beyond the end, and a carry that would cross a boundary is dropped
before any arithmetic. The last value of back.h is the gradient of the initial state, and its first one that of the final
state, which is why a Program's edges have four names. Of a recurrence of order k the state is h[t-1] … h[t-k], and its
adjoint runs over the gradients of these, back.h … back.h.k: as many numbers, by the transposed companion matrix.

Holds afterwards: the result reads the forward inputs, the forward outputs and their gradients, each at the lags that the
forward read. Where a forward sequence was read against the run, its gradient is written at the reader's step (`shifted`) and
moved by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import sympy as sp

from ..ir import functions as f
from ..ir.program import Buffer, Edge, Keep, Let, Nonlinear, Program, Scan, Step, Sum, Vector
from ..ir.shapes import AXIAL, is_wide
from ..ir.symbols import At, Param, params, samples
from .nonlinear import closed
from .recompute import with_forward_values, written
from .simplify import flatten, fresh, names_of, simplify
from .slopes import linearised


@dataclass(frozen=True)
class Origin:
    """Where a tensor of the backward pass comes from: a forward input or output, or the gradient of a forward output.

    flip: the depth axis is reversed (the nearest value before the segment is the farthest after it). nearest: of a window,
    only the value so many steps away, (B, 1, C).
    """

    what: Literal["input", "output", "gradient"]
    name: str
    flip: bool = False
    nearest: int = 0


@dataclass(frozen=True)
class Piece:
    """A summand of an input's gradient: the output `name` as it is; a window (B, k, C) to be reversed, whose values are
    those at lags 1 … k; the one value of a window that is `lag` steps away (`nearest`); or values written at their reader's
    step, `lag` steps from where they belong (`shifted`, and the part of them that crosses a boundary, for `start` and `edge`).
    shared: N of an input that the channels share, whose gradient is the sum over them of (…, N * C) numbers; 0 where nothing is
    left to add up."""

    name: str
    how: Literal["whole", "window", "nearest", "shifted", "shifted start", "shifted edge"] = "whole"
    lag: int = 0
    shared: int = 0


@dataclass(frozen=True)
class Adjoint:
    """A backward Program, the forward one with what it must keep, and how the tensors of both belong together."""

    forward: Program
    program: Program
    takes: tuple[Origin, ...]
    gives: tuple[tuple[str, tuple[Piece, ...]], ...]

    def __str__(self) -> str:
        return str(self.program)


@dataclass
class _Tape:
    """What has been sent back so far, and the lines that say it.

    What a line with the axis sends to a value without it is added up over the axis, once for all that is sent there. `wide`
    holds the names that have the axis; `sized` those that must have it where what they are computed from may not.
    """

    taken: set[str]
    axis: int
    wide: set[str]
    sized: list[str] = field(default_factory=list)
    now: dict[str, list[Any]] = field(default_factory=dict)
    lagged: dict[tuple[str, int], list[Any]] = field(default_factory=dict)
    learned: dict[str, list[Any]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def send(self, atom: Any, value: Any) -> None:
        if value == 0:
            return
        if isinstance(atom, Param):
            self.learned.setdefault(str(atom), []).append(value)
        elif atom.lag:
            self.lagged.setdefault((atom.base, atom.lag), []).append(value)
        else:
            self.now.setdefault(atom.base, []).append(value)

    def line(self, name: str, expr: Any, where: Any = None, wide: bool = False) -> At:
        target = fresh(name, self.taken)
        self.steps.append(Let(target, expr, where))
        self.defined([target], wide, expr)
        return At(target)

    def defined(self, targets: Sequence[str], wide: bool, *exprs: Any) -> None:
        """New lines: `wide` ones for something that has the axis, whatever they are computed from."""
        derived = any(is_wide(e, self.wide) for e in exprs)
        self.sized += targets if wide and not derived else ()
        self.wide.update(targets if wide or derived else ())

    def total(self, to: str, terms: list[Any]) -> Any:
        """What was sent to a value, in the shape of that value."""
        if not self.axis or to in self.wide:
            return sp.Add(*terms)
        wide = [e for e in terms if is_wide(e, self.wide)]
        rest = [e for e in terms if not is_wide(e, self.wide)]
        return sp.Add(*rest, *([f.axis_sum(sp.Add(*wide))] if wide else []))


def adjoint(program: Program, absent: frozenset[str] = frozenset()) -> Adjoint:
    """The Program that computes the gradient of every input from the gradients of all outputs.

    absent: Keeps whose gradient is known to be zero, so that it is not even read. A Program with a Replay has no adjoint: take
    that of the Program it would be with all states kept (`replay.unbordered`).
    """
    assert program.replay is None
    source = flatten(program)
    source = replace(source, steps=closed(source.steps))
    tape = _Tape(names_of(source), source.axis, set(source.wide))
    origins: dict[str, Origin] = {}
    gives: dict[str, list[Piece]] = {}
    buffers, vectors = _cotangents(source, absent, tape, origins)
    edges: list[Edge] = []
    for step in reversed(source.steps):
        if isinstance(step, Scan | Nonlinear):
            _scan(source, step, tape, edges, origins, gives)
        else:
            _let(source, step, tape, edges, origins, gives)
    keeps = _loads(source, tape, edges, origins, gives)
    sums = []
    for v in source.vectors:
        if terms := tape.learned.get(v.name):
            total = tape.line(f"d.{v.name}.t", tape.total(v.name, terms), wide=v.shape in AXIAL)
            sums.append(Sum(fresh(f"d.{v.name}", tape.taken), total.base,
                            "time" if v.shape in ("channel", "channel and axis") else "time and channels"))
            gives[v.name] = [Piece(sums[-1].name)]
    backward = Program(f"{program.name}_backward", not program.reverse, (*source.buffers, *buffers),
                       (*source.vectors, *vectors), tuple(edges), tuple(tape.steps), tuple(keeps), tuple(sums),
                       source.axis, tuple(tape.sized))
    backward, kept = with_forward_values(source, backward)
    known = written(program)
    forward = replace(program, keeps=program.keeps + tuple(Keep(n, (n,), inner=True) for n in kept if n not in known))
    for n in kept:
        of = known.get(n, Keep(n, (n,)))
        origins[of.name if of.paired else n] = Origin("output", of.name)
    origins |= {k.name: Origin("output", k.name) for k in program.keeps if k.every}
    backward = simplify(backward)
    for n in program.inputs:
        origins.setdefault(n, Origin("input", n))
    return Adjoint(forward, backward, tuple(origins[n] for n in backward.inputs),
                   tuple((n, tuple(gives[n])) for n in program.inputs if gives.get(n)))


def _cotangents(source: Program, absent: frozenset[str], tape: _Tape,
                origins: dict[str, Origin]) -> tuple[list[Buffer], list[Vector]]:
    """Gradients of what was kept come as sequences, those of sums as vectors."""
    buffers, vectors = [], []
    for keep in source.keeps:
        if keep.name in absent or keep.every:  # what is kept at borders only saves work: no output depends on it
            continue
        name = fresh(f"{keep.name}.grad", tape.taken)
        columns = tuple(name if len(keep.samples) == 1 else fresh(f"{s}.grad", tape.taken) for s in keep.samples)
        buffers.append(Buffer(name, columns, "axis" if keep.over else source.shape(keep.samples[0]), paired=keep.paired))
        tape.defined(columns, False, *map(At, keep.samples))
        origins[name] = Origin("gradient", keep.name)
        for s, column in zip(keep.samples, columns, strict=True):
            tape.send(At(s), At(column))
    for total in (s for s in source.sums if not s.largest):
        name = fresh(f"{total.name}.grad", tape.taken)
        wide = total.sample in source.wide
        vectors.append(Vector(name, ("channel and axis" if wide else "channel") if total.over == "time" else
                              "axis" if wide else "one"))
        tape.defined([name], False, At(total.sample))
        origins[name] = Origin("gradient", total.name)
        tape.send(At(total.sample), Param(name))
    return buffers, vectors


def _register(source: Program, base: str, lag: int, name: str, tape: _Tape, edges: list[Edge],
              origins: dict[str, Origin], gives: dict[str, list[Piece]], chain: int = 0) -> None:
    """The edge of the register `name`, which carries what is sent to base[t+lag] the other way.

    chain: how many registers one step deep carry it, of which this is the |lag|-th; 0 where it alone is |lag| steps deep.
    """
    edge = source.edge(base, 1 if lag > 0 else -1)
    assert edge is not None
    depth, deepest = 1 if chain else abs(lag), (chain or abs(lag)) == edge.depth
    one_of = abs(lag) if chain and edge.depth > 1 else 0
    piece = Piece("", "nearest", one_of) if one_of else Piece("", "window" if edge.depth > 1 else "whole",
                                                              shared=_shared(source, base))
    origin = Origin("gradient", "", flip=depth > 1, nearest=one_of)

    def taken(tensor: str | None) -> str | None:
        if tensor is None or not deepest:
            return None
        unique = fresh(f"{tensor}.grad" + (f".{one_of}" if one_of else ""), tape.taken)
        origins[unique] = replace(origin, name=tensor)
        return unique

    def given(tensor: str | None) -> str | None:
        if tensor is None:
            return None
        unique = fresh(f"d.{tensor}" + (f".{one_of}" if one_of else ""), tape.taken)
        gives.setdefault(tensor, []).append(replace(piece, name=unique))
        return unique

    edges.append(Edge(name, -edge.side, depth, 0.0, taken(edge.final), taken(edge.crossing), given(edge.start),
                      given(edge.edge)))


def _shared(source: Program, base: str) -> int:
    return source.axis if source.shape(base) == "axis" else 0


def _arrivals(source: Program, base: str, tape: _Tape, edges: list[Edge], origins: dict[str, Origin],
              gives: dict[str, list[Piece]], but: frozenset[int] = frozenset()) -> list[Any]:
    """Everything sent to base[t], through registers of their own where it was sent by other steps (lags in `but` aside)."""
    edge = source.edge(base, source.back)
    if edge and (edge.final or edge.crossing) and base not in source.loads and source.back * edge.depth not in but:
        tape.lagged.setdefault((base, source.back * edge.depth), [])
    terms = tape.now.pop(base, [])
    for key in sorted(k for k in tape.lagged if k[0] == base and k[1] * source.back > 0 and k[1] not in but):
        name = tape.line(_back(*key), tape.total(base, tape.lagged.pop(key)), wide=base in source.wide)
        _register(source, base, key[1], name.base, tape, edges, origins, gives)
        terms.append(At(name.base, -key[1]))
    return terms


def _back(base: str, lag: int) -> str:
    return f"back.{base}" + (f".{abs(lag)}" if abs(lag) > 1 else "")


def _let(source: Program, step: Let, tape: _Tape, edges: list[Edge], origins: dict[str, Origin],
         gives: dict[str, list[Piece]]) -> None:
    terms = _arrivals(source, step.target, tape, edges, origins, gives)
    total = tape.total(step.target, terms)
    if total == 0:
        return
    gradient = tape.line(f"d.{step.target}", total, step.where, wide=step.target in source.wide)
    if isinstance(step.expr, f.Elementwise):
        for atom, value in zip(step.expr.args, f.pullback(step.expr, At(step.target), gradient), strict=True):
            if isinstance(atom, At | Param):
                tape.send(atom, value)
    else:
        for atom in (*samples(step.expr), *params(step.expr)):
            tape.send(atom, gradient * sp.diff(step.expr, atom))


def _scan(source: Program, recurrence: Scan | Nonlinear, tape: _Tape, edges: list[Edge], origins: dict[str, Origin],
          gives: dict[str, list[Piece]]) -> None:
    step, slopes = linearised(source, recurrence, partial(tape.line, where=recurrence.where))
    back, orders = source.back, step.orders
    own = [(i, k) for i, order in enumerate(orders) for k in range(1, order + 1)]
    sent = {(i, k): tape.lagged.pop((step.targets[i], back * k), []) for i, k in own}
    before = []
    for i, state in enumerate(step.targets):
        lags = frozenset(back * k for j, k in own if j == i)
        terms = _arrivals(source, state, tape, edges, origins, gives, lags)
        total = tape.total(state, terms)
        before.append(total if total.is_Atom else tape.line(f"d.{state}.direct", total, step.where))
    names = {(i, k): fresh(_back(step.targets[i], back * k), tape.taken) for i, k in own}
    # What is sent to h[t-k] is on its way to h[t-k+1] first: each register hands on to the one a step nearer.
    A, b = sp.zeros(len(own), len(own)), []
    for row, (i, k) in enumerate(own):
        weights = [step.A[k - 1][j, i] for j in range(len(step.targets))]
        for column, (j, other) in enumerate(own):
            A[row, column] = weights[j] if other == 1 else int((j, other) == (i, k + 1))
        b.append(sp.Add(*(w * d for w, d in zip(weights, before, strict=True)), tape.total(step.targets[i], sent[i, k])))
    wide = step.targets[0] in source.wide
    if own:
        tape.defined([names[key] for key in own], wide)
        tape.steps.append(Scan(tuple(names[key] for key in own), (sp.ImmutableMatrix(A),), tuple(b), not step.reverse,
                               step.where))
    for i, k in own:
        _register(source, step.targets[i], back * k, names[i, k], tape, edges, origins, gives, orders[i])
    for i, state in enumerate(step.targets):
        total = before[i] + At(names[i, 1], -back) if orders[i] else before[i]
        gradient = tape.line(f"d.{state}", total, step.where, wide=wide)
        update, past = step.update(i), {step.back(s, k + 1) for k in range(step.order) for s in step.targets}
        for atom in (*samples(update), *params(update)):
            if atom not in past | slopes:
                tape.send(atom, gradient * sp.diff(update, atom))


def _loads(source: Program, tape: _Tape, edges: list[Edge], origins: dict[str, Origin],
           gives: dict[str, list[Piece]]) -> list[Keep]:
    """The gradients of the sequences that were read from memory, in buffers like theirs."""
    keeps: list[Keep] = []
    for buffer in source.buffers:
        columns = []
        for base in buffer.columns:
            for key in sorted(k for k in tape.lagged if k[0] == base and k[1] * source.back < 0):
                keeps.append(_shifted(source, buffer, base, key[1], tape, gives))
            columns.append(tape.total(base, _arrivals(source, base, tape, edges, origins, gives)))
        if any(c != 0 for c in columns):
            name = fresh(f"d.{buffer.name}", tape.taken)
            wide = buffer.shape in AXIAL
            single = len(columns) == 1
            samples_ = tuple(name if single else "" for _ in columns)
            lines = []
            for base, total, said in zip(buffer.columns, columns, samples_, strict=True):
                if single:
                    tape.steps.append(Let(said, total))
                    tape.defined([said], wide, total)
                    lines.append(said)
                else:
                    lines.append(tape.line(f"d.{base}", total, wide=wide).base)
            keeps.append(Keep(name, tuple(lines), over="channels" if buffer.shape == "axis" else "", paired=buffer.paired))
            gives.setdefault(buffer.name, []).insert(0, Piece(name))
    return keeps


def _shifted(source: Program, buffer: Buffer, base: str, lag: int, tape: _Tape, gives: dict[str, list[Piece]]) -> Keep:
    """What a read against the run sends, written at the reader's step."""
    name = fresh(f"d.{base}.shifted{abs(lag)}", tape.taken)
    wide = buffer.shape in AXIAL
    tape.steps.append(Let(name, tape.total(base, tape.lagged.pop((base, lag)))))
    tape.defined([name], wide)
    columns = tuple(name if c == base else "" for c in buffer.columns)
    if len(columns) > 1:
        zero = tape.line("zero", sp.S.Zero, wide=wide).base
        columns = tuple(c or zero for c in columns)
    keep = Keep(name if len(columns) == 1 else fresh(f"{name}.columns", tape.taken), columns,
                over="channels" if buffer.shape == "axis" else "", paired=buffer.paired)
    edge = source.edge(base, 1 if lag > 0 else -1)
    assert edge is not None
    gives.setdefault(buffer.name, []).append(Piece(keep.name, "shifted", lag))
    column = buffer.columns.index(base)
    for n, how in ((edge.start, "shifted start"), (edge.edge, "shifted edge")):
        if n:
            gives.setdefault(n, []).append(Piece(f"{keep.name}#{column}", how, lag))  # type: ignore[arg-type]
    return keep
