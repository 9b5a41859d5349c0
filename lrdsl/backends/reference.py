"""The living definition of a Program: a slow loop over time in numpy, float64. Everything else is compared with it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..ir import functions as f
from ..ir.program import Edge, Program, Recurrent, Replay
from ..ir.shapes import AXIAL
from ..ir.source import OUTPUTS, Extent, Launch, slots
from ..ir.symbols import At, Param, samples
from .memory import element, numbers, stored

Array = Any
_erf = np.vectorize(math.erf, otypes=[np.float64])

MEANING: dict[str, Callable[..., Array]] = {
    "sigmoid": lambda x: np.exp(np.minimum(x, 0.0)) / (1 + np.exp(-np.abs(x))),
    "tanh": np.tanh,
    "relu": lambda x: np.where(x <= 0, 0.0, x),
    "silu": lambda x: x * MEANING["sigmoid"](x),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "softplus": lambda x: np.logaddexp(x, 0.0),
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos,
    "abs": np.abs, "sign": np.sign, "erf": _erf,
    "maximum": np.maximum, "minimum": np.minimum, "logaddexp": np.logaddexp,
    "greater": lambda a, b: np.where(a > b, 1.0, 0.0), "greater_equal": lambda a, b: np.where(a >= b, 1.0, 0.0),
    "equal": lambda a, b: np.where(a == b, 1.0, 0.0),
    "where": lambda c, a, b: np.where(c != 0, a, b),
    "detach": lambda x: x,
    "sum": lambda x: np.sum(x, AXIS, keepdims=True),
}
AXIS = -2  # of the arrays here: (batch …, N or 1, C or 1)


def evaluate(expr: Any, values: Mapping[Any, Array]) -> Array:
    """The value of an expression, given those of its samples and parameters: (…, N or 1, C or 1) where it has a `sum`."""
    if isinstance(expr, At | Param):
        return values[expr]
    if expr.is_Number:
        return float(expr)
    args = [evaluate(a, values) for a in expr.args]
    if expr.is_Add:
        return sum(args[1:], args[0])
    if expr.is_Mul:
        return math.prod(args[1:], start=args[0])
    if expr.is_Pow:
        return np.asarray(args[0], np.float64) ** args[1]
    return MEANING[f.name_of(expr)](*args)


def run(program: Program, tensors: Mapping[str, Array | None], reset: Array | None = None) -> dict[str, Array]:
    """Every output of a Program, by name.

    tensors: sequences (B, T, columns*C), or (B, T, C, 2) of pairs, vectors (C,) or (), edges (B, depth, C) or None for the
    constant; N*C where they have the axis, N where the channels share it. reset: (B, T) of truth values. Keeps come back as
    sequences are, sums as (C,) or (), windows as (B, depth, C), wider likewise.
    """
    out = partial_run(program, tensors, reset)
    for total in program.sums:
        over = 0 if total.over == "time" or total.shared(program) else None
        out[total.name] = out[total.name].max(over) if total.largest else out[total.name].sum(over)
    return out


def partial_run(program: Program, tensors: Mapping[str, Array | None], reset: Array | None = None,
                rounded: Callable[[Array], Array] = np.asarray) -> dict[str, Array]:
    """As `run`, with sums over time only: (B, C), and over channels where they are (B, N). rounded: what becomes of each value
    when it has been computed."""
    data = {n: np.asarray(a, np.float64) for n, a in tensors.items() if a is not None}
    B, T, C = _sizes(program, data)
    steps = _Steps(program, data, B, T, C, reset)
    steps.rounded = rounded
    if program.replay:
        steps.sequence |= _replay(program, program.replay, data, B, T, C, reset)
    return steps.run()


def _sizes(program: Program, data: Mapping[str, Array]) -> tuple[int, int, int]:
    """B, T and C, from the first sequence that has channels."""
    def channels(shape: str, columns: int) -> int:
        return columns * (program.axis if shape in AXIAL else 1)
    b = next(b for b in program.buffers if b.every == 1)
    wide = next((b for b in program.buffers if b.shape != "axis"), None)
    C = data[wide.name].shape[2] // channels(wide.shape, 1 if wide.paired else len(wide.columns)) if wide else next(
        data[v.name].size // channels(v.shape, 1) for v in program.vectors if v.shape in ("channel", "channel and axis"))
    return (*data[b.name].shape[:2], C)


def _replay(program: Program, replay: Replay, data: Mapping[str, Array], B: int, T: int, C: int,
            reset: Array | None) -> dict[str, Array]:
    """What the registers of a Replay hold at each step, segment by segment from the borders."""
    steps = _Steps(replay.program, data, B, T, C, reset)
    N = program.axis
    borders = {s: data[border].reshape(B, -1, 1, N, C) for s, border, _ in replay.states}
    found = {before: np.zeros((B, T, N, C)) for _, _, before in replay.states}
    for k, t in enumerate(reversed(range(T)) if replay.program.reverse else range(T)):
        if k % replay.every == 0:
            steps.register |= {s: border[:, k // replay.every] for s, border in borders.items()}
        steps.cross(t + 1 if replay.program.reverse else t)
        for state, _, before in replay.states:
            found[before][:, t] = steps.register[state][:, 0]
        steps.step(t)
    return found


class _Steps:
    """A Program at work. All values are (B, N or 1, C or 1), registers (B, depth, N or 1, C)."""

    def __init__(self, program: Program, data: Mapping[str, Array], B: int, T: int, C: int, reset: Array | None) -> None:
        self.program, self.data, self.B, self.T, self.C = program, data, B, T, C
        self.rounded: Callable[[Array], Array] = np.asarray
        self.sequence: dict[str, Array] = {}
        for b in program.buffers:
            if b.every == 1:
                given = np.moveaxis(data[b.name], 3, 2) if b.paired else data[b.name]
                columns = given.reshape(B, T, len(b.columns), *self.size(b.shape))
                self.sequence |= {c: columns[:, :, k] for k, c in enumerate(b.columns)}
        self.learned = {Param(v.name): data[v.name].reshape(1, *self.size(v.shape)) for v in program.vectors}
        self.boundary = np.zeros((B, T + 1), bool)
        if reset is not None:
            self.boundary[:, :T] = np.asarray(reset) != 0
        registers = program.registers
        self.register = {e.base: self.constant(e, e.start) for e in registers}
        self.refill = {e.base: self.constant(e, e.edge) for e in registers}
        self.crossing = {e.base: np.zeros((B, e.depth, *self.size(program.shape(e.base)))) for e in registers}
        self.beyond = {(e.base, e.side): (self.constant(e, e.start), self.constant(e, e.edge))
                       for e in program.edges if e.base in program.loads}

    def size(self, shape: str) -> tuple[int, int]:
        """(N or 1, C or 1)."""
        return self.program.axis if shape in AXIAL else 1, 1 if shape in ("one", "axis") else self.C

    def constant(self, edge: Edge, name: str | None) -> Array:
        """An edge: what was given, or the constant."""
        size = self.size(self.program.shape(edge.base))
        given = self.data.get(name) if name else None
        return np.full((self.B, edge.depth, *size), edge.init) if given is None else \
            np.array(given[:, :edge.depth], np.float64).reshape(self.B, edge.depth, *size)

    def cross(self, at: int) -> None:
        """The boundary between at-1 and at: registers are emptied into `crossing` and refilled."""
        hit = self.boundary[:, at][:, None, None, None]
        for base in self.register:
            self.crossing[base] += np.where(hit, self.register[base], 0.0)
            self.register[base] = np.where(hit, self.refill[base], self.register[base])

    def read(self, s: At, t: int) -> Array:
        """A sequence in memory at t+lag; what lies beyond the nearest boundary comes from the edges."""
        T = self.T
        value = self.sequence[s.base][:, t + s.lag] if 0 <= t + s.lag < T else None
        if s.lag == 0:
            return value
        side = 1 if s.lag > 0 else -1
        start, edge = self.beyond[s.base, side]
        for j in range(abs(s.lag), 0, -1):
            at = t - j + 1 if side < 0 else t + j
            if (side < 0 and at == 0) or (side > 0 and at == T):
                value = start[:, abs(s.lag) - j]
            if 0 <= at < T:
                hit = self.boundary[:, at][:, None, None]
                value = edge[:, abs(s.lag) - j] if value is None else np.where(hit, edge[:, abs(s.lag) - j], value)
        return value

    def step(self, t: int) -> dict[Any, Array]:
        """The values of a step, each in its full shape; the registers move on."""
        program, values = self.program, dict(self.learned)

        def value_of(expr: Any, base: str) -> Array:
            for s in samples(expr):
                if s not in values:
                    values[s] = self.read(s, t) if s.base in self.sequence else self.register[s.base][:, abs(s.lag) - 1]
            return np.broadcast_to(evaluate(expr, values), (self.B, *self.size(program.shape(base))))

        for step in program.steps:
            exprs = [step.update(i) for i in range(len(step.targets))] if isinstance(step, Recurrent) else [step.expr]
            new = [self.rounded(value_of(e, target)) for e, target in zip(exprs, step.targets, strict=True)]
            values |= {At(target): value for target, value in zip(step.targets, new, strict=True)}
        for base, window in self.register.items():
            self.register[base] = np.concatenate([value_of(At(base), base)[:, None], window[:, :-1]], 1)
        return values

    @np.errstate(all="ignore")  # as kernels do: a nan or an infinity is a value
    def run(self) -> dict[str, Array]:
        """All steps, and what is written."""
        program, B, T = self.program, self.B, self.T
        size = {n: self.size(program.shape(n)) for n in (*(n for k in program.keeps for n in k.samples),
                                                         *(s.sample for s in program.sums))}
        out = {k.name: np.zeros((B, -(-T // max(k.every, 1)), len(k.samples), *size[k.samples[0]])) for k in program.keeps}
        out |= {s.name: np.zeros((B, *size[s.sample])) for s in program.sums}
        for k, t in enumerate(reversed(range(T)) if program.reverse else range(T)):
            for keep in program.keeps:
                if keep.every and k % keep.every == 0:
                    out[keep.name][:, k // keep.every] = np.stack([self.register[n][:, 0] for n in keep.samples], 1)
            self.cross(t + 1 if program.reverse else t)
            values = self.step(t)
            for keep in program.keeps:
                if not keep.every:
                    columns = [np.broadcast_to(values[At(n)], (B, *size[n])) for n in keep.samples]
                    out[keep.name][:, t] = np.stack(columns, 1)
            for total in program.sums:
                join = np.maximum if total.largest else np.add
                out[total.name] = join(out[total.name], values[At(total.sample)])
        if program.reverse and T:
            self.cross(0)
        for keep in program.keeps:
            out[keep.name] = np.moveaxis(out[keep.name][:, :, :, 0], 2, 3) if keep.paired else \
                _flat(out[keep.name].sum(-1) if keep.over else out[keep.name], 2)
        for total in program.sums:
            out[total.name] = _flat(out[total.name].sum(-1) if total.shared(program) else out[total.name], 1)
        for e in program.registers:
            out |= {e.final: _flat(self.register[e.base], 2)} if e.final else {}
            out |= {e.crossing: _flat(self.crossing[e.base], 2)} if e.crossing else {}
        return out


def _flat(array: Array, outer: int) -> Array:
    """The array with all axes but the first few as one."""
    return array.reshape(*array.shape[:outer], math.prod(array.shape[outer:]))


def load(program: Program, dtype: str) -> Launch:
    """A Program as something to launch on addresses (see `ir.source.slots`); threads are ignored."""
    tensors = slots(program)
    kinds = {s.name: s.dtype(dtype) for s in tensors}

    def at(address: int, shape: tuple[int, ...], strides: tuple[int, ...], kind: np.dtype[Any]) -> Array:
        if 0 in shape:
            return np.empty(shape, kind)
        item = kind.itemsize
        memory: Any = ctypes.c_char * ((sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1) * item)
        return np.ndarray(shape, kind, memory.from_address(address), 0, tuple(s * item for s in strides))

    def run(values: Sequence[int], *_: int) -> None:
        B, T, C = values[-3:]
        rest = iter(values)
        ins: dict[str, Array | None] = {}
        outs: dict[str, Array] = {}
        reset: Array | None = None
        for s in tensors:
            address, *given = (next(rest) for _ in s.fields)
            shape = s.shape(B, T, C)
            strides = tuple(given) if s.kind == "reset" else (*(2 * n for n in given), 2, 1) if s.paired else \
                (*given, 1) if given else \
                tuple(math.prod(shape[k + 1:]) for k in range(len(shape)))
            absent = not address and s.kind in ("edge", "reset")  # an empty sequence may have the address 0 too
            array = None if absent else at(address, shape, strides, element(kinds[s.name]))
            if s.kind == "reset":
                reset = array
            elif s.kind in OUTPUTS:
                outs[s.name] = array
            else:
                ins[s.name] = None if array is None else numbers(array, kinds[s.name])
        if B and C:
            for n, value in partial_run(program, ins, reset).items():
                outs[n][...] = stored(value, kinds[n])

    return Launch(run, lambda *_: Extent(0))
