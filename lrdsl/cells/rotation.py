"""A damped rotation of the plane, driven by two sequences: an oscillator, a resonator, or a complex pole as real states.

    u[t] = rho (cos(theta) u[t-1] - sin(theta) v[t-1]) + x1[t]
    v[t] = rho (sin(theta) u[t-1] + cos(theta) v[t-1]) + x2[t]
"""

from ..frontend.cell import cell
from ..frontend.functions import cos, sin
from ..frontend.kinds import Input, State, Vector, t


@cell
def rotation(x1: Input, x2: Input, u: State, v: State, rho: Vector = Vector(init=0.9), theta: Vector = Vector()):
    """A damped rotation of the plane."""
    c, s = rho * cos(theta), rho * sin(theta)
    u[t] = c * u[t - 1] - s * v[t - 1] + x1[t]
    v[t] = s * u[t - 1] + c * v[t - 1] + x2[t]
    return u[t], v[t]
