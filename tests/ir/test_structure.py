"""The structure of a recurrence: what it is called, what numbers it has, and that these say what many steps do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sympy as sp

from lrdsl.ir import functions as f
from lrdsl.ir.structure import Rows, Structure, structure
from lrdsl.ir.symbols import At, Param

X, U, W, P = At("x"), At("u"), At("w"), Param("p")
COS, SIN = f.cos(W), f.sin(W)


def matrix(*rows: list[object]) -> sp.ImmutableMatrix:
    return sp.ImmutableMatrix(rows)


CASES = {
    "diagonal": ([1], matrix([X])),
    "diagonal, constant": ([1], matrix([P])),
    "companion, order 2": ([2], matrix([X]), matrix([U])),
    "companion, order 3": ([3], matrix([X]), matrix([0]), matrix([U])),
    "companion, order 2, constant": ([2], matrix([0.5]), matrix([P])),
    "companion, order 4": ([1, 1, 1, 1], matrix([X, 1, 0, 0], [U, 0, 1, 0], [W, 0, 0, 1], [X, 0, 0, 0])),
    "diagonal, 2 states": ([1, 1], matrix([X, 0], [0, U])),
    "shared decay, 3 states": ([1, 1, 1], matrix([X, 0, 0], [0, X, 0], [0, 0, X])),
    "triangular 2x2": ([1, 1], matrix([X, 0], [W, U])),
    "triangular 3x3": ([1, 1, 1], matrix([X, U, U], [0, U, 0], [0, W, W])),
    "dense 2x2": ([1, 1], matrix([X, 2], [3, U])),
    "dense 3x3": ([1, 2], matrix([X, 0], [3, U]), matrix([0, W], [0, 0])),
    "scaled rotation": ([1, 1], matrix([X, -U], [U, X])),
    "scaled rotation ": ([1, 1], matrix([X, U], [-U, X])),
    "scaled rotation, constant": ([1, 1], matrix([0, -P], [P, 0])),
    "rotation": ([1, 1], matrix([COS, -SIN], [SIN, COS])),
    "scaled rotation, damped": ([1, 1], matrix([X * COS, -X * SIN], [X * SIN, X * COS])),
    "complex 2x2": ([2, 2], matrix([X, -U], [U, X]), matrix([W, 0], [0, W])),
    "complex 2x2 ": ([1, 1, 1, 1], matrix([X, -U, 1, 0], [U, X, 0, 1], [W, -X, 0, 0], [X, W, 0, 0])),
}


def of(name: str) -> Structure:
    orders, *A = CASES[name]
    return structure(orders, A)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_names(name: str) -> None:
    assert of(name).name == name.strip().replace(", damped", "")


def dense(rows: Rows, numbers: list[float]) -> np.ndarray:
    found = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        for t in row:
            found[i, t.column] = t.sign * (1 if t.number is None else numbers[t.number])
    return found


@pytest.mark.parametrize("name", CASES)
def test_products_of_steps_keep_their_form(name: str) -> None:
    """Random coefficients, step after step: the product has no other numbers than `many` says, where it says."""
    found, rng = of(name), np.random.default_rng(3)
    product = np.eye(found.size)
    np.testing.assert_array_equal(product, dense(found.many, list(found.identity)))
    for _ in range(6):
        step = dense(found.step, list(rng.uniform(-1, 1, len(found.coefficients))))
        product = step @ product
        numbers = [product[found.place(k)] for k in range(found.count)]
        np.testing.assert_allclose(dense(found.many, numbers), product, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_the_matrix_of_the_recurrence(name: str) -> None:
    """The coefficients with numbers for the samples, against A written as a matrix of the whole state."""
    orders, *A = CASES[name]
    found = of(name)
    values = {X: 0.3, U: -0.7, W: 1.1, P: 0.6, COS: np.cos(1.1), SIN: np.sin(1.1)}
    step = dense(found.step, [float(c.xreplace(values)) for c in found.coefficients])
    state = [(j, k) for j, order in enumerate(orders) for k in range(1, order + 1)]  # type: ignore[arg-type]
    for (i, (j, k)), (c, (other, back)) in itertools.product(enumerate(state), enumerate(state)):
        want = A[back - 1][j, other] if k == 1 else sp.Integer((other, back) == (j, k - 1))
        assert step[i, c] == pytest.approx(float(want.xreplace(values)))


def test_counts() -> None:
    """A rotation costs two numbers, never four; a shared decay one; a triangle no zeros; pairs half of a dense matrix."""
    counts = {"rotation": 2, "scaled rotation": 2, "shared decay, 3 states": 1, "diagonal, 2 states": 2, "triangular 3x3": 6,
              "companion, order 3": 9, "dense 2x2": 4, "complex 2x2": 8}
    assert {name: of(name).count for name in counts} == counts
    assert len(of("companion, order 4").coefficients) == 3, "equal coefficients are one"


def test_equal_coefficients_with_other_names() -> None:
    a, b = At("a"), At("b")
    A = [matrix([X, a], [b, X])]
    assert structure([1, 1], A).name == "dense 2x2"
    assert structure([1, 1], A, {a: -U, b: U}).name == "scaled rotation"
    assert structure([1, 1], A, {a: -U * P, b: At("c"), At("c"): P * U}).name == "scaled rotation"
    assert structure([1, 1], A, {X: P, a: -P, b: P}).constant


@pytest.mark.parametrize(("a", "b", "modulus"), [(COS, SIN, 1), (COS, -SIN, 1), (X * COS, -X * SIN, X), (COS, f.sin(X), None),
                                                 (X * COS, U * SIN, None), (X, U, None)])
def test_the_modulus_of_a_rotation(a: sp.Expr, b: sp.Expr, modulus: object) -> None:
    assert structure([1, 1], [matrix([a, -b], [b, a])]).modulus == modulus
