"""Cells that strain the text of a kernel: far reads, every function, names that the text uses itself."""

from __future__ import annotations

import lrdsl as lr
from lrdsl import sigmoid, t, tanh
from lrdsl.cells import linear_scan

from ..cells_for_tests import CELLS as SHARED


@lr.cell
def sru(x: lr.Input, c: lr.State, candidate: lr.Affine, forget: lr.Affine, leave: lr.Affine):
    """Highway SRU (Lei et al. 2018)."""
    f, r = sigmoid(forget(x[t])), sigmoid(leave(x[t]))
    c[t] = f * c[t - 1] + (1 - f) * candidate(x[t])
    return r * tanh(c[t]) + (1 - r) * x[t]


@lr.cell
def far(x: lr.Input, h: lr.State):
    h[t] = 0.5 * h[t - 1] + x[t - 11] * x[t + 3]
    return h[t] + h[t - 5]


@lr.cell
def functions(x: lr.Input, y: lr.Input, h: lr.State, v: lr.Vector):
    smooth = lr.silu(x[t]) + lr.gelu(y[t]) + lr.softplus(x[t]) + lr.expm1(y[t]) + lr.log1p(lr.exp(x[t])) + lr.cos(y[t])
    kinked = lr.relu(x[t]) + lr.maximum(x[t], v) - lr.minimum(x[t], y[t]) + lr.sqrt(1 + lr.abs(x[t]))
    h[t] = 0.9 * h[t - 1] + smooth + kinked * lr.logaddexp(x[t], y[t]) / (1 + x[t] ** 2) + lr.log(1 + y[t] ** 6)
    return h[t]


@lr.cell
def awkward(cross: lr.Input, T: lr.Input, ring: lr.State, zeros: lr.Vector, load: lr.Scalar):
    """Names that the text uses itself."""
    to_ring = sigmoid(cross[t - 1] * load)
    d_zeros_part = T[t] * zeros
    ring[t] = to_ring * ring[t - 1] + d_zeros_part
    return ring[t]


@lr.cell
def leaning(x: lr.Input, a: lr.State, b: lr.State):
    """A recurrence that may be replayed, and reads the past of a state that is read further back as well."""
    a[t] = sigmoid(x[t]) * a[t - 1] + x[t]
    b[t] = x[t] * b[t - 1] + a[t - 1]
    return b[t] + a[t - 2]


@lr.cell
def oscillator(x: lr.Input, w: lr.Input, r: lr.Input, u: lr.State, v: lr.State):
    """A damped rotation, whose modulus is seen to be at most 1."""
    d = sigmoid(r[t])
    c, s = d * lr.cos(w[t]), d * lr.sin(w[t])
    u[t] = c * u[t - 1] - s * v[t - 1] + x[t]
    v[t] = s * u[t - 1] + c * v[t - 1]
    return u[t]


@lr.cell
def weighted(x: lr.Input, w: lr.Input, k: lr.Input, num: lr.State, den: lr.State):
    """A weighted mean of the past: numerator and denominator decay alike."""
    f = sigmoid(w[t])
    weight = lr.exp(k[t])
    num[t] = f * num[t - 1] + weight * x[t]
    den[t] = f * den[t - 1] + weight
    return num[t], den[t]


@lr.cell
def order_four(x: lr.Input, y: lr.State, p: lr.Vector, q: lr.Vector, r: lr.Vector, s: lr.Scalar):
    """A recursive filter with constant coefficients."""
    y[t] = p * y[t - 1] + q * y[t - 2] + r * y[t - 3] + s * y[t - 4] + x[t]
    return y[t]


@lr.cell
def order_six(x: lr.Input, y: lr.State, p: lr.Scalar, q: lr.Vector):
    """As many constant coefficients as chunks take, two of them 0, and a sum of the state's own past."""
    y[t] = p * y[t - 1] + tanh(q) * y[t - 3] - y[t - 4] / 4 + p * q * y[t - 6] + x[t]
    return y[t] - y[t - 7]


@lr.cell
def gap(x: lr.Input, y: lr.State, z: lr.State):
    """A recurrence that reads the third step back alone, and lines that read the steps between."""
    y[t] = sigmoid(x[t]) * y[t - 3] + x[t]
    z[t] = sigmoid(x[t - 1]) * z[t - 2] + y[t - 1] * y[t - 2]
    return z[t] + z[t - 1]


@lr.cell
def pairs(x: lr.Input, w: lr.Input, a: lr.State, b: lr.State, p: lr.Vector):
    """A rotation of order two: pairs of numbers, two steps of them."""
    a[t] = sigmoid(w[t]) * a[t - 1] - p * b[t - 1] + x[t - 1] * a[t - 2] / 4
    b[t] = p * a[t - 1] + sigmoid(w[t]) * b[t - 1] + x[t - 1] * b[t - 2] / 4 + x[t]
    return a[t] * b[t], b[t - 3]


CELLS = {**SHARED, **{c.name: c for c in (linear_scan, sru, far, functions, awkward, leaning, oscillator, weighted, order_four,
                                         order_six, gap,
                                         pairs)}}
