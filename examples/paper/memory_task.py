"""Problem 2b of Hochreiter & Schmidhuber (1997) as Martin & Cundy (2018, arXiv 1709.04057) set it: the first of T vectors is
e₁ or -e₁, each other one is one of the 128 one-hot vectors, and after the last one the sign of the first is asked for.

So e₁ itself may come anywhere, and only -e₁, which comes once or never, tells the classes apart. With `first_only` it comes
nowhere but at the start, as the symbols that have to be remembered did in 1997.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SYMBOLS = 128
TRAINING, TESTING = range(2)  # streams of data that share nothing


class Batch(NamedTuple):
    """tokens (T, B), int32: which entry of each vector is not 0, 0 for e₁; positive (B,): whether x[0] is e₁, not -e₁."""

    tokens: Tensor
    positive: Tensor

    @property
    def signs(self) -> Tensor:
        """(B,): 1 or -1, the entry of the first vector that is not 0; all others have a 1 there."""
        return 2.0 * self.positive - 1.0


def draw(seed: int, stream: int, number: int, T: int, B: int, first_only: bool = False) -> Batch:
    """A batch of fresh sequences: always the same for the same arguments, so that a run can go on where it was stopped."""
    random = np.random.default_rng([seed, stream, number])
    positive = random.integers(2, size=B, dtype=np.int32)
    tokens = random.integers(int(first_only), SYMBOLS, size=(T, B), dtype=np.int32)
    tokens[0] = 0
    return Batch(torch.from_numpy(tokens), torch.from_numpy(positive).float())
