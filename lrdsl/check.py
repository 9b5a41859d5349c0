"""Is a cell's CUDA right? Each of its kernels runs on the emulator under every schedule, and is compared with the definition.

    print(check(cell))

Programs: the cell as it runs, its gradient, the gradient of that, and its tangent; each in every strategy and dtype. Sizes:
short and odd ones, both sides of a chunk, and longer than any group of chunks. The definition is `backends.reference`, in
float64 (`backends.problem`).

Non-goals: dense maps, which are torch's; speed; what only a GPU shows.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .backends.emulated import SCHEDULES, EmulationError, Emulator, Schedule
from .backends.problem import ALLOWED, LAYOUTS, Problem
from .frontend.cell import Cell
from .ir.dtypes import DTYPES, NARROW
from .ir.kernel import Strategy
from .ir.program import Program
from .ir.source import Source
from .kernels import source_of
from .passes.replay import unbordered
from .passes.schedule import schedule, strategies
from .programs import adjoint_of, inner_keeps, iteration_of, plan_of, tangent_of

MANY_CHUNKS = 31  # more than look back together as one group


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
