"""From Strata to a Plan: Programs between dense maps, one matrix product for all maps of the same samples.

A value's stage is the number of the Program that computes it: after that of the sequences which its dense maps read, and of
those which it reads against their run (`stages`). Recurrences and everything that must be written are computed once, at their
stage; other lines are recomputed in each Program that needs them, which costs a read of their operands and saves a write.
A dense map commutes with the shift: `W s[t-1]` is the sample at t-1 of the product `W s`, and its edge is `W edge`. Where
one call reads a sequence at several lags, the product is of the window, which the Dense forms: k samples of the sequence
side by side cost less than k products written and read. Both parts of a complex value are one tensor where Programs alone
read and write them.
Holds afterwards: every Program reads only inputs, products and sequences that earlier steps wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sympy as sp

from ..errors import NotBuilt, raise_all
from ..ir.plan import Affine, Block, Dense, Plan, Sequence, Sized, Stage
from ..ir.program import Buffer, Edge, Keep, Let, Nonlinear, Program, Recurrent, Step, Vector
from ..ir.shapes import Shape
from ..ir.solver import Newton
from ..ir.spec import MapCall, Spec
from ..ir.symbols import At, Param, params, samples
from .algebras import check_initial
from .extract import extract
from .nonlinear import check_axis, closed
from .stages import sides, stages
from .stratify import Strata


class _Product(NamedTuple):
    """A slice of a weight times a sequence: of its sample at one lag, which the reader chooses, or of a window of `lags`."""

    source: str
    lags: tuple[int, ...]
    block: Block


@dataclass
class _Work:
    """What is known of each name while the plan is laid out."""

    spec: Spec
    steps: list[Step] = field(default_factory=list)
    stage: dict[str, int] = field(default_factory=dict)
    side: dict[str, int] = field(default_factory=dict)
    products: dict[str, _Product] = field(default_factory=dict)
    pairs: dict[str, Buffer] = field(default_factory=dict)
    affines: dict[str, Affine] = field(default_factory=dict)
    sized: dict[str, Sized] = field(default_factory=dict)

    def tensor(self, name: str) -> str:
        """The tensor of a sequence that is not a product."""
        return self.pairs[name].name if name in self.pairs else name

    def product_shape(self, product: str) -> Shape:
        """Of the product of a map: hidden numbers a step, or N that the channels share."""
        return "axis" if self.products[product].block.affine in self.spec.sized else "channel"


def partition(strata: Strata) -> Plan:
    """Lay the groups out as Dense steps and Programs."""
    spec = strata.spec
    work, names = _Work(spec), {d.name for d in spec.declared} | {s.target for s in spec.statements}
    for group in strata.groups:
        if group.recurrent:
            work.steps += extract(group, group.reverse, names if spec.solver else None)
        else:
            statement = group.statements[0]
            if isinstance(statement, MapCall) and spec[statement.affine].option("size"):
                _size(work, statement)
                continue
            work.steps.append(_map(work, statement) if isinstance(statement, MapCall)
                              else Let(statement.target, statement.expr, statement.where))
    raise_all([*check_initial(spec, work.steps), *check_axis(spec, work.steps)])
    return _assemble(work)


def _map(work: _Work, call: MapCall) -> Let:
    """The line `target = sum of products + bias`; compound operands become lines before it, and 0 leaves no product."""
    operands = _operands(work, call)
    terms: list[Any] = []
    for source in dict.fromkeys(o.base for o in operands if o):
        reads = [(k, o.lag) for k, o in enumerate(operands) if o and o.base == source]
        name = f"{call.target}.{source}"
        if len({lag for _, lag in reads}) > 1:
            reads.sort(key=lambda read: (abs(read[1]), read[1]))  # one order, so that maps of one window share it
            numbers, lags = zip(*reads, strict=True)
            terms.append(At(_product(work, name, source, lags, call.affine, numbers)))
            continue
        for k, lag in reads:
            product = name if k == reads[0][0] else f"{name}.{k}"
            terms.append(At(_product(work, product, source, (0,), call.affine, (k,)), lag))
    bias = work.spec[call.affine].option("bias", True)
    if bias is not False and call.bias:
        terms.append(Param(f"{call.affine}.bias"))
    said = work.affines[call.affine].operands if call.affine in work.affines else ("",) * len(operands)
    names = tuple(n or (o.base if o else "") for n, o in zip(said, operands, strict=True))
    work.affines[call.affine] = Affine(call.affine, names, bias)
    return Let(call.target, sp.Add(*terms), call.where)


def _operands(work: _Work, call: MapCall) -> list[At | None]:
    """What a map reads, None for 0; compound operands become lines before it."""
    operands: list[At | None] = []
    for k, operand in enumerate(call.operands):
        if operand == 0:
            operands.append(None)
            continue
        if not isinstance(operand, At):
            line = f"{call.target}.in{k}"
            work.steps.append(Let(line, operand, call.where))
            operand = At(line)
        operands.append(operand)
    return operands


def _size(work: _Work, call: MapCall) -> None:
    """A map with a size of its own: its value is there as soon as what it reads."""
    operands, d = _operands(work, call), work.spec[call.affine]
    reads: dict[str, list[tuple[int, int]]] = {}
    for k, o in enumerate(operands):
        if o:
            reads.setdefault(o.base, []).append((o.lag, k))
    terms = tuple((source, *zip(*found, strict=True)) for source, found in reads.items())
    work.sized[call.target] = Sized(call.target, call.affine, terms, call.bias)  # type: ignore[arg-type]
    names = tuple(o.base if o else "" for o in operands)
    work.affines.setdefault(call.affine, Affine(call.affine, names, d.option("bias", True), d.option("size")))


def _product(work: _Work, name: str, source: str, lags: tuple[int, ...], affine: str, operands: tuple[int, ...]) -> str:
    """The name of a product: `name`, or that of the same slice of a weight times the same samples."""
    wanted = source, lags, affine, operands
    known = (n for n, p in work.products.items() if (p.source, p.lags, p.block.affine, p.block.operands) == wanted)
    product = next(known, name)
    work.products[product] = _Product(source, lags, Block(product, affine, operands))
    return product


def _assemble(work: _Work) -> Plan:
    spec = work.spec
    depth = _depths(work)
    states = set(spec.names("state"))
    lasting = {t for s in work.steps if isinstance(s, Recurrent) for t in s.targets} | {b for b, _ in depth if b in states}
    outputs = {sample.base for _, sample in spec.outputs}
    sources = {p.source for p in work.products.values()} | {s for m in work.sized.values() for s, _, _ in m.terms}
    written = (outputs | sources) - {*_given(spec), *work.sized}
    lasting |= written
    work.side = sides(spec, work.steps)
    made = stages(closed(work.steps), _given(spec), {p: known.source for p, known in work.products.items()},
                  {n: {source for source, _, _ in m.terms} for n, m in work.sized.items()}, work.side, lasting)
    work.stage = {**made.of, **{p: made.of[known.source] + 1 for p, known in work.products.items()}}
    lasting |= {b for b, side in depth if made.of.get(b, 0) and made.against(side)}
    pairs = _pairs(work, written, sources)
    work.pairs = {half: Buffer(name, (re, im), paired=True) for name, re, im in pairs for half in (re, im)}
    last = len(made.runs)
    needed = {k: _needed(work, k, lasting, {n for n in lasting if work.stage[n] == k}) for k in range(1, last + 1)}
    for k, names in needed.items():
        for later in range(k + 1, last + 1):
            reads = {s.base for step in work.steps for t in step.targets if t in needed[later]
                     for e in step.exprs for s in samples(e)}
            written |= {n for n in names & lasting if n in reads and work.stage[n] == k and n not in needed[later]}
    users = {p: tuple(k for k, names in needed.items() if p in _reads(work, names)) for p in work.products}
    steps: list[Dense | Sized | Stage] = [m for n, m in work.sized.items() if made.of[n] == 0]
    for k, reverse in enumerate(made.runs, 1):
        dense = _dense(work, k, users)
        steps += dense
        pieces = {b.target: (buffer, blocks) for d in steps if isinstance(d, Dense) for buffer, blocks in d.outputs
                  for b in blocks}
        name = spec.name if last == 1 else f"{spec.name}_{k}"
        program = _program(work, name, needed[k], k, reverse, depth, pieces, [n for n in _order(work) if n in written])
        if program.outputs:
            steps.append(Stage(program))
        steps += [m for n, m in work.sized.items() if made.of[n] == k]
    sequences = [Sequence(d.name, side, n, d.option("init", 0.0), bool(d.option("learned")), d.kind == "state",
                          _ahead(work, d.name, side), d.option("axis", 0) if d.kind == "state" else 0)
                 for kind in ("state", "input") for d in spec.of(kind)
                 for (base, side), n in depth.items() if base == d.name]
    # Lines that a surrogate reads at a lag: a Carry must hold them too.
    named = {*spec.names("state"), *spec.names("input")}
    sequences += [Sequence(base, side, n, _init(work, base), False, False, _ahead(work, base, side),
                           spec.axis if base in spec.wide else 0)
                  for (base, side), n in depth.items() if base not in work.products and base not in named]
    return Plan(spec.name, tuple(dict.fromkeys(work.tensor(n) for n in _given(spec))), tuple(work.affines.values()),
                tuple(steps), tuple(sequences), _outputs(work), pairs).check()


def _pairs(work: _Work, written: set[str], sources: set[str]) -> tuple[tuple[str, str, str], ...]:
    """The complex values that are one tensor: inputs, and what one Program writes, of which no map reads a part."""
    inputs = work.spec.names("input")

    def together(re: str, im: str) -> bool:
        at_once = {re, im} <= written and work.stage[re] == work.stage[im]
        return not work.spec.axis and not {re, im} & sources and (re in inputs or at_once)

    return tuple(pair for pair in work.spec.pairs if together(*pair[1:]))


def _outputs(work: _Work) -> tuple[tuple[str, str], ...]:
    """What the cell returns, tensor by tensor; of a pair, whose parts follow each other, by the name of both."""
    second = {b.columns[1] for b in work.pairs.values()}
    return tuple((n.removesuffix(".re") if s.base in work.pairs else n, work.tensor(s.base))
                 for n, s in work.spec.outputs if s.base not in second)


def _order(work: _Work) -> list[str]:
    return [t for step in work.steps for t in step.targets]


def _depths(work: _Work) -> dict[tuple[str, int], int]:
    """(sequence, side) -> deepest lag at which the cell reads it, itself or through a dense map."""
    depth: dict[tuple[str, int], int] = {}
    reads = [At(source, lag) for m in work.sized.values() for source, lags, _ in m.terms for lag in lags]
    for step in work.steps:
        for s in (*(s for e in step.exprs for s in samples(e)), *(step.past if isinstance(step, Recurrent) else ())):
            product = work.products.get(s.base)
            reads += [s] if product is None else [s, *(At(product.source, s.lag + lag) for lag in product.lags)]
    for read in reads:
        if read.lag:
            key = (read.base, 1 if read.lag > 0 else -1)
            depth[key] = max(depth.get(key, 0), abs(read.lag))
    return depth


def _needed(work: _Work, k: int, lasting: set[str], roots: set[str]) -> set[str]:
    """The values that Program k computes: its roots, and the lines they need that are not read from memory."""
    computed: set[str] = set()
    steps = {t: step for step in work.steps for t in step.targets}

    def visit(name: str) -> None:
        if name in computed or name not in steps or (name in lasting and work.stage[name] < k):
            return
        computed.update(steps[name].targets)
        for e in steps[name].exprs:
            for s in samples(e):
                visit(s.base)

    for name in roots:
        visit(name)
    return computed


def _reads(work: _Work, names: set[str]) -> set[str]:
    return {s.base for step in work.steps if set(step.targets) & names for e in step.exprs for s in samples(e)}


def _dense(work: _Work, k: int, users: dict[str, tuple[int, ...]]) -> list[Dense]:
    """The matrix products that become possible before Program k, one for each source and set of lags; a buffer for each
    set of readers."""
    found: list[Dense] = []
    products = [p for p in work.products if work.stage[p] == k and users[p]]
    for source in dict.fromkeys(work.products[p].source for p in products):
        own = [p for p in products if work.products[p].source == source]
        group_of = {p: (work.products[p].lags, users[p], work.product_shape(p)) for p in own}
        groups = sorted(set(group_of.values()), key=lambda group: ([*map(abs, group[0])], group[:2], group[2] != "channel"))
        buffers = [f"{source}.maps" + (f".{i + 1}" if len(groups) > 1 else "") for i in range(len(groups))]
        for lags in dict.fromkeys(group[0] for group in groups):
            outputs = tuple((buffer, tuple(work.products[p].block for p in own if group_of[p] == group))
                            for buffer, group in zip(buffers, groups, strict=True) if group[0] == lags)
            found.append(Dense(source, lags, outputs))
    return found


def _program(work: _Work, name: str, names: set[str], k: int, reverse: bool, depth: dict[tuple[str, int], int],
             pieces: dict[str, tuple[str, tuple[Block, ...]]], written: list[str]) -> Program:
    steps = tuple(s for s in work.steps if set(s.targets) & names)
    reads = [s for step in steps for e in step.exprs for s in samples(e)]
    buffers: dict[str, Buffer] = {}
    for base in dict.fromkeys(s.base for s in reads if s.base not in names):
        if base in pieces:
            buffer, blocks = pieces[base]
            buffers[buffer] = Buffer(buffer, tuple(b.target for b in blocks), work.product_shape(base))
        elif base in work.pairs:
            buffers[work.pairs[base].name] = work.pairs[base]
        else:
            buffers[base] = Buffer(base, (base,), _shape(work.spec, base))
    vectors = tuple(Vector(p, _shape(work.spec, p))
                    for p in dict.fromkeys(str(p) for step in steps for e in step.exprs for p in params(e)))
    edges = tuple(_edge(work, base, side, n, base in names) for (base, side), n in depth.items()
                  if (base in names and (side > 0) == reverse)
                  or (base not in names and any(s.base == base and s.lag * side > 0 for s in reads)))
    keeps = dict.fromkeys(Keep(b.name, b.columns, paired=True) if (b := work.pairs.get(n)) else Keep(n, (n,))
                          for n in written if n in names and work.stage[n] == k)
    ordered = tuple(sorted(buffers.values(), key=lambda b: b.shape == "axis"))  # the first says how many channels there are
    wide = {*work.spec.wide} & {*names, *buffers, *(v.name for v in vectors), *(c for b in ordered for c in b.columns)}
    if work.spec.axis and not any(b.shape != "axis" for b in ordered):
        raise NotBuilt(f"{work.spec.name} reads no sequence that has channels, so that their number is unknown",
                       work.spec.where, "read an Input without an axis, or a map of one, too")
    bent = any(isinstance(s, Nonlinear) for s in steps)
    return Program(name, reverse, ordered, vectors, edges, steps, tuple(keeps), axis=work.spec.axis if wide else 0,
                   sized=tuple(n for n in work.spec.sized if n in names),
                   solver=work.spec.solver if bent and isinstance(work.spec.solver, Newton) else None).check()


def _ahead(work: _Work, name: str, side: int) -> bool:
    """Whether a side is not the one that its run comes from; what has no run of its own has that of the first state."""
    return side != work.side.get(name, next(iter(work.side.values()), -1))


def _shape(spec: Spec, name: str) -> Shape:
    """Of an Input, a learned number or a line."""
    affine = name.removesuffix(".bias")
    if affine in spec.names("affine"):
        return "axis" if affine in spec.sized else "channel"
    shared = name in {*spec.names("input"), *spec.names("scalar")}
    if name in spec.wide:
        return "axis" if shared else "channel and axis"
    return "one" if name in spec.names("scalar") else "channel"


def _edge(work: _Work, base: str, side: int, depth: int, computed: bool) -> Edge:
    source = work.products[base].source if base in work.products else base
    ahead = ".ahead" if _ahead(work, source, side) else ""
    return Edge(base, side, depth, _init(work, base), f"{base}{ahead}.start", f"{base}{ahead}.edge",
                f"{base}.final" if computed else None)


def _given(spec: Spec) -> tuple[str, ...]:
    """The sequences that lie in memory from the start: inputs, and what a call draws or makes beside them."""
    return spec.names("input") + spec.names("mask") + spec.names("first")


def _init(work: _Work, base: str) -> float:
    """The edge of a sequence that is not given."""
    d = next((d for d in work.spec.of("state") + work.spec.of("first") if d.name == base), None)
    return float(d.option("init", 0.0)) if d else 0.0
