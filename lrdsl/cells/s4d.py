"""S4D: Gu, Gupta, Goel & Ré, "On the Parameterization and Initialization of Diagonal State Space Models" (NeurIPS 2022, arXiv
2206.11893), section 3.

    A = -exp(log_A_real) + i A_imag;   a, S = discretised A with a step exp(log_dt) a channel
    h[t] = a h[t-1] + S B x[t]                 N states a channel, B complex
    y[t] = 2 Re(sum C h[t]) + D x[t]           C complex, D real

a = exp(A d), S = (a - 1) / A ("zoh"), or the bilinear rule. Of each pair of conjugate states one is kept, hence the 2. A
begins as -1/2 + i pi n (S4D-Lin), the steps log-uniform in 0.001 … 0.1. x is read channel by channel.
"""

import math

from ..frontend.cell import Cell, cell
from ..frontend.functions import exp, re
from ..frontend.functions import sum as over_axis
from ..frontend.kinds import Input, State, Vector, t
from .discretisation import frequencies, method_of, steps


def s4d(size: int = 32, method: str = "zoh") -> Cell:
    """S4D with `size` states a channel, discretised by "zoh" or "bilinear". Raises BadDeclaration for another method, and what
    `lr.State(size=…)` raises."""
    discretised = method_of(method)

    @cell
    def s4d(x: Input, *, h: State = State(size=size, complex=True), log_dt: Vector = Vector(init=steps),
            log_A_real: Vector = Vector(init=math.log(0.5), size=size), A_imag: Vector = Vector(init=frequencies, size=size),
            B: Vector = Vector(init=1.0, size=size, complex=True), C: Vector = Vector(size=size, complex=True), D: Vector):
        """Diagonal state space model (Gu et al. 2022, section 3)."""
        decay, enter = discretised(-exp(log_A_real) + 1j * A_imag, exp(log_dt))
        h[t] = decay * h[t - 1] + enter * B * x[t]
        return 2 * re(over_axis(C * h[t])) + D * x[t]
    return s4d
