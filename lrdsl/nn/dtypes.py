"""torch's dtypes as kernels know them: what they take, what they compute in, and what autocast makes of a call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DtypeMismatch
from ..ir import dtypes
from ..ir.source import Slot

NAMES: dict[torch.dtype, str] = {getattr(torch, name): name for name in dtypes.DTYPES}
NARROW = tuple(getattr(torch, name) for name in dtypes.NARROW)
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
REAL = {c: r for r, c in COMPLEX.items()}
_TENSORS: dict[str, torch.dtype] = {**{name: dtype for dtype, name in NAMES.items()}, "uint8": torch.bool}


def check_dtype(name: str, tensor: Tensor) -> None:
    """Raise DtypeMismatch unless the kernels know the dtype."""
    if tensor.dtype not in NAMES:
        *others, last = dtypes.DTYPES
        raise DtypeMismatch(f"{name} is {short(tensor.dtype)}, not {', '.join(others)} or {last}", None, f"give {name}.float()")


def short(dtype: torch.dtype) -> str:
    """`float32`."""
    return str(dtype).removeprefix("torch.")


def compute(dtype: torch.dtype) -> torch.dtype:
    """What kernels for tensors of a dtype compute in, and keep states in."""
    return torch.float32 if dtype in NARROW else dtype


def fits(value: Tensor, like: Tensor) -> bool:
    """Whether a state or a learned number goes with sequences: it may have their dtype, or that of the arithmetic; complex
    numbers have the dtype of their parts."""
    real = REAL.get(like.dtype, like.dtype)
    return REAL.get(value.dtype, value.dtype) in (real, compute(real)) and value.device == like.device


def dtype_of(slot: Slot, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a slot's tensor in a call whose sequences are `dtype`. What comes in parts in the dtype of the arithmetic is
    added up to one in that of what it is the gradient of: of a learned number, or of a sequence that channels share."""
    if slot.kind in ("sum", "shared"):
        return compute(dtype) if slot.full else dtype
    return _TENSORS[slot.dtype(NAMES[dtype])]


def autocasts(tensor: Tensor) -> bool:
    """Whether the tensor is on a device where an autocast region is entered."""
    return tensor.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(tensor.device.type)


def lowered(tensor: Tensor) -> Tensor:
    """An input of a layer in an autocast region: in the region's dtype, as torch.nn.LSTM has it. What has no such form stays:
    float64, complex numbers, integers."""
    if tensor.dtype is torch.float64 or not tensor.is_floating_point() or not autocasts(tensor):
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def widened(tensor: Tensor) -> Tensor:
    """16 bits become float32."""
    return tensor.float() if tensor.dtype in NARROW else tensor


def settled(slots: Sequence[Slot], args: tuple[Tensor | None, ...]) -> tuple[tuple[Tensor | None, ...], bool]:
    """The arguments of an op in dtypes that a kernel takes, where some have 16 bits; and whether its learned numbers have more.

    States are float32, and so are learned numbers unless all of them have the sequences' dtype. In an autocast region nothing
    is rounded here: as torch.cat does, sequences of several dtypes become float32.
    """
    sequences = [a for s, a in zip(slots, args, strict=True) if s.kind == "sequence" and not s.full and a is not None]
    learned = [a for s, a in zip(slots, args, strict=True) if s.kind == "vector" and not s.full and a is not None]
    like = (sequences or learned)[0].dtype if sequences or learned else torch.float32
    if like not in NARROW or any(a.dtype is not like for a in sequences):
        return tuple(a if a is None else widened(a) for a in args) if any(map(autocasts, sequences)) else args, False
    precise = any(a.dtype is not like for a in learned)
    kept = [not s.full and (s.kind == "sequence" or (s.kind == "vector" and not precise)) for s in slots]
    return tuple(a if a is None or k else widened(a) for a, k in zip(args, kept, strict=True)), precise
