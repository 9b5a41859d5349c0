"""Complex values where real ones are wanted, and functions that have no complex values."""

import lrdsl as lr
from lrdsl import re, sigmoid, t
from lrdsl.errors import BadDeclaration, NotLinear, UnsupportedFunction
from lrdsl.passes.realify import realify

from . import Cases
from . import run as run_real

mistake = Cases({})


def run(cell: lr.Cell) -> None:
    run_real(lr.Cell(realify(cell.spec)))


@mistake(BadDeclaration)
def a_complex_value_for_a_real_state():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        turned = lr.exp(1j * x[t])
        h[t] = turned * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction, UnsupportedFunction, UnsupportedFunction, UnsupportedFunction, UnsupportedFunction)
def functions_without_complex_values():
    @lr.cell
    def c(z: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True)):
        sigmoid(z[t])  # <-
        lr.maximum(lr.abs(z[t]), z[t])  # <-
        lr.equal(z[t], 1)  # <-
        lr.expm1(z[t])  # <-
        h[t] = lr.sqrt(z[t]) * h[t - 1]  # <-
        return h[t]


@mistake(UnsupportedFunction, UnsupportedFunction, UnsupportedFunction)
def comparisons():
    @lr.cell
    def c(z: lr.Input = lr.Input(complex=True), x: lr.Input = lr.Input(), h: lr.State = lr.State(complex=True)):
        lr.where(z[t] > 0, x[t], 0)  # <-
        lr.where(1j * x[t] <= 1, x[t], 0)  # <-
        h[t] = h[t - 1] / 2 + lr.where(z[t], 1, 0)  # <-
        return h[t]


@mistake(UnsupportedFunction, UnsupportedFunction)
def powers():
    @lr.cell
    def c(x: lr.Input, y: lr.State, h: lr.State, z: lr.Input = lr.Input(complex=True)):
        y[t] = y[t - 1] / 2 + lr.re(z[t] ** 0.5)  # <-
        h[t] = h[t - 1] / 2 + lr.re(x[t] ** 1j)  # <-
        return y[t] + h[t]


@mistake(UnsupportedFunction, UnsupportedFunction, UnsupportedFunction)
def attributes_of_numbers():
    @lr.cell
    def c(g: lr.State, z: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True)):
        turned = z[t].conj()  # <-
        g[t] = z[t].real * g[t - 1]  # <-
        h[t] = h[t - 1] / 2 + z[t].conjugate()  # <-
        return h[t] * turned


@mistake(NotLinear)
def a_modulus_of_the_state():
    @lr.cell
    def c(x: lr.Input, h: lr.State = lr.State(complex=True)):
        gain = lr.abs(h[t - 1])  # <-
        h[t] = gain * h[t - 1] + 1j * x[t]
        return re(h[t])
    run(c)


@mistake(NotLinear)
def a_complex_state_through_a_map():
    @lr.cell
    def c(x: lr.Input, h: lr.State = lr.State(complex=True), W: lr.Affine = lr.Affine(complex=True)):
        h[t] = W(h[t - 1]) + x[t]  # <-
        return re(h[t])
    run(c)


@mistake(NotLinear)
def three_complex_states():
    @lr.cell
    def c(x: lr.Input, a: lr.State = lr.State(complex=True), b: lr.State = lr.State(complex=True),
          d: lr.State = lr.State(complex=True)):
        a[t] = 1j * b[t - 1] + x[t]  # <-
        b[t] = 1j * d[t - 1]
        d[t] = 1j * a[t - 1]
        return re(a[t])
    run(c)


@mistake(UnsupportedFunction)
def a_map_of_a_constant_part():
    @lr.cell
    def c(x: lr.Input, h: lr.State, W: lr.Affine):
        h[t] = h[t - 1] / 2 + re(W(x[t] + 1j))  # <-
        return h[t]
    run(c)


@mistake(BadDeclaration)
def a_real_surrogate_of_a_complex_state():
    @lr.cell
    def c(x: lr.Input, h: lr.State = lr.State(complex=True), W: lr.Affine = lr.Affine(complex=True)):
        h[t] = W(x[t], h[t - 1])
        return re(h[t])
    lr.surrogate(c, h=lr.cells.gilr)  # <-


@mistake(BadDeclaration)
def an_input_that_the_surrogate_takes_for_real():
    @lr.cell
    def c(x: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(), W: lr.Affine = lr.Affine()):
        h[t] = re(W(x[t], h[t - 1]))
        return h[t]
    lr.surrogate(c, h=lr.cells.gilr)  # <-
