"""RG-LRU: De et al., "Griffin" (2024, arXiv 2402.19427), section 2.4, equations 1 to 4, and its authors' code (recurrentgemma).

    r[t], i[t] = sigmoid(W x[t] + b), with recur, enter
    a[t] = exp(-8 softplus(Lambda) r[t])
    h[t] = a[t] h[t-1] + m[t] i[t] x[t],   m[t] = sqrt(1 - a[t]²), and 1 where a sequence begins

From the code are the sign of Lambda (the paper writes a = sigmoid(Lambda), that is softplus(-Lambda) here), the step that is
not scaled because nothing came before it, and the bound of 1000 on the derivative of the root, which is infinite at a = 1.
x is read channel by channel, so that input_size must be hidden_size; the maps are dense, those of the code block-diagonal.
"""

from typing import Any

from ..frontend.cell import cell
from ..frontend.functions import detach, exp, expm1, maximum, sigmoid, softplus, sqrt, where
from ..frontend.kinds import Affine, Input, State, Vector, first, t

STEEPEST = 1000.0  # the largest derivative of a root


def _lambda(tensor: Any) -> None:
    """a at r = 1 is uniform in 0.9 … 0.999 (the paper, section 2.4): softplus(Lambda) = -log(a) / 8."""
    tensor.uniform_(0.9, 0.999).log_().div_(-8).expm1_().log_()


def bounded_root(u: Any) -> Any:
    """sqrt(u), whose derivative is STEEPEST where it would be more."""
    least = 1 / (2 * STEEPEST) ** 2
    return where(u > least, sqrt(maximum(u, least)), sqrt(detach(u)) + STEEPEST * (u - detach(u)))


@cell
def rglru(x: Input, h: State, recur: Affine, enter: Affine, Lambda: Vector = Vector(init=_lambda)):
    """Real-gated linear recurrent unit (De et al. 2024, equations 1 to 4)."""
    r, i = sigmoid(recur(x[t])), sigmoid(enter(x[t]))
    log_a = -8 * softplus(Lambda) * r
    scale = where(first[t], 1, bounded_root(-expm1(2 * log_a)))
    h[t] = exp(log_a) * h[t - 1] + scale * i * x[t]
    return h[t]
