"""A Program with numbers in memory: what a kernel of it makes of them on the emulator, beside the definition.

The definition is `reference`, in float64. What counts is the largest difference over 1 + the largest number; channels whose
numbers run out of the kernel's range are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ir import functions as f
from ..ir.functions import Elementwise
from ..ir.program import Program
from ..ir.source import OUTPUTS, RESET, Extent, Slot, slots
from .emulated import Counts, Emulator, Schedule
from .memory import numbers, stored
from .reference import partial_run

Array = Any

ALLOWED = {"float32": 1e-3, "float64": 1e-9, "bfloat16": 8e-3, "float16": 2e-3}  # 2^-8, 2^-11 of it to round what is written
RANGE = {"float32": 1e30, "float64": 1e290, "bfloat16": 1e30, "float16": 3e4}
LAYOUTS = ("plain", "time first", "gaps")
KINDS, WILD = 5, 4  # of channels, see `_drawn`
# Where these are, a number that is rounded otherwise may take the other branch: a few channels in float32 then prove nothing.
KINKS = frozenset(("where", "maximum", "minimum", "relu", "abs", "sign", "greater", "greater_equal", "equal"))


class Problem:
    """A Program with numbers in memory, and its solution. Numbers are those of a dtype, so that all kernels see the same:
    float32, which is float64 as well, or one of 16 bits."""

    def __init__(self, program: Program, sizes: tuple[int, int, int], reset: bool, edges: bool, layout: str,
                 dtype: str = "float32") -> None:
        self.program, self.sizes, self.reset, self.layout = program, sizes, reset, layout
        (B, T, _), rng = sizes, np.random.default_rng([*sizes, reset, edges])
        kinds = KINDS - 1 if program.axis else KINDS  # a wild channel would leave nothing of what channels share
        self.inputs = {s.name: self._drawn(rng, s, kinds) if s.kind != "edge" or edges else None
                       for s in slots(program) if s.kind not in (*OUTPUTS, "reset")}
        self.inputs = {n: a if a is None else numbers(stored(a, dtype), dtype) for n, a in self.inputs.items()}
        self.inputs[RESET] = rng.random((B, T)) < 4 / (T + 3) if reset else None
        every = {s.name: s for s in slots(program)}
        flat = {n: a if a is None or a.ndim < 4 or every[n].paired else a.reshape(*a.shape[:2], -1)
                for n, a in self.inputs.items()}
        boundaries = flat.pop(RESET)
        self.want = {n: self._by_channel(every[n], a) for n, a in partial_run(program, flat, boundaries).items()}
        called = {f.name_of(e) for step in program.steps for expr in step.exprs for e in expr.atoms(Elementwise)}
        self.kinked = bool(called & KINKS)
        # Of a channel where the definition itself takes another branch when its values are rounded, nothing is asked. Ties
        # between numbers that need no rounding remain.
        self.sure = np.ones(sizes[2], bool)
        for n, a in partial_run(program, flat, boundaries, _rounded).items() if self.kinked else ():
            if self.want[n].shape[1] == sizes[2]:
                with np.errstate(all="ignore"):
                    apart = np.abs(self._by_channel(every[n], a) - self.want[n]) / (1 + np.abs(self.want[n]).max(0))
                self.sure &= ~(apart > ALLOWED["float32"]).any(0)

    def __str__(self) -> str:
        B, T, C = self.sizes
        given = "with" if self.reset else "without"
        return f"batch {B}, {T} steps, {C} channels, {given} boundaries, layout {self.layout!r}"

    def _shape(self, slot: Slot, extent: Extent | None = None) -> tuple[int, ...]:
        """As `Slot.shape`, with B, and columns, as axes of their own."""
        B, T, C = self.sizes
        width = (C, 2) if slot.paired else (slot.columns, C) if slot.channels else (1, slot.columns)
        parts = 1 if extent is None else extent.parts_of(slot)
        rows = -(-T // slot.every)
        return {"sequence": (B, rows, *width), "keep": (B, rows, *width), "edge": (B, slot.depth, *width), "vector": width,
                "sum": (parts, B, *width), "shared": (parts, B, T, *width), "final": (B, slot.depth, *width),
                "crossing": (parts, B, slot.depth, *width), "reset": (B, T)}[slot.kind]

    def _drawn(self, rng: np.random.Generator, slot: Slot, kinds: int) -> Array:
        shape, T = self._shape(slot), self.sizes[1]
        if not slot.paired:
            return _drawn(rng, shape, T, kinds)
        return np.moveaxis(_drawn(rng, (*shape[:2], 2, shape[2]), T, kinds), 2, 3)

    def _by_channel(self, slot: Slot, values: Array) -> Array:
        """(…, channels)"""
        values = np.moveaxis(values, 2, 3) if slot.paired else values
        return values.reshape(-1, self.sizes[2] if slot.channels else slot.columns)

    def run(self, emulator: Emulator, way: Schedule) -> tuple[float, Counts]:
        """(the largest error, what was moved) of a launch. Raises EmulationError."""
        dtype, values, outputs = emulator.source.dtype, list[int](), dict[str, Array]()
        alive = []  # until the launch is over
        extent = emulator.source.extent(*self.sizes)
        for s in slots(self.program):
            given = self.inputs.get(s.name)
            if s.kind in OUTPUTS:
                given = np.full(self._shape(s, extent), np.nan)
            if given is None:
                values += [0] * len(s.fields)
                continue
            strided = s.kind in ("sequence", "keep", "edge", "reset")
            array = _placed(stored(given, s.dtype(dtype)), self.layout if strided else "plain", 7 * (1 + s.paired))
            alive.append(array)
            if s.kind in OUTPUTS:
                outputs[s.name] = array
            size = array.itemsize * (1 + s.paired)
            values += [array.ctypes.data, *(n // size for n in array.strides[:len(s.fields) - 1])]
        counts = emulator.run([*values, *self.sizes], way)
        with np.errstate(all="ignore"):
            return self._error(outputs, dtype), counts

    def _error(self, outputs: dict[str, Array], dtype: str) -> float:
        """The largest difference over 1 + the largest number: of its channel, or of all, where a channel has but a few."""
        outs, C = {s.name: s for s in slots(self.program)}, self.sizes[2]
        outputs = {n: numbers(a, outs[n].dtype(dtype)) for n, a in outputs.items()}
        largest = {n: np.abs(a).max(0) for n, a in self.want.items() if outs[n].channels}
        compared = self.sure & (np.arange(C) % KINDS != (KINDS if self.program.axis else WILD))
        for found in largest.values():
            compared &= found < RANGE[dtype]
        errors, peaks = [0.0], {s.name for s in self.program.sums if s.largest}
        for n, a in outputs.items():
            join = np.max if n in peaks else np.sum
            got = self._by_channel(outs[n], join(a, 0) if outs[n].kind in ("sum", "crossing", "shared") else a)
            if not outs[n].channels:  # what all channels share is right if all of them are
                if compared.all() and not (self.kinked and dtype != "float64"):
                    error = np.abs(got - self.want[n]).max() / (1 + np.abs(self.want[n]).max())
                    errors.append(np.inf if np.isnan(error) else error)
                continue
            scale = largest[n] if outs[n].kind == "keep" else largest[n].max(where=compared, initial=0.0)
            apart = (np.abs(got - self.want[n]).max(0) / (1 + scale))[compared]
            apart = np.sort(np.where(np.isnan(apart), np.inf, apart))
            if self.kinked and dtype != "float64":
                apart = apart[:max(1, len(apart) * 9 // 10)]
            errors += apart[-1:].tolist()
        return max(errors)


def _rounded(values: Array) -> Array:
    return values.astype(np.float32).astype(np.float64)


def _drawn(rng: np.random.Generator, shape: tuple[int, ...], T: int, count: int = KINDS) -> Array:
    """Numbers that show faults, a kind for each channel: near 1, so that the first step is felt in the last one; multiples of
    1/4, where ties occur; between -1 and 1; a few large ones among them, which open gates and close them; and wild ones, which
    grow beyond all bounds in most recurrences: there it is only asked that the kernel comes to an end."""
    near, small, wild = 1 - rng.random(shape) * 4 / (T + 4), rng.uniform(-1, 1, shape), rng.uniform(-6, 6, shape)
    kinds = (near, np.round(small * 4) / 4, small, np.where(rng.random(shape) < 0.1, wild, small / 2), wild)
    return np.choose(np.broadcast_to(np.arange(shape[-1]) % count, shape), kinds)


def _placed(values: Array, layout: str, gap: int) -> Array:
    """A copy with the strides of a layout, aligned as a GPU's memory where there are no gaps of so many numbers."""
    stored = np.moveaxis(values, 1, 0) if layout == "time first" else values
    rows, row = stored.shape[:2], stored.shape[2:]
    width = int(np.prod(row, dtype=int))
    pad = gap if layout == "gaps" else 0
    size = int(np.prod(rows, dtype=int)) * (width + pad)
    room = np.empty(size + 256, values.dtype)
    start = -room.ctypes.data % 256 // values.itemsize
    inside = room[start:start + size].reshape(*rows, width + pad)[..., :width].reshape(stored.shape)
    assert np.shares_memory(inside, room)
    inside[...] = stored
    return np.moveaxis(inside, 0, 1) if layout == "time first" else inside
