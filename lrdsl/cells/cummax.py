"""Cumulative maximum, as the values of `torch.cummax`: h[t] = max(h[t-1], x[t]), from -inf.

At a tie the old maximum and the new sample get half the gradient each; `torch.cummax` gives all of it to the last of them.
"""

import math

from ..frontend.cell import cell
from ..frontend.functions import maximum
from ..frontend.kinds import Input, State, t


@cell
def cummax(x: Input, h: State = State(init=-math.inf)):
    """Cumulative maximum, as torch.cummax."""
    h[t] = maximum(h[t - 1], x[t])
    return h[t]
