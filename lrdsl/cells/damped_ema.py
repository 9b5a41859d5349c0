"""Damped exponential moving average: Ma et al., "Mega: Moving Average Equipped Gated Attention" (ICLR 2023, arXiv 2209.10655),
section 3.1.

    h[t] = alpha x[t] + (1 - alpha delta) h[t-1]

alpha and delta are numbers between 0 and 1 (their authors' code takes sigmoids of what it learns).
"""

from ..frontend.cell import cell
from ..frontend.kinds import Input, State, Vector, t


@cell
def damped_ema(x: Input, h: State, alpha: Vector = Vector(init=0.5), delta: Vector = Vector(init=0.5)):
    """Damped exponential moving average (Ma et al. 2023, section 3.1)."""
    h[t] = alpha * x[t] + (1 - alpha * delta) * h[t - 1]
    return h[t]
