"""The LSTM as Martin & Cundy (ICLR 2018, arXiv 1709.04057, section 3.3) write it, without the tanh on c in the output.

    f[t], i[t], o[t] = sigmoid(V x[t] + U h[t-1] + b), with forget, enter, leave
    c[t] = f[t] c[t-1] + i[t] tanh(V x[t] + U h[t-1] + b), with update
    h[t] = o[t] c[t]

It is not linear in h: a dense map feeds h back. Give h a linear surrogate, as `gilr_lstm` does.
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid, tanh
from ..frontend.kinds import Affine, Input, State, t


@cell
def lstm(x: Input, h: State, c: State, forget: Affine, enter: Affine, update: Affine, leave: Affine):
    """LSTM without the output tanh. Not linear in h: declare it, then give h a linear surrogate."""
    f, i, o = (sigmoid(W(x[t], h[t - 1])) for W in (forget, enter, leave))
    c[t] = f * c[t - 1] + i * tanh(update(x[t], h[t - 1]))
    h[t] = o * c[t]
    return h[t]
