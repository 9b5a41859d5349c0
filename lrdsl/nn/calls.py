"""What a call of an `RNN` gave, checked and in (batch, time, features); and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import CellError, DtypeMismatch, ShapeMismatch, UnknownName
from ..ir.plan import Sequence as Lagged
from ..ir.spec import Spec
from .arguments import reset_of
from .carry import Carry, Window
from .checks import insist
from .dtypes import autocasts, check_dtype, fits, lowered
from .packed import Packing, refuse_others
from .planar import dtype_of, real_view
from .products import INTEGERS
from .segments import Segments, segments_of

if TYPE_CHECKING:
    from .module import RNN


@dataclass(frozen=True)
class Call:
    """x and the other inputs: (B, T, size), or (B, T, 1) of integers; windows: (start, edge) by sequence, for each layer and
    direction; rows: how many edges a sequence has, B or the number of segments."""

    x: Tensor
    inputs: Mapping[str, Tensor]
    windows: tuple[dict[str, Window], ...]
    reset: Tensor | None
    names: tuple[dict[str, str], ...]
    batched: bool
    batch_first: bool
    segments: Segments | None
    packing: Packing | None

    @property
    def rows(self) -> int:
        return self.x.shape[0] if self.segments is None else self.segments.n

    @property
    def rows_shown(self) -> bool:
        """Whether h_0 and h_n have a dimension of rows."""
        return self.batched or self.segments is not None

    @property
    def reset_inside(self) -> Tensor | None:
        """`reset` without a boundary before the first step."""
        if self.reset is None or not self.reset.shape[1]:
            return self.reset
        return torch.cat([torch.zeros_like(self.reset[:, :1]), self.reset[:, 1:]], 1)

    def outward(self, sequence: Tensor) -> Any:
        """The caller's layout of a (B, T, features)."""
        if self.packing is not None:
            return self.packing.outward(sequence)
        if not self.batched:
            return sequence.squeeze(0)
        return sequence if self.batch_first else sequence.transpose(0, 1)

    def carry(self, after: Sequence[Mapping[str, Window]]) -> Carry:
        """The Carry of all layers and directions."""
        every = [(names[key], w) for names, left in zip(self.names, after, strict=True) for key, w in left.items()]
        return Carry({n: w for n, (w, _) in every if w is not None}, {n: e for n, (_, e) in every if e is not None})


def read_call(module: RNN, x: Any, h_0: Any, reset: Tensor | None, cu_seqlens: Any, inputs: Mapping[str, Any]) -> Call:
    """Check everything that a caller can get wrong."""
    name, spec = module.first, module.cells[0].spec
    _check_names(module, inputs)
    like = module.parts[0].some(module.layers[0])
    if like is None:
        some = (part.some(tree) for part, tree in zip(module.parts, module.trees(), strict=True))
        like = next((p for p in some if p is not None), None)
    packing = None
    if isinstance(x, PackedSequence):
        refuse_others(reset, cu_seqlens)
        packing = Packing.of(x)
        inputs = {n: packing.inward(n, v, module.inputs[n].where) for n, v in inputs.items()}
        x = packing.inward(name, x, spec[name].where)
    first = _input(name, x, x, module.input_size, like, spec[name].where, module)
    found = {n: _input(n, v, x, module.features[n], like, module.inputs[n].where, module) for n, v in inputs.items()}
    _check_integers(module, {name: first, **found})
    batched, T = x.dim() == (2 if x.dtype in INTEGERS else 3), first.shape[1]
    segments = flags = None
    if packing is not None:
        segments = Segments(packing.borders, T)
    elif cu_seqlens is not None:
        if reset is not None:
            raise CellError("reset= and cu_seqlens= were given, and both say where segments begin", None, "give one of them")
        if first.shape[0] != 1:
            raise ShapeMismatch(f"cu_seqlens cuts one packed sequence, and {name} has a batch of {first.shape[0]}", None,
                                f"put the sequences of {name} one after another in time")
        segments = segments_of(cu_seqlens, T, x.device)
    if reset is not None:
        flags = reset_of(reset, tuple(x.shape[:2 if batched else 1]), x.device)
        flags = flags.unsqueeze(0) if not batched else flags if module.batch_first else flags.transpose(0, 1)
    call = Call(first, found, (), flags, module.names, batched, module.batch_first, segments, packing)
    like = like if first.dtype in INTEGERS and like is not None else first
    return replace(call, windows=_windows(module, h_0, like, call))


def _check_names(module: RNN, inputs: Mapping[str, Any]) -> None:
    spec, names = module.cells[0].spec, list(module.inputs)
    if missing := [n for n in names if n not in inputs]:
        raise CellError(f"{module.name} needs the input {', '.join(missing)}", module.inputs[missing[0]].where,
                        f"call layer(x, {', '.join(f'{n}=…' for n in missing)})")
    if unknown := [n for n in inputs if n not in names]:
        raise UnknownName(f"{module.name} has no input {', '.join(unknown)}", spec.where,
                          f"its inputs are {', '.join([module.first, *names])}; the first one is x")


def _input(name: str, value: Any, x: Tensor, size: int, like: Tensor | None, where: Any, module: RNN) -> Tensor:
    """(B, T, size) of an input, (B, T, 1) of integers."""
    if not isinstance(value, Tensor):
        raise DtypeMismatch(f"the input {name} is a {type(value).__name__}, not a tensor", where)
    whole = value.dtype in INTEGERS
    if not whole and not value.is_floating_point() and not value.is_complex():
        raise DtypeMismatch(f"the input {name} is {value.dtype}; integers, which mean one-hot vectors, are int64 or int32",
                            where, f"give {name}.long(), or {name}.float() for numbers")
    axes = "batch, time" if module.batch_first else "time, batch"
    if whole and value.dim() not in (1, 2):
        raise ShapeMismatch(f"the input {name} is {value.dtype} and has shape {tuple(value.shape)}, not (time) or ({axes}): an "
                            f"integer stands for a one-hot vector of {size} features", where,
                            f"leave the features out, or give {name}.float() for numbers")
    if not whole and (value.dim() not in (2, 3) or value.shape[-1] != size):
        raise ShapeMismatch(f"the input {name} has shape {tuple(value.shape)}, not (time, features) or ({axes}, features) with "
                            f"{size} features", where)
    lead, first = (v.shape if v.dtype in INTEGERS else v.shape[:-1] for v in (value, x))
    if lead != first:
        raise ShapeMismatch(f"the input {name} has shape {tuple(value.shape)}, the first input {tuple(x.shape)}", where,
                            "batch and time must agree")
    wanted = like if like is not None else x
    if whole and value.device != wanted.device:
        raise DtypeMismatch(f"the input {name} is on {value.device}, the layer on {wanted.device}", where, f"give {name}.to(…)")
    value = lowered(value)
    part = real_view(f"the input {name}", value, module.parts[0].pipeline.spec, name)
    if not whole and not autocasts(value):
        check_dtype(f"the input {name}", part)
        if part.dtype != dtype_of(wanted.dtype, False) or value.device != wanted.device:
            layer = dtype_of(wanted.dtype, value.is_complex())
            to = f"{name}.real" if value.is_complex() else name
            raise DtypeMismatch(f"the input {name} is {value.dtype} on {value.device}, the layer {layer} on "
                                f"{wanted.device}", where, f"call layer.to({to}), or give {name}.to(…)")
    value = value.unsqueeze(-1) if whole else value
    if value.dim() == 2:
        return value.unsqueeze(0)
    return value if module.batch_first else value.transpose(0, 1)


def _check_integers(module: RNN, found: Mapping[str, Tensor]) -> None:
    """Integers are for maps, and each is the number of a feature. found: all inputs, x first."""
    x = module.first
    for name, value in found.items():
        if value.dtype not in INTEGERS:
            continue
        for part in module.parts[:module.directions] if name == x else module.parts:
            if name in part.pipeline.channelwise:
                raise DtypeMismatch(f"the input {name} is {value.dtype}, which means one-hot vectors, but "
                                    f"{part.pipeline.spec.name} reads {name} channel by channel", module.declared(name).where,
                                    f"read {name} through dense maps alone, or give {name} as floats")
        _check_range(module, name, value, module.input_size if name == x else module.features[name])


def _check_range(module: RNN, name: str, value: Tensor, size: int) -> None:
    wrong = (value < 0) | (value >= size)
    way = "give an input_size that is the number of indices" if name == module.first else \
        f"declare {name}: lr.Input = lr.Input(size=…) for more"
    insist(~wrong.any(), lambda: CellError(f"the input {name} holds the index {int(value[wrong][0])}; it has {size} features",
                                           module.declared(name).where, way), f"the input {name} holds an index out of range")


def _windows(module: RNN, h_0: Any, like: Tensor, call: Call) -> tuple[dict[str, Window], ...]:
    names = module.names
    if h_0 is None:
        return tuple({} for _ in names)
    if isinstance(h_0, Carry):
        if module.bidirectional:
            raise CellError(f"{module.name} runs in both directions, so that no order of chunks fits both",
                            module.cells[0].spec.where, "give it the whole sequence")
        found = tuple(h_0.windows(n, repr(module.name)) for n in names)
        for name, window in h_0.now.items():
            if window.shape[0] != call.rows:
                raise ShapeMismatch(f"the Carry holds {window.shape[0]} sequences ({name}), the input {call.rows}")
        for part, windows in zip(module.parts, found, strict=True):
            for n in (n for n in part.pipeline.spec.names("input")[1:] if n in windows):
                _check_alike(n, windows[n], call.inputs[n])
        if module.first in found[0]:
            _check_alike(module.first, found[0][module.first], call.x)
        return found
    if module.alike:
        return _given(module, module.cells[0].name, range(len(names)), h_0, like, call)
    if not isinstance(h_0, tuple | list) or len(h_0) != module.num_layers:
        raise ShapeMismatch(f"the layers of {module.name} carry different states, so that h_0 holds one entry a layer", None,
                            f"give a tuple of {module.num_layers}, each what a module of that layer alone takes, or None")
    given: list[dict[str, Window]] = []
    for k, (cell, value) in enumerate(zip(module.cells, h_0, strict=True)):
        at = range(k * module.directions, (k + 1) * module.directions)
        given += [{} for _ in at] if value is None else _given(module, cell.name, at, value, like, call, f" of layer {k}")
    return tuple(given)


def _check_alike(name: str, window: Window, value: Tensor) -> None:
    """Earlier inputs of a Carry are integers where the input is."""
    start = window[0]
    if start is not None and (start.dtype in INTEGERS) != (value.dtype in INTEGERS):
        raise DtypeMismatch(f"the Carry holds {name} as {start.dtype}, and the input is {value.dtype}", None,
                            "give all chunks as integers, or all as floats")


def _given(module: RNN, who: str, at: range, h_0: Any, like: Tensor, call: Call, of: str = "") -> tuple[dict[str, Window], ...]:
    """The windows of layers that carry states alike, from h_0."""
    states = module.parts[at[0]].pipeline.plan.carried
    given = h_0 if isinstance(h_0, tuple | list) else (h_0,)
    if len(given) != len(states):
        said = ", ".join(s.name for s in states) or "none"
        raise ShapeMismatch(f"h_0{of} holds {len(given)} states; {who} carries {len(states)}: {said}",
                            module.cells[0].spec.where, f"give ({', '.join(f'{s.name}_0' for s in states)})" if states else "")
    what = [f"h_0{of} of {s.name}" if len(states) > 1 else f"h_0{of}" for s in states]
    spec = module.parts[at[0]].pipeline.spec
    parts = [_state(module, spec, n, s, value, like, call, len(at)) for n, s, value in zip(what, states, given, strict=True)]
    found = []
    for k, part in enumerate(module.parts[at[0]:at[-1] + 1]):
        window = {s.name: (p[k], p[k]) for s, p in zip(part.pipeline.plan.carried, parts, strict=True)}
        found.append(window | part.pipeline.not_first(window, like, module.hidden_size))
    return tuple(found)


def _state(module: RNN, spec: Spec, what: str, state: Lagged, value: Any, like: Tensor, call: Call,
           layers: int) -> tuple[Tensor, ...]:
    """(rows, k, hidden) of a state for each layer and direction, (rows, k, hidden, N) of one with a size."""
    more = (state.depth,) if state.depth > 1 else ()
    size = (state.size,) if state.size else ()
    shape = (layers, *((call.rows,) if call.rows_shown else ()), module.hidden_size, *more, *size)
    if not isinstance(value, Tensor):
        raise DtypeMismatch(f"{what} is a {type(value).__name__}, not a tensor")
    if value.shape != shape:
        said = "layers" + (" × directions" if module.bidirectional else "")
        said += ", segments" if call.segments is not None and call.packing is None else ", batch" if call.rows_shown else ""
        raise ShapeMismatch(f"{what} has shape {tuple(value.shape)}, not {shape}", None,
                            f"it is ({said}, hidden)" + (f", then the {state.depth} values, nearest first" if more else "")
                            + (f", then the {state.size} numbers of a channel" if size else ""))
    part = real_view(what, value, spec, state.name)
    if not autocasts(like) and not fits(part, like):
        raise DtypeMismatch(f"{what} is {value.dtype} on {value.device}, the input {like.dtype} on {like.device}", None,
                            f"give h_0.to({dtype_of(like.dtype, True)})" if value.is_complex() else "give h_0.to(x.real)"
                            if like.is_complex() else "give h_0.to(x)")
    value = value if call.rows_shown else value.unsqueeze(1)
    value = value.transpose(2, 3) if more else value.unsqueeze(2)
    return value.unbind(0)


def stacked(module: RNN, after: Sequence[Mapping[str, Window]], rows_shown: bool, dtype: torch.dtype) -> Any:
    """h_n: (layers × directions, B, hidden) of each carried state, then k when the order is above 1, then N for a size; where
    the layers carry different states, a tuple of that for each layer. In the dtype of x, as torch.nn.LSTM has it; a Carry keeps
    the states as they are."""
    if module.alike:
        return _ends(module, range(len(after)), after, rows_shown, dtype)
    n = module.directions
    return tuple(_ends(module, range(k * n, (k + 1) * n), after, rows_shown, dtype) for k in range(module.num_layers))


def _ends(module: RNN, at: range, after: Sequence[Mapping[str, Window]], rows_shown: bool, dtype: torch.dtype) -> Any:
    found = []
    for j, state in enumerate(module.parts[at[0]].pipeline.plan.carried):
        finals: list[Any] = [after[k][module.parts[k].pipeline.plan.carried[j].name][0] for k in at]
        whole = torch.stack(finals)
        whole = whole if whole.is_complex() else whole.to(dtype_of(dtype, False))
        whole = whole.squeeze(2) if state.depth == 1 else whole.transpose(2, 3)
        found.append(whole if rows_shown else whole.squeeze(1))
    return found[0] if len(found) == 1 else tuple(found)
