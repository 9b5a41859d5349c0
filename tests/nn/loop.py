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
    first, `x.ahead` for the side that the run reaches later; reset (B, T).
    """
    B, T = next(iter(inputs.values())).shape[:2]
    reverse = any(r.lag > 0 for s in spec.statements for r in s.reads() if r.lag and r.base in spec.names("state"))
    done: dict[str, dict[int, Tensor]] = {n: {t: x[:, t] for t in range(T)} for n, x in inputs.items()}
    constants = {d.name: d.option("init", 0.0) for d in spec.of("state")}

    def edge(base: str, way: int, k: int, width: int) -> Tensor:
        base += ".ahead" if (way > 0) != reverse and init and f"{base}.ahead" in init else ""
        if init and base in init:
            given = init[base]
            return given if given.dim() == 2 else given[..., k]
        return _t(constants.get(base, 0.0)).expand(B, width)

    def read(s: At, t: int) -> Tensor:
        way = 1 if s.lag > 0 else -1
        width = inputs[s.base].shape[2] if s.base in inputs else channels
        out: Tensor | None = done.get(s.base, {}).get(t + s.lag)
        for j in range(abs(s.lag), 0, -1):  # from the far end: the boundary nearest to the reader wins
            boundary = t + way * j if way > 0 else t - j + 1
            if boundary == (0 if way < 0 else T):
                out = edge(s.base, way, abs(s.lag) - j, width)
            if 0 <= boundary < T and reset is not None:
                cut = edge(s.base, way, abs(s.lag) - j, width)
                out = cut if out is None else torch.where(reset[:, boundary, None], cut, out)
        assert out is not None
        return out

    order = _order(spec)
    for t in reversed(range(T)) if reverse else range(T):
        for s in order:
            if isinstance(s, Equation):
                value = evaluate(s.expr, lambda a, t=t: read(a, t), params)
            else:
                operands = [evaluate(o, lambda a, t=t: read(a, t), params) for o in s.operands]
                value = F.linear(*_alike(torch.cat(_alike(*operands), -1), params[f"{s.affine}.weight"]))
                value = value + params.get(f"{s.affine}.bias", 0.0)
            done.setdefault(s.target, {})[t] = _t(value).expand(B, channels)
    return {n: torch.stack([values[t] for t in range(T)], 1) for n, values in done.items() if n not in inputs}


def outputs(spec: Spec, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """What the cell returns."""
    return tuple(values[e.base] for _, e in spec.outputs)


def _order(spec: Spec) -> list[Any]:
    """The statements so that each comes after what it reads at the same step."""
    by_name = {s.target: s for s in spec.statements}
    found: dict[str, Any] = {}

    def visit(s: Any) -> None:
        for r in s.reads():
            if r.lag == 0 and r.base in by_name and r.base not in found:
                visit(by_name[r.base])
        found.setdefault(s.target, s)

    for s in spec.statements:
        visit(s)
    return list(found.values())
