"""A window of the input, which needs no recurrence: as a surrogate, it makes a cell quasi-recurrent.

Martin & Cundy (ICLR 2018, arXiv 1709.04057, section 3.2) read the QRNN as the linear surrogate RNN whose surrogate is
W_1 x[t-1] + … + W_k x[t-k], and the strongly-typed RNNs as those with x[t-1]:

    lr.surrogate(lr.cells.lstm, h=lr.cells.window(1))       # has the equations of lr.cells.qrnn("ifo", window=2)
"""

from dataclasses import replace

from ..errors import BadDeclaration
from ..frontend.cell import Cell, cell
from ..frontend.kinds import Input, t
from ..location import caller


def window(steps: int) -> Cell:
    """x[t], x[t-1] … x[t-steps+1], an output each; called `window_2`.

    Raises BadDeclaration for a number that is no positive integer.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise BadDeclaration(f"steps is a positive integer, not {steps!r}", caller(), "write lr.cells.window(1): x[t] alone")

    @cell
    def window(x: Input):
        """A window of the input."""
        return tuple(x[t - k] for k in range(steps))
    return Cell(replace(window.spec, name=f"{window.spec.name}_{steps}"))
