"""Strongly-typed GRU: Balduzzi & Ghifary (ICML 2016, arXiv 1602.02218).

    z[t] = W x[t] + V x[t-1] + b, with update
    f[t] = sigmoid(W x[t] + V x[t-1] + b), with forget
    o[t] = tanh(W x[t] + V x[t-1] + b), with leave
    h[t] = f[t] h[t-1] + z[t] o[t]

The new value is not weighed by 1 - f, and what leaves gates what enters: this is no fo-pooling. Weights stand side by side as
[W V]; x is 0 before the first step and behind a reset.
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid, tanh
from ..frontend.kinds import Affine, Input, State, t


@cell
def t_gru(x: Input, h: State, update: Affine, forget: Affine, leave: Affine):
    """Strongly-typed GRU (Balduzzi & Ghifary 2016)."""
    z, f, o = update(x[t], x[t - 1]), sigmoid(forget(x[t], x[t - 1])), tanh(leave(x[t], x[t - 1]))
    h[t] = f * h[t - 1] + z * o
    return h[t]
