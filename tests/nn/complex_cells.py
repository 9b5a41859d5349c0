"""Cells of complex values, for the tests of this directory and of others."""

import lrdsl as lr
from lrdsl import conjugate, cos, detach, exp, im, re, sigmoid, sin, t, tanh, where


@lr.cell
def lru(x: lr.Input, h: lr.State = lr.State(complex=True), nu: lr.Vector = lr.Vector(init=-1.0), theta: lr.Vector = lr.Vector(),
        gamma: lr.Vector = lr.Vector(), B: lr.Affine = lr.Affine(complex=True, bias=False),
        C: lr.Affine = lr.Affine(complex=True, bias=False), D: lr.Affine = lr.Affine(bias=False)):
    """The linear recurrent unit (Orvieto et al. 2023, arXiv 2303.06349)."""
    lam = exp(-exp(nu) + 1j * exp(theta))
    h[t] = lam * h[t - 1] + exp(gamma) * B(x[t])
    return re(C(h[t])) + D(x[t])


@lr.cell
def gated(a: lr.Input = lr.Input(complex=True), b: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True)):
    """A complex gate a step."""
    h[t] = a[t] * h[t - 1] + b[t]
    return h[t]


@lr.cell
def second(a: lr.Input = lr.Input(complex=True), b: lr.Input = lr.Input(complex=True), v: lr.Vector = lr.Vector(complex=True),
           y: lr.State = lr.State(init=0.5 - 0.25j, complex=True)):
    """Order two, with a window of a conjugate and an initial value."""
    y[t] = a[t] * y[t - 1] + v * y[t - 2] + conjugate(b[t - 1]) * re(b[t])
    return y[t]


@lr.cell
def crossed(x: lr.Input = lr.Input(complex=True), s: lr.Scalar = lr.Scalar(complex=True), u: lr.Input = lr.Input(),
            h: lr.State = lr.State(complex=True), m: lr.State = lr.State()):
    """A state and its conjugate; a real state beside it, bent by it, in a stratum of its own; real parts read at lags."""
    h[t] = (0.5 + 0.25j) * h[t - 1] - s * conjugate(h[t - 1]) / 4 + x[t] * 1j
    m[t] = sigmoid(abs(h[t - 1])) * m[t - 1] + im(h[t - 3]) * u[t]
    return {"h": h[t], "m": m[t], "both": m[t] * h[t], "back": re(x[t - 2])}


@lr.cell
def every(z: lr.Input = lr.Input(complex=True), w: lr.Input = lr.Input(complex=True), x: lr.Input = lr.Input(),
          v: lr.Vector = lr.Vector(complex=True), h: lr.State = lr.State(complex=True)):
    """Every function that has complex values, products, quotients and powers."""
    far = z[t] / (w[t] - 3) + 1 / (2 + z[t] * conjugate(z[t])) + x[t] / (v + 2j)
    bent = sin(z[t]) * cos(w[t]) + exp(z[t] * v) - where(x[t] > 0, z[t], x[t])
    whole = (1j * z[t]) ** 3 + (z[t] - w[t]) ** 6 / 64 + (w[t] + 3) ** -2 + 2 * z[t] ** 2
    h[t] = far * h[t - 1] / 4 + bent
    return h[t], whole, lr.abs(z[t] * w[t]) + tanh(re(far)) + abs(im(bent)) + lr.abs(3 - 4j) * x[t], detach(z[t]) * w[t]


@lr.cell
def ahead(z: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True, init=1j), c: lr.Scalar = lr.Scalar()):
    """From the right, with an input that is read on both sides."""
    h[t] = c * h[t + 1] * 1j + z[t + 1] - conjugate(z[t - 2])
    return h[t]


@lr.cell
def mixed(z: lr.Input = lr.Input(complex=True), W: lr.Affine = lr.Affine(complex=True), G: lr.Affine = lr.Affine(bias=0.5),
          K: lr.Affine = lr.Affine(), gate: lr.Affine = lr.Affine(), v: lr.Vector = lr.Vector(complex=True),
          out: lr.Affine = lr.Affine(complex=True),
          h: lr.State = lr.State(complex=True, learned=True, init=0.25 + 0.5j), r: lr.State = lr.State(init=1.0)):
    """Complex and real maps of complex, real and imaginary operands and of windows; a learned complex initial state."""
    r[t] = sigmoid(gate(re(G(z[t])))) * r[t - 1] + 1
    h[t] = v * h[t - 1] + W(z[t], z[t - 1]) * sigmoid(re(G(z[t]))) + K(1j * re(W(z[t - 1], z[t])))
    return out(h[t] * r[t - 1], r[t]), h[t]


@lr.cell
def tall(x: lr.Input = lr.Input(size=5, complex=True), h: lr.State = lr.State(complex=True),
         gate: lr.Affine = lr.Affine(complex=True), W: lr.Affine = lr.Affine(complex=True, bias=1 - 1j)):
    """A recurrent layer, complex in and out, and of a gate with modulus below 1."""
    g = gate(x[t])
    h[t] = g * sigmoid(-lr.abs(g)) * h[t - 1] + W(x[t])
    return h[t] / (1 + lr.abs(h[t]))


@lr.cell
def layered(x: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True),
            gate: lr.Affine = lr.Affine(complex=True), W: lr.Affine = lr.Affine(complex=True, bias=1 - 1j)):
    """As `tall`, for layers on top of each other."""
    g = gate(x[t])
    h[t] = g * sigmoid(-lr.abs(g)) * h[t - 1] + W(x[t])
    return h[t] / (1 + lr.abs(h[t]))


@lr.cell
def modreal(x: lr.Input, h: lr.State, f: lr.Affine):
    """A cell of real values with a complex line inside."""
    z = exp(1j * f(x[t]))
    h[t] = sigmoid(re(z)) * h[t - 1] + im(z)
    return h[t]


@lr.cell
def turning(x: lr.Input = lr.Input(complex=True), s: lr.State = lr.State(complex=True), W: lr.Affine = lr.Affine(complex=True),
            v: lr.Vector = lr.Vector(init=0.5 + 0.5j, complex=True)):
    """A linear recurrence of a map, to stand for another cell's state."""
    s[t] = v * s[t - 1] + W(x[t])
    return s[t]


@lr.cell
def fed_back(x: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True),
             gate: lr.Affine = lr.Affine(complex=True), c: lr.State = lr.State(complex=True), W: lr.Affine = lr.Affine()):
    """Not linear, for its maps read h."""
    g = gate(x[t], h[t - 1])
    c[t] = g / (1 + lr.abs(g)) * c[t - 1] + W(conjugate(h[t - 1]), x[t])
    h[t] = c[t] / (1 + lr.abs(c[t]))
    return h[t]


stood_for = lr.surrogate(fed_back, h=turning)


@lr.cell
def squeezed(x: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True, init=0.5j),
             down: lr.Affine = lr.Affine(size=2, complex=True), wide: lr.Affine = lr.Affine(complex=True),
             pinch: lr.Affine = lr.Affine(size=2, complex=True, bias=False), up: lr.Affine = lr.Affine(complex=True),
             flat: lr.Affine = lr.Affine(size=3, bias=0.5), back: lr.Affine = lr.Affine(size="input", complex=True, bias=1j)):
    """Maps with a size of their own: complex ones of windows, of real and of imaginary operands; a real one of complex ones."""
    w = wide(x[t])
    h[t] = 0.5j * h[t - 1] + up(down(x[t], x[t - 1])) + up(pinch(conjugate(w), 1j * re(w)))
    return back(h[t]), flat(h[t - 1]), flat(1j * im(h[t])), pinch(re(h[t]), 1j * im(h[t - 1]))


FUNCTIONS = (gated, second, crossed, every, ahead)
MODULES = (lru, mixed, tall, layered, modreal, stood_for, squeezed)
