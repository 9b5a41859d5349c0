"""The gradient of a Program's input, put together from its pieces (see `passes.adjoint.Piece`), in differentiable torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..passes.adjoint import Piece

Maybe = Tensor | None


def assemble(pieces: Sequence[Piece], got: Mapping[str, Tensor], columns: Mapping[str, int], reset: Maybe,
             depth: int) -> Maybe:
    """The sum of an input's pieces, None where it is zero.

    got: the backward Program's outputs; columns: how many sequences each of its keeps holds; depth: that of the edge.
    """
    total: Maybe = None
    for piece in pieces:
        name, _, column = piece.name.partition("#")
        value = got[name]
        if column and value.dim() == 4:
            value = value[..., int(column)]
        elif column:
            C = value.shape[2] // columns[name]
            value = value[:, :, int(column) * C:(int(column) + 1) * C]
        part = _part(piece, value, reset, depth)
        if part is not None and piece.shared:
            part = part.unflatten(-1, (piece.shared, part.shape[-1] // piece.shared)).sum(-1)
        if part is not None:
            total = part if total is None else total + part
    return total


def _part(piece: Piece, value: Tensor, reset: Maybe, depth: int) -> Maybe:
    match piece.how:
        case "window":
            return padded(value.flip(1), depth)
        case "nearest":
            return F.pad(value, (0, 0, piece.lag - 1, depth - piece.lag))
        case "shifted":
            if reset is not None:
                clear = _clear(reset, piece.lag, abs(piece.lag))
                value = torch.where(clear.reshape(*clear.shape, *(1 for _ in value.shape[2:])), value, 0.0)
            return moved(value, piece.lag)
        case "shifted start":
            return padded(_at_start(value, piece.lag, reset), depth)
        case "shifted edge":
            return None if reset is None else padded(_at_edge(value, piece.lag, reset), depth)
    return value


def moved(sequence: Tensor, by: int) -> Tensor:
    """(B, T, …) moved `by` steps later; what leaves is dropped, what enters is zero."""
    n = min(abs(by), sequence.shape[1])
    kept = sequence[:, :sequence.shape[1] - n] if by > 0 else sequence[:, n:]
    zeros = sequence.new_zeros((sequence.shape[0], n, *sequence.shape[2:]))
    return torch.cat([zeros, kept] if by > 0 else [kept, zeros], 1)


def padded(window: Tensor, depth: int) -> Tensor:
    """(B, k, C) with zeros behind, up to `depth` values."""
    missing = depth - window.shape[1]
    return window if missing <= 0 else torch.cat([window, window.new_zeros((window.shape[0], missing, window.shape[2]))], 1)


def _hit(reset: Tensor, lag: int, j: int) -> Tensor:
    """(B, T): whether the j-th step on the way from t to t+lag crosses a boundary."""
    return moved(reset, j - 1) if lag < 0 else moved(reset, -j)


def _clear(reset: Tensor, lag: int, steps: int) -> Tensor:
    """(B, T): whether the first `steps` steps from t towards t+lag cross no boundary."""
    found = torch.zeros_like(reset)
    for j in range(1, steps + 1):
        found = found | _hit(reset, lag, j)
    return ~found


def _at_start(value: Tensor, lag: int, reset: Maybe) -> Tensor:
    """(B, k, C): what reads that left the array sent back, nearest sample first."""
    T, k = value.shape[1], abs(lag)
    rows = []
    for j in range(k, 0, -1):
        if j > T:
            rows.append(value.new_zeros((value.shape[0], value.shape[2])))
            continue
        reader = j - 1 if lag < 0 else T - j
        row = value[:, reader]
        if reset is not None:
            row = torch.where(_clear(reset, lag, j)[:, reader].unsqueeze(1), row, 0.0)
        rows.append(row)
    return torch.stack(rows, 1)


def _at_edge(value: Tensor, lag: int, reset: Tensor) -> Tensor:
    """(B, k, C): what reads across a boundary sent back, nearest sample first."""
    rows = []
    for j in range(abs(lag), 0, -1):
        first = _hit(reset, lag, j) & _clear(reset, lag, j - 1)
        rows.append(torch.where(first.unsqueeze(2), value, 0.0).sum(1))
    return torch.stack(rows, 1)
