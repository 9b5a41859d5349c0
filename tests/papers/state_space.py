"""Diagonal state spaces: LRU, S4D, S5 with complex states, and the selective scan of Mamba with real ones.

Of complex tensors autograd gives torch's gradient. Where a method is chosen, both are of h' = A h + B u with a step dt:

    "zoh"        A_ = exp(dt A)                        B_ = A^-1 (exp(dt A) - 1) B
    "bilinear"   A_ = (1 + dt/2 A) / (1 - dt/2 A)      B_ = dt / (1 - dt/2 A) B
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from .loops import before, edge, reference


@reference
def lru(
    x: Tensor, h_0: Tensor | None = None, *, nu_log: Tensor, theta_log: Tensor, gamma_log: Tensor, B: Tensor, C: Tensor,
    D: Tensor, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """LRU: Orvieto et al. 2023, arXiv 2303.06349, section 3.

        lambda = exp(-exp(nu_log) + i exp(theta_log))
        h[t] = lambda h[t-1] + exp(gamma_log) (B x[t])          gamma_log is learned; its exp is sqrt(1 - |lambda|^2) at first
        y[t] = Re(C h[t]) + D x[t]

    Shapes: x (T, B, I), nu_log, theta_log, gamma_log (N,), B (N, I) and C (O, N) complex, D (O,) with O = I, h_0 (B, N)
    complex; gives y (T, B, O) and h[T-1].
    """
    lam = torch.exp(torch.complex(-torch.exp(nu_log), torch.exp(theta_log)))
    h = h_0 = edge(h_0, x.shape[1], len(lam), like=B)
    y = []
    for t in range(len(x)):
        h = lam * before(h, h_0, reset, t) + torch.exp(gamma_log) * (x[t].to(B.dtype) @ B.T)
        y.append((h @ C.T).real + D * x[t])
    return torch.stack(y), h


@reference
def s4d(
    x: Tensor, h_0: Tensor | None = None, *, log_dt: Tensor, log_A_real: Tensor, A_imag: Tensor, B: Tensor, C: Tensor,
    D: Tensor, method: str = "zoh", reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """S4D: Gu, Gupta, Goel & Ré 2022, arXiv 2206.11893, sections 2 and 3. A state space of N states for each channel of x:

        A = -exp(log_A_real) + i A_imag,  dt = exp(log_dt)
        h[t] = A_ h[t-1] + B_ x[t]                              A_ and B_ from A, B and dt by `method`
        y[t] = 2 Re(sum over n of C h[t]) + D x[t]              2 Re: the conjugate half of the states is not kept

    Shapes: x (T, B, H), log_dt and D (H,), log_A_real and A_imag (H, N), B and C (H, N) complex, h_0 (B, H, N) complex;
    gives y (T, B, H) and h[T-1].
    """
    A = torch.complex(-torch.exp(log_A_real), A_imag)
    A_, B_ = discrete(A, B, torch.exp(log_dt)[:, None], method)
    h = h_0 = edge(h_0, *x.shape[1:], A.shape[1], like=A)
    y = []
    for t in range(len(x)):
        h = A_ * before(h, h_0, reset, t) + B_ * x[t, :, :, None]
        y.append(2 * (C * h).sum(-1).real + D * x[t])
    return torch.stack(y), h


@reference
def s5(
    x: Tensor, h_0: Tensor | None = None, *, Lambda: Tensor, log_step: Tensor, B: Tensor, C: Tensor, D: Tensor,
    method: str = "zoh", conjugate_pairs: bool = True, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """S5: Smith, Warrington & Linderman 2022, arXiv 2208.04933, section 3. One state space for all channels, diagonal Lambda:

        h[t] = Lambda_ h[t-1] + B_ x[t]                         Lambda_ and B_ by `method`, a step exp(log_step) for each state
        y[t] = 2 Re(C h[t]) + D x[t]                            without conjugate_pairs Re instead of 2 Re

    Shapes: x (T, B, I), Lambda (P,) complex, log_step (P,), B (P, I) and C (I, P) complex, D (I,), h_0 (B, P) complex;
    gives y (T, B, I) and h[T-1].
    """
    Lambda_, B_ = discrete(Lambda[:, None], B, torch.exp(log_step)[:, None], method)
    h = h_0 = edge(h_0, x.shape[1], len(Lambda), like=Lambda)
    y = []
    for t in range(len(x)):
        h = Lambda_[:, 0] * before(h, h_0, reset, t) + x[t].to(B_.dtype) @ B_.T
        y.append((2 if conjugate_pairs else 1) * (h @ C.T).real + D * x[t])
    return torch.stack(y), h


@reference
def mamba_s6(
    x: Tensor, h_0: Tensor | None = None, *, A_log: Tensor, W_B: Tensor, W_C: Tensor, W_delta: Tensor, b_delta: Tensor,
    D: Tensor, method: str = "euler", reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """S6, the selective scan of Mamba: Gu & Dao 2023, arXiv 2312.00752, section 3.2, algorithm 2, and equation 4.

        A = -exp(A_log)
        B[t], C[t] = W_B x[t], W_C x[t]                         N numbers each, shared by the channels
        dt[t] = softplus(W_delta x[t] + b_delta)                one a channel; W_delta of low rank is its product
        h[t] = exp(dt[t] A) h[t-1] + B_[t] x[t]
        y[t] = sum over n of C[t] h[t] + D x[t]

    method "euler": B_ = dt B, as the authors' code has it. "zoh": B_ = A^-1 (exp(dt A) - 1) B, as equation 4.
    Shapes: x (T, B, H), A_log (H, N), W_B and W_C (N, H), W_delta (H, H), b_delta and D (H,), h_0 (B, H, N); gives y (T, B, H)
    and h[T-1].
    """
    A = -torch.exp(A_log)
    h = h_0 = edge(h_0, *x.shape[1:], A.shape[1], like=x)
    y = []
    for t in range(len(x)):
        B, C = linear(x[t], W_B)[:, None, :], linear(x[t], W_C)[:, None, :]
        dt = softplus(linear(x[t], W_delta, b_delta))[:, :, None]
        B_ = {"euler": dt * B, "zoh": torch.expm1(dt * A) / A * B}[method]
        h = torch.exp(dt * A) * before(h, h_0, reset, t) + B_ * x[t, :, :, None]
        y.append((C * h).sum(-1) + D * x[t])
    return torch.stack(y), h


def discrete(A: Tensor, B: Tensor, dt: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """(A_, B_) of the module's docstring; A not 0. Shapes broadcast."""
    if method == "zoh":
        return torch.exp(dt * A), torch.expm1(dt * A) / A * B
    if method == "bilinear":
        return (1 + dt / 2 * A) / (1 - dt / 2 * A), dt / (1 - dt / 2 * A) * B
    raise ValueError(f"method is zoh or bilinear, not {method}")
