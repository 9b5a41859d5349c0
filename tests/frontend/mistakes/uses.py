"""Declared names used as what they are not."""

import lrdsl as lr
from lrdsl import sigmoid, t, tanh
from lrdsl.errors import BadDeclaration, ShapeMismatch, UnsupportedFunction

from . import Cases

mistake = Cases({})


@mistake(UnsupportedFunction)
def a_sequence_as_a_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_sequence_in_a_function():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + tanh(x)  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_sequence_in_a_map():
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine):
        h[t] = h[t - 1] + gate(x)  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_sequence_returned():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t]
        return h  # <-


@mistake(UnsupportedFunction)
def a_sequence_called():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x(t)  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_loop_over_a_sequence():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        y = 0
        for sample in x:  # <-
            y += sample
        h[t] = h[t - 1] + y
        return h[t]


@mistake(UnsupportedFunction)
def the_length_of_a_sequence():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t] / len(x)  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_method_of_a_tensor():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x.mean()  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_map_as_a_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine):
        h[t] = gate * h[t - 1] + gate(x[t])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_map_as_a_sequence():
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine):
        h[t] = gate[t] * h[t - 1] + gate(x[t])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_map_of_nothing():
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine):
        h[t] = sigmoid(gate()) * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_map_of_a_learned_number():
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine, v: lr.Vector):
        h[t] = gate(2 * v) * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(ShapeMismatch)
def a_map_of_one_and_of_two():
    @lr.cell
    def c(x: lr.Input, u: lr.Input, h: lr.State, gate: lr.Affine):
        f = sigmoid(gate(x[t]))
        h[t] = f * h[t - 1] + gate(x[t], u[t])  # <-
        return h[t]


@mistake(ShapeMismatch)
def a_sized_input_without_a_map():
    @lr.cell
    def c(x: lr.Input = lr.Input(size=3), h: lr.State = lr.State(), gate: lr.Affine = lr.Affine()):
        h[t] = sigmoid(gate(x[t])) * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_vector_at_a_step():
    @lr.cell
    def c(x: lr.Input, h: lr.State, v: lr.Vector):
        h[t] = v[t] * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_scalar_called():
    @lr.cell
    def c(x: lr.Input, h: lr.State, s: lr.Scalar):
        h[t] = s(x[t]) + h[t - 1]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_line_at_another_step():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        g = sigmoid(x[t])
        h[t] = g[t - 1] * h[t - 1] + g  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_line_of_several_parts_at_another_step():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = (x[t] + h[t - 1])[t - 1]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_python_value_that_has_no_steps():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        gates = None
        h[t] = h[t - 1] + gates[0] * x[t]  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_value_called():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        g = sigmoid(x[t])
        h[t] = g(h[t - 1])  # <-
        return h[t]


@mistake(UnsupportedFunction)
def a_sample_taken_apart():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        a, b = x[t]  # <-
        h[t] = a * h[t - 1] + b
        return h[t]


@mistake(UnsupportedFunction)
def more_values_than_names():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        a, b = x[t], x[t - 1], x[t - 2]  # <-
        h[t] = a * h[t - 1] + b
        return h[t]


@lr.cell
def other(x: lr.Input, h: lr.State):
    h[t] = h[t - 1] + x[t]
    return h[t]


@mistake(BadDeclaration)
def a_cell_called_in_a_cell():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + other(x)  # <-
        return h[t]


@mistake(BadDeclaration)
def a_cell_called():
    other([1.0, 2.0])  # <-


@mistake(BadDeclaration)
def a_kind_made_in_the_body():
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        v = lr.Vector()
        h[t] = v * h[t - 1] + x[t]  # <-
        return h[t]


@mistake(BadDeclaration)
def a_kind_outside_a_cell():
    lr.Input()[t]
