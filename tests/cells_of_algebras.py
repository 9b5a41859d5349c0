"""Cells whose recurrences are linear over (max, +), (min, +) and (logaddexp, +), in every form that the equations may have."""

from __future__ import annotations

import math

import sympy as sp

import lrdsl as lr
from lrdsl import exp, log, logaddexp, maximum, minimum, sigmoid, softplus, t, tanh, where


@lr.cell
def longest(a: lr.Input, b: lr.Input, h: lr.State):
    """(max, +): the weight of the best path so far."""
    h[t] = maximum(h[t - 1] + a[t], b[t])
    return h[t]


@lr.cell
def cheapest(cost: lr.Input, stop: lr.Input, g: lr.State):
    """(min, +) from the right: optimal stopping."""
    g[t] = minimum(stop[t], cost[t] + g[t + 1])
    return g[t]


@lr.cell
def evidence(a: lr.Input, b: lr.Input, h: lr.State):
    """(logaddexp, +): a linear recurrence h[t] = e^a h[t-1] + e^b in the logarithm."""
    h[t] = logaddexp(b[t], h[t - 1] + a[t])
    return h[t]


@lr.cell
def cummax(x: lr.Input, h: lr.State = lr.State(init=-math.inf)):
    h[t] = maximum(h[t - 1], x[t])
    return h[t]


@lr.cell
def cummin(x: lr.Input, h: lr.State = lr.State(init=sp.oo)):
    h[t] = minimum(x[t], h[t - 1])
    return h[t]


@lr.cell
def logcumsumexp(x: lr.Input, h: lr.State = lr.State(init=-math.inf)):
    h[t] = logaddexp(h[t - 1], x[t])
    return h[t]


@lr.cell
def folded(x: lr.Input, h: lr.State, v: lr.Vector, s: lr.Scalar):
    """Four terms, two of which read the past, a named line, an addend around all of it, lags and learned numbers."""
    kept = maximum(h[t - 1] + v, x[t - 1])
    h[t] = maximum(maximum(kept, tanh(x[t])), h[t - 1] - x[t]) + s
    return h[t] * kept


@lr.cell
def picked(x: lr.Input, y: lr.Input, h: lr.State = lr.State(init=-sp.oo)):
    """Conditions choose between both operands, the past alone, and the rest alone; beneath a sum they stand as well."""
    step = where(x[t] > 0.5, h[t - 1], where(x[t] < -0.5, y[t], maximum(h[t - 1] + x[t], y[t])))
    h[t] = maximum(step, where(y[t] > 0, h[t - 1] - 1, y[t - 1] - 3)) - y[t] / 4
    return h[t]


@lr.cell
def mixture(x: lr.Input, y: lr.Input, v: lr.Vector, h: lr.State = lr.State(init=-math.inf)):
    """As `picked` for sums of exponentials."""
    step = where(x[t] > 0.5, h[t - 1] + v, where(x[t] < -0.5, y[t], logaddexp(h[t - 1] + x[t], y[t])))
    h[t] = logaddexp(step, where(y[t] > 0, h[t - 1] - 1, y[t - 1])) - log(2 + x[t] ** 2)
    return h[t]


@lr.cell
def levels(x: lr.Input, hi: lr.State = lr.State(init=-sp.oo), lo: lr.State = lr.State(init=sp.oo), z: lr.State = lr.State()):
    """Strata of three algebras: a running range, and an average whose weight it gives."""
    hi[t] = maximum(hi[t - 1] - 0.25, x[t])
    lo[t] = minimum(lo[t - 1] + 0.25, x[t])
    z[t] = sigmoid(hi[t] - lo[t]) * z[t - 1] + exp(hi[t - 1] - hi[t]) * x[t] + exp(lo[t] - lo[t - 1])
    return z[t], hi[t]


@lr.cell
def mapped(x: lr.Input, forget: lr.Affine, enter: lr.Affine, look: lr.Affine, m: lr.State = lr.State(init=0.5),
           c: lr.State = lr.State()):
    """A maximum of dense maps, which a dense map reads in turn."""
    m[t] = maximum(m[t - 1] - softplus(-forget(x[t])), enter(x[t]))
    c[t] = sigmoid(look(m[t - 1])) * c[t - 1] + m[t]
    return c[t]


CELLS = {c.name: c for c in (longest, cheapest, evidence, cummax, cummin, logcumsumexp, folded, picked, mixture, levels,
                             mapped)}
