"""torch's PackedSequence: its samples lie step by step, ours segment by segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import CellError, DtypeMismatch, ShapeMismatch


@dataclass(frozen=True)
class Packing:
    """How a PackedSequence of n sequences is laid out.

    order (T,): where each sample of the sequences, one after another in the user's order, lies in the packed data; back (T,):
    the inverse; borders (n+1,).
    """

    like: PackedSequence
    order: Tensor
    back: Tensor
    borders: Tensor

    @classmethod
    def of(cls, packed: PackedSequence) -> Packing:
        """The layout of `packed`. The sizes are on the CPU, where torch keeps them; nothing waits for a device."""
        sizes, T, device = packed.batch_sizes, packed.data.shape[0], packed.data.device
        ended = sizes - torch.cat([sizes[1:], sizes.new_zeros(1)])  # after each step
        lengths = torch.arange(1, len(sizes) + 1).repeat_interleave(ended).flip(0).to(device)  # of the sorted sequences
        place = packed.unsorted_indices
        if place is None:
            place = torch.arange(len(lengths), device=device)
        lengths = lengths[place]
        borders = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        owner = torch.arange(len(lengths), device=device).repeat_interleave(lengths, output_size=T)
        steps = torch.arange(T, device=device) - borders[owner]
        order = (sizes.cumsum(0) - sizes).to(device)[steps] + place[owner]
        back = torch.empty_like(order).scatter_(0, order, torch.arange(T, device=device))
        return cls(packed, order, back, borders)

    def inward(self, name: str, value: Any, where: Any) -> Tensor:
        """(T, …) of an input, the sequences one after another."""
        if not isinstance(value, PackedSequence):
            raise DtypeMismatch(f"the input {name} is a {type(value).__name__}, the first input a PackedSequence", where,
                                f"pack {name} as the first input is packed")
        if not torch.equal(value.batch_sizes, self.like.batch_sizes) or not _same(value.unsorted_indices,
                                                                                  self.like.unsorted_indices):
            raise ShapeMismatch(f"the input {name} is packed for other lengths, or in another order, than the first input",
                                where, "pack both with the same lengths")
        return value.data.index_select(0, self.order)

    def outward(self, sequence: Tensor) -> PackedSequence:
        """An output (1, T, features), packed as the input was."""
        like = self.like
        return PackedSequence(sequence.squeeze(0).index_select(0, self.back), like.batch_sizes, like.sorted_indices,
                              like.unsorted_indices)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def refuse_others(reset: Any, cu_seqlens: Any) -> None:
    """Raise CellError for boundaries beside those of a PackedSequence."""
    name = "reset" if reset is not None else "cu_seqlens" if cu_seqlens is not None else ""
    if name:
        raise CellError(f"x is a PackedSequence, which says where its sequences end, and {name}= was given", None,
                        f"leave {name} out, or give x and {name} as tensors")
