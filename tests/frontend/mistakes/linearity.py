"""Cells that are written well and are no linear recurrence: refused where they are to run."""

import lrdsl as lr
from lrdsl import sigmoid, t, tanh, where
from lrdsl.errors import BothDirections, CyclicStates, NotLinear

from . import Cases, run

mistake = Cases({})


@mistake(NotLinear)
def lstm():
    run(lr.cells.lstm)


@mistake(NotLinear)
def gru():
    @lr.cell
    def gru(x: lr.Input, h: lr.State, update: lr.Affine, reset: lr.Affine, candidate: lr.Affine):
        z = sigmoid(update(x[t], h[t - 1]))  # <-
        r = sigmoid(reset(x[t], h[t - 1]))
        n = tanh(candidate(x[t], r * h[t - 1]))
        h[t] = (1 - z) * h[t - 1] + z * n
        return h[t]
    run(gru)


@mistake(NotLinear)
def two_states_through_one_map():
    @lr.cell
    def tied(x: lr.Input, a: lr.State, b: lr.State, W: lr.Affine):
        a[t] = tanh(W(x[t], b[t - 1]))  # <-
        b[t] = a[t] + b[t - 1]
        return a[t]
    run(tied)


@mistake(NotLinear)
def map_of_a_line():
    @lr.cell
    def hidden(x: lr.Input, h: lr.State, W: lr.Affine):
        y = 0.5 * h[t - 1] + x[t]
        h[t] = W(y)  # <-
        return h[t]
    run(hidden)


@mistake(NotLinear)
def a_state_times_itself():
    @lr.cell
    def logistic(x: lr.Input, h: lr.State):
        h[t] = x[t] * h[t - 1] * (1 - h[t - 1])  # <-
        return h[t]
    run(logistic)


@mistake(NotLinear)
def a_function_of_the_state():
    @lr.cell
    def plain(x: lr.Input, h: lr.State, v: lr.Vector):
        h[t] = tanh(v * h[t - 1] + x[t])  # <-
        return h[t]
    run(plain)


@mistake(NotLinear)
def a_condition_on_the_state():
    @lr.cell
    def switch(x: lr.Input, h: lr.State):
        h[t] = where((h[t - 1] > 0) & (x[t] > 0), x[t], 2 * x[t])  # <-
        return h[t]
    run(switch)


@mistake(NotLinear)
def a_bend_in_a_named_line():
    @lr.cell
    def clipped(x: lr.Input, h: lr.State):
        kept = abs(h[t - 1])  # <-
        h[t] = kept + x[t]
        return h[t]
    run(clipped)


@mistake(NotLinear)
def a_map_of_the_state_now():
    @lr.cell
    def late(x: lr.Input, h: lr.State, c: lr.State, gate: lr.Affine):
        c[t] = sigmoid(gate(h[t])) * c[t - 1]  # <-
        h[t] = c[t - 1] + x[t]
        return c[t]
    run(late)


@mistake(NotLinear)
def a_product_of_two_states():
    @lr.cell
    def predator(x: lr.Input, prey: lr.State, hunter: lr.State):
        prey[t] = prey[t - 1] + x[t] * hunter[t - 1]
        hunter[t] = prey[t] * hunter[t - 1]  # <-
        return prey[t]
    run(predator)


@mistake(NotLinear, NotLinear)
def two_bends_at_once():
    @lr.cell
    def twice(x: lr.Input, a: lr.State, b: lr.State):
        a[t] = b[t - 1] ** 2  # <-
        b[t] = tanh(a[t - 1]) + x[t]  # <-
        return a[t]
    run(twice)


@mistake(NotLinear)
def a_bend_in_reverse():
    @lr.cell
    def backwards(x: lr.Input, h: lr.State):
        h[t] = x[t] / h[t + 1]  # <-
        return h[t]
    run(backwards)


@mistake(NotLinear)
def too_many_coupled_states():
    @lr.cell
    def ring(x: lr.Input, a: lr.State, b: lr.State, c: lr.State, d: lr.State, e: lr.State):
        a[t] = b[t - 1] + x[t]  # <-
        b[t] = c[t - 1]
        c[t] = d[t - 1]
        d[t] = e[t - 1]
        e[t] = a[t - 1]
        return a[t]
    run(ring)


@mistake(NotLinear)
def too_high_an_order():
    @lr.cell
    def far(x: lr.Input, h: lr.State):
        h[t] = h[t - 9] + x[t]  # <-
        return h[t]
    run(far)


@mistake(BothDirections)
def both_directions_in_one_state():
    @lr.cell
    def torn(x: lr.Input, h: lr.State):
        h[t] = x[t] * h[t - 1] + h[t + 1]  # <-
        return h[t]


@mistake(BothDirections)
def both_directions_in_two_lines():
    @lr.cell
    def torn(x: lr.Input, h: lr.State):
        before = x[t] * h[t - 1]
        h[t] = before + h[t + 1]  # <-
        return h[t]


@mistake(BothDirections)
def both_directions_in_two_states():
    @lr.cell
    def torn(x: lr.Input, a: lr.State, b: lr.State):
        a[t] = b[t - 1] + x[t]
        b[t] = x[t] * a[t + 1]  # <-
        return b[t]


@mistake(CyclicStates)
def states_in_a_circle():
    @lr.cell
    def circle(x: lr.Input, a: lr.State, b: lr.State, c: lr.State):
        a[t] = c[t] + x[t]  # <-
        b[t] = a[t] + b[t - 1]
        c[t] = b[t] * x[t]
        return a[t]


@mistake(CyclicStates)
def a_state_that_needs_itself():
    @lr.cell
    def itself(x: lr.Input, h: lr.State):
        h[t] = h[t] + x[t]  # <-
        return h[t]
