"""The GRU whose recurrent matrices are diagonal: Danieli et al., "ParaRNN: Unlocking Parallel Training of Nonlinear RNNs for
Large Language Models" (arXiv 2510.21450), which solves it by Newton's method; the GRU is that of Cho et al. (arXiv 1406.1078).

    z[t] = sigmoid(W_z x[t] + a_z h[t-1] + b_z), with update
    r[t] = sigmoid(W_r x[t] + a_r h[t-1] + b_r), with reset
    n[t] = tanh(W_n x[t] + a_n r[t] h[t-1] + b_n), with candidate
    h[t] = (1 - z[t]) h[t-1] + z[t] n[t]

z multiplies the new value. Run it with solver="sequential" or "newton".
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid, tanh
from ..frontend.kinds import Affine, Input, State, Vector, t


@cell
def diag_gru(x: Input, h: State, update: Affine, reset: Affine, candidate: Affine, a_z: Vector, a_r: Vector, a_n: Vector):
    """GRU with diagonal recurrent matrices (Danieli et al. 2025)."""
    z = sigmoid(update(x[t]) + a_z * h[t - 1])
    r = sigmoid(reset(x[t]) + a_r * h[t - 1])
    n = tanh(candidate(x[t]) + a_n * r * h[t - 1])
    h[t] = (1 - z) * h[t - 1] + z * n
    return h[t]
