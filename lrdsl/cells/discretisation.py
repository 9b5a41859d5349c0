"""What diagonal state space models share: from h' = A h + B x to a recurrence with step d, and where A and d begin."""

import math
from collections.abc import Callable
from typing import Any

from ..errors import BadDeclaration
from ..frontend.functions import abs as absolute
from ..frontend.functions import cos, exp, expm1, im, re, sin, where
from ..location import caller

Method = Callable[[Any, Any], tuple[Any, Any]]


def zero_order_hold(A: Any, d: Any) -> tuple[Any, Any]:
    """exp(d A) and (exp(d A) - 1) / A: exact where x is constant between two steps.

    The difference is written out, because exp(z) - 1 has lost its digits where the step is small, and z = 0 has a limit.
    """
    z = d * A
    decay, angle, small = re(z), im(z), absolute(z) < 0.01
    grown = expm1(decay) * cos(angle) - 2 * sin(angle / 2) ** 2 + 1j * exp(decay) * sin(angle)
    series: Any = 1
    for k in range(6, 1, -1):  # 1 + z/2 (1 + z/3 (…)): what follows is below the rounding of float64
        series = 1 + z / k * series
    return exp(z), d * where(small, series, grown / where(small, 1, z))


def bilinear(A: Any, d: Any) -> tuple[Any, Any]:
    """(1 + d A / 2) / (1 - d A / 2) and d / (1 - d A / 2): the trapezoidal rule, that is Tustin's."""
    below = 1 - d * A / 2
    return (1 + d * A / 2) / below, d / below


METHODS: dict[str, Method] = {"zoh": zero_order_hold, "bilinear": bilinear}


def method_of(name: str) -> Method:
    """(A, d) -> what multiplies h[t-1], and what B x[t]. Raises BadDeclaration, at the factory's caller, for another name."""
    if name not in METHODS:
        raise BadDeclaration(f"there is no method {name!r}", caller(3), f"the methods are {', '.join(METHODS)}")
    return METHODS[name]


def frequencies(tensor: Any) -> None:
    """Fill with pi n along the last dimension (Gu et al. 2022, arXiv 2206.11893, S4D-Lin)."""
    tensor.copy_(tensor.new_tensor(range(tensor.shape[-1])) * math.pi)


def poles(tensor: Any) -> None:
    """Fill a complex tensor with -1/2 + i pi n (the same)."""
    tensor.real.fill_(-0.5)
    frequencies(tensor.imag)


def steps(tensor: Any) -> None:
    """Fill with logarithms of steps, log-uniform in 0.001 … 0.1 (as the code of S4D)."""
    tensor.uniform_(math.log(0.001), math.log(0.1))
