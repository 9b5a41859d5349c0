"""Strongly-typed recurrent networks: Balduzzi & Ghifary, ICML 2016, arXiv 1602.02218.

Nothing but x passes through a matrix: where a GRU or an LSTM reads h[t-1], these read x[t-1] with a V of its own. The bias of
z, f and o is the papers' b; sigma is the logistic function, tau is tanh.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from .loops import before, edge, lagged, reference


@reference
def t_rnn(
    x: Tensor, h_0: Tensor | None = None, *, W: Tensor, V: Tensor, b: Tensor, reset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """T-RNN (the strongly-typed vanilla RNN):

        z[t] = W x[t]
        f[t] = sigma(V x[t] + b)
        h[t] = f[t] h[t-1] + (1 - f[t]) z[t]

    Shapes: x (T, B, I), W and V (H, I), b (H,), h_0 (B, H); gives h (T, B, H) and h[T-1].
    """
    h = h_0 = edge(h_0, x.shape[1], len(b), like=x)
    y = []
    for t in range(len(x)):
        z, f = linear(x[t], W), torch.sigmoid(linear(x[t], V, b))
        h = f * before(h, h_0, reset, t) + (1 - f) * z
        y.append(h)
    return torch.stack(y), h


@reference
def t_gru(
    x: Tensor, h_0: Tensor | None = None, *, V_z: Tensor, W_z: Tensor, b_z: Tensor, V_f: Tensor, W_f: Tensor, b_f: Tensor,
    V_o: Tensor, W_o: Tensor, b_o: Tensor, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """T-GRU:

        z[t] = V_z x[t-1] + W_z x[t] + b_z
        f[t] = sigma(V_f x[t-1] + W_f x[t] + b_f)
        o[t] = tau(V_o x[t-1] + W_o x[t] + b_o)
        h[t] = f[t] h[t-1] + z[t] o[t]

    z is not squashed, and nothing stands for 1 - f: this is not the fo-pooling of the QRNN, though that paper likens them.
    Shapes: x (T, B, I), V and W (H, I), b (H,), h_0 (B, H); gives h (T, B, H) and h[T-1].
    """
    h = h_0 = edge(h_0, x.shape[1], len(b_z), like=x)
    y = []
    for t in range(len(x)):
        last = lagged(x, reset, t, 1)
        z = linear(last, V_z) + linear(x[t], W_z, b_z)
        f = torch.sigmoid(linear(last, V_f) + linear(x[t], W_f, b_f))
        o = torch.tanh(linear(last, V_o) + linear(x[t], W_o, b_o))
        h = f * before(h, h_0, reset, t) + z * o
        y.append(h)
    return torch.stack(y), h


@reference
def t_lstm(
    x: Tensor, c_0: Tensor | None = None, *, V_z: Tensor, W_z: Tensor, b_z: Tensor, V_f: Tensor, W_f: Tensor, b_f: Tensor,
    V_o: Tensor, W_o: Tensor, b_o: Tensor, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """T-LSTM, with z, f and o of the T-GRU:

        c[t] = f[t] c[t-1] + (1 - f[t]) z[t]
        h[t] = c[t] o[t]

    Shapes: x (T, B, I), V and W (H, I), b (H,), c_0 (B, H); gives h (T, B, H) and c[T-1].
    """
    c = c_0 = edge(c_0, x.shape[1], len(b_z), like=x)
    y = []
    for t in range(len(x)):
        last = lagged(x, reset, t, 1)
        z = linear(last, V_z) + linear(x[t], W_z, b_z)
        f = torch.sigmoid(linear(last, V_f) + linear(x[t], W_f, b_f))
        o = torch.tanh(linear(last, V_o) + linear(x[t], W_o, b_o))
        c = f * before(c, c_0, reset, t) + (1 - f) * z
        y.append(c * o)
    return torch.stack(y), c
