"""What a call of an `RNN` gave, checked and in (batch, time, features); and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import CellError, DtypeMismatch, NotBuilt, ShapeMismatch, UnknownName
from ..ir.plan import Sequence as Lagged
from .arguments import reset_of
from .carry import Carry, Window
from .launch import autocasts, check_dtype

if TYPE_CHECKING:
    from .module import RNN


@dataclass(frozen=True)
class Call:
    """inputs: (name, (B, T, size)), x first; windows: (start, edge) by sequence, for each layer and direction."""

    inputs: tuple[tuple[str, Tensor], ...]
    windows: tuple[dict[str, Window], ...]
    reset: Tensor | None
    names: tuple[dict[str, str], ...]
    batched: bool
    batch_first: bool

    @property
    def reset_inside(self) -> Tensor | None:
        """`reset` without a boundary before the first step."""
        if self.reset is None or not self.reset.shape[1]:
            return self.reset
        return torch.cat([torch.zeros_like(self.reset[:, :1]), self.reset[:, 1:]], 1)

    def outward(self, sequence: Tensor) -> Tensor:
        """The caller's layout of a (B, T, features)."""
        if not self.batched:
            return sequence.squeeze(0)
        return sequence if self.batch_first else sequence.transpose(0, 1)

    def carry(self, after: Sequence[Mapping[str, Window]]) -> Carry:
        """The Carry of all layers and directions."""
        every = [(names[key], w) for names, left in zip(self.names, after, strict=True) for key, w in left.items()]
        return Carry({n: w for n, (w, _) in every if w is not None}, {n: e for n, (_, e) in every if e is not None})


def read_call(module: RNN, x: Any, h_0: Any, reset: Tensor | None, inputs: Mapping[str, Tensor]) -> Call:
    """Check everything that a caller can get wrong."""
    spec = module.cell.spec
    declared = spec.of("input")
    if isinstance(x, PackedSequence):
        raise NotBuilt("PackedSequence is part of the language but not built yet", None,
                       "pad_packed_sequence it, and give reset= where segments begin")
    if missing := [d.name for d in declared[1:] if d.name not in inputs]:
        raise CellError(f"{spec.name} needs the input {', '.join(missing)}", spec[missing[0]].where,
                        f"call layer(x, {', '.join(f'{n}=…' for n in missing)})")
    if unknown := [n for n in inputs if n not in [d.name for d in declared[1:]]]:
        raise UnknownName(f"{spec.name} has no input {', '.join(unknown)}", spec.where,
                          f"its inputs are {', '.join(d.name for d in declared)}; the first one is x")
    every = {declared[0].name: x, **{d.name: inputs[d.name] for d in declared[1:]}}
    like, sizes = module.parts[0].some(module.layers[0]), module.parts[0].sizes
    found = [(n, _input(n, v, x, sizes[n], like, spec[n].where, module)) for n, v in every.items()]
    batched = x.dim() == 3
    first = found[0][1]
    flags = None
    if reset is not None:
        flags = reset_of(reset, tuple(x.shape[:-1]), x.device)
        flags = flags.unsqueeze(0) if not batched else flags if module.batch_first else flags.transpose(0, 1)
    return Call(tuple(found), _windows(module, h_0, first, batched), flags, module.names, batched, module.batch_first)


def _input(name: str, value: Any, x: Tensor, size: int, like: Tensor | None, where: Any, module: RNN) -> Tensor:
    """(B, T, size) of an input."""
    if not isinstance(value, Tensor):
        raise DtypeMismatch(f"the input {name} is a {type(value).__name__}, not a tensor", where)
    if not value.is_floating_point() and not value.is_complex():
        raise NotBuilt(f"the input {name} is {value.dtype}: integers as one-hot inputs are part of the language but not built "
                       "yet", where, "give torch.nn.functional.one_hot(…).float(), or an embedding of it")
    layout = ("(time, features) or (batch, time, features)" if module.batch_first
              else "(time, features) or (time, batch, features)")
    if value.dim() not in (2, 3) or value.shape[-1] != size:
        raise ShapeMismatch(f"the input {name} has shape {tuple(value.shape)}, not {layout} with {size} features", where)
    if value.shape[:-1] != x.shape[:-1]:
        raise ShapeMismatch(f"the input {name} has shape {tuple(value.shape)}, the first input {tuple(x.shape)}", where,
                            "batch and time must agree")
    if not autocasts(value):
        check_dtype(f"the input {name}", value)
        wanted = like if like is not None else x
        if value.dtype != wanted.dtype or value.device != wanted.device:
            raise DtypeMismatch(f"the input {name} is {value.dtype} on {value.device}, the layer {wanted.dtype} on "
                                f"{wanted.device}", where, f"call layer.to({name}), or give {name}.to(…)")
    if value.dim() == 2:
        return value.unsqueeze(0)
    return value if module.batch_first else value.transpose(0, 1)


def _windows(module: RNN, h_0: Any, x: Tensor, batched: bool) -> tuple[dict[str, Window], ...]:
    names = module.names
    if h_0 is None:
        return tuple({} for _ in names)
    if isinstance(h_0, Carry):
        if module.bidirectional:
            raise CellError(f"{module.cell.name} runs in both directions, so that no order of chunks fits both",
                            module.cell.spec.where, "give it the whole sequence")
        found = tuple(h_0.windows(n, repr(module.cell.name)) for n in names)
        for name, window in h_0.now.items():
            if window.shape[0] != x.shape[0]:
                raise ShapeMismatch(f"the Carry holds {window.shape[0]} sequences ({name}), the input {x.shape[0]}")
        return found
    states = module.carried
    given = h_0 if isinstance(h_0, tuple | list) else (h_0,)
    if len(given) != len(states):
        said = ", ".join(s.name for s in states) or "none"
        raise ShapeMismatch(f"h_0 holds {len(given)} states; {module.cell.name} carries {len(states)}: {said}",
                            module.cell.spec.where, f"give ({', '.join(f'{s.name}_0' for s in states)})" if states else "")
    parts = [_state(module, s, value, x, batched) for s, value in zip(states, given, strict=True)]
    return tuple({s.name: (p[k], p[k]) for s, p in zip(states, parts, strict=True)} for k in range(len(names)))


def _state(module: RNN, state: Lagged, value: Any, x: Tensor, batched: bool) -> tuple[Tensor, ...]:
    """(B, k, hidden) of a state for each layer and direction, (B, k, hidden, N) of one with a size."""
    what = f"h_0 of {state.name}" if len(module.carried) > 1 else "h_0"
    rows = module.num_layers * module.directions
    more = (state.depth,) if state.depth > 1 else ()
    size = (state.size,) if state.size else ()
    shape = (rows, *((x.shape[0],) if batched else ()), module.hidden_size, *more, *size)
    if not isinstance(value, Tensor):
        raise DtypeMismatch(f"{what} is a {type(value).__name__}, not a tensor")
    if value.shape != shape:
        said = "layers" + (" × directions" if module.bidirectional else "") + (", batch" if batched else "") + ", hidden"
        raise ShapeMismatch(f"{what} has shape {tuple(value.shape)}, not {shape}", None,
                            f"it is ({said})" + (f", then the {state.depth} values, nearest first" if more else "")
                            + (f", then the {state.size} numbers of a channel" if size else ""))
    if not autocasts(x) and (value.dtype != x.dtype or value.device != x.device):
        raise DtypeMismatch(f"{what} is {value.dtype} on {value.device}, the input {x.dtype} on {x.device}", None,
                            "give h_0.to(x)")
    value = value if batched else value.unsqueeze(1)
    value = value.transpose(2, 3) if more else value.unsqueeze(2)
    return value.unbind(0)


def stacked(module: RNN, after: Sequence[Mapping[str, Window]], batched: bool) -> Any:
    """h_n: (layers × directions, B, hidden) of each carried state, then k when the order is above 1, then N for a size."""
    found = []
    for state in module.carried:
        finals: list[Any] = [left[state.name][0] for left in after]
        whole = torch.stack(finals)
        whole = whole.squeeze(2) if state.depth == 1 else whole.transpose(2, 3)
        found.append(whole if batched else whole.squeeze(1))
    return found[0] if len(found) == 1 else tuple(found)
