"""A filter of order two with learned coefficients, as `scipy.signal.lfilter([b0, b1, b2], [1, a1, a2], x)`.

    y[t] = b0 x[t] + b1 x[t-1] + b2 x[t-2] - a1 y[t-1] - a2 y[t-2]

Edges are past samples, x[-1], x[-2], y[-1], y[-2], and not scipy's `zi`: `scipy.signal.lfiltic` makes the one of the other.
"""

from ..frontend.cell import cell
from ..frontend.kinds import Input, State, Vector, t


@cell
def biquad(x: Input, y: State, b0: Vector, b1: Vector, b2: Vector, a1: Vector, a2: Vector):
    """A filter of order two (a biquad, in direct form I)."""
    y[t] = b0 * x[t] + b1 * x[t - 1] + b2 * x[t - 2] - a1 * y[t - 1] - a2 * y[t - 2]
    return y[t]
