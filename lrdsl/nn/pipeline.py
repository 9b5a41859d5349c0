"""A Plan on tensors: dense maps by torch, Programs by their ops, edges carried to where they are read."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence, Set
from typing import Any

from torch import Tensor

from ..compiler import dumped
from ..errors import CellError
from ..ir.plan import Block, Dense, Plan, Sized
from ..ir.plan import Sequence as Lagged
from ..ir.program import Program
from ..ir.source import slots
from ..ir.spec import Spec
from ..passes.ragged import carried_name, given_name, key_of
from ..programs import plan_of, ragged_of
from .carry import NONE, Window, last_window
from .checks import constant
from .dtypes import NARROW
from .ops import Op, named, op_of
from .products import Weights, fill_of, product
from .segments import Segments
from .windows import windowed

Products = tuple[tuple[str, int, tuple[Block, ...]], ...]
Values = dict[str, Tensor | None]


class Pipeline:
    """A cell that is ready to run. Raises NotLinear (and the like) when it is made."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.plan: Plan = plan_of(spec)
        dumped(spec)
        self.reverse = self.plan.reverse
        self.sequences = {s.key: s for s in self.plan.sequences}
        self.keys = {(s.name, s.side): s.key for s in self.plan.sequences}
        self.looks_ahead = tuple(s.name for s in self.plan.sequences if s.ahead)
        self.pairs = {half: (name, k) for name, *pair in self.plan.pairs for k, half in enumerate(pair)}
        inputs = {*self.plan.inputs, *(half for half, (name, _) in self.pairs.items() if name in self.plan.inputs)}
        given = inputs | {f"{k}.{e}" for k, s in self.sequences.items() if s.name in inputs for e in ("start", "edge")}
        self.steps: tuple[tuple[Dense, Products] | tuple[Sized, None] | tuple[Op, frozenset[str]], ...] = tuple(
            (s, self._products(s)) if isinstance(s, Dense) else (s, None) if isinstance(s, Sized)
            else (op_of(s.program).ready(), _channels(s.program, given)) for s in self.plan.steps)
        read = {b.name: b.shape for p in self.plan.programs for b in p.buffers}
        self.channelwise = tuple(n for n in self.plan.inputs if read.get(n, "axis") != "axis")
        self.widened = frozenset(v.name for p in self.plan.programs for v in p.vectors if v.shape == "channel and axis")
        self.solved = tuple(p.name for p in self.plan.programs if p.solver)
        # What lies in memory whole, so that its last samples need no register.
        self.held = inputs | {s.target for s in self.plan.steps if isinstance(s, Sized)}

    @property
    def alone(self) -> tuple[Op, tuple[str | None, ...], tuple[int, ...]] | None:
        """The op of a cell that is one fused pass and reads nothing beside what it is given: which of that are its arguments,
        and which of its outputs the cell's. None for other cells."""
        read = {d.name for d in self.spec.declared if d.kind in ("input", "vector", "scalar")}
        if len(self.steps) != 1 or self.solved or self.widened or self.spec.of("mask") or self.spec.of("first"):
            return None
        op = self.steps[0][0]
        if not isinstance(op, Op) or not {base for _, base in self.plan.outputs} <= {*op.outputs}:
            return None
        return (op, tuple(n if n in read else None for n in op.arguments),
                tuple(op.outputs.index(base) for _, base in self.plan.outputs))

    def _products(self, dense: Dense) -> Products:
        """(key of the source, depth, blocks) of the products that are read at a lag."""
        depth = {(e.base, e.side): e.depth for program in self.plan.programs for e in program.edges}
        found = []
        for side in (-1, 1):
            for k in sorted({depth[b.target, side] for b in dense.blocks if (b.target, side) in depth}):
                found.append((self.keys[dense.source, side], k,
                              tuple(b for b in dense.blocks if depth.get((b.target, side)) == k)))
        return tuple(found)

    def __call__(self, inputs: Mapping[str, Tensor], learned: Mapping[str, Tensor], weights: Weights,
                 windows: Mapping[str, Window], reset: Tensor | None, channels: int,
                 segments: Segments | None = None) -> Values:
        """Every tensor of the run by its name in the plan; `h.final` is the final window of h.

        inputs (B, T, size), or (B, T, 1) of integers; learned: vectors and biases, weights: (affine, operand) -> (H, size),
        windows (B, k, size), reset (B, T) bool; with segments B is 1, that of the windows their number, and there is no reset.
        What has a state axis of N is (H, N), the window of such a state (B, k, H, N).
        """
        values: Values = {**inputs, **learned}
        values |= {n: learned[n].mT.flatten() for n in self.widened}
        reset = reset if segments is None else segments.reset
        for key, (start, edge) in windows.items():
            wide = self.sequences[key].size
            values[f"{key}.start"] = _inward(start) if wide else start
            values[f"{key}.edge"] = None if reset is None or segments is not None else _inward(edge) if wide else edge
        for step, extra in self.steps:
            if isinstance(step, Op):
                op = step if segments is None else self._ragged(step, values, segments, channels)
                args = [_spread(values.get(n), channels) if n in extra else values.get(n)  # type: ignore[operator]
                        for n in op.arguments[:-1]]
                values.update(zip(op.outputs, op(*args, reset), strict=True))
            elif isinstance(step, Sized):
                self._sized(step, weights, values, reset, segments)
            else:
                self._dense(step, extra, weights, values, reset, segments)  # type: ignore[arg-type]
        return values

    def _dense(self, dense: Dense, products: Products, weights: Weights, values: Values, reset: Tensor | None,
               segments: Segments | None) -> None:
        source = self._samples(dense.source, dense.lags, values, reset, segments)
        pieces = product(source, weights, [blocks for _, blocks in dense.outputs], edges=dense.windowed)
        values.update(zip((name for name, _ in dense.outputs), pieces, strict=True))
        for key, depth, blocks in products:
            last: Sequence[Any] = (None, ())
            for end in ("start", "edge"):
                window = self._window(key, values.get(f"{key}.{end}"), source, segments)
                if window is None:
                    continue
                if last[0] is not window:
                    last = window, product(window[:, :depth], weights, [(b,) for b in blocks], edges=True)
                ahead = ".ahead" if key.endswith(".ahead") else ""
                values.update(zip((f"{b.target}{ahead}.{end}" for b in blocks), last[1], strict=True))

    def _sized(self, step: Sized, weights: Weights, values: Values, reset: Tensor | None, segments: Segments | None) -> None:
        total = values.get(f"{step.affine}.bias") if step.bias else None
        for source, lags, operands in step.terms:
            samples = self._samples(source, lags, values, reset, segments)
            blocks = [(Block(step.target, step.affine, operands),)]
            term, = product(samples, weights, blocks, edges=lags != (0,))
            total = term if total is None else total + term
        if not step.terms:  # the part of a product that is 0, whatever is mapped
            some, like = next(w for (affine, _), w in weights.items() if affine == step.affine), values[self.plan.inputs[0]]
            assert like is not None
            zero = some.new_zeros((*like.shape[:2], some.shape[0]))
            total = zero if total is None else zero + total
        values[step.target] = total

    def _samples(self, name: str, lags: tuple[int, ...], values: Values, reset: Tensor | None,
                 segments: Segments | None) -> Tensor:
        """(B, T, len(lags) * size): the samples of a sequence at some lags side by side, edges included."""
        source = values[name]
        assert source is not None
        if lags == (0,):
            return source
        edges: dict[int, Window] = {}
        for side in (-1, 1):
            if any(side * lag > 0 for lag in lags):
                key = self.keys[name, side]
                start, edge = (self._window(key, values.get(f"{key}.{end}"), source, segments) for end in ("start", "edge"))
                edges[side] = start, edge
        if segments is not None:
            return segments.windowed(source, lags, edges, fill_of(source))
        return windowed(source, lags, edges, reset, fill_of(source))

    def _sequence(self, name: str, values: Mapping[str, Any]) -> Any:
        """A sequence that may be a part of a pair."""
        if name in values or name not in self.pairs:
            return values[name]
        tensor, part = self.pairs[name]
        return values[tensor][..., part]

    def _window(self, key: str, given: Tensor | None, source: Tensor, segments: Segments | None) -> Tensor | None:
        """An edge as a tensor, in the dtype of the sequence that a dense map reads; None where it is zero."""
        sequence = self.sequences.get(key)
        if given is not None or sequence is None or sequence.init == 0:
            return given if given is None or source.dtype not in NARROW else given.to(source.dtype)
        return _constant(source, sequence, segments)

    def _ragged(self, op: Op, values: Values, segments: Segments, channels: int) -> Op:
        """The op for packed segments; the edges that it reads as sequences are put among the values."""
        given = [e for e in op.program.edges if values.get(f"{key_of(e)}.start") is not None]
        keys, narrow = tuple(sorted(map(key_of, given))), any(v is not None and v.dtype in NARROW for v in values.values())
        _make_ragged(op.name, narrow, *keys)
        ragged = op.ragged[narrow, keys]
        for e in given:
            for k in range(1, e.depth + 1):
                name, start = given_name(key_of(e), k), values[f"{key_of(e)}.start"]
                if name in ragged.arguments and start is not None:
                    beyond = segments.beyond(start, e.side, k)
                    values[name] = beyond if e.base in op.program.wide else _spread(beyond, channels)
        return ragged

    def not_first(self, windows: Mapping[str, Window], like: Tensor, channels: int) -> dict[str, Window]:
        """The edges of `lr.first` where those of a state are given: then no step is the first."""
        given = next((start for key, (start, _) in windows.items() if start is not None and self.sequences[key].state), None)
        if given is None:
            return {}
        zero = (like.real if like.is_complex() else like).new_zeros((1, 1, 1)).expand(given.shape[0], 1, channels)
        return {d.name: (zero, zero) for d in self.spec.of("first")}

    def returned(self, outputs: Sequence[Tensor]) -> Any:
        """Outputs as the cell returns them: one tensor, a tuple, or a dict."""
        if self.spec.named:
            return {name: o for (name, _), o in zip(self.spec.outputs, outputs, strict=True)}
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def outputs(self, values: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """What the cell returns, (B, T, channels) each."""
        return tuple(values[base] for _, base in self.plan.outputs)

    def carried(self, values: Mapping[str, Any], windows: Mapping[str, Window], reset: Tensor | None,
                inputs: bool = True, segments: Segments | None = None) -> dict[str, Window]:
        """(final window, edge) of every sequence that is read at a lag: what a Carry holds, or without inputs h_n."""
        found: dict[str, Window] = {}
        for key, s in self.sequences.items():
            start, edge = windows.get(key, NONE)
            if not inputs and (not s.state or s.ahead):
                continue
            if s.name not in self.held and segments is None:
                final = values[f"{s.name}.final"]
                found[key] = _outward(final, s.size) if s.size else final, edge
                continue
            full = carried_name(s.name)
            sequence, reverse = self._sequence(full if full in values else s.name, values), s.side > 0
            default, given = _constant(sequence, s, segments), _inward(start) if s.size else start
            start = default if given is None else given
            if s.ahead:
                found[key] = start, edge
            elif segments is not None:
                last = segments.last(sequence, start, reverse)
                found[key] = _outward(last, s.size) if s.size else last, edge
            else:
                found[key] = last_window(sequence, start, default if edge is None else edge, reset, reverse), edge
        return found

    def check_chunks(self) -> None:
        """Raise CellError where states run both ways, so that there is no Carry."""
        if self.plan.both_ways:
            raise CellError(f"{self.spec.name} runs both ways ({self.plan.both_ways}), so that no order of chunks fits both",
                            self.spec.where, "give it the whole sequence, without a Carry or return_state")

    def __reduce__(self) -> Any:
        return pipeline_of, (self.spec,)

    def __deepcopy__(self, memo: Any) -> Pipeline:
        return self


@functools.cache
def pipeline_of(spec: Spec) -> Pipeline:
    """The Pipeline of a cell, made once."""
    from .planar import Planar  # which is made of Pipelines
    return Planar(spec) if spec.complex else Pipeline(spec)


@constant
def _make_ragged(name: str, narrow: bool, *given: str) -> bool:
    """Make the op for packed segments of the op of that name, unless it is there."""
    op, key = named(name), (narrow, given)
    if key not in op.ragged:
        op.ragged[key] = op_of(ragged_of(op.program, frozenset(given), narrow)).ready()
    return True


def _constant(sequence: Tensor, lagged: Lagged, segments: Segments | None) -> Tensor:
    """The edge that is not given: (B, k, size)."""
    B, size = sequence.shape[0] if segments is None else segments.n, sequence.shape[2]
    return sequence.new_full((1, 1, size), lagged.init or fill_of(sequence)).expand(B, lagged.depth, size)


def _inward(window: Tensor | None) -> Tensor | None:
    """(B, k, H, N) as a Program has it: (B, k, N * H)."""
    return None if window is None else window.mT.flatten(2)


def _outward(window: Tensor, size: int) -> Tensor:
    """Back again."""
    return window.unflatten(2, (size, window.shape[2] // size)).mT


def _channels(program: Program, given: Set[str]) -> frozenset[str]:
    """Which of the tensors that are given to it have channels, so that one may stand for all."""
    return frozenset(s.name for s in slots(program) if s.name in given and s.channels)


def _spread(value: Tensor | None, channels: int) -> Tensor | None:
    """One channel stands for all."""
    if value is not None and value.dim() == 4:  # of pairs
        return value if value.shape[2] == channels else value.expand(-1, -1, channels, -1)
    return value if value is None or value.shape[-1] == channels else value.expand(*value.shape[:-1], channels)
