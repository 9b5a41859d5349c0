"""Large products on the CPU: each way against float64, the choice between them, and what is left to torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import lrdsl as lr
from lrdsl.errors import BackendUnavailable
from lrdsl.ir.plan import Block
from lrdsl.nn import matmul
from lrdsl.nn.products import product

B, T, K, HEIGHTS = 3, 17, 5, (4, 2)
WEIGHTS = {("f", 0): (4, K), ("g", 0): (2, K)}
BUFFERS = ((Block("f.x", "f", (0,)),), (Block("g.x", "g", (0,)),))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is large enough, a piece is ten samples, and nothing is chosen yet."""
    for name, value in (("LEAST", 1), ("FEW", 1), ("PIECE", 10 * (K + sum(HEIGHTS))), ("SAMPLE", 1), ("_chosen", {})):
        monkeypatch.setattr(matmul, name, value)
    real = matmul.pieces
    monkeypatch.setattr(matmul, "pieces", lambda rows, width: real(rows, width, least=1))
    monkeypatch.delenv("LRDSL_PRODUCTS", raising=False)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the values of a product were made here."""
    calls, real = [0], matmul.forward

    def forward(*args: Any) -> Any:
        calls[0] += 1
        return real(*args)
    monkeypatch.setattr(matmul, "forward", forward)
    return calls


def drawn(dtype: torch.dtype, in_time: bool = False) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
    x = torch.randn(T, B, K, dtype=dtype).transpose(0, 1) if in_time else torch.randn(B, T, K, dtype=dtype)
    return x.requires_grad_(), {k: torch.randn(s, dtype=dtype).requires_grad_() for k, s in WEIGHTS.items()}


def multiplied(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    return product(x, dict(zip(WEIGHTS, weights, strict=True)), BUFFERS, edges=False)


@pytest.mark.parametrize("in_time", [False, True])
@pytest.mark.parametrize("way, dtype", [("blas", torch.float32), ("onednn", torch.float32), ("blas", torch.float64),
                                        ("onednn", torch.float64)])
def test_values_and_gradients(way: str, dtype: torch.dtype, in_time: bool, monkeypatch: pytest.MonkeyPatch,
                              counted: list[int]) -> None:
    """Of several buffers in several pieces, the last one shorter; float64, which oneDNN has not, is BLAS's then."""
    if way == "onednn" and not matmul.knows_onednn(torch.float32):
        pytest.skip("no oneDNN")
    monkeypatch.setenv("LRDSL_PRODUCTS", way)
    x, weights = drawn(dtype, in_time)
    made = multiplied(x, *weights.values())
    want = [torch.einsum("btk,nk->btn", x.double(), w.double()) for w in weights.values()]
    ups = [torch.randn_like(m) for m in made]
    leaves = [x, *weights.values()]
    found = torch.autograd.grad(made, leaves, ups)
    wanted = torch.autograd.grad(want, leaves, [u.double() for u in ups])
    for a, b in zip((*made, *found), (*want, *wanted), strict=True):
        torch.testing.assert_close(a, b.to(dtype))
    assert counted == [1] and all((m.stride(0) < m.stride(1)) == in_time for m in made)


def test_a_gradient_that_is_not_there() -> None:
    """A buffer that nobody reads has none; what is not asked for is not made."""
    x, weights = drawn(torch.float32)
    _, second = multiplied(x, *weights.values())
    gx, *gw = torch.autograd.grad(second.sum(), [x, *weights.values()])
    assert not gw[0].any() and torch.allclose(gw[1], x.sum((0, 1)).expand(2, K), atol=1e-5)
    torch.testing.assert_close(gx, weights["g", 0].sum(0).expand(B, T, K))
    made = multiplied(x.detach(), *weights.values())
    assert made[0].requires_grad and not multiplied(x.detach(), *(w.detach() for w in weights.values()))[0].requires_grad


def test_derivatives_of_every_order(counted: list[int]) -> None:
    x, weights = drawn(torch.float64)
    x, rest = x[:1, :3].detach().requires_grad_(), tuple(weights.values())
    assert torch.autograd.gradcheck(multiplied, (x, *rest)) and torch.autograd.gradgradcheck(multiplied, (x, *rest))
    assert counted[0] > 2


@pytest.mark.parametrize("batched", [False, True])
def test_many_gradients_at_once(batched: bool) -> None:
    """torch.func.vmap over a backward pass, and the older one of torch.autograd."""
    x, weights = drawn(torch.float64)
    y, leaves = multiplied(x, *weights.values())[0], [x, *weights.values()]
    ups = torch.randn(4, *y.shape)
    one: Callable[[Tensor], tuple[Any, ...]] = lambda up: torch.autograd.grad(y, leaves[:2], up, retain_graph=True)
    found = torch.autograd.grad(y, leaves[:2], ups, is_grads_batched=True, retain_graph=True) if batched else \
        torch.func.vmap(one)(ups)
    for a, b in zip(found, map(torch.stack, zip(*(one(up) for up in ups), strict=True)), strict=True):
        torch.testing.assert_close(a, b)


def test_what_is_left_to_torch(counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever looks at the operations themselves sees F.linear."""
    x, weights = drawn(torch.float64)
    rest = tuple(weights.values())
    want, plain = multiplied(x, *rest), (x.detach(), *(w.detach() for w in rest))
    done = counted[0]
    for got in (torch.func.vmap(multiplied, (0, None, None))(x.unsqueeze(0), *rest)[0].squeeze(0),
                torch.func.jvp(multiplied, plain, plain)[0][0],
                multiplied(x.bfloat16(), *(w.bfloat16() for w in rest))[0],
                torch.compile(multiplied, backend="aot_eager", fullgraph=True)(x, *rest)[0]):
        assert torch.allclose(got.to(x.dtype), want[0], rtol=0.1, atol=0.1)
    with FlopCounterMode(display=False) as flops:
        multiplied(x, *rest)
    with torch.autocast("cpu", torch.bfloat16):
        assert multiplied(x.float(), *(w.float() for w in rest))[0].dtype is torch.bfloat16
    monkeypatch.setenv("LRDSL_PRODUCTS", "linear")
    multiplied(x, *rest)
    assert flops.get_total_flops() == 2 * B * T * K * sum(HEIGHTS) and counted[0] == done


def test_small_products_are_left_to_torch(counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = drawn(torch.float32)
    for name in ("LEAST", "FEW"):
        with monkeypatch.context() as patch:
            patch.setattr(matmul, name, 1 << 20)
            multiplied(x, *weights.values())
    assert counted == [0] and not matmul._chosen


def test_a_class_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the state of torch's generator is what it was; the default device is not asked."""
    seen: list[tuple[Any, ...]] = []

    def measured(*what: Any) -> matmul.Way:
        seen.append(what)
        return matmul.blas
    monkeypatch.setattr(matmul, "measured", measured)
    for k, n in ((9, 33), (15, 60), (9, 64)):
        assert matmul.way("samples", k, n, torch.float32) is matmul.blas
    assert seen == [("samples", 9, 33, torch.float32), ("samples", 9, 64, torch.float32)]
    before = torch.get_rng_state()
    monkeypatch.undo()
    with torch.device("meta"):
        assert matmul.measured("weight", 8, 4, torch.float32) in matmul.WAYS.values()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("size", "found"), [(1e-5, "onednn"), (1e-2, "blas")])
def test_what_is_slow_at_first_is_measured_until_it_is_not(size: float, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As oneDNN is for three rounds or four. Of large products three rounds are all there is time for."""
    if not matmul.knows_onednn(torch.float32):
        pytest.skip("no oneDNN")
    costs = {"blas": iter([1.0] * 10), "onednn": iter([3.0, 2.0, 1.0, 1.0, *[0.7] * 6])}
    monkeypatch.setattr(matmul, "_clock", lambda times, *_: size * next(costs[times.__name__]))
    assert matmul.measured("samples", 8, 4, torch.float32) is matmul.WAYS[found]


@pytest.mark.parametrize("kind", ["samples", "gradient", "weight"])
def test_the_fastest_way_is_taken_if_it_is_right(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not matmul.knows_onednn(torch.float32):
        pytest.skip("no oneDNN")
    cost = {"blas": 1.0, "onednn": 0.5}

    def clock(times: Any, *_: Any) -> float:
        return cost[times.__name__]
    monkeypatch.setattr(matmul, "_clock", clock)
    assert matmul.measured(kind, 8, 4, torch.float32) is matmul.onednn
    assert matmul.measured(kind, 8, 4, torch.float64) is matmul.blas, "which oneDNN does not multiply"
    cost["onednn"] = 0.95
    assert matmul.measured(kind, 8, 4, torch.float32) is matmul.blas, "a little faster may be chance"
    cost["onednn"] = 0.5

    def wrong(a: Tensor, b: Tensor, out: Tensor, add: bool) -> None:
        out.copy_(a @ b + 1)

    def gone(*_: Any) -> None:
        raise RuntimeError("no such operator")
    for other in (wrong, gone):
        monkeypatch.setitem(matmul.WAYS, "onednn", other)
        assert matmul.measured(kind, 8, 4, torch.float32) is matmul.blas


def test_the_choice_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "measured", lambda *_: pytest.fail("measured"))
    for name in matmul.WAYS:
        monkeypatch.setenv("LRDSL_PRODUCTS", name)
        assert matmul.way("samples", 8, 4, torch.float32).__name__ == (name if matmul.knows_onednn(torch.float32) else "blas")
    monkeypatch.setenv("LRDSL_PRODUCTS", "mkl")
    with pytest.raises(BackendUnavailable, match="LRDSL_PRODUCTS is 'mkl'"):
        matmul.way("samples", 8, 4, torch.float32)
    monkeypatch.delenv("LRDSL_PRODUCTS")
    torch.use_deterministic_algorithms(True)
    try:
        assert matmul.way("samples", 8, 4, torch.float32) is matmul.blas, "what is measured may differ in another process"
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["sru", "gilr_lstm"])
def test_a_layer_is_the_same(name: str, counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """With large products and without, two layers deep, in both layouts."""
    for first in (False, True):
        layer = lr.RNN(getattr(lr.cells, name), 6, 6, 2, batch_first=first)
        x = torch.randn(7, 9, 6, requires_grad=True)
        leaves, up = [x, *layer.parameters()], torch.randn(7, 9, 6)
        found = []
        for way in ("", "linear"):
            monkeypatch.setenv("LRDSL_PRODUCTS", way)
            y, after = layer(x)
            last = after if isinstance(after, tuple) else (after,)
            found.append([y, *torch.autograd.grad([y, *last], leaves, [up, *map(torch.ones_like, last)])])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b)
    assert counted[0] >= 4


def test_pieces_cover_the_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for rows, width in ((1, 1), (5000, 1 << 20), (100_000, 100)):
        found = [k for at in matmul.pieces(rows, width) for k in range(*at.indices(rows))]
        assert found == list(range(rows))


def test_linear_is_f_linear() -> None:
    x, weight = torch.randn(B, T, K), torch.randn(6, K)
    for a, b in zip(matmul.linear(x, weight, HEIGHTS), F.linear(x, weight).split(HEIGHTS, 2), strict=True):
        torch.testing.assert_close(a, b)
