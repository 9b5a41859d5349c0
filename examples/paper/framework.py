"""The paper's framework: the linear surrogate RNNs that it names, each declared here, and what they learn.

    python -m examples.paper.framework                  (--quick: a few steps each; --device cuda: on a GPU)

A linear surrogate RNN reads, in the place of its own past, something that is linear in the past: a GILR (the GILR-LSTM), or a
window of the input (the QRNN, the strongly-typed RNNs); GILR and SRU have the past in their recurrence alone. All are cells
of this language; strata and stages are as the compiler found them. They learn two tasks beside torch.nn.LSTM and torch.nn.GRU
of the same layers and units, by one recipe, the demo's, which was made for the GILR-LSTM, and searched for none of the others:

- digits: the demo's, read pixel by pixel by two layers in both directions; accuracy on 360 images that are held out.
- source text: the next byte of the Python standard library's own modules, two layers; bits a byte on modules that are held out.

What has been trained is kept in --runs, and an interrupted program goes on there when the same command is given again.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import statistics
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lrdsl as lr
from lrdsl.ir.plan import Stage

from . import common
from .networks import sru

sys.path.append(str(Path(__file__).parents[1]))
import demo

qrnn = lr.surrogate(lr.cells.lstm, h=lr.cells.window(1))
CELLS: Mapping[str, lr.Cell] = {
    "GILR": lr.cells.gilr, "GILR-LSTM": lr.cells.gilr_lstm, "SRU": sru, "QRNN (window surrogate)": qrnn,
    "T-RNN": lr.cells.t_rnn, "T-GRU": lr.cells.t_gru, "T-LSTM": lr.cells.t_lstm}
Make = Callable[..., nn.Module]  # the recurrent layers of a network, called like torch.nn.LSTM
TORCH: Mapping[str, Make] = {"torch.nn.LSTM": nn.LSTM, "torch.nn.GRU": nn.GRU}
LAYERS_OF: Mapping[str, Make] = {name: partial(lr.RNN, cell) for name, cell in CELLS.items()} | TORCH
CLIP, LAYERS = 1.0, 2
BYTES, HELD_OUT = 256, 10  # every tenth module is held out
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}


@dataclass(frozen=True)
class Size:
    """How long the tasks are. Digits: seeds, images, epochs. Text: units, inputs a byte, sequences a batch, their length,
    batches, bytes to be judged by; modules that are read."""

    seeds: int
    images: int
    epochs: int
    units: int
    inputs: int
    batch: int
    length: int
    batches: int
    judged: int
    modules: int


FULL, QUICK = Size(3, 1437, 25, 128, 64, 16, 256, 500, 1 << 18, 10**6), Size(1, 96, 1, 16, 8, 4, 32, 8, 1 << 10, 20)


def layers(make: Make, inputs: int, units: int, both_ways: bool) -> nn.Module:
    """The recurrent part of a network. Biases of gates that keep a state start in 0 … 4, as in the demo: memories of two steps
    to more than fifty."""
    rnn = make(inputs, units, num_layers=LAYERS, batch_first=True, bidirectional=both_ways)
    kept = [p for n, p in rnn.named_parameters() if n.endswith(("gate.bias", "forget.bias"))]
    kept += [p[units:2 * units] for n, p in rnn.named_parameters() if n.startswith("bias_ih")]  # torch's: i f g o; r z n
    with torch.no_grad():
        for bias in kept:
            bias.uniform_(0, 4)
    return rnn


class Reader(nn.Module):
    """Of digits: the mean over time of two layers in both directions, and a linear classifier, as in the demo."""

    def __init__(self, make: Make, units: int = demo.HIDDEN) -> None:
        super().__init__()
        self.rnn, self.norm, self.classify = layers(make, 1, units, True), nn.LayerNorm(2 * units), nn.Linear(2 * units, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 64, 1) to (batch, 10)."""
        return self.classify(self.norm(self.rnn(pixels)[0].mean(1)))


class Writer(nn.Module):
    """Of text: a vector for each byte, two layers, scores of the next byte."""

    def __init__(self, make: Make, inputs: int, units: int) -> None:
        super().__init__()
        self.read, self.rnn = nn.Embedding(BYTES, inputs), layers(make, inputs, units, False)
        self.norm, self.score = nn.LayerNorm(units), nn.Linear(units, BYTES)

    def forward(self, text: Tensor) -> Tensor:
        """(batch, time) to (batch, 256, time)."""
        return self.score(self.norm(self.rnn(self.read(text))[0])).transpose(1, 2)


def train(model: nn.Module, batches: Callable[[], Iterator[tuple[Tensor, Tensor]]], epochs: int, count: int, rate: float,
          what: str, after: Callable[[], object] = lambda: None) -> None:
    """The demo's recipe, for both tasks. count: batches of an epoch; after: what is done after each."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=demo.DECAY)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * count)
    every = common.progress((b for _ in range(epochs) for b in batches()), what, epochs * count)
    for k, (x, wanted) in enumerate(every, 1):
        optimizer.zero_grad()
        F.cross_entropy(model(x), wanted).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        plan.step()
        if k % count == 0:
            after()


def digits(name: str, data: demo.Digits, size: Size, device: str, seed: int, make: Make | None = None,
           after: Callable[[Reader], object] = lambda model: None) -> tuple[Reader, list[float]]:
    """A network that has learned, and its accuracy on the held-out images after each epoch; nothing is chosen by it.

    make: the layers, if `name` is none of LAYERS_OF. after: called when the network has just read those images.
    """
    torch.manual_seed(seed)
    model, count = Reader(make or LAYERS_OF[name]).to(device), min(size.images, len(data.images))
    images, labels, test_images, test_labels = (x.to(device) for x in data)
    order = torch.Generator().manual_seed(seed)  # the same for all networks, whatever their weights took to draw

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in torch.randperm(count, generator=order).split(demo.BATCH):
            yield images[batch], labels[batch]
    accuracy = list[float]()

    def judge() -> None:
        with torch.no_grad():
            right = model(test_images).argmax(1) == test_labels
        accuracy.append(right.float().mean().item())
        after(model)
    train(model, batches, size.epochs, -(-count // demo.BATCH), demo.RATE, f"{name}, digits, seed {seed}", judge)
    return model, accuracy


@dataclass(frozen=True)
class Text:
    """Bytes of the standard library's modules; `said` describes them."""

    train: Tensor
    test: Tensor
    said: str


def text(most: int) -> Text:
    """The modules of this Python, tests and what is installed aside, in the order of their names; every tenth is held out."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [p for p in sorted(root.rglob("*.py")) if not SKIPPED & set(p.relative_to(root).parts)]
    files = files[:most]
    parts = [b"".join(p.read_bytes() for k, p in enumerate(files) if (k % HELD_OUT == 0) == held) for held in (False, True)]
    train_bytes, test_bytes = (torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in parts)
    said = (f"{len(files)} modules of Python {platform.python_version()}, {len(parts[0]):,} bytes to learn from, "
            f"{len(parts[1]):,} held out, SHA-256 {hashlib.sha256(b''.join(parts)).hexdigest()[:12]}")
    return Text(train_bytes, test_bytes, said)


def language(name: str, data: Text, size: Size, device: str, seed: int = 0) -> tuple[int, float]:
    """Parameters, and bits a byte of the first `judged` bytes held out, in sequences four times as long as in training."""
    torch.manual_seed(seed)
    model, span = Writer(LAYERS_OF[name], size.inputs, size.units).to(device), torch.arange(size.length + 1)
    places = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(size.batches):
            start = torch.randint(len(data.train) - size.length, (size.batch, 1), generator=places)
            some = data.train[start + span].long().to(device)
            yield some[:, :-1], some[:, 1:]
    train(model, batches, 1, size.batches, demo.RATE / 4, f"{name}, source text")
    long, bits = 4 * size.length, 0.0
    rows = data.test[:size.judged + 1].long().to(device)
    inputs, wanted = (rows[k:k + size.judged // long * long].view(-1, long) for k in (0, 1))
    with torch.no_grad():
        for x, y in zip(inputs.split(size.batch), wanted.split(size.batch), strict=True):
            bits += F.cross_entropy(model(x), y, reduction="sum").item() / log(2)
    return parameters(model), bits / inputs.numel()


def parameters(model: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in model.parameters())


def found(name: str) -> dict[str, Any]:
    """What the compiler found in a cell: its declaration, recurrences, strata and stages. Empty for torch's modules."""
    if name not in CELLS:
        return {}
    stages = lr.compile(CELLS[name]).stages
    groups, steps = stages["strata"].groups, stages["plan"].steps
    passes = sum(isinstance(s, Stage) for s in steps)
    return {"declaration": CELLS[name].spec.source, "lines": lines_of(CELLS[name].spec.source), "strata": len(groups),
            "recurrences": [s.target for g in groups if g.recurrent for s in g.statements],
            "products": len(steps) - passes, "passes": passes}


def lines_of(declaration: str) -> int:
    """Lines of a declaration, without empty ones and one-line docstrings."""
    return sum(bool(line.strip()) and not line.strip().startswith('"""') for line in declaration.splitlines())


def measure(name: str, data: tuple[demo.Digits, Text], size: Size, said: argparse.Namespace) -> dict[str, Any]:
    """One row; what an earlier run has trained is not trained again."""
    def kept(what: str, make: Callable[[], Any]) -> Any:
        return common.kept(said.runs / f"{name}-{what}.pt", (name, what, size, data[1].said, said.device), make)

    def read(seed: int) -> tuple[int, float]:
        model, accuracy = digits(name, data[0], size, said.device, seed)
        return parameters(model), accuracy[-1]
    learned = [kept(f"digits-seed{seed}", partial(read, seed)) for seed in range(size.seeds)]
    of_text, bits = kept("text", partial(language, name, data[1], size, said.device))
    return {"name": name, **found(name), "parameters, digits": learned[0][0], "accuracy": [right for _, right in learned],
            "parameters, text": of_text, "bits a byte": bits}


def render(record: common.Record) -> str:
    """A line a cell, then the declarations."""
    def line(row: common.Record) -> list[str]:
        accuracy = row["accuracy"]
        of_cell = ["", "", ""]
        if "lines" in row:
            strata = f"{row['strata']}: {', '.join(row['recurrences'])}"
            of_cell = [str(row["lines"]), strata, f"{row['products']} + {row['passes']}"]
        return [row["name"], *of_cell, f"{row['parameters, digits']:,}", f"{statistics.mean(accuracy):.1%}",
                f"{min(accuracy):.1%} … {max(accuracy):.1%}", f"{row['parameters, text']:,}", f"{row['bits a byte']:.3f}"]
    seeds = len(record["rows"][0]["accuracy"])
    parts = [part for row in record["rows"] for part in row.get("declaration", "").strip().split("\n\n") if part]
    cells = "\n\n".join(dict.fromkeys(parts))  # gilr and lstm are part of others; "py", for it is no program
    return "\n\n".join([
        "Strata: how many, and the states of those that recur; stages: matrix products + fused passes. Accuracy on held-out "
        f"digits, mean and range of {seeds} seed{'s' * (seeds > 1)}; bits a byte on held-out source text, one seed.",
        common.table(["network", "lines", "strata", "stages", "parameters", "digits", "range", "parameters", "bits a byte"],
                     map(line, record["rows"])),
        f"The text: {record['text']}.", f"Every declaration, as it stands in the language:\n\n```py\n{cells}\n```"])


def draw(record: common.Record, sheet: Any) -> None:
    """Accuracy and bits a byte as bars."""
    names = [r["name"] for r in record["rows"]]
    left, right = sheet.subplots(1, 2)
    for ax, values, title in ((left, [100 * statistics.mean(r["accuracy"]) for r in record["rows"]], "digits: % right"),
                              (right, [r["bits a byte"] for r in record["rows"]], "source text: bits a byte")):
        bars = ax.barh(names, values, color=["C0" if "lines" in r else "gray" for r in record["rows"]])
        ax.bar_label(bars, fmt="%.3g", fontsize=7, padding=2)
        ax.set_xlim(0.9 * min(values), 1.03 * max(values))
        ax.set(title=title)
        ax.invert_yaxis()


def options() -> argparse.ArgumentParser:
    """What is said on the command line."""
    parser = common.resumable(__doc__, "framework")
    parser.add_argument("--cells", nargs="+", choices=list(LAYERS_OF), default=list(LAYERS_OF))
    return parser


def main(arguments: list[str] | None = None) -> common.Record:
    """Train, print and write."""
    said = options().parse_args(arguments)
    common.prepare(said)
    size = QUICK if said.quick else FULL
    data = demo.digits(), text(size.modules)
    rows = [measure(name, data, size, said) for name in said.cells]
    return common.save(said, "framework", rows, render, draw, text=data[1].said, size=vars(size))


if __name__ == "__main__":
    main()
