"""States with an axis beside sequences of 16 bits: values and all derivatives against loops in float64 on the same numbers,
whole = chunks = steps, dtypes, learned numbers that stay in float32, autocast.

Borders of segments and the states that start from them are float32, so that the backward pass computes what the forward did.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import lrdsl as lr
from lrdsl.passes.replay import SEGMENT
from tests import bounds, truth
from tests.axis_cells import mixed, mixed_loop, returns, s6, s6_loop, turn
from tests.nn.compare import parameters

NARROW = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
B, C, N = 2, 3, 3


@pytest.fixture
def everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend of a machine without a GPU."""
    monkeypatch.setenv("LRDSL_BACKEND", request.param)
    return str(request.param)


BACKENDS = pytest.mark.parametrize(("dtype", "everywhere"), [
    (torch.bfloat16, "reference"), (torch.float16, "native"), (torch.bfloat16, "emulated")], indirect=["everywhere"])


def assert_near(got: Any, want: Any, units: float, dtype: torch.dtype) -> None:
    """Each off by a few units of its largest number."""
    for a, b in zip(got, want, strict=True):
        if b is None or a is None:
            assert (a is None or not a.any()) and (b is None or not b.any())
            continue
        a, b = a.detach().double(), b.detach().double()
        scale = bounds.ROUNDOFF[NARROW[dtype]] * float(b.abs().max().clamp_min(1))
        assert a.shape == b.shape and (a - b).abs().max() <= units * scale, float((a - b).abs().max() / scale)


def drawn(dtype: torch.dtype, *shape: int) -> Tensor:
    return (0.5 * torch.randn(shape)).to(dtype).requires_grad_()


@BACKENDS
def test_all_derivatives_of_everything_that_an_axis_meets(dtype: torch.dtype, everywhere: str) -> None:
    """Values, gradients, gradients of gradients and tangents, with edges and boundaries."""
    f, T = lr.function(mixed(N)), 9
    given = [drawn(dtype, *s) for s in ((B, T, C), (B, T, N), (C, N), (N,), (C,), (B, C, N), (B, C, 2, N), (B, N))]
    reset, weights = torch.rand(B, T) < 0.2, [torch.randn(B, T, C).to(dtype) for _ in range(2)]
    second = [torch.randn(v.shape).to(dtype) for v in given]

    def run(*v: Tensor) -> Any:
        return f(*v[:5], init=dict(zip("hqu", v[5:], strict=True)), reset=reset)

    def slow(*v: Tensor) -> Any:
        return mixed_loop(*v, reset)

    found = []
    for function, values in ((run, given), (slow, [truth.leaf(v) for v in given])):
        kind = values[0].dtype
        outputs = function(*values)
        first = torch.autograd.grad(outputs, values, [w.to(kind) for w in weights], create_graph=True)
        twice = torch.autograd.grad(first, values, [s.to(kind) for s in second], allow_unused=True)
        with forward_ad.dual_level():
            dual = function(*(forward_ad.make_dual(v.detach(), s.to(kind)) for v, s in zip(values, second, strict=True)))
            tangents = [forward_ad.unpack_dual(o).tangent for o in dual]
        found.append((outputs, first, twice, tangents))
    for ours, theirs, units in zip(*found, (1.1, 2.5, 8, 3), strict=True):
        assert {v.dtype for v in ours if v is not None} == {dtype}
        assert_near(ours, theirs, units, dtype)


@pytest.mark.parametrize("T", [1, SEGMENT + 5])
@BACKENDS
def test_a_layer_has_the_manners_of_torch(dtype: torch.dtype, T: int, everywhere: str) -> None:
    """All that it gives has its dtype; torch rounds what the dense maps give."""
    layer = lr.RNN(s6(N), C, C, batch_first=True).to(dtype)
    x, h_0, reset = drawn(dtype, B, T, C), drawn(dtype, 1, B, C, N), torch.rand(B, T) < 0.1
    p = parameters(layer)
    y, h_n = layer(x, h_0, reset=reset)
    exact = [truth.leaf(v) for v in (x, h_0, *p.values())]
    want, last = s6_loop(exact[0], dict(zip(p, exact[2:], strict=True)), exact[1][0], reset)
    got = torch.autograd.grad((y, h_n), [x, h_0, *p.values()], (torch.ones_like(y), torch.ones_like(h_n)))
    wanted = torch.autograd.grad((want, last), exact, (torch.ones_like(want), torch.ones_like(last)))
    assert {v.dtype for v in (y, h_n, *got)} == {dtype}
    assert_near((y, h_n[0], *got), (want, last, *wanted), 8, dtype)
    assert torch.equal(y, layer(x, h_0.float(), reset=reset)[0])


@pytest.mark.parametrize("dtype", NARROW)
def test_chunks_of_a_function_are_the_whole_to_the_last_bit(dtype: torch.dtype, quick: None) -> None:
    """Its states go on in float32; gradients, though the borders of segments are elsewhere, up to their rounding."""
    f, T, start = lr.function(turn(N)), SEGMENT + 6, torch.randn(B, C, N, dtype=torch.float32)
    x, u, c, s = given = [drawn(dtype, *shape) for shape in ((B, T, C), (B, T, N), (C, N), (B, T, C))]
    whole, after = f(*given, init={"p": start, "q": start}, return_state=True)
    carry: Any = {"p": start, "q": start}
    parts = []
    for at in (slice(0, 5), slice(5, T)):
        y, carry = f(x[:, at], u[:, at], c, s[:, at], init=carry, return_state=True)
        parts.append(y)
    chunked, w = torch.cat(parts, 1), torch.randn(B, T, C).to(dtype)
    assert torch.equal(whole, chunked) and whole.dtype == dtype
    assert all(v.dtype == torch.float32 and torch.equal(v, carry.now[n]) for n, v in after.now.items())
    assert_near(*(torch.autograd.grad(y, given, w) for y in (whole, chunked)), 2.5, dtype)


@pytest.mark.parametrize(("cell", "dtype"), [(s6(N), torch.float16), (returns(N), torch.bfloat16)], ids=str)
def test_chunks_of_a_layer_are_the_whole(cell: lr.Cell, dtype: torch.dtype, quick: None) -> None:
    """Up to how torch adds up a matrix product of another size. A Carry's states are float32, its inputs as they came."""
    layer, T, reverse = lr.RNN(cell, C, C, batch_first=True).to(dtype), SEGMENT + 6, cell.name == "returns"
    x, reset = drawn(dtype, B, T, C), torch.rand(B, T) < 0.1
    h_0 = torch.randn(1, B, C, N, dtype=torch.float32)
    whole, after = layer(x, h_0, reset=reset, return_state=True)
    parts: dict[int, Tensor] = {}
    carry: Any = h_0
    cuts = [slice(0, 5), slice(5, T)]
    for k in (1, 0) if reverse else (0, 1):
        parts[k], carry = layer(x[:, cuts[k]], carry, reset=reset[:, cuts[k]], return_state=True)
    chunked = torch.cat([parts[0], parts[1]], 1)
    assert_near([whole, *after.now.values()], [chunked, *carry.now.values()], 4, dtype)
    assert all(carry.now[n].dtype == v.dtype == (torch.float32 if n.endswith((".h", ".g")) else dtype)
               for n, v in after.now.items())
    inputs, w = [x, *layer.parameters()], torch.randn(whole.shape).to(dtype)
    assert_near(*(torch.autograd.grad(y, inputs, w, allow_unused=True) for y in (whole, chunked)), 8, dtype)


def test_the_states_of_steps_do_not_stall(quick: None) -> None:
    """A state of 16 bits would stay where it is: 1 + 2^-12 is 1."""
    @lr.cell
    def sums(x: lr.Input, h: lr.State = lr.State(size=2), v: lr.Vector = lr.Vector(size=2, init=1.0)):
        h[lr.t] = v * h[lr.t - 1] + x[lr.t]
        return lr.sum(h[lr.t])
    layer = lr.RNN(sums, 1, 1).bfloat16()
    x, carry = torch.full((1, 1), 2.0**-12, dtype=torch.bfloat16), torch.ones(1, 1, 1, 2, dtype=torch.bfloat16)
    for _ in range(1024):
        y, carry = layer.step(x, carry)
    assert carry.now["layers.0.h"].dtype == torch.float32 and y.dtype == torch.bfloat16 and float(y.detach()) == 2.5
    y, h_n = layer(x.expand(1024, 1, 1), torch.ones(1, 1, 1, 2, dtype=torch.bfloat16))
    assert h_n.dtype == torch.bfloat16 and h_n.flatten().tolist() == [1.25, 1.25]


@pytest.mark.parametrize("everywhere", ["native", "emulated"], indirect=True)
def test_learned_numbers_may_stay_in_float32(everywhere: str) -> None:
    """A decay that bfloat16 does not hold; its gradient is float32."""
    @lr.cell
    def decays(x: lr.Input, u: lr.Input = lr.Input(axis=2), *, h: lr.State = lr.State(size=2),
               v: lr.Vector = lr.Vector(size=2), s: lr.Scalar = lr.Scalar(size=2)):
        h[lr.t] = v * h[lr.t - 1] + u[lr.t] * x[lr.t]
        return lr.sum(h[lr.t] * s)
    f, T = lr.function(decays), SEGMENT + 3
    x, u = drawn(torch.bfloat16, B, T, C), drawn(torch.bfloat16, B, T, 2)
    v = (1 - 2.0**-13 * torch.rand(C, 2)).float().requires_grad_()
    s = torch.rand(2, dtype=torch.float32, requires_grad=True)
    y, w = f(x, u, v, s), torch.randn(B, T, C).bfloat16()
    got = torch.autograd.grad(y, (x, u, v, s), w)
    assert [t.dtype for t in (y, *got)] == [torch.bfloat16] * 3 + [torch.float32] * 2
    exact = [truth.leaf(t) for t in (x, u, v, s)]
    h, ys = torch.zeros(B, C, 2, dtype=torch.float64), []
    for at in range(T):
        h = exact[2] * h + exact[1][:, at].unsqueeze(1) * exact[0][:, at].unsqueeze(2)
        ys.append((h * exact[3]).sum(2))
    want = torch.stack(ys, 1)
    wanted = torch.autograd.grad(want, exact, w.double())
    assert_near((y, *got[:2]), (want, *wanted[:2]), 1.1, torch.bfloat16)
    for a, b in zip(got[2:], wanted[2:], strict=True):
        assert ((a - b).abs() <= 1e-5 * b.abs().max()).all()


def test_autocast_is_that_of_a_layer_of_torch(quick: None) -> None:
    """x, weights and outputs in the region's dtype; A and D, learned numbers, are float32."""
    layer, x = lr.RNN(s6(N), C, C).float(), torch.randn(SEGMENT + 2, B, C, dtype=torch.float32)
    want, last = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, h_n = layer(x)
    assert y.dtype == h_n.dtype == torch.bfloat16
    assert_near((y, h_n), (want, last), 8, torch.bfloat16)
    y.sum().backward()
    assert {p.grad.dtype for p in layer.parameters()} == {torch.float32}
