"""Lambda-return: Sutton & Barto, "Reinforcement Learning" (2nd edition, 2018), equation 12.18 in recursive form.

    G[t] = reward[t] + discount[t] ((1 - lam) next_value[t] + lam G[t+1])

next_value[t] is the value of the state after step t; discount is gamma, and 0 where an episode ends with it. G after the last
step is 0: give `init={"G": next_value[-1]}` to go on from the last estimate.
"""

from ..frontend.cell import cell
from ..frontend.kinds import Input, Scalar, State, t


@cell
def lambda_return(reward: Input, next_value: Input, discount: Input, lam: Scalar, G: State):
    """Lambda-return (Sutton & Barto 2018, chapter 12)."""
    G[t] = reward[t] + discount[t] * ((1 - lam) * next_value[t] + lam * G[t + 1])
    return G[t]
