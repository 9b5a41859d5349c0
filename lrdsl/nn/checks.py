"""Checks of numbers, which a device may know only later; and what torch.compile does while it traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import CellError

Called = TypeVar("Called", bound=Callable[..., object])


def constant(function: Called) -> Called:
    """torch.compile calls this function while it traces, and takes what it returns for a constant. That is all that
    torch.compiler.assume_constant_result does, which imports half a second of torch first."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def insist(right: Tensor, error: Callable[[], CellError], otherwise: str) -> None:
    """Raise the error unless `right`, the truth of something about numbers.

    Where they cannot be looked at without waiting, on a GPU or while torch traces, this is an assertion of the device that says
    `otherwise`, as for an index out of range in torch; inside of torch.func's transforms nothing is checked.
    """
    if torch._C._are_functorch_transforms_active():
        return
    plain = type(right) is Tensor and right.device.type == "cpu"
    if plain and not torch.compiler.is_compiling() and not torch._C._is_tracing():
        if not right:
            raise error()
    else:
        torch._assert_async(right, otherwise)
