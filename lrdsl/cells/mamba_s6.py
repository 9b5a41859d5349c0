"""S6, the selective scan of Mamba: Gu & Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023, arXiv
2312.00752), section 3.2, algorithm 2.

    d[t] = softplus(W x[t] + b), with step; B[t], C[t] = W x[t], N numbers that all channels share; A = -exp(A_log)
    h[t] = exp(d[t] A) h[t-1] + d[t] B[t] x[t]           N states a channel
    y[t] = C[t] · h[t] + D x[t]

The paper's equation 4 discretises B by zero-order hold; its authors' code, as here, by Euler's rule, d B. The map of the step
is full here, of low rank in the code. Convolution, gate and projections, which make a block of it, are outside.
"""

import math
from typing import Any

from ..frontend.cell import Cell, cell
from ..frontend.functions import exp, softplus
from ..frontend.functions import sum as over_axis
from ..frontend.kinds import Affine, Input, State, Vector, t


def _a_log(tensor: Any) -> None:
    """A = -1, -2 … -N (S4D-Real; the paper, section 3.6)."""
    tensor.copy_(tensor.new_tensor(range(1, tensor.shape[-1] + 1)).log())


def mamba_s6(size: int = 16) -> Cell:
    """The selective scan with `size` states a channel. Raises what `lr.State(size=…)` raises."""
    @cell
    def mamba_s6(x: Input, *, h: State = State(size=size), A_log: Vector = Vector(init=_a_log, size=size),
                 step: Affine = Affine(bias=math.log(math.expm1(0.01))), B: Affine = Affine(axis=size, bias=False),
                 C: Affine = Affine(axis=size, bias=False), D: Vector = Vector(init=1.0)):
        """Selective scan (Gu & Dao 2023, section 3.2)."""
        d = softplus(step(x[t]))
        h[t] = exp(-exp(A_log) * d) * h[t - 1] + d * x[t] * B(x[t])
        return over_axis(C(x[t]) * h[t]) + D * x[t]
    return mamba_s6
