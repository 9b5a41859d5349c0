"""What the paper could not take apart: the delay of the surrogate, the surrogate itself, and precision at a million steps.

    python -m examples.paper.ablations                  (--quick: small sizes; --device cuda: on a GPU)
    python -m examples.paper.ablations --parts delay    one of delay, digits, precision

- delay: the gates of a GILR-LSTM read the surrogate at t-1 in the paper's text, at t in its authors' code. Problem 2b at 1,024
  steps, trained as for Table 3, in both ways, from the same seeds on the same sequences.
- digits: the demo's, by the recipe of `examples.paper.framework`: both delays, and what the surrogate stands for, a recurrence
  that is not linear. That of an LSTM with diagonal recurrent matrices (`lr.cells.diag_lstm`) is solved by Newton's method, and,
  to compare the time, one step after another; torch.nn.LSTM has dense ones.
- precision: problem 2b again. What float32 and bfloat16 learn, up to 4,096 steps; then, from one float32 network that has
  learned that, its states and gradients over 1,048,576 steps beside those in float64, time, memory, and some more steps of
  training at that length. "mixed" has float32 weights and bfloat16 sequences, "bfloat16" has bfloat16 weights, too; states are
  float32 in both.

Seeds, sequences and images are the same for all that is compared. What is done is kept in --runs, and an interrupted program
goes on there when the same command is given again; a run of problem 2b within itself. With other settings it is done anew.
"""

from __future__ import annotations

from . import common
from .ablations_parts import FULL, PARTS, QUICK
from .ablations_report import draw, render
from .memory_run import Different

__all__ = ["draw", "main", "render"]


def main(arguments: list[str] | None = None) -> common.Record:
    """Do what has not been done yet, print and write."""
    parser = common.resumable(__doc__, "ablations")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    said = parser.parse_args(arguments)
    common.prepare(said)
    size = QUICK if said.quick else FULL
    try:
        rows = [{"part": part, **row} for part in said.parts for row in PARTS[part](said, size)]
    except Different as error:
        raise SystemExit(f"ablations: {error}") from None
    return common.save(said, "ablations", rows, render, draw)


if __name__ == "__main__":
    main()
