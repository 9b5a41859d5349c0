"""What numbers are stored as, and what is computed with them.

A kernel of a 16-bit dtype reads and writes its sequences and learned numbers in 16 bits. All else is float32: registers, sums,
what chunks tell each other, initial and final states, and tensors that a Program names in `full`.
"""

from __future__ import annotations

NARROW = ("bfloat16", "float16")
DTYPES = ("float32", "float64", *NARROW)


def compute(dtype: str) -> str:
    """The dtype that a kernel computes in, whose tensors are of `dtype`."""
    return "float32" if dtype in NARROW else dtype


def size(dtype: str) -> int:
    """Bytes of a number in memory."""
    return {"float64": 8, "float32": 4, "uint8": 1}.get(dtype, 2)
