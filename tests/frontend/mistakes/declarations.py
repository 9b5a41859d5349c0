"""Signatures, options and outputs that cannot be understood, or are not built yet."""

import math

import lrdsl as lr
from lrdsl import t
from lrdsl.errors import BadDeclaration, UnsupportedFunction

from . import Cases

mistake = Cases({})


@mistake(BadDeclaration)
def no_annotation():
    @lr.cell
    def c(x, h: lr.State):  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration, BadDeclaration)
def annotations_of_other_kinds():
    @lr.cell
    def c(x: int, h: "list[float]"):  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration)
def an_annotation_that_is_not_defined():
    @lr.cell
    def c(x: "Inptu", h: lr.State):  # noqa: F821  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration)
def an_annotation_that_lrdsl_has_not():
    @lr.cell
    def c(x: "lr.Sequence", h: lr.State):  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration)
def an_annotation_in_prose():
    @lr.cell
    def c(x: "the sequence", h: lr.State):  # noqa: F722  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration)
def a_number_as_default():
    @lr.cell
    def c(x: lr.Input, h: lr.State = 0.0):  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration)
def a_hyperparameter():
    @lr.cell
    def c(x: lr.Input, h: lr.State, order=2):  # <-
        h[t] = h[t - order] + x[t]
        return h[t]


@mistake(BadDeclaration)
def two_kinds_for_one_name():
    @lr.cell
    def c(x: lr.Input, h: lr.Input = lr.State(init=1.0)):  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration, BadDeclaration)
def gathered_names():
    @lr.cell
    def c(x: lr.Input, h: lr.State, *more: lr.Input, **others: lr.State):  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration)
def no_input():
    @lr.cell
    def c(h: lr.State, v: lr.Vector):  # <-
        h[t] = v * h[t - 1]
        return h[t]


@mistake(BadDeclaration)
def no_return():
    @lr.cell
    def c(x: lr.Input, h: lr.State):  # <-
        h[t] = h[t - 1] + x[t]


@mistake(BadDeclaration)
def a_return_in_a_function_inside_only():
    @lr.cell
    def c(x: lr.Input, h: lr.State):  # <-
        def twice(z):
            return 2 * z
        h[t] = h[t - 1] + twice(x[t])


@mistake(BadDeclaration)
def nothing_returned():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t]
        return ()  # <-


@mistake(BadDeclaration)
def returned_twice():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t]
        return h[t], x[t], h[t]  # <-


@mistake(BadDeclaration)
def an_output_named_by_a_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t]
        return {1: h[t]}  # <-


@mistake(UnsupportedFunction)
def a_name_returned():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t]
        return "h"  # <-


@mistake(BadDeclaration)
def a_lambda():
    lr.cell(lambda x=lr.Input(): x[t])  # <-


@mistake(BadDeclaration)
def a_generator():
    @lr.cell  # <-
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t]
        yield h[t]


@mistake(BadDeclaration)
def a_coroutine():
    @lr.cell  # <-
    async def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration)
def a_class():
    lr.cell(dict)  # <-


@mistake(BadDeclaration)
def a_size_that_is_no_size():
    lr.Input(size="large")  # <-


@mistake(BadDeclaration)
def an_initial_value_that_is_no_number():
    lr.State(init="zeros")  # <-


@mistake(BadDeclaration)
def an_initial_value_that_is_no_value():
    lr.State(init=math.nan)  # <-


@mistake(BadDeclaration)
def a_bias_that_is_no_bias():
    lr.Affine(bias="ones")  # <-


@mistake(BadDeclaration)
def weights_that_are_no_weights():
    lr.Affine(init="orthogonal")  # <-


@mistake(BadDeclaration)
def a_vector_that_starts_nowhere():
    lr.Vector(init=[1.0, 2.0])  # <-


@mistake(BadDeclaration)
def an_input_with_an_axis_of_nothing():
    lr.Input(axis=0)  # <-


@mistake(BadDeclaration)
def a_complex_initial_value():
    lr.State(init=1j)  # <-


@mistake(BadDeclaration)
def a_state_with_a_strange_size():
    @lr.cell
    def c(x: lr.Input, *, h: lr.State = lr.State(size="all")):  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadDeclaration)
def an_infinite_complex_initial_value():
    lr.State(init=complex(0, math.inf), complex=True)  # <-


@mistake(BadDeclaration)
def an_infinite_initial_value_to_learn():
    lr.State(init=-math.inf, learned=True)  # <-


@mistake(BadDeclaration)
def a_map_to_half_an_axis():
    lr.Affine(axis=2.5)  # <-


@mistake(BadDeclaration)
def a_complex_bias():
    lr.Affine(bias=1j)  # <-


@mistake(BadDeclaration)
def a_vector_whose_size_is_a_truth():
    lr.Vector(size=True)  # <-


@mistake(BadDeclaration)
def a_complex_start():
    lr.Scalar(init=1 + 1j)  # <-
