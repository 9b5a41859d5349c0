"""Recurrences with exponential gates, whose states are scaled by e^-m, m a running maximum of exponents: WKV, mLSTM, sLSTM.

The true numerators and denominators are the states times e^m; no output depends on m. Sequences only but for sLSTM, which is
made of dense maps of x. A state m starts at -inf, the others at 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, logsigmoid

from .loops import before, edge, reference, together

INF = float("inf")


@reference
def rwkv4_wkv(
    k: Tensor, h_0: tuple[Tensor, Tensor] | None = None, *, v: Tensor, w: Tensor | float, u: Tensor | float,
    reset: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """WKV of RWKV-4: Peng et al. 2023, arXiv 2305.13048, section 3, its definition as two sums that are kept, unscaled:

        wkv[t] = (sum over i < t of e^(-(t-1-i) w + k[i]) v[i] + e^(u + k[t]) v[t]) / (the same without v)
        num[t] = e^-w num[t-1] + e^k[t] v[t]
        den[t] = e^-w den[t-1] + e^k[t]

    w >= 0 is the decay itself (in the authors' code exp of the parameter), u the bonus of the present step. Overflows from k
    of about 700 on. Shapes: k and v (T, B, C), w and u numbers, h_0 = (num_0, den_0), each (B, C); gives wkv and both states.
    """
    k, v, w, u = together(k, v, w, u)
    num, den = num_0, den_0 = _states(h_0, (0.0, 0.0), like=k)
    y = []
    for t in range(len(k)):
        num, den = before(num, num_0, reset, t), before(den, den_0, reset, t)
        now = torch.exp(u[t] + k[t])
        y.append((num + now * v[t]) / (den + now))
        num = torch.exp(-w[t]) * num + torch.exp(k[t]) * v[t]
        den = torch.exp(-w[t]) * den + torch.exp(k[t])
    return torch.stack(y), (num, den)


@reference
def rwkv4_wkv_stabilised(
    k: Tensor, h_0: tuple[Tensor, Tensor, Tensor] | None = None, *, v: Tensor, w: Tensor | float, u: Tensor | float,
    reset: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """WKV of RWKV-4 as an RNN cell that cannot overflow (ibid., the appendix on its numerical stability):

        q = max(p[t-1], u + k[t])
        wkv[t] = (e^(p[t-1] - q) num[t-1] + e^(u + k[t] - q) v[t]) / (e^(p[t-1] - q) den[t-1] + e^(u + k[t] - q))
        p[t] = max(p[t-1] - w, k[t])
        num[t] = e^(p[t-1] - w - p[t]) num[t-1] + e^(k[t] - p[t]) v[t]
        den[t] = e^(p[t-1] - w - p[t]) den[t-1] + e^(k[t] - p[t])

    Shapes as in rwkv4_wkv, with h_0 = (num_0, den_0, p_0); p_0 = -inf.
    """
    k, v, w, u = together(k, v, w, u)
    num, den, p = num_0, den_0, p_0 = _states(h_0, (0.0, 0.0, -INF), like=k)
    y = []
    for t in range(len(k)):
        num, den, p = before(num, num_0, reset, t), before(den, den_0, reset, t), before(p, p_0, reset, t)
        q = torch.maximum(p, u[t] + k[t])
        old, now = torch.exp(p - q), torch.exp(u[t] + k[t] - q)
        y.append((old * num + now * v[t]) / (old * den + now))
        p, last = torch.maximum(p - w[t], k[t]), p
        old, now = torch.exp(last - w[t] - p), torch.exp(k[t] - p)
        num, den = old * num + now * v[t], old * den + now
    return torch.stack(y), (num, den, p)


@reference
def mlstm_normaliser(
    k: Tensor, h_0: tuple[Tensor, Tensor] | None = None, *, i: Tensor, f: Tensor, forget: str = "sigmoid",
    reset: Tensor | None = None,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:  # fmt: skip
    """The normaliser n of the mLSTM: Beck et al. 2024, arXiv 2405.04517, section 2.3, stabilised as in section 2.2:

        log f' = log sigma(f[t]), or f[t] itself where forget="exp"
        m[t] = max(log f' + m[t-1], i[t])
        n[t] = e^(log f' + m[t-1] - m[t]) n[t-1] + e^(i[t] - m[t]) k[t]

    i and f are what the gates are made of, before exp and sigma. Shapes: k, i, f (T, B, C), of which i and f may be (T, B, 1);
    h_0 = (n_0, m_0), each (B, C); gives ((n, m), each (T, B, C)) and both of the last step.
    """
    k, i, f = together(k, i, f)
    n, m = n_0, m_0 = _states(h_0, (0.0, -INF), like=k)
    ns, ms = [], []
    for t in range(len(k)):
        n, m = before(n, n_0, reset, t), before(m, m_0, reset, t)
        old, new, m = _gates(i[t], f[t], m, forget)
        n = old * n + new * k[t]
        ns.append(n)
        ms.append(m)
    return (torch.stack(ns), torch.stack(ms)), (n, m)


@reference
def mlstm(
    v: Tensor, h_0: tuple[Tensor, Tensor, Tensor] | None = None, *, k: Tensor, q: Tensor, i: Tensor, f: Tensor,
    forget: str = "sigmoid", reset: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """The mLSTM (ibid., section 2.3) with heads of size 1, so that its matrix memory is one number a channel, c:

        c[t] = e^(log f' + m[t-1] - m[t]) c[t-1] + e^(i[t] - m[t]) v[t] k[t],  n and m as in mlstm_normaliser
        h[t] = c[t] q[t] / max(|n[t] q[t]|, e^-m[t])       e^-m, because the paper's 1 is scaled as c and n are

    The paper's k has 1/sqrt(d) in it, d = 1 here; its output gate is not part of the recurrence, and not here.
    Shapes: v, k, q (T, B, C), i and f too or (T, B, 1), h_0 = (c_0, n_0, m_0), each (B, C); gives h and the three states.
    """
    v, k, q, i, f = together(v, k, q, i, f)
    c, n, m = c_0, n_0, m_0 = _states(h_0, (0.0, 0.0, -INF), like=v)
    y = []
    for t in range(len(v)):
        c, n, m = before(c, c_0, reset, t), before(n, n_0, reset, t), before(m, m_0, reset, t)
        old, new, m = _gates(i[t], f[t], m, forget)
        c, n = old * c + new * v[t] * k[t], old * n + new * k[t]
        y.append(c * q[t] / torch.maximum((n * q[t]).abs(), torch.exp(-m)))
    return torch.stack(y), (c, n, m)


@reference
def slstm(
    x: Tensor, h_0: tuple[Tensor, Tensor, Tensor] | None = None, *, W_z: Tensor, b_z: Tensor, W_i: Tensor, b_i: Tensor,
    W_f: Tensor, b_f: Tensor, W_o: Tensor, b_o: Tensor, forget: str = "sigmoid", reset: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """The sLSTM (ibid., section 2.2) without its recurrent matrix R, so that its gates read x alone:

        z[t], o[t] = tanh(W_z x[t] + b_z), sigma(W_o x[t] + b_o)
        log f' = log sigma(W_f x[t] + b_f), or W_f x[t] + b_f itself where forget="exp"
        m[t] = max(log f' + m[t-1], W_i x[t] + b_i)
        c[t] = e^(log f' + m[t-1] - m[t]) c[t-1] + e^(W_i x[t] + b_i - m[t]) z[t]
        n[t] = e^(log f' + m[t-1] - m[t]) n[t-1] + e^(W_i x[t] + b_i - m[t])
        h[t] = o[t] c[t] / n[t]

    Shapes: x (T, B, I), W (H, I), b (H,), h_0 = (c_0, n_0, m_0), each (B, H); gives h (T, B, H) and the three states.
    """
    i, f = linear(x, W_i, b_i), linear(x, W_f, b_f)
    c, n, m = c_0, n_0, m_0 = _states(h_0, (0.0, 0.0, -INF), like=i)
    y = []
    for t in range(len(x)):
        z, o = torch.tanh(linear(x[t], W_z, b_z)), torch.sigmoid(linear(x[t], W_o, b_o))
        c, n, m = before(c, c_0, reset, t), before(n, n_0, reset, t), before(m, m_0, reset, t)
        old, new, m = _gates(i[t], f[t], m, forget)
        c, n = old * c + new * z, old * n + new
        y.append(o * c / n)
    return torch.stack(y), (c, n, m)


def _gates(i: Tensor, f: Tensor, m: Tensor, forget: str) -> tuple[Tensor, Tensor, Tensor]:
    """The factor of the old states, that of what is new, and the next m."""
    log_f = {"sigmoid": logsigmoid, "exp": lambda f: f}[forget](f)
    m_next = torch.maximum(log_f + m, i)
    return torch.exp(log_f + m - m_next), torch.exp(i - m_next), m_next


def _states(h_0: tuple[Tensor, ...] | None, fills: tuple[float, ...], like: Tensor) -> tuple[Tensor, ...]:
    """The initial states for sequences that are shaped like `like`."""
    given = (None,) * len(fills) if h_0 is None else h_0
    return tuple(edge(h, *like.shape[1:], like=like, fill=fill) for h, fill in zip(given, fills, strict=True))
