"""Double exponential smoothing, the additive trend without a season: Holt (1957, reprinted in the International Journal of
Forecasting 20, 2004); Winters (Management Science 6, 1960).

    level[t] = alpha x[t] + (1 - alpha) (level[t-1] + trend[t-1])
    trend[t] = beta (level[t] - level[t-1]) + (1 - beta) trend[t-1]
    y[t] = level[t] + trend[t]: the forecast of x[t+1]

The two states read each other: together they are one recurrence of 2x2 blocks, which the compiler finds.
"""

from ..frontend.cell import cell
from ..frontend.kinds import Input, State, Vector, t


@cell
def holt_winters(x: Input, level: State, trend: State, alpha: Vector = Vector(init=0.5), beta: Vector = Vector(init=0.1)):
    """Double exponential smoothing (Holt 1957)."""
    level[t] = alpha * x[t] + (1 - alpha) * (level[t - 1] + trend[t - 1])
    trend[t] = beta * (level[t] - level[t - 1]) + (1 - beta) * trend[t - 1]
    return level[t] + trend[t]
