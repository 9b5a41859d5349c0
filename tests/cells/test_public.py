"""Cells of the zoo that public libraries compute as well, and those that are each other's special cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor

import lrdsl as lr
from lrdsl import cells
from tests.nn.compare import assert_close, leaf

T, B, C = 40, 2, 3


def assert_near(got: Tensor, want: Any) -> None:
    assert_close([got], [torch.as_tensor(want)], 10)


# scipy.signal


@pytest.mark.parametrize(("zeros", "order"), [(1, 1), (2, 1), (1, 2), (5, 3), (9, 8)])
def test_a_filter_is_scipys(zeros: int, order: int, quick: None) -> None:
    """From rest, and from given past samples, which scipy wants as the state of another form."""
    rng = np.random.default_rng(order)
    b, a = rng.normal(size=zeros), np.concatenate([[1.5], rng.normal(size=order) / order])
    x, before, past = (rng.normal(size=n) for n in (T, order, zeros - 1))
    run = lr.function(cells.lfilter(b, a), dim=0)
    assert_near(run(torch.tensor(x)[:, None])[:, 0], signal.lfilter(b, a, x))
    init = {"y": torch.tensor(before).reshape(1, *[order] * (order > 1))}
    if zeros > 1:
        init["x"] = torch.tensor(past).reshape(1, *[zeros - 1] * (zeros > 2))
    want, _ = signal.lfilter(b, a, x, zi=signal.lfiltic(b, a, before, past))
    assert_near(run(torch.tensor(x)[:, None], init=init)[:, 0], want)


def test_biquads_in_a_row_are_scipys_sections(quick: None) -> None:
    sections, x = signal.butter(6, 0.3, output="sos"), np.random.default_rng(0).normal(size=T)
    y, run = torch.tensor(x)[:, None], lr.function(cells.biquad, dim=0)
    for b0, b1, b2, a0, a1, a2 in sections:
        assert a0 == 1
        y = run(y, b0, b1, b2, a1, a2)
    assert_near(y[:, 0], signal.sosfilt(sections, x))


# torch


@pytest.mark.parametrize(("cell", "torchs"), [
    (cells.cumsum, torch.cumsum), (cells.cumprod, torch.cumprod), (cells.logcumsumexp, torch.logcumsumexp),
    (cells.cummax, lambda x, dim: torch.cummax(x, dim).values)], ids=lambda v: getattr(v, "name", ""))
def test_cumulative_operations_are_torchs(cell: lr.Cell, torchs: Any, backend: str) -> None:
    x = leaf(T, B, C)
    got, want = lr.function(cell, dim=0)(x), torchs(x, 0)
    assert_near(got, want)
    weights = torch.randn(T, B, C)
    assert_close(torch.autograd.grad((got * weights).sum(), x), torch.autograd.grad((want * weights).sum(), x), 1e3)


def test_at_a_tie_the_maximum_shares_its_gradient_and_torch_does_not(backend: str) -> None:
    x = torch.ones(2, 1, requires_grad=True)
    for y, want in ((lr.function(cells.cummax, dim=0)(x), [0.5, 0.5]), (torch.cummax(x, 0).values, [0.0, 1.0])):
        assert torch.autograd.grad(y[1, 0], x)[0].flatten().tolist() == want


# Each other


def episode() -> dict[str, Tensor]:
    """Rewards, values of the states, and discounts, 0 where an episode ends."""
    return {"reward": torch.randn(T, B, C), "value": torch.randn(T, B, C), "discount": 0.9 * (torch.rand(T, B, C) > 0.1)}


def test_an_advantage_is_a_lambda_return_without_the_value(quick: None) -> None:
    e, end = episode(), torch.randn(B, C)
    after = torch.cat([e["value"][1:], end[None]])
    advantage = lr.function(cells.gae, dim=0)(**e, lam=0.8, init={"value": end})
    returned = lr.function(cells.lambda_return, dim=0)(e["reward"], after, e["discount"], 0.8, init={"G": end})
    assert_near(advantage + e["value"], returned)
    monte_carlo = lr.function(cells.lambda_return, dim=0)(e["reward"], after, e["discount"], 1.0)
    assert_near(lr.function(cells.discounted_return, dim=0)(e["reward"], e["discount"]), monte_carlo)


def test_on_the_policy_v_trace_is_a_lambda_return(quick: None) -> None:
    e, end = episode(), torch.randn(B, C)
    target = lr.function(cells.vtrace(), dim=0)(**e, ratio=torch.ones(T, B, C), lam=0.8, init={"value": end})
    after = torch.cat([e["value"][1:], end[None]])
    assert_near(target, lr.function(cells.lambda_return, dim=0)(e["reward"], after, e["discount"], 0.8, init={"G": end}))


def test_a_rotation_is_a_complex_number(quick: None) -> None:
    x, rho, theta = torch.randn(T, B, C, dtype=torch.complex128), torch.rand(C), torch.randn(C)
    h, want = torch.zeros(B, C, dtype=torch.complex128), []
    for now in x:
        h = torch.polar(rho, theta) * h + now
        want.append(h)
    u, v = lr.function(cells.rotation, dim=0)(x.real.contiguous(), x.imag.contiguous(), rho, theta)
    assert_near(torch.complex(u, v), torch.stack(want))
