"""Gradients and tangents of an op, from those of its Program's adjoint and tangent Programs.

All of it is differentiable torch and calls of further ops, so that every order of derivative exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..ir.program import Program
from ..passes.adjoint import Adjoint, Piece
from ..passes.tangent import Tangent
from .pieces import assemble

Maybe = Tensor | None
Call = Callable[..., tuple[Tensor, ...]]


class Backward:
    """Pulls gradients of a Program's outputs back to its inputs, through `op`, the op of `adjoint.program`.

    needs: the inputs and outputs that a call is given, by what they are and their position; those that it reads unless the
    caller keeps more.
    """

    def __init__(self, program: Program, adjoint: Adjoint, op: Call, needs: tuple[tuple[str, int], ...] | None = None) -> None:
        self.program, self.adjoint, self.op = program, adjoint, op
        place = {"input": {n: i for i, n in enumerate(program.inputs)}}
        place["output"] = place["gradient"] = {n: i for i, n in enumerate(program.outputs)}
        takes = [(str(o.what), place[o.what][o.name], o.flip, o.nearest) for o in adjoint.takes]
        self.needs = tuple(sorted({(what, i) for what, i, *_ in takes if what != "gradient"})) if needs is None else needs
        self._needed = tuple((what == "input", i) for what, i in self.needs)
        # Whether it is a gradient, which one or which of the values, how it is turned.
        self.takes = tuple((what == "gradient", i if what == "gradient" else self.needs.index((what, i)), flip, nearest)
                           for what, i, flip, nearest in takes)
        depth = {n: e.depth for e in program.edges for n in (e.start, e.edge) if n}
        gives = dict(adjoint.gives)
        self.gives = tuple((gives.get(n, ()), depth.get(n, 0)) for n in program.inputs)
        self.columns = {k.name: len(k.samples) for k in adjoint.program.keeps}
        self.outputs = adjoint.program.outputs
        windows = {n for e in adjoint.program.edges for n in (e.final, e.crossing)}
        self.windows = tuple(i for i, (pieces, _) in enumerate(self.gives) if windows & {p.name for p in pieces})
        # The outputs that are a gradient as they are; a gradient that is put together has its pieces.
        self.ready = tuple(self.outputs.index(p[0].name) if len(p) == 1 and p[0] == Piece(p[0].name) and
                           p[0].name in self.outputs else None for p, _ in self.gives)

    def needed(self, inputs: Sequence[Maybe], outputs: Sequence[Maybe]) -> list[Maybe]:
        """What `needs` names."""
        return [inputs[i] if given else outputs[i] for given, i in self._needed]

    def __call__(self, values: Sequence[Maybe], gradients: Sequence[Maybe], reset: Maybe, wanted: Sequence[bool],
                 sizes: tuple[int, int, int], dtypes: Sequence[torch.dtype]) -> list[Maybe]:
        """The gradient of each input, None where it is zero or not wanted. values: what `needs` names; sizes: B, T, C; dtypes:
        of the outputs."""
        args: list[Maybe] = []
        for gradient, i, flip, nearest in self.takes:
            tensor = gradients[i] if gradient else values[i]
            if tensor is None and gradient:
                like = next(t for t in (*gradients, *values) if t is not None)
                tensor = self._zeros(like, i, sizes, dtypes)
            if tensor is not None and (flip or nearest):
                tensor = tensor.flip(1) if flip else tensor[:, nearest - 1:nearest]
            args.append(tensor)
        windows = any([wanted[i] for i in self.windows])  # noqa: C419, a generator takes longer
        outputs, got = self.op(*args, reset, windows=windows), None
        found: list[Maybe] = []
        for want, ready, (pieces, depth) in zip(wanted, self.ready, self.gives, strict=True):
            if not want or not pieces:
                found.append(None)
            elif ready is not None:
                found.append(outputs[ready])
            else:
                got = got or dict(zip(self.outputs, outputs, strict=windows))
                found.append(assemble(pieces, got, self.columns, reset, depth))
        return found

    def _zeros(self, like: Tensor, i: int, sizes: tuple[int, int, int], dtypes: Sequence[torch.dtype]) -> Maybe:
        """The gradient of output `i` where it is zero: None for a window."""
        keeps, sums, wide, N = self.program.keeps, self.program.sums, self.program.wide, self.program.axis
        B, T, C = sizes
        if i < len(keeps):
            k = keeps[i]
            if k.paired:
                return like.new_zeros((C, 2), dtype=dtypes[i]).expand(B, T, C, 2)
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
