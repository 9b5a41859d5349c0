"""Expressions as C++: what the text says is what the expression means."""

from __future__ import annotations

import math
import operator
import random
from typing import Any

import numpy as np
import pytest
import sympy as sp

from lrdsl.backends.reference import MEANING, evaluate
from lrdsl.codegen.printers import ATOM, PRODUCT, SUM, Printer, number
from lrdsl.ir import functions as f
from lrdsl.ir.symbols import At, Param

x, y, h, v = At("x"), At("y", -2), At("h", -1), Param("v")
NAMES = {"x": "x", "y.prev2": "y_prev2", "h.prev": "h_prev", "v": "v"}
VALUES = {x: 0.3125, y: -1.75, h: 2.5, v: 0.1}
print64, print32 = Printer(NAMES, "float64"), Printer(NAMES, "float32")


def read(text: str) -> float:
    """C++ text as Python reads it: the two agree on these operators and their order."""
    def scalar(meaning: Any) -> Any:
        return lambda *args: float(meaning(*map(np.float64, args)))

    names: dict[str, Any] = {f"lr_{n}": scalar(meaning) for n, meaning in MEANING.items()}
    names |= {"lr_signum": names["lr_sign"], "lr_whole_power": operator.pow, "splat": float, "x": VALUES[x], "v": VALUES[v],
              "select": lambda c, a, b: a if c else b, "y_prev2": VALUES[y], "h_prev": VALUES[h]}
    return float(eval(text, {"__builtins__": {}}, names))


@pytest.mark.parametrize("expr, text", [
    (x + y, "x + y_prev2"),
    (x - y, "x - y_prev2"),
    (-x - y, "-x - y_prev2"),
    (1 - x, "1.0f - x"),
    (x - 1, "x - 1.0f"),
    (x * (1 - x), "x*(1.0f - x)"),
    (-x * y, "-x*y_prev2"),
    (h - x * y, "h_prev - x*y_prev2"),
    (x / y, "x/y_prev2"),
    (x / (y * h), "x/h_prev/y_prev2"),
    (1 / (x + y), "1.0f/(x + y_prev2)"),
    (x / (1 / (y + 1) + 1), "x/(1.0f + 1.0f/(1.0f + y_prev2))"),
    (x / 3, "0.33333334f*x"),
    (-2 * x, "-2.0f*x"),
    (x**2, "x*x"),
    (1 / x**2, "1.0f/(x*x)"),
    (y / x**2, "y_prev2/(x*x)"),
    ((x + y) ** 2, "lr_whole_power(x + y_prev2, 2)"),
    (x**-7, "1.0f/lr_whole_power(x, 7)"),
    (f.sigmoid(x - y) * h, "h_prev*lr_sigmoid(x - y_prev2)"),
    (f.where(f.greater(x, 0), h, sp.S.One), "select(x > splat(0.0f), h_prev, splat(1.0f))"),
    (f.where(x, h, y), "select(x != 0.0f, h_prev, y_prev2)"),
    (f.equal(x, y) + 1, "1.0f + select(x == y_prev2, splat(1.0f), splat(0.0f))"),
    (f.sign(x), "lr_signum(x)"),
    (f.detach(x + y) * h, "h_prev*(x + y_prev2)"),
    (f.maximum(x, sp.S(2)), "lr_maximum(x, splat(2.0f))"),
    (sp.S(3), "splat(3.0f)"),
    (v, "v"),
], ids=str)  # fmt: skip
def test_texts(expr: Any, text: str) -> None:
    assert print32(expr) == text


@pytest.mark.parametrize("value, dtype, text", [
    (1, "float32", "1.0f"), (1, "float64", "1.0"), (-2, "float32", "-2.0f"), (0.1, "float32", "0.1f"), (0.1, "float64", "0.1"),
    (sp.Rational(1, 3), "float32", "0.33333334f"), (sp.Rational(1, 3), "float64", "0.3333333333333333"),
    (1e-45, "float32", "1e-45f"), (5e-324, "float64", "5e-324"), (1e20, "float32", "1e+20f"),
    (16777216, "float64", "16777216.0"),
    (sp.Float("0.39894228040143267794", 20), "float64", "0.3989422804014327"),
    (1e300, "float32", "(1.0f/0.0f)"), (-1e300, "float32", "(-1.0f/0.0f)"), (-math.inf, "float64", "(-1.0/0.0)"),
])  # fmt: skip
def test_numbers(value: Any, dtype: str, text: str) -> None:
    assert number(value, dtype) == text


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_number_reads_back_to_the_last_bit(dtype: str) -> None:
    rng, kind = np.random.default_rng(0), np.dtype(dtype)
    bits = rng.integers(0, 2 ** (8 * kind.itemsize - 1), 5000, np.uint64).astype(f"u{kind.itemsize}")
    for value in bits.view(kind)[np.isfinite(bits.view(kind))]:
        text = number(float(value), dtype)
        assert kind.type(text.removesuffix("f")) == value and ("." in text or "e" in text)
        assert text.endswith("f") == (dtype == "float32")


def random_expression(rng: random.Random, depth: int) -> Any:
    """Sums, products, quotients, powers and functions, nested as a backward pass nests them."""
    if depth == 0 or rng.random() < 0.1:
        return rng.choice([x, y, h, v, sp.Integer(rng.randint(-3, 3)), sp.Rational(rng.randint(1, 9), 4), sp.Float(0.7)])
    a, b = (random_expression(rng, depth - 1) for _ in range(2))
    kind = rng.randrange(12)
    if kind < 7:
        return [a + b, a - b, a * b, -a, a * b - b, (a - b) * (a + b), 2 * (a + b)][kind]
    if kind == 7:
        return a / (b * b + 1)
    if kind == 8:
        return (a + b) ** rng.randint(2, 6) if rng.random() < 0.5 else 1 / (a * a + 2) ** rng.randint(1, 5)
    if kind == 9:
        return f.where(rng.choice([f.greater, f.greater_equal, f.equal])(a, b), a, b)
    if kind == 10:
        return f.FUNCTIONS[rng.choice(["maximum", "minimum", "logaddexp", "greater", "equal"])](a, b)
    return f.FUNCTIONS[rng.choice(["sigmoid", "tanh", "softplus", "sin", "abs", "sign", "relu", "detach", "gelu"])](a)


@pytest.mark.parametrize("seed", range(300))
def test_the_text_means_what_the_expression_does(seed: int) -> None:
    expr = random_expression(random.Random(seed), 1 + seed % 5)
    want = float(evaluate(expr, VALUES))
    scale = abs(float(evaluate(expr.replace(lambda e: e.is_Number, sp.Abs), VALUES))) if expr.has(sp.Add) else abs(want)
    for level, around in ((SUM, "{}"), (PRODUCT, "1.0*{}"), (ATOM, "1.0/(1.0/{})")):
        text = print64(expr) if level == SUM else print64.text(expr, level)
        if want != 0 and math.isfinite(want) and abs(want) < 1e150:
            assert read(around.format(text)) == pytest.approx(want, rel=1e-9, abs=1e-12 * (1 + scale)), text
