"""The normaliser of an mLSTM: Beck et al., "xLSTM" (NeurIPS 2024, arXiv 2405.04517), section 2.3, equations 15 to 17, 20.

    m[t] = max(log f[t] + m[t-1], i[t])
    n[t] = exp(log f[t] + m[t-1] - m[t]) n[t-1] + exp(i[t] - m[t]) k[t],   f = sigmoid(f~)

i and f are what the gates are made of, one a head (one channel stands for all), k the key. What it is for, the denominator
max(|n · q|, e^-m) of a head's output, sums over the head's channels: that, and the memory, which is a matrix, are outside.
"""

import math

from ..frontend.cell import cell
from ..frontend.functions import exp, maximum, softplus
from ..frontend.kinds import Input, State, t


@cell
def mlstm_normaliser(k: Input, i: Input, f: Input, n: State, m: State = State(init=-math.inf)):
    """Normaliser and stabiliser of an mLSTM (Beck et al. 2024, section 2.3)."""
    kept = m[t - 1] - softplus(-f[t])  # log sigmoid
    m[t] = maximum(kept, i[t])
    n[t] = exp(kept - m[t]) * n[t - 1] + exp(i[t] - m[t]) * k[t]
    return n[t], m[t]
