"""LinOSS: Rusch & Rus, "Oscillatory State-Space Models" (ICLR 2025, arXiv 2410.03943), section 2: forced oscillators
y'' = -A y + B u, with z = y', by one of two rules for a step d.

    z[t] = z[t-1] + d (-A y[t] + B u[t]),     y[t] = y[t-1] + d z[t]      "im", implicit: it dissipates
    z[t] = z[t-1] + d (-A y[t-1] + B u[t]),   y[t] = y[t-1] + d z[t]      "imex": it conserves
    output C y[t] + D u[t]

A = relu(a) and d = sigmoid(step) of what is learned, as in the paper. The implicit rule is solved for z[t] here, by hand: a
circle of two states at t is refused. C gives hidden_size values.
"""

from typing import Any

from ..errors import BadDeclaration
from ..frontend.cell import Cell, cell
from ..frontend.functions import relu, sigmoid
from ..frontend.kinds import Affine, Input, State, Vector, t
from ..location import caller


def _uniform(tensor: Any) -> None:
    """Frequencies uniform in 0 … 1 (the paper, section 2)."""
    tensor.uniform_(0, 1)


def linoss(rule: str = "im") -> Cell:
    """LinOSS with the rule "im" or "imex". Raises BadDeclaration for another one."""
    if rule not in ("im", "imex"):
        raise BadDeclaration(f"there is no rule {rule!r}", caller(), "the rules are im, imex")

    @cell
    def linoss(u: Input, z: State, y: State, a: Vector = Vector(init=_uniform), step: Vector = Vector(init=0.0),
               B: Affine = Affine(bias=False), C: Affine = Affine(bias=False), D: Affine = Affine(bias=False)):
        """Linear oscillatory state space model (Rusch & Rus 2025, section 2)."""
        A, d = relu(a), sigmoid(step)
        moved = z[t - 1] + d * (B(u[t]) - A * y[t - 1])
        z[t] = moved / (1 + d * d * A) if rule == "im" else moved
        y[t] = y[t - 1] + d * z[t]
        return C(y[t]) + D(u[t])
    return linoss
