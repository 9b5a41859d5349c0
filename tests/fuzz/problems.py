"""Numbers for a cell, and how it is called: a function or a module, in some layout, with some edges, whole.

Tensors have one form here, whatever the call wants: inputs (B, T, size), edges (B, k, size), weights and learned numbers by the
names of `meaning.Meaning.run`; so have results. All numbers are float32 numbers, so that both dtypes see the same.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor
from torch.func import functional_call

import lrdsl as lr
from lrdsl.nn import function, parameters
from lrdsl.nn.carry import Carry
from lrdsl.nn.pipeline import Pipeline, pipeline_of

from .forms import fits
from .grammar import Dice
from .meaning import FIRST, FUNCTIONS, Meaning
from .written import Written

Tensors = dict[str, Tensor]
Call = Callable[[Mapping[str, Tensor]], Tensors]
Level = Literal["first", "second", "forward"]

TIMES = (3, 1, 2, 5, 4, 9, 17, 6, 40, 3, 7, 150)
SIZES = (1, 2, 3, 5, 2, 33)
SEGMENTS = (3, 1, 2, 4, 6)
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
        said = self.written
        return Meaning(said.source, said.name, {n: kind for n, kind, _ in said.signature}, said.sweeps, said.sides)

    @property
    def module(self) -> bool:
        """Whether it runs as a module, and not as a function."""
        return bool(self.written.of("Affine"))


@dataclass(frozen=True)
class Setting:
    """What numbers a cell gets, and how it is called. edges: one of CARRIES. layout: "batch" or "time" first, or "gaps" between
    rows. level: which derivatives are asked for besides the first. boundaries: "none", "some" or "every" step. silent: outputs
    whose gradient is zero. given: sequences whose initial value a call names. single: the last input has one "channel" or one
    "batch" element, which stands for all. quarters: inputs are multiples of 1/4, so that some are equal. lengths: those of
    segments that lie one after another in a batch of 1, if any."""

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
    lengths: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """How many edges a sequence has."""
        return len(self.lengths) or self.B

    @property
    def borders(self) -> tuple[int, ...]:
        """Where segments begin and end."""
        return tuple(accumulate(self.lengths, initial=0))


@dataclass(frozen=True, kw_only=True)
class Problem(Setting):
    """A Setting with its numbers."""

    tensors: Tensors
    reset: Tensor | None
    storage: torch.dtype | None = None  # of 16 bits, which hold all of its numbers

    def drawn(self, name: str, like: Tensor) -> Tensor:
        """Numbers that belong to a name, in the shape and dtype of a tensor. For a real one they are the real parts of
        those for a complex one: where terms cancel, lrdsl sees before it runs that a value is real, and torch does not."""
        dice = torch.Generator().manual_seed(zlib.crc32(f"{name} {self.seed}".encode()))
        found = [torch.rand(like.shape, generator=dice, dtype=torch.float32) * 2 - 1 for _ in range(1 + like.is_complex())]
        found = found if self.storage is None else [x.to(self.storage).float() for x in found]
        return (torch.complex(*found) if like.is_complex() else found[0]).to(like.dtype)

    def stored(self, dtype: torch.dtype) -> Problem:
        """The same in 16 bits, with first derivatives only."""
        return replace(self, tensors={n: x.to(dtype).double() for n, x in self.tensors.items()}, storage=dtype, level="first")


def setting(subject: Subject, dice: Dice, seed: int, small: bool = False) -> Setting:
    """A setting for a cell."""
    written, pipeline, pick = subject.written, subject.pipeline, dice.pick
    B, T, C = pick(SIZES[:4]), pick(TIMES[:6] if small else TIMES), pick(SIZES)
    # The loop that says what is right takes its time.
    T = min(T, 17) if written.both_ways else min(T, 40) if len(written.lines) > 6 else T
    outputs = [f"out{k}" for k in range(len(written.outputs))] + [f"{k}:final" for k in depths(subject)]
    given = tuple(key for key, s in pipeline.sequences.items()
                  if key != FIRST and (s.state and not s.ahead if subject.module else pick([True, False])))
    several = not subject.module and len(set(written.of("Input")) - subject.meaning.wide) > 1
    edges, boundaries = pick(CARRIES), pick(["none", "some", "every"])
    packed = fits(written.features | {"segments"}) and pick([False, False, False, True])
    lengths = _lengths(T, dice) if packed else ()
    silent = tuple(n for n in outputs[1:] if pick([False, False, False, True]))
    nested = any(text.count("maximum(") + text.count("minimum(") > 1 for text in written.texts)  # three may be equal
    return Setting(1 if packed else B, T, C, pick(CARRIES[:2]) if written.both_ways else edges, pick(["batch", "time", "gaps"]),
                   pick(LEVELS), "none" if packed else boundaries, silent, given,
                   pick(["", "", "channel", "batch"]) if several else "", pick([False, True]) and not nested,
                   seed, lengths)


def _lengths(T: int, dice: Dice) -> tuple[int, ...]:
    """T steps in segments, some of which may be empty."""
    borders = sorted(dice.pick(range(T + 1)) for _ in range(dice.pick(SEGMENTS) - 1))
    return tuple(b - a for a, b in pairwise([0, *borders, T]))


def pose(subject: Subject, said: Setting) -> Problem:
    """The numbers of a setting."""
    written, plan, (B, T, C) = subject.written, subject.pipeline.plan, (said.B, said.T, said.C)
    numbers, meaning = torch.Generator().manual_seed(said.seed), subject.meaning

    def draw(name: str, *shape: int, size: float = LARGEST) -> Tensor:
        parts = [((torch.rand(shape, generator=numbers, dtype=torch.float32) * 2 - 1) * size).double()
                 for _ in range(1 + (name in meaning.complex))]
        return torch.complex(*parts) if len(parts) > 1 else parts[0]

    widths = {n: meaning.axis if n in meaning.wide else meaning.sizes.get(n, C) for n in written.of("Input", "Mask", "Affine")}
    of_axis = {n: (meaning.axis,) if n in meaning.wide else () for n in written.of("State", "Vector", "Scalar")}
    tensors = {n: draw(n, B, T, widths[n]) for n in written.of("Input")}
    if said.quarters:
        tensors = {n: _quarters(x) for n, x in tensors.items()}
    if said.single:
        last = [n for n in tensors if said.single == "batch" or n not in meaning.wide][-1]
        tensors[last] = tensors[last][:, :, :1] if said.single == "channel" else tensors[last][:1]
    tensors |= {n: (draw(n, B, T, C) > -0.3).double() for n in written.of("Mask")}
    tensors |= {n: draw(n, C, *of_axis[n], size=LEARNED) for n in written.of("Vector")}
    tensors |= {n: draw(n, *of_axis[n], size=LEARNED) for n in written.of("Scalar")}
    for affine in plan.affines:
        fan = sum(widths.get(o, C) for o in affine.operands)
        tensors[f"{affine.name}.weight"] = draw(affine.name, widths[affine.name], fan, size=1.5 / fan ** 0.5)
        if affine.bias is not False:
            tensors[f"{affine.name}.bias"] = draw(affine.name, widths[affine.name], size=0.5)
    if subject.module:
        tensors |= {f"{s.name}_init": draw(s.name, C, *of_axis[s.name]) for s in plan.carried if s.learned}
    ends = {"init": ("init",), "carry": ("now",), "carry and edges": ("now", "edge")}.get(said.edges, ())
    for key, s in subject.pipeline.sequences.items():
        if said.edges != "init" or key in said.given:
            shape = said.rows, s.depth, widths.get(s.name, C), *of_axis.get(s.name, ())
            tensors |= {f"{key}:{end}": draw(s.name, *shape) for end in ends}
    share = {"none": 0.0, "some": 0.25, "every": 2.0}[said.boundaries]
    reset = torch.rand((B, T), generator=numbers) < share if share else None
    if reset is not None and subject.module and written.both_ways:
        reset[:, 0] = False  # h_n is what a run ended on, before a boundary there
    return Problem(**vars(said), tensors=tensors, reset=reset)


def _quarters(x: Tensor) -> Tensor:
    """Multiples of 1/4."""
    if x.is_complex():
        return torch.complex(_quarters(x.real), _quarters(x.imag))
    return ((x * 4).round() / 4).clamp(-0.75, 0.75)


def depths(subject: Subject) -> dict[str, int]:
    """The sequences whose last windows a call gives, and how many steps each holds."""
    every = {key: s for key, s in subject.pipeline.sequences.items() if not s.ahead}
    if subject.written.both_ways:  # there is no Carry, and a function has no h_n
        every = {key: s for key, s in every.items() if s.state and subject.module}
    return {key: s.depth for key, s in every.items()}


def meaning_of(subject: Subject, problem: Problem) -> Call:
    """The call that runs the text."""
    def run(tensors: Mapping[str, Tensor], reset: Tensor | None) -> Tensors:
        return subject.meaning.run(tensors, problem.C, reset, depths(subject), problem.storage)

    def segmented(tensors: Mapping[str, Tensor]) -> Tensors:
        """Each segment as a sequence of its own."""
        sequences, parts = subject.written.of("Input", "Mask"), list[Tensors]()
        for k, (lo, hi) in enumerate(pairwise(problem.borders)):
            mine = {n: x[:, lo:hi] if n in sequences else x[k:k + 1] if ":" in n else x for n, x in tensors.items()}
            parts.append(run(mine, None))
        names = max(parts, key=len)  # an empty one has no outputs
        return {n: torch.cat([p[n] for p in parts if n in p], 0 if n.endswith(":final") else 1) for n in names}
    return segmented if problem.lengths else lambda tensors: run(tensors, problem.reset)


def call_of(subject: Subject, problem: Problem) -> Call:
    """The call that runs lrdsl."""
    return functools.partial(_module if subject.module else _function, subject, problem)


@contextlib.contextmanager
def _masked(subject: Subject, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Masks are those of the problem."""
    def beside(spec: Any, like: Tensor, x: Tensor, channels: int, training: bool) -> Tensors:
        return real(spec, like, x, channels, False) | {n: tensors[n].detach().to(like.dtype.to_real())
                                                       for n in subject.written.of("Mask")}
    real = parameters.beside
    with mock.patch.object(function, "beside", beside), mock.patch.object(parameters, "beside", beside):
        yield


def _boundaries(problem: Problem) -> dict[str, Any]:
    """What a call is told of them."""
    if problem.lengths:
        return {"cu_seqlens": torch.tensor(problem.borders, dtype=torch.int32 if problem.seed % 2 else torch.int64)}
    reset = problem.reset
    return {"reset": reset if reset is None or problem.layout != "time" else reset.transpose(0, 1)}


def _shown(window: Tensor) -> Tensor:
    """(rows, k, C, …) as an initial value is given: (rows, C, …), or (rows, C, k, …)."""
    return window[:, 0] if window.shape[1] == 1 else window.transpose(1, 2)


def _function(subject: Subject, problem: Problem, tensors: Mapping[str, Tensor]) -> Tensors:
    written, first = subject.written, problem.layout == "time"
    f = lr.function(subject.cell, dim=0 if first else 1)
    named = {n: _outward(tensors[n], problem) if n in written.of("Input") else tensors[n]
             for n in written.of("Input", "Vector", "Scalar")}
    init: Any = {n.removesuffix(":init"): _shown(v) for n, v in tensors.items() if n.endswith(":init")}
    if problem.edges.startswith("carry"):
        init = _carry(tensors)
    with _masked(subject, tensors):
        if written.both_ways:
            return _found(f(**named, init=init, **_boundaries(problem)), first, {})
        y, carry = f(**named, init=init, return_state=True, **_boundaries(problem))
    return _found(y, first, {k: carry.now[k] for k in depths(subject)})


def _module(subject: Subject, problem: Problem, tensors: Mapping[str, Tensor]) -> Tensors:
    first, both_ways = problem.layout == "time", subject.written.both_ways
    x, *others = subject.written.of("Input")
    layer = lr.RNN(subject.cell, tensors[x].shape[2], problem.C, batch_first=not first)
    params = {n: tensors[n.removeprefix("layers.0.")] for n, _ in layer.named_parameters()}
    h_0: Any = None
    if problem.edges.startswith("carry"):
        h_0 = _carry(tensors, "layers.0.")
    elif problem.edges == "init" and layer.carried:
        h_0 = tuple(_shown(tensors[f"{s.name}:init"])[None] for s in layer.carried)
    given = {"return_state": not both_ways, **_boundaries(problem)}
    given |= {n: _outward(tensors[n], problem) for n in others}
    with _masked(subject, tensors):
        y, left = functional_call(layer, params, (_outward(tensors[x], problem), h_0), given)
    if both_ways:
        h_n = left if isinstance(left, tuple) else (left,)
        ends = {s.name: v[0].unsqueeze(1) if s.depth == 1 else v[0].transpose(1, 2)
                for s, v in zip(layer.carried, h_n, strict=True)}
        return _found(y, first, {k: ends[k] for k in depths(subject)})
    return _found(y, first, {k: left.now[f"layers.0.{k}"] for k in depths(subject)})


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
        inputs = subject.written.of("Input", "Mask")
        bounds = [0, *cuts, problem.T]
        pieces = list(pairwise(bounds))
        given = {f"{n.removesuffix(':init')}:edge": v for n, v in tensors.items() if n.endswith(":init")}
        if FIRST in subject.pipeline.sequences and any(subject.pipeline.sequences[n.partition(":")[0]].state for n in given):
            given[f"{FIRST}:edge"] = torch.zeros_like(next(iter(given.values())).real[:, :1])
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
