"""A cell for each structure that a recurrence can have, with its equations once more as a slow float64 loop in torch.

`STRUCTURES[name]` draws numbers that float32 holds exactly, in which no state grows: then rounding errors have useful bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import lrdsl as lr
from lrdsl import cos, sigmoid, sin, t, tanh
from tests import bounds
from tests.cells_of_algebras import cheapest, evidence, longest

Array = Any
Draw = Callable[[Any, int, tuple[int, ...]], tuple[Array, ...]]


@lr.cell
def shared(a: lr.Input, p: lr.Input, q: lr.Input, x: lr.State, y: lr.State):
    """Two states that decay alike."""
    x[t] = a[t] * x[t - 1] + p[t]
    y[t] = a[t] * y[t - 1] + q[t]
    return x[t], y[t]


@lr.cell
def triangular(a: lr.Input, c: lr.Input, d: lr.Input, p: lr.Input, q: lr.Input, x: lr.State, y: lr.State):
    """A state that reads itself and another, which reads itself alone."""
    x[t] = a[t] * x[t - 1] + p[t]
    y[t] = c[t] * x[t - 1] + d[t] * y[t - 1] + q[t]
    return x[t], y[t]


@lr.cell
def dense(a: lr.Input, b: lr.Input, c: lr.Input, d: lr.Input, p: lr.Input, q: lr.Input, x: lr.State, y: lr.State):
    """Two states that read each other."""
    x[t] = a[t] * x[t - 1] + b[t] * y[t - 1] + p[t]
    y[t] = c[t] * x[t - 1] + d[t] * y[t - 1] + q[t]
    return x[t], y[t]


@lr.cell
def rotation(c: lr.Input, s: lr.Input, p: lr.Input, q: lr.Input, x: lr.State, y: lr.State):
    """A rotation, scaled or not: a complex number times a complex state."""
    x[t] = c[t] * x[t - 1] - s[t] * y[t - 1] + p[t]
    y[t] = s[t] * x[t - 1] + c[t] * y[t - 1] + q[t]
    return x[t], y[t]


@lr.cell
def turning(r: lr.Input, w: lr.Input, p: lr.Input, x: lr.State, y: lr.State):
    """A damped rotation by an angle, whose modulus is seen to be at most 1."""
    damped = sigmoid(r[t])
    c, s = damped * cos(w[t]), damped * sin(w[t])
    x[t] = c * x[t - 1] - s * y[t - 1] + p[t]
    y[t] = s * x[t - 1] + c * y[t - 1]
    return x[t], y[t]


@lr.cell
def order_two(a: lr.Input, b: lr.Input, p: lr.Input, x: lr.State):
    """The companion matrix of order two."""
    x[t] = a[t] * x[t - 1] + b[t] * x[t - 2] + p[t]
    return x[t]


@lr.cell
def order_three(a: lr.Input, b: lr.Input, c: lr.Input, p: lr.Input, x: lr.State):
    """The companion matrix of order three."""
    x[t] = a[t] * x[t - 1] + b[t] * x[t - 2] + c[t] * x[t - 3] + p[t]
    return x[t]


@lr.cell
def filter_two(p: lr.Input, x: lr.State, a: lr.Vector, b: lr.Vector):
    """Order two with constant coefficients: powers of one matrix."""
    x[t] = a * x[t - 1] + b * x[t - 2] + p[t]
    return x[t]


@lr.cell
def bounded(a: lr.Input, p: lr.Input, q: lr.Input, x: lr.State, y: lr.State):
    """Two states with one gate: no chunk need look whether a product overflows."""
    gate = sigmoid(a[t])
    x[t] = gate * x[t - 1] + p[t]
    y[t] = gate * y[t - 1] + q[t]
    return x[t], y[t]


@lr.cell
def bounded_two(a: lr.Input, p: lr.Input, x: lr.State):
    """Order two, whose coefficients add up to 1."""
    gate = sigmoid(a[t]) / 2
    x[t] = gate * x[t - 1] + (0.5 - gate) * x[t - 2] + p[t]
    return x[t], x[t - 2]


@lr.cell
def bounded_block(a: lr.Input, b: lr.Input, p: lr.Input, q: lr.Input, x: lr.State, y: lr.State):
    """Two states that read each other, with rows that add up to 1 at most."""
    f, g = sigmoid(a[t]) / 2, tanh(b[t]) / 2
    x[t] = f * x[t - 1] + g * y[t - 1] + p[t]
    y[t] = g * x[t - 1] - f * y[t - 1] + q[t]
    return x[t - 1], y[t]


def near(rng: Any, T: int, shape: tuple[int, ...]) -> Array:
    """Within 8 / T of 1: memory as long as the sequence."""
    return 1 - min(8 / T, 0.5) * rng.random(shape)


def alike(rng: Any, shape: tuple[int, ...]) -> Array:
    """Signs that a sequence keeps."""
    return rng.choice([-1.0, 1.0], (shape[0], 1, shape[2]))


def _one(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    return (bounds.gates_near_one(rng, shape, T),)


def _triangle(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    return _one(rng, T, shape)[0], rng.uniform(-1, 1, shape), _one(rng, T, shape)[0]


def _row(n: int) -> Draw:
    """A row whose absolute values add up to 1 nearly, in every third channel to less."""

    def draw(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
        parts = np.stack([alike(rng, shape) * rng.random(shape) for _ in range(n)])
        size = np.where(np.arange(shape[2]) % 3 < 2, near(rng, T, shape), 0.5)
        return tuple(parts / np.abs(parts).sum(0) * size)

    return draw


def _turn(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    angle, size = rng.uniform(-3, 3, shape), near(rng, T, shape)
    return size * np.cos(angle), size * np.sin(angle)


def _block(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Orthogonal matrices nearly, or rows that add up to 1, or what forgets."""
    (c, s), (a, b), (e, d) = _turn(rng, T, shape), _row(2)(rng, T, shape), _row(2)(rng, T, shape)
    kind = np.arange(shape[2]) % 2
    return tuple(np.choose(kind, pair) for pair in ((c, a), (-s, b), (s, e), (c, d)))


def _damped(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    far = near(rng, T, shape)
    open_ = np.log(far / (1 - far + 1e-9))
    return np.where(np.arange(shape[2]) % 3 < 2, open_, rng.standard_normal(shape)), rng.uniform(-3, 3, shape)


def _open(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    return _damped(rng, T, shape)[:1]


def _constant(draw: Draw) -> Draw:
    return lambda rng, T, shape: tuple(v[0, 0] for v in draw(rng, T, shape))


def _addends(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Little lost, much, or some won too."""
    lost = np.stack([near(rng, T, shape) - 1, -2 * rng.random(shape), 0.3 * rng.standard_normal(shape)])
    return (np.choose(np.arange(shape[2]) % 3, lost),)


def _whole(n: int) -> Draw:
    """B5: n by n matrices with entries -1, 0 and 1, one a row at most: so have their products, and no state grows but by b."""

    def draw(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
        rows = []
        for _ in range(n):
            at, sign = rng.integers(0, n, shape), np.where(rng.random(shape) < 2 / T, 0, rng.choice([-1, 1, 1, 1], shape))
            rows += [np.where(at == k, sign, 0) for k in range(n)]
        return tuple(rows)

    return draw


def _first_row(n: int) -> Draw:
    return lambda rng, T, shape: _whole(n)(rng, T, shape)[:n]


def _whole_triangle(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    a, _, c, d = _whole(2)(rng, T, shape)
    return a, c, d


def _quarter_turn(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Rotations by 90 degrees, and sometimes nothing."""
    c, s = _whole(2)(rng, T, shape)[:2]
    return c, s


def _no_ties(rng: Any, T: int, shape: tuple[int, ...]) -> tuple[Array, ...]:
    return (1024 * rng.integers(-1, 2, shape),)


@dataclass(frozen=True)
class Case:
    """A cell, and how its coefficients are drawn, in the order of its signature. whole: as B5 wants them. given: inputs that
    are coefficients; the other inputs are drawn from a normal distribution, or are whole numbers."""

    cell: lr.Cell
    given: tuple[str, ...]
    draw: Draw
    whole: Draw | None = None

    @property
    def algebra(self) -> str | None:
        """"kinked" where a comparison decides who wins."""
        return {_addends: "smooth" if self.cell is evidence else "kinked"}.get(self.draw)

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(self.cell.spec.names("state"))

    def numbers(self, rng: Any, B: int, T: int, C: int, whole: bool = False) -> dict[str, Array]:
        """Inputs (B, T, C) and vectors (C,), float32 numbers in float64. Without a tie where they are `whole` over an algebra:
        each step has its own remainder by 1024."""
        made = self.whole if whole else self.draw
        assert made is not None
        found = dict(zip(self.given, made(rng, T, (B, T, C)), strict=True))
        for name in self.cell.spec.names("input"):
            if name not in found:
                found[name] = rng.integers(-2, 3, (B, T, C)) if whole else rng.standard_normal((B, T, C))
                if made is _no_ties:
                    found[name] = 1024 * found[name] + 1 + np.arange(T)[:, None]
        return {n: v.astype(np.float32).astype(np.float64) for n, v in found.items()}


STRUCTURES = {
    "diagonal": Case(lr.cells.linear_scan, ("a",), _one, _first_row(1)),
    "diagonal, reverse": Case(lr.cells.linear_scan_reverse, ("a",), _one, _first_row(1)),
    "shared": Case(shared, ("a",), _one, _first_row(1)),
    "triangular": Case(triangular, ("a", "c", "d"), _triangle, _whole_triangle),
    "order 2": Case(order_two, ("a", "b"), _row(2), _first_row(2)),
    "order 3": Case(order_three, ("a", "b", "c"), _row(3), _first_row(3)),
    "constant": Case(filter_two, ("a", "b"), _constant(_row(2)), _constant(_first_row(2))),
    "dense": Case(dense, ("a", "b", "c", "d"), _block, _whole(2)),
    "rotation": Case(rotation, ("c", "s"), _turn, _quarter_turn),
    "turning": Case(turning, ("r", "w"), _damped),
    "shared, bounded": Case(bounded, ("a",), _open),
    "order 2, bounded": Case(bounded_two, ("a",), _open),
    "dense, bounded": Case(bounded_block, ("a", "b"), _damped),
    "max-plus": Case(longest, ("a",), _addends, _no_ties),
    "min-plus": Case(cheapest, ("cost",), _addends, _no_ties),
    "logaddexp-plus": Case(evidence, ("a",), _addends),
}
