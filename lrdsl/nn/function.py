"""A cell without dense maps as a differentiable torch function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..cells import linear_scan as _linear_scan
from ..cells import linear_scan_reverse as _linear_scan_reverse
from ..compiler import solved
from ..errors import CellError, DtypeMismatch, NotBuilt, ShapeMismatch, UnknownName
from ..frontend.cell import Cell
from ..ir.solver import Newton
from .arguments import edge_of, numbers_of, reset_of, tensor_of
from .carry import Carry, Window
from .dtypes import autocasts, widened
from .layout import Layout
from .newton import JOURNAL, SolverReport
from .parameters import beside
from .pipeline import pipeline_of
from .planar import dtype_of
from .prepared import Signature, plain, remember, signature, unwatched
from .segments import Segments, segments_of

Init = Carry | Mapping[str, Tensor | complex] | None


class CellFunction:
    """A cell as a function of tensors, in the order of its signature without the states; made by `lr.function`.

    Inputs: time at `dim`, features last, all other dimensions batch; one channel (or a batch of one) stands for all.
    Vectors: (channels,) or a number; Scalars: () or a number. With a state axis of N: Input(axis=N) has N features,
    Vector(size=N) (channels, N), the edge of a State(size=N) N more at the end. Gives the outputs in the layout of the inputs:
    a tensor, or a tuple or dict as the cell returns it. What the cell declares complex may be complex, in the same precision,
    or real.

    init: by name, the edge of a state or an input: a number or a tensor that broadcasts to (batch…, channels), with the k
    values nearest first at the end where the cell reads k > 1 steps back. Where a sequence is read on both sides, `h` is the
    edge on the side that its run comes from (an input has the run of the first state), and `h.ahead` that on the other. Or a
    Carry. reset: bool, the inputs' shape without features: a boundary between t-1 and t. cu_seqlens: int32 or int64 (n + 1,),
    from 0 to T: the borders of n segments that lie one after another in a batch of 1; each has its own edges, so that
    (n, channels) stands for (batch…, channels) in `init`. return_state: also give a Carry, (outputs, carry); a cell whose
    states run both ways has none. training: whether masks are drawn or all 1, as in F.dropout.
    Inputs are read where they lie, whatever their strides, if the channels of a sample are next to each other, and the batch
    is one dimension, or can be seen as one; otherwise they are copied first.

    dtypes: float32, float64, bfloat16 or float16, one for all inputs and outputs. With 16 bits the states are float32, in the
    Carry too; initial values and learned numbers may be. An autocast region rounds nothing: inputs of several dtypes become
    float32.
    Raises ShapeMismatch, DtypeMismatch, UnknownName, NotBuilt, CellError.
    """

    def __init__(self, cell: Cell, dim: int = 1, solver: str | Newton | None = None) -> None:
        cell = solved(cell, solver)
        spec = cell.spec
        if maps := spec.names("affine"):
            raise CellError(f"{spec.name} has dense maps ({', '.join(maps)}), and a function has no weights", spec.where,
                            f"make a module: lr.RNN({spec.name}, input_size, hidden_size)")
        self.cell, self.dim = cell, dim
        self.pipeline = pipeline_of(spec)
        self._solved: tuple[SolverReport, ...] | None = ()
        self.arguments = tuple(d for d in spec.declared if d.kind in ("input", "vector", "scalar"))
        self._alone = self.pipeline.alone
        self._unchanged: dict[tuple[int, Signature], bool] = {}  # calls whose tensors are read as they were given
        self.__name__, self.__doc__ = spec.name, spec.doc or type(self).__doc__

    def __call__(self, *tensors: Tensor | complex, init: Init = None, return_state: bool = False,
                 reset: Tensor | None = None, cu_seqlens: Tensor | None = None, training: bool = True, cp: Any = None,
                 **named: Tensor | complex) -> Any:
        """The outputs; see the class."""
        if cp is not None:
            raise NotBuilt(f"{self}: cp= (context parallelism) is part of the language but not built yet", None,
                           "run the whole sequence on one device")
        return self.at(self.dim, self._bind(tensors, named), init, return_state, reset, cu_seqlens, training)

    def at(self, dim: int, given: Mapping[str, Tensor | complex], init: Init = None, return_state: bool = False,
           reset: Tensor | None = None, cu_seqlens: Tensor | None = None, training: bool = True) -> Any:
        """A call with time at `dim` and all arguments by name."""
        compiling = torch.compiler.is_compiling()
        bare = not (return_state or compiling) and init is None and reset is None and cu_seqlens is None
        key: tuple[int, Signature] | None = None
        if self._alone and bare and unwatched():
            op, order, picks = self._alone
            args: Any = [None if n is None else given[n] for n in order]
            try:
                key = dim, signature(args)
            except (AttributeError, RuntimeError):  # a number, or a tensor without strides
                key = None
            if key and key in self._unchanged and (known := op.known(key[1], args, windows=False)):
                return self.pipeline.returned([known[k] for k in picks])
        if return_state or isinstance(init, Carry):
            self.pipeline.check_chunks()
        inputs, layout, channels = self._inputs(given, dim)
        like = next(iter(inputs.values()))
        learned = {d.name: numbers_of(self.cell.spec, d, given[d.name], like, channels)
                   for d in self.arguments if d.kind != "input"}
        segments = None if cu_seqlens is None else self._segments(cu_seqlens, reset, layout, like)
        windows = self._windows(init, layout if segments is None else Layout(0, (segments.n,), layout.T), like, channels)
        flags = None if reset is None else self._flags(reset, layout, like)
        if key and plain(key[1]) and layout.plain and all(v is given[n] for n, v in (inputs | learned).items()):
            remember(self._unchanged, key, True)
        inputs |= beside(self.cell.spec, like, like, channels, training)
        told = JOURNAL.total if self.pipeline.solved and not compiling else 0
        values = self.pipeline(inputs, learned, {}, windows, flags, channels, segments)
        if self.pipeline.solved:
            self._solved = None if compiling else JOURNAL.since(told)
        result = self.pipeline.returned([layout.outward(o) for o in self.pipeline.outputs(values)])
        if not return_state:
            return result
        after = self.pipeline.carried(values, windows, flags, segments=segments)
        return result, Carry({k: w for k, (w, _) in after.items() if w is not None},
                             {k: e for k, (_, e) in after.items() if e is not None})

    def solver_report(self) -> tuple[SolverReport, ...]:
        """What Newton's method did in the last call, as `RNN.solver_report` tells it of one layer."""
        return JOURNAL.latest(self.pipeline.solved) if self._solved is None else self._solved

    def _bind(self, tensors: Sequence[Tensor | complex], named: Mapping[str, Tensor | complex]) -> dict[str, Tensor | complex]:
        names = [d.name for d in self.arguments]
        given = dict(zip(names, tensors, strict=False)) | dict(named)
        if unknown := [n for n in named if n not in names]:
            raise UnknownName(f"{self} has no argument {', '.join(unknown)}", self.cell.spec.where,
                              f"its arguments are {', '.join(names)}")
        if len(tensors) > len(names) or len(given) != len(names):
            raise CellError(f"{self} takes {len(names)} arguments ({', '.join(names)}), {len(tensors) + len(named)} were "
                            "given", self.cell.spec.where, "initial values go into init={…}")
        return given

    def _inputs(self, given: Mapping[str, Any], dim: int) -> tuple[dict[str, Tensor], Layout, int]:
        """(B, T, channels) of each Input, the layout they share, and the number of channels."""
        found = {d.name: tensor_of(self.cell.spec, d, given[d.name]) for d in self.arguments if d.kind == "input"}
        if len({x.dtype for x in found.values()}) > 1 and autocasts(next(iter(found.values()))):
            found = {n: widened(x) for n, x in found.items()}
        shape = self._common(found, dim)
        layout = Layout.of(shape, dim % len(shape))
        wanted = {n: (*shape[:-1], self.cell.spec[n].option("axis", shape[-1])) for n in found}
        found = {n: x if x.shape == wanted[n] else x.expand(wanted[n]) for n, x in found.items()}
        return {n: layout.inward(x) for n, x in found.items()}, layout, shape[-1]

    def _common(self, found: Mapping[str, Tensor], dim: int) -> torch.Size:
        """The shape that the inputs share; what they have along the state axis is no part of it."""
        spec = self.cell.spec
        (first, x), *others = sorted(found.items(), key=lambda item: item[0] in spec.sized)
        n = x.dim()
        if n < 2 or not -n <= dim < n or dim % n == n - 1:
            raise ShapeMismatch(f"{first} of {self} has shape {tuple(x.shape)}: no time at dimension {dim} with features "
                                "behind it", spec[first].where, "time stands at `dim`, features last: lr.function(cell, dim=…)")
        shape = list(x.shape)
        for name, y in others:
            if name in spec.sized and y.dim() == n:
                if y.shape[-1] != spec.axis:
                    raise ShapeMismatch(f"{name} of {self} has shape {tuple(y.shape)}: {y.shape[-1]} numbers a step, not "
                                        f"{spec.axis}", spec[name].where)
                y = y[..., :1]
            if y.dim() != n or y.shape[dim] != x.shape[dim] or any(
                    a != b and a != 1 and b != 1 for a, b in zip(y.shape, shape, strict=True)):
                raise ShapeMismatch(f"{name} of {self} has shape {tuple(y.shape)}, {first} {tuple(x.shape)}", spec[name].where,
                                    "time must agree, batch and channels must agree or be 1")
            if dtype_of(y.dtype, False) != dtype_of(x.dtype, False) or y.device != x.device:
                raise DtypeMismatch(f"{name} of {self} is {y.dtype} on {y.device}, {first} {x.dtype} on {x.device}",
                                    spec[name].where, f"give {name}.to({first})")
            shape = [b if a == 1 else a for a, b in zip(shape, y.shape, strict=True)]
        return torch.Size(shape)

    def _windows(self, init: Init, layout: Layout, like: Tensor, channels: int) -> dict[str, Window]:
        sequences = self.pipeline.sequences
        if isinstance(init, Carry):
            found = init.windows({key: key for key in sequences}, str(self))
            for key, (start, _) in found.items():
                if start is not None and start.shape[0] != layout.B:
                    raise ShapeMismatch(f"the Carry holds {start.shape[0]} sequences ({key}), the inputs of {self} {layout.B}")
            return found
        windows: dict[str, Window] = {}
        for name, value in (init or {}).items():
            key = name if name in sequences else f"{name}.ahead"
            if key not in sequences:
                raise UnknownName(f"{self} reads no {name} at a lag, so that it has no initial value", self.cell.spec.where,
                                  f"init may name {', '.join(sequences) or 'nothing'}")
            lagged = sequences[key]
            shared = self.cell.spec[lagged.name].option("axis") if lagged.name in self.pipeline.plan.inputs else None
            window = edge_of(self.cell.spec, name, value, layout, like, shared or channels, lagged.depth, lagged.size)
            windows[key] = window, window
        return windows | self.pipeline.not_first(windows, like, channels)

    def _segments(self, cu_seqlens: Tensor, reset: Tensor | None, layout: Layout, like: Tensor) -> Segments:
        if reset is not None:
            raise CellError(f"reset= and cu_seqlens= of {self} were given, and both say where segments begin", None,
                            "give one of them")
        if layout.B != 1:
            raise ShapeMismatch(f"cu_seqlens cuts one packed sequence, and the inputs of {self} have a batch of {layout.B}",
                                None, "put the sequences one after another in time")
        return segments_of(cu_seqlens, layout.T, like.device)

    def _flags(self, reset: Tensor, layout: Layout, like: Tensor) -> Tensor:
        shape = (*layout.batch[:layout.dim], layout.T, *layout.batch[layout.dim:])
        return layout.flags(reset_of(reset, shape, like.device))

    def __repr__(self) -> str:
        return str(self.__name__)


def function(cell: Cell, dim: int = 1, solver: str | Newton | None = None) -> CellFunction:
    """The cell as a differentiable torch function: `lr.function(gae, dim=0)(reward, value, …)`; see `CellFunction`.

    solver: "sequential", "newton" or lr.Newton(…) for recurrences that are not linear, as in `lr.RNN`. Make it once, outside of
    what torch.compile traces.
    Raises CellError for a cell with dense maps (use `lr.RNN`), NotLinear for one that is no linear recurrence without a solver.
    """
    return CellFunction(cell, dim, solver)


_SCANS = CellFunction(_linear_scan), CellFunction(_linear_scan_reverse)  # now, because torch.compile could not trace it


def linear_scan(a: Tensor, b: Tensor, h0: Tensor | float | None = None, *, reverse: bool = False, dim: int = 1) -> Tensor:
    """h[t] = a[t] h[t-1] + b[t], in parallel over time (Martin & Cundy 2018, section 2); in reverse a[t] h[t+1] + b[t].

    a, b: time at `dim`, features last; h0: without time, zero where None; gives h, shaped as b, in their dtype. Where that has
    16 bits, the state is float32, and h0 may be. Differentiable any number of times. Raises ShapeMismatch, DtypeMismatch.
    """
    return _SCANS[bool(reverse)].at(dim, {"a": a, "b": b}, None if h0 is None else {"h": h0})
