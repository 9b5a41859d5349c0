"""A GRU whose dense maps read a GILR of x instead of h: the linear surrogate of Martin & Cundy (ICLR 2018, arXiv 1709.04057,
section 3.2) for another cell than theirs.

    s[t] = g[t] s[t-1] + (1 - g[t]) i[t],   with g and i of x[t]
    r[t], z[t] = sigmoid(W x[t] + U s[t-1] + b),  n[t] = tanh(W x[t] + U (r[t] s[t-1]) + b)
    h[t] = z[t] h[t-1] + (1 - z[t]) n[t]

The line that is read channel by channel, z[t] h[t-1], keeps h itself.
"""

from ..frontend.surrogate import surrogate
from .gilr import gilr
from .gru import gru

gilr_gru = surrogate(gru, h=gilr)
