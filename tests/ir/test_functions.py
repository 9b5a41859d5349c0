"""The table of functions: values, first and second derivatives, ties and ranges, against differences and torch."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

from lrdsl.backends.reference import MEANING, evaluate
from lrdsl.frontend import functions as public
from lrdsl.frontend.recording import FUNCTIONS as PUBLIC
from lrdsl.ir import functions as f
from lrdsl.ir.symbols import At

ATOMS = (At("x"), At("y"), At("z"))
POSITIVE = ("log", "log1p", "sqrt")
NAMES = [name for name in f.TABLE if name != "sum"]  # which is no function of single numbers: see the end
WIDE = np.array([-np.inf, -800.0, -30.0, -1.5, -1e-9, -0.0, 0.0, 1e-300, 1e-9, 0.3, 2.0, 40.0, 800.0, np.inf])


def call(name: str) -> Any:
    """The function of plain atoms."""
    return f.FUNCTIONS[name](*ATOMS[: f.TABLE[name].arity])


def points(name: str) -> dict[Any, Any]:
    """Points of the function's domain, away from its kinks."""
    rng = np.random.default_rng(len(name))
    values = {atom: rng.uniform(0.2, 2.0, 40) * rng.choice([-1, 1], 40) for atom in ATOMS}
    return {a: np.abs(v) for a, v in values.items()} if name in POSITIVE else values


def derivative(expr: Any, atom: At) -> Any:
    """d expr / d atom by the table: forward mode over the whole expression."""
    calls = sorted((c for c in expr.atoms(f.Elementwise) if _outermost(expr, c)), key=str)
    outer = {c: sp.Symbol(f"call{k}") for k, c in enumerate(calls)}
    inside = expr.xreplace(outer)
    total = sp.diff(inside, atom)
    for c, symbol in outer.items():
        tangents = tuple(derivative(a, atom) for a in c.args)
        total += sp.diff(inside, symbol) * f.pushforward(c, c, tangents)
    return total.xreplace({symbol: c for c, symbol in outer.items()})


def _outermost(expr: Any, wanted: Any) -> bool:
    """Does the call stand in the expression outside of every other call?"""
    if expr == wanted:
        return True
    return not isinstance(expr, f.Elementwise) and any(_outermost(a, wanted) for a in expr.args)


def slope(expr: Any, atom: At, values: dict[Any, Any]) -> Any:
    """The same by central differences."""
    step = 1e-5
    up, down = (evaluate(expr, {**values, atom: values[atom] + s * step}) for s in (1, -1))
    return (up - down) / (2 * step)


def test_the_table_is_the_language() -> None:
    assert set(MEANING) == set(f.TABLE)
    assert all(callable(getattr(public, name)) and getattr(public, name).__doc__ for name in PUBLIC)
    assert set(NAMES) - set(PUBLIC) == {"erf", "sign", "greater", "greater_equal"}


@pytest.mark.parametrize("name", NAMES)
def test_first_derivatives(name: str) -> None:
    expr, values = call(name), points(name)
    for atom in expr.args:
        want = 0.0 if name == "detach" else slope(expr, atom, values)
        got = evaluate(derivative(expr, atom), values) + np.zeros(40)
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-8, err_msg=f"{name} by {atom}")


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives(name: str) -> None:
    expr, values = call(name), points(name)
    for first in expr.args:
        once = derivative(expr, first)
        for second in expr.args:
            got = evaluate(derivative(once, second), values) + np.zeros(40)
            want = 0.0 if name == "detach" else slope(once, second, values) + np.zeros(40)
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7, err_msg=f"{name} by {first}, {second}")


@pytest.mark.parametrize("name", NAMES)
def test_what_goes_back_is_the_transpose_of_what_goes_forth(name: str) -> None:
    expr, values = call(name), points(name)
    gradient = At("g")
    values[gradient] = np.linspace(-1, 1, 40)
    back = f.pullback(expr, expr, gradient)
    for k, atom in enumerate(expr.args):
        forth = f.pushforward(expr, expr, tuple(gradient if a == atom else sp.S.Zero for a in expr.args))
        np.testing.assert_allclose(evaluate(back[k], values), evaluate(forth, values), atol=1e-15)


def torch_function(name: str) -> Any:
    """torch's function of the same name."""
    special = {"abs": torch.abs, "equal": lambda a, b: (a == b).double(), "greater": lambda a, b: (a > b).double(),
               "greater_equal": lambda a, b: (a >= b).double(), "where": lambda c, a, b: torch.where(c != 0, a, b),
               "detach": torch.Tensor.detach, "erf": torch.erf, "logaddexp": torch.logaddexp}
    return special.get(name) or getattr(torch, name, None) or getattr(torch.nn.functional, name)


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_torch_far_out_too(name: str) -> None:
    grid = np.stack([g.ravel() for g in np.meshgrid(*[WIDE] * f.TABLE[name].arity)])
    with np.errstate(all="ignore"):
        got = evaluate(call(name), dict(zip(ATOMS, grid, strict=False)))
    want = torch_function(name)(*(torch.from_numpy(g) for g in grid)).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("name", NAMES)
def test_ranges_hold_every_value(name: str) -> None:
    low, high = (float(b) for b in f.TABLE[name].range)
    grid = np.stack([g.ravel() for g in np.meshgrid(*[WIDE] * f.TABLE[name].arity)])
    with np.errstate(all="ignore"):
        values = evaluate(call(name), dict(zip(ATOMS, grid, strict=False)))
    values = values[~np.isnan(values)]
    assert values.size and values.min() >= low and values.max() <= high


TIES = {"maximum": 2, "minimum": 2, "abs": 1, "relu": 1, "sign": 1}


@pytest.mark.parametrize("name", TIES)
@pytest.mark.parametrize("at", [0.0, -0.0])
def test_ties_are_torchs(name: str, at: float) -> None:
    tensors = [torch.tensor(at, dtype=torch.float64, requires_grad=True) for _ in range(TIES[name])]
    torch_function(name)(*tensors).backward()
    expr = call(name)
    values = {a: np.array(at) for a in expr.args}
    got = [float(evaluate(d, values)) for d in f.pullback(expr, expr, sp.S.One)]
    assert got == [float(tensor.grad) for tensor in tensors]


def test_where_keeps_the_gradient_of_the_branch_not_taken_out() -> None:
    """where(x > 0, log(x), 0) at x = 0: a product with 0 would be nan."""
    x = ATOMS[0]
    expr = f.where(f.greater(x, 0), f.log(x), sp.S.Zero)
    condition, taken, _ = f.pullback(expr, expr, 1 / x)
    with np.errstate(all="ignore"):
        assert condition == 0 and evaluate(taken, {x: np.array([0.0, 2.0])}).tolist() == [0.0, 0.5]


def test_calls_stay_as_they_are_written() -> None:
    x = ATOMS[0]
    assert str(f.exp(x) ** 2) == "exp(x[t])**2" and str(f.log(f.exp(x))) == "log(exp(x[t]))"
    assert str(f.sin(sp.S.Zero)) == "sin(0)" and str(f.absolute(-x)) == "abs(-x[t])"
    assert f.sqrt(sp.Integer(4)) != 2 and f.tanh(sp.Float(0.5)).evalf() == f.tanh(sp.Float(0.5))


@pytest.mark.parametrize("name", NAMES)
def test_calls_survive_pickling(name: str) -> None:
    assert pickle.loads(pickle.dumps(call(name))) == call(name)
    assert f.name_of(call(name)) == name and f.name_of_class(f.FUNCTIONS[name]) == name


def test_conditions_are_joined_as_sympys_are() -> None:
    x, y, _ = ATOMS
    joined = public.where(public.equal(x, 1) & (x > y) | ~public.equal(y, 2), 1, 0)
    values = {x: np.array([1.0, 1.0, 1.0, 0.0]), y: np.array([0.0, 2.0, 1.0, 2.0])}
    assert evaluate(joined, values).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_a_sum_over_the_axis_sends_the_same_back_to_all() -> None:
    x, y, _ = ATOMS
    total = f.axis_sum(x)
    values = {x: np.arange(12.0).reshape(2, 3, 2), y: np.ones((2, 1, 2))}
    assert evaluate(total, values).tolist() == [[[6.0, 9.0]], [[24.0, 27.0]]]
    assert f.pullback(total, total, y) == (y,) and f.pushforward(total, total, (y * x,)) == f.axis_sum(y * x)
    assert f.pushforward(total, total, (sp.S.Zero,)) == 0
    assert pickle.loads(pickle.dumps(total)) == total and f.name_of(total) == "sum"
