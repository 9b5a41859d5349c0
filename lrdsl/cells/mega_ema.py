"""Multi-dimensional damped exponential moving average: Ma et al., "Mega" (ICLR 2023, arXiv 2209.10655), section 3.1.

    h[t] = alpha beta x[t] + (1 - alpha delta) h[t-1]          N averages a channel
    y[t] = eta · h[t]                                          added up over them

alpha and delta are sigmoids of what is learned, so that they stay between 0 and 1.
"""

from ..frontend.cell import Cell, cell
from ..frontend.functions import sigmoid
from ..frontend.functions import sum as over_axis
from ..frontend.kinds import Input, State, Vector, t


def mega_ema(size: int = 16) -> Cell:
    """Mega's moving average with `size` averages a channel. Raises what `lr.State(size=…)` raises."""
    @cell
    def mega_ema(x: Input, *, h: State = State(size=size), alpha: Vector = Vector(size=size),
                 delta: Vector = Vector(size=size), beta: Vector = Vector(size=size), eta: Vector = Vector(size=size)):
        """Multi-dimensional damped moving average (Ma et al. 2023, section 3.1)."""
        a = sigmoid(alpha)
        h[t] = a * beta * x[t] + (1 - a * sigmoid(delta)) * h[t - 1]
        return over_axis(eta * h[t])
    return mega_ema
