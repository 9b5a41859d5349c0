"""Recurrent layers beside the same cells in torch, and beside torch.nn.LSTM, through public modules and autograd.

    python -m benchmarks.cells --out DIR                    a table, and DIR/cells.csv and DIR/cells.png
    python -m benchmarks.cells --cells gilr_lstm --shape 8 4096 256 --quick

Shapes are (batch, steps, hidden), with as many inputs as hidden units. Forward, and forward with the gradients of x and of all
weights, float32. Every cell in torch is written once, its dense maps taken for all steps at once, over a recurrence that is
a loop or torch's associative_scan. torch.nn.LSTM is another function, for its gates read its own output: it is what one would
use instead, and is held to a loop of its own. The limit is the time to stream what the fused passes have to read and write;
the dense maps come on top, and stand in the table as "matrix products alone".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lrdsl as lr
from lrdsl.frontend.cell import Cell

from .compare import Case, Make, Ready, Tensors, leaves
from .peers import Scan, generic, loop, pointwise
from .scan import case as scan_case
from .scan import options, prepare, run
from .table import Row

NAMES = ("linear_scan", "gilr", "gilr_lstm", "sru", "qrnn")
SHAPES = ((8, 512, 256),)
Equations = Callable[[Scan, Tensors], Tensor]


def dense(p: Tensors, name: str, *operands: Tensor) -> Tensor:
    """A dense map of all steps."""
    return F.linear(torch.cat(operands, -1) if len(operands) > 1 else operands[0], p[f"{name}.weight"], p.get(f"{name}.bias"))


def before(x: Tensor) -> Tensor:
    """x at t-1, and 0 before the first step."""
    return F.pad(x[:, :-1], (0, 0, 1, 0))


def gilr(scan: Scan, p: Tensors, prefix: str = "") -> Tensor:
    """Martin & Cundy 2018, section 3.1."""
    g, i = torch.sigmoid(dense(p, f"{prefix}gate", p["x"])), torch.tanh(dense(p, f"{prefix}impulse", p["x"]))
    return scan(g, (1 - g) * i)


def gilr_lstm(scan: Scan, p: Tensors) -> Tensor:
    """Martin & Cundy 2018, section 3.3."""
    seen = (p["x"], before(gilr(scan, p, "h.")))
    f, i, o = (torch.sigmoid(dense(p, name, *seen)) for name in ("forget", "enter", "leave"))
    return o * scan(f, i * torch.tanh(dense(p, "update", *seen)))


def sru(scan: Scan, p: Tensors) -> Tensor:
    """Lei & Zhang 2017 (arXiv 1709.02755 v1), equations 3 to 7."""
    f, r = (torch.sigmoid(dense(p, name, p["x"])) for name in ("forget", "highway"))
    return r * torch.tanh(scan(f, (1 - f) * dense(p, "update", p["x"]))) + (1 - r) * p["x"]


def qrnn(scan: Scan, p: Tensors) -> Tensor:
    """Bradbury et al. 2017 (arXiv 1611.01576), fo-pooling over windows of two steps."""
    seen = (p["x"], before(p["x"]))
    f, o = (torch.sigmoid(dense(p, name, *seen)) for name in ("forget", "leave"))
    return o * scan(f, (1 - f) * torch.tanh(dense(p, "update", *seen)))


def lstm(p: Tensors) -> Tensor:
    """torch.nn.LSTM, a step at a time."""
    h = c = p["x"].new_zeros(p["x"].shape[0], p["weight_hh_l0"].shape[1])
    outputs = []
    for x in (p["x"] @ p["weight_ih_l0"].T + p["bias_ih_l0"] + p["bias_hh_l0"]).unbind(1):
        i, f, z, o = (x + h @ p["weight_hh_l0"].T).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(z)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1)


EQUATIONS: Mapping[str, Equations] = {"gilr": gilr, "gilr_lstm": gilr_lstm, "sru": sru, "qrnn": qrnn}


def zoo(name: str) -> Cell | None:
    """The cell of lrdsl, where this version has it; a factory's default."""
    found = getattr(lr.cells, name, None)
    return found if found is None or isinstance(found, Cell) else found()


def words(cell: Cell) -> tuple[tuple[int, int], tuple[int, int]]:
    """What all fused passes read and write of (B, T, hidden), forward and backward."""
    kernels = lr.compile(cell, "cpu").stages["kernels"]
    # Each Program once: "rows" is a kernel that every one has.
    forward, backward = (tuple(map(sum, zip(*(k.words for k in kernels[way] if k.strategy == "rows"), strict=True)))
                         for way in ("forward", "backward"))
    return (forward[0], forward[1]), (backward[0], backward[1])


def case(name: str, B: int, T: int, H: int, device: str, compiled: bool = True) -> Case:
    """A layer of one cell."""
    torch.manual_seed(0)
    cell, equations = zoo(name), EQUATIONS[name]
    assert cell is not None
    layer = lr.RNN(cell, H, H, batch_first=True, device=device)
    learned = {n.removeprefix("layers.0."): p.detach() for n, p in layer.named_parameters()}
    inputs = {"x": torch.randn(B, T, H, device=device), **learned}
    other = nn.LSTM(H, H, batch_first=True, device=device)
    candidates = {"lrdsl": lambda inputs: module(layer, inputs, "layers.0."), "torch loop": written(equations, loop),
                  "matrix products alone": products}
    if compiled:
        candidates["associative_scan, compiled"] = written(equations, generic, compiled=True)
        if device == "cuda":
            candidates["associative_scan, pointwise"] = written(equations, pointwise, compiled=True)
    candidates["torch.nn.LSTM"] = lambda inputs: module(other, {"x": inputs["x"], **dict(other.named_parameters())}, "")
    return Case(name, (B, T, H), inputs, lambda p: equations(loop, p), words(cell), candidates,
                {"torch.nn.LSTM": (lstm, {"x": inputs["x"], **dict(other.named_parameters())}),
                 "matrix products alone": (multiplied, factors(inputs))})


def module(layer: nn.Module, inputs: Tensors, prefix: str) -> Ready:
    """A torch module, called as anyone would."""
    x = leaves({"x": inputs["x"]})
    own: dict[str, Any] = {**x, **{n.removeprefix(prefix): p for n, p in layer.named_parameters()}}
    return Ready(lambda: layer(own["x"])[0], own)


def written(equations: Equations, scan: Scan, compiled: bool = False) -> Make:
    """The cell in torch over one way to scan."""
    def make(inputs: Tensors) -> Ready:
        own = leaves(inputs)
        run: Callable[[Tensors], Tensor] = lambda p: equations(scan, p)
        call = torch.compile(run, dynamic=False) if compiled else run
        return Ready(lambda: call(own), own)
    return make


def multiplied(p: Tensors) -> Tensor:
    """The dense maps of a layer, nothing between them: all that read equally many numbers are one product, of x or x twice."""
    sizes = {w.shape[1] for n, w in p.items() if n.endswith("weight")}
    made = [F.linear(torch.cat([p["x"]] * (k // p["x"].shape[2]), -1),
                     torch.cat([w for n, w in p.items() if n.endswith("weight") and w.shape[1] == k])) for k in sorted(sizes)]
    return sum(part for y in made for part in y.split(p["x"].shape[2], -1))


def factors(inputs: Tensors) -> Tensors:
    """What `multiplied` reads."""
    return {n: t for n, t in inputs.items() if n == "x" or n.endswith("weight")}


def products(inputs: Tensors) -> Ready:
    """`multiplied`, ready to run."""
    own = leaves(factors(inputs))
    return Ready(lambda: multiplied(own), own)


def make(name: str, shape: tuple[int, int, int], device: str, compiled: bool) -> Case:
    """A layer, or the scan alone, which has none."""
    return scan_case(*shape, device, compiled) if name == "linear_scan" else case(name, *shape, device, compiled)


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure and print."""
    parser = options(__doc__ or "")
    parser.add_argument("--cells", nargs="+", choices=NAMES, default=NAMES)
    said = parser.parse_args(arguments)
    prepare(said, SHAPES)
    there = [n for n in said.cells if zoo(n)]
    for name in sorted({*said.cells} - {*there}):
        print(f"{name}: this version of lrdsl does not have it")
    return run(said, "cells", [partial(make, n, shape, said.device, not said.quick) for n in there for shape in said.shape])


if __name__ == "__main__":
    main()
