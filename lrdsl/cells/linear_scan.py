"""The paper's primitive: Martin & Cundy (ICLR 2018, arXiv 1709.04057), section 2.

    h[t] = a[t] h[t-1] + b[t]       (in reverse h[t] = a[t] h[t+1] + b[t])
"""

from ..frontend.cell import Cell, cell
from ..frontend.kinds import Input, State, t


@cell
def linear_scan(a: Input, b: Input, h: State):
    """The diagonal linear recurrence (Martin & Cundy 2018, section 2)."""
    h[t] = a[t] * h[t - 1] + b[t]
    return h[t]


linear_scan_reverse = Cell(linear_scan.spec.mirrored())
