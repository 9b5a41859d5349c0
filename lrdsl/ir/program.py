"""Program: one fused pass over time; the form in which a recurrence is differentiated, printed and lowered.

    Program = Buffer*, Vector*, Edge*, (Let | Scan | Nonlinear)*, Keep*, Sum*
    Let     : target[t] = expr
    Scan    : s[t] = A_1 s[t-1] + … + A_K s[t-K] + b     (t+1, … where the Program runs from the right)
              s[t] = max(A + s[t-1], b)                  over another algebra (`ir.algebras`)
    Nonlinear : s[t] = F(s[t-1], …), any expression of the states' past; computed one step after another
    Keep    : samples written to memory (what a caller or the backward pass may read)
    Sum     : a sample added up over batch and time (the gradient of a learned number)
    Replay  : states that are computed again, a segment at a time, from what a Keep left at the segments' borders
    Edge    : what a sequence that is read at a lag holds outside its segment

Meaning. The Program visits t = 0 … T-1, or T-1 … 0 where `reverse`. A sequence computed here and read at a lag (in the
direction of the run only) is a shift register of `depth` values, filled with `start` before the first step. At a boundary
`reset[t]`, between t-1 and t, the register is added to `crossing` and refilled with `edge`, before anything is computed.
What it holds in the end is `final`. A sequence read from memory may be read at lags of either sign; a read that crosses a
boundary gets `edge`, one that leaves the array `start`. Where `start` or `edge` is not given it is the constant `init`.

Shapes. What is read has a shape in {1, channel} x {1, axis}, the axis being that of N numbers a channel; what is computed is
one number a channel, or N, by broadcasting: a line has the axis where something that it reads has it (outside `sum`, which adds
up over it), and where `sized` names it. In memory a channel's numbers lie N x C, channels next to each other.

This form is closed under differentiation: the gradient of (start, edge, final, crossing) is (final, crossing, start, edge)
of the register that runs the other way. `backends.reference` is the definition, executable.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import sympy as sp

from ..errors import InternalError
from ..location import Location
from . import record
from .algebras import ALGEBRAS, Algebra, AlgebraName
from .shapes import AXIAL, Shape, check_axis, said, spread
from .solver import Newton
from .structure import Structure, structure
from .symbols import At, params, samples
from .text import show


@dataclass(frozen=True)
class Buffer:
    """A tensor (B, T, len(columns) * C) whose column k holds the sequence `columns[k]`, C channels of it; N * C or N numbers
    where the shape says so. every: it holds what a Keep left every so many steps, (B, ceil(T / every), …), for a Replay.
    paired: (B, T, C, 2) instead, the two columns of a channel side by side: the parts of complex numbers, as torch has them."""

    name: str
    columns: tuple[str, ...]
    shape: Shape = "channel"
    every: int = 1
    paired: bool = False


@dataclass(frozen=True)
class Vector:
    """A learned number: one a channel (`channel`) or one in all (`one`); N of them with an axis."""

    name: str
    shape: Shape = "channel"


@dataclass(frozen=True)
class Edge:
    """Values of `base` outside its segment, `depth` of them, on the side read (-1: earlier, +1: later).

    start, edge: names of the inputs (B, depth, C), nearest first; final, crossing: names of the outputs, or None.
    """

    base: str
    side: int
    depth: int
    init: float
    start: str | None = None
    edge: str | None = None
    final: str | None = None
    crossing: str | None = None

    def __str__(self) -> str:
        reads = f"{self.base}[t{self.side * self.depth:+d}]" if self.depth == 1 else \
            f"{self.base}[t{self.side:+d} … t{self.side * self.depth:+d}]"
        named = [f"{k} {v}" for k, v in (("start", self.start), ("boundary", self.edge)) if v]
        given = ", ".join([*named, f"else {self.init:g}" if named else f"{self.init:g}"])
        gives = "".join(f"; {k} -> {v}" for k, v in (("final", self.final), ("crossing", self.crossing)) if v)
        return f"{reads}: {given}{gives}"


@dataclass(frozen=True)
class Let:
    """`target[t] = expr`."""

    target: str
    expr: sp.Expr
    where: Location | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,)

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        return (self.expr,)

    def __str__(self) -> str:
        return f"{self.target} = {show(self.expr)}"


class Recurrent(ABC):
    """A step that computes states from their own past: a Scan or a Nonlinear."""

    targets: tuple[str, ...]
    reverse: bool

    @property
    @abstractmethod
    def orders(self) -> tuple[int, ...]:
        """How far back the recurrence reads each state."""

    @abstractmethod
    def update(self, row: int) -> sp.Expr:
        """The right-hand side of one state's equation."""

    @property
    def past(self) -> tuple[At, ...]:
        """The states' earlier samples that the recurrence reads."""
        return self.state

    def back(self, state: str, k: int) -> At:
        """The sample of a state k steps back in the run's direction."""
        return At(state, k if self.reverse else -k)

    @property
    def state(self) -> tuple[At, ...]:
        """All earlier samples that a step needs to know, those between the ones that it reads too."""
        return tuple(self.back(s, k) for s, order in zip(self.targets, self.orders, strict=True) for k in range(1, order + 1))


@dataclass(frozen=True)
class Scan(Recurrent):
    """The linear recurrence: `A[k-1]` is the matrix that multiplies the states k steps back, `b` the rest.

    Over another algebra than plus-times there is one state, read one step back: A[0][0, 0] is added to it, and the sum of the
    algebra joins that with b[0].
    """

    targets: tuple[str, ...]
    A: tuple[sp.ImmutableMatrix, ...]
    b: tuple[sp.Expr, ...]
    reverse: bool = False
    where: Location | None = None
    algebra: AlgebraName = "plus-times"

    @property
    def other(self) -> Algebra | None:
        """The algebra, where it is not plus-times."""
        return ALGEBRAS.get(self.algebra)

    @property
    def order(self) -> int:
        return len(self.A)

    @property
    def orders(self) -> tuple[int, ...]:
        if self.other:
            return (1,)
        return tuple(max([0, *(k for k, m in enumerate(self.A, 1) if any(e != 0 for e in m[:, j]))])
                     for j in range(len(self.targets)))

    @functools.cached_property
    def structure(self) -> Structure:
        """What its matrices look like, or the other algebra: a schedule costs no more than that must."""
        return structure(self.orders, self.A, {}, self.other)

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        return (*(e for m in self.A for e in m), *self.b)

    @property
    def past(self) -> tuple[At, ...]:
        if self.other:
            return (self.back(self.targets[0], 1),)
        return tuple(self.back(s, k + 1) for k, m in enumerate(self.A) for j, s in enumerate(self.targets)
                     if any(m[i, j] != 0 for i in range(m.rows)))

    def update(self, row: int) -> sp.Expr:
        """The right-hand side of one state's equation."""
        if self.other:
            return self.other.sum(self.A[0][0, 0] + self.past[0], self.b[0])
        return sp.Add(*(m[row, j] * self.back(s, k + 1) for k, m in enumerate(self.A)
                        for j, s in enumerate(self.targets)), self.b[row])

    def __str__(self) -> str:
        return self.text(self.structure)

    def text(self, structure: Structure) -> str:
        """The equations, under what kind of recurrence they are."""
        way = "from the right" if self.reverse else "from the left"
        rows = [f"scan {', '.join(self.targets)}   ({structure.name}, {way})"]
        for i, state in enumerate(self.targets):
            if self.other:
                rows.append(f"  {state}[t] = {self.other.equation(show(self.A[0][0, 0]), str(self.past[0]), show(self.b[0]))}")
                continue
            terms = [("" if m[i, j] == 1 else f"({show(m[i, j])})*") + str(self.back(s, k + 1)) for k, m in enumerate(self.A)
                     for j, s in enumerate(self.targets) if m[i, j] != 0]
            terms += [f"({show(self.b[i])})"] if self.b[i] != 0 or not terms else []
            rows.append(f"  {state}[t] = {' + '.join(terms)}")
        return "\n".join(rows)


@dataclass(frozen=True)
class Nonlinear(Recurrent):
    """The recurrence `targets[i][t] = exprs[i]`, of the states' past, which the lines before it may read for it, too.

    reads: how far back it reads each state. Its derivative is a Scan (`passes.slopes`).
    """

    targets: tuple[str, ...]
    exprs: tuple[sp.Expr, ...]
    reads: tuple[int, ...]
    reverse: bool = False
    where: Location | None = None

    @property
    def orders(self) -> tuple[int, ...]:
        return self.reads

    def update(self, row: int) -> sp.Expr:
        """The right-hand side of one state's equation."""
        return self.exprs[row]

    def __str__(self) -> str:
        way = "from the right" if self.reverse else "from the left"
        return "\n".join([f"nonlinear {', '.join(self.targets)}   ({way})",
                          *(f"  {s}[t] = {show(e)}" for s, e in zip(self.targets, self.exprs, strict=True))])


Step = Let | Scan | Nonlinear


def _past(step: Step) -> tuple[At, ...]:
    return step.past if isinstance(step, Recurrent) else ()


@dataclass(frozen=True)
class Keep:
    """Samples written to memory, column by column, at every step.

    inner: nobody but the backward pass reads them. over: what is written is their sum over channels, (B, T, N) numbers.
    every: what is written is not the sample but what its register holds before the steps 0, every, 2 * every … of the run,
    and before a boundary there empties it (from which a Replay starts); 0 for all samples. paired: as of a Buffer.
    """

    name: str
    samples: tuple[str, ...]
    inner: bool = False
    over: Literal["", "channels"] = ""
    every: int = 0
    paired: bool = False


@dataclass(frozen=True)
class Sum:
    """`name` is the sum of `sample` over batch and time, and over channels where `over` says so (never over the axis).

    largest: the largest value instead, of values that are not below 0; nan where one of them is. It has no derivative.
    """

    name: str
    sample: str
    over: Literal["time", "time and channels"] = "time"
    largest: bool = False

    def shared(self, program: Program) -> bool:
        """Whether it is N numbers that the channels share: a kernel adds them up over the channels."""
        return self.over != "time" and self.sample in program.wide


@dataclass(frozen=True)
class Replay:
    """What a Program computes again before it walks a segment of `every` steps, counted in the direction of `program`.

    program: runs the other way than the Program that has it, reads what that reads, and writes nothing. states: for each of
    its registers (the state, the Buffer of borders that the register starts from in each segment, and the name by which the
    Program reads what the register held at t, after a boundary).
    """

    program: Program
    states: tuple[tuple[str, str, str], ...]
    every: int


@dataclass(frozen=True)
class Program:
    """One fused pass over time. axis: N, 0 without one; sized: names that have the axis whatever they are computed from. full:
    names of tensors that stay in the precision of the arithmetic where a kernel stores sequences in 16 bits (`ir.dtypes`).
    solver: how its Nonlinears are solved, if not one step after another; its meaning is the same."""

    name: str
    reverse: bool
    buffers: tuple[Buffer, ...]
    vectors: tuple[Vector, ...]
    edges: tuple[Edge, ...]
    steps: tuple[Step, ...]
    keeps: tuple[Keep, ...]
    sums: tuple[Sum, ...] = ()
    axis: int = 0
    sized: tuple[str, ...] = ()
    replay: Replay | None = None
    full: tuple[str, ...] = ()
    solver: Newton | None = None

    @property
    def full_names(self) -> frozenset[str]:
        """The tensors that are never stored in fewer bits than are computed with: those of `full`, and what only the backward
        pass reads."""
        return frozenset((*self.full, *(k.name for k in self.keeps if k.inner)))

    @property
    def direction(self) -> int:
        return -1 if self.reverse else 1

    @property
    def back(self) -> int:
        """The sign of the lags that look back in the run's direction."""
        return 1 if self.reverse else -1

    @property
    def loads(self) -> dict[str, tuple[str, int]]:
        """Sequence -> (buffer, column)."""
        return {column: (b.name, k) for b in self.buffers for k, column in enumerate(b.columns)}

    @property
    def replayed(self) -> tuple[str, ...]:
        """The sequences that a Replay gives."""
        return tuple(before for _, _, before in self.replay.states) if self.replay else ()

    @functools.cached_property
    def wide(self) -> frozenset[str]:
        """The sequences and learned numbers that have the axis."""
        if not self.axis:
            return frozenset()
        given = [n for b in self.buffers if b.shape in AXIAL for n in b.columns]
        given += [v.name for v in self.vectors if v.shape in AXIAL]
        return spread({*given, *self.sized, *self.replayed}, [(s.targets, (*s.exprs, *_past(s))) for s in self.steps])

    def shape(self, base: str) -> Shape:
        """The shape of a sequence or a learned number."""
        listed = {n: b.shape for b in self.buffers for n in b.columns} | {v.name: v.shape for v in self.vectors}
        return listed.get(base, "channel and axis" if base in self.wide else "channel")

    @property
    def registers(self) -> tuple[Edge, ...]:
        """The edges of sequences computed here: shift registers in a kernel."""
        loads = self.loads
        return tuple(e for e in self.edges if e.base not in loads)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all tensors it takes, in the order of every call; `reset` comes after them."""
        edges = [n for e in self.edges for n in (e.start, e.edge) if n]
        edges += [e.edge for e in self.replay.program.registers if e.edge] if self.replay else []
        return (*(b.name for b in self.buffers), *(v.name for v in self.vectors), *dict.fromkeys(edges))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all tensors it gives, in order."""
        edges = [n for e in self.edges for n in (e.final, e.crossing) if n]
        return (*(k.name for k in self.keeps), *(s.name for s in self.sums), *edges)

    @functools.cached_property
    def digest(self) -> str:
        """A hash of everything that the Program means, to the last bit of its numbers, wherever it was written and however its
        Nonlinears are solved."""
        return hashlib.sha256(record.write(replace(self, solver=None), CLASSES).encode()).hexdigest()

    def structure(self, scan: Scan) -> Structure:
        """That of one of its recurrences, with all that the lines say of the coefficients."""
        return structure(scan.orders, scan.A, {At(s.target): s.expr for s in self.steps if isinstance(s, Let)}, scan.other)

    def told(self, scan: Scan) -> tuple[sp.Expr, ...]:
        """What must be known of each step to add up what many do to the state: b alone where A is the same at all times."""
        return scan.b if self.structure(scan).powers else scan.exprs

    def edge(self, base: str, side: int) -> Edge | None:
        """The edge of a sequence on one side."""
        return next((e for e in self.edges if e.base == base and e.side == side), None)

    def reads(self) -> tuple[At, ...]:
        """Every sample that the steps read, in order, once."""
        found = [s for step in self.steps for e in step.exprs for s in samples(e)]
        found += [s for step in self.steps for s in _past(step)]
        return tuple(dict.fromkeys(found))

    def check(self) -> Program:
        """Raise InternalError unless every read is defined, in order, in the direction of the run, and has its edge."""
        def fault(what: str) -> InternalError:
            return InternalError("program", f"{self.name}: {what}", str(self))
        loads, known = self.loads, {*self.loads, *self.replayed}
        computed = [t for step in self.steps for t in step.targets]
        if len(set(computed) | known) != len(computed) + len(known):
            raise fault("a sequence is defined twice")
        names = [*self.inputs, *self.outputs]
        if len(set(names)) != len(names):
            raise fault("two tensors share a name")
        vectors = {v.name for v in self.vectors}
        for step in self.steps:
            if isinstance(step, Recurrent) and step.reverse != self.reverse:
                raise fault(f"{step} runs against the program")
            if isinstance(step, Scan):
                n = len(step.targets)
                if any(m.shape != (n, n) for m in step.A) or len(step.b) != n:
                    raise fault(f"A or b of {', '.join(step.targets)} has the wrong shape")
                if step.other and (n, step.order) != (1, 1):
                    raise fault(f"{', '.join(step.targets)} over {step.other} is more than one state, one step back")
                own = {s for e in step.exprs for s in samples(e) if s.base in step.targets}
                if own:
                    raise fault(f"A or b of {step} still reads {own}")
            for expr in step.exprs:
                if not {str(p) for p in params(expr)} <= vectors:
                    raise fault(f"{step} reads an unlisted parameter")
                for s in samples(expr):
                    if s.base not in loads and s.lag * self.back < 0:
                        raise fault(f"{step} reads {s} before it is computed")
                    if s.lag == 0 and s.base not in known:
                        raise fault(f"{step} reads {s} before it exists")
                    if s.lag and s.base not in known | set(computed):
                        raise fault(f"{step} reads {s}, which nothing defines")
            known |= set(step.targets)
        for s in self.reads():
            edge = self.edge(s.base, 1 if s.lag > 0 else -1) if s.lag else None
            if s.lag and (edge is None or edge.depth < abs(s.lag)):
                raise fault(f"{s} has no edge")
        for name in [n for k in self.keeps for n in k.samples] + [s.sample for s in self.sums]:
            if name not in known:
                raise fault(f"{name} is written but never computed")
        pairs = {b.name: b.columns for b in self.buffers if b.paired} | {k.name: k.samples for k in self.keeps if k.paired}
        for name, halves in pairs.items():
            if len(halves) != 2 or self.axis:
                raise fault(f"{name} is no pair of channels")
        if self.axis:
            check_axis(self, fault)
        return self

    def __str__(self) -> str:
        lines = [f"program {self.name} ({'from the right' if self.reverse else 'from the left'})"]
        lines += [f"  read {', '.join(b.columns)}" + _of(b.name, b.columns, b.paired) + said(b.shape)
                  + (f", every {b.every} steps" if b.every > 1 else "") for b in self.buffers]
        lines += [f"  {'scalar' if v.shape in ('one', 'axis') else 'vector'} {v.name}" + said(v.shape) for v in self.vectors]
        lines += [f"  edge {e}" for e in self.edges]
        for step in self.steps:
            text = (step.text(self.structure(step)) if isinstance(step, Scan) else str(step)).replace("\n", "\n  ")
            lines.append(f"  {text:<72} # {step.where.short}" if isinstance(step, Let) and step.where else f"  {text}")
        lines += [f"  keep {', '.join(k.samples)}" + _of(k.name, k.samples, k.paired)
                  + ("   (for the backward pass)" if k.inner else "") + (f"   (summed over {k.over})" if k.over else "")
                  + (f"   (before every {k.every} steps)" if k.every else "") for k in self.keeps]
        lines += [f"  {'largest' if s.largest else 'sum'} {s.sample} over {s.over} -> {s.name}" for s in self.sums]
        lines += [f"  solver {self.solver}"] if self.solver else []
        lines += [f"  in full precision {', '.join(self.full)}"] if self.full else []
        lines += [f"  axis of {self.axis}: {', '.join(sorted(self.wide))}"] if self.axis else []
        if self.replay:
            lines += [f"  replay, {self.replay.every} steps at a time: " + ", ".join(
                f"{before}, what the register of {state} holds, from {border}" for state, border, before in self.replay.states)]
            lines += [f"    {line}" for line in str(self.replay.program).splitlines()]
        return "\n".join(lines)


def _of(tensor: str, inside: tuple[str, ...], paired: bool) -> str:
    return f"   ({'parts' if paired else 'columns'} of {tensor})" if inside != (tensor,) else ""


RECORDED = (Buffer, Vector, Edge, Let, Scan, Nonlinear, Keep, Sum, Replay, Program, Newton)
CLASSES = {c.__name__: c for c in RECORDED}
