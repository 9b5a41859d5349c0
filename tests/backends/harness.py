"""Programs on raw memory: the same problem laid out in every way that a kernel must bear, with guards around its tensors.

A `Problem` is solved once by the reference, at its full size. Batch elements and channels do not know of each other, so that
every smaller size is a slice of that solution.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import lrdsl as lr
from lrdsl.backends import native
from lrdsl.backends.memory import numbers, stored
from lrdsl.backends.reference import partial_run
from lrdsl.ir.dtypes import NARROW
from lrdsl.ir.kernel import Strategy
from lrdsl.ir.program import Program
from lrdsl.ir.source import OUTPUTS, RESET, Launch, Slot, slots
from lrdsl.kernels import source_of
from lrdsl.passes.replay import unbordered
from lrdsl.programs import adjoint_of, inner_keeps, plan_of, tangent_of

Array = Any
KINDS = ("forward", "backward", "second", "tangent")
LAYOUTS = ("plain", "time major", "columns")
GUARD = 40  # numbers before and after each tensor
NAN_OF_BFLOAT16 = 0x7FC0  # in the integers that stand for it in numpy
PAIRS = {"float32": "complex64", "float64": "complex128", "uint16": "uint32", "float16": "uint32"}  # two numbers as one
FILL = {"uint8": 255, "uint16": NAN_OF_BFLOAT16, "uint32": NAN_OF_BFLOAT16 * 0x10001}


def programs(cell: lr.Cell, kinds: Sequence[str] = KINDS) -> list[Program]:
    """The Programs of a cell: as it runs, its gradient as in training, the gradient of that, and its tangent."""
    found = []
    for forward in plan_of(cell.spec).programs:
        backward = adjoint_of(forward, inner_keeps(forward)).program
        every = unbordered(forward)
        whole = adjoint_of(every, inner_keeps(every)).program
        made = {"forward": forward, "backward": backward, "second": adjoint_of(whole, frozenset()).program,
                "tangent": tangent_of(forward).program}
        found += [made[kind] for kind in kinds]
    return found


def load(program: Program, dtype: str, change: Callable[[str], str] = str, strategy: Strategy = "rows") -> Launch:
    """A native kernel of a Program; `change` may edit its text."""
    source = source_of(program, "cpu", dtype, strategy=strategy)
    return native.load(replace(source, text=change(source.text)))


def load_all(wanted: Sequence[tuple[Program, str]]) -> None:
    """Compile side by side: a later `load` finds them in the cache."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda w: native.build(source_of(w[0], "cpu", w[1])), wanted))


def shape(slot: Slot, B: int, T: int, C: int, lone: bool = False, parts: int = 0) -> tuple[int, ...]:
    """The shape of a slot's tensor, columns as an axis of their own; of a sum's parts, where these are named."""
    several = (parts,) if parts else ()
    return {"sequence": (B, T, slot.columns, C), "keep": (B, T, slot.columns, C), "vector": (1 if lone else C,),
            "edge": (B, slot.depth, C), "final": (B, slot.depth, C), "crossing": (*several, B, slot.depth, C),
            "sum": (*several, B, C), "reset": (B, T)}[slot.kind]


@dataclass
class Call:
    """Tensors in memory. values: what a kernel is launched with; memory: (all of it, as it was)."""

    values: list[int]
    outputs: dict[str, Array]
    memory: list[tuple[Array, Array]]

    def disturbed(self) -> bool:
        """Whether anything but the outputs changed; empties these."""
        for out in self.outputs.values():
            out[...] = NAN_OF_BFLOAT16 if out.dtype == np.uint16 else np.nan
        return any(now.tobytes() != before.tobytes() for now, before in self.memory)


class Problem:
    """A Program with numbers for all its inputs, and its solution by the reference, in float64.

    reset: "none", "some" or "every" step is a boundary. edges: "given", "constant" or "mixed". same: "time" or "batch" repeats
    one step (one batch element) through a stride of 0. Numbers are those of `dtype` in (-size, size), float32 numbers where a
    tensor is `full`; in every other channel they are multiples of 1/4, so that ties occur. `given` replaces inputs.
    """

    def __init__(self, program: Program, T: int, *, reset: str = "some", edges: str = "mixed", same: str = "",
                 size: float = 0.5, given: Mapping[str, Array] | None = None, B: int = 3, C: int = 100,
                 dtype: str = "float32") -> None:
        self.program, self.B, self.T, self.C, self.same = program, B, T, C, same
        self.slots = {s.name: s for s in slots(program)}
        self.lone = frozenset(v.name for v in program.vectors if v.shape == "one")
        rng = np.random.default_rng(zlib.crc32(f"{program.name} {T} {reset} {edges} {same}".encode()))
        self.inputs: dict[str, Array | None] = {}
        for s in self.slots.values():
            if s.kind in ("sequence", "vector", "edge"):
                values = rng.uniform(-size, size, shape(s, B, T, C, s.name in self.lone))
                if s.name not in self.lone:
                    values[..., ::2] = np.round(values[..., ::2] * 4) / 4
                present = s.kind != "edge" or edges == "given" or (edges == "mixed" and rng.random() < 0.5)
                kind = "float32" if s.full else dtype
                self.inputs[s.name] = self._repeated(s, numbers(stored(values, kind), kind)) if present else None
        dice = rng.random((B, T))
        self.inputs[RESET] = {"none": None, "some": dice < 0.15, "every": dice < 2}[reset]
        if self.inputs[RESET] is not None:
            self.inputs[RESET] = self._repeated(self.slots[RESET], self.inputs[RESET])
        self.inputs |= given or {}

    @functools.cached_property
    def want(self) -> dict[str, Array]:
        """What the reference makes of it."""
        flat = {n: v if v is None or v.ndim < 4 else np.moveaxis(v, 2, 3) if self.slots[n].paired else
                v.reshape(*v.shape[:2], v.shape[2] * self.C) for n, v in self.inputs.items()}
        found = partial_run(self.program, flat, flat.pop(RESET))
        return {n: np.moveaxis(v, 3, 2) if self.slots[n].paired else v for n, v in found.items()}

    def _repeats(self, slot: Slot) -> tuple[bool, bool]:
        """Whether batch elements, and steps, of an input are all the same."""
        return (self.same == "batch" and slot.kind in ("sequence", "edge", "reset"),
                self.same == "time" and slot.kind in ("sequence", "reset"))

    def _repeated(self, slot: Slot, values: Array) -> Array:
        batch, time = self._repeats(slot)
        values = values[:1] if batch else values[:, :1] if time else values
        return np.broadcast_to(values, shape(slot, self.B, self.T, self.C, slot.name in self.lone))

    def lay_out(self, B: int, C: int, layout: str, dtype: str, parts: int = 1) -> Call:
        """The problem's first B batch elements and C channels in memory. Sums come in `parts`."""
        values: list[int] = []
        outputs: dict[str, Array] = {}
        memory, turned = [], layout == "turned"
        for s in self.slots.values():
            written = s.kind in OUTPUTS
            full = self.inputs.get(s.name)
            if full is None and not written:
                values += [0] * len(s.fields)
                continue
            part = shape(s, B, self.T, C, s.name in self.lone, parts)
            if written:
                whole, view = self._placed(s, stored(np.full(part, np.nan), s.dtype(dtype)), layout if s.kind == "keep" else "")
                outputs[s.name] = view
            else:
                batch, time = self._repeats(s)
                inside = stored(full[tuple(slice(n) for n in part)], s.dtype(dtype))
                once = inside[:1] if batch else inside[:, :1] if time and not turned else inside
                placed = s.kind == "sequence" or (s.kind in ("edge", "reset") and not turned)
                whole, view = self._placed(s, once, layout if placed else "")
                view = np.broadcast_to(view, part)
            memory.append((whole, whole.copy()))
            size = view.itemsize * (1 + s.paired)
            strides = [n // size for n in view.strides[:len(s.fields) - 1]]
            if turned and s.kind in ("sequence", "keep"):
                strides[1] = view.strides[2] // size // C if s.columns > 1 and not s.paired else view.strides[3] // size
            values += [view.ctypes.data, *strides]
        return Call([*values, B, self.T, C], outputs, memory)

    @staticmethod
    def _placed(slot: Slot, values: Array, layout: str) -> tuple[Array, Array]:
        """As `_placed`; the parts of a pair lie next to each other."""
        if not slot.paired:
            return _placed(values, layout)
        pairs = np.ascontiguousarray(np.moveaxis(values, 2, 3)).view(PAIRS[values.dtype.name])
        whole, view = _placed(np.moveaxis(pairs, 3, 2), layout)
        return whole, np.moveaxis(view[:, :, 0, :, None].view(values.dtype), 3, 2)

    def wanted(self, name: str, B: int, C: int) -> Array:
        """The solution of one output at a size."""
        return self.want[name].reshape(shape(self.slots[name], self.B, self.T, self.C))[:B, ..., :C]

    def solve(self, launch: Launch, B: int = 3, C: int = 100, layout: str = "plain", dtype: str = "float64",
              threads: int = 1) -> dict[str, Array]:
        """The outputs that a kernel gives. Raises AssertionError where it wrote beyond them."""
        extent = launch.extent(B, self.T, C)
        call = self.lay_out(B, C, layout, dtype, extent.parts)
        scratch = np.zeros(extent.scratch // 8 + 2, np.int64)
        address = scratch.ctypes.data + 15 & ~15
        if layout == "turned":
            assert launch.turned is not None
            launch.turned(call.values, threads, 0, 0, 0)
        elif B * self.T * C or extent.parts == 1:
            launch(call.values, threads, scratch=address)
        outputs = self.read(call, dtype)
        assert not call.disturbed(), f"{self.program.name} wrote outside its outputs"
        return outputs

    def read(self, call: Call, dtype: str) -> dict[str, Array]:
        """The outputs of a call as numbers."""
        return {name: out.sum(0) if self.slots[name].kind in ("sum", "crossing") else
                numbers(out, kind) if (kind := self.slots[name].dtype(dtype)) in NARROW else out.copy()
                for name, out in call.outputs.items()}

    def error(self, outputs: Mapping[str, Array]) -> float:
        """The largest error of any output over 1 + that output's largest magnitude; inf where one of them is nan."""
        worst = 0.0
        for name, got in outputs.items():
            want = self.wanted(name, got.shape[0], got.shape[-1])
            if want.size:
                error = float(np.abs(got - want).max() / (1 + np.abs(want).max()))
                worst = max(worst, np.inf if np.isnan(error) else error)
        return worst


def _placed(values: Array, layout: str) -> tuple[Array, Array]:
    """(all memory, a copy of an array in its midst, with the strides of a layout). Around it all is nan, or 255."""
    if layout == "turned":
        whole, inside = _placed(np.moveaxis(values, 1, -1), "")
        return whole, np.moveaxis(inside, -1, 1)
    swapped = layout == "time major" and values.ndim > 1
    stored = np.moveaxis(values, 1, 0) if swapped else values
    rows = stored.shape[:2] if layout and values.ndim > 1 else ()
    width = int(np.prod(stored.shape[len(rows):], dtype=int))
    pad = 7 if layout == "columns" else 0
    count = int(np.prod(rows, dtype=int)) * (width + pad)
    fill = FILL.get(values.dtype.name, complex(np.nan, np.nan) if np.iscomplexobj(values) else np.nan)
    whole = np.full(count + 2 * GUARD, fill, values.dtype)
    inside = whole[GUARD:GUARD + count].reshape(*rows, width + pad)[..., pad // 2:pad // 2 + width].reshape(stored.shape)
    assert not inside.size or np.shares_memory(inside, whole)
    inside[...] = stored
    return whole, np.moveaxis(inside, 0, 1) if swapped else inside
