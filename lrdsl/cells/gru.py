"""The GRU: Cho et al. (EMNLP 2014, arXiv 1406.1078), equations 5 to 8, with biases.

    r[t], z[t] = sigmoid(W x[t] + U h[t-1] + b), with reset and update
    n[t] = tanh(W x[t] + U (r[t] h[t-1]) + b), with candidate
    h[t] = z[t] h[t-1] + (1 - z[t]) n[t]

torch.nn.GRU has r[t] on the other side of U, as r[t] (U h[t-1] + b). It is not linear in h: dense maps feed h back. Give h a
linear surrogate, as `gilr_gru` does.
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid, tanh
from ..frontend.kinds import Affine, Input, State, t


@cell
def gru(x: Input, h: State, reset: Affine, update: Affine, candidate: Affine):
    """GRU (Cho et al. 2014). Not linear in h: declare it, then give h a linear surrogate."""
    r, z = (sigmoid(W(x[t], h[t - 1])) for W in (reset, update))
    n = tanh(candidate(x[t], r * h[t - 1]))
    h[t] = z * h[t - 1] + (1 - z) * n
    return h[t]
