"""Is a cell's CUDA right? Each of its kernels runs on the emulator under every schedule, and is compared with the definition.

    print(check(cell))

Programs: the cell as it runs, its gradient, the gradient of that, and its tangent; each in every strategy and dtype. Sizes:
short and odd ones, both sides of a chunk, and longer than any group of chunks. The definition is `backends.reference`, in
float64. What counts is the largest difference over 1 + the largest number; channels whose numbers run out of the kernel's range
are left out.

Non-goals: dense maps, which are torch's; speed; what only a GPU shows.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backends.emulated import SCHEDULES, Counts, EmulationError, Emulator, Schedule
from .backends.memory import numbers, stored
from .backends.reference import partial_run
from .frontend.cell import Cell
from .ir import functions as f
from .ir.dtypes import DTYPES, NARROW
from .ir.functions import Elementwise
from .ir.kernel import Strategy
from .ir.program import Program
from .ir.source import OUTPUTS, RESET, Extent, Slot, Source, slots
from .kernels import source_of
from .passes.replay import unbordered
from .passes.schedule import schedule, strategies
from .programs import adjoint_of, inner_keeps, iteration_of, plan_of, tangent_of

Array = Any

ALLOWED = {"float32": 1e-3, "float64": 1e-9, "bfloat16": 8e-3, "float16": 2e-3}  # 2^-8, 2^-11 of it to round what is written
RANGE = {"float32": 1e30, "float64": 1e290, "bfloat16": 1e30, "float16": 3e4}
MANY_CHUNKS = 31  # more than look back together as one group
LAYOUTS = ("plain", "time first", "gaps")
# Where these are, a number that is rounded otherwise may take the other branch: a few channels in float32 then prove nothing.
KINKS = frozenset(("where", "maximum", "minimum", "relu", "abs", "sign", "greater", "greater_equal", "equal"))


@dataclass(frozen=True)
class Row:
    """One kernel: how often it ran, how far it was from the definition, and the bytes that it moves a step and channel, with
    the least that it must. fault: what it did wrong first, or ""."""

    program: str
    strategy: str
    dtype: str
    launches: int
    error: float
    moved: float
    floor: float
    fault: str


@dataclass(frozen=True)
class Checked:
    """The kernels of a cell. It prints as a table and a verdict."""

    cell: str
    rows: tuple[Row, ...]

    @property
    def right(self) -> bool:
        """Whether no kernel did anything wrong."""
        return not any(r.fault for r in self.rows)

    def __str__(self) -> str:
        table = [("program", "strategy", "dtype", "launches", "largest error", "bytes a step and channel")]
        table += [(r.program, r.strategy, r.dtype, str(r.launches), f"{r.error:.1e}", f"{r.moved:.2f}, floor {r.floor:g}")
                  for r in self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]
        lines += ["", "error: difference over 1 + the channel's largest number, at most " + ", ".join(
            f"{allowed:g} in {dtype}" for dtype, allowed in ALLOWED.items())]
        lines += [f"\nFAULT in {r.program}, {r.strategy}, {r.dtype}: {r.fault}" for r in self.rows if r.fault]
        wrong, launches = sum(bool(r.fault) for r in self.rows), sum(r.launches for r in self.rows)
        return "\n".join([*lines, "", f"{self.cell}: {wrong} of {len(self.rows)} kernels are wrong" if wrong else
                          f"{self.cell}: all {len(self.rows)} kernels agree with the definition in {launches} launches under "
                          f"{len(SCHEDULES)} schedules, without a bad access, race or deadlock"])


def check(cell: Cell) -> Checked:
    """Check every kernel of a cell. Raises NotLinear and its kin, BackendUnavailable without a C++ compiler."""
    kernels = [(p, strategy, dtype) for p in _programs(cell) for strategy in strategies(p, "cuda") for dtype in DTYPES]
    with ThreadPoolExecutor(2) as pool:  # compilers run side by side; launches do not
        built = list(pool.map(lambda k: Emulator(source_of(k[0], "cuda", k[2], strategy=k[1])), kernels))
    solved = functools.cache(Problem)
    rows = (_row(program, strategy, emulator, solved)
            for (program, strategy, _), emulator in zip(kernels, built, strict=True))
    return Checked(cell.spec.name, tuple(rows))


def _programs(cell: Cell) -> tuple[Program, ...]:
    found: dict[str, Program] = {}
    for forward in plan_of(cell.spec).programs:
        backward = adjoint_of(forward, inner_keeps(forward)).program
        every = unbordered(forward)
        second = adjoint_of(adjoint_of(every, inner_keeps(every)).program, frozenset()).program
        solver = iteration_of(forward) if forward.solver else None
        for p in (forward, *((solver.step, solver.finish) if solver else ()), backward, second, tangent_of(forward).program):
            found.setdefault(p.digest, p)
    return tuple(found.values())


def _row(program: Program, strategy: Strategy, emulator: Emulator, solved: Callable[..., Problem]) -> Row:
    source = emulator.source
    floor = sum(schedule(program, "cuda", source.dtype, strategy).bytes)
    launches, worst, moved, fault = 0, 0.0, 0.0, ""
    for case, way in _cases(source):
        problem = solved(program, *case, source.dtype if source.dtype in NARROW else "float32")
        launches += 1
        try:
            error, counts = problem.run(emulator, way)
        except EmulationError as found:
            fault = f"{problem}\n{found}"
            break
        worst = max(worst, error)
        if not error <= ALLOWED[source.dtype]:
            fault = f"{problem}\nnumbers that differ by {error:.1e} from the definition's\n  again with {way}"
            break
        B, T, C = problem.sizes
        moved = (counts.loaded() + counts.stored() + sum(counts.messages)) / (B * T * C)  # in the end, of the last one
    return Row(program.name, strategy, source.dtype, launches, worst, moved, floor, fault)


def _cases(source: Source) -> Iterator[tuple[tuple[tuple[int, int, int], bool, bool, str], Schedule]]:
    """((sizes, with boundaries, with edges, layout), schedule): short sequences under every one, a long one under the most
    adverse, and then under the simplest, where it counts what a kernel moves."""
    chunk = source.chunk or 64
    sizes = ((2, 1, 33), (3, 2, 5), (1, 31, 1), (2, 33, 33), (3, chunk - 1, 5), (1, chunk, 1), (2, chunk + 1, 33),
             (2, 3 * chunk + 5, 33))
    cases = [(size, k % 2 == 0 or k == 7, k // 2 % 2 == 0, LAYOUTS[k % 3]) for k, size in enumerate(sizes)]
    # Kernels for 16 bits are those for float32 but for what a load and a store do: two schedules are enough.
    yield from itertools.product(cases, (SCHEDULES[0], SCHEDULES[-1]) if source.dtype in NARROW else SCHEDULES)
    long = (1, (MANY_CHUNKS if source.chunk else 4) * chunk, 64), False, False, "plain"
    yield from itertools.product([long], (*SCHEDULES[-2:], SCHEDULES[0]))


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


KINDS, WILD = 5, 4


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
