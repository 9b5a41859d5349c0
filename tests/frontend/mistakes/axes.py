"""Mistakes with a state axis."""

from __future__ import annotations

import lrdsl as lr
from lrdsl import exp, t
from lrdsl.errors import BadDeclaration, NotBuilt, NotLinear, ShapeMismatch

from . import Cases, run

mistake = Cases({})


@mistake(NotBuilt)
def two_axes():
    @lr.cell
    def c(x: lr.Input, *, h: lr.State = lr.State(size=4), A: lr.Vector = lr.Vector(size=4),
          B: lr.Affine = lr.Affine(axis=3)):  # <-
        h[t] = exp(-A) * h[t - 1] + B(x[t])
        return lr.sum(h[t])


@mistake(NotBuilt)
def an_axis_that_is_too_long():
    lr.State(size=1000)  # <-


@mistake(BadDeclaration)
def an_input_with_features_and_an_axis():
    lr.Input(size=3, axis=4)  # <-


@mistake(ShapeMismatch)
def an_output_with_an_axis():
    @lr.cell
    def c(x: lr.Input, A: lr.Vector, h: lr.State = lr.State(size=4)):
        h[t] = A * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(ShapeMismatch)
def a_state_that_is_too_narrow():
    @lr.cell
    def c(x: lr.Input, h: lr.State, A: lr.Vector = lr.Vector(size=4)):
        h[t] = A * h[t - 1] + x[t]  # <-
        return lr.sum(A * x[t])


@mistake(ShapeMismatch)
def a_sum_over_no_axis():
    @lr.cell
    def c(x: lr.Input, h: lr.State, A: lr.Vector):
        h[t] = A * h[t - 1] + lr.sum(x[t] * A)  # <-
        return h[t]


@mistake(ShapeMismatch)
def a_map_of_an_axis():
    @lr.cell
    def c(x: lr.Input, A: lr.Vector, out: lr.Affine, h: lr.State = lr.State(size=4)):
        h[t] = A * h[t - 1] + x[t]
        return out(h[t])  # <-


@mistake(NotLinear)
def numbers_that_are_mixed():
    @lr.cell
    def c(x: lr.Input, A: lr.Vector, h: lr.State = lr.State(size=4)):
        h[t] = A * lr.sum(h[t - 1]) + x[t]  # <-
        return lr.sum(h[t])
    run(c)


@mistake(NotBuilt)
def no_channels_at_all():
    @lr.cell
    def c(x: lr.Input = lr.Input(axis=4), h: lr.State = lr.State(size=4)):  # <-
        h[t] = 0.5 * h[t - 1] + x[t]
        return lr.sum(h[t])
    run(c)


@mistake(NotBuilt)
def a_surrogate_with_another_axis():
    @lr.cell
    def inner(x: lr.Input, h: lr.State = lr.State(size=3)):  # <-
        h[t] = 0.5 * h[t - 1] + x[t]
        return lr.sum(h[t])

    @lr.cell
    def outer(x: lr.Input, c: lr.State, gate: lr.Affine, B: lr.Affine = lr.Affine(axis=4)):
        c[t] = lr.sum(B(x[t])) * c[t - 1] + gate(x[t], c[t - 1])
        return c[t]
    lr.surrogate(outer, c=inner)


@mistake(BadDeclaration)
def a_map_of_features_and_an_axis():
    lr.Affine(size=3, axis=4)  # <-


@mistake(NotBuilt)
def a_map_to_an_axis_that_skips():
    lr.Affine(axis=4, skip=True)  # <-


@mistake(NotBuilt)
def a_map_that_may_stand_for_an_axis():
    @lr.cell
    def c(x: lr.Input, u: lr.Input = lr.Input(axis=4), h: lr.State = lr.State(size=4), m: lr.Affine = lr.Affine(skip=True)):
        h[t] = 0.5 * h[t - 1] + m(u[t]) * x[t]  # <-
        return lr.sum(h[t])


@mistake(ShapeMismatch)
def a_complex_sum_over_no_axis():
    @lr.cell
    def c(x: lr.Input, h: lr.State, *, v: lr.Vector = lr.Vector(complex=True)):
        h[t] = 0.5 * h[t - 1] + lr.re(lr.sum(v * x[t]))  # <-
        return h[t]


@mistake(ShapeMismatch)
def a_complex_output_with_an_axis():
    @lr.cell
    def c(x: lr.Input, h: lr.State = lr.State(size=4, complex=True)):
        h[t] = 0.5j * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(NotLinear)
def complex_numbers_that_are_mixed():
    @lr.cell
    def c(x: lr.Input, *, h: lr.State = lr.State(size=4, complex=True)):
        h[t] = 0.5 * lr.conjugate(lr.sum(h[t - 1])) + x[t]  # <-
        return lr.re(lr.sum(h[t]))
    run(c)


@mistake(NotLinear)
def a_maximum_that_is_mixed():
    @lr.cell
    def c(x: lr.Input, h: lr.State = lr.State(size=4)):
        h[t] = lr.maximum(lr.sum(h[t - 1]), x[t])  # <-
        return lr.sum(h[t])
    run(c)


@mistake(ShapeMismatch)
def a_maximum_that_is_too_narrow():
    @lr.cell
    def c(x: lr.Input, g: lr.State, A: lr.Vector = lr.Vector(size=4)):
        g[t] = lr.maximum(g[t - 1], A * x[t])  # <-
        return lr.sum(A * x[t])
