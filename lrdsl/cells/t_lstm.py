"""Strongly-typed LSTM: Balduzzi & Ghifary (ICML 2016, arXiv 1602.02218).

    z[t] = W x[t] + V x[t-1] + b, with update
    f[t] = sigmoid(W x[t] + V x[t-1] + b), with forget
    o[t] = tanh(W x[t] + V x[t-1] + b), with leave
    c[t] = f[t] c[t-1] + (1 - f[t]) z[t]
    h[t] = c[t] o[t]

Weights stand side by side as [W V]; x is 0 before the first step and behind a reset.
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid, tanh
from ..frontend.kinds import Affine, Input, State, t


@cell
def t_lstm(x: Input, c: State, update: Affine, forget: Affine, leave: Affine):
    """Strongly-typed LSTM (Balduzzi & Ghifary 2016)."""
    z, f, o = update(x[t], x[t - 1]), sigmoid(forget(x[t], x[t - 1])), tanh(leave(x[t], x[t - 1]))
    c[t] = f * c[t - 1] + (1 - f) * z
    h = c[t] * o
    return h
