"""SRU, first version: Lei & Zhang, "Training RNNs as Fast as CNNs" (2017, arXiv 1709.02755 v1), section 2, equations 3 to 7.

    f[t], r[t] = sigmoid(W x[t] + b), with forget and highway (the paper's reset gate)
    c[t] = f[t] c[t-1] + (1 - f[t]) W x[t], with update, which has no bias
    h[t] = r[t] g(c[t]) + (1 - r[t]) x[t]

The highway adds x itself, so that input_size must be hidden_size (or 1, which is broadcast); another one is a ShapeMismatch.

Papers and codes differ in g. Here it is tanh, as in its authors' first code (`use_tanh=1`); in their package `sru` 2.6.0 it is
off unless asked for, and the code of Martin & Cundy has none. The later paper (Lei et al., EMNLP 2018) lets the gates read
c[t-1], so that c is no linear recurrence, and scales x in the highway: that is another cell. The package computes this one
with v1=True, rescale=False, use_tanh=True.
"""

from ..frontend.cell import cell
from ..frontend.functions import sigmoid, tanh
from ..frontend.kinds import Affine, Input, State, t


@cell
def sru(x: Input, c: State, forget: Affine, highway: Affine, update: Affine = Affine(bias=False)):
    """Simple recurrent unit, first version: gates of x alone (Lei & Zhang 2017, equations 3 to 7)."""
    f, r = sigmoid(forget(x[t])), sigmoid(highway(x[t]))
    c[t] = f * c[t - 1] + (1 - f) * update(x[t])
    h = r * tanh(c[t]) + (1 - r) * x[t]
    return h
