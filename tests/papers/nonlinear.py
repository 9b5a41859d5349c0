"""Cells not linear in their state, though each channel reads its own past only: SRU of 2018, IndRNN, diagonal GRU and LSTM.

A solver for nonlinear recurrences is needed for them; a compiler that solves linear ones must refuse them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from .loops import before, edge, reference


@reference
def sru_v2(
    x: Tensor, c_0: Tensor | None = None, *, W: Tensor, W_f: Tensor, v_f: Tensor, b_f: Tensor, W_r: Tensor, v_r: Tensor,
    b_r: Tensor, alpha: float = 1.0, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """SRU, the later version: Lei, Zhang, Wang, Dai & Artzi, EMNLP 2018, arXiv 1709.02755 v5, section 3:

        f[t] = sigma(W_f x[t] + v_f c[t-1] + b_f)
        c[t] = f[t] c[t-1] + (1 - f[t]) W x[t]
        r[t] = sigma(W_r x[t] + v_r c[t-1] + b_r)          c[t-1], not c[t]
        h[t] = r[t] c[t] + (1 - r[t]) alpha x[t]           without a tanh

    alpha is a constant, 1 or sqrt(1 + 2 e^b) with b the first value of b_r (section 3.2).
    Shapes: x (T, B, H), W (H, H), v and b (H,), c_0 (B, H); gives h (T, B, H) and c[T-1].
    """
    c = c_0 = edge(c_0, x.shape[1], len(b_f), like=x)
    y = []
    for t in range(len(x)):
        c = before(c, c_0, reset, t)
        f = torch.sigmoid(linear(x[t], W_f, b_f) + v_f * c)
        r = torch.sigmoid(linear(x[t], W_r, b_r) + v_r * c)
        c = f * c + (1 - f) * linear(x[t], W)
        y.append(r * c + (1 - r) * alpha * x[t])
    return torch.stack(y), c


@reference
def indrnn(
    x: Tensor, h_0: Tensor | None = None, *, W: Tensor, u: Tensor, b: Tensor,
    activation: Callable[[Tensor], Tensor] = torch.relu, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """IndRNN: Li et al., CVPR 2018, arXiv 1803.04831, equation 2. The activation is relu in the paper, mostly.

        h[t] = activation(W x[t] + u h[t-1] + b)

    Shapes: x (T, B, I), W (H, I), u and b (H,), h_0 (B, H); gives h (T, B, H) and h[T-1].
    """
    h = h_0 = edge(h_0, x.shape[1], len(b), like=x)
    y = []
    for t in range(len(x)):
        h = activation(linear(x[t], W, b) + u * before(h, h_0, reset, t))
        y.append(h)
    return torch.stack(y), h


@reference
def diagonal_gru(
    x: Tensor, h_0: Tensor | None = None, *, A_z: Tensor, B_z: Tensor, b_z: Tensor, A_r: Tensor, B_r: Tensor, b_r: Tensor,
    A_h: Tensor, B_h: Tensor, b_h: Tensor, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """ParaGRU: Danieli et al., ParaRNN, 2025, arXiv 2510.21450. A GRU whose recurrent matrices are diagonal:

        z[t] = sigma(A_z h[t-1] + B_z x[t] + b_z)
        r[t] = sigma(A_r h[t-1] + B_r x[t] + b_r)
        h~[t] = tanh(A_h (r[t] h[t-1]) + B_h x[t] + b_h)
        h[t] = (1 - z[t]) h[t-1] + z[t] h~[t]              z is the share of the new value; torch.nn.GRU has it the other way

    Shapes: x (T, B, I), A and b (H,), B (H, I), dense here and block-diagonal in the paper's code, h_0 (B, H); gives h and
    h[T-1].
    """
    h = h_0 = edge(h_0, x.shape[1], len(b_z), like=x)
    y = []
    for t in range(len(x)):
        h = before(h, h_0, reset, t)
        z = torch.sigmoid(A_z * h + linear(x[t], B_z, b_z))
        r = torch.sigmoid(A_r * h + linear(x[t], B_r, b_r))
        new = torch.tanh(A_h * (r * h) + linear(x[t], B_h, b_h))
        h = (1 - z) * h + z * new
        y.append(h)
    return torch.stack(y), h


@reference
def diagonal_lstm(
    x: Tensor, h_0: tuple[Tensor, Tensor] | None = None, *, A_f: Tensor, B_f: Tensor, C_f: Tensor, b_f: Tensor, A_c: Tensor,
    B_c: Tensor, b_c: Tensor, A_o: Tensor, B_o: Tensor, C_o: Tensor, b_o: Tensor, reset: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """ParaLSTM (ibid.): an LSTM with peepholes, its enter gate coupled to the forget gate, its recurrent matrices diagonal:

        f[t] = sigma(A_f h[t-1] + B_f x[t] + C_f c[t-1] + b_f)
        c[t] = f[t] c[t-1] + (1 - f[t]) tanh(A_c h[t-1] + B_c x[t] + b_c)
        o[t] = sigma(A_o h[t-1] + B_o x[t] + C_o c[t] + b_o)       c[t], of this step
        h[t] = o[t] tanh(c[t])

    Shapes: x (T, B, I), A, C and b (H,), B (H, I), h_0 = (h_0, c_0), each (B, H), as torch.nn.LSTM has them; gives h and
    (h, c) of the last step.
    """
    h_0, c_0 = (None, None) if h_0 is None else h_0
    h = h_0 = edge(h_0, x.shape[1], len(b_f), like=x)
    c = c_0 = edge(c_0, x.shape[1], len(b_f), like=x)
    y = []
    for t in range(len(x)):
        h, c = before(h, h_0, reset, t), before(c, c_0, reset, t)
        f = torch.sigmoid(A_f * h + linear(x[t], B_f, b_f) + C_f * c)
        c = f * c + (1 - f) * torch.tanh(A_c * h + linear(x[t], B_c, b_c))
        o = torch.sigmoid(A_o * h + linear(x[t], B_o, b_o) + C_o * c)
        h = o * torch.tanh(c)
        y.append(h)
    return torch.stack(y), (h, c)
