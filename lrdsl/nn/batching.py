"""The vmap rule of an op: the mapped axis is folded into the batch, or into the channels where vectors are mapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .ops import Op

Maybe = Tensor | None


def fold(op: Op, info: Any, in_dims: Sequence[Any], *args: Maybe) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """The op over an axis of `info.batch_size`: outputs, with that axis in front."""
    n, mapped = info.batch_size, [d is not None for d in in_dims]
    front = [a if a is None else a.movedim(d, 0) if d is not None else a.expand(n, *a.shape)
             for a, d in zip(args, in_dims, strict=True)]
    kinds = [s.kind for s in op.launcher.ins]
    if not op.program.sums and not any(m for m, k in zip(mapped, kinds, strict=True) if k == "vector"):
        return _into_batch(op, kinds, args, front), (0,) * op.size
    if not mapped[-1] and not op.program.axis:  # what channels share cannot be folded into them
        return _into_channels(op, args, front), (0,) * op.size
    each = [op(*(a if a is None else a[i] for a in front)) for i in range(n)]
    return tuple(torch.stack(column) for column in zip(*each, strict=True)), (0,) * op.size


def _into_batch(op: Op, kinds: Sequence[str], args: Sequence[Maybe], front: Sequence[Maybe]) -> tuple[Tensor, ...]:
    n = next(a for a in front if a is not None).shape[0]
    flat = [a if k == "vector" or f is None else f.flatten(0, 1) for a, f, k in zip(args, front, kinds, strict=True)]
    return tuple(o.unflatten(0, (n, o.shape[0] // n)) for o in op(*flat))


def _into_channels(op: Op, args: Sequence[Maybe], front: Sequence[Maybe]) -> tuple[Tensor, ...]:
    """(n, B, T, columns * C) becomes (B, T, columns * n * C), of pairs (B, T, n * C, 2), (n, C) becomes (n * C,)."""
    wide = op.wide
    n = next(a for a in front if a is not None).shape[0]
    first = front[0]
    assert first is not None
    C = first.shape[3] // op.launcher.columns
    flat: list[Maybe] = []
    for slot, a in zip(op.launcher.ins[:-1], front, strict=False):
        if a is None:
            flat.append(None)
        elif slot.kind == "vector":
            flat.append((a if a.dim() == 2 else a.unsqueeze(1).expand(n, C)).flatten())
        elif slot.paired:
            flat.append(a.movedim(0, 2).flatten(2, 3))
        else:
            flat.append(a.unflatten(3, (slot.columns, C)).permute(1, 2, 3, 0, 4).flatten(2))
    outputs = []
    for slot, o in zip(op.launcher.outs, wide(*flat, args[-1]), strict=True):
        if slot.kind == "sum":
            total = o.unflatten(0, (n, C))
            outputs.append(total.sum(1) if slot.name in op.launcher.summed else total)
        elif slot.paired:
            outputs.append(o.unflatten(2, (n, C)).movedim(2, 0))
        else:
            columns = slot.columns if slot.kind == "keep" else 1
            outputs.append(o.unflatten(2, (columns, n, C)).permute(3, 0, 1, 2, 4).flatten(3))
    return tuple(outputs)
