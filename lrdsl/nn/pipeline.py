"""A Plan on tensors: dense maps by torch, Programs by their ops, edges carried to where they are read."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compiler import plan_of
from ..ir.plan import Block, Dense, Plan
from ..ir.plan import Sequence as Lagged
from ..ir.program import Program
from ..ir.source import slots
from ..ir.spec import Spec
from .carry import NONE, Window, last_window
from .ops import Op, op_of
from .windows import time_first, windowed

Weights = Mapping[tuple[str, int], Tensor]
Products = tuple[tuple[str, int, tuple[Block, ...]], ...]


class Pipeline:
    """A cell that is ready to run. Raises NotLinear (and the like) when it is made."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.plan: Plan = plan_of(spec)
        self.reverse = self.plan.reverse
        self.sequences = {self._key(s.name, s.side): s for s in self.plan.sequences}
        self.looks_ahead = tuple(s.name for key, s in self.sequences.items() if key.endswith(".ahead"))
        inputs = set(self.plan.inputs)
        given = inputs | {f"{k}.{e}" for k, s in self.sequences.items() if s.name in inputs for e in ("start", "edge")}
        self.steps: tuple[tuple[Dense, Products] | tuple[Op, frozenset[str]], ...] = tuple(
            (s, self._products(s)) if isinstance(s, Dense)
            else (op_of(s.program).ready(), _channels(s.program, given)) for s in self.plan.steps)
        read = {b.name: b.shape for p in self.plan.programs for b in p.buffers}
        self.channelwise = tuple(n for n in self.plan.inputs if read.get(n, "axis") != "axis")
        self.widened = frozenset(v.name for p in self.plan.programs for v in p.vectors if v.shape == "channel and axis")
        self.size = spec.axis

    def _key(self, sequence: str, side: int) -> str:
        """The name of its edges in the Programs: `h`, or `x.ahead` for a side that the run reaches later."""
        return sequence + (".ahead" if (side > 0) != self.reverse else "")

    def _products(self, dense: Dense) -> Products:
        """(key of the source, depth, blocks) of the products that are read at a lag."""
        depth: dict[tuple[str, str], int] = {}
        for program in self.plan.programs:
            for e in program.edges:
                depth[e.base, ".ahead" if (e.side > 0) != self.reverse else ""] = e.depth
        found = []
        for side in ("", ".ahead"):
            for k in sorted({depth[b.target, side] for b in dense.blocks if (b.target, side) in depth}):
                found.append((dense.source + side, k, tuple(b for b in dense.blocks if depth.get((b.target, side)) == k)))
        return tuple(found)

    def __call__(self, inputs: Mapping[str, Tensor], learned: Mapping[str, Tensor], weights: Weights,
                 windows: Mapping[str, Window], reset: Tensor | None, channels: int) -> dict[str, Tensor | None]:
        """Every tensor of the run by its name in the plan; `h.final` is the final window of h.

        inputs (B, T, size), learned: vectors and biases, weights: (affine, operand) -> (H, size), windows (B, k, size), reset
        (B, T) bool. What has a state axis of N is (H, N), the window of such a state (B, k, H, N).
        """
        values: dict[str, Tensor | None] = {**inputs, **learned}
        values |= {n: learned[n].mT.flatten() for n in self.widened}
        for key, (start, edge) in windows.items():
            wide = self.sequences[key].size
            values[f"{key}.start"] = _inward(start) if wide else start
            values[f"{key}.edge"] = None if reset is None else _inward(edge) if wide else edge
        for step, extra in self.steps:
            if isinstance(step, Op):
                args = [_spread(values.get(n), channels) if n in extra else values.get(n) for n in step.arguments[:-1]]
                values.update(zip(step.outputs, step(*args, reset), strict=True))
            else:
                self._dense(step, extra, weights, values, reset)  # type: ignore[arg-type]
        return values

    def _dense(self, dense: Dense, products: Products, weights: Weights, values: dict[str, Tensor | None],
               reset: Tensor | None) -> None:
        source = values[dense.source]
        assert source is not None
        if dense.windowed:
            source = windowed(source, dense.lags, self._edges(dense, source, values), reset)
        pieces = _product(source, weights, [blocks for _, blocks in dense.outputs])
        values.update(zip((name for name, _ in dense.outputs), pieces, strict=True))
        for key, depth, blocks in products:
            last: Sequence[Any] = (None, ())
            for end in ("start", "edge"):
                window = self._window(key, values.get(f"{key}.{end}"), source)
                if window is None:
                    continue
                if last[0] is not window:
                    last = window, _product(window[:, :depth], weights, [(b,) for b in blocks])
                ahead = ".ahead" if key.endswith(".ahead") else ""
                values.update(zip((f"{b.target}{ahead}.{end}" for b in blocks), last[1], strict=True))

    def _edges(self, dense: Dense, source: Tensor, values: Mapping[str, Tensor | None]) -> dict[int, Window]:
        """(start, edge) of a window's source on each side that it is read on."""
        keys = {side: self._key(dense.source, side) for side in (-1, 1) if any(side * lag > 0 for lag in dense.lags)}
        ends = {key: [self._window(key, values.get(f"{key}.{end}"), source) for end in ("start", "edge")]
                for key in keys.values()}
        return {side: (ends[key][0], ends[key][1]) for side, key in keys.items()}

    def _window(self, key: str, given: Tensor | None, source: Tensor) -> Tensor | None:
        """An edge as a tensor; None where it is zero."""
        sequence = self.sequences.get(key)
        if given is not None or sequence is None or sequence.init == 0:
            return given
        return _constant(source, sequence)

    def returned(self, outputs: Sequence[Tensor]) -> Any:
        """Outputs as the cell returns them: one tensor, a tuple, or a dict."""
        if self.spec.named:
            return {name: o for (name, _), o in zip(self.spec.outputs, outputs, strict=True)}
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def outputs(self, values: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """What the cell returns, (B, T, channels) each."""
        return tuple(values[base] for _, base in self.plan.outputs)

    def carried(self, values: Mapping[str, Any], windows: Mapping[str, Window], reset: Tensor | None,
                inputs: bool = True) -> dict[str, Window]:
        """(final window, edge) of every sequence that is read at a lag: what a Carry holds; without inputs, of states only."""
        found: dict[str, Window] = {}
        for key, s in self.sequences.items():
            start, edge = windows.get(key, NONE)
            if s.name not in self.plan.inputs:
                final = values[f"{s.name}.final"]
                found[key] = final.unflatten(2, (s.size, final.shape[2] // s.size)).mT if s.size else final, edge
            elif not inputs:
                continue
            elif key.endswith(".ahead"):
                found[key] = _constant(values[s.name], s) if start is None else start, edge
            else:
                sequence = values[s.name]
                default = _constant(sequence, s)
                found[key] = last_window(sequence, default if start is None else start, default if edge is None else edge,
                                         reset, self.reverse), edge
        return found

    def __reduce__(self) -> Any:
        return pipeline_of, (self.spec,)

    def __deepcopy__(self, memo: Any) -> Pipeline:
        return self


@functools.cache
def pipeline_of(spec: Spec) -> Pipeline:
    """The Pipeline of a cell, made once."""
    return Pipeline(spec)


def _constant(sequence: Tensor, lagged: Lagged) -> Tensor:
    """The edge that is not given: (B, k, size)."""
    size = sequence.shape[2]
    return sequence.new_full((1, 1, size), lagged.init).expand(sequence.shape[0], lagged.depth, size)


def _inward(window: Tensor | None) -> Tensor | None:
    """(B, k, H, N) as a Program has it: (B, k, N * H)."""
    return None if window is None else window.mT.flatten(2)


def _channels(program: Program, given: Set[str]) -> frozenset[str]:
    """Which of the tensors that are given to it have channels, so that one may stand for all."""
    return frozenset(s.name for s in slots(program) if s.name in given and s.channels)


def _spread(value: Tensor | None, channels: int) -> Tensor | None:
    """One channel stands for all."""
    return value if value is None or value.shape[-1] == channels else value.expand(*value.shape[:-1], channels)


def _rows(weights: Weights, blocks: Sequence[Block]) -> Tensor:
    """(len(blocks) * H, len(lags) * size) of the blocks' slices."""
    return _cat([_cat([weights[b.affine, k] for k in b.operands], 1) for b in blocks], 0)


def _cat(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _product(sequence: Tensor, weights: Weights, buffers: Sequence[Sequence[Block]]) -> tuple[Tensor, ...]:
    """One matrix product, in the memory order of the sequence, cut into buffers of these blocks each."""
    weight = _rows(weights, [b for blocks in buffers for b in blocks])
    if time_first(sequence):
        product = F.linear(sequence.transpose(0, 1), weight).transpose(0, 1)
    else:
        product = F.linear(sequence, weight)
    if len(buffers) == 1:
        return (product,)
    return product.split_with_sizes([sum(weights[b.affine, b.operands[0]].shape[0] for b in blocks) for blocks in buffers], 2)
