"""One argument of a call: checked, and in the shape that a Program reads; errors in the user's names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import DtypeMismatch, ShapeMismatch
from ..ir.spec import Declared
from .launch import autocasts, check_dtype
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


def tensor_of(declared: Declared, value: Any) -> Tensor:
    """An Input."""
    if not isinstance(value, Tensor):
        raise DtypeMismatch(f"the input {declared.name} is a {type(value).__name__}, not a tensor", declared.where)
    if autocasts(value) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()
    check_dtype(declared.name, value)
    return value


def numbers_of(declared: Declared, value: Tensor | float, like: Tensor, channels: int) -> Tensor:
    """A Vector (channels,) or a Scalar () from a tensor or a number; with a size, N more at the end."""
    axis: tuple[int, ...] = (declared.option("axis"),) if declared.option("axis") else ()
    shape = (channels, *axis) if declared.kind == "vector" else axis
    if not isinstance(value, Tensor):
        return like.new_full(shape, value)
    if autocasts(value):
        value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if value.dtype != like.dtype or value.device != like.device:
        raise DtypeMismatch(f"{declared.name} is {value.dtype} on {value.device}, the inputs {like.dtype} on {like.device}",
                            declared.where, f"give {declared.name}.to({like.dtype})")
    if value.shape != shape and value.numel() != 1:
        raise ShapeMismatch(f"the {declared.kind} {declared.name} has shape {tuple(value.shape)}, not {shape}", declared.where)
    return value if value.shape == shape else value.reshape(()).expand(shape)


def edge_of(what: str, value: Tensor | float, layout: Layout, like: Tensor, channels: int, depth: int, size: int = 0) -> Tensor:
    """(B, k, channels) of an initial value; (B, k, channels, N) of a state with a size."""
    axis = (size,) if size else ()
    shape = (*layout.batch, channels, *([depth] if depth > 1 else []), *axis)
    if not isinstance(value, Tensor):
        return like.new_full((1,) * (3 + len(axis)), value).expand(layout.B, depth, channels, *axis)
    if autocasts(value):
        value = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if value.dtype != like.dtype or value.device != like.device:
        raise DtypeMismatch(f"{what} is {value.dtype} on {value.device}, the inputs {like.dtype} on {like.device}", None,
                            f"give it .to({like.dtype})")
    try:
        return layout.window(value.expand(shape), depth, len(axis))
    except RuntimeError:
        raise ShapeMismatch(f"{what} has shape {tuple(value.shape)}, not {shape}", None,
                            "it is (batch…, channels)" + (f", then the {depth} values, nearest first" if depth > 1 else "")
                            + (f", then the {size} numbers of a channel" if size else "")) from None
