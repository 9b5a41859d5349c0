"""IndRNN: Li, Li, Cook, Zhu & Gao, "Independently Recurrent Neural Network" (CVPR 2018, arXiv 1803.04831), equation 4.

    h[t] = relu(W x[t] + u h[t-1] + b), with enter

Each channel hears of its own past alone, but through the relu: run it with solver="sequential" or "newton". As long as no
|u| is above 1, nothing grows with time.
"""

from ..frontend.cell import cell
from ..frontend.functions import relu
from ..frontend.kinds import Affine, Input, State, Vector, t


@cell
def indrnn(x: Input, h: State, enter: Affine, u: Vector):
    """Independently recurrent neural network with relu (Li et al. 2018, equation 4)."""
    h[t] = relu(enter(x[t]) + u * h[t - 1])
    return h[t]
