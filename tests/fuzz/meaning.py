"""What a cell's text says: its body, run at every step on torch's numbers instead of symbols. It is the truth here.

Nothing of lrdsl is used, not even its front end: `h[t - 1]` reads what `h[t] = …` stored a step before, or the edge; a map is
torch's linear. Gradients are torch's, of this loop. In float32 it shows how much rounding alone may change.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NEAR = 1e-6  # relative distance of numbers that rounding may exchange; equal ones it leaves equal


@dataclass(frozen=True)
class Lag:
    """`t`, `t - 1`."""

    by: int = 0

    def __add__(self, k: int) -> Lag:
        return Lag(self.by + k)

    def __sub__(self, k: int) -> Lag:
        return Lag(self.by - k)


class Watch:
    """The dtype of a run, and how near to a kink it came: the least distance of two compared numbers that are not equal."""

    def __init__(self) -> None:
        self.dtype, self.least = torch.float64, 1.0

    def compared(self, a: Tensor, b: Tensor) -> None:
        """Two numbers that a branch depends on."""
        apart = ((a - b).abs() / (a.abs() + b.abs()).clamp_min(1e-30)).detach()
        if apart.numel():
            self.least = min(self.least, float(torch.where(apart == 0, 1.0, apart).min()))


class Number:
    """A value of a body. It computes as a tensor does, and its comparisons are watched."""

    def __init__(self, value: Any, watch: Watch) -> None:
        self.value: Tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=watch.dtype)
        self.watch = watch

    def _with(self, other: Any, how: Callable[..., Tensor]) -> Number:
        return Number(how(self.value, other.value if isinstance(other, Number) else other), self.watch)

    def _compared(self, other: Any, how: Callable[..., Tensor]) -> Number:
        other = other if isinstance(other, Number) else Number(other, self.watch)
        self.watch.compared(self.value, other.value)
        return self._with(other, how)

    def __neg__(self) -> Number:
        return Number(-self.value, self.watch)

    def __invert__(self) -> Number:
        return Number(~self.value, self.watch)


def _operators() -> None:
    """Python's operators on Numbers are those on tensors."""
    for name in ("add", "sub", "mul", "truediv", "pow", "and", "or"):
        how = getattr(operator, f"__{name}__")
        setattr(Number, f"__{name}__", lambda a, b, how=how: a._with(b, how))
        setattr(Number, f"__r{name}__", lambda a, b, how=how: a._with(b, lambda x, y: how(y, x)))
    for name in ("gt", "ge", "lt", "le"):
        setattr(Number, f"__{name}__", lambda a, b, how=getattr(operator, name): a._compared(b, how))


_operators()

# A function of the grammar and what it means, in torch; where it has a kink, between which two numbers.
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Callable[..., tuple[Any, Any]] | None]] = {
    **{n: (getattr(torch, n), None) for n in
       ("sigmoid", "tanh", "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "logaddexp", "where")},
    **{n: (getattr(F, n), None) for n in ("silu", "gelu", "softplus")},
    "relu": (torch.relu, lambda x: (x, 0)), "abs": (torch.abs, lambda x: (x, 0)),
    "maximum": (torch.maximum, lambda a, b: (a, b)), "minimum": (torch.minimum, lambda a, b: (a, b)),
    "equal": (torch.eq, lambda a, b: (a, b)), "detach": (lambda x: x.detach(), None),
}


def _functions(watch: Watch) -> dict[str, Callable[..., Number]]:
    def called(name: str) -> Callable[..., Number]:
        function, kink = FUNCTIONS[name]

        def call(*args: Any) -> Number:
            numbers = [a if isinstance(a, Number) else Number(a, watch) for a in args]
            if kink:
                watch.compared(*(Number(n.value if isinstance(n, Number) else n, watch).value for n in kink(*numbers)))
            return Number(function(*(n.value for n in numbers)), watch)
        return call
    return {name: called(name) for name in FUNCTIONS}


class _Sequence:
    """A name of the signature, in a body that runs."""

    def __init__(self, run: _Run, name: str) -> None:
        self.run, self.name = run, name

    def __getitem__(self, when: Lag) -> Number:
        return Number(self.run.read(self.name, self.run.t, when.by), self.run.watch)

    def __setitem__(self, when: Lag, value: Any) -> None:
        assert when.by == 0
        self.run.store(self.name, value)

    def __call__(self, *operands: Number) -> Number:
        tensors, values = self.run.tensors, [o.value for o in operands]
        whole = torch.cat([v.expand(self.run.B, v.shape[-1] if v.dim() else self.run.C) for v in values], -1)
        return Number(F.linear(whole, tensors[f"{self.name}.weight"], tensors.get(f"{self.name}.bias")), self.run.watch)


class _Run:
    """One run of a body over time."""

    def __init__(self, tensors: Mapping[str, Tensor], inputs: Sequence[str], constants: Mapping[str, float],
                 sizes: Mapping[str, int], C: int, reset: Tensor | None, reverse: bool, watch: Watch) -> None:
        self.tensors, self.constants, self.sizes, self.C = tensors, constants, sizes, C
        self.reset, self.reverse = reset, reverse
        self.B, self.T = max(tensors[n].shape[0] for n in inputs), tensors[inputs[0]].shape[1]
        self.watch, self.dtype, self.t, self.missing = watch, watch.dtype, 0, False
        self.known: dict[str, dict[int, Tensor]] = {n: dict(enumerate(tensors[n].unbind(1))) for n in inputs}

    def store(self, name: str, value: Any) -> None:
        value = value.value if isinstance(value, Number) else torch.as_tensor(value, dtype=self.dtype)
        self.known.setdefault(name, {})[self.t] = value.expand(self.B, self.C)

    def edge(self, name: str, way: int, end: str, k: int) -> Tensor:
        """The value k steps beyond a boundary ("edge") or an end ("now"): given, learned or constant."""
        key = name if (way > 0) == self.reverse else f"{name}.ahead"
        for given in (f"{key}:{end}", f"{key}:init"):
            if given in self.tensors:
                return self.tensors[given][:, k]
        if f"{name}_init" in self.tensors:
            return self.tensors[f"{name}_init"].expand(self.B, self.C)
        return torch.full((self.B, self.sizes.get(name, self.C)), self.constants.get(name, 0.0), dtype=self.dtype)

    def read(self, name: str, t: int, lag: int) -> Tensor:
        """The sample at t + lag; beyond the first boundary on the way there, the edge."""
        way, steps = (1 if lag > 0 else -1), abs(lag)
        value = self.known.get(name, {}).get(t + lag)
        if value is None and lag == 0:  # a state that a later line sets
            self.missing = True
            return torch.full((self.B, self.C), torch.nan, dtype=self.dtype)
        for j in range(steps, 0, -1):  # the nearest boundary is looked at last, and wins
            border = t - j + 1 if way < 0 else t + j  # between border - 1 and border
            if border == (0 if way < 0 else self.T):
                value = self.edge(name, way, "now", steps - j)
            if self.reset is not None and 0 <= border < self.T:
                beyond = self.edge(name, way, "edge", steps - j)
                value = beyond if value is None else torch.where(self.reset[:, border, None], beyond, value)
        assert value is not None
        return value

    def final(self, name: str, depth: int) -> Tensor:
        """(B, depth, size): what the next call would start from, nearest first."""
        way = 1 if self.reverse else -1
        end, width = -1 if self.reverse else self.T, self.sizes.get(name, self.C)
        return torch.stack([self.read(name, end, way * k).expand(self.B, width) for k in range(1, depth + 1)], 1)


class Meaning:
    """A text that defines a cell, ready to be run. kinds: of the names of its signature."""

    def __init__(self, source: str, name: str, kinds: Mapping[str, str]) -> None:
        self.kinds, self.watch = kinds, Watch()
        options = {kind: (lambda **said: said) for kind in ("Input", "State", "Vector", "Scalar", "Affine")}
        scope: dict[str, Any] = {"lr": SimpleNamespace(cell=lambda f: f, **options), "t": Lag(), **_functions(self.watch)}
        exec(source, scope)
        self.body: Callable[..., Any] = scope[name]
        said = {n: p.default if isinstance(p.default, dict) else {} for n, p in inspect.signature(self.body).parameters.items()}
        self.constants = {n: float(said[n].get("init", 0.0)) for n, kind in kinds.items() if kind == "State"}
        self.sizes = {n: said[n]["size"] for n, kind in kinds.items() if kind == "Input" and "size" in said[n]}

    def run(self, tensors: Mapping[str, Tensor], C: int, reset: Tensor | None, reverse: bool,
            depths: Mapping[str, int]) -> dict[str, Tensor]:
        """Outputs `out0`, `out1` … (B, T, C), and last windows `h:final` (B, k, size), nearest first, of the k in `depths`.

        tensors: inputs (B, T, size) by name, `v`, `W.weight`, `W.bias`, `h_init`; edges (B, k, size): `h:now` at the start,
        `h:edge` at boundaries, `h:init` for both; `x.ahead:now` … on the side that the run reaches later. What came nearest to
        a kink is in `watch`.
        """
        inputs = [n for n, kind in self.kinds.items() if kind == "Input"]
        self.watch.dtype, self.watch.least = tensors[inputs[0]].dtype, 1.0
        now = _Run(tensors, inputs, self.constants, self.sizes, C, reset, reverse, self.watch)
        arguments = {n: Number(tensors[n], self.watch) if kind in ("Vector", "Scalar") else _Sequence(now, n)
                     for n, kind in self.kinds.items()}
        steps: list[list[Tensor]] = []
        for t in reversed(range(now.T)) if reverse else range(now.T):
            now.t = t
            result = self.body(**arguments)
            if now.missing:  # a state was read at t before its line: each further time, one more of such a chain is known
                result = [self.body(**arguments) for _ in self.constants][-1]
                now.missing = False
            values = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else (result,)
            steps.append([v.value.expand(now.B, C) for v in values])
        columns = zip(*(reversed(steps) if reverse else steps), strict=True)
        found = {f"out{k}": torch.stack(column, 1) for k, column in enumerate(columns)}
        return found | {f"{n}:final": now.final(n, k) for n, k in depths.items()}
