"""Exponential moving average, which Ma et al. recall in section 2 of "Mega" (ICLR 2023, arXiv 2209.10655).

    h[t] = alpha x[t] + (1 - alpha) h[t-1]
"""

from ..frontend.cell import cell
from ..frontend.kinds import Input, State, Vector, t


@cell
def ema(x: Input, h: State, alpha: Vector = Vector(init=0.5)):
    """Exponential moving average."""
    h[t] = alpha * x[t] + (1 - alpha) * h[t - 1]
    return h[t]
