"""Logarithm of a cumulative sum of exponentials, as `torch.logcumsumexp`: h[t] = log(exp(h[t-1]) + exp(x[t])), from -inf."""

import math

from ..frontend.cell import cell
from ..frontend.functions import logaddexp
from ..frontend.kinds import Input, State, t


@cell
def logcumsumexp(x: Input, h: State = State(init=-math.inf)):
    """Logarithm of a cumulative sum of exponentials, as torch.logcumsumexp."""
    h[t] = logaddexp(h[t - 1], x[t])
    return h[t]
