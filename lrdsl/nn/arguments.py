"""One argument of a call: checked, and in the shape that a Program reads; errors in the user's names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import DtypeMismatch, ShapeMismatch
from ..ir.spec import Declared, Spec
from .dtypes import autocasts, check_dtype, fits, widened
from .layout import Layout
from .planar import dtype_of, full, real_view


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


def tensor_of(spec: Spec, declared: Declared, value: Any) -> Tensor:
    """An Input."""
    if not isinstance(value, Tensor):
        raise DtypeMismatch(f"the input {declared.name} is a {type(value).__name__}, not a tensor", declared.where)
    check_dtype(declared.name, real_view(f"the input {declared.name}", value, spec, declared.name))
    return value


def numbers_of(spec: Spec, declared: Declared, value: Tensor | complex, like: Tensor, channels: int) -> Tensor:
    """A Vector (channels,) or a Scalar () from a tensor or a number, which is not rounded to 16 bits; with a size, N more at
    the end."""
    axis: tuple[int, ...] = (declared.option("axis"),) if declared.option("axis") else ()
    shape = (channels, *axis) if declared.kind == "vector" else axis
    if not isinstance(value, Tensor):
        return full(declared.name, value, like, shape, spec, declared.name)
    if not fits(value, like) and autocasts(value):
        value = widened(value)
    if not fits(real_view(declared.name, value, spec, declared.name), like):
        raise DtypeMismatch(f"{declared.name} is {value.dtype} on {value.device}, the inputs {like.dtype} on {like.device}",
                            declared.where, f"give {declared.name}.to({dtype_of(like.dtype, value.is_complex())})")
    if value.shape != shape and value.numel() != 1:
        raise ShapeMismatch(f"the {declared.kind} {declared.name} has shape {tuple(value.shape)}, not {shape}", declared.where)
    return value if value.shape == shape else value.reshape(()).expand(shape)


def edge_of(spec: Spec, name: str, value: Tensor | complex, layout: Layout, like: Tensor, channels: int, depth: int,
            size: int = 0) -> Tensor:
    """(B, k, channels) of the initial value of a sequence, (B, k, channels, N) of a state with a size; it may be more precise
    than the inputs: a number, or what a 16-bit run left. A layout of segments has them as its batch."""
    what = f"the initial value of {name}"
    name = name.removesuffix(".ahead")
    axis = (size,) if size else ()
    shape = (*layout.batch, channels, *([depth] if depth > 1 else []), *axis)
    if not isinstance(value, Tensor):
        return full(what, value, like, (1, 1, 1, *(1 for _ in axis)), spec, name).expand(layout.B, depth, channels, *axis)
    if autocasts(value):
        value = widened(value)
    if not fits(real_view(what, value, spec, name), like):
        raise DtypeMismatch(f"{what} is {value.dtype} on {value.device}, the inputs {like.dtype} on {like.device}", None,
                            f"give it .to({dtype_of(like.dtype, value.is_complex())})")
    try:
        return layout.window(value.expand(shape), depth, len(axis))
    except RuntimeError:
        raise ShapeMismatch(f"{what} has shape {tuple(value.shape)}, not {shape}", None,
                            "it is (batch…, channels)" + (f", then the {depth} values, nearest first" if depth > 1 else "")
                            + (f", then the {size} numbers of a channel" if size else "")) from None
