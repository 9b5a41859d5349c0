"""Numbers as they lie in memory, in numpy: which has no bfloat16, so that a number of one is a uint16 here."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def element(dtype: str) -> np.dtype[Any]:
    """What numpy takes the elements of a tensor for."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)


def stored(values: Array, dtype: str) -> Array:
    """Numbers rounded to `dtype`, to the nearest and even one, in one step; too large ones become inf, nan stays."""
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype != "bfloat16":
            return np.asarray(values).astype(dtype)
        values = np.asarray(values, np.float64)
        unit = np.maximum(np.frexp(values)[1], -125) - 8  # the exponent of the last bit
        rounded = np.ldexp(np.rint(np.ldexp(values, -unit)), unit)
        bits = np.where(np.isfinite(values), rounded, values).astype(np.float32).view(np.uint32)
        return (np.where(np.isnan(values), 0x7FC00000, bits) >> 16).astype(np.uint16)


def numbers(array: Array, dtype: str) -> Array:
    """What `stored` numbers are, in float64."""
    if dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # a signaling nan
        return array.astype(np.float64)
