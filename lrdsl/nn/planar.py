"""Complex tensors at the door of real kernels.

Behind the door every complex sequence is two real ones (`passes.realify`). Where Programs alone read or write both parts, the
kernels do so in the complex tensor's own memory (`Plan.pairs`): inputs, outputs and the gradients of both go through the door
as they are. What a dense map reads or writes, edges, learned numbers and weights are taken apart on the way in and put together
on the way out, by a copy. A real tensor where a complex one may stand has the imaginary part 0, as torch's promotion has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DtypeMismatch
from ..ir.spec import Spec
from ..passes.halves import halves, map_halves, whole
from ..passes.realify import realify
from .carry import NONE, Window
from .dtypes import COMPLEX, REAL, compute, widened
from .pipeline import Pipeline
from .products import Weights
from .segments import Segments
from .windows import time_first


def dtype_of(like: torch.dtype, complex: bool) -> torch.dtype:
    """The dtype of the same precision for real or for complex numbers."""
    real = REAL.get(like, like)
    return COMPLEX.get(real, real) if complex else real


def real_view(what: str, value: Tensor, spec: Spec, name: str) -> Tensor:
    """The tensor, or its real part, to be asked for dtype and device; DtypeMismatch where `name` takes no complex numbers."""
    if not value.is_complex():
        return value
    if name not in spec.complex:
        declared = next((d for d in spec.declared if d.name == name), None)
        kind = f"lr.{declared.kind.capitalize()}" if declared else "…"
        raise DtypeMismatch(f"{what} is {value.dtype}, and {name} is declared real", declared.where if declared else None,
                            f"declare {name}: {kind} = {kind}(complex=True), or give a real part, as value.real")
    return value.real


def full(what: str, value: Any, like: Tensor, shape: tuple[int, ...], spec: Spec, name: str) -> Tensor:
    """A number as a tensor of the precision and device of `like`, real or complex as `name` is declared."""
    dtype = dtype_of(compute(like.dtype), name in spec.complex)
    if isinstance(value, complex) and not dtype.is_complex:
        raise DtypeMismatch(f"{what} is {value}, and {name} is declared real", None, "give a real number")
    return torch.full(shape, value, dtype=dtype, device=like.device)


def apart(value: Tensor) -> tuple[Tensor, Tensor]:
    """The real and the imaginary part, each dense, in the memory order of a sequence (B, T, C)."""
    if not value.is_complex():
        return value, torch.zeros_like(value)
    if not value.numel():  # torch cannot pull an empty gradient back through what follows
        return value.real, value.imag
    in_time = value.dim() == 3 and time_first(value)
    pairs = torch.view_as_real((value.transpose(0, 1) if in_time else value).resolve_conj())
    re, im = pairs.movedim(-1, 0).contiguous().unbind(0)
    return (re.transpose(0, 1), im.transpose(0, 1)) if in_time else (re, im)


def pairs_of(value: Tensor) -> Tensor:
    """The parts (B, T, C, 2) of a sequence (B, T, C), where they lie; a real one is copied, in its memory order."""
    if value.is_complex():
        value = value.resolve_conj()
        return torch.view_as_real(value.transpose(*_swapped(value))).transpose(*_swapped(value))
    in_time = time_first(value)
    value = value.transpose(0, 1) if in_time else value
    pairs = torch.stack((value, torch.zeros_like(value)), -1)
    return pairs.transpose(0, 1) if in_time else pairs


def complex_of(pairs: Tensor) -> Tensor:
    """The complex numbers (B, T, C) of parts (B, T, C, 2), in the same memory."""
    return torch.view_as_complex(widened(pairs).transpose(*_swapped(pairs))).transpose(*_swapped(pairs))


def _swapped(sequence: Tensor) -> tuple[int, int]:
    """The dimensions that lie in memory the other way round. On its way back through view_as_real and view_as_complex torch
    makes a gradient contiguous: it is if they are swapped."""
    return (0, 1) if time_first(sequence) else (1, 2) if sequence.stride(1) < sequence.stride(2) else (0, 0)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """torch's, which has none for complex tensors: both parts of a value are dropped together."""
    return x * F.dropout(torch.ones_like(x.real), p, training) if x.is_complex() else F.dropout(x, p, training)


class Planar(Pipeline):
    """A cell with complex values, ready to run: to its caller a Pipeline of the cell as written, of complex tensors."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.inner = spec, Pipeline(realify(spec))
        self.steps = ()
        self.plan, self.reverse, self.solved = whole(self.inner.plan, spec), self.inner.reverse, self.inner.solved
        self._pairs, self._maps = halves(spec), map_halves(spec)
        self._pairs = {**self._pairs, **{f"{n}.bias": (f"{re}.bias", f"{im}.bias") for n, (re, im) in self._maps.items()}}
        # How many operands a complex map with a size of its own has.
        self._doubled = {a.name: len(a.operands) for a in self.plan.affines if a.size != "hidden" and a.name in self._maps}
        whose = {half: name for name, pair in self._pairs.items() for half in pair}
        # The name of an edge, to its caller and inside.
        self._keys: dict[str, list[str]] = {}
        for key, s in self.inner.sequences.items():
            self._keys.setdefault(whose.get(s.name, s.name) + key.removeprefix(s.name), []).append(key)
        self.sequences = dict(zip(self._keys, self.plan.sequences, strict=True))
        self.looks_ahead, self.channelwise = (tuple(dict.fromkeys(whose.get(n, n) for n in names))
                                              for names in (self.inner.looks_ahead, self.inner.channelwise))

    def __call__(self, inputs: Mapping[str, Tensor], learned: Mapping[str, Tensor], weights: Weights,
                 windows: Mapping[str, Window], reset: Tensor | None, channels: int,
                 segments: Segments | None = None) -> dict[str, Tensor | None]:
        """The values of the real run; `outputs` and `carried` know what to make of them."""
        together = {name: pairs_of(inputs[name]) for name, *_ in self.inner.plan.pairs if name in inputs}
        given, numbers = ({half: part for name, value in some.items() if name not in together
                           for half, part in self._apart(name, value, self._pairs)} for some in (inputs, learned))
        given |= together
        return self.inner(given, numbers, self._weights(weights), self._windows(windows), reset, channels, segments)

    @staticmethod
    def _apart(name: str, value: Tensor, pairs: Mapping[str, tuple[str, str]]) -> Any:
        return zip(pairs[name], apart(value), strict=True) if name in pairs else ((name, value),)

    def _weights(self, weights: Weights) -> Weights:
        """Those of the real maps (see `passes.realify`)."""
        found: dict[tuple[str, int], Tensor] = {}
        for (affine, k), weight in weights.items():
            if affine not in self._maps:
                found[affine, k] = weight
                continue
            (W_re, W_im), (re, im) = self._maps[affine], apart(weight)
            found |= {(W_re, k): re, (W_im, k): im}
            if affine in self._doubled:
                found |= {(W_re, self._doubled[affine] + k): -im, (W_im, self._doubled[affine] + k): re}
        return found

    def _windows(self, windows: Mapping[str, Window]) -> dict[str, Window]:
        found: dict[str, Window] = {}
        for key, (start, edge) in windows.items():
            names = self._keys[key]
            if len(names) == 1:
                found[names[0]] = start, edge
                continue
            first = (None, None) if start is None else apart(start)
            second = first if edge is start else (None, None) if edge is None else apart(edge)
            found |= dict(zip(names, zip(first, second, strict=True), strict=True))
        return found

    def outputs(self, values: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """What the cell returns, (B, T, channels) each, complex where it is; complex64 where real ones have 16 bits."""
        return tuple(values[e.base] if not e.complex else complex_of(values[e.base]) if e.base in values else
                     torch.complex(*(widened(values[half]) for half in self._pairs[e.base])) for _, e in self.spec.outputs)

    def carried(self, values: Mapping[str, Any], windows: Mapping[str, Window], reset: Tensor | None,
                inputs: bool = True, segments: Segments | None = None) -> dict[str, Window]:
        """(final window, edge) of every sequence that is read at a lag, as it was given."""
        inner = self.inner.carried(values, self._windows(windows), reset, inputs, segments)
        found: dict[str, Window] = {}
        for key, names in self._keys.items():
            last: list[Any] = [inner[n][0] for n in names if n in inner]
            if last:
                found[key] = last[0] if len(last) == 1 else torch.complex(*last), windows.get(key, NONE)[1]
        return found
