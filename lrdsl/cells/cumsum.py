"""Cumulative sum, as `torch.cumsum`: h[t] = h[t-1] + x[t]."""

from ..frontend.cell import cell
from ..frontend.kinds import Input, State, t


@cell
def cumsum(x: Input, h: State):
    """Cumulative sum, as torch.cumsum."""
    h[t] = h[t - 1] + x[t]
    return h[t]
