"""SRU against the loop over its equations, its polarity, and the package of its authors."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import lrdsl as lr
from lrdsl import sigmoid, t
from lrdsl.cells import sru
from lrdsl.cells.sru_v2 import with_highway_bias
from tests import truth
from tests.cells.both_ways import (
    B,
    H,
    T,
    check_both_ways,
    check_nan_stays_behind,
    check_two_layers,
    check_whole_is_chunked_is_stepped,
    set_map,
)
from tests.nn.compare import assert_close, gradients, leaf, parameters


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_it_is_its_equations(given: bool, resets: bool, backend: str) -> None:
    check_both_ways(sru, H, truth.sru, given, resets)


def test_layers(quick: None) -> None:
    check_two_layers(sru, H, truth.sru)


def test_whole_is_chunked_is_stepped(quick: None) -> None:
    after = check_whole_is_chunked_is_stepped(sru, H)
    assert list(after.now) == ["layers.0.c", "layers.1.c"], "gates of x[t] alone: no earlier input is carried"


def test_what_is_learned(quick: None) -> None:
    shapes = {n: tuple(p.shape) for n, p in parameters(lr.RNN(sru, H, H)).items()}
    assert shapes == {"forget.weight": (H, H), "forget.bias": (H,), "highway.weight": (H, H), "highway.bias": (H,),
                      "update.weight": (H, H)}


def test_polarity(quick: None) -> None:
    """Each gate wide open and shut: f keeps the old c, 1 - f lets the new one in, r takes tanh(c), 1 - r takes x."""
    layer, x, h_0 = lr.RNN(sru, H, H, batch_first=True), torch.randn(B, T, H), 2 + torch.rand(1, B, H)
    new = x @ parameters(layer)["update.weight"].T
    for forget, c in ((800.0, h_0[0, :, None].expand(B, T, H)), (-800.0, new)):
        set_map(layer, "forget", forget)
        for highway, want in ((800.0, torch.tanh(c)), (-800.0, x)):
            set_map(layer, "highway", highway)
            y, h_n = layer(x, h_0)
            assert_close((y, h_n[0]), (want, c[:, -1]))


def test_a_boundary_comes_before_its_step(quick: None) -> None:
    layer, x, h_0 = lr.RNN(sru, H, H), torch.randn(T, H), torch.randn(1, H)
    reset = torch.arange(T) == 2
    y, _ = layer(x, h_0, reset=reset)
    assert_close([y], [torch.cat([layer(x[:2], h_0)[0], layer(x[2:], h_0)[0]])])


def test_a_nan_behind_a_boundary_stays_there(quick: None) -> None:
    check_nan_stays_behind(sru, H)


def test_the_highway_needs_x_of_the_hidden_size(quick: None) -> None:
    with pytest.raises(lr.ShapeMismatch, match=r"(?s)sru reads x channel by channel.*hidden size 4, not 3.*sru\.py.*way out"):
        lr.RNN(sru, 3, 4)
    with pytest.raises(lr.ShapeMismatch, match="hidden size 4, not 8"):
        lr.RNN(sru, 4, 4, num_layers=2, bidirectional=True)
    layer, x = lr.RNN(sru, 1, H, batch_first=True), torch.randn(B, T, 1)
    assert_close([layer(x)[0]], [truth.sru(x, parameters(layer), torch.zeros(B, H))[0]])


def test_the_later_sru_is_another_cell() -> None:
    """Lei et al. 2018: gates that read c[t-1] make c no linear recurrence, and are refused."""
    @lr.cell
    def sru_2018(x: lr.Input, c: lr.State, forget: lr.Affine, update: lr.Affine, v: lr.Vector):
        f = sigmoid(forget(x[t]) + v * c[t - 1])
        c[t] = f * c[t - 1] + (1 - f) * update(x[t])
        return c[t]

    with pytest.raises(lr.NotLinear, match=r"c\[t-1\]"):
        lr.RNN(sru_2018, H, H)


def authors(**options: Any) -> Any:
    """A layer of the package `sru`, whose import compiles C++; skips where it is not installed, or does not compile."""
    if importlib.util.find_spec("sru") is None:
        pytest.skip("the package sru is not installed")
    try:
        return importlib.import_module("sru").SRUCell(H, H, **options)
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"the package sru does not load here: {error}")


def with_weights_of(layer: lr.RNN, x: Tensor, c0: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """What the authors' layer makes of x (T, B, H) with our weights, of sru or of sru_v2: h (T, B, H) and c_last (B, H)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no CUDA, and is surprised to be differentiated on a CPU
        peer, params = authors(**options), parameters(layer)
        weights = [params[f"{name}.weight"].T for name in ("update", "forget", "highway")]
        given = {"weight": torch.stack(weights, 2).reshape(H, 3 * H),  # three numbers of a channel side by side
                 "bias": torch.cat([params["forget.bias"], params["highway.bias"]])}
        if "v_f" in params:
            given["weight_c"] = torch.cat([params["v_f"], params["v_r"]])
        return torch.func.functional_call(peer, given, (x, c0))


@pytest.mark.long
def test_against_the_package_of_its_authors(quick: None) -> None:
    layer, x, h_0 = lr.RNN(sru, H, H), leaf(T, B, H), leaf(1, B, H)
    want = with_weights_of(layer, x, h_0[0], use_tanh=True, v1=True, rescale=False)
    y, h_n = layer(x, h_0)
    assert_close((y, h_n[0]), want)
    leaves = [x, h_0, *layer.parameters()]
    assert_close(gradients((y, h_n[0]), leaves), gradients(want, leaves), 10)


@pytest.mark.long
@pytest.mark.parametrize("other", ["use_tanh", "v1", "rescale"])
def test_each_option_of_the_package_matters(other: str, quick: None) -> None:
    """By default it has no tanh, gates that read c[t-1], and a scaled highway."""
    options = {"use_tanh": True, "v1": True, "rescale": False}
    layer, x, h_0 = lr.RNN(sru, H, H), torch.randn(T, B, H), torch.randn(1, B, H)
    h, _ = with_weights_of(layer, x, h_0[0], **options | {other: not options[other]})
    assert (h - layer(x, h_0)[0]).abs().max() > 1e-2


@pytest.mark.long
@pytest.mark.parametrize("bias", [0.0, -2.0])
def test_the_later_sru_is_the_package_as_it_comes(bias: float, quick: None) -> None:
    """Whose alpha is a float32 number in every dtype: c does not see it, h and gradients have its error."""
    layer, x, h_0 = lr.RNN(with_highway_bias(bias), H, H, solver="sequential"), leaf(T, B, H), leaf(1, B, H)
    for name in ("v_f", "v_r"):
        parameters(layer)[name].data.normal_()
    want = with_weights_of(layer, x, h_0[0], highway_bias=bias)
    y, h_n = layer(x, h_0)
    assert_close([h_n[0]], [want[1]])
    assert_close([y], [want[0]], 1e6)
    leaves = [x, h_0, *layer.parameters()]
    assert_close(gradients((y, h_n[0]), leaves), gradients(want, leaves), 1e6)
