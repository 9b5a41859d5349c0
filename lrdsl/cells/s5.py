"""S5: Smith, Warrington & Linderman, "Simplified State Space Layers for Sequence Modeling" (ICLR 2023, arXiv 2208.04933),
section 3, with a diagonal Lambda.

    L, S = discretised Lambda, with a step exp(log_step) of each state's own
    h[t] = L h[t-1] + S B x[t],     L = exp(Lambda d), S = (L - 1) / Lambda ("zoh"), or the bilinear rule
    y[t] = 2 Re(C h[t]) + D x[t]    Lambda, B, C complex, D real

Of each pair of conjugate states one is kept, hence the 2. Lambda begins as -1/2 + i pi n (S4D-Lin; the paper takes the
eigenvalues of HiPPO-N, which need a linear algebra library: copy them in). C gives hidden_size values.
"""

from ..frontend.cell import Cell, cell
from ..frontend.functions import exp, re
from ..frontend.kinds import Affine, Input, State, Vector, t
from .discretisation import method_of, poles, steps


def s5(method: str = "zoh") -> Cell:
    """S5 whose differential equation becomes a recurrence by "zoh" or "bilinear". Raises BadDeclaration for another method."""
    discretised = method_of(method)

    @cell
    def s5(x: Input, h: State = State(complex=True), Lambda: Vector = Vector(init=poles, complex=True),
           log_step: Vector = Vector(init=steps), B: Affine = Affine(bias=False, complex=True),
           C: Affine = Affine(bias=False, complex=True), D: Affine = Affine(bias=False)):
        """Simplified state space layer (Smith et al. 2023, section 3)."""
        decay, enter = discretised(Lambda, exp(log_step))
        h[t] = decay * h[t - 1] + enter * B(x[t])
        return 2 * re(C(h[t])) + D(x[t])
    return s5
