"""Complex states with an axis: values and all gradients against loops in complex128, all derivatives, carry, 16 bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, vmap

import lrdsl as lr
from lrdsl import t
from lrdsl.passes.replay import SEGMENT
from tests.complex_axis_cells import s4d, s4d_loop, wave, wave_loop
from tests.nn.compare import assert_close, parameters
from tests.nn.test_axis import Allocations
from tests.nn.test_complex import gradients, leaf

B, C, N = 2, 3, 3


@pytest.fixture(params=["reference", "native", "emulated"])
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every backend of a machine without a GPU."""
    monkeypatch.setenv("LRDSL_BACKEND", request.param)
    return str(request.param)


def arguments(N: int, T: int, B: int = B, C: int = C) -> tuple[Tensor, ...]:
    """The arguments of s4d, and h before the first step."""
    given = leaf(B, T, C, complex=False), *(leaf(C, N, complex=False) for _ in range(2)), leaf(C, N)
    return (*given, leaf(C, complex=False), leaf(C, complex=False), leaf(B, C, N))


@pytest.mark.parametrize("T", [1, 2 * SEGMENT + 3])
def test_a_diagonal_state_space(T: int, anywhere: str) -> None:
    f, (*given, h) = lr.function(s4d(4)), arguments(4, T)
    for reset in (None, torch.rand(B, T) < 0.1):
        y, carry = f(*given, init={"h": h}, reset=reset, return_state=True)
        want = s4d_loop(*given, h, reset)
        assert carry.now["h"].shape == (B, 1, C, 4) and carry.now["h"].dtype == torch.complex128
        assert_close((y, carry.now["h"][:, 0]), want, 10)
        leaves = [*given, h]
        assert_close(gradients((y, carry.now["h"][:, 0]), leaves), gradients(want, leaves), 1000)
    assert_close((f(*given),), s4d_loop(*given, torch.zeros_like(h))[:1], 10)
    assert_close((f(*given, init={"h": 1j}),), s4d_loop(*given, torch.full_like(h, 1j))[:1], 10)


@pytest.mark.parametrize("T", [1, 2, SEGMENT + 4])
def test_everything_that_complex_values_meet(T: int, anywhere: str) -> None:
    layer, reset = lr.RNN(wave(N), C, C, batch_first=True), torch.rand(B, T) < 4 / (T + 9)
    p = parameters(layer)
    assert {n: (tuple(v.shape), v.is_complex()) for n, v in p.items()} == {
        "v": ((C, N), False), "s": ((N,), True), "B.weight": ((N, C), True), "B.bias": ((N,), True),
        "out.weight": ((C, C), True), "out.bias": ((C,), True)}
    x, u, h_0 = leaf(B, T, C, complex=False), leaf(B, T, N), leaf(1, B, C, N)
    (y, z), (_, h_n) = layer(x, (torch.zeros(1, B, C), h_0), u=u, reset=reset)
    want = wave_loop(x, u, p, h_0[0], reset)
    assert (y.is_complex(), z.is_complex(), h_n.shape) == (False, True, (1, B, C, N))
    assert_close((y, z, h_n[0]), want, 100)
    leaves = [x, u, h_0, *p.values()]
    assert_close(gradients((y, z, h_n[0]), leaves), gradients(want, leaves), 1e4)
    constant = torch.full((B, C, N), 0.5 - 0.25j)
    assert_close(layer(x, u=u, reset=reset)[0], wave_loop(x, u, p, constant, reset)[:2], 100)


@lr.cell
def gated(x: lr.Input, h: lr.State = lr.State(size=2, complex=True),
          B: lr.Affine = lr.Affine(axis=2, complex=True, bias=False)):
    h[t] = B(x[t]) * h[t - 1] + x[t]
    return lr.sum(h[t] * B(x[t]))


@pytest.mark.parametrize("T", [3, pytest.param(SEGMENT + 2, marks=pytest.mark.long)])
def test_torch_checks_both_orders_and_forward_mode(T: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of complex outputs and last values by all tensors; over a border of segments, too."""
    monkeypatch.setenv("LRDSL_BACKEND", "reference" if T == 3 else "native")
    layer, x, h_0 = lr.RNN(gated, 2, 2, batch_first=True), leaf(1, T, 2, complex=False), leaf(1, 1, 2, 2)
    weight, reset = layer.get_parameter("layers.0.B.weight"), torch.arange(T)[None] == 2

    def run(x: Tensor, h_0: Tensor, weight: Tensor) -> Any:
        return functional_call(layer, {"layers.0.B.weight": weight}, (x, h_0), {"reset": reset})

    assert gradcheck(run, (x, h_0, weight), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (x, h_0, weight), check_fwd_over_rev=T > 3, check_rev_over_rev=True, fast_mode=True)


@pytest.mark.long
def test_torch_checks_both_orders_of_a_state_space(quick: None) -> None:
    f, given, reset = lr.function(s4d(2)), arguments(2, 3, 1, 2), torch.tensor([[False, False, True]])

    def run(*tensors: Tensor) -> Any:
        y, carry = f(*tensors[:-1], init={"h": tensors[-1]}, reset=reset, return_state=True)
        return y, *carry.now.values()

    assert gradcheck(run, given, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, given, check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("mirrored", [False, True])
def test_chunks_and_steps(mirrored: bool, quick: None) -> None:
    cell = lr.Cell(s4d(N).spec.mirrored()) if mirrored else s4d(N)
    layer, T = lr.RNN(cell, C, C, num_layers=2, batch_first=True), SEGMENT + 3
    x, h_0, reset = leaf(B, T, C, complex=False), leaf(2, B, C, N), torch.rand(B, T) < 0.1
    whole, after = layer(x, h_0, reset=reset, return_state=True)
    cuts, parts, carry = [slice(0, 1), slice(1, SEGMENT), slice(SEGMENT, T)], dict[int, Tensor](), h_0
    for k in reversed(range(3)) if mirrored else range(3):
        parts[k], carry = layer(x[:, cuts[k]], carry, reset=reset[:, cuts[k]], return_state=True)
    chunked = torch.cat([parts[k] for k in range(3)], 1)
    assert_close([whole, *after.now.values()], [chunked, *carry.now.values()], 10)
    leaves = [x, h_0, *layer.parameters()]
    assert_close(gradients([whole], leaves), gradients([chunked], leaves), 1000)
    if not mirrored:
        stepped, carry = [], h_0
        for at in range(T):
            y, carry = layer.step(x[:, at], carry, reset=reset[:, at])
            stepped.append(y)
        assert_close([whole, *after.now.values()], [torch.stack(stepped, 1), *carry.now.values()], 10)


def test_the_states_of_all_steps_are_never_in_memory(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    f, (*given, h) = lr.function(s4d(4)), arguments(4, 2 * SEGMENT, 2, 32)
    f(*given, init={"h": h})  # made and compiled
    with Allocations(monkeypatch) as seen:
        torch.autograd.grad(f(*given, init={"h": h}).sum(), [*given, h])
    assert seen.largest <= 2 * given[0].numel() < 4 * given[0].numel()  # real numbers, of two parts of four states


@pytest.mark.long
def test_torch_compiles_and_maps_it(quick: None) -> None:
    torch.compiler.reset()
    layer, x, h_0 = lr.RNN(s4d(N), C, C, batch_first=True), leaf(B, SEGMENT + 1, C, complex=False), leaf(1, B, C, N)
    run = torch.compile(lambda x, h_0: layer(x, h_0)[0], fullgraph=True, backend="aot_eager")
    assert_close((run(x, h_0),), (layer(x, h_0)[0],))
    leaves = [x, h_0, *layer.parameters()]
    assert_close(gradients((run(x, h_0),), leaves), gradients((layer(x, h_0)[0],), leaves), 100)
    several = torch.randn(3, *x.shape)
    assert_close([vmap(lambda x: layer(x, h_0)[0])(several)], [torch.stack([layer(x, h_0)[0] for x in several])])


def test_beside_16_bits(quick: None) -> None:
    """torch has no complex numbers of 16 bits to compute with: states and learned numbers are complex64, x has 16 bits."""
    torch.manual_seed(1)
    f, T = lr.function(s4d(N)), SEGMENT + 1
    exact = [v.detach() for v in arguments(N, T)]
    x = exact[0].bfloat16()
    small = [v.to(torch.complex64) if v.is_complex() else v.float() for v in exact[1:]]
    exact = [x.double(), *(v.to(torch.complex128) if v.is_complex() else v.double() for v in small)]
    for v in (x, *small, *exact):
        v.requires_grad_()
    y, want = f(x, *small[:-1], init={"h": small[-1]}), s4d_loop(*exact)[0]
    w = torch.randn(y.shape).bfloat16()
    got, wanted = torch.autograd.grad(y, [x, *small], w), torch.autograd.grad(want, exact, w.double())
    assert [v.dtype for v in (y, *got)] == [torch.bfloat16] * 2 + [v.dtype for v in small]
    for a, b, units in zip((y, *got), (want, *wanted), (2**-8, 2**-8, *[2e-5] * len(small)), strict=True):
        assert ((a - b).abs() <= units * b.abs() + 2e-5 * b.abs().max()).all()
    layer, z = lr.RNN(s4d(N), C, C, dtype=torch.float32), torch.randn(5, B, C, dtype=torch.float32)
    plain = layer(z)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y, h_n = layer(z)
    assert y.dtype == torch.bfloat16 and h_n.dtype == torch.complex64
    torch.testing.assert_close(y.float(), plain, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("way", ["sum", "re"])
def test_a_part_without_an_axis_counts_n_times(way: str, backend: str) -> None:
    """v has 3 numbers, x one: so have the parts of v + i x. What is added up is 3 numbers, of each part."""
    @lr.cell
    def uneven(x: lr.Input, h: lr.State, v: lr.Vector = lr.Vector(size=3)):
        z = v + 1j * x[t]
        h[t] = h[t - 1] / 2 + (lr.im(lr.sum(z)) if way == "sum" else lr.sum(lr.im(z)))
        return h[t] + lr.re(lr.sum(z))
    x, v = leaf(1, 4, 2, complex=False), leaf(2, 3, complex=False)
    h, ys = torch.zeros(2), []
    for now in x[0]:
        h = h / 2 + 3 * now
        ys.append(h + v.sum(1))
    assert_close([lr.function(uneven)(x, v)], [torch.stack(ys)[None]])
