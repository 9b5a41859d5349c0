"""Names: unknown, unused, without an equation, with two."""
# ruff: noqa: F821, F823, F841

import lrdsl as lr
from lrdsl import sigmoid, t
from lrdsl.errors import BadDeclaration, DuplicateUpdate, NoUpdate, UnknownName, UnsupportedFunction, UnusedName

from . import Cases

mistake = Cases({})


@mistake(UnknownName)
def almost_a_name_of_the_signature():
    @lr.cell
    def c(x: lr.Input, h: lr.State, forget: lr.Affine):
        h[t] = sigmoid(forgot(x[t])) * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnknownName)
def almost_a_line_of_the_body():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        gate = sigmoid(x[t])
        h[t] = gates * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnknownName)
def almost_a_function():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = sigmod(x[t]) * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnknownName)
def a_function_that_was_not_imported():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = softplus(x[t]) * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnknownName)
def like_no_other_name():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = decay * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnknownName)
def a_line_that_comes_later():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = g * h[t - 1] + x[t]  # <-
        g = sigmoid(x[t])
        return h[t] * g


@mistake(UnknownName)
def a_line_called_like_its_function():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        sigmoid = sigmoid(x[t])  # <-
        h[t] = sigmoid * h[t - 1] + x[t]
        return h[t]


@mistake(UnknownName)
def almost_a_function_of_lrdsl():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = lr.sofplus(x[t]) * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnknownName)
def a_function_that_lrdsl_has_not():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = lr.gamma(x[t]) * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnusedName, UnusedName, UnusedName, UnusedName)
def declared_for_nothing():
    @lr.cell
    def c(
        x: lr.Input,
        u: lr.Input,  # <-
        h: lr.State,
        gate: lr.Affine,  # <-
        v: lr.Vector,  # <-
        s: lr.Scalar,  # <-
    ):
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(UnusedName)
def used_only_by_a_line_that_nothing_needs():
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine):  # <-
        g = sigmoid(gate(x[t]))
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(UnusedName)
def a_state_that_nothing_reads():
    @lr.cell
    def c(x: lr.Input, h: lr.State, k: lr.State):  # <-
        h[t] = h[t - 1] + x[t]
        k[t] = h[t] * 2
        return h[t]


@mistake(NoUpdate)
def a_state_without_an_equation():
    @lr.cell
    def c(x: lr.Input, h: lr.State, c: lr.State):  # <-
        h[t] = h[t - 1] + c[t - 1] * x[t]
        return h[t]


@mistake(BadDeclaration)
def a_state_that_is_assigned_and_not_set():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h = h[t - 1] + x[t]  # <-
        return h


@mistake(DuplicateUpdate)
def a_state_that_is_set_twice():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = x[t] * h[t - 1]
        h[t] = h[t - 1] + x[t]  # <-
        return h[t]


@mistake(DuplicateUpdate)
def a_state_that_is_added_to():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = 0.5 * h[t - 1]
        h[t] += x[t]  # <-
        return h[t]


@mistake(BadDeclaration)
def an_input_that_is_set():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        x[t] = 2  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration)
def a_map_that_is_set():
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine):
        gate[t] = 2  # <-
        h[t] = h[t - 1] + gate(x[t])
        return h[t]


@mistake(UnsupportedFunction)
def a_vector_that_is_set():
    @lr.cell
    def c(x: lr.Input, h: lr.State, v: lr.Vector):
        v[t] = 2  # <-
        h[t] = h[t - 1] + v * x[t]
        return h[t]
