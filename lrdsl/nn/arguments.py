"""One argument of a call: checked, and in the shape that a Program reads; errors in the user's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import CellError, DtypeMismatch, ShapeMismatch
from ..ir.spec import Declared
from .dtypes import autocasts, check_dtype, compute, fits, widened
from .layout import Layout


def reset_of(reset: Any, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """`reset` itself, if it is bool, of that shape and on that device."""
    if not isinstance(reset, Tensor) or reset.dtype != torch.bool:
        raise DtypeMismatch(f"reset is {reset.dtype if isinstance(reset, Tensor) else type(reset).__name__}, not bool", None,
                            "give reset.bool(): true where a new segment begins")
    if reset.shape != shape:
        raise ShapeMismatch(f"reset has shape {tuple(reset.shape)}, not {shape}: the inputs' without features")
    if reset.device != device:
        raise DtypeMismatch(f"reset is on {reset.device}, the inputs on {device}", None, f'give reset.to("{device}")')
    return reset


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


def tensor_of(declared: Declared, value: Any) -> Tensor:
    """An Input."""
    if not isinstance(value, Tensor):
        raise DtypeMismatch(f"the input {declared.name} is a {type(value).__name__}, not a tensor", declared.where)
    check_dtype(declared.name, value)
    return value


def numbers_of(declared: Declared, value: Tensor | float, like: Tensor, channels: int) -> Tensor:
    """A Vector (channels,) or a Scalar () from a tensor or a number, which is not rounded to 16 bits."""
    shape = (channels,) if declared.kind == "vector" else ()
    if not isinstance(value, Tensor):
        return like.new_full(shape, value, dtype=compute(like.dtype))
    if not fits(value, like) and autocasts(value):
        value = widened(value)
    if not fits(value, like):
        raise DtypeMismatch(f"{declared.name} is {value.dtype} on {value.device}, the inputs {like.dtype} on {like.device}",
                            declared.where, f"give {declared.name}.to({like.dtype})")
    if value.shape != shape and value.numel() != 1:
        raise ShapeMismatch(f"the {declared.kind} {declared.name} has shape {tuple(value.shape)}, not {shape}", declared.where)
    return value if value.shape == shape else value.reshape(()).expand(shape)


def edge_of(what: str, value: Tensor | float, layout: Layout, like: Tensor, channels: int, depth: int) -> Tensor:
    """(B, k, channels) of an initial value, which may be more precise than the inputs: a number, or what a 16-bit run left. A
    layout of segments has them as its batch."""
    shape = (*layout.batch, channels, *([depth] if depth > 1 else []))
    if not isinstance(value, Tensor):
        return like.new_full((1, 1, 1), value, dtype=compute(like.dtype)).expand(layout.B, depth, channels)
    if autocasts(value):
        value = widened(value)
    if not fits(value, like):
        raise DtypeMismatch(f"{what} is {value.dtype} on {value.device}, the inputs {like.dtype} on {like.device}", None,
                            f"give it .to({like.dtype})")
    try:
        return layout.window(value.expand(shape), depth)
    except RuntimeError:
        raise ShapeMismatch(f"{what} has shape {tuple(value.shape)}, not {shape}", None,
                            "it is (batch…, channels)" + (f", then the {depth} values, nearest first" if depth > 1 else "")
                            ) from None
