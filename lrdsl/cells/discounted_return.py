"""Discounted return: Sutton & Barto, "Reinforcement Learning" (2nd edition, 2018), equation 3.9.

    G[t] = reward[t] + discount[t] G[t+1]

discount is gamma, and 0 where an episode ends with step t: gamma * (1 - done). G after the last step is 0, or
`init={"G": value}` to go on from an estimate.
"""

from ..frontend.cell import cell
from ..frontend.kinds import Input, State, t


@cell
def discounted_return(reward: Input, discount: Input, G: State):
    """Discounted return (Sutton & Barto 2018, equation 3.9)."""
    G[t] = reward[t] + discount[t] * G[t + 1]
    return G[t]
