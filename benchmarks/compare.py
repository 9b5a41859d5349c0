"""Side by side: candidates for one computation are checked against a loop in float64, then timed in turn.

A `Case` is what to compute and on which numbers; a `Candidate` is one way to do it. A candidate whose values are wrong is not
timed; one whose gradients alone are wrong is timed forward only; both are said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .table import Row
from .timing import Clock, Times, measured, stream

Tensors = Mapping[str, Tensor]
Make = Callable[[Tensors], "Ready"]
TOLERANCE = 1e-4  # float32 over any length here stays far below it, a step that is lost or a gate in 16 bits does not
WAYS = ("forward", "forward and backward")


def same(tensor: Tensor) -> Tensor:
    """The layout of the case."""
    return tensor


@dataclass(frozen=True)
class Ready:
    """A candidate with its tensors: `call()` gives (B, T, C), or its own layout. leaves: what gradients are taken for, by the
    names of the case. inward: from the case's layout to its own, outward: back. gradients: its gradients as the case's."""

    call: Callable[[], Tensor]
    leaves: Tensors
    inward: Callable[[Tensor], Tensor] = same
    outward: Callable[[Tensor], Tensor] = same
    gradients: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict


@dataclass(frozen=True)
class Case:
    """What to compute. inputs: by name, on the device. truth: the same in any dtype, a loop over time. words: what a fused
    pass has to read and to write of the shape, forward and backward. own: candidates that compute another function, with the
    loop and the inputs that they are held to."""

    name: str
    shape: tuple[int, int, int]
    inputs: Tensors
    truth: Callable[[Tensors], Tensor]
    words: tuple[tuple[int, int], tuple[int, int]]
    candidates: Mapping[str, Make]
    own: Mapping[str, tuple[Callable[[Tensors], Tensor], Tensors]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Errors against the loop, over the largest magnitude of each tensor; `note` says what is wrong."""

    value: float
    gradient: float
    note: str

    @property
    def times(self) -> int:
        """How many of `WAYS` it may be timed in."""
        return 0 if not self.value <= TOLERANCE else 1 if not self.gradient <= TOLERANCE else 2


def leaves(tensors: Tensors, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Copies that ask for a gradient."""
    return {n: t.detach().to(dtype or t.dtype, copy=True).requires_grad_() for n, t in tensors.items()}


def solve(truth: Callable[[Tensors], Tensor], inputs: Tensors, gradient: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Values and gradients of the loop in float64."""
    double = leaves(inputs, torch.float64)
    value = truth(double)
    return value.detach(), dict(zip(double, torch.autograd.grad(value, list(double.values()), gradient.double()), strict=True))


def verdict(ready: Ready, want: tuple[Tensor, dict[str, Tensor]], gradient: Tensor) -> Verdict:
    """Compare values and all gradients with the loop's. Raises what the candidate raises forward."""
    with torch.no_grad():
        value = error(ready.outward(ready.call()), want[0])
    if not value <= TOLERANCE:
        return Verdict(value, math.nan, f"wrong by {value:.1e}")
    try:
        found = torch.autograd.grad(ready.call(), list(ready.leaves.values()), ready.inward(gradient), allow_unused=True)
        got = ready.gradients(dict(zip(ready.leaves, found, strict=True)))
        errors = {n: math.inf if g is None else error(ready.outward(g) if g.dim() == 3 else g, want[1][n])
                  for n, g in got.items()}
    except Exception as failure:  # some can only go forward, at some sizes
        return Verdict(value, math.nan, f"no gradient: {said(failure)}")
    worst = max(errors, key=lambda n: errors[n])
    note = "" if errors[worst] <= TOLERANCE else f"gradient of {worst} " + (
        "missing" if got[worst] is None else "zero" if not got[worst].any() else f"wrong by {errors[worst]:.1e}")
    return Verdict(value, errors[worst], note)


def said(failure: Exception) -> str:
    """An exception in a line."""
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0][:90]}" if lines else type(failure).__name__


def error(got: Tensor, want: Tensor) -> float:
    """The largest difference over the largest magnitude; inf for a nan."""
    worst = float((got.double() - want).abs().max() / want.abs().max())
    return math.inf if math.isnan(worst) else worst


def compare(case: Case, device: str, clock: Clock, seconds: float, rounds: int = 50,
            say: Callable[[str], None] = lambda text: None) -> list[Row]:
    """The rows of a case: check every candidate, then time all of them in turn; `seconds` for each of `WAYS`."""
    gradient = torch.randn(case.shape, device=device)
    want = solve(case.truth, case.inputs, gradient)
    ready: dict[str, Ready] = {}
    found: dict[str, Verdict] = {}
    for name, make in case.candidates.items():
        say(f"{case.name}: checking {name}")
        try:
            ready[name] = make(case.inputs)
            truth = solve(*case.own[name], gradient) if name in case.own else want
            found[name] = verdict(ready[name], truth, gradient)
        except Exception as failure:  # a peer that cannot run here is one line of the table
            found[name] = Verdict(math.nan, math.nan, said(failure))
    rows = []
    for k, way in enumerate(WAYS):
        able = {n: _run(ready[n], gradient, k) for n, v in found.items() if v.times > k}
        reads, writes = (sum(w[i] for w in case.words[:k + 1]) for i in (0, 1))
        say(f"{case.name}: timing {way}")
        times: dict[str, Times] = measured({"": stream(case.shape, reads, writes, device), **able}, seconds, rounds, clock)
        size = 4 * math.prod(case.shape) * (reads + writes)
        limit = times[""]
        rows.append(Row(case.name, way, *case.shape, "stream the same bytes", None, limit, limit.median, size))
        for name, v in found.items():
            if name in times or not k:
                rows.append(Row(case.name, way, *case.shape, name, (v.value, v.gradient)[k], times.get(name), limit.median,
                                size, v.note))
    return rows


def _run(ready: Ready, gradient: Tensor, way: int) -> Callable[[], object]:
    """What is timed of a candidate."""
    if way == 0:
        def forward() -> object:
            with torch.no_grad():
                return ready.call()
        return forward
    wanted, inward = list(ready.leaves.values()), ready.inward(gradient)
    return lambda: torch.autograd.grad(ready.call(), wanted, inward)
