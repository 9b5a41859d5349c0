"""Cells that are nonlinear in their states: Newton's method beside one step after another.

    python -m benchmarks.newton --out DIR                   a table, and DIR/newton.json
    python -m benchmarks.newton --cells diag_gru --lengths 1000 --quick

For each cell, length, dtype, and for weights as they are drawn and as they are after training (the adding problem of
Hochreiter & Schmidhuber 1997, 100 steps long): iterations, residual, the largest difference of the outputs, and the time of
both solvers on the same layer, forward and with all gradients. Medians of interleaved runs; the file has what 20 % and 80 % of
them stay below as well.
On a CPU kernels share out batch and channels, and walk time: there an iteration of Newton's method costs a pass like the
sequential one, which it can only lose to. A GPU cuts the time of each scan in chunks; a nonlinear recurrence it cannot cut.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import lrdsl as lr

from .table import heading
from .timing import Clock, Times, clock_of, measured

CELLS = ("sru_v2", "indrnn", "diag_gru", "diag_lstm")
WAYS = ("forward", "forward and backward")


@dataclass(frozen=True)
class Row:
    """What was found for one cell, length, dtype and kind of weights. apart: the largest difference of the outputs of both
    solvers over the largest output. newton, sequential: seconds by way."""

    cell: str
    B: int
    T: int
    H: int
    dtype: str
    weights: str
    iterations: int
    residual: float
    tolerance: float
    fallback: str
    apart: float
    newton: dict[str, Times]
    sequential: dict[str, Times]

    def lines(self) -> Iterator[str]:
        """Those of the table."""
        for way in WAYS:
            ours, other = self.newton[way], self.sequential[way]
            yield (f"{self.cell:<10}{self.T:>8} {self.dtype:<8} {self.weights:<8}{way:<21}{self.iterations:>5}"
                   f"{self.residual:>10.1e}{self.apart:>10.1e}{ours.median * 1e3:>11.3f}{other.median * 1e3:>11.3f}"
                   f"{ours.median / other.median:>7.2f}  {self.fallback}")


HEAD = (f"{'cell':<10}{'T':>8} {'dtype':<8} {'weights':<8}{'':<21}{'its':>5}{'residual':>10}{'apart':>10}{'newton ms':>11}"
        f"{'serial ms':>11}{'ratio':>7}")


class Adder(nn.Module):
    """The adding problem: two numbers a step, of which the second marks two of the first; their sum after the last step."""

    def __init__(self, cell: lr.Cell, hidden: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(2, hidden), nn.Linear(hidden, 1)
        self.layer = lr.RNN(cell, hidden, hidden, batch_first=True, solver="sequential")

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, 2) -> (B,)."""
        return self.leave(self.layer(self.enter(x))[0][:, -1]).squeeze(1)  # type: ignore[no-any-return]


def problem(B: int, T: int) -> tuple[Tensor, Tensor]:
    """(x, the sum)."""
    values, marks = torch.rand(B, T), torch.zeros(B, T)
    for half in (torch.randint(T // 2, (B, 1)), T // 2 + torch.randint(T - T // 2, (B, 1))):
        marks.scatter_(1, half, 1.0)
    return torch.stack([values, marks], 2), (values * marks).sum(1)


def trained(cell: lr.Cell, hidden: int, steps: int) -> tuple[Adder, float]:
    """A network, and its mean squared error after training; a guess of 1 has 1/6."""
    model = Adder(cell, hidden)
    optimizer, loss = torch.optim.Adam(model.parameters(), 3e-3), torch.tensor(0.0)
    for _ in range(steps):
        x, y = problem(50, 100)
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model, float(loss.detach())


def row(model: Adder, weights: str, B: int, T: int, dtype: torch.dtype, device: str, seconds: float, clock: Clock) -> Row:
    """Both solvers on the layer of a model, on the adding problem of T steps."""
    cell, H = model.layer.cells[0], model.layer.hidden_size
    model = model.to(device, dtype)
    x = model.enter(problem(B, T)[0].to(device, dtype)).detach().requires_grad_()
    layers = {s: lr.RNN(cell, H, H, batch_first=True, solver=s, device=device, dtype=dtype) for s in ("newton", "sequential")}
    outputs = {}
    for name, layer in layers.items():
        layer.load_state_dict(model.layer.state_dict())
        outputs[name] = layer(x)[0].detach()
    [[report]] = layers["newton"].solver_report().values()
    one, other = outputs["newton"], outputs["sequential"]
    found = {way: measured({name: partial(run, layer, x) for name, layer in layers.items()}, seconds, clock=clock)
             for way, run in zip(WAYS, (forward, both), strict=True)}
    newton, sequential = ({way: times[name] for way, times in found.items()} for name in layers)
    return Row(cell.name, B, T, H, str(dtype).removeprefix("torch."), weights, report.iterations, report.residual,
               report.tolerance, report.fallback, float((one - other).abs().max() / other.abs().max()), newton, sequential)


def forward(layer: lr.RNN, x: Tensor) -> object:
    """What is timed first."""
    with torch.no_grad():
        return layer(x)


def both(layer: lr.RNN, x: Tensor) -> object:
    """And second."""
    return torch.autograd.grad(layer(x)[0].sum(), [x, *layer.parameters()])


def rows(cells: list[str], B: int, hidden: int, lengths: list[int], steps: int, device: str, seconds: float,
         say: Callable[[str], None]) -> Iterator[Row]:
    """A row each; the same weights and inputs for both dtypes and all lengths."""
    clock = clock_of(device)
    for name in cells:
        torch.manual_seed(0)
        drawn = Adder(getattr(lr.cells, name), hidden)
        taught, loss = trained(getattr(lr.cells, name), hidden, steps)
        say(f"{name}: trained for {steps} steps, mean squared error {loss:.4f} (a constant has {1 / 6:.4f})")
        for T in lengths:
            for dtype in (torch.float32, torch.float64):
                for weights, model in (("random", drawn), ("trained", taught)):
                    yield row(model, weights, B, T, dtype, device, seconds, clock)


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--lengths", nargs="+", type=int, default=[1_000, 100_000])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch; there are few channels to share out")
    parser.add_argument("--quick", action="store_true", help="three rounds each, 50 steps of training")
    parser.add_argument("--out", type=Path, help="a directory for newton.json")
    said = parser.parse_args()
    torch.set_num_threads(said.threads)
    steps, seconds = (50, 0.0) if said.quick else (said.steps, 1.5)
    print("\n".join(heading(said.device)), HEAD, sep="\n", flush=True)
    found = []
    for r in rows(said.cells, said.batch, said.hidden, said.lengths, steps, said.device, seconds, partial(print, flush=True)):
        print(*r.lines(), sep="\n", flush=True)
        found.append(r)
    if said.out:
        said.out.mkdir(parents=True, exist_ok=True)
        record = {"heading": heading(said.device), "rows": [asdict(r) for r in found]}
        (said.out / "newton.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
