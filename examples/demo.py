"""lrdsl in two minutes: a cell, its kernels, a network that learns with them, and how long a training step takes.

    make demo                                   (the same as: python examples/demo.py)
    python examples/demo.py --quick             a look at every part; too short to learn well

Every number printed was measured in this run. The generated text and a picture go to out/. The program fails if the network
reads fewer than 95 % of the held-out digits.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import demo_speed as speed
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import lrdsl as lr

ENOUGH = 0.95
HIDDEN, BATCH, RATE, DECAY = 48, 32, 2e-2, 0.1
SPREAD = 3.0  # standard deviation of what is read
SPLIT = 0  # of the data: always the same 360 images are held out


class Digits(NamedTuple):
    """Images as sequences (N, 64, 1) of pixels, row by row, and what they show."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class Reader(nn.Module):
    """Two layers of a cell in both directions, averaged over time, and a linear classifier."""

    def __init__(self, cell: lr.Cell = lr.cells.gilr_lstm, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.rnn = lr.RNN(cell, input_size=1, hidden_size=hidden, num_layers=2, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.classify = nn.Linear(2 * hidden, 10)
        for name, parameter in self.rnn.named_parameters():
            if name.endswith(("gate.bias", "forget.bias")):  # sigmoid(0 … 4): memories of two steps to more than fifty
                nn.init.uniform_(parameter, 0, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        y, _ = self.rnn(pixels)
        return self.classify(self.norm(y.mean(1)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="lrdsl in two minutes")
    parser.add_argument("--quick", action="store_true", help="few epochs, short sequences, no demand on accuracy")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order of the images (default 0)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where files go (default out)")
    said = parser.parse_args(arguments)
    start = time.perf_counter()
    threads = torch.get_num_threads()
    said.out.mkdir(parents=True, exist_ok=True)

    title("1. The cell")
    print(lr.cells.gilr_lstm.spec.source)
    title("2. What is found in it")
    print(lr.cells.gilr_lstm.explain())
    title("3. The kernels, forward and backward")
    write_sources(lr.cells.gilr_lstm, said.out)
    title("4. Training: handwritten digits, read pixel by pixel")
    accuracy = train(digits(), epochs=4 if said.quick else 25, seed=said.seed)
    title("5. Seconds a training step (forward and backward)")
    torch.set_num_threads(threads)
    table = speed.measure((64, 256) if said.quick else speed.LENGTHS)
    print(f"\n{speed.show(table)}")
    draw(accuracy, table, said.out / "demo.png")
    title(f"Done in {time.perf_counter() - start:.0f} s; both curves are in {said.out / 'demo.png'}")
    return verdict(accuracy[-1], 0.25 if said.quick else ENOUGH)


def title(text: str) -> None:
    print(f"\n=== {text} {'=' * max(0, 95 - len(text))}\n", flush=True)


def write_sources(cell: lr.Cell, directory: Path) -> None:
    for target, suffix, what in (("cuda", "cu", "CUDA"), ("cpu", "cpp", "C++, which runs below")):
        path, text = directory / f"{cell.name}.{suffix}", cell.source(target)
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {len(text.splitlines())} lines of {what}")


def digits() -> Digits:
    """The 1797 images of scikit-learn, 360 of them held out, each digit in proportion."""
    images, labels = load_digits(return_X_y=True)
    images, test_images, labels, test_labels = train_test_split(images, labels, test_size=360, stratify=labels,
                                                                random_state=SPLIT)

    def sequences(pixels: Any) -> Tensor:  # spread, because a gate sees one number a step
        return torch.tensor(SPREAD * (pixels - images.mean()) / images.std(), dtype=torch.float32).unsqueeze(2)

    return Digits(sequences(images), torch.tensor(labels), sequences(test_images), torch.tensor(test_labels))


def train(data: Digits, epochs: int, seed: int, cell: lr.Cell = lr.cells.gilr_lstm) -> list[float]:
    """The accuracy on the held-out images after each epoch; nothing is chosen by it."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # small matrices: a second thread gains little, and loses much where the other core is busy
    reader, count = Reader(cell), len(data.images)
    start = time.perf_counter()
    F.cross_entropy(reader(data.images[:BATCH]), data.labels[:BATCH]).backward()
    print(f"first step: {time.perf_counter() - start:.1f} s, with compiling the kernels unless the cache has them")
    optimizer = torch.optim.AdamW(reader.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * -(-count // BATCH))
    accuracy: list[float] = []
    bar = tqdm(range(epochs), desc="training", unit="epoch", file=sys.stdout, ncols=100)
    for _ in bar:
        for batch in torch.randperm(count).split(BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(reader(data.images[batch]), data.labels[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            right = reader(data.test_images).argmax(1) == data.test_labels
        accuracy.append(right.float().mean().item())
        bar.set_postfix(loss=f"{loss.item():.3f}", test=f"{accuracy[-1]:.1%}")
    print(f"held-out accuracy after the last epoch: {accuracy[-1]:.1%} of {len(data.test_labels)} images "
          f"({sum(p.numel() for p in reader.parameters()):,} parameters, {count} training images)")
    return accuracy


def draw(accuracy: list[float], table: speed.Table, path: Path) -> None:
    """The learning curve, and time against length, side by side."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import PercentFormatter

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    left.plot(range(1, len(accuracy) + 1), accuracy, color="tab:blue")
    left.axhline(ENOUGH, color="gray", linestyle=":", linewidth=1)
    left.annotate(f"{accuracy[-1]:.1%}", (len(accuracy), accuracy[-1]), (0, -18), textcoords="offset points", ha="right")
    left.set(title="Digits, pixel by pixel: two-layer GILR-LSTM", xlabel="epoch", ylabel="held-out accuracy", ylim=(0, 1.02))
    left.yaxis.set_major_formatter(PercentFormatter(1))
    for name, color in zip(speed.NAMES, ("tab:blue", "tab:orange", "tab:gray"), strict=True):
        run = {T: row[name].seconds for T, row in table.items() if row[name].run}
        right.loglog(list(run), list(run.values()), "o-", base=2, color=color, label=name)
    right.set(title=f"A training step, {speed.LAYERS} × {speed.HIDDEN} units, batch 1",
              xlabel="length of the sequence", ylabel="seconds")
    right.set_xticks(list(table), [str(T) for T in table])
    right.set_yscale("log", base=10)
    right.grid(alpha=0.3)
    right.legend()
    figure.savefig(path, dpi=130)


def verdict(reached: float, needed: float) -> int:
    if reached >= needed:
        return 0
    print(f"demo: the network reads {reached:.1%} of the held-out digits, fewer than {needed:.0%}: something is wrong with the "
          "kernels, or with the recipe on this machine", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
