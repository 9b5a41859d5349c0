"""Recurrences over other algebras that are none, and initial values that their recurrence does not bear."""

import math

import lrdsl as lr
from lrdsl import logaddexp, maximum, minimum, relu, sigmoid, softplus, t, tanh, where
from lrdsl.errors import BadDeclaration, NotBuilt, NotLinear

from . import Cases, run

mistake = Cases({})


@mistake(NotLinear)
def a_factor_over_a_maximum():
    @lr.cell
    def fading(x: lr.Input, h: lr.State):
        h[t] = maximum(0.9 * h[t - 1], x[t])  # <-
        return h[t]
    run(fading)


@mistake(NotLinear)
def a_factor_around_a_logaddexp():
    @lr.cell
    def cooled(x: lr.Input, h: lr.State, v: lr.Vector):
        h[t] = v * logaddexp(h[t - 1], x[t])  # <-
        return h[t]
    run(cooled)


@mistake(NotLinear)
def two_algebras_in_one_recurrence():
    @lr.cell
    def clamped(x: lr.Input, h: lr.State):
        low = maximum(h[t - 1] + x[t], -1)  # <-
        h[t] = minimum(low, 1)
        return h[t]
    run(clamped)


@mistake(NotLinear)
def the_state_twice_in_one_sum():
    @lr.cell
    def doubled(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + maximum(h[t - 1], x[t])  # <-
        return h[t]
    run(doubled)


@mistake(NotLinear)
def a_function_beneath_a_maximum():
    @lr.cell
    def bent(x: lr.Input, h: lr.State):
        h[t] = maximum(tanh(h[t - 1]), x[t])  # <-
        return h[t]
    run(bent)


@mistake(NotLinear)
def a_condition_beneath_a_maximum():
    @lr.cell
    def switch(x: lr.Input, h: lr.State):
        h[t] = maximum(where(h[t - 1] > x[t], h[t - 1], 0), x[t])  # <-
        return h[t]
    run(switch)


@mistake(NotLinear)
def a_maximum_in_a_linear_recurrence():
    """What the stabilised LSTM has no need of: m is a state of its own there."""
    @lr.cell
    def floored(x: lr.Input, n: lr.State):
        n[t] = maximum(sigmoid(x[t]) * n[t - 1] + 1, 1)  # <-
        return n[t]
    run(floored)


@mistake(NotLinear, NotLinear)
def a_maximum_whose_states_are_coupled_by_factors():
    @lr.cell
    def pair(x: lr.Input, a: lr.State, b: lr.State):
        a[t] = 2 * a[t - 1] + b[t - 1]  # <-
        b[t] = maximum(0.5 * a[t - 1], x[t])  # <-
        return a[t]
    run(pair)


@mistake(NotLinear)
def a_queue_by_relu():
    @lr.cell
    def waiting(x: lr.Input, w: lr.State):
        w[t] = relu(w[t - 1] + x[t])  # <-
        return w[t]
    run(waiting)


@mistake(NotLinear)
def a_relu_that_is_no_maximum():
    @lr.cell
    def half(x: lr.Input, w: lr.State):
        w[t] = relu(0.5 * w[t - 1] + x[t])  # <-
        return w[t]
    run(half)


@mistake(NotLinear)
def a_softplus_of_the_state():
    @lr.cell
    def soft(x: lr.Input, w: lr.State):
        w[t] = softplus(w[t - 1] + x[t])  # <-
        return w[t]
    run(soft)


@mistake(NotBuilt)
def a_maximum_of_several_states():
    @lr.cell
    def viterbi(x: lr.Input, a: lr.State, b: lr.State):
        a[t] = maximum(a[t - 1], b[t - 1] - 1) + x[t]  # <-
        b[t] = maximum(a[t - 1] - 2, b[t - 1])
        return a[t]
    run(viterbi)


@mistake(NotBuilt)
def a_minimum_two_steps_back():
    @lr.cell
    def coins(x: lr.Input, h: lr.State):
        h[t] = minimum(h[t - 1], h[t - 2]) + x[t]  # <-
        return h[t]
    run(coins)


@mistake(BadDeclaration)
def an_infinite_state_that_is_multiplied():
    @lr.cell
    def decay(x: lr.Input, *, h: lr.State = lr.State(init=math.inf)):  # <-
        h[t] = sigmoid(x[t]) * h[t - 1] + x[t]
        return h[t]
    run(decay)


@mistake(BadDeclaration)
def an_infinite_state_that_a_map_reads():
    @lr.cell
    def seen(x: lr.Input, look: lr.Affine, *, m: lr.State = lr.State(init=-math.inf)):  # <-
        m[t] = maximum(m[t - 1], x[t])
        return look(m[t - 1])
    run(seen)
