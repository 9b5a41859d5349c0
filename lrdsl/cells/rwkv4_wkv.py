"""WKV, the recurrence of RWKV-4: Peng et al. (EMNLP 2023, arXiv 2305.13048), section 3, stabilised as in its appendix.

    num[t] = e^-w num[t-1] + e^k[t] v[t],   den[t] = e^-w den[t-1] + e^k[t]
    y[t] = (num[t-1] + e^(u + k[t]) v[t]) / (den[t-1] + e^(u + k[t]))

w >= 0 is the rate of decay (exp(time_decay) in its authors' code), u the bonus of the present step. What is stored is num and
den times e^-p, with p the largest exponent so far, a recurrence over (max, +), so that no k is too large. The compiler knows
nothing of that.
"""

import math

from ..frontend.cell import cell
from ..frontend.functions import exp, maximum
from ..frontend.kinds import Input, State, Vector, t


@cell
def rwkv4_wkv(k: Input, v: Input, w: Vector, u: Vector, num: State, den: State, p: State = State(init=-math.inf)):
    """WKV of RWKV-4 (Peng et al. 2023, section 3), stabilised."""
    p[t] = maximum(p[t - 1] - w, k[t])
    before, now = exp(p[t - 1] - w - p[t]), exp(k[t] - p[t])
    num[t] = before * num[t - 1] + now * v[t]
    den[t] = before * den[t - 1] + now
    top = maximum(p[t - 1], u + k[t])
    old, new = exp(p[t - 1] - top), exp(u + k[t] - top)
    return (old * num[t - 1] + new * v[t]) / (old * den[t - 1] + new)
