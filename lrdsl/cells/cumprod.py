"""Cumulative product, as `torch.cumprod`: h[t] = x[t] h[t-1], from 1."""

from ..frontend.cell import cell
from ..frontend.kinds import Input, State, t


@cell
def cumprod(x: Input, h: State = State(init=1.0)):
    """Cumulative product, as torch.cumprod."""
    h[t] = x[t] * h[t - 1]
    return h[t]
