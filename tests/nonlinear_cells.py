"""Cells with recurrences that are linear over no algebra: functions, in every form that the equations may have."""

from __future__ import annotations

import lrdsl as lr
from lrdsl import detach, equal, exp, maximum, minimum, relu, sigmoid, t, tanh, where


@lr.cell
def logistic(r: lr.Input, x: lr.State = lr.State(init=0.3)):
    """The logistic map."""
    x[t] = r[t] * x[t - 1] * (1 - x[t - 1])
    return x[t]


@lr.cell
def later(x: lr.Input, h: lr.State, u: lr.Vector):
    """From the right."""
    h[t] = tanh(u * h[t + 1] + x[t])
    return h[t]


@lr.cell
def second(x: lr.Input, y: lr.State, a: lr.Vector, b: lr.Scalar):
    """Of order 2, and its own earlier values in an output."""
    y[t] = sigmoid(a * y[t - 1] + x[t]) - b * y[t - 2] ** 2
    return y[t] + x[t - 1] * y[t - 2]


@lr.cell
def skipping(x: lr.Input, y: lr.State, a: lr.Vector):
    """Read two steps back alone: two recurrences in one."""
    y[t] = tanh(a * y[t - 2] + x[t])
    return y[t]


@lr.cell
def clamped(x: lr.Input, h: lr.State):
    """Two functions on h, of two algebras."""
    h[t] = minimum(maximum(h[t - 1] + x[t], -1), 1)
    return h[t]


@lr.cell
def decided(x: lr.Input, h: lr.State, a: lr.Vector):
    """A condition on the state; a constant that is not differentiated."""
    up = where(h[t - 1] > 0, a * h[t - 1], x[t])
    h[t] = where(equal(up, 7), x[t], up - 0.5 * relu(h[t - 1])) + detach(sigmoid(h[t - 1]))
    return h[t]


@lr.cell
def three(x: lr.Input, a: lr.State, b: lr.State, c: lr.State, v: lr.Vector):
    """Three states, a line that reads one of them at t, and one that all three need."""
    s = sigmoid(v * a[t - 1] - c[t - 1])
    a[t] = s * b[t - 1] + x[t]
    near = a[t] * exp(-a[t] ** 2)
    b[t] = tanh(near + c[t - 1])
    c[t] = s * (b[t] - a[t]) + 0.5 * b[t - 1]
    return a[t], c[t] + s


@lr.cell
def strata(x: lr.Input, f: lr.State, g: lr.State, h: lr.State, u: lr.Vector):
    """A linear recurrence between two that are not."""
    f[t] = tanh(u * f[t - 1] + x[t])
    g[t] = sigmoid(f[t - 1]) * g[t - 1] + f[t]
    gate = sigmoid(h[t - 1] + g[t])
    h[t] = gate * h[t - 1] + (1 - gate) * g[t - 1]
    return h[t] * f[t - 1]


@lr.cell
def tropical(x: lr.Input, y: lr.Input, a: lr.State, b: lr.State):
    """Two states over (max, +), which no scan here solves."""
    a[t] = maximum(a[t - 1] + x[t], b[t - 1])
    b[t] = maximum(b[t - 1] + y[t], a[t - 1] - 1)
    return a[t] + b[t]


@lr.cell
def squared(x: lr.Input, *, z: lr.State = lr.State(complex=True), c: lr.Vector = lr.Vector(complex=True)):
    """A complex state, pulled back into the unit disk."""
    w = z[t - 1] * z[t - 1] + c + x[t]
    z[t] = w / (1 + lr.re(w * lr.conjugate(w)))
    return lr.re(z[t]), lr.im(z[t - 1])


REAL = (logistic, later, second, skipping, clamped, decided, three, strata, tropical)
