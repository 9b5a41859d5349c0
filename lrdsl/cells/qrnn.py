"""Quasi-recurrent neural networks: Bradbury, Merity, Xiong & Socher (ICLR 2017, arXiv 1611.01576), section 2.

Gates are causal convolutions of width k, the window: dense maps of x[t], x[t-1] … x[t-k+1], whose weights stand side by side in
that order. Before the first step, and behind a reset, they see zeros.

    z[t] = tanh(W * x + b), with update
    f[t], i[t], o[t] = sigmoid(W * x + b), with forget, enter, leave
    f-pooling      h[t] = f[t] h[t-1] + (1 - f[t]) z[t]                              equation 3
    fo-pooling     c[t] = f[t] c[t-1] + (1 - f[t]) z[t],  h[t] = o[t] c[t]           equation 4
    ifo-pooling    c[t] = f[t] c[t-1] + i[t] z[t],        h[t] = o[t] c[t]           equation 5

The forget gate multiplies the old state, and there is no tanh on c in the output. The paper writes no biases; its authors'
code (torchqrnn) has them, and its f is 1 - f here: negate the weights and the bias of forget to take one for the other.

All gates are one matrix product of the window, so that the kernels and what they read are the same for every k; k copies of x
side by side are what the window costs.
"""

from collections.abc import Callable
from dataclasses import replace

from ..errors import BadDeclaration
from ..frontend.cell import Cell, cell
from ..frontend.functions import sigmoid, tanh
from ..frontend.kinds import Affine, Input, State, t
from ..location import caller


def qrnn(pooling: str = "fo", window: int = 2) -> Cell:
    """The QRNN with "f", "fo" or "ifo" pooling, whose gates see `window` steps of x, from t back; called `qrnn_fo_2`.

    Raises BadDeclaration for another pooling, or a window that is no positive integer.
    """
    if pooling not in POOLINGS:
        raise BadDeclaration(f"there is no pooling {pooling!r}", caller(), f"the poolings are {', '.join(POOLINGS)}")
    check_window(window)
    spec = POOLINGS[pooling](window).spec
    return Cell(replace(spec, name=f"{spec.name}_{window}"))


def check_window(window: int) -> None:
    """Raise BadDeclaration, at the line that calls the caller, for what is no window."""
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise BadDeclaration(f"window is a positive integer, not {window!r}", caller(3), "write window=1: gates of x[t] alone")


def f_pooling(window: int) -> Cell:
    """Equation 3."""
    @cell
    def qrnn_f(x: Input, h: State, forget: Affine, update: Affine):
        """Quasi-recurrent network with f-pooling (Bradbury et al. 2016, equation 3)."""
        seen = [x[t - k] for k in range(window)]
        f, z = sigmoid(forget(*seen)), tanh(update(*seen))
        h[t] = f * h[t - 1] + (1 - f) * z
        return h[t]
    return qrnn_f


def fo_pooling(window: int) -> Cell:
    """Equation 4."""
    @cell
    def qrnn_fo(x: Input, c: State, forget: Affine, update: Affine, leave: Affine):
        """Quasi-recurrent network with fo-pooling (Bradbury et al. 2016, equation 4)."""
        seen = [x[t - k] for k in range(window)]
        f, z, o = sigmoid(forget(*seen)), tanh(update(*seen)), sigmoid(leave(*seen))
        c[t] = f * c[t - 1] + (1 - f) * z
        h = o * c[t]
        return h
    return qrnn_fo


def ifo_pooling(window: int) -> Cell:
    """Equation 5."""
    @cell
    def qrnn_ifo(x: Input, c: State, forget: Affine, enter: Affine, update: Affine, leave: Affine):
        """Quasi-recurrent network with ifo-pooling (Bradbury et al. 2016, equation 5)."""
        seen = [x[t - k] for k in range(window)]
        f, i, z, o = sigmoid(forget(*seen)), sigmoid(enter(*seen)), tanh(update(*seen)), sigmoid(leave(*seen))
        c[t] = f * c[t - 1] + i * z
        h = o * c[t]
        return h
    return qrnn_ifo


POOLINGS: dict[str, Callable[[int], Cell]] = {"f": f_pooling, "fo": fo_pooling, "ifo": ifo_pooling}

qrnn_f, qrnn_fo, qrnn_ifo = (qrnn(pooling) for pooling in POOLINGS)
