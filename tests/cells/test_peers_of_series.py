"""Filters, forecasts and returns beside public implementations: values, and gradients where those have them.

A test is skipped where its package is not installed. What differs is in docs/differences.md. scipy is in test_public.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lrdsl as lr
from lrdsl import cells
from tests.cells.peers import peer, quietly
from tests.nn.compare import assert_close, gradients, leaf

T, C = 40, 3


@pytest.fixture(autouse=True)
def native(quick: None) -> None:
    """What is compared here does not depend on the backend."""


def assert_near(got: Tensor, want: Any, scale: float = 10) -> None:
    assert_close([got], [torch.tensor(np.asarray(want))], scale)


# statsmodels


def test_an_average_is_statsmodels_simple_smoothing() -> None:
    """Its fitted value of t is what we have at t-1, the forecast of x[t]."""
    models, x = peer("statsmodels.tsa.holtwinters"), torch.randn(T).cumsum(0)
    fit = quietly(lambda: models.SimpleExpSmoothing(x.numpy(), "known", 0.7).fit(0.3, optimized=False))
    h = lr.function(cells.ema, dim=0)(x[:, None], torch.tensor(0.3), init={"h": 0.7})[:, 0]
    assert_near(h, fit.level)
    assert_near(torch.cat([torch.tensor([0.7]), h]), np.append(fit.fittedvalues, fit.forecast(1)))


def test_holt_winters_is_statsmodels_holt() -> None:
    models, x = peer("statsmodels.tsa.holtwinters"), torch.randn(T).cumsum(0)
    model = quietly(lambda: models.Holt(x.numpy(), initialization_method="known", initial_level=0.7, initial_trend=-0.2))
    fit = quietly(lambda: model.fit(smoothing_level=0.6, smoothing_trend=0.3, optimized=False))
    run, parameters = lr.function(cells.holt_winters, dim=0), (torch.tensor(0.6), torch.tensor(0.3))
    y, left = run(x[:, None], *parameters, init={"level": 0.7, "trend": -0.2}, return_state=True)
    assert_near(torch.cat([torch.tensor([0.5]), y[:, 0]]), np.append(fit.fittedvalues, fit.forecast(1)))
    assert_near(torch.stack([left.now[n].flatten() for n in ("level", "trend")])[:, 0], [fit.level[-1], fit.trend[-1]])


def test_a_kalman_filter_is_statsmodels_in_its_steady_state() -> None:
    """A local level and a decay, whose gain has converged after some steps: the filtered states after that."""
    space, x, warm = peer("statsmodels.tsa.statespace.kalman_filter"), torch.randn(100, 1), 50
    filtering = space.KalmanFilter(1, 1, design=[[2.0]], obs_cov=[[0.5]], transition=[[0.9]], selection=[[1.0]],
                                   state_cov=[[0.2]], initialization="stationary", tolerance=0.0)
    filtering.bind(x.numpy().copy())
    result = filtering.filter()
    gain = result.predicted_state_cov[0, 0, -1] * 2 / result.forecasts_error_cov[0, 0, -1]
    got = lr.function(cells.kalman, dim=0)(x[warm:], *(torch.tensor(v) for v in (gain, 0.9, 2.0)),
                                           init={"x": float(result.filtered_state[0, warm - 1])})
    assert_near(got[:, 0], result.filtered_state[0, warm:], 100)


# torchaudio: without its extension it has a loop in torch, and no backward pass, because that writes over what it saved


@pytest.fixture
def torchaudio() -> tuple[Any, bool]:
    """Its functions, and whether they have gradients."""
    return peer("torchaudio.functional"), peer("torchaudio._extension")._IS_TORCHAUDIO_EXT_AVAILABLE


def test_a_biquad_is_torchaudios(torchaudio: tuple[Any, bool]) -> None:
    filters, differentiable = torchaudio
    x, b, a = leaf(T, C), leaf(3), (torch.randn(2) / 4).requires_grad_()
    want = filters.lfilter(x.T, torch.cat([torch.ones(1), a]), b, clamp=False).T
    got = lr.function(cells.biquad, dim=0)(x, *b, *a)
    assert_close([got], [want], 10)
    if differentiable:
        assert_close(gradients([got], [x, b, a]), gradients([want], [x, b, a]), 100)


@pytest.mark.parametrize("order", [1, 5])
def test_a_filter_is_torchaudios(order: int, torchaudio: tuple[Any, bool]) -> None:
    filters, differentiable = torchaudio
    x, b, a = leaf(T, C), torch.randn(order + 1), torch.cat([torch.tensor([1.5]), torch.randn(order) / order])
    want, got = filters.lfilter(x.T, a, b, clamp=False).T, lr.function(cells.lfilter(b.tolist(), a.tolist()), dim=0)(x)
    assert_close([got], [want], 10)
    if differentiable:
        assert_close(gradients([got], [x]), gradients([want], [x]), 100)


# rlax: time alone, its r_t and discount_t those after step t-1, as ours of step t


@pytest.fixture
def rlax() -> Iterator[Any]:
    """In float64."""
    jax = peer("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield peer("rlax")
    jax.config.update("jax_enable_x64", before)


def episode() -> dict[str, Tensor]:
    """Rewards, discounts (0 where an episode ends), values of all T + 1 states, ratios."""
    return {"reward": leaf(T), "discount": (0.9 * (torch.rand(T) > 0.1)).requires_grad_(), "values": leaf(T + 1),
            "ratio": (2 * torch.rand(T)).requires_grad_(), "lam": torch.tensor(0.8, requires_grad=True)}


def assert_theirs(got: Tensor, leaves: list[Tensor], theirs: Any) -> None:
    """Values, and gradients of a weighted sum, of a function of the same tensors in jax."""
    jax = peer("jax")
    weights = np.random.default_rng(0).normal(size=T)
    given = [jax.numpy.asarray(v.detach().numpy()) for v in leaves]
    assert_near(got, theirs(*given))
    want = jax.grad(lambda *v: (theirs(*v) * weights).sum(), argnums=range(len(given)))(*given)
    for ours, other in zip(torch.autograd.grad((got * torch.tensor(weights)).sum(), leaves), want, strict=True):
        assert_near(ours, other, 100)


def test_discounted_returns_are_rlaxs(rlax: Any) -> None:
    e = episode()
    reward, discount, end = e["reward"], e["discount"], e["values"][-1].detach().requires_grad_()
    got = lr.function(cells.discounted_return, dim=0)(reward[:, None], discount[:, None], init={"G": end.reshape(1)})[:, 0]
    assert_theirs(got, [reward, discount, end], rlax.discounted_returns)


def test_lambda_returns_are_rlaxs(rlax: Any) -> None:
    """Which go on from the last value; ours from 0 unless that is given."""
    e = episode()
    after = e["values"][1:].detach().requires_grad_()
    got = lr.function(cells.lambda_return, dim=0)(e["reward"][:, None], after[:, None], e["discount"][:, None], e["lam"],
                                                  init={"G": after[-1:]})[:, 0]
    assert_theirs(got, [e["reward"], e["discount"], after, e["lam"]], rlax.lambda_returns)


def test_advantages_are_rlaxs(rlax: Any) -> None:
    e = episode()
    reward, values, discount = e["reward"], e["values"], e["discount"]
    got = lr.function(cells.gae, dim=0)(reward[:, None], values[:-1, None], discount[:, None], e["lam"],
                                        init={"value": values[-1:]})[:, 0]
    assert_theirs(got, [reward, discount, e["lam"], values], rlax.truncated_generalized_advantage_estimation)


@pytest.mark.parametrize("rho_bar", [1.0, 1.5])
def test_v_trace_is_rlaxs(rho_bar: float, rlax: Any) -> None:
    """Which gives targets less values, cuts c at 1, and lets no gradient through the targets unless asked to."""
    e = episode()
    values = e["values"]
    got = lr.function(cells.vtrace(rho_bar), dim=0)(e["reward"][:, None], values[:-1, None], e["ratio"][:, None],
                                                    e["discount"][:, None], e["lam"], init={"value": values[-1:]})[:, 0]
    assert_theirs(got - values[:-1], [e["reward"], values, e["ratio"], e["discount"], e["lam"]], lambda r, v, rho, gamma, lam:
                  rlax.vtrace(v[:-1], v[1:], r, gamma, rho, lam, rho_bar, stop_target_gradients=False))
