"""Random cells: recurrences of order one to three, maps of lines, windows and other maps' values, in a random order; where
asked for, states run their own ways, two of them may be coupled, and all are read on both sides."""

from __future__ import annotations

import random
from typing import Any

import lrdsl as lr
from lrdsl import abs, exp, maximum, sigmoid, softplus, t, tanh, where

SQUASH = (sigmoid, tanh, lambda v: exp(-abs(v)), lambda v: where(v > 0, v, tanh(v)), lambda v: maximum(v, -1), softplus)


def random_cell(seed: int, two_ways: bool = False) -> lr.Cell:
    """One cell a seed. Everything is read by the output, so that nothing is unused."""
    dice, first = random.Random(seed), -2 if two_ways else 0

    @lr.cell
    def cell(
        x: lr.Input, u: lr.Input, a: lr.State, b: lr.State, c: lr.State, U: lr.Affine, V: lr.Affine, W: lr.Affine, v: lr.Vector
    ):
        solved: list[Any] = [lambda k: x[t - k], lambda k: u[t - k]]  # readable at any lag
        pool: list[Any] = [x[t], u[t]]  # values of this step

        def read() -> Any:
            return dice.choice(solved)(dice.randrange(first, 3)) if dice.random() < 0.4 else dice.choice(pool)

        def squashed() -> Any:
            return dice.choice(SQUASH)(read() + dice.choice([0, read(), v]))

        maps = [U, V, W]
        states = dice.sample([a, b, c], 3)
        coupled = two_ways and dice.random() < 0.4
        for together in [states[:2], states[2:]] if coupled else [[s] for s in states]:
            way = dice.choice([1, -1]) if two_ways else 1
            for state in together:
                if maps:
                    operands = [dice.choice([read, squashed])() for _ in range(dice.choice([1, 1, 2, 3]))]
                    gate = maps.pop()(*operands)
                    pool.append(gate)
                line = squashed()
                pool.append(line)
                order = dice.choice([0, 1, 1, 1, 2, 3])
                total = read() * squashed()
                for k in range(1, order + 1):
                    total = total + sigmoid(read()) * state[t - way * k] / order
                for other in together:
                    if other is not state:
                        total = total + sigmoid(read()) * other[t - way * dice.choice([1, 2])] / 3
                state[t] = total
            for state in together:
                pool.append(state[t])
                solved.append(lambda k, state=state: state[t - k])
        everything = a[t] + b[t - 1] * c[t] + v + u[t] * x[t] + tanh(sum_of(pool))
        return everything, dice.choice([a, b, c])[t]

    return cell


def sum_of(values: list[Any]) -> Any:
    """Python's sum, which lrdsl's own hides."""
    total: Any = 0
    for value in values:
        total = total + value
    return total
