"""What a body may look like: every way of writing Python that says equations, and what it comes to."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any

import numpy as np
import pytest

import lrdsl as lr
from lrdsl import sigmoid, t, tanh, where
from lrdsl.errors import BadDeclaration
from lrdsl.ir.spec import Equation, MapCall


def said(cell: lr.Cell) -> list[str]:
    """The statements of a cell."""
    return [str(s) for s in cell.spec.statements]


def lines(cell: lr.Cell) -> list[int]:
    """Where they stand, from the line of the def."""
    return [s.where.line - cell.spec.where.line for s in cell.spec.statements]


def test_every_named_line_is_a_statement_at_its_line() -> None:
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine):
        """A doc."""
        g = sigmoid(gate(x[t]))

        # A comment between.
        h[t] = (
            g * h[t - 1]
            + (1 - g) * x[t - 1]
        )
        return h[t]

    assert said(c) == ["gate = gate(x[t])", "g = sigmoid(gate[t])", "h[t] = g[t]*h[t-1] + x[t-1]*(1 - g[t])"]
    assert lines(c) == [2, 2, 5] and c.__doc__ == "A doc." and c.name == "c"
    assert [str(type(s).__name__) for s in c.spec.statements] == ["MapCall", "Equation", "Equation"]
    assert "# A comment between." in c.spec.source and not c.spec.notes


def test_names_in_tuples_loops_and_walrus() -> None:
    @lr.cell
    def c(x: lr.Input, h: lr.State, A: lr.Affine, B: lr.Affine, C: lr.Affine):
        (a, b), [d, *rest] = (sigmoid(W(x[t])) for W in (A, B)), (tanh(C(x[t])), 1)
        y = 0
        for k in range(3):
            y += x[t - k] / 2**k
        y *= rest[0]
        z = w = a * b
        h[t] = (g := tanh(y)) * h[t - 1] + (1 - g) * z * w + d
        return h[t]

    assert said(c)[3:] == ["a = sigmoid(A[t])", "b = sigmoid(B[t])", "y = x[t-1]/2 + x[t]", "y_2 = x[t-2]/4 + y[t]",
                           "z = a[t]*b[t]", "g = tanh(y_2[t])", "h[t] = g[t]*h[t-1] + z[t]**2*(1 - g[t]) + tanh(C[t])"]


def test_numbers_stay_pythons() -> None:
    kept = []

    @lr.cell
    def c(x: lr.Input, h: lr.State):
        k = 1
        scale: float = math.sqrt(2) / np.float64(2)
        kept.extend([k, scale])
        h[t] = scale * h[t - k] + x[t - np.int64(2)] * int(k == 1)
        return h[t]

    assert [type(v) for v in kept] == [int, np.float64]
    assert said(c) == ["h[t] = 0.707106781186548*h[t-1] + x[t-2]"]


def test_conditions_have_names_and_are_joined() -> None:
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        big, odd = x[t] > 1, lr.equal(x[t - 1], 3)
        h[t] = where(big & ~odd | (x[t] <= -1), 0.5, 1.0) * h[t - 1] + where(x[t], 1, 0)
        return h[t]

    condition = "(1 - odd[t])*(x[t] > 1) + (-1 >= x[t]) > 0"
    assert said(c) == ["odd = equal(x[t-1], 3)", f"h[t] = h[t-1]*where({condition}, 0.5, 1.0) + where(x[t], 1, 0)"]


def test_aliases_and_optional_maps() -> None:
    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine):
        u, W, none = x, gate, None
        h[t] = (W(u[t]) if W and not none else 1) * h[t - 1] + u[t]
        return h[t]

    assert said(c) == ["gate = gate(x[t])", "h[t] = gate[t]*h[t-1] + x[t]"]


def test_functions_inside_name_their_lines() -> None:
    @lr.cell
    def c(x: lr.Input, h: lr.State, A: lr.Affine, B: lr.Affine):
        def squash(z: Any) -> Any:
            y = sigmoid(z)
            return y * (1 - y)

        h[t] = squash(A(x[t])) * h[t - 1] + (lambda z: tanh(z))(squash(B(x[t])))
        return h[t]

    assert said(c) == ["A = A(x[t])", "y = sigmoid(A[t])", "B = B(x[t])", "y_2 = sigmoid(B[t])",
                       "h[t] = h[t-1]*y[t]*(1 - y[t]) + tanh(y_2[t]*(1 - y_2[t]))"]
    assert lines(c) == [5, 2, 5, 2, 5]


def test_statements_on_one_line_and_blocks() -> None:
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        g = sigmoid(x[t]); i = tanh(x[t])  # noqa: E702
        with contextlib.nullcontext():
            k = g * i
        try:
            n = len("three")
        except TypeError:
            n = 0
        del i
        h[t] = g * h[t - 1] + k * n
        return h[t]

    assert said(c) == ["g = sigmoid(x[t])", "i = tanh(x[t])", "k = g[t]*i[t]", "h[t] = g[t]*h[t-1] + 5*k[t]"]
    assert lines(c) == [1, 1, 3, 9]


def factory(order: int = 1, *, gated: bool = False, names: tuple[str, ...] = ()) -> lr.Cell:
    """A cell for some hyperparameters."""
    decay = 0.5

    @lr.cell
    def c(x: lr.Input, h: lr.State, gate: lr.Affine):
        y = decay * x[t]
        if gated and order == 2 and "plain" not in names:
            y = sigmoid(gate(x[t])) * y
        else:
            y = gate(x[t]) + y
        for k in range(1, order + 1):
            y = y + h[t - k] / (k + 1)
        h[t] = y
        return h[t]

    return c


def test_factories_choose_the_equations() -> None:
    assert said(factory()) == ["y = 0.5*x[t]", "gate = gate(x[t])", "y_2 = gate[t] + y[t]", "y_3 = h[t-1]/2 + y_2[t]",
                               "h[t] = y_3[t]"]
    assert said(factory(2, gated=True))[2:] == ["y_2 = y[t]*sigmoid(gate[t])", "y_3 = h[t-1]/2 + y_2[t]",
                                                "y_4 = h[t-2]/3 + y_3[t]", "h[t] = y_4[t]"]
    assert factory() == factory() and hash(factory()) == hash(factory()) and factory() != factory(2)


def test_annotations_are_found_where_the_cell_is_made() -> None:
    """They are text here (`from __future__ import annotations`), and these names are local."""
    from lrdsl import Input as Sequence
    from lrdsl import State as Recurrence

    @lr.cell
    def c(x: Sequence, h: Recurrence):
        h[t] = h[t - 1] + x[t]
        return h[t]

    assert c.spec.names("input") == ("x",) and c.spec.names("state") == ("h",)


def test_options_are_default_values() -> None:
    @lr.cell
    def c(
        x: lr.Input = lr.Input(size=7),
        /,
        a: lr.Affine = lr.Affine(bias=1.5),
        *,
        h: lr.State = lr.State(init=-1, learned=True),
        v=lr.Vector(init=math.sin),
        s: lr.Scalar = lr.Scalar(init=3),
        w: lr.Vector(init=0.5),
    ):
        h[t] = v * h[t - 1] + a(x[t]) * s * w
        return h[t]

    x, a, h, v, s, w = c.spec.declared
    assert (s.kind, s.option("init")) == ("scalar", 3) and (w.kind, w.option("init")) == ("vector", 0.5)
    assert x.option("size") == 7 and a.option("bias") == 1.5 and v.option("init") is math.sin
    assert h.options == (("init", -1.0), ("learned", True)) and h.where.line == c.spec.where.line + 5
    assert str(h) == "state h(init=-1.0, learned=True)"


def test_outputs() -> None:
    @lr.cell
    def pair(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t]
        return h[t], 2 * h[t], x[t], h[t - 1]

    @lr.cell
    def words(x: lr.Input, h: lr.State):
        h[t] = h[t - 1] + x[t]
        return {"memory": h[t], "twice": 2 * h[t], "again": h[t]}

    assert [(n, str(s)) for n, s in pair.spec.outputs] == [("h", "h[t]"), ("y", "y[t]"), ("y_2", "y_2[t]"), ("y_3", "y_3[t]")]
    assert said(pair)[1:] == ["y = 2*h[t]", "y_2 = x[t]", "y_3 = h[t-1]"]
    assert [(n, str(s)) for n, s in words.spec.outputs] == [("memory", "h[t]"), ("twice", "twice[t]"), ("again", "h[t]")]


def test_decorators_methods_and_classes() -> None:
    def loud(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            raise AssertionError("a cell's body runs as it is written")
        return wrapper

    class Zoo:
        @staticmethod
        @lr.cell
        def inside(x: lr.Input, h: lr.State):
            g = sigmoid(x[t])
            h[t] = g * h[t - 1]
            return h[t]

        @lr.cell
        @staticmethod
        @loud
        def below(x: lr.Input, h: lr.State):
            g = sigmoid(x[t])
            h[t] = g * h[t - 1]
            return h[t]

    assert said(Zoo.inside) == said(Zoo.below) == ["g = sigmoid(x[t])", "h[t] = g[t]*h[t-1]"]
    assert lines(Zoo.below) == [1, 2] and Zoo.below.spec.where.line - Zoo.inside.spec.where.line == 8


def test_the_same_map_again_is_the_same_value() -> None:
    @lr.cell
    def c(x: lr.Input, h: lr.State, W: lr.Affine):
        h[t] = sigmoid(W(x[t])) * h[t - 1] + W(x[t]) * W(x[t - 1])
        return h[t]

    assert said(c) == ["W = W(x[t])", "W_2 = W(x[t-1])", "h[t] = W[t]*W_2[t] + h[t-1]*sigmoid(W[t])"]
    assert [s.affine for s in c.spec.statements if isinstance(s, MapCall)] == ["W", "W"]


def test_powers_and_constants() -> None:
    @lr.cell
    def c(x: lr.Input, h: lr.State):
        a, b, d, e = x[t] ** 0.5, x[t] ** -1.5, x[t] ** 2.0, math.pi * x[t]
        h[t] = a * h[t - 1] + b + d + e + abs(x[t])
        return h[t]

    assert said(c) == ["a = sqrt(x[t])", "b = 1/(x[t]*sqrt(x[t]))", "d = x[t]**2", "e = 3.14159265358979*x[t]",
                       "h[t] = a[t]*h[t-1] + b[t] + d[t] + e[t] + abs(x[t])"]


def test_mirrored_turns_every_lag() -> None:
    @lr.cell
    def c(x: lr.Input, h: lr.State, W: lr.Affine):
        h[t] = W(x[t - 1], x[t]) * h[t - 1] + x[t + 2]
        return h[t]

    back = c.spec.mirrored()
    assert [str(s) for s in back.statements] == ["W = W(x[t+1], x[t])", "h[t] = W[t]*h[t+1] + x[t-2]"]
    assert back.mirrored() == c.spec and back != c.spec


def test_a_cell_is_not_a_function_and_says_what_it_is() -> None:
    cell = factory()
    assert repr(cell) == "<lrdsl cell c>" and isinstance(cell.spec.statements[0], Equation)
    with pytest.raises(BadDeclaration, match="is a cell, not a function"):
        cell(1)
