"""SRU, the later version: Lei, Zhang, Wang, Dai & Artzi, "Simple Recurrent Units for Highly Parallelizable Recurrence" (EMNLP
2018, arXiv 1709.02755 v5), section 3.

    f[t] = sigmoid(W_f x[t] + v_f c[t-1] + b_f), with forget; r[t] the same with W_r, v_r, b_r, with highway
    c[t] = f[t] c[t-1] + (1 - f[t]) W x[t], with update, which has no bias
    h[t] = r[t] c[t] + (1 - r[t]) alpha x[t],  alpha = sqrt(1 + 2 exp(b_r)), with b_r as it starts

Both gates read c[t-1], channel by channel, so that c is not linear in its past: run it with solver="sequential" or "newton".
The highway adds x itself, so that input_size must be hidden_size (or 1, which is broadcast). The first version is `sru`.
"""

import math

from ..frontend.cell import Cell, cell
from ..frontend.functions import sigmoid
from ..frontend.kinds import Affine, Input, State, Vector, t


def with_highway_bias(bias: float) -> Cell:
    """The cell whose highway gate starts with this bias: the lower it is, the more of x passes."""
    alpha = math.sqrt(1 + 2 * math.exp(bias))

    @cell
    def sru_v2(x: Input, c: State, forget: Affine, v_f: Vector, v_r: Vector, update: Affine = Affine(bias=False),
               highway: Affine = Affine(bias=bias)):
        """Simple recurrent unit whose gates read c[t-1], too (Lei et al. 2018, section 3)."""
        f = sigmoid(forget(x[t]) + v_f * c[t - 1])
        r = sigmoid(highway(x[t]) + v_r * c[t - 1])
        c[t] = f * c[t - 1] + (1 - f) * update(x[t])
        h = r * c[t] + (1 - r) * (alpha * x[t])
        return h
    return sru_v2


sru_v2 = with_highway_bias(0.0)
