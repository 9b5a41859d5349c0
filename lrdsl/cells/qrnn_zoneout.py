"""QRNN with fo-pooling and zoneout: Bradbury et al. (ICLR 2017, arXiv 1611.01576), section 2.1, equation 6.

    f[t] = 1 - m[t] (1 - sigmoid(W * x + b)),   m[t] = 0 with probability p: the channel keeps its state
    c[t] = f[t] c[t-1] + (1 - f[t]) z[t],  h[t] = o[t] c[t]    as in `qrnn_fo`

Nothing is rescaled, as the paper asks. In eval mode all m are 1.
"""

from ..frontend.cell import Cell, cell
from ..frontend.functions import sigmoid, tanh
from ..frontend.kinds import Affine, Input, Mask, State, t
from .qrnn import check_window


def qrnn_zoneout(p: float = 0.1, window: int = 2) -> Cell:
    """The fo-pooling QRNN whose channels keep their state with probability p. Raises BadDeclaration for another p or window."""
    check_window(window)

    @cell
    def qrnn_zoneout(x: Input, c: State, forget: Affine, update: Affine, leave: Affine, m: Mask = Mask(p)):
        """Quasi-recurrent network with fo-pooling and zoneout (Bradbury et al. 2016, equation 6)."""
        seen = [x[t - k] for k in range(window)]
        z, o = tanh(update(*seen)), sigmoid(leave(*seen))
        f = 1 - m[t] * (1 - sigmoid(forget(*seen)))
        c[t] = f * c[t - 1] + (1 - f) * z
        h = o * c[t]
        return h
    return qrnn_zoneout
