"""Cells that the tests share, one for each thing that a cell can be. Golden texts cite their lines: append, do not insert."""

from __future__ import annotations

import lrdsl as lr
from lrdsl import abs, equal, exp, maximum, sigmoid, sin, softplus, t, tanh, where


@lr.cell
def gilr(x: lr.Input, h: lr.State, gate: lr.Affine, impulse: lr.Affine):
    """Gated impulse linear recurrence (Martin & Cundy 2018, section 3.1)."""
    g = sigmoid(gate(x[t]))
    i = tanh(impulse(x[t]))
    h[t] = g * h[t - 1] + (1 - g) * i
    return h[t]


@lr.cell
def lstm(x: lr.Input, h: lr.State, c: lr.State, forget: lr.Affine, enter: lr.Affine, update: lr.Affine, leave: lr.Affine):
    """LSTM without the output tanh, which only its surrogate makes linear."""
    f, i, o = (sigmoid(W(x[t], h[t - 1])) for W in (forget, enter, leave))
    c[t] = f * c[t - 1] + i * tanh(update(x[t], h[t - 1]))
    h[t] = o * c[t]
    return h[t]


gilr_lstm = lr.surrogate(lstm, h=gilr)
gilr_lstm_now = lr.surrogate(lstm, h=gilr, delay=0)


@lr.cell
def order_two(a: lr.Input, b: lr.Input, y: lr.State):
    """A filter of order two with moving coefficients, and windows of both inputs."""
    y[t] = a[t] * y[t - 1] + b[t] * y[t - 2] + tanh(a[t - 1] * b[t - 2])
    return y[t]


@lr.cell
def strata(a: lr.Input, x: lr.State, y: lr.State, z: lr.State):
    """Three recurrences, each bent by the one before; z is no recurrence, but is read at a lag."""
    x[t] = sigmoid(a[t]) * x[t - 1] + a[t]
    y[t] = sin(x[t - 2]) * y[t - 1] + x[t - 1] * where(a[t] > 0, a[t], x[t])
    z[t] = y[t] * x[t - 1]
    return z[t] + z[t - 3]


@lr.cell
def discounted(r: lr.Input, g: lr.State, gamma: lr.Scalar):
    """The discounted return: a recurrence from the right."""
    g[t] = r[t] + gamma * g[t + 1]
    return g[t]


@lr.cell
def against(r: lr.Input, g: lr.State, v: lr.Scalar):
    """A reverse recurrence that reads its input on both sides."""
    g[t] = r[t] + v * g[t + 1] * r[t + 1] + r[t - 1]
    return g[t]


@lr.cell
def window(x: lr.Input, h: lr.State, gate: lr.Affine):
    """A dense map of a window, as in a QRNN."""
    f = sigmoid(gate(x[t], x[t - 1]))
    h[t] = f * h[t - 1] + (1 - f) * x[t]
    return h[t]


@lr.cell
def compound(
    x: lr.Input,
    *,
    h: lr.State = lr.State(init=0.25),
    w: lr.Vector = lr.Vector(init=1.0),
    gate: lr.Affine = lr.Affine(bias=2.0),
    out: lr.Affine = lr.Affine(bias=False),
):
    """Maps of an expression and of another map's value, options, and two outputs by name."""
    f = sigmoid(gate(x[t] * w))
    h[t] = f * h[t - 1] + softplus(x[t])
    return {"y": out(tanh(h[t])), "memory": h[t]}


@lr.cell
def rotation(b: lr.Input, x: lr.State, y: lr.State, c: lr.Vector, s: lr.Vector):
    """Two coupled states: a rotation and a push. Two outputs in a tuple."""
    x[t] = c * x[t - 1] - s * y[t - 1] + b[t]
    y[t] = s * x[t - 1] + c * y[t - 1]
    return x[t] * y[t], y[t]


@lr.cell
def spiral(b: lr.Input, x: lr.State, y: lr.State, v: lr.Vector, s: lr.Scalar):
    """Coupled states of order three, one of which reads the other at t."""
    x[t] = v * x[t - 1] + s * y[t - 3] + b[t] * x[t - 2]
    y[t] = s * x[t] - b[t - 1] * y[t - 1] + sigmoid(v * b[t])
    return x[t] + y[t] * y[t - 2]


@lr.cell
def kinks(x: lr.Input, h: lr.State):
    """Functions that are not smooth; drawn numbers meet none of the kinks."""
    big = x[t] > 0.5
    h[t] = where(big & (x[t] < 2) | equal(x[t], 7), 0.5, exp(-abs(x[t]))) * h[t - 1] + maximum(x[t], x[t - 1])
    return h[t]


@lr.cell
def lookahead(x: lr.Input, u: lr.Input, h: lr.State, gate: lr.Affine, v: lr.Vector):
    """A forward recurrence that reads ahead, through a map and without one."""
    h[t] = sigmoid(gate(x[t - 1], x[t + 1], u[t])) * h[t - 1] + v * u[t + 2]
    return h[t] * u[t - 1]


@lr.cell
def ring(x: lr.Input, a: lr.State, b: lr.State, c: lr.State):
    """Three states in a ring, which read each other at t and up to two steps back."""
    a[t] = sigmoid(x[t]) * b[t - 1] + x[t]
    b[t] = 0.5 * c[t - 2] - where(x[t] > 0, a[t], b[t - 1] / 3)
    c[t] = (a[t - 1] + tanh(x[t - 1]) * b[t]) / 2
    return c[t]


@lr.cell
def apart(x: lr.Input, h: lr.State, before: lr.Affine, now: lr.Affine, after: lr.Affine):
    """Maps of one sample each: products that are read at lags, on both sides."""
    h[t] = sigmoid(before(x[t - 1])) * h[t - 1] + now(x[t]) * after(x[t + 1])
    return h[t]


from tests.two_way_cells import smoother, there_and_back  # noqa: E402 - below, because golden texts cite lines

CELLS = {c.name: c for c in (gilr, gilr_lstm, gilr_lstm_now, order_two, strata, discounted, against, window, compound, rotation,
                             spiral, kinks, lookahead, ring, apart, there_and_back, smoother)}
