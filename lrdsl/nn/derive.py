"""Gradients and tangents of an op, from those of its Program's adjoint and tangent Programs.

All of it is differentiable torch and calls of further ops, so that every order of derivative exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..ir.program import Program
from ..passes.adjoint import Adjoint
from ..passes.tangent import Tangent
from .pieces import assemble

Maybe = Tensor | None
Call = Callable[..., tuple[Tensor, ...]]


class Backward:
    """Pulls gradients of a Program's outputs back to its inputs, through `op`, the op of `adjoint.program`.

    needs: the inputs and outputs that it reads, by what they are and their position.
    """

    def __init__(self, program: Program, adjoint: Adjoint, op: Call) -> None:
        self.program, self.adjoint, self.op = program, adjoint, op
        place = {"input": {n: i for i, n in enumerate(program.inputs)}}
        place["output"] = place["gradient"] = {n: i for i, n in enumerate(program.outputs)}
        self.takes = tuple((str(o.what), place[o.what][o.name], o.flip, o.nearest) for o in adjoint.takes)
        self.needs = tuple(sorted({(what, i) for what, i, *_ in self.takes if what != "gradient"}))
        depth = {n: e.depth for e in program.edges for n in (e.start, e.edge) if n}
        gives = dict(adjoint.gives)
        self.gives = tuple((gives.get(n, ()), depth.get(n, 0)) for n in program.inputs)
        self.columns = {k.name: len(k.samples) for k in adjoint.program.keeps}

    def __call__(self, values: Mapping[tuple[str, int], Maybe], gradients: Sequence[Maybe], reset: Maybe,
                 wanted: Sequence[bool], sizes: tuple[int, int, int], dtypes: Sequence[torch.dtype]) -> list[Maybe]:
        """The gradient of each input, None where it is zero or not wanted. values: what `needs` names; sizes: B, T, C; dtypes:
        of the outputs."""
        known = next(t for t in (*gradients, *values.values()) if t is not None)
        args: list[Maybe] = []
        for what, i, flip, nearest in self.takes:
            tensor = gradients[i] if what == "gradient" else values[what, i]
            if tensor is None and what == "gradient":
                tensor = self._zeros(known, i, sizes, dtypes)
            if tensor is not None:
                tensor = tensor.flip(1) if flip else tensor[:, nearest - 1:nearest] if nearest else tensor
            args.append(tensor)
        got = dict(zip(self.adjoint.program.outputs, self.op(*args, reset), strict=True))
        return [assemble(pieces, got, self.columns, reset, depth) if want and pieces else None
                for want, (pieces, depth) in zip(wanted, self.gives, strict=True)]

    def _zeros(self, like: Tensor, i: int, sizes: tuple[int, int, int], dtypes: Sequence[torch.dtype]) -> Maybe:
        """The gradient of output `i` where it is zero: None for a window."""
        keeps, sums, wide, N = self.program.keeps, self.program.sums, self.program.wide, self.program.axis
        B, T, C = sizes
        if i < len(keeps):
            k = keeps[i]
            width = len(k.samples) * (1 if k.over else C) * (N if k.samples[0] in wide else 1)
            return like.new_zeros((width,), dtype=dtypes[i]).expand(B, T, width)
        if i < len(keeps) + len(sums):
            s = sums[i - len(keeps)]
            numbers = (N,) if s.sample in wide else ()
            return like.new_zeros((C * (N if numbers else 1),) if s.over == "time" else numbers, dtype=dtypes[i])
        return None


class Forward:
    """Pushes tangents of a Program's inputs to its outputs, through `op`, the op of the tangent Program if there is one."""

    def __init__(self, program: Program, tangent: Tangent, op: Call | None) -> None:
        self.tangent, self.op = tangent, op
        place = {n: i for i, n in enumerate(program.inputs)}
        self.takes = tuple((what, place[n]) for what, n in tangent.takes)

    def __call__(self, inputs: Sequence[Maybe], tangents: Sequence[Maybe], reset: Maybe,
                 outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tangent of each output. An edge that is a constant has none."""
        args: list[Maybe] = []
        for what, i in self.takes:
            tensor, value = (tangents[i] if what == "tangent" else inputs[i]), inputs[i]
            args.append(torch.zeros_like(value) if tensor is None and value is not None else tensor)
        got: dict[str, Tensor] = {}
        if self.op is not None:
            got = dict(zip(self.tangent.program.outputs, self.op(*args, reset), strict=True))
        return tuple(got[n].to(o.dtype) if n else torch.zeros_like(o) for n, o in zip(self.tangent.gives, outputs, strict=True))
