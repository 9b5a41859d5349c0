"""Functions, powers and numbers that have no meaning in a cell."""

import math

import numpy as np
import sympy
import torch

import lrdsl as lr
from lrdsl import t, tanh
from lrdsl.errors import BadDeclaration, ShapeMismatch, UnsupportedFunction

from . import Cases

mistake = Cases({})


@mistake(UnsupportedFunction)
def sympys_tanh():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + sympy.tanh(x[t])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def sympys_piecewise():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + sympy.Piecewise((x[t], x[t] > 0), (0, True))  # <-
        return h[t]


@mistake(UnsupportedFunction)
def sympys_gamma():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + sympy.gamma(x[t])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def sympys_own_symbol():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + sympy.Symbol("q") * x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def math_sin_of_a_sample():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + math.sin(x[t])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def numpys_tanh_of_a_sample():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + np.tanh(x[t])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def torchs_exp_of_a_sample():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + torch.exp(x[t])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def numpys_array():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + np.ones(3) * x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def float_of_a_sample():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + float(x[t])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def round_of_a_sample():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + round(x[t])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def remainder():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t] % 2  # <-
        return h[t]


@mistake(UnsupportedFunction)
def whole_division():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t] // 2  # <-
        return h[t]


@mistake(UnsupportedFunction)
def matrix_product():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t] @ x[t - 1]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_broken_power():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t] ** 0.3  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_moving_exponent():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + 2 ** x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def division_by_zero():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t] / sympy.Integer(0)  # <-
        return h[t]


@mistake(UnsupportedFunction)
def an_infinite_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + math.inf * x[t]  # <-
        return h[t]


@mistake(BadDeclaration)
def a_complex_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = 1j * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def text_as_a_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + tanh("x[t]")  # <-
        return h[t]


@mistake(UnsupportedFunction)
def adding_none():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + None  # <-
        return h[t]


@mistake(UnsupportedFunction)
def too_many_arguments():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + tanh(x[t], 2)  # <-
        return h[t]


@mistake(ShapeMismatch)
def a_sum_of_one_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + lr.sum(x[t])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def the_imaginary_part_of_a_real_value():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + lr.im(x[t])  # <-
        return h[t]


def helper(z):
    return sympy.gamma(z)


@mistake(UnsupportedFunction)
def a_helpers_value():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + helper(x[t])  # <-
        return h[t]


def broken_helper(z):
    return math.sin(z)  # <-


@mistake(UnsupportedFunction)
def a_line_of_a_helper():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + broken_helper(x[t])
        return h[t]


@mistake(UnsupportedFunction)
def a_line_in_the_middle_of_a_statement():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = (
            h[t - 1]
            + math.cos(x[t])  # <-
            + x[t - 1]
        )
        return h[t]
