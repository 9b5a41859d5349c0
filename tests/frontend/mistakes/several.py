"""Several mistakes in one cell: all of them at once, in the order of the lines, without those that only follow."""
# ruff: noqa: F821

import math

import lrdsl as lr
from lrdsl import sigmoid, t
from lrdsl.errors import BadLag, BranchOnSymbol, DuplicateUpdate, UnknownName, UnsupportedFunction

from . import Cases

mistake = Cases({})


@mistake(UnknownName, UnsupportedFunction, BadLag, DuplicateUpdate)
def one_a_line():
    @lr.cell
    def c(x: lr.Input, h: lr.State, unread: lr.Vector):
        g = sigmod(x[t])  # <-
        y = x[t] ** 0.3  # <-
        z = x[2 * t]  # <-
        h[t] = 0.5 * h[t - 1] + x[t]
        h[t] = x[t]  # <-
        return g + y + z + h[t]


@mistake(UnknownName)
def what_follows_from_a_mistake_is_not_reported():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        f, i = sigmoid(forgot(x[t])), x[t]  # <-
        kept = f * h[t - 1]
        h[t] = kept + i
        return kept * h[t]


@mistake(UnknownName, BranchOnSymbol)
def in_both_halves_of_an_if():
    deep = True

    @lr.cell
    def c(x: lr.Input, h: lr.State):
        y = x[t]
        if deep:
            y = zebra * x[t]  # <-
            if y > 0:  # <-
                y = 0
        h[t] = h[t - 1] + y
        return h[t]


@mistake(UnsupportedFunction)
def a_loop_is_reported_once():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        y = 0
        for k in range(4):
            y += math.sin(x[t - k])  # <-
        h[t] = h[t - 1] + y
        return h[t]


@mistake(UnknownName)
def a_loop_that_a_mistake_would_never_end():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        k = 0
        while k < 3:
            k = k + step  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(UnknownName)
def a_function_inside_is_reported_once():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        def squash(z):
            y = sigmod(z)  # <-
            return y
        h[t] = squash(x[t]) * h[t - 1] + x[t]
        return h[t]
