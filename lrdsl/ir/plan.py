"""Plan: a cell cut where a dense map needs a whole sequence.

    Plan  = (Dense | Sized | Stage)*
    Dense : one matrix product for all maps of the same samples
    Sized : the value of a map with a size of its own, bias included
    Stage : a fused Program, and where each of its tensors comes from
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ..errors import InternalError
from .program import Program
from .symbols import At


@dataclass(frozen=True)
class Block:
    """A slice of an Affine's weight: the columns of the operands with these numbers, one for each lag of the Dense."""

    target: str
    affine: str
    operands: tuple[int, ...]


@dataclass(frozen=True)
class Dense:
    """The product of the sequence `source` with slices of weights, block by block: one matrix product for all of them.

    outputs: (buffer, its blocks): (B, T, len(blocks)*H) each, one for each set of Programs that read it. No bias: that is a
    vector of the Program which reads the product.
    lags: (0,) for maps that read the source at one lag: a Program reads the product at that lag, and the product of the
    source's edge values is the edge of the product. Several lags are a window: the source's samples at these lags side by
    side, edges included, are multiplied (B, T, len(lags)*size), and the product is read at lag 0 only.
    """

    source: str
    lags: tuple[int, ...]
    outputs: tuple[tuple[str, tuple[Block, ...]], ...]

    @property
    def windowed(self) -> bool:
        """Whether the source is multiplied at several lags at once."""
        return len(self.lags) > 1

    @property
    def multiplied(self) -> str:
        """What is multiplied: `x`, or the samples of a window, `x[t], x[t-1]` or `x[t], x[t-1] … x[t-9]`."""
        if not self.windowed:
            return self.source
        names = [str(At(self.source, lag)) for lag in self.lags]
        even = len({b - a for a, b in pairwise(self.lags)}) == 1
        return f"{names[0]}, {names[1]} … {names[-1]}" if even and len(names) > 4 else ", ".join(names)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(b for _, blocks in self.outputs for b in blocks)

    def __str__(self) -> str:
        return f"dense maps of {self.multiplied}: " + "; ".join(
            f"{buffer} = [{', '.join(b.target for b in blocks)}]" for buffer, blocks in self.outputs)


@dataclass(frozen=True)
class Sized:
    """The value `target` of a map whose size is not the hidden one: (B, T, size), with no channels for a Program to read.

    terms: (source, lags, numbers of the operands at these lags); the samples of all sources are multiplied and added up. bias:
    whether it is added, too.
    """

    target: str
    affine: str
    terms: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    bias: bool = True

    def __str__(self) -> str:
        reads = ", ".join(str(At(source, lag)) for source, lags, _ in self.terms for lag in lags)
        return f"a map of a size of its own, {self.target}: {self.affine}({reads})"


@dataclass(frozen=True)
class Sequence:
    """A sequence of the plan that is read at a lag somewhere: its edge, and the name that a user gives it by.

    side: -1 where read at t-k, +1 at t+k. ahead: its run does not come from there; the other side has the plain name. States
    come back in h_n, by the plain name; inputs only in a Carry. size: N numbers a channel, or 0.
    """

    name: str
    side: int
    depth: int
    init: complex
    learned: bool
    state: bool
    ahead: bool = False
    size: int = 0

    @property
    def key(self) -> str:
        """The name of its edge: `h`, or `h.ahead`."""
        return self.name + ".ahead" * self.ahead


@dataclass(frozen=True)
class Stage:
    """A Program of the plan."""

    program: Program

    def __str__(self) -> str:
        return str(self.program)


@dataclass(frozen=True)
class Affine:
    """A dense map's parameters: the operands' sizes are known when a layer is made."""

    name: str
    operands: tuple[str, ...]
    bias: bool | float
    size: int | str = "hidden"


@dataclass(frozen=True)
class Plan:
    """The steps in order; `sequences` in the order of h_n (states of the signature, then surrogates'), inputs last.

    pairs: (tensor, real part, imaginary part) of the inputs, outputs and states that are one tensor of pairs.
    """

    name: str
    inputs: tuple[str, ...]
    affines: tuple[Affine, ...]
    steps: tuple[Dense | Sized | Stage, ...]
    sequences: tuple[Sequence, ...]
    outputs: tuple[tuple[str, str], ...]
    pairs: tuple[tuple[str, str, str], ...] = ()

    @property
    def programs(self) -> tuple[Program, ...]:
        return tuple(s.program for s in self.steps if isinstance(s, Stage))

    @property
    def reverse(self) -> bool:
        """Whether a pass runs from the right."""
        return any(p.reverse for p in self.programs)

    @property
    def carried(self) -> tuple[Sequence, ...]:
        """The states of h_n."""
        return tuple(s for s in self.sequences if s.state and not s.ahead)

    @property
    def both_ways(self) -> str:
        """Which states run which way, where no order of chunks fits all that reads them; "" where one does."""
        own = [s for s in self.sequences if s.name not in self.inputs]
        if len({s.side for s in own}) < 2:
            return ""
        runs = {way: [s.name for s in own if s.side == side and not s.ahead] for side, way in ((-1, "left"), (1, "right"))}
        said = [f"{', '.join(names)} run{'s' * (len(names) == 1)} from the {way}" for way, names in runs.items() if names]
        turned = [f"{s.name} is read at {'later' if s.side > 0 else 'earlier'} steps too" for s in own if s.ahead]
        return " and ".join(said if len(said) == 2 else [*said, *turned])

    def check(self) -> Plan:
        """Raise InternalError unless every step reads what earlier ones wrote, and all outputs are written."""
        known = set(self.inputs)
        for step in self.steps:
            needs = {step.source} if isinstance(step, Dense) else {b.name for b in step.program.buffers} \
                if isinstance(step, Stage) else {source for source, _, _ in step.terms}
            if not needs <= known:
                raise InternalError("plan", f"{needs - known} are read before they exist", str(self))
            known |= {n for n, _ in step.outputs} if isinstance(step, Dense) else {k.name for k in step.program.keeps} \
                if isinstance(step, Stage) else {step.target}
        windows = {b.target for s in self.steps if isinstance(s, Dense) and s.windowed for b in s.blocks}
        if lagged := windows & {e.base for p in self.programs for e in p.edges}:
            raise InternalError("plan", f"{lagged}, products of windows, are read at a lag", str(self))
        if not {sample for _, sample in self.outputs} <= known:
            raise InternalError("plan", "an output is never written", str(self))
        return self

    def __str__(self) -> str:
        lines = [f"plan {self.name}: {', '.join(self.inputs)} -> {', '.join(n for n, _ in self.outputs)}"]
        lines += ["  " + str(step).replace("\n", "\n  ") for step in self.steps]
        lines += [f"  edge of {s.name}: {s.depth} step{'s' * (s.depth > 1)} {'before' if s.side < 0 else 'after'}, "
                  f"{'learned' if s.learned else format(s.init, 'g')} unless given" for s in self.sequences]
        return "\n".join(lines)


RECORDED = (Plan, Dense, Sized, Stage, Block, Affine, Sequence)
__all__ = ["RECORDED", "Affine", "Block", "Dense", "Plan", "Sequence", "Sized", "Stage"]
