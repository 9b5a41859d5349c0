"""Side by side: candidates for one computation are checked against a loop in float64, then timed in turn.

A `Case` is what to compute and on which numbers; a `Candidate` is one way to do it. A candidate whose values are wrong is not
timed; one whose gradients alone are wrong is timed forward only; both are said.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .table import Row
from .timing import Clock, Loops, Times, limited, measured, stream

Tensors = Mapping[str, Tensor]
Outputs = Tensor | tuple[Tensor, ...]
Make = Callable[[Tensors], "Ready"]
TOLERANCE = 1e-4  # float32 over any length here stays far below it, a step that is lost or a gate in 16 bits does not
WAYS = ("forward", "forward and backward")
STREAM, PAST = "stream the same bytes", "stream past the caches"


def same(tensor: Tensor) -> Tensor:
    """The layout of the case."""
    return tensor


@dataclass(frozen=True)
class Ready:
    """A candidate with its tensors: `call()` gives (B, T, C), or its own layout; several where the case has several. leaves:
    what gradients are taken for, by the names of the case. inward: from the case's layout to its own, outward: back. gradients:
    its gradients as the case's. both: the gradients of the leaves at once, where they are not for torch's autograd to find."""

    call: Callable[[], Outputs]
    leaves: Tensors
    inward: Callable[[Tensor], Tensor] = same
    outward: Callable[[Tensor], Tensor] = same
    gradients: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    both: Callable[[Sequence[Tensor]], Sequence[Tensor | None]] | None = None

    def back(self, gradients: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Forward, and the gradients of the leaves; `gradients` in its own layout, one for each output."""
        if self.both:
            return self.both(gradients)
        return torch.autograd.grad(several(self.call()), list(self.leaves.values()), gradients, allow_unused=True)


@dataclass(frozen=True)
class Case:
    """What to compute. inputs: by name, on the device. truth: the same in any dtype, a loop over time. words: what a fused
    pass has to read and to write of the shape, forward and backward. own: candidates that compute another function, with the
    loop and the inputs that they are held to. outputs: how many there are. like: a tensor that they are like, in dtype and
    layout."""

    name: str
    shape: tuple[int, int, int]
    inputs: Tensors
    truth: Callable[[Tensors], Outputs]
    words: tuple[tuple[int, int], tuple[int, int]]
    candidates: Mapping[str, Make]
    own: Mapping[str, tuple[Callable[[Tensors], Outputs], Tensors]] = field(default_factory=dict)
    outputs: int = 1
    like: Tensor | None = None

    def drawn(self, device: str) -> tuple[Tensor, ...]:
        """A random gradient for each output."""
        like = torch.empty(self.shape, device=device) if self.like is None else self.like
        return tuple(torch.randn_like(like) for _ in range(self.outputs))


@dataclass(frozen=True)
class Verdict:
    """Errors against the loop, over the largest magnitude of each tensor; `note` says what is wrong. first: seconds of the
    first call forward, with all that it compiles."""

    value: float
    gradient: float
    note: str
    first: float | None = None

    @property
    def times(self) -> int:
        """How many of `WAYS` it may be timed in."""
        return 0 if not self.value <= TOLERANCE else 1 if not self.gradient <= TOLERANCE else 2


def several(outputs: Outputs) -> tuple[Tensor, ...]:
    """One or more tensors as a tuple."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def leaves(tensors: Tensors) -> dict[str, Tensor]:
    """The same numbers in the same memory, asking for a gradient."""
    return {n: t.detach().requires_grad_() for n, t in tensors.items()}


def wide(x: Tensor) -> Tensor:
    """In float64, or in complex128."""
    return x.detach().to(torch.complex128 if x.is_complex() else torch.float64)


def solve(truth: Callable[[Tensors], Outputs], inputs: Tensors,
          gradients: Sequence[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Values and gradients of the loop in float64."""
    double = leaves({n: wide(t) for n, t in inputs.items()})
    values = several(truth(double))
    found = torch.autograd.grad(values, list(double.values()), [wide(g) for g in gradients])
    return [v.detach() for v in values], dict(zip(double, found, strict=True))


def verdict(ready: Ready, want: tuple[list[Tensor], dict[str, Tensor]], gradients: Sequence[Tensor]) -> Verdict:
    """Compare values and all gradients with the loop's. Raises what the candidate raises forward."""
    with torch.no_grad():
        start = time.perf_counter()
        outputs = several(ready.call())
        first = time.perf_counter() - start
        value = max(error(ready.outward(got), wanted) for got, wanted in zip(outputs, want[0], strict=True))
        del outputs
    if not value <= TOLERANCE:
        return Verdict(value, math.nan, f"wrong by {value:.1e}", first)
    try:
        found = ready.back([ready.inward(g) for g in gradients])
        got = ready.gradients(dict(zip(ready.leaves, found, strict=True)))
        errors = {n: math.inf if g is None else error(ready.outward(g) if g.dim() == 3 else g, want[1][n])
                  for n, g in got.items()}
    except Exception as failure:  # some can only go forward, at some sizes
        return Verdict(value, math.nan, f"no gradient: {said(failure)}", first)
    worst = max(errors, key=lambda n: errors[n])
    note = "" if errors[worst] <= TOLERANCE else f"gradient of {worst} " + (
        "missing" if got[worst] is None else "zero" if not got[worst].any() else f"wrong by {errors[worst]:.1e}")
    return Verdict(value, errors[worst], note, first)


def said(failure: Exception) -> str:
    """An exception in a line."""
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0][:90]}" if lines else type(failure).__name__


def error(got: Tensor, want: Tensor) -> float:
    """The largest difference over the largest magnitude; inf for a nan."""
    worst = float(torch.linalg.vector_norm(got.to(want.dtype) - want, math.inf) / torch.linalg.vector_norm(want, math.inf))
    return math.inf if math.isnan(worst) else worst


def compare(case: Case, device: str, clock: Clock, seconds: float, rounds: int = 50,
            say: Callable[[str], None] = lambda text: None, limit: float | None = None,
            past: Loops | None = None) -> list[Row]:
    """The rows of a case: check every candidate, then time all of them in turn; `seconds` for each of `WAYS`. limit: seconds
    that a candidate has until it was checked, compiling included. past: with these loops, too, the same bytes are streamed."""
    gradients, threads = case.drawn(device), torch.get_num_threads()
    want = solve(case.truth, case.inputs, gradients)
    ready: dict[str, Ready] = {}
    found: dict[str, Verdict] = {}
    for name, make in case.candidates.items():
        say(f"{case.name}: checking {name}")
        try:
            with limited(limit):
                ready[name] = make(case.inputs)
                truth = solve(*case.own[name], gradients) if name in case.own else want
                found[name] = verdict(ready[name], truth, gradients)
        except Exception as failure:  # a peer that cannot run here is one line of the table
            found[name] = Verdict(math.nan, math.nan, said(failure))
    del want
    rows = []
    for k, way in enumerate(WAYS):
        able = {n: _run(ready[n], gradients, k) for n, v in found.items() if v.times > k}
        reads, writes = (sum(w[i] for w in case.words[:k + 1]) for i in (0, 1))
        say(f"{case.name}: timing {way}")
        torch.set_num_threads(threads)  # a peer may have changed it: torch shares its OpenMP
        sources = _sources(case, gradients if k else ())
        limits = {STREAM: stream(case.shape, reads, writes, device, sources)}
        if past:
            limits[PAST] = stream(case.shape, reads, writes, device, sources, past)
        with torch.set_grad_enabled(k > 0):  # around all runs: with cold caches, to enter it takes 20 µs and more
            times: dict[str, Times] = measured({**limits, **able}, seconds, rounds, clock)
        size = 4 * math.prod(case.shape) * (reads + writes)
        least = times[STREAM].median
        rows += [Row(case.name, way, *case.shape, n, None, times[n], least, size) for n in limits]
        for name, v in found.items():
            if name in times or not k:
                rows.append(Row(case.name, way, *case.shape, name, (v.value, v.gradient)[k], times.get(name), least, size,
                                v.note, v.first))
    return rows


def _sources(case: Case, gradients: Sequence[Tensor]) -> list[Tensor]:
    """What a stream reads: copies of the case's own tensors, where there are two or more of its shape and dtype. Those
    themselves may still be in the caches when a candidate has read them and written past the caches, for the stream alone."""
    found = [t for t in (*case.inputs.values(), *gradients) if t.shape == case.shape and t.dtype == torch.float32]
    return [t.detach().clone() for t in found] if len(found) > 1 else []


def _run(ready: Ready, gradients: Sequence[Tensor], way: int) -> Callable[[], object]:
    """What is timed of a candidate."""
    if way == 0:
        return ready.call
    inward = [ready.inward(g) for g in gradients]
    return lambda: ready.back(inward)
