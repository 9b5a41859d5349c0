"""A filter of any order up to 8, with given coefficients, as `scipy.signal.lfilter(b, a, x)`.

    a[0] y[t] = b[0] x[t] + b[1] x[t-1] + … - a[1] y[t-1] - a[2] y[t-2] - …

The coefficients are part of the kernel, whose recurrence is constant; for learned ones see `biquad`. Edges are past samples, as
there.
"""

from collections.abc import Sequence

from ..errors import BadDeclaration
from ..frontend.cell import Cell, cell
from ..frontend.kinds import Input, State, t
from ..location import caller


def lfilter(b: Sequence[float], a: Sequence[float]) -> Cell:
    """The filter with numerator `b` and denominator `a`. Raises BadDeclaration for what are no real numbers, for a[0] = 0, and
    where there is no feedback, a[1] … all 0."""
    try:
        ahead, back = ([float(c) for c in numbers] for numbers in (b, a))
    except (TypeError, ValueError):
        ahead, back = [], []
    if not ahead or not any(back[1:]) or back[0] == 0:
        raise BadDeclaration(f"lfilter(b={b!r}, a={a!r}) is no filter with a feedback", caller(),
                             "write lfilter([1.0], [1.0, -0.5]): y[t] = x[t] + 0.5*y[t-1]")
    ahead, back = ([c / back[0] for c in numbers] for numbers in (ahead, back))

    @cell
    def lfilter(x: Input, y: State):
        """A filter with given coefficients, as scipy.signal.lfilter."""
        y[t] = sum(c * x[t - k] for k, c in enumerate(ahead)) - sum(c * y[t - k] for k, c in enumerate(back) if k)
        return y[t]
    return lfilter
