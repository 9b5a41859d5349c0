"""From Program to Kernel: who loads what, holds what, writes what, for a target.

Non-goals: text. Names are settled here, because two targets must not disagree about them.
"""

from __future__ import annotations

from ..ir.functions import Elementwise
from ..ir.kernel import Kernel, Read, Target, lagged
from ..ir.names import c_name
from ..ir.program import Program

# A CUDA thread keeps up to 16 steps of loads in flight: a large GPU wants 128 bytes of them a thread, which has 255 registers
# for everything. As many steps are written out in a row; the functions called there must fit the instruction cache.
IN_FLIGHT, IN_A_ROW = 48, 64


def schedule(program: Program, target: Target, dtype: str) -> Kernel:
    """The Kernel of a Program. One strategy a target so far: `rows` on the CPU, `serial` in CUDA."""
    loads = program.loads
    used = [s for s in program.reads() if s.base in loads]
    kept = [n for k in program.keeps for n in k.samples] + [s.sample for s in program.sums]
    reads = tuple(Read(s, *loads[s.base], program.edge(s.base, 1 if s.lag > 0 else -1) if s.lag else None)
                  for s in dict.fromkeys(used))
    assert not set(kept) & set(loads)
    entry = f"{c_name(program.name, set())}_{program.digest[:8]}"
    if target == "cpu":
        return Kernel("cpu", "rows", entry, program, dtype, reads, _names(program),
                      "rows of channels stream through the cache in the order of memory, the carry stays in L1")
    size = 2 if dtype == "float64" else 1
    calls = sum(len(e.atoms(Elementwise)) for step in program.steps for e in step.exprs)
    ahead = next(n for n in (16, 8, 4, 2)
                 if (n * size * len(reads) <= IN_FLIGHT and n * size * calls <= IN_A_ROW) or n == 2)
    return Kernel("cuda", "serial", entry, program, dtype, reads, _names(program),
                  f"one thread a channel walks time, {ahead} steps of loads in flight; needs about 24,000 channels to fill "
                  f"a large GPU", ahead=ahead, block=64)


def _names(program: Program) -> tuple[tuple[str, str], ...]:
    """Every name of the text, once: samples at their lags, then tensors (`.in` where a sample has the name)."""
    taken: set[str] = set()
    values: dict[str, None] = {}
    for s in program.reads():
        values.setdefault(lagged(s.base, s.lag))
    for step in program.steps:
        for target in step.targets:
            values.setdefault(target)
    for e in program.registers:
        for k in range(1, e.depth + 1):
            values.setdefault(lagged(e.base, e.side * k))
    for v in program.vectors:
        values.setdefault(v.name)
    names = {n: c_name(n, taken) for n in values}
    return tuple(names.items())
