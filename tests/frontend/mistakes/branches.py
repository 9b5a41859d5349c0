"""Python's own questions of truth, put to values that are known only when the cell runs."""

import lrdsl as lr
from lrdsl import equal, t, where
from lrdsl.errors import BranchOnSymbol, UnsupportedFunction

from . import Cases

mistake = Cases({})


@mistake(BranchOnSymbol)
def an_if():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        if x[t] > 0:  # <-
            y = x[t]
        else:
            y = 0
        h[t] = h[t - 1] + y
        return h[t]


@mistake(BranchOnSymbol)
def an_if_on_a_sample():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        y = 1
        if x[t]:  # <-
            y = 2
        h[t] = h[t - 1] + y
        return h[t]


@mistake(BranchOnSymbol)
def an_if_on_equality():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        y = 1
        if x[t] == 1:  # <-
            y = 2
        h[t] = h[t - 1] + y
        return h[t]


@mistake(BranchOnSymbol)
def a_conditional_expression():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + (x[t] if x[t] > 0 else 0)  # <-
        return h[t]


@mistake(BranchOnSymbol)
def a_conditional_expression_on_a_sample():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + (1 if x[t] else 0)  # <-
        return h[t]


@mistake(BranchOnSymbol)
def a_while():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        y = x[t]
        while y < 3:  # <-
            y = y + x[t]
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BranchOnSymbol)
def an_assertion():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        assert x[t] > 0  # <-
        h[t] = h[t - 1] + x[t]
        return h[t]


@mistake(BranchOnSymbol)
def a_filter():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        y = [v for v in (x[t], x[t - 1]) if v > 0]  # <-
        h[t] = h[t - 1] + y[0]
        return h[t]


@mistake(BranchOnSymbol)
def and_between_conditions():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + where(x[t] > 0 and x[t] < 1, x[t], 0)  # <-
        return h[t]


@mistake(BranchOnSymbol)
def or_between_samples():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + (x[t] or 1)  # <-
        return h[t]


@mistake(BranchOnSymbol)
def not_before_a_condition():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + where(not x[t] > 0, x[t], 0)  # <-
        return h[t]


@mistake(BranchOnSymbol)
def a_chain_of_comparisons():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + where(0 < x[t] < 1, x[t], 0)  # <-
        return h[t]


@mistake(BranchOnSymbol)
def where_of_equality():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + where(x[t] == 1, x[t], 0)  # <-
        return h[t]


@mistake(BranchOnSymbol)
def where_of_inequality():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + where(x[t] != 1, x[t], 0)  # <-
        return h[t]


@mistake(UnsupportedFunction)
def where_of_a_python_truth():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + where(x is h, x[t], 0)  # <-
        return h[t]


@mistake(BranchOnSymbol)
def pythons_min():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + min(x[t], 1)  # <-
        return h[t]


@mistake(BranchOnSymbol)
def pythons_max():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + max(x[t], x[t - 1])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_condition_as_a_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + (x[t] > 1) * x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_condition_in_a_function():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + lr.exp(x[t] > 1)  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_condition_returned():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t] * equal(x[t], 1)
        return h[t] > 0  # <-
