"""Real gated recurrences whose gates read x alone: minGRU, minLSTM, HGRN, RG-LRU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, silu, softplus

from .loops import before, edge, reference


@reference
def mingru(
    x: Tensor, h_0: Tensor | None = None, *, W_z: Tensor, b_z: Tensor, W_h: Tensor, b_h: Tensor, positive: bool = False,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """minGRU: Feng et al., "Were RNNs All We Needed?", 2024, arXiv 2410.01201, section 3.1.

        z[t] = sigma(W_z x[t] + b_z)
        h~[t] = W_h x[t] + b_h                       positive: g(W_h x[t] + b_h), as in its log-space version (appendix B)
        h[t] = (1 - z[t]) h[t-1] + z[t] h~[t]        z is the share of the new value

    Shapes: x (T, B, I), W (H, I), b (H,), h_0 (B, H); gives h (T, B, H) and h[T-1].
    """
    h = h_0 = edge(h_0, x.shape[1], len(b_z), like=x)
    y = []
    for t in range(len(x)):
        z, new = torch.sigmoid(linear(x[t], W_z, b_z)), linear(x[t], W_h, b_h)
        h = (1 - z) * before(h, h_0, reset, t) + z * (g(new) if positive else new)
        y.append(h)
    return torch.stack(y), h


@reference
def minlstm(
    x: Tensor, h_0: Tensor | None = None, *, W_f: Tensor, b_f: Tensor, W_i: Tensor, b_i: Tensor, W_h: Tensor, b_h: Tensor,
    positive: bool = False, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """minLSTM, the length-independent one: Feng et al. 2024, arXiv 2410.01201, section 3.2.

        f[t], i[t] = sigma(W_f x[t] + b_f), sigma(W_i x[t] + b_i)
        h~[t] = W_h x[t] + b_h                       positive: g(W_h x[t] + b_h), as in its log-space version (appendix B)
        h[t] = f[t] / (f[t] + i[t]) h[t-1] + i[t] / (f[t] + i[t]) h~[t]

    There is neither an output gate nor a second state. Shapes as in mingru.
    """
    h = h_0 = edge(h_0, x.shape[1], len(b_f), like=x)
    y = []
    for t in range(len(x)):
        f, i, new = torch.sigmoid(linear(x[t], W_f, b_f)), torch.sigmoid(linear(x[t], W_i, b_i)), linear(x[t], W_h, b_h)
        h = f / (f + i) * before(h, h_0, reset, t) + i / (f + i) * (g(new) if positive else new)
        y.append(h)
    return torch.stack(y), h


def g(x: Tensor) -> Tensor:
    """x + 1/2 where x >= 0, else sigma(x): continuous and positive (arXiv 2410.01201, appendix B)."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))


@reference
def hgrn(
    x: Tensor, h_0: Tensor | None = None, *, gamma: Tensor | float, W_mu: Tensor, b_mu: Tensor, W_c: Tensor, b_c: Tensor,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """HGRN, its recurrence with a real state (theta = 0): Qin, Yang & Zhong 2023, arXiv 2311.04823, section 3.2.

        mu[t] = sigma(W_mu x[t] + b_mu)
        lambda[t] = gamma + (1 - gamma) mu[t]        gamma: this layer's lower bound of the forget gate, 0 on the first one
        c[t] = SiLU(W_c x[t] + b_c)
        h[t] = lambda[t] h[t-1] + (1 - lambda[t]) c[t]

    What follows h in the paper, a norm, an output gate and a projection, is not part of the recurrence, and not here.
    Shapes: x (T, B, I), gamma (H,) or a number, W (H, I), b (H,), h_0 (B, H); gives h (T, B, H) and h[T-1].
    """
    h = h_0 = edge(h_0, x.shape[1], len(b_mu), like=x)
    y = []
    for t in range(len(x)):
        mu, c = torch.sigmoid(linear(x[t], W_mu, b_mu)), silu(linear(x[t], W_c, b_c))
        lam = gamma + (1 - gamma) * mu
        h = lam * before(h, h_0, reset, t) + (1 - lam) * c
        y.append(h)
    return torch.stack(y), h


@reference
def hgrn_lower_bounds(Gamma: Tensor) -> Tensor:
    """The lower bounds of all layers (ibid.): gamma^k = P_1 + ... + P_k - P_1, P = softmax(Gamma) over the layers. (K, H) both.

    So gamma^1 = 0, they grow with the layer, and the last one is 1 - P_1, below 1.
    """
    P = torch.softmax(Gamma, dim=0)
    return torch.stack([P[1 : k + 1].sum(0) for k in range(len(P))])


@reference
def rglru(
    x: Tensor, h_0: Tensor | None = None, *, Lambda: Tensor, W_a: Tensor, b_a: Tensor, W_x: Tensor, b_x: Tensor, c: float = 8.0,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """RG-LRU: De et al., "Griffin", 2024, arXiv 2402.19427, section 2.4, equations 1 to 4.

        r[t] = sigma(W_a x[t] + b_a)                 the recurrence gate
        i[t] = sigma(W_x x[t] + b_x)                 the input gate
        a[t] = exp(-c r[t] softplus(Lambda))         as their code; the paper: sigma(Lambda)^(c r[t]), Lambda negated
        h[t] = a[t] h[t-1] + sqrt(1 - a[t]^2) (i[t] x[t])

    At the start of a sequence, the first step and after a boundary, the authors' code has multiplier 1 instead of
    sqrt(1 - a^2), so that h[t] = i[t] x[t]. A given h_0 continues a sequence: then no edge is a start.
    Shapes: x (T, B, H), W (H, H) (dense here, block-diagonal in the code), b and Lambda (H,), h_0 (B, H); gives h and h[T-1].
    """
    continued = h_0 is not None
    h = h_0 = edge(h_0, *x.shape[1:], like=x)
    y = []
    for t in range(len(x)):
        r, i = torch.sigmoid(linear(x[t], W_a, b_a)), torch.sigmoid(linear(x[t], W_x, b_x))
        a = torch.exp(-c * r * softplus(Lambda))
        multiplier = torch.sqrt(1 - a**2)
        if not continued:
            start = torch.full((x.shape[1],), t == 0) if reset is None else reset[t] | (t == 0)
            multiplier = torch.where(start[:, None], torch.ones_like(a), multiplier)
        h = a * before(h, h_0, reset, t) + multiplier * (i * x[t])
        y.append(h)
    return torch.stack(y), h
