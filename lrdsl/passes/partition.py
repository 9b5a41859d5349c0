"""From Strata to a Plan: Programs between dense maps, one matrix product for all maps of the same samples.

A value's stage is the number of the Program that computes it: one more than that of the sequences which its dense maps
read. Recurrences and everything that must be written are computed once, at their stage; other lines are recomputed in each
Program that needs them, which costs a read of their operands and saves a write.
A dense map commutes with the shift: `W s[t-1]` is the sample at t-1 of the product `W s`, and its edge is `W edge`. Where
one call reads a sequence at several lags, the product is of the window, which the Dense forms: k samples of the sequence
side by side cost less than k products written and read.
Holds afterwards: every Program reads only inputs, products and sequences that earlier steps wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sympy as sp

from ..errors import NotBuilt
from ..ir.plan import Affine, Block, Dense, Plan, Sequence, Stage
from ..ir.program import Buffer, Edge, Keep, Let, Program, Scan, Step, Vector
from ..ir.shapes import Shape
from ..ir.spec import MapCall, Spec
from ..ir.symbols import At, Param, params, samples
from .extract import extract
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
    reverse: bool
    steps: list[Step] = field(default_factory=list)
    stage: dict[str, int] = field(default_factory=dict)
    ready: dict[str, int] = field(default_factory=dict)
    products: dict[str, _Product] = field(default_factory=dict)
    affines: dict[str, Affine] = field(default_factory=dict)

    def product_shape(self, product: str) -> Shape:
        """Of the product of a map: hidden numbers a step, or N that the channels share."""
        return "axis" if self.products[product].block.affine in self.spec.sized else "channel"


def partition(strata: Strata) -> Plan:
    """Lay the groups out as Dense steps and Programs."""
    spec = strata.spec
    lags = [r.lag for s in spec.statements for r in s.reads() if r.lag and r.base in spec.names("state")]
    work = _Work(spec, reverse=any(lag > 0 for lag in lags))
    work.ready = dict.fromkeys(spec.names("input"), 0)
    for group in strata.groups:
        if group.recurrent:
            scan, lets = extract(group, work.reverse)
            stage = max([1, *(work.stage.get(s.base, 1) for e in scan.exprs for s in samples(e))])
            work.steps.append(scan)
            work.stage |= dict.fromkeys(scan.targets, stage)
            work.ready |= dict.fromkeys(scan.targets, stage)
            for let in lets:
                _add(work, let)
        else:
            statement = group.statements[0]
            _add(work, _map(work, statement) if isinstance(statement, MapCall)
                 else Let(statement.target, statement.expr, statement.where))
    return _assemble(work)


def _add(work: _Work, let: Let) -> None:
    work.steps.append(let)
    stage = max([1, *(work.stage.get(s.base, 1) for s in samples(let.expr))])
    work.stage[let.target] = work.ready[let.target] = stage


def _map(work: _Work, call: MapCall) -> Let:
    """The line `target = sum of products + bias`; compound operands become lines before it."""
    operands: list[At] = []
    for k, operand in enumerate(call.operands):
        if not isinstance(operand, At):
            line = f"{call.target}.in{k}"
            _add(work, Let(line, operand, call.where))
            operand = At(line)
        operands.append(operand)
    terms: list[Any] = []
    for source in dict.fromkeys(o.base for o in operands):
        reads = [(k, o.lag) for k, o in enumerate(operands) if o.base == source]
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
    if bias is not False:
        terms.append(Param(f"{call.affine}.bias"))
    work.affines.setdefault(call.affine, Affine(call.affine, tuple(o.base for o in operands), bias))
    return Let(call.target, sp.Add(*terms), call.where)


def _product(work: _Work, name: str, source: str, lags: tuple[int, ...], affine: str, operands: tuple[int, ...]) -> str:
    """The name of a product: `name`, or that of the same slice of a weight times the same samples."""
    wanted = source, lags, affine, operands
    known = (n for n, p in work.products.items() if (p.source, p.lags, p.block.affine, p.block.operands) == wanted)
    product = next(known, name)
    work.products[product] = _Product(source, lags, Block(product, affine, operands))
    work.stage[product] = work.ready[source] + 1
    return product


def _assemble(work: _Work) -> Plan:
    spec = work.spec
    depth = _depths(work)
    states = set(spec.names("state"))
    lasting = {t for s in work.steps if isinstance(s, Scan) for t in s.targets} | {b for b, _ in depth if b in states}
    outputs = {sample.base for _, sample in spec.outputs}
    written = outputs | {p.source for p in work.products.values() if p.source not in spec.names("input")}
    lasting |= written
    last = max([1, *(work.stage[n] for n in lasting)])
    needed = {k: _needed(work, k, lasting, {n for n in lasting if work.stage[n] == k}) for k in range(1, last + 1)}
    for k, names in needed.items():
        for later in range(k + 1, last + 1):
            reads = {s.base for step in work.steps for t in step.targets if t in needed[later]
                     for e in step.exprs for s in samples(e)}
            written |= {n for n in names & lasting if n in reads and work.stage[n] == k and n not in needed[later]}
    users = {p: tuple(k for k, names in needed.items() if p in _reads(work, names)) for p in work.products}
    steps: list[Dense | Stage] = []
    for k in range(1, last + 1):
        dense = _dense(work, k, users)
        steps += dense
        pieces = {b.target: (buffer, blocks) for d in steps if isinstance(d, Dense) for buffer, blocks in d.outputs
                  for b in blocks}
        name = spec.name if last == 1 else f"{spec.name}_{k}"
        program = _program(work, name, needed[k], k, depth, pieces, [n for n in _order(work) if n in written])
        if program.keeps:
            steps.append(Stage(program))
    sequences = [Sequence(d.name, side, n, d.option("init", 0.0), bool(d.option("learned")), d.kind == "state",
                          d.option("axis", 0) if d.kind == "state" else 0)
                 for kind in ("state", "input") for d in spec.of(kind)
                 for (base, side), n in depth.items() if base == d.name]
    # Lines that a surrogate reads at a lag: a Carry must hold them too.
    sequences += [Sequence(base, side, n, 0.0, False, False, spec.axis if base in spec.wide else 0)
                  for (base, side), n in depth.items()
                  if base not in work.products and base not in {d.name for d in spec.declared}]
    return Plan(spec.name, work.reverse, spec.names("input"), tuple(work.affines.values()), tuple(steps),
                tuple(sequences), tuple((n, s.base) for n, s in spec.outputs)).check()


def _order(work: _Work) -> list[str]:
    return [t for step in work.steps for t in step.targets]


def _depths(work: _Work) -> dict[tuple[str, int], int]:
    """(sequence, side) -> deepest lag at which the cell reads it, itself or through a dense map."""
    depth: dict[tuple[str, int], int] = {}
    for step in work.steps:
        reads = [s for e in step.exprs for s in samples(e)]
        if isinstance(step, Scan):
            reads += step.past
        for s in reads:
            product = work.products.get(s.base)
            through = [At(product.source, s.lag + lag) for lag in product.lags] if product else []
            for read in (s, *through):
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


def _program(work: _Work, name: str, names: set[str], k: int, depth: dict[tuple[str, int], int],
             pieces: dict[str, tuple[str, tuple[Block, ...]]], written: list[str]) -> Program:
    steps = tuple(s for s in work.steps if set(s.targets) & names)
    reads = [s for step in steps for e in step.exprs for s in samples(e)]
    buffers: dict[str, Buffer] = {}
    for base in dict.fromkeys(s.base for s in reads if s.base not in names):
        if base in pieces:
            buffer, blocks = pieces[base]
            buffers[buffer] = Buffer(buffer, tuple(b.target for b in blocks), work.product_shape(base))
        else:
            buffers[base] = Buffer(base, (base,), _shape(work.spec, base))
    vectors = tuple(Vector(p, _shape(work.spec, p))
                    for p in dict.fromkeys(str(p) for step in steps for e in step.exprs for p in params(e)))
    edges = tuple(_edge(work, base, side, n, base in names) for (base, side), n in depth.items()
                  if base in names or any(s.base == base and s.lag * side > 0 for s in reads))
    keeps = tuple(Keep(n, (n,)) for n in written if n in names and work.stage[n] == k)
    ordered = tuple(sorted(buffers.values(), key=lambda b: b.shape == "axis"))  # the first says how many channels there are
    wide = {*work.spec.wide} & {*names, *buffers, *(v.name for v in vectors), *(c for b in ordered for c in b.columns)}
    if work.spec.axis and not any(b.shape != "axis" for b in ordered):
        raise NotBuilt(f"{work.spec.name} reads no sequence that has channels, so that their number is unknown",
                       work.spec.where, "read an Input without an axis, or a map of one, too")
    return Program(name, work.reverse, ordered, vectors, edges, steps, keeps, axis=work.spec.axis if wide else 0,
                   sized=tuple(n for n in work.spec.sized if n in names)).check()


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
    ahead = ".ahead" if (side > 0) != work.reverse else ""
    declared = {d.name: d for d in work.spec.declared}
    init = declared[base].option("init", 0.0) if base in declared and declared[base].kind == "state" else 0.0
    return Edge(base, side, depth, init, f"{base}{ahead}.start", f"{base}{ahead}.edge",
                f"{base}.final" if computed else None)
