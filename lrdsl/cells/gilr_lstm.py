"""GILR-LSTM: Martin & Cundy (ICLR 2018, arXiv 1709.04057), section 3.3.

The gates of an LSTM read s, a GILR of x, instead of the LSTM's own h; then c is a linear recurrence.

    s[t] = g[t] s[t-1] + (1 - g[t]) i[t],   with g and i of x[t]
    f[t], i[t], o[t] = sigmoid(V x[t] + U s[t-1] + b), z[t] = tanh(V x[t] + U s[t-1] + b)
    c[t] = f[t] c[t-1] + i[t] z[t]
    h[t] = o[t] c[t]

The paper's text reads s[t-1] (`gilr_lstm`); its authors' code reads s[t] (`gilr_lstm_delay0`).
"""

from ..frontend.surrogate import surrogate
from .gilr import gilr
from .lstm import lstm

gilr_lstm = surrogate(lstm, h=gilr)
gilr_lstm_delay0 = surrogate(lstm, h=gilr, delay=0)
