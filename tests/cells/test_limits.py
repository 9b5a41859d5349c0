"""Where the equations of a cell, typed in as they stand, would give no number or a wrong one; what the factories refuse; and
where parameters begin."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath as mp
import pytest
import torch
from torch import Tensor, nn

import lrdsl as lr
from lrdsl import cells
from lrdsl.cells.discretisation import METHODS
from lrdsl.cells.rglru import bounded_root
from tests.cells.both_ways import set_map
from tests.cells.zoo import BOUND
from tests.nn.compare import assert_close, leaf, parameters

T, B, H = 6, 2, 4


@pytest.fixture(autouse=True)
def native(quick: None) -> None:
    """What is tested here does not depend on the backend."""


# Numbers


def test_minlstm_with_both_gates_shut_is_a_mean() -> None:
    """f = i = exp(-800) is 0 in every dtype, and 0/0 no number; the limit is the logits' difference."""
    layer, x = lr.RNN(cells.minlstm, H, H), torch.randn(T, B, H)
    for gate in ("forget", "enter"):
        set_map(layer, gate, -800.0)
    new = nn.functional.linear(x, *(parameters(layer)[f"new.{n}"] for n in ("weight", "bias")))
    y, h = layer(x)[0], torch.zeros(B, H)
    for got, now in zip(y, new, strict=True):
        h = (h + now) / 2
        assert_close([got], [h])
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rglru_that_forgets_nothing_has_a_bounded_slope(dtype: torch.dtype) -> None:
    """Lambda = -800: a is 1, the root's derivative infinite; recurrentgemma's is 1000, and so is the gradient of order two."""
    layer, x = lr.RNN(cells.rglru, H, H, dtype=dtype), torch.randn(T, B, H, dtype=dtype, requires_grad=True)
    parameters(layer)["Lambda"].data.fill_(-800.0)
    first = torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()), create_graph=True)
    assert all(g.isfinite().all() for g in first)
    assert all(g.isfinite().all() for g in torch.autograd.grad(sum(g.sum() for g in first), [x]))


@pytest.mark.parametrize(("u", "slope"), [(0.0, 1000.0), (1e-7, 1000.0), (1.0, 0.5)])
def test_the_bounded_root(u: float, slope: float) -> None:
    @lr.cell
    def rooted(x: lr.Input, h: lr.State):
        h[lr.t] = 0.5 * h[lr.t - 1] + bounded_root(x[lr.t])
        return h[lr.t]

    x = torch.full((1, 1, 1), u, requires_grad=True)
    y = lr.function(rooted)(x)
    assert_close([y], [x.detach().sqrt()])
    assert_close(torch.autograd.grad(y.sum(), x), [torch.full((1, 1, 1), slope)])


def held(z: complex, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """By a cell's kernels: (exp(z) - 1) / z, what enters in one step of zero-order hold with A = z and d = 1; its slope."""
    @lr.cell
    def entering(x: lr.Input, A: lr.Vector = lr.Vector(complex=True), h: lr.State = lr.State(complex=True)):
        decay, enter = METHODS["zoh"](A, 1)
        h[lr.t] = decay * h[lr.t - 1] + enter * x[lr.t]
        return lr.re(h[lr.t]), lr.im(h[lr.t])

    A = torch.tensor([z], dtype=torch.promote_types(dtype, torch.complex32), requires_grad=True)
    real, imag = lr.function(entering)(torch.ones(1, 1, 1, dtype=dtype), A)
    slope = torch.autograd.grad(real.sum(), A)[0]  # d re / d conj(z), as torch has it: the conjugate of the derivative
    return torch.complex(real, imag).flatten().detach(), slope.conj()


@pytest.mark.parametrize("z", [0, 1e-9 + 1e-9j, -1e-5 + 2e-5j, 9e-5j, 1.1e-4, -3e-3 + 9.9e-3j, 0.011, -0.3 + 2j, 40j, -50 + 3j])
def test_zero_order_hold_keeps_its_digits_near_0(z: complex) -> None:
    """exp(z) - 1 has lost them: of z = 1e-5 in float32 all but two, and at 0 there is no quotient."""
    with mp.workdps(40):
        want = mp.mpf(1) if z == 0 else mp.expm1(mp.mpc(z)) / z
        slope = mp.mpf(1) / 2 if z == 0 else (mp.exp(mp.mpc(z)) - want) / z
    for dtype, allowed in ((torch.float64, 1e-11), (torch.float32, 2e-6)):
        got, rise = held(z, dtype)
        assert abs(complex(got) - complex(want)) <= allowed * abs(want)
        assert abs(complex(rise) - complex(slope)) <= 100 * allowed * abs(slope)


@pytest.mark.parametrize("name", ["slstm", "slstm_exp", "rwkv4_wkv", "mlstm_normaliser"])
def test_large_exponents_overflow_nothing(name: str) -> None:
    """Gates of exp(1000), in float32: a common factor of numerator and denominator, or of what is scaled by it."""
    cell = BOUND[name].cell
    if name == "rwkv4_wkv":
        k, v = torch.randn(B, T, H), torch.randn(B, T, H)
        w, u = torch.rand(H), torch.randn(H)
        low, high = (lr.function(cell)((k + c).float(), v.float(), w.float(), u.float()) for c in (0, 1000))
        torch.testing.assert_close(low, high, rtol=1e-3, atol=1e-3)
    elif name == "mlstm_normaliser":
        k, i, f = (torch.randn(B, T, H).float() for _ in range(3))
        (n, m), (far, top) = (lr.function(cell)(k, i + c, f) for c in (0, 1000))
        torch.testing.assert_close((n, m + 1000), (far, top), rtol=1e-3, atol=1e-3)
    else:
        layer, x = lr.RNN(cell, H, H, dtype=torch.float32), torch.randn(T, B, H).float()
        low = layer(x)[0]
        parameters(layer)["enter.bias"].data += 1000
        torch.testing.assert_close(low, layer(x)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bound", [0.0, 0.5, 0.9])
def test_hgrn_keeps_at_least_its_bound(bound: float) -> None:
    layer = lr.RNN(cells.hgrn(bound), H, H)
    set_map(layer, "forget", -800.0)
    set_map(layer, "update", 0.0)
    h_0 = leaf(1, B, H)
    assert_close([layer(torch.randn(T, B, H), h_0)[0]], [h_0 * bound ** torch.arange(1, T + 1)[:, None, None]])


# Masks


def test_zoneout_keeps_channels_and_stops_in_eval() -> None:
    """p = 1 keeps all of them; in eval mode it is the QRNN without zoneout; between, each channel keeps or moves on."""
    x, h_0 = torch.randn(T, B, H), torch.randn(1, B, H)
    layers = {p: lr.RNN(cells.qrnn_zoneout(p), H, H) for p in (1.0, 0.5)}
    plain = lr.RNN(cells.qrnn_fo, H, H)
    for layer in layers.values():
        layer.load_state_dict(plain.state_dict())
    assert_close([layers[1.0](x, h_0)[1]], [h_0])
    assert_close([layers[1.0].eval()(x, h_0)[0]], [plain(x, h_0)[0]])
    kept = layers[0.5](x[:1], h_0)[1] == h_0
    moved = torch.isclose(layers[0.5].eval()(x[:1], h_0)[1], plain(x[:1], h_0)[1])
    assert 0 < kept.sum() < kept.numel() and moved.all()


# Factories


@pytest.mark.parametrize(("make", "says"), [
    (lambda: cells.hgrn(1.0), "lower_bound=1.0"), (lambda: cells.hgrn("low"), "lower_bound='low'"),
    (lambda: cells.s5("euler"), "the methods are zoh, bilinear"),
    (lambda: cells.linoss("ex"), "the rules are im, imex"), (lambda: cells.slstm("relu"), "the gates are sigmoid, exp"),
    (lambda: cells.vtrace(0.5, 1.0), "rho_bar >= c_bar"), (lambda: cells.vtrace(math.inf), "rho_bar=inf"),
    (lambda: cells.lfilter([1.0], [1.0]), "no filter with a feedback"),
    (lambda: cells.lfilter([1.0], [0.0, 1.0]), "no filter"),
    (lambda: cells.lfilter([1j], [1.0, 0.5]), "no filter"), (lambda: cells.lfilter(1.0, 2.0), "no filter"),
    (lambda: cells.qrnn_zoneout(0.1, 0), "window is a positive integer"), (lambda: cells.mamba_s6(0), "size=0"),
    (lambda: cells.qrnn_zoneout(1.5), "p=1.5")])
def test_a_factory_refuses_what_makes_no_sense(make: Callable[[], object], says: str) -> None:
    with pytest.raises(lr.CellError, match=says):
        make()


@pytest.mark.parametrize("make", [lambda: cells.hgrn(1.0), lambda: cells.s5("euler"), lambda: cells.lfilter([1.0], [1.0]),
                                  lambda: cells.qrnn_zoneout(0.1, 0), lambda: cells.qrnn("f", 0)])
def test_and_says_so_at_the_line_that_calls_it(make: Callable[[], object]) -> None:
    with pytest.raises(lr.BadDeclaration) as refused:
        make()
    assert refused.value.where is not None and refused.value.where.file == __file__


# Where parameters begin


def test_parameters_begin_where_their_papers_say() -> None:
    wide = 500
    p = {name: parameters(lr.RNN(cell, wide, wide)) for name, cell in (
        ("rglru", cells.rglru), ("lru", cells.lru), ("s5", cells.s5()), ("mamba", cells.mamba_s6(5)))}
    a = torch.exp(-8 * nn.functional.softplus(p["rglru"]["Lambda"]))
    modulus = torch.exp(-torch.exp(p["lru"]["nu"]))
    assert 0.9 <= a.min() < 0.905 and 0.995 < a.max() <= 0.999
    assert 0.9 <= modulus.min() < 0.905 and 0.995 < modulus.max() <= 0.999
    assert 0 < p["lru"]["theta"].exp().min() < 0.1 and 6.2 < p["lru"]["theta"].exp().max() < 2 * math.pi
    assert_close([p["s5"]["Lambda"]], [torch.complex(torch.full((wide,), -0.5), math.pi * torch.arange(wide))])
    assert math.log(0.001) <= p["s5"]["log_step"].min() and p["s5"]["log_step"].max() <= math.log(0.1)
    assert_close([p["mamba"]["A_log"].exp()], [torch.arange(1.0, 6.0).expand(wide, 5)], 10)
    assert_close([nn.functional.softplus(p["mamba"]["step.bias"])], [torch.full((wide,), 0.01)])


@pytest.mark.parametrize("name", [n for n, b in BOUND.items() if b.cell.spec.names("affine")])
def test_a_layer_as_it_begins_neither_explodes_nor_dies(name: str) -> None:
    layer = lr.RNN(BOUND[name].cell, 16, 16)
    y = layer(torch.randn(500, B, 16))[0]
    assert y.isfinite().all() and 1e-3 < y[-1].std() < 1e2
