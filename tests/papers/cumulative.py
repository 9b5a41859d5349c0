"""Running sums, products, maxima and log-sums of exponentials, as torch.cumsum and its kin: each h[t] = op(h[t-1], x[t]).

Shapes: x (T, B, C), h_0 (B, C), where None the identity of the operation; gives h and h[T-1]. A boundary starts again from h_0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .loops import before, edge, reference

INF = float("inf")


@reference
def cumsum(x: Tensor, h_0: Tensor | None = None, *, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """h[t] = h[t-1] + x[t]; h_0 is 0."""
    return _fold(torch.add, x, h_0, 0.0, reset)


@reference
def cumprod(x: Tensor, h_0: Tensor | None = None, *, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """h[t] = h[t-1] x[t]; h_0 is 1."""
    return _fold(torch.mul, x, h_0, 1.0, reset)


@reference
def cummax(x: Tensor, h_0: Tensor | None = None, *, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """h[t] = max(h[t-1], x[t]); h_0 is -inf. At a tie the gradient is shared in halves; torch.cummax gives it to the later."""
    return _fold(torch.maximum, x, h_0, -INF, reset)


@reference
def logcumsumexp(x: Tensor, h_0: Tensor | None = None, *, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """h[t] = log(e^h[t-1] + e^x[t]); h_0 is -inf."""
    return _fold(torch.logaddexp, x, h_0, -INF, reset)


def _fold(
    op: Callable[[Tensor, Tensor], Tensor], x: Tensor, h_0: Tensor | None, identity: float, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    h = h_0 = edge(h_0, *x.shape[1:], like=x, fill=identity)
    y = []
    for t in range(len(x)):
        h = op(before(h, h_0, reset, t), x[t])
        y.append(h)
    return torch.stack(y), h
