"""minGRU: Feng et al., "Were RNNs All We Needed?" (2024, arXiv 2410.01201), section 3.1.

    z[t] = sigmoid(W x[t] + b), with update
    n[t] = W x[t] + b, with new (the paper's h with a tilde)
    h[t] = (1 - z[t]) h[t-1] + z[t] n[t]

z weighs the new value. The paper's appendix trains in log space, for which n goes through a positive function g; a linear
recurrence needs neither, and loses fewer digits.
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid
from ..frontend.kinds import Affine, Input, State, t


@cell
def mingru(x: Input, h: State, update: Affine, new: Affine):
    """minGRU (Feng et al. 2024, section 3.1)."""
    z = sigmoid(update(x[t]))
    h[t] = (1 - z) * h[t - 1] + z * new(x[t])
    return h[t]
