"""Filters of sequences: averages, exponential smoothing, difference equations, a tracker. No dense maps.

A number is a float or a tensor that broadcasts to (T, B, C): one a channel, or one a step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .loops import before, edge, lagged, reference, together


@reference
def ema(x: Tensor, h_0: Tensor | None = None, *, alpha: Tensor | float, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Exponential moving average (Ma et al., MEGA, 2022, arXiv 2209.10655, section 2; Brown's simple smoothing):

        h[t] = alpha x[t] + (1 - alpha) h[t-1]

    Shapes: x (T, B, C), alpha a number, h_0 (B, C); gives h and h[T-1].
    """
    return damped_ema(x, h_0, alpha=alpha, delta=1.0, reset=reset)


@reference
def damped_ema(
    x: Tensor, h_0: Tensor | None = None, *, alpha: Tensor | float, delta: Tensor | float, reset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Damped EMA (ibid.): the decay is freed from the weight of the new value by delta in (0, 1).

        h[t] = alpha x[t] + (1 - alpha delta) h[t-1]

    Shapes as in ema, delta a number.
    """
    x, alpha, delta = together(x, alpha, delta)
    h = h_0 = edge(h_0, *x.shape[1:], like=x)
    y = []
    for t in range(len(x)):
        h = alpha[t] * x[t] + (1 - alpha[t] * delta[t]) * before(h, h_0, reset, t)
        y.append(h)
    return torch.stack(y), h


@reference
def mega_ema(
    x: Tensor, h_0: Tensor | None = None, *, alpha: Tensor, delta: Tensor, beta: Tensor, eta: Tensor,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Multi-dimensional damped EMA (ibid., section 3.1): each channel is spread over N damped averages.

        u[t] = beta x[t]
        h[t] = alpha u[t] + (1 - alpha delta) h[t-1]
        y[t] = sum over n of eta h[t]

    Shapes: x (T, B, H), the four parameters (H, N), h_0 (B, H, N); gives y (T, B, H) and h[T-1].
    """
    h = h_0 = edge(h_0, *x.shape[1:], alpha.shape[1], like=x)
    y = []
    for t in range(len(x)):
        h = alpha * beta * x[t, :, :, None] + (1 - alpha * delta) * before(h, h_0, reset, t)
        y.append((eta * h).sum(-1))
    return torch.stack(y), h


@reference
def holt_winters(
    x: Tensor, h_0: tuple[Tensor, Tensor] | None = None, *, alpha: Tensor | float, beta: Tensor | float,
    reset: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """Holt's linear trend, additive, without a season (Holt 1957; Hyndman & Athanasopoulos, Forecasting, section 8.2):

        level[t] = alpha x[t] + (1 - alpha) (level[t-1] + trend[t-1])
        trend[t] = beta (level[t] - level[t-1]) + (1 - beta) trend[t-1]
        y[t] = level[t] + trend[t], the forecast of x[t+1]

    Shapes: x (T, B, C), alpha and beta numbers, h_0 = (level_0, trend_0), each (B, C); gives y and (level, trend) of the last
    step.
    """
    x, alpha, beta = together(x, alpha, beta)
    level_0, trend_0 = (None, None) if h_0 is None else h_0
    level = level_0 = edge(level_0, *x.shape[1:], like=x)
    trend = trend_0 = edge(trend_0, *x.shape[1:], like=x)
    y = []
    for t in range(len(x)):
        level, trend = before(level, level_0, reset, t), before(trend, trend_0, reset, t)
        last, level = level, alpha[t] * x[t] + (1 - alpha[t]) * (level + trend)
        trend = beta[t] * (level - last) + (1 - beta[t]) * trend
        y.append(level + trend)
    return torch.stack(y), (level, trend)


@reference
def lfilter(
    x: Tensor, y_0: Tensor | None = None, *, b: list[Tensor | float], a: list[Tensor | float], reset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The difference equation of scipy.signal.lfilter, with a[0] = 1 (order k = len(a) - 1):

        y[t] = b[0] x[t] + b[1] x[t-1] + … - a[1] y[t-1] - … - a[k] y[t-k]

    The state is the last k outputs, the latest first; a boundary puts y_0 back, whole, and x at a lag reads 0 across it.
    (scipy's zi is another state, that of the transposed direct form II.)
    Shapes: x (T, B, C), b and a lists of numbers, y_0 (B, C, k); gives y and the last k outputs.
    """
    x, *coefficients = together(x, *b, *a[1:])
    b, a = coefficients[: len(b)], coefficients[len(b) :]
    h = y_0 = edge(y_0, *x.shape[1:], len(a), like=x)
    y = []
    for t in range(len(x)):
        h = before(h, y_0, reset, t)
        new = sum(b_j[t] * lagged(x, reset, t, j) for j, b_j in enumerate(b))
        new = new - sum(a_j[t] * h[..., j] for j, a_j in enumerate(a))
        h = torch.cat([new[..., None], h], dim=-1)[..., : len(a)]
        y.append(new)
    return torch.stack(y), h


@reference
def biquad(
    x: Tensor, y_0: Tensor | None = None, *, b0: Tensor | float, b1: Tensor | float, b2: Tensor | float, a1: Tensor | float,
    a2: Tensor | float, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The filter of order 2, in direct form I: lfilter with b = (b0, b1, b2) and a = (1, a1, a2). y_0 is (B, C, 2).

    y[t] = b0 x[t] + b1 x[t-1] + b2 x[t-2] - a1 y[t-1] - a2 y[t-2]
    """
    return lfilter(x, y_0, b=[b0, b1, b2], a=[1.0, a1, a2], reset=reset)


@reference
def kalman(
    z: Tensor, x_0: Tensor | None = None, *, gain: Tensor | float, transition: Tensor | float = 1.0,
    observation: Tensor | float = 1.0, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The scalar Kalman filter with a fixed gain K, as it is once its covariance has settled (Kalman 1960):

        predicted = transition x[t-1]
        x[t] = predicted + K (z[t] - observation predicted)

    Shapes: z (T, B, C), the others numbers, x_0 (B, C); gives x and x[T-1].
    """
    z, gain, transition, observation = together(z, gain, transition, observation)
    x = x_0 = edge(x_0, *z.shape[1:], like=z)
    y = []
    for t in range(len(z)):
        predicted = transition[t] * before(x, x_0, reset, t)
        x = predicted + gain[t] * (z[t] - observation[t] * predicted)
        y.append(x)
    return torch.stack(y), x
