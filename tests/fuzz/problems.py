"""Numbers for a cell, and how it is called: a function or a module, in some layout, with some edges, whole.

Tensors have one form here, whatever the call wants: inputs (B, T, size), edges (B, k, size), weights and learned numbers by the
names of `meaning.Meaning.run`; so have results. All numbers are float32 numbers, so that both dtypes see the same.
"""

from __future__ import annotations

import functools
import linecache
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call

import lrdsl as lr
from lrdsl.nn.carry import Carry
from lrdsl.nn.pipeline import Pipeline, pipeline_of

from .grammar import Dice, Written
from .meaning import FUNCTIONS, Meaning

Tensors = dict[str, Tensor]
Call = Callable[[Mapping[str, Tensor]], Tensors]
Level = Literal["first", "second", "forward"]

TIMES = (3, 1, 2, 5, 4, 9, 17, 6, 40, 3, 7, 150)
SIZES = (1, 2, 3, 5, 2, 33)
LARGEST = 0.95  # of inputs and edges; grammar.FORMS takes an input for a number between -1 and 1
LEARNED = 0.85  # which are gates
CARRIES = ("none", "init", "carry", "carry and edges")
LEVELS: tuple[Level, ...] = ("first", "first", "second", "forward")
SIZED = 4  # features of an input with a size of its own


def load(source: str, name: str, file: str) -> lr.Cell:
    """The cell that a text defines, as if the text stood in `file`: places are lines of the text."""
    linecache.cache[file] = len(source), None, source.splitlines(True), file
    scope: dict[str, Any] = {"lr": lr, "t": lr.t, **{n: getattr(lr, n) for n in FUNCTIONS}}
    exec(compile(source, file, "exec", dont_inherit=True), scope)
    cell: lr.Cell = scope[name]
    return cell


@dataclass(frozen=True)
class Subject:
    """A cell of a text, and what lrdsl and the text itself make of it. Raises CellError."""

    written: Written

    @functools.cached_property
    def cell(self) -> lr.Cell:
        return load(self.written.source, self.written.name, f"<{self.written.name}>")

    @functools.cached_property
    def pipeline(self) -> Pipeline:
        return pipeline_of(self.cell.spec)

    @functools.cached_property
    def meaning(self) -> Meaning:
        return Meaning(self.written.source, self.written.name, {n: kind for n, kind, _ in self.written.signature})

    @property
    def module(self) -> bool:
        """Whether it runs as a module, and not as a function."""
        return bool(self.written.of("Affine"))


@dataclass(frozen=True)
class Setting:
    """What numbers a cell gets, and how it is called. edges: one of CARRIES. layout: "batch" or "time" first, or "gaps" between
    rows. level: which derivatives are asked for besides the first. boundaries: "none", "some" or "every" step. silent: outputs
    whose gradient is zero. given: sequences whose initial value a call names. single: the last input has one "channel" or one
    "batch" element, which stands for all. quarters: inputs are multiples of 1/4, so that some are equal."""

    B: int
    T: int
    C: int
    edges: str
    layout: str
    level: Level
    boundaries: str
    silent: tuple[str, ...]
    given: tuple[str, ...]
    single: str
    quarters: bool
    seed: int


@dataclass(frozen=True)
class Problem(Setting):
    """A Setting with its numbers."""

    tensors: Tensors
    reset: Tensor | None

    def drawn(self, name: str, like: Tensor) -> Tensor:
        """Numbers that belong to a name, in the shape and dtype of a tensor."""
        dice = torch.Generator().manual_seed(zlib.crc32(f"{name} {self.seed}".encode()))
        return (torch.rand(like.shape, generator=dice, dtype=torch.float32) * 2 - 1).to(like.dtype)


def setting(subject: Subject, dice: Dice, seed: int, small: bool = False) -> Setting:
    """A setting for a cell."""
    written, pipeline, pick = subject.written, subject.pipeline, dice.pick
    B, T, C = pick(SIZES[:4]), pick(TIMES[:6] if small else TIMES), pick(SIZES)
    T = min(T, 40) if len(written.lines) > 6 else T  # the loop that says what is right takes its time
    outputs = [f"out{k}" for k in range(len(written.outputs))] + [f"{k}:final" for k in depths(subject)]
    given = tuple(key for key, s in pipeline.sequences.items() if (s.state if subject.module else pick([True, False])))
    several = not subject.module and len(written.of("Input")) > 1
    return Setting(B, T, C, pick(CARRIES), pick(["batch", "time", "gaps"]), pick(LEVELS), pick(["none", "some", "every"]),
                   tuple(n for n in outputs[1:] if pick([False, False, False, True])), given,
                   pick(["", "", "channel", "batch"]) if several else "", pick([False, True]), seed)


def pose(subject: Subject, said: Setting) -> Problem:
    """The numbers of a setting."""
    written, plan, (B, T, C) = subject.written, subject.pipeline.plan, (said.B, said.T, said.C)
    numbers = torch.Generator().manual_seed(said.seed)

    def draw(*shape: int, size: float = LARGEST) -> Tensor:
        return ((torch.rand(shape, generator=numbers, dtype=torch.float32) * 2 - 1) * size).double()

    widths = {n: SIZED if "size" in options else C for n, kind, options in written.signature if kind == "Input"}
    tensors = {n: draw(B, T, k) for n, k in widths.items()}
    if said.quarters:
        tensors = {n: ((x * 4).round() / 4).clamp(-0.75, 0.75) for n, x in tensors.items()}
    if said.single:
        last = [*tensors][-1]
        tensors[last] = tensors[last][:, :, :1] if said.single == "channel" else tensors[last][:1]
    tensors |= {n: draw(C, size=LEARNED) for n in written.of("Vector")} | {n: draw(size=LEARNED) for n in written.of("Scalar")}
    for affine in plan.affines:
        fan = sum(widths.get(o, C) for o in affine.operands)
        tensors[f"{affine.name}.weight"] = draw(C, fan, size=1.5 / fan ** 0.5)
        if affine.bias is not False:
            tensors[f"{affine.name}.bias"] = draw(C, size=0.5)
    if subject.module:
        tensors |= {f"{s.name}_init": draw(C) for s in plan.carried if s.learned}
    ends = {"init": ("init",), "carry": ("now",), "carry and edges": ("now", "edge")}.get(said.edges, ())
    for key, s in subject.pipeline.sequences.items():
        if said.edges != "init" or key in said.given:
            tensors |= {f"{key}:{end}": draw(B, s.depth, widths.get(s.name, C)) for end in ends}
    share = {"none": 0.0, "some": 0.25, "every": 2.0}[said.boundaries]
    reset = torch.rand((B, T), generator=numbers) < share if share else None
    return Problem(**vars(said), tensors=tensors, reset=reset)


def depths(subject: Subject) -> dict[str, int]:
    """The sequences whose last windows a call gives, and how many steps each holds."""
    return {key: s.depth for key, s in subject.pipeline.sequences.items() if not key.endswith(".ahead")}


def meaning_of(subject: Subject, problem: Problem) -> Call:
    """The call that runs the text."""
    return lambda tensors: subject.meaning.run(tensors, problem.C, problem.reset, subject.written.reverse, depths(subject))


def call_of(subject: Subject, problem: Problem) -> Call:
    """The call that runs lrdsl."""
    return functools.partial(_module if subject.module else _function, subject, problem)


def _function(subject: Subject, problem: Problem, tensors: Mapping[str, Tensor]) -> Tensors:
    written, first = subject.written, problem.layout == "time"
    f = lr.function(subject.cell, dim=0 if first else 1)
    named = {n: _outward(tensors[n], problem) if n in written.of("Input") else tensors[n]
             for n in written.of("Input", "Vector", "Scalar")}
    init: Any = {n.removesuffix(":init"): v[:, 0] if v.shape[1] == 1 else v.transpose(1, 2)
                 for n, v in tensors.items() if n.endswith(":init")}
    if problem.edges.startswith("carry"):
        init = _carry(tensors)
    reset = problem.reset
    y, carry = f(**named, init=init, return_state=True, reset=reset if reset is None or not first else reset.transpose(0, 1))
    return _found(y, first, {k: carry.now[k] for k in depths(subject)})


def _module(subject: Subject, problem: Problem, tensors: Mapping[str, Tensor]) -> Tensors:
    first = problem.layout == "time"
    x, *others = subject.written.of("Input")
    layer = lr.RNN(subject.cell, tensors[x].shape[2], problem.C, batch_first=not first)
    params = {n: tensors[n.removeprefix("layers.0.")] for n, _ in layer.named_parameters()}
    h_0: Any = None
    if problem.edges.startswith("carry"):
        h_0 = _carry(tensors, "layers.0.")
    elif problem.edges == "init" and layer.carried:
        states = [tensors[f"{s.name}:init"] for s in layer.carried]
        h_0 = tuple(v[None, :, 0] if v.shape[1] == 1 else v.transpose(1, 2)[None] for v in states)
    reset = problem.reset
    given = {"reset": reset if reset is None or not first else reset.transpose(0, 1), "return_state": True}
    given |= {n: _outward(tensors[n], problem) for n in others}
    y, carry = functional_call(layer, params, (_outward(tensors[x], problem), h_0), given)
    return _found(y, first, {k: carry.now[f"layers.0.{k}"] for k in depths(subject)})


def _outward(x: Tensor, problem: Problem) -> Tensor:
    """An input in the layout of the call."""
    if problem.layout == "gaps":
        return torch.cat([x, torch.full_like(x[..., :1], torch.nan)], -1)[..., :-1]
    return x.transpose(0, 1) if problem.layout == "time" else x


def _carry(tensors: Mapping[str, Tensor], place: str = "") -> Carry:
    ends = {end: {place + n.removesuffix(end): v for n, v in tensors.items() if n.endswith(end)} for end in (":now", ":edge")}
    return Carry(ends[":now"], ends[":edge"])


def _found(y: Any, time_first: bool, windows: Mapping[str, Tensor]) -> Tensors:
    values = y.values() if isinstance(y, dict) else y if isinstance(y, tuple) else (y,)
    outputs = {f"out{k}": v.transpose(0, 1) if time_first else v for k, v in enumerate(values)}
    return outputs | {f"{k}:final": v for k, v in windows.items()}


def chunked(subject: Subject, problem: Problem, cuts: list[int]) -> Call:
    """The call that runs lrdsl on pieces of time, each from the Carry of the one before."""
    def call(tensors: Mapping[str, Tensor]) -> Tensors:
        inputs = subject.written.of("Input")
        bounds = [0, *cuts, problem.T]
        pieces = list(pairwise(bounds))
        given = {f"{n.removesuffix(':init')}:edge": v for n, v in tensors.items() if n.endswith(":init")}
        left, found = {**tensors, **given}, list[Tensors]()
        part = problem
        for lo, hi in reversed(pieces) if subject.written.reverse else pieces:
            reset = None if problem.reset is None else problem.reset[:, lo:hi]
            part = replace(part, T=hi - lo, reset=reset)
            left |= {n: tensors[n][:, lo:hi] for n in inputs}
            found.append(call_of(subject, part)(left))
            left |= {f"{n.removesuffix(':final')}:now": v for n, v in found[-1].items() if n.endswith(":final")}
            part = replace(part, edges="carry")
        ordered = found[::-1] if subject.written.reverse else found
        last = {n: v for n, v in found[-1].items() if n.endswith(":final")}
        return {n: torch.cat([f[n] for f in ordered], 1) for n in found[0] if n not in last} | last
    return call
