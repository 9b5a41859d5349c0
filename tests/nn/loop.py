"""Any cell as a loop over time in float64 torch, straight from its Spec: no pass of the compiler has touched it.

It is to `lr.RNN` and `lr.function` what tests/truth.py is to the cells of the paper: torch.autograd of it is the truth of the
gradients. Shapes and edges as in tests/truth.py; inputs and states may be read at any lag, on either side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import sympy as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from lrdsl.ir.spec import Equation, Spec
from lrdsl.ir.symbols import At

MEANING: dict[str, Callable[..., Any]] = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "silu": F.silu, "gelu": F.gelu, "softplus": F.softplus,
    "exp": torch.exp, "expm1": torch.expm1, "log": torch.log, "log1p": torch.log1p, "sqrt": torch.sqrt, "sin": torch.sin,
    "cos": torch.cos, "abs": torch.abs, "maximum": torch.maximum, "minimum": torch.minimum, "logaddexp": torch.logaddexp,
    "greater": lambda a, b: (_t(a) > _t(b)).double(), "greater_equal": lambda a, b: (_t(a) >= _t(b)).double(),
    "equal": lambda a, b: (_t(a) == _t(b)).double(), "where": lambda c, a, b: torch.where(_t(c) != 0, *_alike(_t(a), _t(b))),
    "detach": lambda x: x.detach(), "conjugate": torch.conj, "re": torch.real, "im": torch.imag,
}


def _t(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=torch.complex128 if isinstance(value, complex) else torch.float64)


def _alike(*values: Tensor) -> list[Tensor]:
    """All real, or all complex: where torch promotes inside an operation, its gradient fails."""
    return [v + 0j for v in values] if any(v.is_complex() for v in values) else list(values)


def evaluate(expr: Any, read: Callable[[At], Tensor], learned: Mapping[str, Tensor]) -> Any:
    """The value of an expression; `read` gives samples."""
    if isinstance(expr, At):
        return read(expr)
    if expr.is_Symbol:
        return learned[str(expr)]
    if expr.is_Number:
        return float(expr)
    if expr is sp.I:
        return 1j
    args = [evaluate(a, read, learned) for a in expr.args]
    if expr.is_Add:
        return sum(args[1:], args[0])
    if expr.is_Mul:
        return math.prod(args[1:], start=args[0])
    if expr.is_Pow:
        return _t(args[0]) ** args[1]
    return MEANING[type(expr).__name__](*[_t(a) for a in args])


def run(spec: Spec, inputs: Mapping[str, Tensor], params: Mapping[str, Tensor], channels: int,
        init: Mapping[str, Tensor] | None = None, reset: Tensor | None = None) -> dict[str, Tensor]:
    """Every named value of the cell, (B, T, channels).

    inputs (B, T, size); params: `forget.weight`, `forget.bias`, `v`; init: by name (B, channels) or (B, channels, k), nearest
    first, `x.ahead` for the side that the run reaches later; reset (B, T). What is read at another step is computed when it is
    asked for, so that states may run either way.
    """
    B, T = next(iter(inputs.values())).shape[:2]
    runs = own_sides(spec)
    first = next(iter(runs.values()), -1)
    inputs = {**inputs, **{d.name: torch.zeros(B, T, channels) for d in spec.of("first")}}
    done: dict[str, dict[int, Tensor]] = {n: {t: x[:, t] for t in range(T)} for n, x in inputs.items()}
    mapped = {s.target: params[f"{s.affine}.weight"].shape[0] for s in spec.statements if not isinstance(s, Equation)}
    constants = {d.name: d.option("init", 0.0) for d in (*spec.of("state"), *spec.of("first"))}

    def edge(base: str, way: int, k: int, width: int) -> Tensor:
        key = base + ".ahead" * (way != runs.get(base, first) and (base in runs or f"{base}.ahead" in (init or {})))
        if init and key in init:
            given = init[key]
            return given if given.dim() == 2 else given[..., k]
        return _t(constants.get(base, 0.0)).expand(B, width)

    def read(s: At, t: int) -> Tensor:
        way = 1 if s.lag > 0 else -1
        width = inputs[s.base].shape[2] if s.base in inputs else mapped.get(s.base, channels)
        out: Tensor | None = value(s.base, t + s.lag) if 0 <= t + s.lag < T else None
        for j in range(abs(s.lag), 0, -1):  # from the far end: the boundary nearest to the reader wins
            boundary = t + way * j if way > 0 else t - j + 1
            if boundary == (0 if way < 0 else T):
                out = edge(s.base, way, abs(s.lag) - j, width)
            if 0 <= boundary < T and reset is not None:
                cut = edge(s.base, way, abs(s.lag) - j, width)
                out = cut if out is None else torch.where(reset[:, boundary, None], cut, out)
        assert out is not None
        return out

    statements = {s.target: s for s in spec.statements}

    def value(name: str, t: int) -> Tensor:
        known = done.setdefault(name, {})
        if t not in known:
            s = statements[name]
            if isinstance(s, Equation):
                found = evaluate(s.expr, lambda a: read(a, t), params)
            else:
                operands = [evaluate(o, lambda a: read(a, t), params) for o in s.operands]
                found = F.linear(*_alike(torch.cat(_alike(*operands), -1), params[f"{s.affine}.weight"]))
                found = found + params.get(f"{s.affine}.bias", 0.0)
            known[t] = _t(found).expand(B, mapped.get(name, channels))
        return known[t]

    for name in sorted(statements, key=lambda n: (len(_comes_from(spec, n)), n not in runs)):  # what others need comes first
        for t in range(T) if runs.get(name, -1) < 0 else reversed(range(T)):
            value(name, t)
    return {n: torch.stack([values[t] for t in range(T)], 1) for n, values in done.items() if n not in inputs}


def outputs(spec: Spec, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """What the cell returns."""
    return tuple(values[e.base] for _, e in spec.outputs)


def own_sides(spec: Spec) -> dict[str, int]:
    """The side that the run of each state comes from: that on which its own recurrence reads it; for others the one on which
    they are read, or that of the first recurrence."""
    own: dict[str, int] = {}
    read: dict[str, set[int]] = {}
    for s in spec.statements:
        for r in s.reads():
            if r.lag:
                read.setdefault(r.base, set()).add(1 if r.lag > 0 else -1)
                if s.target in _comes_from(spec, r.base):
                    own[r.base] = 1 if r.lag > 0 else -1
    states = spec.names("state")
    first = next((own[n] for n in states if n in own), -1)
    return {n: own.get(n, min(read[n]) if len(read[n]) == 1 else first) for n in states if n in read}


def _comes_from(spec: Spec, name: str) -> set[str]:
    """Everything that a value needs, at any step."""
    needs = {s.target: {r.base for r in s.reads()} for s in spec.statements}
    found, waiting = set[str](), [name]
    while waiting:
        new = needs.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
