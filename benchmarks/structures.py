"""What the structure of a recurrence costs, counted in the generated CUDA text of its chunked kernel; needs nothing but lrdsl.

    python -m benchmarks.structures

For each structure: numbers that a stretch of steps has, words of 16 bytes that a chunk tells (float32), and products in the
text of one step of a stretch, of two stretches joined, and of a state carried over one. A dense k x k block needs k^3 to join.
Where coefficients are constant, nothing is joined: a state is carried over a chunk by the power of a matrix, k^2 products.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import lrdsl as lr
from lrdsl.codegen.emit import emit
from lrdsl.frontend.cell import Cell
from lrdsl.ir.program import Program, Scan
from lrdsl.passes.schedule import schedule
from lrdsl.programs import backward_of, plan_of

t = lr.t


@lr.cell
def shared(a: lr.Input, x: lr.Input, p: lr.State, q: lr.State, r: lr.State):
    p[t] = a[t] * p[t - 1] + x[t]
    q[t] = a[t] * q[t - 1] + x[t - 1]
    r[t] = a[t] * r[t - 1] + x[t - 2]
    return p[t], q[t], r[t]


@lr.cell
def scaled_rotation(a: lr.Input, b: lr.Input, x: lr.Input, p: lr.State, q: lr.State):
    p[t] = a[t] * p[t - 1] - b[t] * q[t - 1] + x[t]
    q[t] = b[t] * p[t - 1] + a[t] * q[t - 1]
    return p[t], q[t]


@lr.cell
def dense(a: lr.Input, b: lr.Input, c: lr.Input, d: lr.Input, p: lr.State, q: lr.State):
    p[t] = a[t] * p[t - 1] + b[t] * q[t - 1] + a[t]
    q[t] = c[t] * p[t - 1] + d[t] * q[t - 1]
    return p[t], q[t]


@lr.cell
def order_four(a: lr.Input, b: lr.Input, x: lr.Input, y: lr.State):
    y[t] = a[t] * y[t - 1] + b[t] * y[t - 2] + x[t] * y[t - 3] + a[t] * b[t] * y[t - 4] + x[t]
    return y[t]


@lr.cell
def coupled_pairs(a: lr.Input, b: lr.Input, x: lr.Input, p: lr.State, q: lr.State):
    p[t] = a[t] * p[t - 1] - b[t] * q[t - 1] + x[t] * p[t - 2] + x[t]
    q[t] = b[t] * p[t - 1] + a[t] * q[t - 1] + x[t] * q[t - 2]
    return p[t], q[t]


@lr.cell
def filter_four(x: lr.Input, y: lr.State, a: lr.Vector, b: lr.Vector, c: lr.Vector, d: lr.Vector):
    y[t] = a * y[t - 1] + b * y[t - 2] + c * y[t - 3] + d * y[t - 4] + x[t]
    return y[t]


@lr.cell
def best(a: lr.Input, b: lr.Input, h: lr.State):
    h[t] = lr.maximum(h[t - 1] + a[t], b[t])
    return h[t]


CELLS = (lr.cells.linear_scan, best, shared, scaled_rotation, dense, order_four, coupled_pairs, filter_four)


@dataclass(frozen=True)
class Cost:
    """step, join, carry: products (fused with their sums or not) in the text."""

    structure: str
    numbers: int
    state: int
    words: int
    step: int
    join: int
    carry: int


def cost(program: Program) -> Cost:
    """That of the one struct in a Program's chunked kernel."""
    kernel = schedule(program, "cuda", "float32", "chunked")
    source = emit([kernel])[0]
    [scan] = [s for s in kernel.program.steps if isinstance(s, Scan)]
    [text] = re.findall(r"struct Map \{.*?\n\};", source.text, re.DOTALL)

    def products(start: str) -> int:
        part = re.search(rf"{start}.*?\n  \}}", text, re.DOTALL)
        return part.group().count("lr_fma(") + part.group().count(" * ") if part else 0

    found = kernel.program.structure(scan)
    counts = [int(n) for n in re.findall(r"COUNT = (\d+)", text)]
    return Cost(found.name, counts[0], found.size, source.messages, products("static LR_INLINE void step"),
                products(r"after\(const"), products(r"operator\(\)") or (found.size ** 2 if found.powers else 0))


def table() -> list[tuple[str, Cost, Cost]]:
    """(cell, cost forward, cost backward)."""
    found = []
    for cell in CELLS:
        assert isinstance(cell, Cell)
        [program] = plan_of(cell.spec).programs
        found.append((cell.name, cost(program), cost(backward_of(program))))
    return found


def main() -> None:
    print(f"{'cell':<16}{'pass':<10}{'structure':<32}{'numbers':>8}{'state':>6}{'words':>6}{'step':>6}{'join':>6}{'carry':>6}")
    for name, *passes in table():
        for which, c in zip(("forward", "backward"), passes, strict=True):
            print(f"{name:<16}{which:<10}{c.structure:<32}{c.numbers:>8}{c.state:>6}{c.words:>6}{c.step:>6}{c.join:>6}{c.carry:>6}")


if __name__ == "__main__":
    main()
