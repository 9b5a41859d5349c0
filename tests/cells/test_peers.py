"""Cells of the zoo beside torch's layers and minGRU-pytorch, with the same weights: values and gradients.

A test is skipped where its package is not installed. What differs is in docs/differences.md.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

import lrdsl as lr
from lrdsl import cells, sigmoid, t, tanh, where
from tests.cells.peers import peer
from tests.nn.compare import assert_close, gradients, leaf, parameters

T, B, H = 13, 2, 4


@pytest.fixture(autouse=True)
def native(quick: None) -> None:
    """What is compared here does not depend on the backend."""


# torch


@lr.cell
def lstm(x: lr.Input, h: lr.State, c: lr.State, enter: lr.Affine, forget: lr.Affine, update: lr.Affine, leave: lr.Affine):
    """torch's LSTM, which has a tanh on c, with its maps in torch's order."""
    i, f, o = (sigmoid(W(x[t], h[t - 1])) for W in (enter, forget, leave))
    c[t] = f * c[t - 1] + i * tanh(update(x[t], h[t - 1]))
    h[t] = o * tanh(c[t])
    return h[t]


@pytest.mark.parametrize("steps", [T, 1])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_where_a_surrogate_is_no_approximation(kind: str, steps: int) -> None:
    """The layer is torch's where no map reads the surrogate, and at the first step, where it still is the h_0 that was given.

    torch's GRU multiplies r into U h, the paper, and ours, into h: that is the same for a U that is diagonal, without a bias.
    """
    cell, names = {"LSTM": (lr.surrogate(lstm, h=cells.gilr), ("enter", "forget", "update", "leave")),
                   "GRU": (cells.gilr_gru, ("reset", "update", "candidate"))}[kind]
    layer, other = lr.RNN(cell, H, H), getattr(nn, kind)(H, H)
    recurrent = torch.zeros(H, H) if steps == T else torch.randn(H, H) if kind == "LSTM" else torch.randn(H).diag()
    weights, biases = ([parameters(layer)[f"{n}.{which}"] for n in names] for which in ("weight", "bias"))
    for w in weights:
        w.data[:, H:] = recurrent
    joined = torch.cat(weights)
    given = {"weight_ih_l0": joined[:, :H], "weight_hh_l0": joined[:, H:], "bias_ih_l0": torch.cat(biases),
             "bias_hh_l0": torch.zeros(len(names) * H)}
    x, h, c = leaf(steps, B, H), leaf(1, B, H), leaf(1, B, H)
    got, _ = layer(x, (c, h) if kind == "LSTM" else (h, h))
    want, _ = torch.func.functional_call(other, given, (x, (h, c) if kind == "LSTM" else h))
    assert_close([got], [want], 10)
    leaves = [x, h, *([c] if kind == "LSTM" else []), *biases, *weights]
    read = 2 * H if (kind, steps) == ("LSTM", 1) else H  # recurrent weights where they see the same, in the same order
    assert_close(*([g[..., :read] for g in gradients([y], leaves)] for y in (got, want)), 100)


# minGRU-pytorch: in log space, with a candidate that a function makes positive


def positive(n):  # type: ignore[no-untyped-def]
    """The function g of the paper's appendix B.3."""
    return where(n >= 0, n + 0.5, sigmoid(n))


@lr.cell
def mingru_positive(x: lr.Input, h: lr.State, new: lr.Affine = lr.Affine(bias=False),
                    update: lr.Affine = lr.Affine(bias=False)):
    z = sigmoid(update(x[t]))
    h[t] = (1 - z) * h[t - 1] + z * positive(new(x[t]))
    return h[t]


@lr.cell
def minlstm_positive(x: lr.Input, h: lr.State, new: lr.Affine = lr.Affine(bias=False),
                     forget: lr.Affine = lr.Affine(bias=False), enter: lr.Affine = lr.Affine(bias=False)):
    f, i = sigmoid(forget(x[t])), sigmoid(enter(x[t]))
    h[t] = f / (f + i) * h[t - 1] + i / (f + i) * positive(new(x[t]))
    return h[t]


def package(name: str, weights: list[Tensor]) -> Callable[..., Tensor]:
    """Its layer, with one matrix for all maps."""
    other = getattr(peer(f"minGRU_pytorch.{name}"), name)(H)
    (its,) = dict(other.named_parameters())
    return lambda *given: torch.func.functional_call(other, {its: torch.cat(weights)}, given)


def weights_of(layer: lr.RNN) -> list[Tensor]:
    """In the order of the package."""
    p = parameters(layer)
    return [p[f"{n}.weight"] for n in ("new", "update", "forget", "enter") if f"{n}.weight" in p]


@pytest.mark.parametrize(("name", "cell"), [("minGRU", mingru_positive), ("minLSTM", minlstm_positive)])
@pytest.mark.parametrize("given", [False, True])
def test_mingru_and_minlstm_with_a_positive_candidate(name: str, cell: lr.Cell, given: bool) -> None:
    """The package's minLSTM, given an h_0, goes on from g(h_0); its minGRU from h_0, as both do here."""
    layer, x, h_0 = lr.RNN(cell, H, H, batch_first=True), leaf(B, T, H), torch.rand(1, B, H, requires_grad=True)
    ours, start = weights_of(layer), h_0 + 0.5 if name == "minLSTM" else h_0
    want = package(name, ours)(x, *([h_0[0][:, None]] if given else []))
    got, _ = layer(x, start if given else None)
    assert_close([got], [want], 100)
    leaves = [x, *ours, *([h_0] if given else [])]
    assert_close(gradients([got], leaves), gradients([want], leaves), 1000)


@pytest.mark.parametrize(("name", "cell"), [("minGRU", cells.mingru), ("minLSTM", cells.minlstm)])
def test_mingru_and_minlstm_where_all_candidates_are_positive(name: str, cell: lr.Cell) -> None:
    """There g(n) = n + 1/2: the cells of the zoo are the package's, with biases of 1/2 for the candidate, 0 for the gates."""
    layer, x = lr.RNN(cell, H, H, batch_first=True), torch.rand(B, T, H, requires_grad=True)
    p, ours = parameters(layer), weights_of(layer)
    p["new.weight"].data.abs_()
    for n in cell.spec.names("affine"):
        p[f"{n}.bias"].data.fill_(0.5 if n == "new" else 0.0)
    got, want = layer(x)[0], package(name, ours)(x)
    assert_close([got], [want], 100)
    assert_close(gradients([got], [x, *ours]), gradients([want], [x, *ours]), 1000)


@pytest.mark.parametrize("steps", [1000, 30_000])
def test_log_space_loses_digits_with_length_and_a_scan_does_not(steps: int) -> None:
    """Both in float32, beside a loop in float64: the scan's error is a few roundings of values below 4."""
    layer, x = lr.RNN(mingru_positive, H, H, batch_first=True), torch.randn(1, steps, H)
    new, update = weights_of(layer)
    with torch.no_grad():
        n, z = linear(x, new), torch.sigmoid(linear(x, update))
        n, h, exact = torch.where(n >= 0, n + 0.5, torch.sigmoid(n)), torch.zeros(1, H), []
        for s in range(steps):
            h = h + z[:, s] * (n[:, s] - h)
            exact.append(h)
        theirs = package("minGRU", [new.float(), update.float()])(x.float())
        ours, _ = layer.float()(x.float())
        worse, better = ((y - torch.stack(exact, 1)).abs().max() for y in (theirs, ours))
    assert better < 1e-6 and worse > 1e-8 * steps
