"""LRU: Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences" (ICML 2023, arXiv 2303.06349), section 3.

    lambda = exp(-exp(nu) + i exp(theta))
    h[t] = lambda h[t-1] + exp(gamma) B x[t],   B complex
    y[t] = Re(C h[t]) + D x[t],                 C complex, D real

nu, theta and gamma are logarithms, which keep |lambda| below 1. They begin as the paper's ring does, |lambda| in 0.9 … 0.999
and any angle, with gamma = log sqrt(1 - |lambda|²) at the middle of the ring. C gives hidden_size values.
"""

import math
from typing import Any

from ..frontend.cell import cell
from ..frontend.functions import exp, re
from ..frontend.kinds import Affine, Input, State, Vector, t


def _nu(tensor: Any) -> None:
    """|lambda|² is uniform in 0.9² … 0.999² (the paper, lemma 3.2)."""
    tensor.uniform_(0.9 ** 2, 0.999 ** 2).log_().div_(-2).log_()


def _theta(tensor: Any) -> None:
    """The angle is uniform in 0 … 2 pi."""
    tensor.uniform_(1e-6, 2 * math.pi).log_()


@cell
def lru(x: Input, h: State = State(complex=True), nu: Vector = Vector(init=_nu), theta: Vector = Vector(init=_theta),
        gamma: Vector = Vector(init=math.log(math.sqrt(1 - 0.95 ** 2))), B: Affine = Affine(bias=False, complex=True),
        C: Affine = Affine(bias=False, complex=True), D: Affine = Affine(bias=False)):
    """Linear recurrent unit (Orvieto et al. 2023, section 3)."""
    h[t] = exp(-exp(nu) + 1j * exp(theta)) * h[t - 1] + exp(gamma) * B(x[t])
    return re(C(h[t])) + D(x[t])
