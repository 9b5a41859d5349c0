"""The living definition of a Program: a slow loop over time in numpy, float64. Everything else is compared with it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..ir import functions as f
from ..ir.program import Edge, Program, Scan
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
}


def evaluate(expr: Any, values: Mapping[Any, Array]) -> Array:
    """The value of an expression, given those of its samples and parameters."""
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

    tensors: sequences (B, T, columns*C), vectors (C,) or (), edges (B, depth, C) or None for the constant.
    reset: (B, T) of truth values. Keeps come back as (B, T, columns*C), sums as (C,) or (), windows as (B, depth, C).
    """
    out = partial_run(program, tensors, reset)
    for total in program.sums:
        out[total.name] = out[total.name].sum(0) if total.over == "time" else out[total.name].sum()
    return out


def partial_run(program: Program, tensors: Mapping[str, Array | None], reset: Array | None = None) -> dict[str, Array]:
    """As `run`, with sums over time only: (B, C)."""
    first = next(tensors[b.name] for b in program.buffers)
    assert first is not None
    B, T, C = first.shape[0], first.shape[1], first.shape[2] // len(program.buffers[0].columns)
    data = {n: np.asarray(a, np.float64) for n, a in tensors.items() if a is not None}
    sequence = {c: data[b][:, :, k * C:(k + 1) * C] for c, (b, k) in program.loads.items()}
    learned = {Param(v.name): data[v.name].reshape(-1)[None, :] for v in program.vectors}
    boundary = np.zeros((B, T + 1), bool)
    if reset is not None:
        boundary[:, :T] = np.asarray(reset) != 0

    def constant(edge: Edge, name: str | None) -> Array:
        given = data.get(name) if name else None
        return np.full((B, edge.depth, C), edge.init) if given is None else np.array(given[:, :edge.depth], np.float64)

    register = {e.base: constant(e, e.start) for e in program.registers}
    refill = {e.base: constant(e, e.edge) for e in program.registers}
    crossing = {e.base: np.zeros((B, e.depth, C)) for e in program.registers}
    beyond = {(e.base, e.side): (constant(e, e.start), constant(e, e.edge)) for e in program.edges if e.base in sequence}
    out = {k.name: np.zeros((B, T, C * len(k.samples))) for k in program.keeps}
    out |= {s.name: np.zeros((B, C)) for s in program.sums}

    def cross(at: int) -> None:
        """The boundary between at-1 and at: registers are emptied into `crossing` and refilled."""
        hit = boundary[:, at][:, None, None]
        for base in register:
            crossing[base] += np.where(hit, register[base], 0.0)
            register[base] = np.where(hit, refill[base], register[base])

    def read(s: At, t: int) -> Array:
        """A sequence in memory at t+lag; what lies beyond the nearest boundary comes from the edges."""
        value = sequence[s.base][:, t + s.lag] if 0 <= t + s.lag < T else None
        if s.lag == 0:
            return value
        side = 1 if s.lag > 0 else -1
        start, edge = beyond[s.base, side]
        for j in range(abs(s.lag), 0, -1):
            at = t - j + 1 if side < 0 else t + j
            if (side < 0 and at == 0) or (side > 0 and at == T):
                value = start[:, abs(s.lag) - j]
            if 0 <= at < T:
                hit = boundary[:, at][:, None]
                value = edge[:, abs(s.lag) - j] if value is None else np.where(hit, edge[:, abs(s.lag) - j], value)
        return value

    with np.errstate(all="ignore"):
        for t in reversed(range(T)) if program.reverse else range(T):
            cross(t + 1 if program.reverse else t)
            values: dict[Any, Array] = dict(learned)

            def value_of(expr: Any, t: int = t, values: dict[Any, Array] = values) -> Array:
                for s in samples(expr):
                    if s not in values:
                        values[s] = read(s, t) if s.base in sequence else register[s.base][:, abs(s.lag) - 1]
                return np.broadcast_to(evaluate(expr, values), (B, C))

            for step in program.steps:
                exprs = [step.update(i) for i in range(len(step.targets))] if isinstance(step, Scan) else [step.expr]
                new = [value_of(e) for e in exprs]
                values |= {At(target): value for target, value in zip(step.targets, new, strict=True)}
            for keep in program.keeps:
                for k, name in enumerate(keep.samples):
                    out[keep.name][:, t, k * C:(k + 1) * C] = value_of(At(name))
            for total in program.sums:
                out[total.name] += value_of(At(total.sample))
            for base, window in register.items():
                register[base] = np.concatenate([value_of(At(base))[:, None], window[:, :-1]], 1)
        if program.reverse and T:
            cross(0)
    for e in program.registers:
        out |= {e.final: register[e.base]} if e.final else {}
        out |= {e.crossing: crossing[e.base]} if e.crossing else {}
    return out


def load(program: Program, dtype: str) -> Launch:
    """A Program as something to launch on addresses (see `ir.source.slots`); threads are ignored."""
    tensors = slots(program)
    kinds = {s.name: s.dtype(dtype) for s in tensors}
    single = {p.name for p in program.vectors if p.shape == "one"}

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
            shape, strides = {
                "sequence": ((B, T, s.columns * C), (*given, 1)), "keep": ((B, T, s.columns * C), (*given, 1)),
                "vector": ((1 if s.name in single else C,), (1,)), "edge": ((B, s.depth, C), (*given, 1)),
                "sum": ((B, C), (C, 1)), "final": (window := ((B, s.depth, C), (s.depth * C, C, 1))), "crossing": window,
                "reset": ((B, T), tuple(given)),
            }[s.kind]
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
