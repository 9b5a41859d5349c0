"""sLSTM without its recurrent matrix: Beck et al., "xLSTM" (NeurIPS 2024, arXiv 2405.04517), section 2.2, equations 8 to 17.

    z[t] = tanh(W x[t] + b), o[t] = sigmoid(W x[t] + b), with new, leave; i~[t], f~[t] = W x[t] + b, with enter, forget
    m[t] = max(log f[t] + m[t-1], i~[t])                              f = sigmoid(f~), or exp(f~)
    c[t] = exp(log f[t] + m[t-1] - m[t]) c[t-1] + exp(i~[t] - m[t]) z[t]
    n[t] = exp(log f[t] + m[t-1] - m[t]) n[t-1] + exp(i~[t] - m[t])
    y[t] = o[t] c[t] / n[t]

In the paper all maps read h[t-1] as well, so that the cell is no linear recurrence; without that it is three. n is at least 1
where m is its own exponent, so that the clamp of its authors' code changes nothing.
"""

import math

from ..errors import BadDeclaration
from ..frontend.cell import Cell, cell
from ..frontend.functions import exp, maximum, sigmoid, softplus, tanh
from ..frontend.kinds import Affine, Input, State, t
from ..location import caller


def slstm(gate: str = "sigmoid") -> Cell:
    """The sLSTM whose forget gate is "sigmoid" or "exp". Raises BadDeclaration for another one."""
    if gate not in ("sigmoid", "exp"):
        raise BadDeclaration(f"there is no forget gate {gate!r}", caller(), "the gates are sigmoid, exp")

    @cell
    def slstm(x: Input, c: State, n: State, new: Affine, enter: Affine, forget: Affine, leave: Affine,
              m: State = State(init=-math.inf)):
        """sLSTM without its recurrent matrix (Beck et al. 2024, section 2.2)."""
        i, f = enter(x[t]), forget(x[t])
        kept = m[t - 1] + (f if gate == "exp" else -softplus(-f))
        m[t] = maximum(kept, i)
        before, now = exp(kept - m[t]), exp(i - m[t])
        c[t] = before * c[t - 1] + now * tanh(new(x[t]))
        n[t] = before * n[t - 1] + now
        return sigmoid(leave(x[t])) * c[t] / n[t]
    return slstm
