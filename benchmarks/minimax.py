"""The polynomials of templates/cpu/vmath.h: weighted minimax fits by Remez' exchange, coefficients rounded one after another.

    python -m benchmarks.minimax            all of them, a minute
    python -m benchmarks.minimax "sin float"

A fit has a function, the factor that makes its error the relative one of what it serves, the interval, the degree. After each
coefficient is rounded, from the constant one on (from the highest on, where 0 is within the interval), the others are fitted
again. (exp and log in float are older fits, made alike.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import mpmath as mp
import numpy as np

Number = Any


@dataclass(frozen=True)
class Fit:
    """p(x) of a degree for f(x) on [low, high], w(x) (f - p) as small as can be; `double` says to what it is rounded."""

    function: Callable[[Number], Number]
    weight: Callable[[Number], Number]
    low: Number
    high: Number
    degree: int
    double: bool
    downwards: bool = False


def exchange(fit: Fit, fixed: dict[int, Number], rounds: int = 14) -> list[Number]:
    """The best coefficients of the powers that are not fixed."""
    powers = [p for p in range(fit.degree + 1) if p not in fixed]
    count = len(powers) + 1
    grid = max(400, 24 * count)
    x = [fit.low + (fit.high - fit.low) * (1 - mp.cos(mp.pi * (i + mp.mpf(1) / 2) / grid)) / 2 for i in range(grid)]
    rest = [fit.function(v) - mp.fsum(c * v**p for p, c in fixed.items()) for v in x]
    weight, rows = [fit.weight(v) for v in x], [[v**p for p in powers] for v in x]
    at, best = [int((i + 0.5) * grid / count) for i in range(count)], None
    for _ in range(rounds):
        system = mp.matrix([[*rows[i], (-1)**r / weight[i]] for r, i in enumerate(at)])
        *found, level = mp.lu_solve(system, mp.matrix([rest[i] for i in at]))
        error = [w * (r - mp.fsum(c * v for c, v in zip(found, row, strict=True)))
                 for w, r, row in zip(weight, rest, rows, strict=True)]
        largest = max(map(abs, error))
        if best is None or largest < best[0]:
            best = largest, found
        signs = [i for i in range(1, grid) if (error[i] > 0) != (error[i - 1] > 0)]
        ends = [max(range(a, b), key=lambda i, error=error: abs(error[i]))
                for a, b in zip([0, *signs], [*signs, grid], strict=True)]
        while len(ends) > count:
            ends.pop(0 if abs(error[ends[0]]) < abs(error[ends[-1]]) else -1)
        if len(ends) < count or ends == at or largest < abs(level) * 1.001:
            break
        at = ends
    assert best
    return best[1]


def coefficients(fit: Fit) -> tuple[list[str], float]:
    """(as C++ writes them, from the constant one on; the base 2 logarithm of the error of the rounded ones)."""
    fixed: dict[int, Number] = {}
    with mp.workdps(50):
        for power in sorted(range(fit.degree + 1), reverse=fit.downwards):
            left = [p for p in range(fit.degree + 1) if p not in fixed]
            value = exchange(fit, fixed)[left.index(power)]
            fixed[power] = mp.mpf(float(value) if fit.double else float(np.float32(float(value))))
        points = [fit.low + (fit.high - fit.low) * (k + mp.mpf(1) / 2) / 2000 for k in range(2000)]
        error = max(abs(fit.weight(x) * (fit.function(x) - mp.fsum(c * x**p for p, c in fixed.items()))) for x in points)
        return [text(float(fixed[p]), fit.double) for p in range(fit.degree + 1)], float(mp.log(error, 2))


def text(value: float, double: bool) -> str:
    """A number in hexadecimal."""
    digits, exponent = value.hex().split("p")
    return f"{digits.rstrip('0').rstrip('.')}p{exponent}{'' if double else 'f'}"


@cache
def fits() -> dict[str, Fit]:
    """By "function dtype"; see the header for what each is."""
    def sine(u: Number) -> Number:
        r = mp.sqrt(u)
        return (mp.sin(r) - r) / r**3

    def exponent(a: Number) -> Number:
        return -mp.log(mp.erfc(a))

    def tail(a: Number) -> Number:  # (1 - erf(a / sqrt 2)) / 2
        return mp.erfc(a / mp.sqrt(2)) / 2

    def gelu(c: Number, most: int, floor: int, degree: int, double: bool) -> Fit:
        def a(s: Number) -> Number:
            return s / (1 - s) / c

        def scaled(s: Number) -> Number:
            return tail(a(s)) * mp.exp(a(s)**2 / 2)
        return Fit(lambda s: (scaled(s) - mp.mpf(1) / 2) / s, lambda s: s * max(tail(a(s)), mp.mpf(2)**floor) / scaled(s),
                   mp.mpf("1e-9"), c * most / (1 + c * most), degree, double)

    def erf(most: str, low: str, degree: int, double: bool) -> Fit:
        return Fit(lambda a: exponent(a) / a - 1, lambda a: a * mp.exp(-exponent(a)) / (1 - mp.exp(-exponent(a))),
                   mp.mpf(low), mp.mpf(most), degree, double)

    with mp.workdps(50):
        half, quarter = mp.log(2) / 2 * mp.mpf("1.0001"), (mp.pi / 2 + mp.mpf("0.0005"))**2
        sines = [Fit(sine, lambda u: mp.sqrt(u)**3 / mp.sin(mp.sqrt(u)), mp.mpf("1e-10"), quarter, n, n == 7) for n in (3, 7)]
        return {
            "exp double": Fit(lambda r: (mp.expm1(r) - r) / r**2, lambda r: abs(r * r / mp.expm1(r)), -half, half, 10, True,
                              downwards=True),
            "log double": Fit(lambda v: (2 * mp.atanh(mp.sqrt(v)) - 2 * mp.sqrt(v)) / mp.sqrt(v)**3,
                              lambda v: mp.sqrt(v)**3 / (2 * mp.atanh(mp.sqrt(v))), mp.mpf("1e-12"), mp.mpf("0.0401"), 6, True),
            "sin float": sines[0], "sin double": sines[1],
            "erf float": erf("3.95", "1e-6", 8, False), "erf double": erf("5.95", "1e-8", 23, True),
            "gelu float": gelu(mp.mpf(float(np.float32(0.3))), 15, -5, 7, False),
            "gelu double": gelu(mp.mpf(0.24), 39, -9, 18, True)}


if __name__ == "__main__":
    for name in sys.argv[1:] or fits():
        found, size = coefficients(fits()[name])
        print(f"{name}: error 2^{size:.2f}", *found, sep="\n  ")
