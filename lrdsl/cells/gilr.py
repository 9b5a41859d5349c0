"""Gated impulse linear recurrence: Martin & Cundy, "Parallelizing Linear Recurrent Neural Nets Over Sequence Length"
(ICLR 2018, arXiv 1709.04057), section 3.1.

    g[t] = sigmoid(U x[t] + b_g)
    i[t] = tanh(V x[t] + b_z)
    h[t] = g[t] h[t-1] + (1 - g[t]) i[t]
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid, tanh
from ..frontend.kinds import Affine, Input, State, t


@cell
def gilr(x: Input, h: State, gate: Affine, impulse: Affine):
    """Gated impulse linear recurrence (Martin & Cundy 2018, section 3.1)."""
    g = sigmoid(gate(x[t]))
    i = tanh(impulse(x[t]))
    h[t] = g * h[t - 1] + (1 - g) * i
    return h[t]
