"""Masks, first steps, maps that skip and maps of a size of their own, misused."""

import lrdsl as lr
from lrdsl import sigmoid, t, tanh
from lrdsl.errors import BadDeclaration, BadLag, NotBuilt, ShapeMismatch, UnsupportedFunction, UnusedName

from . import Cases

mistake = Cases({})


@mistake(BadDeclaration)
def a_map_to_no_size():
    lr.Affine(size=0)  # <-


@mistake(BadDeclaration)
def a_map_to_a_size_of_another_name():
    lr.Affine(size="output")  # <-


@mistake(NotBuilt)
def a_map_to_another_size_that_skips():
    lr.Affine(size=16, skip=True)  # <-


@mistake(ShapeMismatch)
def a_map_that_skips_two_operands():
    @lr.cell
    def c(x: lr.Input, h: lr.State, skip: lr.Affine = lr.Affine(skip=True)):
        h[t] = 0.5 * h[t - 1] + skip(x[t], x[t - 1])  # <-
        return h[t]


@mistake(ShapeMismatch)
def a_map_of_its_own_size_read_channel_by_channel():
    @lr.cell
    def c(x: lr.Input, h: lr.State, down: lr.Affine = lr.Affine(size=16)):
        h[t] = 0.5 * h[t - 1] + down(x[t])  # <-
        return h[t]


@mistake(ShapeMismatch)
def a_function_of_a_map_as_wide_as_the_input():
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine, down: lr.Affine = lr.Affine(size="input")):
        h[t] = sigmoid(gate(tanh(down(x[t])))) * h[t - 1] + 1  # <-
        return h[t]


@lr.cell
def coded(x: lr.Input, h: lr.State, gate: lr.Affine, down: lr.Affine = lr.Affine(size=3)):
    h[t] = sigmoid(gate(x[t])) * h[t - 1] + 1
    return down(h[t])


@mistake(ShapeMismatch)
def a_surrogate_of_another_size_read_through_a_function():
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine):
        h[t] = sigmoid(gate(x[t], tanh(h[t - 1])))  # <-
        return h[t]

    lr.surrogate(c, h=coded)


@mistake(BadDeclaration)
def a_mask_with_no_chance():
    @lr.cell
    def c(x: lr.Input, h: lr.State, m: lr.Mask = lr.Mask(p=1.5)):  # <-
        h[t] = h[t - 1] + m[t] * x[t]
        return h[t]


@mistake(UnusedName)
def a_mask_that_nothing_needs():
    @lr.cell
    def c(x: lr.Input, h: lr.State, m: lr.Mask):  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadLag)
def a_mask_of_the_step_before():
    @lr.cell
    def c(x: lr.Input, h: lr.State, m: lr.Mask):
        h[t] = h[t - 1] + m[t - 1] * x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_mask_as_a_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State, m: lr.Mask):
        h[t] = h[t - 1] + m * x[t]  # <-
        return h[t]


@mistake(BadDeclaration)
def a_mask_that_is_set():
    @lr.cell
    def c(x: lr.Input, h: lr.State, m: lr.Mask):
        m[t] = x[t]  # <-
        h[t] = h[t - 1] + m[t] * x[t]
        return h[t]


@mistake(BadLag)
def the_second_step():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + lr.first[t - 1] * x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def first_as_a_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + lr.first * x[t]  # <-
        return h[t]
