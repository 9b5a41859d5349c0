"""Table 2 of the paper: two layers of SRU, QRNN(2), QRNN(10) and GILR-LSTM, with a parallel scan and with a serial one.

    python -m examples.paper.networks                   (--quick: small networks; --device cuda: on a GPU)

b * T is 65,536, so that only the shape changes; 4 inputs, two layers of 256 units, which is what the paper's text states. (The
script that its authors published has 24 inputs, and SRU and QRNN of 24 units; it timed the forward pass alone, where the text
says training. Forward, and forward with all gradients, stand here apart.) The same network with a serial scan has its dense
maps on all processors, as before: its scans run on one thread (CPU), or as `serial` kernels, a thread a channel (GPU).
torch.nn.LSTM has the same layers and units; it is another function, what one would use instead. `torch.compile` is the same
cell written in torch, its scans torch's associative_scan, compiled as a whole.

On a CPU, parallel means threads, over sequences, channels and blocks of time; no more can be won than there are threads.

Before a network is timed, its values and all gradients are held to a loop in float64 at a small size. What is measured is kept
in --runs, and an interrupted program goes on there when the same command is given again at the same commit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import lrdsl as lr
from benchmarks.cells import before, dense
from benchmarks.cells import gilr_lstm as gilr_lstm_written
from benchmarks.compare import Ready, Tensors, Verdict, leaves, said, solve, verdict
from benchmarks.peers import Scan, generic, loop, pointwise
from lrdsl import sigmoid, t, tanh
from lrdsl.backends import native
from lrdsl.passes import schedule

from . import common

# Table 2 of the paper: {T: speed-ups of the columns of NETWORKS}.
PAPER = {16: (0.28, 0.38, 0.78, 0.61), 256: (0.84, 0.86, 0.99, 0.91), 4096: (1.38, 1.18, 1.05, 0.98),
         65536: (9.21, 6.68, 2.05, 1.41)}
INPUTS, HIDDEN, LAYERS, STEPS = 4, 256, 2, 65536
OURS, SERIAL, LSTM, COMPILED = "lrdsl", "lrdsl, serial scan", "torch.nn.LSTM", "torch.compile"
CHECKED = 37  # steps that candidates are held to a loop for
WAYS = ("forward", "forward and backward")


@lr.cell
def sru(x: lr.Input, c: lr.State, forget: lr.Affine, highway: lr.Affine, update: lr.Affine = lr.Affine(bias=False),
        skip: lr.Affine = lr.Affine(bias=False, skip=True)):
    """Lei & Zhang 2017, equations 3 to 7; where a layer has more units than inputs, its highway leads through a matrix."""
    f, r = sigmoid(forget(x[t])), sigmoid(highway(x[t]))
    c[t] = f * c[t - 1] + (1 - f) * update(x[t])
    return r * tanh(c[t]) + (1 - r) * skip(x[t])


def sru_written(scan: Scan, p: Tensors) -> Tensor:
    """The same in torch, over a way to scan."""
    f, r = (torch.sigmoid(dense(p, name, p["x"])) for name in ("forget", "highway"))
    ahead = dense(p, "skip", p["x"]) if "skip.weight" in p else p["x"]
    return r * torch.tanh(scan(f, (1 - f) * dense(p, "update", p["x"]))) + (1 - r) * ahead


def qrnn_written(window: int) -> Callable[[Scan, Tensors], Tensor]:
    """Bradbury et al. 2017, fo-pooling."""
    def run(scan: Scan, p: Tensors) -> Tensor:
        seen = [p["x"]]
        for _ in range(window - 1):
            seen.append(before(seen[-1]))
        f, o = (torch.sigmoid(dense(p, name, *seen)) for name in ("forget", "leave"))
        return o * scan(f, (1 - f) * torch.tanh(dense(p, "update", *seen)))
    return run


@dataclass(frozen=True)
class Network:
    """A cell of lrdsl, and the same in torch, given its parameters and a way to scan."""

    cell: lr.Cell
    written: Callable[[Scan, Tensors], Tensor]


NETWORKS: Mapping[str, Network] = {
    "SRU": Network(sru, sru_written), "QRNN(2)": Network(lr.cells.qrnn("fo", window=2), qrnn_written(2)),
    "QRNN(10)": Network(lr.cells.qrnn("fo", window=10), qrnn_written(10)),
    "GILR-LSTM": Network(lr.cells.gilr_lstm, gilr_lstm_written)}


def stacked(written: Callable[[Scan, Tensors], Tensor], scan: Scan, p: Tensors) -> Tensor:
    """All layers, each fed with the one before; parameters by the names of an lr.RNN."""
    x = p["x"]
    for k in range(LAYERS):
        own = {name.removeprefix(f"layers.{k}."): w for name, w in p.items() if name.startswith(f"layers.{k}.")}
        x = written(scan, {"x": x, **own})
    return x


def serial_scans(on: bool) -> None:
    """Have lrdsl's kernels walk time on one thread (CPU), or a thread a channel (GPU), or as they would; its dense maps are
    torch's, and stay as they are. For measuring: these constants are no setting of the package."""
    native.SMALL, schedule.MANY = (1 << 62, 0) if on else (SMALL, MANY)


SMALL, MANY = native.SMALL, schedule.MANY


def ours(layer: lr.RNN, x: Tensor, serial: bool) -> Ready:
    """lrdsl's module, as anyone would call it."""
    own = {**leaves({"x": x}), **dict(layer.named_parameters())}

    def run() -> Tensor:
        serial_scans(serial)
        return layer(own["x"])[0]
    return Ready(run, own)


def theirs(lstm: nn.LSTM, x: Tensor) -> Ready:
    """torch's module."""
    own = {**leaves({"x": x}), **dict(lstm.named_parameters())}
    return Ready(lambda: lstm(own["x"])[0], own)


def written(network: Network, inputs: Tensors, scan: Scan, compiled: bool) -> Ready:
    """The network in torch."""
    own = leaves(inputs)
    run: Callable[[Tensors], Tensor] = lambda p: stacked(network.written, scan, p)
    call = torch.compile(run, dynamic=False) if compiled else run
    return Ready(lambda: call(own), own)


def candidates(network: Network, x: Tensor, hidden: int, compiled: bool) -> dict[str, Ready]:
    """Everything that is timed, on one x. compiled: torch.compile too."""
    inputs, device = x.shape[2], x.device.type
    layer = lr.RNN(network.cell, inputs, hidden, num_layers=LAYERS, batch_first=True, device=device)
    made = {OURS: ours(layer, x, False), SERIAL: ours(layer, x, True),
            LSTM: theirs(nn.LSTM(inputs, hidden, num_layers=LAYERS, batch_first=True, device=device), x)}
    if compiled:
        learned = {n: p.detach() for n, p in layer.named_parameters()}
        made[COMPILED] = written(network, {"x": x, **learned}, pointwise if device == "cuda" else generic, compiled=True)
    return made


@functools.cache
def verdicts(name: str, inputs: int, hidden: int, device: str, compiled: bool) -> Mapping[str, Verdict]:
    """What a loop in float64 over a few steps says of each candidate; torch.nn.LSTM, another function, is trusted. Raises
    SystemExit where something is wrong with lrdsl."""
    network = NETWORKS[name]
    made = candidates(network, torch.randn(2, CHECKED, inputs, device=device), hidden, compiled)
    found = {what: judged(network, ready, hidden) for what, ready in made.items() if what != LSTM}
    for what in (OURS, SERIAL):
        if found[what].note:
            raise SystemExit(f"{name}, {what}: {found[what].note}")
    return found


def judged(network: Network, ready: Ready, hidden: int) -> Verdict:
    """The values and gradients of a network against the loop's."""
    inputs = {n: p.detach() for n, p in ready.leaves.items()}
    gradient = torch.randn(*inputs["x"].shape[:2], hidden, device=inputs["x"].device)
    try:
        return verdict(ready, solve(lambda p: stacked(network.written, loop, p), inputs, [gradient]), [gradient])
    except Exception as failure:  # one that cannot run is a line under the table
        return Verdict(math.nan, math.nan, said(failure))


def runs(ready: Ready, way: str) -> Callable[[], object]:
    """What is timed of a candidate."""
    if way == "forward":
        def forward() -> object:
            with torch.no_grad():
                return ready.call()
        return forward
    return lambda: torch.autograd.grad(ready.call().sum(), list(ready.leaves.values()))


def measure(name: str, size: tuple[int, int, int, int], device: str, compiled: bool, seconds: float) -> dict[str, Any]:
    """One network at one length: times of each candidate, by way. What is wrong or cannot run is a note, and not timed."""
    b, T, inputs, hidden = size
    found = verdicts(name, inputs, hidden, device, compiled)
    made = candidates(NETWORKS[name], torch.randn(b, T, inputs, device=device), hidden, compiled)
    row: dict[str, Any] = {"network": name, "b": b, "T": T, "notes": {what: v.note for what, v in found.items() if v.note}}
    for k, way in enumerate(WAYS):
        able = {what: runs(ready, way) for what, ready in made.items() if what == LSTM or found[what].times > k}
        if COMPILED in able:
            try:
                able[COMPILED]()
            except Exception as failure:  # torch's compiler gives up, or memory ends
                del able[COMPILED]
                row["notes"].setdefault(COMPILED, f"{way}: {said(failure)}")
        row[way] = {n: common.spread(times) for n, times in common.timed(able, device, seconds, rounds=20).items()}
    serial_scans(False)
    torch.compiler.reset()
    return row


def render(record: common.Record) -> str:
    """Table 2 beside the paper's, then all ratios."""
    rows = record["rows"]
    names, found = list(dict.fromkeys(r["network"] for r in rows)), {(r["network"], r["T"]): r for r in rows}
    text = ["How many times as fast as the same network with a serial scan: the paper's Table 2, and ours, forward / forward "
            "and backward.",
            common.table(["T (b)", *(f"{n}: {who}" for n in names for who in ("paper", "ours"))], [
                [f"{T:,} ({found[names[0], T]['b']:,})", *(x for n in names for x in (
                    common.ratio(dict(zip(NETWORKS, PAPER.get(T, ()), strict=False)).get(n)),
                    " / ".join(common.ratio(times_as_fast(found[n, T], way, SERIAL)) for way in WAYS)))]
                for T in sorted({r["T"] for r in rows})]),
            "Seconds of lrdsl, and how many times as fast it is as each other way:",
            common.table(["network, T", *(f"{way}: {what}" for way in WAYS for what in ("s", SERIAL, LSTM, COMPILED))], [
                [f"{r['network']}, {r['T']:,}", *(x for way in WAYS for x in (
                    f"{r[way][OURS]['median']:.3g}", *(common.ratio(times_as_fast(r, way, other))
                                                       for other in (SERIAL, LSTM, COMPILED))))] for r in rows])]
    notes = [f"{r['network']}, T = {r['T']:,}: {what} is not timed both ways ({note})"
             for r in rows for what, note in r["notes"].items()]
    return "\n\n".join(text + ["\n".join(notes)] * bool(notes))


def times_as_fast(row: dict[str, Any], way: str, other: str) -> float | None:
    """The other's time over ours; None where it was not timed."""
    return row[way][other]["median"] / row[way][OURS]["median"] if other in row[way] else None


def draw(record: common.Record, sheet: Any) -> None:
    """Ratios over T, a panel each network, forward and backward."""
    names = list(dict.fromkeys(r["network"] for r in record["rows"]))
    for name, ax in zip(names, sheet.subplots(1, len(names), squeeze=False, sharey=True)[0], strict=True):
        rows = [r for r in record["rows"] if r["network"] == name]
        for k, other in enumerate((SERIAL, LSTM, COMPILED)):
            there = [(r["T"], ratio) for r in rows if (ratio := times_as_fast(r, WAYS[1], other))]
            if there:
                ax.plot(*zip(*there, strict=True), "o-", color=f"C{k}", label=f"over {other}")
        ax.plot(list(PAPER), [ups[list(NETWORKS).index(name)] for ups in PAPER.values()], "x:", color="gray",
                label="paper, over its serial scan")
        ax.axhline(1, color="black", linewidth=0.7)
        ax.set(xscale="log", yscale="log", title=name, xlabel="T")
        ax.legend(fontsize=6)
    sheet.supylabel("times as fast, forward and backward")


def main(arguments: list[str] | None = None) -> common.Record:
    """Measure, print and write."""
    parser = common.resumable(__doc__, "networks")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes minutes to compile")
    options = parser.parse_args(arguments)
    common.prepare(options)
    inputs, hidden, steps, Ts = (3, 16, 256, (16, 128)) if options.quick else (INPUTS, HIDDEN, STEPS, tuple(PAPER))
    compiled, seconds = not (options.quick or options.no_compile), 0.05 if options.quick else 10.0
    work = [(name, (steps // T, T, inputs, hidden)) for name in options.networks for T in Ts]
    rows = [common.kept(options.runs / f"{name}-{size[1]}.pt", (name, size, compiled, common.conditions(options)),
                        functools.partial(measure, name, size, options.device, compiled, seconds))
            for name, size in common.progress(work, "timing", len(work))]
    return common.save(options, "networks", rows, render, draw, inputs=inputs, units=hidden, layers=LAYERS, steps=steps)


if __name__ == "__main__":
    main()
