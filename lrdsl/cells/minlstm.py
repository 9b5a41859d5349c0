"""minLSTM: Feng et al., "Were RNNs All We Needed?" (2024, arXiv 2410.01201), section 3.2.

    f[t], i[t] = sigmoid(W x[t] + b), with forget, enter
    n[t] = W x[t] + b, with new (the paper's h with a tilde)
    h[t] = f[t] / (f[t] + i[t]) h[t-1] + i[t] / (f[t] + i[t]) n[t]

The quotients are k and 1 - k with k = sigmoid(log f[t] - log i[t]), so that they are numbers where both gates are shut.
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid, softplus
from ..frontend.kinds import Affine, Input, State, t


@cell
def minlstm(x: Input, h: State, forget: Affine, enter: Affine, new: Affine):
    """minLSTM (Feng et al. 2024, section 3.2)."""
    k = sigmoid(softplus(-enter(x[t])) - softplus(-forget(x[t])))
    h[t] = k * h[t - 1] + (1 - k) * new(x[t])
    return h[t]
