"""Generalised advantage estimation: Schulman et al. (ICLR 2016, arXiv 1506.02438), section 3, equation 16.

    delta[t] = reward[t] + discount[t] value[t+1] - value[t]
    A[t] = delta[t] + discount[t] lam A[t+1]

discount is gamma, and 0 where an episode ends with step t: gamma * (1 - done). The value after the last step is 0, or
`init={"value": value}`.
"""

from ..frontend.cell import cell
from ..frontend.kinds import Input, Scalar, State, t


@cell
def gae(reward: Input, value: Input, discount: Input, lam: Scalar, A: State):
    """Generalised advantage estimation (Schulman et al. 2016, equation 16)."""
    delta = reward[t] + discount[t] * value[t + 1] - value[t]
    A[t] = delta + discount[t] * lam * A[t + 1]
    return A[t]
