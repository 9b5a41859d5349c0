"""HGRN, with real values: Qin, Yang & Zhong, "Hierarchically Gated Recurrent Neural Network for Sequence Modeling" (NeurIPS
2023, arXiv 2311.04823), section 3.2.

    mu[t] = sigmoid(W x[t] + b), with forget
    f[t] = gamma + (1 - gamma) mu[t]
    c[t] = silu(W x[t] + b), with update
    h[t] = f[t] h[t-1] + (1 - f[t]) c[t]

The lower bound gamma of what a layer keeps grows with its depth: a cell knows one layer, so that a network is a list,
`lr.RNN([hgrn(0.0), hgrn(0.5), hgrn(0.75)], …)`. In the paper it is learned, all layers together, one a channel. The norm, the
gate and the projection of the output, which follow in the paper, are outside.
"""

from ..errors import BadDeclaration
from ..frontend.cell import Cell, cell
from ..frontend.functions import sigmoid, silu
from ..frontend.kinds import Affine, Input, State, t
from ..location import caller


def hgrn(lower_bound: float = 0.0) -> Cell:
    """The HGRN whose forget gate is at least `lower_bound`. Raises BadDeclaration for one that is not in [0, 1)."""
    if not isinstance(lower_bound, int | float) or not 0 <= lower_bound < 1:
        raise BadDeclaration(f"lower_bound={lower_bound!r}: what is kept at least is from 0 to below 1", caller(),
                             "write lower_bound=0.5")

    @cell
    def hgrn(x: Input, h: State, forget: Affine, update: Affine):
        """Hierarchically gated recurrent network, real (Qin et al. 2023, section 3.2)."""
        f = lower_bound + (1 - lower_bound) * sigmoid(forget(x[t]))
        h[t] = f * h[t - 1] + (1 - f) * silu(update(x[t]))
        return h[t]
    return hgrn
