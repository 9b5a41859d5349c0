"""Returns and advantages of reinforcement learning: recurrences from the end of the sequence to its start.

At t, reward[t] is what the step from state t to state t+1 earned, value[t] the value of state t, discount[t] the factor on what
comes after that step: gamma, or 0 where the step ended an episode. h_0 is the recurrence's state after the last step, h_n that
at the first. A number is a float or a tensor that broadcasts to (T, B, C). A boundary between t and t+1 (reset[t+1]) makes step
t read h_0, and value_end instead of value[t+1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from .loops import after, edge, reference, together


@reference
def ahead(value: Tensor, end: Tensor | None = None, *, reset: Tensor | None = None) -> Tensor:
    """value[t+1] at t; `end` (B, C), 0 where None, at the last step and where a boundary lies between. (T, B, C)."""
    end = edge(end, *value.shape[1:], like=value)
    return torch.stack([after(following, end, reset, t) for t, following in enumerate((*value[1:], end))])


@reference
def discounted_return(
    reward: Tensor, h_0: Tensor | None = None, *, discount: Tensor | float, reset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Discounted return (Sutton & Barto, Reinforcement Learning, 2nd edition, equation 3.9):

        G[t] = reward[t] + discount[t] G[t+1]

    Shapes: reward (T, B, C), discount a number, h_0 (B, C), G after the last step; gives G (T, B, C) and G[0].
    """
    reward, discount = together(reward, discount)
    return _from_the_end(reward, discount, h_0, reset)


@reference
def gae(
    reward: Tensor, h_0: Tensor | None = None, *, value: Tensor, discount: Tensor | float, lam: Tensor | float,
    value_end: Tensor | None = None, reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Generalised advantage estimation: Schulman et al. 2015, arXiv 1506.02438, section 3, its equation 16 as a recurrence:

        delta[t] = reward[t] + discount[t] value[t+1] - value[t]
        A[t] = delta[t] + discount[t] lam A[t+1]

    Shapes: reward and value (T, B, C), discount and lam numbers, value_end and h_0 (B, C), 0 where None; gives A and A[0].
    """
    reward, value, discount, lam = together(reward, value, discount, lam)
    delta = reward + discount * ahead(value, value_end, reset=reset) - value
    return _from_the_end(delta, discount * lam, h_0, reset)


@reference
def lambda_return(
    reward: Tensor, h_0: Tensor | None = None, *, next_value: Tensor, discount: Tensor | float, lam: Tensor | float,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The lambda-return (Sutton & Barto, 2nd edition, equation 12.18, with tabular values):

        G[t] = reward[t] + discount[t] ((1 - lam) next_value[t] + lam G[t+1])

    next_value[t] is the value of state t+1, `ahead(value, end)`; with the value after the last step for h_0 the recurrence
    bootstraps there. Shapes: reward and next_value (T, B, C), discount and lam numbers, h_0 (B, C); gives G and G[0].
    """
    reward, next_value, discount, lam = together(reward, next_value, discount, lam)
    return _from_the_end(reward + discount * (1 - lam) * next_value, discount * lam, h_0, reset)


@reference
def vtrace(
    reward: Tensor, h_0: Tensor | None = None, *, value: Tensor, ratio: Tensor, discount: Tensor | float,
    value_end: Tensor | None = None, rho_bar: float = 1.0, c_bar: float = 1.0, lam: Tensor | float = 1.0,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """V-trace targets: Espeholt et al., IMPALA, 2018, arXiv 1802.01561, section 4.1, equation 1, by its remark 1:

        rho[t] = min(rho_bar, ratio[t]),  c[t] = lam min(c_bar, ratio[t])         ratio: pi / mu of the action taken
        delta[t] = rho[t] (reward[t] + discount[t] value[t+1] - value[t])
        v[t] = value[t] + delta[t] + discount[t] c[t] (v[t+1] - value[t+1])

    The state is v - value, 0 after the last step. Shapes: reward, value, ratio (T, B, C), discount and lam numbers, value_end
    and h_0 (B, C); gives v (T, B, C) and (v - value)[0].
    """
    reward, value, ratio, discount, lam = together(reward, value, ratio, discount, lam)
    rho, c = ratio.clamp(max=rho_bar), lam * ratio.clamp(max=c_bar)
    delta = rho * (reward + discount * ahead(value, value_end, reset=reset) - value)
    correction, first = _from_the_end(delta, discount * c, h_0, reset)
    return value + correction, first


def _from_the_end(b: Tensor, a: Tensor, h_0: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """h[t] = b[t] + a[t] h[t+1], from the last step to the first."""
    h = h_0 = edge(h_0, *b.shape[1:], like=b)
    y = []
    for t in reversed(range(len(b))):
        h = b[t] + a[t] * after(h, h_0, reset, t)
        y.insert(0, h)
    return torch.stack(y), h
