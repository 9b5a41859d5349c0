"""Time indices that are not `t` plus a constant integer."""

import lrdsl as lr
from lrdsl import t, tanh
from lrdsl.errors import BadLag

from . import Cases

mistake = Cases({})


@mistake(BadLag)
def a_multiple_of_t():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[2 * t]  # <-
        return h[t]


@mistake(BadLag)
def minus_t():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[-t]  # <-
        return h[t]


@mistake(BadLag)
def from_the_end():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[9 - t]  # <-
        return h[t]


@mistake(BadLag)
def a_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[0]  # <-
        return h[t]


@mistake(BadLag)
def another_name():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        k = 1.5
        h[t] = h[t - 1] + x[k]  # <-
        return h[t]


@mistake(BadLag)
def a_broken_lag():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t - 0.5]  # <-
        return h[t]


@mistake(BadLag)
def a_sample_as_a_lag():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t - x[t]]  # <-
        return h[t]


@mistake(BadLag)
def a_truth_as_a_lag():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t - True]  # <-
        return h[t]


@mistake(BadLag)
def a_slice():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t - 2:t]  # <-
        return h[t]


@mistake(BadLag)
def two_indices():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t, 0]  # <-
        return h[t]


@mistake(BadLag)
def the_step_after_is_set():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t + 1] = h[t] + x[t]  # <-
        return h[t]


@mistake(BadLag)
def a_fixed_step_is_set():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[0] = 1  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BadLag)
def t_as_a_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + t * x[t]  # <-
        return h[t]


@mistake(BadLag)
def t_in_a_function():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + tanh(t) * x[t]  # <-
        return h[t]
