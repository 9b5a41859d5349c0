"""What the tests of this directory share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def assert_close(got: Any, want: Any, scale: float = 1.0) -> None:
    if isinstance(got, dict):
        assert list(got) == list(want)
        got, want = as_tuple(got), as_tuple(want)
    for a, b in zip(got, want, strict=True):
        if a is None or b is None:
            assert (a is None or not a.any()) and (b is None or not b.any())
        else:
            assert a.shape == b.shape
            assert (a - b).abs().max() <= 1e-12 * scale * max(1.0, float(b.detach().abs().max())) if b.numel() else True


def as_tuple(y: Any) -> tuple[Tensor, ...]:
    """What a cell returns (a tensor, a tuple, a dict) as a tuple."""
    return tuple(y.values()) if isinstance(y, dict) else y if isinstance(y, tuple) else (y,)


def leaf(*shape: int) -> Tensor:
    return torch.randn(shape, requires_grad=True)


def gradients(outputs: Any, inputs: Any) -> Any:
    """Of a loss that weighs every number differently."""
    loss = sum((o * torch.linspace(-1, 2, o.numel()).reshape(o.shape).to(o.device)).cos().sum() for o in outputs)
    return torch.autograd.grad(loss, inputs, allow_unused=True)


def parameters(layer: torch.nn.Module, at: str = "layers.0.") -> dict[str, Tensor]:
    return {n.removeprefix(at): p for n, p in layer.named_parameters() if n.startswith(at)}
