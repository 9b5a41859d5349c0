"""Six surrogates of two cells that are not linear, each trained to read the demo's digits pixel by pixel.

    python examples/surrogates.py                       (--quick: two epochs each, to see that all of it runs)

Everything but the cell is the demo's: data, sizes, epochs, rate, seed. Prints a table and writes out/surrogates.json.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import demo
from sympy import I

import lrdsl as lr
from lrdsl import t


@lr.cell
def turning(x: lr.Input, *, z: lr.State = lr.State(complex=True), enter: lr.Affine = lr.Affine(complex=True), leave: lr.Affine,
            decay: lr.Vector = lr.Vector(init=lambda v: v.uniform_(-6, -1)),  # memories of three to 400 steps
            speed: lr.Vector = lr.Vector(init=lambda v: v.uniform_(0, 1))):
    """The recurrence of the LRU (Orvieto et al. 2023), read through a real map."""
    a = lr.exp(-lr.exp(decay) + I * speed)
    z[t] = a * z[t - 1] + lr.sqrt(-lr.expm1(-2 * lr.exp(decay))) * enter(x[t])
    return leave(lr.re(z[t]), lr.im(z[t]))


@lr.cell
def convolution(x: lr.Input, W: lr.Affine):
    """Four steps of the input, mapped to the hidden size."""
    return W(x[t], x[t - 1], x[t - 2], x[t - 3])


gru, lstm, gilr = lr.cells.gru, lr.cells.lstm, lr.cells.gilr
CELLS = {
    "LSTM, h is a GILR (the GILR-LSTM)": lr.surrogate(lstm, h=gilr),
    "LSTM, h is a GILR, read at t": lr.surrogate(lstm, h=gilr, delay=0),
    "LSTM, h is x[t-1] (QRNN, window 2)": lr.surrogate(lstm, h=lr.cells.window(1)),
    "LSTM, h is a convolution of width 4": lr.surrogate(lstm, h=convolution),
    "LSTM, h is a complex recurrence": lr.surrogate(lstm, h=turning),
    "GRU, h is a GILR": lr.surrogate(gru, h=gilr),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="surrogates of every kind on the demo's digits")
    parser.add_argument("--quick", action="store_true", help="two epochs each")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order of the images (default 0)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the numbers go (default out)")
    said = parser.parse_args(arguments)
    data, rows = demo.digits(), []
    for name, cell in CELLS.items():
        print(f"\n{name}\n" + "\n".join(re.findall(r"\(surrogate: .*\)", cell.explain())), flush=True)
        accuracy = demo.train(data, 2 if said.quick else 25, said.seed, cell)
        parameters = sum(p.numel() for p in demo.Reader(cell).parameters())
        rows.append({"cell": name, "parameters": parameters, "accuracy": accuracy})
    said.out.mkdir(parents=True, exist_ok=True)
    (said.out / "surrogates.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"\n{'cell':<40}{'parameters':>12}{'held-out accuracy':>20}")
    for row in rows:
        print(f"{row['cell']:<40}{row['parameters']:>12,}{row['accuracy'][-1]:>20.1%}")


if __name__ == "__main__":
    main()
