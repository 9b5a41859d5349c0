"""What a layer keeps between its forward and backward pass, and the most that both hold at once.

Counted are sequences of the channels: bytes a step and channel. Left out is what a call brings (its inputs, their windows, and
the gradients of those that only maps read), what has no step (parameters, edges) and what has no channels (maps of a size of
their own, sequences that all channels share).
Non-goals: the temporaries of torch's own operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir import dtypes
from ..ir.plan import Dense, Plan, Sized, Stage
from ..ir.program import Program
from ..ir.source import slots
from .adjoint import Adjoint


@dataclass(frozen=True)
class Footprint:
    """saved: (sequences that lie in one tensor, its bytes a step and channel). peak: the most at any moment, the outputs and
    their gradients included. beside: what is saved of the call's own, with the lags of a window."""

    saved: tuple[tuple[tuple[str, ...], float], ...]
    beside: tuple[str, ...]
    peak: float

    @property
    def total(self) -> float:
        """Bytes a step and channel that are saved."""
        return sum(size for _, size in self.saved)


def footprint(plan: Plan, adjoints: Sequence[Adjoint], dtype: str) -> Footprint:
    """adjoints: of each Program of the Plan, as training runs it."""
    of = iter(adjoints)
    stages = {k: next(of) for k, s in enumerate(plan.steps) if isinstance(s, Stage)}
    home: dict[str, str] = {}          # sequence -> the tensor that it lies in
    size: dict[str, float] = {}        # tensor -> bytes
    names: dict[str, list[str]] = {}   # tensor -> what lies in it
    last: dict[str, int] = {}          # tensor -> the first step that reads it in the backward pass, which is done with it last
    beside: dict[str, None] = {}

    def lies(tensor: str, more: float, *inside: str) -> None:
        size[tensor] = size.get(tensor, 0) + more
        names.setdefault(tensor, []).extend(inside)

    def reads(step: int, sequence: str, lags: tuple[int, ...] = (0,)) -> None:
        source = f"{sequence} at {len(lags)} steps" if len(lags) > 1 else sequence
        if sequence not in home:
            beside.setdefault(source)
            return
        if len(lags) > 1:
            home[source] = source
            lies(source, len(lags) * size[home[sequence]], source)
        last.setdefault(home[source], step)

    for k, step in enumerate(plan.steps):
        if isinstance(step, Dense):
            reads(k, step.source, step.lags)
            for buffer, blocks in step.outputs:
                home[buffer] = f"product {k}"
                read = next(s for p in plan.programs for s in slots(p) if s.name == buffer)
                lies(home[buffer], _bytes(read.columns, read.channels, read.dtype(dtype)), *(b.target for b in blocks))
        elif isinstance(step, Sized):
            for source, lags, _ in step.terms:
                reads(k, source, lags)
        else:
            kept = {s.name: s for s in slots(step.program) if s.kind in ("keep", "shared")}
            for keep in step.program.keeps:
                slot = kept[keep.name]
                home[keep.name] = keep.name
                lies(keep.name, _bytes(slot.columns, slot.channels, slot.dtype(dtype)) / slot.every, *keep.samples)
            for sequence in _needs(step.program, stages[k]):
                reads(k, sequence)
    saved = tuple((tuple(names[t]), size[t]) for t in size if t in last and size[t])
    return Footprint(saved, tuple(beside), _peak(plan, stages, home, size, last, dtype))


def _needs(program: Program, adjoint: Adjoint) -> list[str]:
    """The sequences that a Program's backward pass reads, or, where they are computed again from borders, all that may be."""
    sequences = {b.name for b in program.buffers} | {k.name for k in program.keeps}
    needs = [o.name for o in adjoint.takes if o.what != "gradient" and o.name in sequences]
    return [*needs, *([b.name for b in program.buffers] if adjoint.program.replay else [])]


def _peak(plan: Plan, stages: Mapping[int, Adjoint], home: Mapping[str, str], size: Mapping[str, float],
          last: Mapping[str, int], dtype: str) -> float:
    """Backwards through the steps: what is saved for those still to come, the outputs, and gradients on their way."""
    outputs = {home[base] for _, base in plan.outputs if base in home}
    gradients = {tensor: size[tensor] for tensor in sorted(outputs)}
    largest = 0.0
    for k in range(len(plan.steps) - 1, -1, -1):
        step = plan.steps[k]
        alive = sum(n for t, n in size.items() if t in outputs or last.get(t, len(plan.steps)) <= k)
        if isinstance(step, Stage):
            given = {n: [p.name for p in pieces] for n, pieces in stages[k].gives}
            made = {s.name: _bytes(s.columns, s.channels, s.dtype(dtype)) for s in slots(stages[k].program) if s.kind == "keep"}
            new = {b.name: sum(made.get(n.partition("#")[0], 0) for n in given.get(b.name, ())) for b in step.program.buffers}
            done = {k.name for k in step.program.keeps}
        else:
            sources = {step.source} if isinstance(step, Dense) else {source for source, _, _ in step.terms}
            new = {s: size[home[s]] for s in sources if s in home}
            done = {n for n, _ in step.outputs} if isinstance(step, Dense) else {step.target}
        largest = max(largest, alive + sum(gradients.values()) + sum(new.values()))
        gradients = {n: g for n, g in {**new, **gradients}.items() if n not in done}
    return largest


def _bytes(columns: int, channels: bool, dtype: str) -> float:
    return columns * dtypes.size(dtype) if channels else 0


__all__ = ["Footprint", "footprint"]
