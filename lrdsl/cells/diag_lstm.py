"""The LSTM whose recurrent matrices are diagonal, with coupled gates and peepholes: Danieli et al., "ParaRNN: Unlocking
Parallel Training of Nonlinear RNNs for Large Language Models" (arXiv 2510.21450). CIFG and peepholes are in Greff et al. (arXiv
1503.04069).

    f[t] = sigmoid(W_f x[t] + a_f h[t-1] + p_f c[t-1] + b_f), with forget
    z[t] = tanh(W_z x[t] + a_z h[t-1] + b_z), with update
    c[t] = f[t] c[t-1] + (1 - f[t]) z[t]
    o[t] = sigmoid(W_o x[t] + a_o h[t-1] + p_o c[t] + b_o), with leave
    h[t] = o[t] tanh(c[t])

o peeks at c[t], f at c[t-1]. c and h are one recurrence, whose derivative is 2x2 a channel. Run it with solver="sequential" or
"newton".
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid, tanh
from ..frontend.kinds import Affine, Input, State, Vector, t


@cell
def diag_lstm(x: Input, h: State, c: State, forget: Affine, update: Affine, leave: Affine, a_f: Vector, a_z: Vector,
              a_o: Vector, p_f: Vector, p_o: Vector):
    """LSTM with diagonal recurrent matrices, coupled gates and peepholes (Danieli et al. 2025)."""
    f = sigmoid(forget(x[t]) + a_f * h[t - 1] + p_f * c[t - 1])
    z = tanh(update(x[t]) + a_z * h[t - 1])
    c[t] = f * c[t - 1] + (1 - f) * z
    o = sigmoid(leave(x[t]) + a_o * h[t - 1] + p_o * c[t])
    h[t] = o * tanh(c[t])
    return h[t]
