"""Cells whose states run both ways, one for each way in which the two can meet. Golden texts cite their lines: append only."""

from __future__ import annotations

import lrdsl as lr
from lrdsl import sigmoid, t, tanh


@lr.cell
def there_and_back(x: lr.Input, f: lr.State, b: lr.State, a: lr.Scalar, g: lr.Vector):
    """A forward state, and a reverse one that reads it."""
    f[t] = a * f[t - 1] + x[t]
    b[t] = g * b[t + 1] + f[t]
    return f[t] + b[t]


@lr.cell
def zigzag(x: lr.Input, u: lr.State = lr.State(init=0.5), p: lr.State = lr.State(), q: lr.State = lr.State(init=-0.5),
           r: lr.State = lr.State()):
    """Four passes, each of which bends by the one before, at lags of both signs; the first state of h_n is solved last."""
    p[t] = sigmoid(x[t + 1]) * p[t + 1] + x[t]
    q[t] = sigmoid(p[t - 2]) * q[t - 1] + p[t + 1] * x[t - 1]
    r[t] = tanh(q[t + 2] - q[t - 1]) * r[t + 1] + q[t]
    u[t] = sigmoid(r[t] + p[t]) * u[t - 1] - r[t - 1] * q[t + 1] / 2
    return u[t], r[t + 1] * u[t + 1]


@lr.cell
def smoother(x: lr.Input, gate: lr.Affine, look: lr.Affine, out: lr.Affine, f: lr.State = lr.State(init=-0.5),
             s: lr.State = lr.State(learned=True, init=0.25)):
    """A filter, and a smoother whose dense maps read it on both sides, in a window and each at one sample."""
    f[t] = sigmoid(gate(x[t])) * f[t - 1] + x[t]
    s[t] = sigmoid(look(f[t - 1], f[t + 1], f[t])) * s[t + 1] + tanh(out(f[t + 2])) * out(f[t - 1])
    return out(s[t - 1] * f[t]), s[t]


@lr.cell
def beside(x: lr.Input, z: lr.State, f: lr.State, b: lr.State):
    """A state that is no recurrence, read on both sides by recurrences that run both ways and share a line."""
    k = sigmoid(x[t])
    z[t] = x[t] * x[t]
    f[t] = k * f[t - 1] + z[t - 1] * z[t + 1]
    b[t] = k * b[t + 1] + z[t + 1]
    return f[t] * b[t]


@lr.cell
def orders(x: lr.Input, p: lr.State, q: lr.State, y: lr.State, v: lr.Vector):
    """Coupled states from the left, and order two from the right."""
    p[t] = v * p[t - 1] - q[t - 2] / 2 + x[t]
    q[t] = p[t] / 3 + sigmoid(x[t]) * q[t - 1]
    y[t] = tanh(q[t]) * y[t + 1] + p[t + 1] * y[t + 2] / 4 + p[t - 1]
    return y[t] + q[t + 1]


TWO_WAY = {c.name: c for c in (there_and_back, zigzag, smoother, beside, orders)}
