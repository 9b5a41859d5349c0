"""The paper's comparison with an LSTM: steps a second of a GILR-LSTM and of torch.nn.LSTM over batch size b and length T.

    python -m examples.paper.lstm                       (--quick: small networks; --device cuda: on a GPU, beside cuDNN)

Two layers of 256 units, 32 inputs, as on the authors' poster; forward, and forward with all gradients. b * T goes up to 65,536
on a CPU, and to 2^20 on a GPU. torch.nn.LSTM has a tanh before its output gate, as cuDNN has; the GILR-LSTM has none, as in
the paper.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import lrdsl as lr

from . import common
from .networks import LAYERS, LSTM, OURS, WAYS, ours, runs, theirs, times_as_fast, verdicts

# The poster's throughput in thousand steps a second: cuDNN's LSTM by b, at any T; the GILR-LSTM by T, at b = 1.
PAPER_LSTM = {1: 14.3, 2: 18.4, 4: 37.1, 8: 90.8, 16: 170.0, 32: 305.0, 64: 534.0, 128: 695.0, 256: 772.0}
PAPER_GILR = {256: 63.6, 512: 118.0, 1024: 189.0, 2048: 311.0, 4096: 412.0, 8192: 478.0, 16384: 510.0, 32768: 510.0,
              65536: 509.0, 131072: 503.0}
INPUTS, HIDDEN = 32, 256
BATCHES, LENGTHS, MOST = tuple(4**k for k in range(5)), tuple(4**k for k in range(4, 9)), {"cpu": 1 << 16, "cuda": 1 << 20}


def measure(b: int, T: int, inputs: int, hidden: int, device: str, seconds: float) -> dict[str, Any]:
    """Times of both networks, by way."""
    x = torch.randn(b, T, inputs, device=device)
    gilr = lr.RNN(lr.cells.gilr_lstm, inputs, hidden, num_layers=LAYERS, batch_first=True, device=device)
    lstm = nn.LSTM(inputs, hidden, num_layers=LAYERS, batch_first=True, device=device)
    made = {OURS: ours(gilr, x, serial=False), LSTM: theirs(lstm, x)}
    times = {way: common.timed({n: runs(ready, way) for n, ready in made.items()}, device, seconds, rounds=20) for way in WAYS}
    return {"b": b, "T": T, **{way: {n: common.spread(found) for n, found in times[way].items()} for way in WAYS}}


def thousands(row: common.Record, way: str, who: str) -> float:
    """Thousand steps a second, of all sequences together."""
    return row["b"] * row["T"] / row[way][who]["median"] / 1e3


def render(record: common.Record) -> str:
    """Throughput by way, then the poster's."""
    text = []
    for way in WAYS:
        text += [f"{way.capitalize()}, thousand steps a second: GILR-LSTM / torch.nn.LSTM, and in brackets the ratio.",
                 grid(record, lambda r, way=way: f"{thousands(r, way, OURS):.3g} / {thousands(r, way, LSTM):.3g} "
                                                 f"({common.ratio(times_as_fast(r, way, LSTM))})")]
    ratios = [[f"{T:,}", f"{speed:g}", common.ratio(speed / PAPER_LSTM[1])] for T, speed in PAPER_GILR.items()]
    return "\n\n".join([*text, "The authors' poster, b = 1, their GPU, cuDNN's LSTM at "
                        f"{PAPER_LSTM[1]:g} thousand steps a second for every T:",
                        common.table(["T", "GILR-LSTM", "ratio"], ratios),
                        "There cuDNN's LSTM reaches, at b = " + ", ".join(f"{b}: {s:g}" for b, s in PAPER_LSTM.items())
                        + "; the GILR-LSTM no more than 527 at any b, so that cuDNN is the faster one from b = 64 on."])


def grid(record: common.Record, said: Any) -> str:
    """A table over T and b."""
    found = {(r["b"], r["T"]): r for r in record["rows"]}
    bs, Ts = (sorted({key[k] for key in found}) for k in (0, 1))
    return common.table(["T", *(f"b = {b}" for b in bs)], [
        [f"{T:,}", *(said(found[b, T]) if (b, T) in found else "" for b in bs)] for T in Ts])


def draw(record: common.Record, sheet: Any) -> None:
    """The ratio as a heat map, a panel each way: red where the LSTM is faster."""
    from matplotlib.colors import LogNorm
    found = {(r["b"], r["T"]): r for r in record["rows"]}
    bs, Ts = (sorted({key[k] for key in found}) for k in (0, 1))
    ratios = {way: [[times_as_fast(found[b, T], way, LSTM) if (b, T) in found else float("nan") for b in bs] for T in Ts]
              for way in WAYS}
    far = max(1.01, *(max(x, 1 / x) for rows in ratios.values() for row in rows for x in row if x == x))
    for way, ax in zip(WAYS, sheet.subplots(1, len(WAYS)), strict=True):
        image = ax.imshow(ratios[way], norm=LogNorm(1 / far, far), cmap="RdBu", aspect="auto", origin="lower")
        for y, row in enumerate(ratios[way]):
            for x, value in enumerate(row):
                if value == value:
                    dark = max(value, 1 / value) > far ** 0.6
                    ax.text(x, y, common.ratio(value), ha="center", va="center", color="white" if dark else "black")
        ax.set(title=way, xlabel="b", ylabel="T")
        ax.set_xticks(range(len(bs)), bs)
        ax.set_yticks(range(len(Ts)), [f"{T:,}" for T in Ts])
    sheet.colorbar(image, ax=sheet.axes, label="GILR-LSTM, times as fast as torch.nn.LSTM")


def main(arguments: list[str] | None = None) -> common.Record:
    """Measure, print and write."""
    parser = common.options(__doc__)
    parser.add_argument("--most", type=int, help="the largest b * T (default 65,536 on a CPU, 2^20 on a GPU)")
    said = parser.parse_args(arguments)
    common.prepare(said)
    inputs, hidden, bs, Ts, most = (3, 16, (1, 8), (16, 128), 256) if said.quick else (
        INPUTS, HIDDEN, BATCHES, LENGTHS, said.most or MOST[said.device])
    verdicts("GILR-LSTM", inputs, hidden, said.device, compiled=False)
    work = [(b, T) for T in Ts for b in bs if b * T <= most]
    rows = [measure(b, T, inputs, hidden, said.device, 0.05 if said.quick else 5.0)
            for b, T in common.progress(work, "timing", len(work))]
    return common.save(said, "lstm", rows, render, draw, inputs=inputs, units=hidden, layers=LAYERS)


if __name__ == "__main__":
    main()
