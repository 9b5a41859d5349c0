"""Whole layers beside their own matrix products, their own kernels, and torch.nn.LSTM and torch.nn.GRU of the same size.

    python -m benchmarks.layers --out DIR               a table, and DIR/layers.csv and DIR/layers.png
    python -m benchmarks.layers --quick                 one small shape, one thread

Forward and backward with the gradients of x and of every parameter, float32, batch first, as many inputs as hidden units, on
one thread (in processor time, which other work on the machine does not change) and on two (by the clock on the wall); all
candidates in turn in one process. "products" are the matrix products of the layer in the way of torch that was fastest for
each of them (`WAYS`), with fresh outputs as the layer needs them: forward, gradient of the samples, gradient of the weight.
"products, as chosen" is what lrdsl makes of them (`lrdsl.nn.matmul`). "kernels" are the fused passes alone, through their torch
ops. What is slow (torch.nn.GRU on the CPU goes step by step through autograd) runs once. `error` is the largest difference of a
gradient from that of the same layer with torch's F.linear, over the largest magnitude.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lrdsl as lr
from lrdsl.nn.ops import Op
from lrdsl.nn.products import product

from .compare import error
from .table import heading
from .timing import Clock, Times, measured, processor, wall

CELLS = ("sru", "gilr", "gilr_lstm")
SHAPES = ((1, 16384, 128), (8, 1024, 256), (1, 262144, 64))
PEERS: Mapping[str, type[nn.RNNBase]] = {"torch.nn.LSTM": nn.LSTM, "torch.nn.GRU": nn.GRU}
SLOW = 2.0  # seconds; what takes longer is not run again
COLUMNS = ("cell", "threads", "B", "T", "H", "candidate", "error", "median_ms", "low_ms", "high_ms", "runs", "times_products")
Run = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One candidate. products: seconds of the matrix products alone."""

    cell: str
    threads: int
    shape: tuple[int, int, int]
    candidate: str
    times: Times
    products: float
    error: float | None = None

    @property
    def values(self) -> tuple[str, ...]:
        """One text a column."""
        t = self.times
        return (self.cell, *map(str, (self.threads, *self.shape)), self.candidate,
                "" if self.error is None else f"{self.error:.1e}", *(f"{s * 1e3:.4g}" for s in (t.median, t.low, t.high)),
                str(t.runs), f"{t.median / self.products:.2f}")


def onednn(a: Tensor, b: Tensor) -> Tensor:
    """a b^T by oneDNN."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return found


def buffered(a: Tensor, b: Tensor) -> Tensor:
    """a b^T by addmm into a fresh buffer."""
    out = a.new_empty(a.shape[0], b.shape[0])
    return torch.addmm(out, a, b.t(), beta=0, out=out)


def by_rows(a: Tensor, b: Tensor, rows: int = 2048) -> Tensor:
    """a b^T by oneDNN, some rows at a time, into a fresh buffer."""
    out = a.new_empty(a.shape[0], b.shape[0])
    for some, found in zip(a.split(rows), out.split(rows), strict=True):
        found.copy_(onednn(some, b))
    return out


def over_rows(a: Tensor, b: Tensor, rows: int = 2048) -> Tensor:
    """a b^T by oneDNN, where the columns of both are many: some at a time, added up."""
    out = a.new_zeros(a.shape[0], b.shape[0])
    for left, right in zip(a.split(rows, 1), b.split(rows, 1), strict=True):
        out += onednn(left, right)
    return out


# Ways to a b^T: of rows, and of the gradient of a weight, where the product runs over time.
WAYS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "F.linear": F.linear, "addmm": buffered, "oneDNN": onednn, "oneDNN by rows": by_rows}
OVER: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mm": lambda a, b: torch.mm(a, b.t()), "mm, turned": lambda a, b: torch.mm(b, a.t()).t(), "oneDNN": onednn,
    "oneDNN by rows": over_rows}


def layer_of(name: str, H: int) -> Any:
    """The layer of a cell."""
    return lr.RNN(getattr(lr.cells, name), H, H, batch_first=True)


def whole(module: nn.Module, x: Tensor, gradient: Tensor) -> Run:
    """Forward and backward of a module, with all gradients."""
    leaf = x.clone().requires_grad_()
    wanted = [leaf, *module.parameters()]
    return lambda: torch.autograd.grad(module(leaf)[0], wanted, gradient)


def values_of(layer: Any, x: Tensor) -> tuple[Any, dict[str, Any]]:
    """The layer's part, and every tensor of a run of it by its name in the plan."""
    part, tree = layer.parts[0], layer.layers[0]
    with torch.no_grad():
        return part, part.pipeline({part.pipeline.plan.inputs[0]: x}, part.numbers(tree), part.weights(tree), {}, None,
                                   layer.hidden_size)


def products_of(layer: Any, x: Tensor) -> Iterator[tuple[Any, Tensor, Tensor, list[Tensor]]]:
    """(step, samples (M, K), weight (N, K), gradients of the products (M, …)) of every dense map."""
    part, values = values_of(layer, x)
    weights = part.weights(layer.layers[0])
    for step, _ in part.pipeline.steps:
        if not isinstance(step, Op):
            weight = torch.cat([torch.cat([weights[b.affine, k] for k in b.operands], 1) for b in step.blocks]).detach()
            yield (step, values[step.source], weight, [torch.randn_like(values[name]) for name, _ in step.outputs])


def alone(layer: Any, x: Tensor) -> dict[str, dict[str, Run]]:
    """The ways to each matrix product of a layer, by the name of the product."""
    found: dict[str, dict[str, Run]] = {}
    for k, (_, samples, weight, gradients) in enumerate(products_of(layer, x)):
        rows, up = samples.flatten(0, 1), torch.cat([g.flatten(0, 1) for g in gradients], 1)
        found[f"{k} forward"] = {n: partial(way, rows, weight) for n, way in WAYS.items()}
        found[f"{k} samples"] = {n: partial(way, up, weight.t()) for n, way in WAYS.items()}
        found[f"{k} weight"] = {n: partial(way, up.t(), rows.t()) for n, way in OVER.items()}
    return found


def chosen(layer: Any, x: Tensor) -> Run:
    """All matrix products of a layer as lrdsl makes them, forward and backward."""
    part = layer.parts[0]
    weights = {k: w.detach().clone().requires_grad_() for k, w in part.weights(layer.layers[0]).items()}
    todo = [(step, samples.detach().requires_grad_(), gradients) for step, samples, _, gradients in products_of(layer, x)]

    def run() -> None:
        for step, samples, gradients in todo:
            made = product(samples, weights, [blocks for _, blocks in step.outputs], edges=False)
            read = [weights[b.affine, k] for b in step.blocks for k in b.operands]
            torch.autograd.grad(made, [samples, *read], gradients)
    return run


def kernels(layer: Any, x: Tensor) -> Run:
    """The fused passes of a layer, forward and backward."""
    part, values = values_of(layer, x)
    todo = []
    for step, _ in part.pipeline.steps:
        if isinstance(step, Op):
            args = [a if a is None else a.detach().requires_grad_() for a in map(values.get, step.arguments[:-1])]
            kept = [k for k, n in enumerate(step.outputs) if any(n == k.name for k in step.program.keeps)]
            todo.append((step, args, kept, [torch.randn_like(values[step.outputs[k]]) for k in kept]))

    def run() -> None:
        for op, args, kept, gradients in todo:
            outputs = op(*args, None)
            torch.autograd.grad([outputs[k] for k in kept], [a for a in args if a is not None], gradients)
    return run


def case(name: str, shape: tuple[int, int, int], threads: int, seconds: float, peers: Mapping[str, Times]) -> list[Row]:
    """The rows of one layer. peers: the times of what is compared, by name."""
    torch.manual_seed(0)
    B, T, H = shape
    x, gradient, layer = torch.randn(B, T, H), torch.randn(B, T, H), layer_of(name, H)
    run = whole(layer, x, gradient)
    wrong = difference(run)
    ways = alone(layer, x)
    each = {(p, w): way for p, some in ways.items() for w, way in some.items()}
    taken = measured({"layer": run, "kernels": kernels(layer, x), "products, as chosen": chosen(layer, x),
                      **{f"{p}: {w}": quietly(way) for (p, w), way in each.items()}}, seconds, 1000, clock_of(threads))
    best = {p: min((taken[f"{p}: {w}"].median, w) for w in some) for p, some in ways.items()}
    limit = sum(t for t, _ in best.values())
    parts = [taken[f"{p}: {w}"] for p, (_, w) in best.items()]
    total = Times(limit, sum(t.low for t in parts), sum(t.high for t in parts), taken["layer"].runs)
    rows = [Row(name, threads, shape, "layer", taken["layer"], limit, wrong),
            Row(name, threads, shape, "products", total, limit)]
    rows += [Row(name, threads, shape, n, taken[n], limit) for n in ("products, as chosen", "kernels")]
    rows += [Row(name, threads, shape, f"  {p}: {w}", taken[f"{p}: {w}"], limit) for p, (_, w) in best.items()]
    return rows + [Row(name, threads, shape, n, t, limit) for n, t in peers.items()]


def clock_of(threads: int) -> Clock:
    """How times are taken."""
    return processor if threads == 1 else wall


def quietly(way: Run) -> Run:
    """Without gradients."""
    def run() -> object:
        with torch.no_grad():
            return way()
    return run


def difference(run: Run) -> float:
    """How far a layer's gradients are from those with F.linear."""
    got: Any = run()
    before = os.environ.get("LRDSL_PRODUCTS")
    os.environ["LRDSL_PRODUCTS"] = "linear"
    try:
        want: Any = run()
    finally:
        os.environ.pop("LRDSL_PRODUCTS") if before is None else os.environ.update(LRDSL_PRODUCTS=before)
    return max(error(a, b.double()) for a, b in zip(got, want, strict=True))


def peers_at(shape: tuple[int, int, int], seconds: float, names: Sequence[str]) -> dict[str, Times]:
    """torch's own layers of that size."""
    B, T, H = shape
    x, gradient, clock, found = torch.randn(B, T, H), torch.randn(B, T, H), clock_of(torch.get_num_threads()), {}
    for name in names:
        run = whole(PEERS[name](H, H, batch_first=True), x, gradient)
        first = clock(run)
        found[name] = Times.of([first]) if first > SLOW else measured({name: run}, seconds, 1000, clock)[name]
        gc.collect()
    return found


def show(rows: Sequence[Row]) -> str:
    """The rows of one layer as text."""
    first = rows[0]
    lines = [f"{first.cell} {first.shape}, {first.threads} thread{'s' * (first.threads > 1)}, forward and backward",
             f"  {'candidate':<32}{'ms':>10}{'20 %':>10}{'80 %':>10}{'runs':>6}{'x products':>12}{'layer is':>16}{'error':>10}"]
    for row in rows:
        *_, name, wrong, median, low, high, runs, ratio = row.values
        faster = f"{row.times.median / first.times.median:.2f} x faster" if name in PEERS else ""
        lines.append(f"  {name:<32}{median:>10}{low:>10}{high:>10}{runs:>6}{ratio:>12}{faster:>16}{wrong:>10}")
    return "\n".join(lines)


def write(rows: Sequence[Row], out: Path) -> None:
    """layers.csv and layers.png in a directory; without matplotlib no picture, and a line that says so."""
    out.mkdir(parents=True, exist_ok=True)
    with Path(out, "layers.csv").open("w", newline="") as file:
        file.writelines(f"# {line}\n" for line in heading("cpu"))
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([v.strip() for v in row.values] for row in rows)
    picture(rows, Path(out, "layers.png"))


def picture(rows: Sequence[Row], path: Path) -> None:
    """A panel each shape and number of threads: every candidate's time over that of the products, for each cell."""
    try:
        from matplotlib import figure
    except ImportError:
        print(f"no picture {path.name}: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)
        return
    panels = list(dict.fromkeys((r.shape, r.threads) for r in rows))
    names = list(dict.fromkeys(r.candidate for r in rows if not r.candidate.startswith(" ")))
    sheet = figure.Figure(figsize=(11, 1 + 3 * ((len(panels) + 1) // 2)), layout="constrained")
    for (shape, threads), ax in zip(panels, sheet.subplots((len(panels) + 1) // 2, 2, squeeze=False).flat, strict=False):
        own = [r for r in rows if (r.shape, r.threads) == (shape, threads)]
        cells = list(dict.fromkeys(r.cell for r in own))
        for k, name in enumerate(names):
            bars = {cells.index(r.cell): r.times.median / r.products for r in own if r.candidate == name}
            ax.bar([c + (k - len(names) / 2) / (len(names) + 1) for c in bars], list(bars.values()),
                   1 / (len(names) + 1), label=name)
        ax.axhline(1.15, color="black", linewidth=0.8)
        ax.set(yscale="log", title=f"{shape}, {threads} thread{'s' * (threads > 1)}", ylabel="times the products")
        ax.set_xticks(range(len(cells)), cells)
        ax.legend(fontsize=6)
    sheet.suptitle(heading("cpu")[0], fontsize=9)
    sheet.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--shape", type=int, nargs=3, action="append", metavar=("B", "T", "H"), help="may be repeated")
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--seconds", type=float, default=8.0, help="for each layer")
    parser.add_argument("--peers", choices=("none", "lstm", "all"), default="all")
    parser.add_argument("--quick", action="store_true", help="one small shape and one thread, 0.5 s")
    parser.add_argument("--out", type=Path, help="a directory for the CSV file and the picture")
    said = parser.parse_args(arguments)
    if said.quick:
        said.shape, said.threads, said.seconds = [(1, 512, 32)], [1], min(said.seconds, 0.5)
    names = list(PEERS)[:{"none": 0, "lstm": 1, "all": 2}[said.peers]]
    print("\n".join(heading("cpu")), flush=True)
    rows, before = list[Row](), torch.get_num_threads()
    try:
        for B, T, H in said.shape or SHAPES:
            for threads in said.threads:
                torch.set_num_threads(threads)
                peers = peers_at((B, T, H), said.seconds / 4, names)
                for name in said.cells:
                    found = case(name, (B, T, H), threads, said.seconds, peers)
                    print("\n" + show(found), flush=True)
                    rows += found
                    gc.collect()
    finally:
        torch.set_num_threads(before)
    if said.out:
        write(rows, said.out)
    return rows


if __name__ == "__main__":
    main()
