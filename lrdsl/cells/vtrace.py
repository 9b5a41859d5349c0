"""V-trace: Espeholt et al., "IMPALA" (ICML 2018, arXiv 1802.01561), section 4.1, equation 1 and remark 1.

    rho[t] = min(rho_bar, ratio[t]),  c[t] = lam min(c_bar, ratio[t])
    delta[t] = rho[t] (reward[t] + discount[t] value[t+1] - value[t])
    e[t] = delta[t] + discount[t] c[t] e[t+1]
    v[t] = value[t] + e[t]

ratio is the policy's probability of the action over the behaviour's; discount is gamma, and 0 where an episode ends with step
t. The value after the last step is 0, or `init={"value": value}`. v is a target: in IMPALA no gradient goes through it.
"""

import math

from ..errors import BadDeclaration
from ..frontend.cell import Cell, cell
from ..frontend.functions import minimum
from ..frontend.kinds import Input, Scalar, State, t
from ..location import caller


def vtrace(rho_bar: float = 1.0, c_bar: float = 1.0) -> Cell:
    """V-trace with ratios cut at rho_bar and c_bar. Raises BadDeclaration unless rho_bar >= c_bar > 0, as the paper assumes."""
    if not all(isinstance(bar, int | float) for bar in (rho_bar, c_bar)) or not 0 < c_bar <= rho_bar < math.inf:
        raise BadDeclaration(f"rho_bar={rho_bar!r}, c_bar={c_bar!r}: the paper has rho_bar >= c_bar > 0", caller(),
                             "write rho_bar=1.0, c_bar=1.0")

    @cell
    def vtrace(reward: Input, value: Input, ratio: Input, discount: Input, lam: Scalar, e: State):
        """V-trace (Espeholt et al. 2018, section 4.1)."""
        rho, c = minimum(ratio[t], rho_bar), lam * minimum(ratio[t], c_bar)
        delta = rho * (reward[t] + discount[t] * value[t + 1] - value[t])
        e[t] = delta + discount[t] * c * e[t + 1]
        return value[t] + e[t]
    return vtrace
