"""What a cell's text says: its body, run at every step on torch's numbers instead of symbols. It is the truth here.

Nothing of lrdsl is used, not even its front end: `h[t - 1]` reads what `h[t] = …` stored a step before, or the edge; a map is
torch's linear. Gradients are torch's, of this loop. In float32 it shows how much rounding alone may change, and with what is
stored rounded to 16 bits, what that may.
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
Sweeps = Sequence[tuple[int, frozenset[str]]]  # way, and the states that are set


@dataclass(frozen=True)
class Lag:
    """`t`, `t - 1`."""

    by: int = 0

    def __add__(self, k: int) -> Lag:
        return Lag(self.by + k)

    def __sub__(self, k: int) -> Lag:
        return Lag(self.by - k)


class _Rounded(torch.autograd.Function):
    """A value as 16 bits hold it; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, storage: torch.dtype) -> Tensor:
        ctx.storage = storage
        return value.to(storage).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient.to(ctx.storage).to(gradient.dtype), None


class Watch:
    """The dtype of a run, that of what it stores, and how near to a kink it came: the least distance of two compared numbers
    that are not equal."""

    def __init__(self) -> None:
        self.dtype, self.least = torch.float64, 1.0
        self.storage: torch.dtype | None = None

    def compared(self, a: Tensor, b: Tensor) -> None:
        """Two numbers that a branch depends on."""
        apart = ((a - b).abs() / (a.abs() + b.abs()).clamp_min(1e-30)).detach().nan_to_num(1.0)  # ∞ is near to nothing
        if apart.numel():
            self.least = min(self.least, float(torch.where(apart == 0, 1.0, apart).min()))

    def stored(self, value: Tensor) -> Tensor:
        """The value that memory keeps."""
        return value if self.storage is None else _Rounded.apply(value, self.storage)  # type: ignore[no-untyped-call]


class Number:
    """A value of a body. It computes as a tensor does, and its comparisons are watched."""

    def __init__(self, value: Any, watch: Watch) -> None:
        if not isinstance(value, Tensor):
            value = torch.tensor(value, dtype=watch.dtype.to_complex() if isinstance(value, complex) else watch.dtype)
        self.value: Tensor = value
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


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """torch's has no second derivative where one of the two is -inf."""
    most = torch.maximum(a, b).detach()
    return most + torch.log(torch.exp(a - most) + torch.exp(b - most))


def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A number that is not 0 holds."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    return torch.where(condition if condition.dtype == torch.bool else condition != 0, a.to(dtype), b.to(dtype))


# A function of the grammar and what it means, in torch; where it has a kink, between which two numbers.
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Callable[..., tuple[Any, Any]] | None]] = {
    **{n: (getattr(torch, n), None) for n in ("sigmoid", "tanh", "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos")},
    **{n: (getattr(F, n), None) for n in ("silu", "gelu", "softplus")},
    "logaddexp": (_logaddexp, None), "where": (_where, None),
    "relu": (torch.relu, lambda x: (x, 0)), "abs": (torch.abs, lambda x: (x, 0)),
    "maximum": (torch.maximum, lambda a, b: (a, b)), "minimum": (torch.minimum, lambda a, b: (a, b)),
    "equal": (torch.eq, lambda a, b: (a, b)), "detach": (lambda x: x.detach(), None),
    "sum": (lambda x: x.sum(-1, keepdim=True), None),  # along the state axis, which is last
    "re": (torch.real, None), "im": (lambda x: x.imag if x.is_complex() else torch.zeros_like(x), None),
    "conjugate": (lambda x: x.conj().resolve_conj(), None),
}


def _functions(watch: Watch) -> dict[str, Callable[..., Number]]:
    def called(name: str) -> Callable[..., Number]:
        function, kink = FUNCTIONS[name]

        def call(*args: Any) -> Number:
            numbers = [a if isinstance(a, Number) else Number(a, watch) for a in args]
            if kink and not numbers[0].value.is_complex():
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
        return Number(self.run.mapped(self.name, [o.value for o in operands]), self.run.watch)


class _Flags(_Sequence):
    """A Mask, or `lr.first` (run: that of the Meaning): whether a number is above 0, without a gradient."""

    def __getitem__(self, when: Lag) -> Number:
        lag = self.run.way if self.name == FIRST else when.by
        return Number((self.run.read(self.name, self.run.t, lag).detach() > 0).to(self.run.dtype), self.run.watch)


FIRST = "first"  # a sequence of zeros, whose edge is 1 unless that of a state is given


class _Run:
    """One run of a body over time. Along a state axis every sample has one dimension more: of 1 where it has no axis."""

    def __init__(self, meaning: Meaning, tensors: Mapping[str, Tensor], C: int, reset: Tensor | None, way: int) -> None:
        self.meaning, self.tensors, self.C, self.reset, self.way = meaning, tensors, C, reset, way
        inputs = [n for n, kind in meaning.kinds.items() if kind in ("Input", "Mask")]
        self.B, self.T = max(tensors[n].shape[0] for n in inputs), tensors[inputs[0]].shape[1]
        self.watch, self.dtype, self.t, self.missing = meaning.watch, meaning.watch.dtype, 0, False
        self.known = {n: dict(enumerate(self.inward(n, tensors[n]).unbind(1))) for n in inputs}
        self.known[FIRST] = {t: torch.zeros(self.shape(FIRST), dtype=self.dtype) for t in range(self.T)}
        self.setting: frozenset[str] = frozenset()

    def inward(self, name: str, value: Tensor) -> Tensor:
        """A tensor of a user's with the dimension of the axis."""
        m = self.meaning
        if not m.axis or (name in m.wide and m.kinds.get(name) not in ("Input", "Affine")):
            return value
        return value.unsqueeze(-2 if name in m.wide else -1)

    def outward(self, name: str, value: Tensor) -> Tensor:
        """And without it."""
        m = self.meaning
        if not m.axis or (name in m.wide and m.kinds.get(name) not in ("Input", "Affine")):
            return value
        return value.squeeze(-2 if name in m.wide else -1)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a sample."""
        m = self.meaning
        if not m.axis:
            return self.B, m.sizes.get(name, self.C)
        if m.kinds.get(name) == "Input" and name in m.wide:
            return self.B, 1, m.axis
        return self.B, m.sizes.get(name, self.C), m.axis if name in m.wide else 1

    def store(self, name: str, value: Any) -> None:
        """The state at t, in the sweep that it belongs to."""
        if name in self.setting:
            value = value.value if isinstance(value, Number) else torch.as_tensor(value, dtype=self.dtype)
            self.known.setdefault(name, {})[self.t] = self.watch.stored(value.expand(self.shape(name)))

    def mapped(self, name: str, operands: Sequence[Tensor]) -> Tensor:
        """The value of a dense map."""
        if self.meaning.axis:
            operands = [v.expand(self.B, *v.shape[1:]).flatten(1) for v in operands]
        whole = torch.cat([self.watch.stored(v).expand(self.B, v.shape[-1] if v.dim() else self.C) for v in operands], -1)
        weight, bias = self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias")
        dtype = torch.promote_types(whole.dtype, weight.dtype)
        value = self.watch.stored(F.linear(whole.to(dtype), weight.to(dtype)))
        return self.inward(name, value if bias is None else value + bias)

    def edge(self, name: str, way: int, end: str, k: int) -> Tensor:
        """The value k steps beyond a boundary ("edge") or an end ("now"): given, learned or constant."""
        ahead = way != self.meaning.sides.get(name, self.way)
        for given in (f"{name}{'.ahead' * ahead}:{end}", f"{name}{'.ahead' * ahead}:init"):
            if given in self.tensors:
                return self.inward(name, self.tensors[given][:, k])
        if f"{name}_init" in self.tensors and not ahead:
            return self.inward(name, self.tensors[f"{name}_init"]).expand(self.shape(name))
        return torch.full(self.shape(name), self.constant(name), dtype=self.dtype.to_complex() if name in self.meaning.complex
                          else self.dtype)

    def constant(self, name: str) -> complex:
        """What a name's edge is unless it is given."""
        if name == FIRST:
            return float(not any(f"{n}:init" in self.tensors for n in self.meaning.sides))
        return self.meaning.constants.get(name, 0.0)

    def read(self, name: str, t: int, lag: int) -> Tensor:
        """The sample at t + lag; beyond the first boundary on the way there, the edge."""
        way, steps = (1 if lag > 0 else -1), abs(lag)
        value = self.known.get(name, {}).get(t + lag)
        if value is None and 0 <= t + lag < self.T:  # a state that a later line, or sweep, sets
            self.missing |= name in self.setting
            value = torch.full(self.shape(name), torch.nan, dtype=self.dtype)
        for j in range(steps, 0, -1):  # the nearest boundary is looked at last, and wins
            border = t - j + 1 if way < 0 else t + j  # between border - 1 and border
            if border == (0 if way < 0 else self.T):
                value = self.edge(name, way, "now", steps - j)
            if self.reset is not None and 0 <= border < self.T:
                beyond = self.edge(name, way, "edge", steps - j)
                cut = self.reset[:, border].reshape(-1, *[1] * (beyond.dim() - 1))
                value = beyond if value is None else torch.where(cut, beyond, value)
        assert value is not None
        return value

    def final(self, name: str, depth: int) -> Tensor:
        """(B, depth, …): what the next call would start from, nearest first."""
        way = self.meaning.sides.get(name, self.way)
        end = -1 if way > 0 else self.T
        samples = [self.read(name, end, way * k) for k in range(1, depth + 1)]
        return torch.stack([self.outward(name, s.expand(self.shape(name))) for s in samples], 1)


class Meaning:
    """A text that defines a cell, ready to be run. kinds: of the names of its signature; sweeps: how it is run, where not from
    the left and at once; sides: the side of t that the run of a state comes from."""

    def __init__(self, source: str, name: str, kinds: Mapping[str, str], sweeps: Sweeps = (),
                 sides: Mapping[str, int] | None = None) -> None:
        self.kinds, self.watch = kinds, Watch()
        states = frozenset(n for n, kind in kinds.items() if kind == "State")
        self.sweeps, self.sides = sweeps or ((-1, states),), sides or {}
        options = {kind: (lambda **said: said) for kind in ("Input", "State", "Vector", "Scalar", "Affine", "Mask")}
        self._lr = SimpleNamespace(cell=lambda f: f, **options)
        scope: dict[str, Any] = {"lr": self._lr, "t": Lag(), **_functions(self.watch)}
        exec(source, scope)
        self.body: Callable[..., Any] = scope[name]
        said = {n: p.default if isinstance(p.default, dict) else {} for n, p in inspect.signature(self.body).parameters.items()}
        self.constants = {n: said[n].get("init", 0.0) for n in states}
        self.complex = frozenset(n for n in kinds if said[n].get("complex"))
        along = {n: said[n].get("axis", 0 if kind == "Input" else said[n].get("size", 0)) for n, kind in kinds.items()}
        self.wide, self.axis = frozenset(n for n in kinds if along[n]), max(along.values())
        self.sizes = {n: said[n]["size"] for n, kind in kinds.items() if kind == "Input" and "size" in said[n]}

    def run(self, tensors: Mapping[str, Tensor], C: int, reset: Tensor | None, depths: Mapping[str, int],
            storage: torch.dtype | None = None) -> dict[str, Tensor]:
        """Outputs `out0`, `out1` … (B, T, C), and last windows `h:final` (B, k, …), nearest first, of the k in `depths`.

        tensors: inputs (B, T, size) by name, `v`, `W.weight`, `W.bias`, `h_init`; edges (B, k, …): `h:now` at the start,
        `h:edge` at boundaries, `h:init` for both; `x.ahead:now` … on the side that the run reaches later. What has a state axis
        of N is (…, N), or (…, C, N). storage: the dtype of what is written to memory, where it has 16 bits. What came nearest
        to a kink is in `watch`.
        """
        first = next(n for n, kind in self.kinds.items() if kind == "Input")
        self.watch.dtype, self.watch.least = tensors[first].dtype.to_real(), 1.0
        self.watch.storage = storage
        now = _Run(self, tensors, C, reset, next(iter(self.sides.values()), self.sweeps[0][0]))
        self._lr.first = _Flags(now, FIRST)
        arguments = {n: Number(now.inward(n, tensors[n]) if kind == "Vector" else tensors[n], self.watch)
                     if kind in ("Vector", "Scalar") else (_Flags if kind == "Mask" else _Sequence)(now, n)
                     for n, kind in self.kinds.items()}
        for way, now.setting in self.sweeps:
            steps = [self._step(now, t, arguments) for t in (reversed(range(now.T)) if way > 0 else range(now.T))]
        columns = zip(*(reversed(steps) if way > 0 else steps), strict=True)
        found = {f"out{k}": torch.stack(column, 1) for k, column in enumerate(columns)}
        return found | {f"{n}:final": now.final(n, k) for n, k in depths.items()}

    def _step(self, now: _Run, t: int, arguments: Mapping[str, Any]) -> list[Tensor]:
        now.t = t
        result = self.body(**arguments)
        if now.missing:  # a state was read at t before its line: each further time, one more of such a chain is known
            result = [self.body(**arguments) for _ in self.constants][-1]
            now.missing = False
        values = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else (result,)
        shape = (now.B, now.C, 1) if self.axis else (now.B, now.C)
        return [self.watch.stored(now.outward("", v.value.expand(shape))) for v in values]
