"""Strongly-typed RNN: Balduzzi & Ghifary, "Strongly-Typed Recurrent Neural Networks" (ICML 2016, arXiv 1602.02218).

    z[t] = W x[t], with update, which has no bias
    f[t] = sigmoid(V x[t] + b), with forget
    h[t] = f[t] h[t-1] + (1 - f[t]) z[t]
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid
from ..frontend.kinds import Affine, Input, State, t


@cell
def t_rnn(x: Input, h: State, forget: Affine, update: Affine = Affine(bias=False)):
    """Strongly-typed RNN (Balduzzi & Ghifary 2016)."""
    f = sigmoid(forget(x[t]))
    h[t] = f * h[t - 1] + (1 - f) * update(x[t])
    return h[t]
