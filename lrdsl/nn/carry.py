"""Carry: what one call leaves for the next, so that whole = chunked = step by step, for every cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ShapeMismatch

Window = tuple[Tensor | None, Tensor | None]
NONE: Window = (None, None)


class Carry(NamedTuple):
    """The edges of every sequence that is read at a lag: states, and earlier inputs.

    now: what the next call starts from; edge: what was given in the beginning, which reads across a `reset` get. Each is
    (B, k, channels), nearest first, by the sequence's name (`layers.0.h` in a module); (B, k, channels, N) for a State(size=N),
    (B, k, N) for an Input(axis=N). States of 16-bit layers are float32. A cell that runs in reverse is fed its chunks from
    right to left; one whose states run both ways has no Carry.
    """

    now: dict[str, Tensor]
    edge: dict[str, Tensor]

    def detach(self) -> Carry:
        """The same values without their history: for truncated backpropagation through time."""
        return Carry({k: v.detach() for k, v in self.now.items()}, {k: v.detach() for k, v in self.edge.items()})

    def to(self, *args: object, **options: object) -> Carry:
        """As `torch.Tensor.to`, for all values; integers keep their dtype."""
        def moved(v: Tensor) -> Tensor:
            found: Tensor = v.to(*args, **options)  # type: ignore[call-overload]
            return found if v.is_floating_point() or v.is_complex() else v.to(found.device)

        return Carry({k: moved(v) for k, v in self.now.items()}, {k: moved(v) for k, v in self.edge.items()})

    def windows(self, names: Mapping[str, str], who: str) -> dict[str, Window]:
        """(start, edge) of each sequence; names: sequence -> name in this Carry. Raises ShapeMismatch for a stranger's."""
        if missing := [n for n in names.values() if n not in self.now]:
            raise ShapeMismatch(f"this Carry is not of {who}: it does not hold {', '.join(missing)}", None,
                                f"give what {who} returned, or None to start afresh")
        return {s: (self.now[n], self.edge.get(n)) for s, n in names.items()}


def last_window(sequence: Tensor, start: Tensor, edge: Tensor, reset: Tensor | None, reverse: bool) -> Tensor:
    """(B, k, C): the last k samples of a sequence (B, T, C) in the direction of the run, nearest first.

    The register of `ir.program`, for a sequence that is in memory: only its last k steps matter.
    """
    T, window = sequence.shape[1], start
    for t in range(min(T, start.shape[1]) - 1, -1, -1) if reverse else range(max(0, T - start.shape[1]), T):
        window = _crossed(window, edge, reset, t + 1 if reverse else t)
        window = torch.cat([sequence[:, t:t + 1], window[:, :-1]], 1)
    return _crossed(window, edge, reset, 0) if reverse and T else window


def _crossed(window: Tensor, edge: Tensor, reset: Tensor | None, at: int) -> Tensor:
    if reset is None or at == reset.shape[1]:
        return window
    return torch.where(reset[:, at, None, None], edge, window)
