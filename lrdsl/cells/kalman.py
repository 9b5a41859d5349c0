"""Kalman filter of one state a channel with a given gain, as in a steady state: Kalman (Journal of Basic Engineering 82, 1960).

    predicted[t] = transition x[t-1]
    x[t] = predicted[t] + gain (z[t] - observation predicted[t])
"""

from ..frontend.cell import cell
from ..frontend.kinds import Input, State, Vector, t


@cell
def kalman(z: Input, x: State, gain: Vector = Vector(init=0.5), transition: Vector = Vector(init=1.0),
           observation: Vector = Vector(init=1.0)):
    """Kalman filter with a fixed gain: the estimate after each measurement z."""
    predicted = transition * x[t - 1]
    x[t] = predicted + gain * (z[t] - observation * predicted)
    return x[t]
