"""How wrong a correct float32 kernel may be, whatever its recurrences: a Program in float64, with a bound beside every number.

    run = Analysis(program, tensors, reset, Counts(chunked=False, fused=True))
    run.outputs["h"].value, run.outputs["h"].err

Tensors are exact numbers, or Rounded ones where a kernel has computed them.
Lines carry absolute errors, sums and products in any order (Higham 2002, Lemmas 3.1 and 3.3). A recurrence h[t] = A[t] h[t-1] +
b[t] has the bounds of shared/RELIABILITY.md, section 4, with matrices; of the first two the smaller one counts:

    componentwise   H = |A| H + |b|,     W = |A| (W + H):       |h^ - h| <= u (c_m W + c_a H), as |fl(A B) - A B| <= g_k |A| |B|
    in the 2-norm   H = |A|_2 H + |b|_2, W = |A|_2 (W + H):     the same with sqrt(n) c_m, as | |A| |_2 <= sqrt(n) |A|_2

The majorant |A| keeps zeros: diagonals, triangles and companion matrices lose nothing by it; a rotation, whose |A| has the norm
|cos| + |sin|, needs the second. Neither is relative to |h|: where products of A cancel, nothing relative to |h| is promised
(Mathias, SISC 16, 1995). Errors of A and b move h by E = (|A| + A_err) E + A_err |h[t-1]| + b_err, and in norms alike.

Over (max, +) and (min, +) only additions round, each by u M at most, M = max(M + |a|, |b|); over (logaddexp, +) a sum too, by
`ulp` u (M + log T), and an error is passed on in the shares that terms have of a sum: K = share (K + 1) roundings on average.

What decides (a comparison) is taken as decided: draw inputs that are far from ties, or whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import sympy as sp

from lrdsl.backends.reference import MEANING
from lrdsl.ir import functions as f
from lrdsl.ir.program import Edge, Program, Scan
from lrdsl.ir.symbols import At, Param
from tests import bounds
from tests.bounds import Array, gamma

U, TINY = bounds.ROUNDOFF["float32"], bounds.SUBNORMAL["float32"]
ULP = 5  # units u: elementary functions are off by at most 2.5 ulp, an ulp is at most 2 u


class Counts(NamedTuple):
    """In which order a kernel evaluates. chunked: products of matrices are formed; fused: a product and its sum round once."""

    chunked: bool
    fused: bool

    def of(self, program: Program, scan: Scan) -> tuple[int, int]:
        """(c_m, c_a) of a recurrence.

        A step rounds a product once, and again with every addition to it: as often as a row has products where the rest is
        added last; and once where that is fused, there is one, and the rest is no product that may be fused instead. In chunks
        the rest is innermost in a chain of fused sums, as many as a row of many steps has products; and as the later of two
        stretches it meets such a chain three times: of warps, of chunks, and before a warp's own steps."""
        most = max(sum(m[i, j] != 0 for m in scan.A for j in range(m.cols)) for i in range(len(scan.targets)))
        structure = program.structure(scan)
        many = max(map(len, structure.many))
        chain = many + (structure.held > structure.count)  # the error of a product is one more
        alone = 1 if self.fused and most == 1 and not any(b.is_Mul for b in scan.b) else most + 1
        return (max(alone, many), most + 3 * chain + 1) if self.chunked else (alone, 1)


@dataclass(frozen=True)
class Rounded:
    """An exact value, and how far a computation of it may be off."""

    value: Array
    err: Array

    def map(self, change: Any) -> Rounded:
        """The same selection of both."""
        return Rounded(change(self.value), change(self.err))


def exact(value: Any) -> Rounded:
    return value if isinstance(value, Rounded) else Rounded(np.asarray(value, float), np.zeros(np.shape(value)))


def total(terms: Sequence[Rounded]) -> Rounded:
    """A sum in any order."""
    sizes = sum(np.abs(x.value) + x.err for x in terms)
    return Rounded(sum(x.value for x in terms), sum(x.err for x in terms) + gamma(len(terms) - 1, U) * sizes)


def product(factors: Sequence[Rounded]) -> Rounded:
    """A product in any order; a factor of 1 or -1 rounds nothing."""
    value = reduce(np.multiply, (x.value for x in factors))
    most = reduce(np.multiply, (np.abs(x.value) + x.err for x in factors))
    rounds = sum(x.value.ndim > 0 or abs(float(x.value)) != 1 for x in factors) - 1
    return Rounded(value, most * (1 + gamma(max(rounds, 0), U)) - np.abs(value) + TINY * len(factors) * (1 + most))


def chosen(at: Array, one: Rounded, other: Rounded) -> Rounded:
    return Rounded(np.where(at, one.value, other.value), np.where(at, one.err, other.err))


def called(name: str, args: Sequence[Rounded]) -> Rounded:
    """A function of the language; those that no test needs are refused."""
    x = args[0]
    value = MEANING[name](*(a.value for a in args))
    if name in ("sigmoid", "tanh"):
        bound = bounds.sigmoid_bound if name == "sigmoid" else bounds.tanh_bound
        return Rounded(value, bound(x.value, x.err, u=U, ulp=ULP))
    if name in ("sin", "cos"):
        return Rounded(value, x.err + ULP * U * (np.abs(value) + x.err))
    if name in ("maximum", "minimum"):
        return Rounded(value, np.maximum(x.err, args[1].err))
    if name == "where":
        return chosen(x.value != 0, *args[1:])
    if name in ("greater", "greater_equal", "equal"):
        return exact(value)
    raise NotImplementedError(f"no bound of {name}")


class Analysis:
    """A Program on tensors as `reference.run` takes them, but (B, T, C), for buffers of one column each."""

    def __init__(self, program: Program, tensors: Mapping[str, Any], reset: Array | None, counts: Counts,
                 lam: float | None = None) -> None:
        """lam: the smaller of these bounds and B2, see `bounds.scan_bound`."""
        self.program, self.counts, self.tensors, self.lam = program, counts, tensors, lam
        first = exact(tensors[program.buffers[0].name]).value
        self.B, self.T, self.C = first.shape
        self.times = range(self.T)[:: program.back * -1]
        self.boundary = np.zeros((self.B, self.T + 1), bool)
        if reset is not None:
            self.boundary[:, : self.T] = reset
        self.values: dict[Any, Rounded] = {At(b.name): exact(tensors[b.name]) for b in program.buffers}
        self.values |= {Param(v.name): exact(tensors[v.name]) for v in program.vectors}
        self.outputs: dict[str, Rounded] = {}
        for edge in program.edges:
            if edge.base in program.loads:
                self._reads(edge)
        for step in program.steps:
            self._scan(step) if isinstance(step, Scan) else self._define(step.target, self.of(step.expr))
        for keep in program.keeps:
            self.outputs[keep.name] = self.values[At(keep.samples[0])]
        for s in program.sums:
            x = self.values[At(s.sample)]
            err = bounds.sum_bound(x.value, x.err, u=U, block=min(256, self.T), axis=1)
            self.outputs[s.name] = Rounded(x.value.sum(1), err)

    def of(self, expr: Any) -> Rounded:
        """An expression over (B, T, C)."""
        if isinstance(expr, At | Param):
            return self.values[expr]
        if expr.is_Number:
            return exact(float(expr))
        args = [self.of(a) for a in expr.args]
        if expr.is_Pow:
            return product([args[0]] * int(expr.exp))
        return total(args) if expr.is_Add else product(args) if expr.is_Mul else called(f.name_of(expr), args)

    def _define(self, name: str, value: Rounded) -> None:
        self.values[At(name)] = value.map(lambda v: np.broadcast_to(v, (self.B, self.T, self.C)))
        for edge in self.program.registers:
            if edge.base == name:
                self._register(edge)

    def _window(self, edge: Edge, name: str | None) -> Rounded:
        """(depth, B, C) of what lies beyond a segment, nearest first."""
        given = self.tensors.get(name) if name else None
        if given is None:
            return exact(np.full((edge.depth, self.B, self.C), edge.init))
        return exact(given).map(lambda v: np.moveaxis(v[:, : edge.depth], 1, 0))

    def _at(self, t: int) -> Array:
        return self.boundary[:, t + self.program.reverse][:, None]

    def _register(self, edge: Edge) -> None:
        """The past of a sequence computed here, where it is read, and what it leaves in the end."""
        held, refill, x = self._window(edge, edge.start), self._window(edge, edge.edge), self.values[At(edge.base)]
        past = exact(np.zeros((edge.depth, self.B, self.T, self.C)))
        crossed, size = exact(np.zeros(held.value.shape)), np.zeros(held.value.shape)

        def cross(hit: Array) -> None:
            nonlocal held, crossed, size
            crossed = Rounded(crossed.value + np.where(hit, held.value, 0), crossed.err + np.where(hit, held.err, 0))
            size = size + np.where(hit, np.abs(held.value) + held.err, 0)
            held = chosen(hit, refill, held)

        for t in self.times:
            cross(self._at(t))
            past.value[:, :, t], past.err[:, :, t] = held.value, held.err
            pairs = (x.value, held.value), (x.err, held.err)
            held = Rounded(*(np.concatenate([new[None, :, t], old[:-1]]) for new, old in pairs))
        if self.program.reverse:
            cross(self.boundary[:, 0][:, None])
        self.values |= {At(edge.base, edge.side * (k + 1)): Rounded(past.value[k], past.err[k]) for k in range(edge.depth)}
        crossed = Rounded(crossed.value, crossed.err + gamma(max(int(self.boundary.sum(1).max()), 1), U) * size)
        for name, window in ((edge.final, held), (edge.crossing, crossed)):
            if name:
                self.outputs[name] = window.map(lambda v: np.moveaxis(v, 0, 1))

    def _reads(self, edge: Edge) -> None:
        """A sequence in memory at every lag on one side; the nearest boundary or end decides what is read beyond it."""
        start, refill, x = self._window(edge, edge.start), self._window(edge, edge.edge), self.values[At(edge.base)]
        steps = np.arange(self.T)
        for lag in range(1, edge.depth + 1):
            found = Rounded(*(np.roll(v, -edge.side * lag, 1) for v in (x.value, x.err)))
            for j in range(lag, 0, -1):
                at = steps - j + 1 if edge.side < 0 else steps + j
                ends, inside = at == (0 if edge.side < 0 else self.T), (at >= 0) & (at < self.T)
                hit = (self.boundary[:, np.clip(at, 0, self.T)] & inside)[..., None]
                for where, window in ((ends[None, :, None], start), (hit, refill)):
                    beyond = Rounded(window.value[lag - j][:, None], window.err[lag - j][:, None])
                    found = chosen(where, beyond, found)
            self.values[At(edge.base, edge.side * lag)] = found

    def _scan(self, scan: Scan) -> None:
        err: Array
        if scan.other:
            h, err = self._over_an_algebra(scan)
            self._define(scan.targets[0], Rounded(h, err))
            return
        places, orders = self.program.structure(scan).state, scan.orders
        assert all(orders), "a state that no recurrence reads has no place here"
        edges = {e.base: e for e in self.program.registers}
        start, refill = (np.stack([self._window(e, getattr(e, end)).value[k - 1] for j, k in places
                                   for e in [edges[scan.targets[j]]]]) for end in ("start", "edge"))
        A = [scan.A[k - 1][i, j] if back == 1 else sp.Integer((i, back - 1) == (j, k)) for i, back in places for j, k in places]
        n, b = len(places), [scan.b[i] if back == 1 else sp.S.Zero for i, back in places]
        A, b = self._by_time(A).map(lambda v: v.reshape(n, n, *v.shape[1:])), self._by_time(b)
        c = self.counts.of(self.program, scan)
        h, before = self._walk(A.value, b.value, start, refill)
        errs = [self._bound(A.map(np.abs), b.map(np.abs), *map(np.abs, (start, refill, before)), *c)]
        if n > 1:
            length = [np.linalg.norm(v, axis=0, keepdims=True) for v in (b.value, b.err, start, refill, before)]
            norm = np.linalg.norm(np.moveaxis(A.value, (0, 1), (-2, -1)), 2, axis=(-2, -1))[None, None]
            apart = np.linalg.norm(A.err, axis=(0, 1))[None, None]
            errs.append(self._bound(Rounded(norm, apart), Rounded(*length[:2]), *length[2:], c[0] * n ** 0.5, c[1]))
        err = np.fmin.reduce([np.broadcast_to(e, h.shape) for e in errs])
        for j, target in enumerate(scan.targets):
            row = places.index((j, 1))
            self._define(target, Rounded(np.moveaxis(h[row], 0, 1), np.moveaxis(err[row], 0, 1)))

    def _by_time(self, exprs: Sequence[Any]) -> Rounded:
        """(len(exprs), T, B, C)."""
        found = [self.of(e).map(lambda v: np.moveaxis(np.broadcast_to(v, (self.B, self.T, self.C)), 1, 0)) for e in exprs]
        return Rounded(np.stack([x.value for x in found]), np.stack([x.err for x in found]))

    def _walk(self, A: Array, b: Array, start: Array, refill: Array) -> tuple[Array, Array]:
        """The recurrence itself, and what each of its steps reads: (n, T, B, C) both."""
        h, before, held = np.empty(b.shape), np.empty(b.shape), np.broadcast_to(start, b[:, 0].shape)
        for t in self.times:
            before[:, t] = np.where(self._at(t), refill, held)
            h[:, t] = held = _apply(A[:, :, t], before[:, t]) + b[:, t]
        return h, before

    def _bound(self, A: Rounded, b: Rounded, start: Array, refill: Array, before: Array, c_m: float, c_a: float) -> Array:
        """The bounds at the top, on magnitudes."""
        wide, rest, zero = A.value + A.err, b.value + b.err, np.zeros_like(start)
        with np.errstate(over="ignore", invalid="ignore"):  # one of the two bounds may be none
            H, read = self._walk(wide, rest, start, refill)
            W, _ = self._walk(wide, _apply(wide, read), zero, zero)
            k = c_m * self.T + c_a
            rounding = gamma(k, U) / k * (c_m * W + c_a * H)
            if self.lam:
                rounding = np.minimum(rounding, self.lam * U * np.sqrt((c_m * W + c_a * H) * H))
            highest = np.maximum(H, read).max((0, 1), keepdims=True)
            underflow, _ = self._walk(wide, np.broadcast_to(2 * (c_a + 1) * TINY * (1 + highest), H.shape), zero, zero)
            moved, _ = self._walk(wide, _apply(A.err, before) + b.err, zero, zero)
            return np.asarray(rounding + underflow + moved)

    def _over_an_algebra(self, scan: Scan) -> tuple[Array, Array]:
        [edge] = [e for e in self.program.registers if e.base == scan.targets[0]]
        a, b = (self.of(e).value for e in (scan.A[0][0, 0], scan.b[0]))
        held, refill = (self._window(edge, name).value[0] for name in (edge.start, edge.edge))
        join, smooth = MEANING[f.name_of_class(scan.other.sum)], scan.algebra == "logaddexp-plus"
        h, err = np.empty(b.shape), np.empty(b.shape)
        most, many, among = np.abs(held), np.zeros(held.shape), np.log(self.T + 1) if smooth else 0.0
        with np.errstate(invalid="ignore"):
            for t in self.times:
                cut = self._at(t)
                held, most, many = np.where(cut, refill, held), np.where(cut, np.abs(refill), most), np.where(cut, 0, many)
                past = a[:, t] + held
                held = h[:, t] = join(past, b[:, t])
                share = np.exp(past - held) if smooth else 1.0
                most, many = np.maximum(most + np.abs(a[:, t]), np.abs(b[:, t])), share * (many + 1)
                err[:, t] = (1 + ULP * smooth) * gamma(self.T, U) / self.T * (many + 5) * (most + among)
        return h, err


def _apply(A: Array, v: Array) -> Array:
    """A v, where both may have more axes behind."""
    return np.asarray((A * v[None]).sum(1))
