"""Cells that between them use all of the language that this version builds; small, for the tests of this directory."""

import lrdsl as lr
from lrdsl import sigmoid, sin, t, tanh


@lr.cell
def order2(a: lr.Input, b: lr.Input, y: lr.State):
    y[t] = a[t] * y[t - 1] + b[t] * y[t - 2] + tanh(a[t - 1] * b[t - 2])
    return y[t]


@lr.cell
def strata(a: lr.Input, x: lr.State, y: lr.State, z: lr.State):
    x[t] = sigmoid(a[t]) * x[t - 1] + a[t]
    y[t] = sin(x[t - 2]) * y[t - 1] + x[t - 1] * lr.where(a[t] > 0, a[t], x[t])
    z[t] = y[t] * x[t - 1]
    return z[t] + z[t - 3]


@lr.cell
def around(r: lr.Input, v: lr.Scalar, w: lr.Vector, g: lr.State = lr.State(init=0.5)):
    g[t] = r[t] + v * g[t + 1] * r[t + 1] + w * r[t - 1] * r[t - 2]
    return g[t], g[t] * w


@lr.cell
def smooth(x: lr.Input, h: lr.State, v: lr.Vector, s: lr.Scalar):
    h[t] = v * h[t - 1] + s * x[t]
    return {"y": h[t] * h[t], "h": h[t]}


@lr.cell
def constant(x: lr.Input, h: lr.State):
    h[t] = 0.5 * h[t - 1] + x[t]
    return h[t]


@lr.cell
def ahead(x: lr.Input, h: lr.State):
    h[t] = sigmoid(x[t + 2]) * h[t - 1] + x[t + 1] * x[t]
    return h[t]


@lr.cell
def window(x: lr.Input, u: lr.Input, gate: lr.Affine, shift: lr.Affine, h: lr.State = lr.State(learned=True, init=0.25)):
    g = sigmoid(gate(x[t], x[t - 1], x[t - 2]))
    h[t] = g * h[t - 1] + shift(x[t - 1], u[t] * u[t - 1])
    return h[t], g


@lr.cell
def stacked(x: lr.Input, p: lr.State, gate: lr.Affine, read: lr.Affine, v: lr.Vector, out: lr.Affine = lr.Affine(bias=False),
            q: lr.State = lr.State(init=1.0)):
    p[t] = sigmoid(gate(x[t])) * p[t - 1] + v
    q[t] = sigmoid(read(p[t - 2], x[t])) * q[t - 1] + tanh(p[t])
    return out(q[t] * p[t]), q[t]


@lr.cell
def soft(x: lr.Input, h: lr.State, gate: lr.Affine):
    h[t] = sigmoid(gate(x[t])) * h[t - 1] + 1
    return tanh(h[t])


soft_lstm = lr.surrogate(lr.cells.lstm, h=soft)


@lr.cell
def single(x: lr.Input, h: lr.State, forget: lr.Affine, shift: lr.Affine):
    """Reads x through maps and channel by channel."""
    h[t] = sigmoid(forget(x[t])) * h[t - 1] + x[t] * shift(x[t])
    return h[t]


@lr.cell
def deep(x: lr.Input, u: lr.Input, gate: lr.Affine, look: lr.Affine, mix: lr.Affine,
         p: lr.State = lr.State(learned=True, init=0.5), q: lr.State = lr.State(init=1.0)):
    """Windows of an input, in any order and twice through one map, and of a state that is solved before."""
    p[t] = sigmoid(gate(x[t - 1], u[t], x[t])) * p[t - 1] + look(x[t], x[t - 1])
    q[t] = sigmoid(mix(p[t - 1], p[t], x[t - 2], p[t - 3])) * q[t - 1] + tanh(look(x[t - 1], x[t - 2]))
    return q[t], p[t]


@lr.cell
def sides(x: lr.Input, h: lr.State, both: lr.Affine, before: lr.Affine, after: lr.Affine):
    """A window on both sides; beside it maps of one sample each, also on both sides."""
    h[t] = sigmoid(both(x[t - 2], x[t + 1], x[t])) * h[t - 1] + before(x[t - 1]) * tanh(after(x[t + 2]))
    return h[t]


MODULES = (lr.cells.gilr, lr.cells.gilr_lstm, lr.cells.gilr_lstm_delay0, window, stacked, soft_lstm, single, deep, sides)
FUNCTIONS = (lr.cells.linear_scan, lr.cells.linear_scan_reverse, order2, strata, around, smooth, constant, ahead)
