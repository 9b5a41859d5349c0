"""What every loop needs: edges, reads at a lag and across a boundary, numbers spread over a sequence, float64 or nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def reference(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse float32: a truth in it would be none. Only its bool and integer tensors may be something else."""

    @functools.wraps(loop)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for tensor in _tensors((*args, *kwargs.values())):
            if tensor.dtype in (torch.float32, torch.float16, torch.bfloat16, torch.complex64):
                raise TypeError(f"{loop.__name__} is computed in float64, not in {tensor.dtype}")
        return loop(*args, **kwargs)

    return checked


def edge(h_0: Tensor | None, *shape: int, like: Tensor, fill: float = 0.0) -> Tensor:
    """The initial state, or `fill` in its shape where none was given."""
    return like.new_full(shape, fill) if h_0 is None else h_0


def before(h: Tensor, edge: Tensor, reset: Tensor | None, t: int) -> Tensor:
    """The state that step t reads: (B, …) of `h`, or of `edge` where a boundary lies between t-1 and t. Selected, not
    multiplied, so that a nan behind a boundary stays there."""
    return h if reset is None else _select(reset[t], edge, h)


def after(h: Tensor, edge: Tensor, reset: Tensor | None, t: int) -> Tensor:
    """The state that step t of a recurrence from the end reads: of `h`, or of `edge` across a boundary between t and t+1."""
    return h if reset is None or t + 1 == len(reset) else _select(reset[t + 1], edge, h)


def lagged(x: Tensor, reset: Tensor | None, t: int, k: int) -> Tensor:
    """(B, size): x[t-k], 0 before the first step and across any boundary between."""
    if t - k < 0:
        return torch.zeros_like(x[t])
    return x[t - k] if reset is None or k == 0 else _select(reset[t - k + 1 : t + 1].any(0), torch.zeros_like(x[t]), x[t - k])


def together(x: Tensor, *numbers: Tensor | float) -> tuple[Tensor, ...]:
    """Sequences (T, B, size) of x and of each number, constant where the number is."""
    return torch.broadcast_tensors(x, *(n if isinstance(n, Tensor) else torch.tensor(n, dtype=torch.float64) for n in numbers))


def _select(boundary: Tensor, edge: Tensor, h: Tensor) -> Tensor:
    return torch.where(boundary.reshape(-1, *(1,) * (h.ndim - 1)), edge, h)


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
