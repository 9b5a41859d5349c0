"""Layouts, broadcasting and options of `lr.function` and `lr.linear_scan`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lrdsl as lr
from lrdsl import t
from tests import truth
from tests.nn.cells import ahead, around, order2, smooth
from tests.nn.compare import assert_close, gradients, leaf

B, T, C = 2, 5, 3


@pytest.mark.parametrize("shape, dim", [((T, C), 0), ((T, B, C), 0), ((B, T, C), 1), ((B, T, C), -2), ((2, 3, T, C), 2),
                                        ((2, T, 3, C), 1), ((T, 2, 3, C), 0), ((2, 2, T, 2, C), -3)], ids=str)
def test_time_stands_anywhere(shape: tuple[int, ...], dim: int, backend: str) -> None:
    a, b = leaf(*shape), leaf(*shape)
    batch = [n for k, n in enumerate(shape[:-1]) if k != dim % len(shape)]
    h, reset = leaf(*batch, C), torch.rand(shape[:-1]) < 0.3
    y, carry = lr.function(lr.cells.linear_scan, dim)(a, b, init={"h": h}, reset=reset, return_state=True)

    def flat(x: Tensor) -> Tensor:
        return x.movedim(dim % len(shape), len(shape) - 2).reshape(-1, T, *([C] if x.dim() == len(shape) else []))

    want = truth.linear_scan(flat(a), flat(b), h.reshape(-1, C), flat(reset))
    assert y.shape == a.shape
    assert_close([flat(y), carry.now["h"][:, 0]], [want, want[:, -1]])
    assert_close(gradients([flat(y)], [a, b, h]), gradients([want], [a, b, h]))


@pytest.mark.parametrize("reverse", [False, True])
def test_linear_scan_is_the_papers(reverse: bool, backend: str) -> None:
    a, b, h = leaf(B, T, C), leaf(B, T, C), leaf(B, C)
    got, want = lr.linear_scan(a, b, h, reverse=reverse), truth.linear_scan(a, b, h, reverse=reverse)
    assert_close([got], [want])
    assert_close(gradients([got], [a, b, h]), gradients([want], [a, b, h]))
    assert_close([lr.linear_scan(a, b, 0.5, reverse=reverse)], [lr.linear_scan(a, b, torch.full((B, C), 0.5), reverse=reverse)])
    assert_close([lr.linear_scan(a.mT, b.mT, dim=-2)], [truth.linear_scan(a.mT, b.mT)])


def test_one_stands_for_all(backend: str) -> None:
    a, b = leaf(B, T, 1), leaf(1, T, C)
    for x, y in ((a, b), (b, a)):
        got = lr.linear_scan(x, y)
        want = truth.linear_scan(x.expand(B, T, C), y.expand(B, T, C))
        assert_close([got], [want])
        assert_close(gradients([got], [a, b]), gradients([want], [a, b]))
    f, x = lr.function(smooth), leaf(B, T, C)
    assert_close(f(x, 0.5, 2.0), f(x, torch.full((C,), 0.5), torch.tensor(2.0)))
    assert_close(f(x, torch.tensor([0.5]), torch.tensor([2.0])), f(x, 0.5, 2))
    assert_close(f(x, s=2.0, v=0.5), f(x, 0.5, 2.0))
    assert_close(f(x, 0.5, 2.0, init={"h": torch.ones(C)}), f(x, 0.5, 2.0, init={"h": 1.0}))


def test_edges_of_deeper_lags_and_of_inputs(backend: str) -> None:
    a, b, y0 = leaf(B, T, C), leaf(B, T, C), leaf(B, C, 2)
    zero = torch.zeros(B, 1, C)

    def earlier(x: Tensor, k: int) -> Tensor:
        return torch.cat([zero.expand(B, k, C), x[:, :T - k]], 1)

    got = lr.function(order2)(a, b, init={"y": y0, "a": 0.0, "b": torch.zeros(B, C, 2)})
    want = truth.second_order(a, b, torch.tanh(earlier(a, 1) * earlier(b, 2)), y0.transpose(1, 2))
    assert_close([got], [want])
    r = torch.randn(B, T, C)
    assert_close(lr.function(around)(r, 0.5, 1.0, init={"r.ahead": 1.0, "r": 0.0})[:1],
                 lr.function(around)(r, 0.5, 1.0, init={"r.ahead": 1.0})[:1])
    x = torch.randn(B, T, C)
    longer = torch.cat([x, torch.ones(B, 2, C)], 1)
    assert_close([lr.function(ahead)(x, init={"x": 1.0})], [lr.function(ahead)(longer)[:, :T]])


def test_nothing_to_do(backend: str) -> None:
    for shape in ((B, 0, C), (0, T, C), (B, T, 0)):
        a, h = leaf(*shape), leaf(shape[0], shape[2])
        y, carry = lr.function(lr.cells.linear_scan)(a, a, init={"h": h}, return_state=True)
        assert y.shape == shape
        assert_close(torch.autograd.grad(y.sum() + carry.now["h"].sum(), [a, h]),
                     [torch.zeros(shape), torch.ones_like(h) if shape[1] == 0 else torch.zeros_like(h)])
    layer = lr.RNN(lr.cells.gilr_lstm, C, C)
    h_0 = torch.randn(1, B, C), torch.randn(1, B, C)
    y, h_n = layer(torch.randn(0, B, C), h_0)
    assert y.shape == (0, B, C)
    assert_close(h_n, h_0)


def test_a_nan_behind_a_boundary_stays_there(backend: str) -> None:
    a, b = torch.rand(1, 6, 1), torch.rand(1, 6, 1)
    b[0, 2] = a[0, 1] = float("nan")
    a.requires_grad_(), b.requires_grad_()
    reset = torch.tensor([[False, False, False, True, False, False]])
    y = lr.function(lr.cells.linear_scan)(a, b, reset=reset)
    assert y[0, 3:].isfinite().all() and y[0, 1:3].isnan().all()
    ga, gb = torch.autograd.grad(y[0, 3:].sum(), [a, b])
    assert ga[0, 3:].isfinite().all() and gb[0, 3:].isfinite().all()


def test_float32(backend: str) -> None:
    a, b = torch.rand(B, T, C), torch.rand(B, T, C)
    y = lr.linear_scan(a.float(), b.float())
    assert y.dtype == torch.float32 and (y - truth.linear_scan(a, b)).abs().max() < 1e-5


def test_outputs_come_as_the_cell_returns_them() -> None:
    @lr.cell
    def named(x: lr.Input, h: lr.State):
        h[t] = 0.5 * h[t - 1] + x[t]
        return {"double": 2 * h[t], "memory": h[t]}

    y = lr.function(named)(torch.ones(1, 3, 1))
    assert {n: o.flatten().tolist() for n, o in y.items()} == {"double": [2.0, 3.0, 3.5], "memory": [1.0, 1.5, 1.75]}
    layer = lr.RNN(named, 1, 1, num_layers=2)
    y, carry = layer(torch.ones(3, 1, 1), return_state=True)
    step, _ = layer.step(torch.ones(1, 1), carry)
    assert list(y) == list(step) == ["double", "memory"] and step["memory"].shape == (1, 1)
