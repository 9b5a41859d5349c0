"""A layer in pieces of time: what lies between their borders is computed again in the backward pass.

At a border stands what a Carry holds, so that the pieces are the whole. torch.utils.checkpoint forgets a piece and runs it
again; here is only the cutting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import BadDeclaration, CellError, NotBuilt
from .carry import NONE, Window
from .parameters import Layer
from .pipeline import Pipeline
from .products import Weights
from .segments import Segments
from .windows import joined, time_first

Given = Mapping[str, Window]
Done = tuple[tuple[Tensor, ...], dict[str, Window]]  # outputs, and what is left for the next call
Learned = tuple[Mapping[str, Tensor], Weights]


def run(layer: Layer, tree: nn.Module, inputs: Mapping[str, Tensor], given: Given, rows: int, reset: Tensor | None,
        inputs_too: bool, segments: Segments | None) -> Done:
    """A layer in one direction on a whole sequence. inputs: (B, T, size); given: (start, edge) of sequences; rows: how many
    edges each has; inputs_too: whether edges of inputs are left, too."""
    learned = layer.numbers(tree), layer.weights(tree)
    return _run(layer, learned, inputs, layer.windows(tree, rows, given), given, reset, inputs_too, segments)


def _run(layer: Layer, learned: Learned, inputs: Mapping[str, Tensor], windows: Given, given: Given, reset: Tensor | None,
         inputs_too: bool, segments: Segments | None) -> Done:
    pipeline = layer.pipeline
    values = pipeline(inputs, *learned, windows, reset, layer.hidden, segments)
    edges = {key: (start, given.get(key, NONE)[1]) for key, (start, _) in windows.items()}
    return pipeline.outputs(values), pipeline.carried(values, edges, reset, inputs_too, segments)


def run_in_pieces(steps: int, layer: Layer, tree: nn.Module, inputs: Mapping[str, Tensor], given: Given, rows: int,
                  reset: Tensor | None, inputs_too: bool, segments: Segments | None) -> Done:
    """`run`, in pieces of so many steps where a gradient is wanted. Raises NotBuilt for packed segments."""
    if segments is not None:
        raise NotBuilt("checkpoint= cuts the time of a batch, and this call has packed segments", layer.pipeline.spec.where,
                       "pad the sequences, or make a layer without checkpoint=")
    first, reverse = inputs[layer.pipeline.plan.inputs[0]], layer.pipeline.reverse
    learned = layer.numbers(tree), layer.weights(tree)
    tensors = [*inputs.values(), *learned[0].values(), *learned[1].values(), *tree.parameters(),
               *(t for window in given.values() for t in window if t is not None)]
    if first.shape[1] <= steps or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() \
            or not torch.is_grad_enabled() or not any(t.requires_grad for t in tensors):
        return run(layer, tree, inputs, given, rows, reset, inputs_too, segments)
    pieces = list(_pieces(inputs, reset, steps))
    found: list[tuple[Tensor, ...]] = []
    for part, boundaries in reversed(pieces) if reverse else pieces:
        # Parameters are read here: when a piece is run again, torch.func.functional_call may have put others in their place.
        windows, more = layer.windows(tree, rows, given), inputs_too or len(found) < len(pieces) - 1
        outputs, given = checkpoint(_run, layer, learned, part, windows, given, boundaries, more, None, use_reentrant=False,
                                    preserve_rng_state=False)
        found.append(outputs)
    whole = zip(*(reversed(found) if reverse else found), strict=True)
    return tuple(joined(parts, 1, time_first(first)) for parts in whole), dict(given)


def _pieces(inputs: Mapping[str, Tensor], reset: Tensor | None, steps: int) -> Iterator[tuple[dict[str, Tensor], Any]]:
    """By split, whose gradient is one concatenation: those of slices would be as long as the whole, each."""
    parts = {name: value.split(steps, 1) for name, value in inputs.items()}
    for k in range(len(next(iter(parts.values())))):
        yield {name: cut[k] for name, cut in parts.items()}, None if reset is None else reset[:, k * steps:(k + 1) * steps]


def check(steps: Any, pipelines: list[Pipeline]) -> None:
    """Raise BadDeclaration, CellError and NotBuilt for what cannot be cut."""
    if not isinstance(steps, int) or isinstance(steps, bool) or steps <= 0:
        raise BadDeclaration(f"checkpoint is a positive number of steps, not {steps!r}")
    for pipeline in pipelines:
        name, where = pipeline.spec.name, pipeline.spec.where
        if both := pipeline.plan.both_ways:
            raise CellError(f"{name} runs both ways ({both}), so that no order of pieces fits both", where,
                            "leave checkpoint= out")
        if pipeline.looks_ahead:
            raise NotBuilt(f"checkpoint= cuts {name}, which reads {pipeline.looks_ahead[0]} beyond the end of a piece", where,
                           "leave checkpoint= out, or give the cell that input once more, moved")
