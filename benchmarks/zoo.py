"""The zoo at a glance: lines, what recurs, and the largest errors on every backend without a GPU.

    python -m benchmarks.zoo                            (--cells mingru lru …; --out FILE: the same as Markdown)

Each cell is held against the float64 loop that was written from its paper (`tests/papers`), with given initial states and
boundaries, T = 150, which is more than one chunk of the CUDA text. An error is the largest difference of any output, last state
or gradient, over the largest magnitude of the tensor, or 1. Lines are those of the cell's body.
"""

from __future__ import annotations

import argparse
import ast
import os
import textwrap
from pathlib import Path

import torch

from lrdsl.errors import BackendUnavailable
from lrdsl.ir.program import Scan
from lrdsl.programs import plan_of
from tests.cells.test_zoo import Bound, derivatives, drawn, real, results, truth
from tests.cells.zoo import BOUND

from .table import heading

CASE = (150, True, True)
COLUMNS = [(backend, dtype) for dtype in (torch.float64, torch.float32) for backend in ("reference", "native", "emulated")]


def lines(bound: Bound) -> int:
    """Statements of the body that are not its docstring, as many lines as they take."""
    body = ast.parse(textwrap.dedent(bound.cell.spec.source)).body[0].body  # type: ignore[attr-defined]
    return sum(s.end_lineno - s.lineno + 1 for s in body[isinstance(body[0], ast.Expr):])


def found(bound: Bound) -> str:
    """The structure of each recurrence."""
    return "; ".join(p.structure(s).name for p in plan_of(bound.cell.spec).programs for s in p.steps if isinstance(s, Scan))


def errors(bound: Bound, backend: str, dtype: torch.dtype) -> str:
    """The largest of values, and of gradients."""
    os.environ["LRDSL_BACKEND"] = backend
    torch.manual_seed(0)
    p = drawn(bound, *CASE)
    q = p.to(dtype)
    try:
        got, want = results(bound, q), truth(bound, p)
    except BackendUnavailable:
        return "not here"
    pairs = [(got, want), (derivatives(got, q.leaves), derivatives(want, p.leaves))]
    return " ".join(f"{max(error(a, b) for a, b in zip(real(g), real(w), strict=True)):.0e}" for g, w in pairs)


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.detach().double() - b.detach()).abs().max() / max(1.0, float(b.detach().abs().max())))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=list(BOUND), choices=list(BOUND), metavar="CELL")
    parser.add_argument("--out", type=Path, help="a file for the table as Markdown")
    said = parser.parse_args(arguments)
    torch.set_default_dtype(torch.float64)
    head = ["cell", "lines", "recurrences", *(f"{backend}, {str(dtype).removeprefix('torch.')}" for backend, dtype in COLUMNS)]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    print("\n".join([*heading("cpu"), "errors: of values, then of gradients", "", *rows]), flush=True)
    for name in said.cells:
        bound = BOUND[name]
        row = [f"`{name}`", str(lines(bound)), found(bound), *(errors(bound, *column) for column in COLUMNS)]
        rows.append(f"| {' | '.join(row)} |")
        print(rows[-1], flush=True)
    if said.out:
        said.out.write_text("\n".join([*rows, "", *heading("cpu")]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
