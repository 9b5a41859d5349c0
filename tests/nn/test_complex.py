"""Complex cells: values and gradients in torch's convention, at every size, in every mode; complex tensors at the door."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import lrdsl as lr
from lrdsl import t
from tests import truth
from tests.nn import loop
from tests.nn.compare import as_tuple, assert_close, parameters
from tests.nn.compare import gradients as real_gradients
from tests.nn.complex_cells import FUNCTIONS, MODULES, ahead, crossed, gated, layered, lru, second, stood_for

B, C, I = 2, 3, 5


@pytest.fixture(params=["reference", "native", pytest.param("emulated", marks=pytest.mark.long)])
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every backend of a machine without a GPU."""
    from tests.nn.conftest import _there
    if request.param != "reference" and not _there():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("LRDSL_BACKEND", request.param)


def leaf(*shape: int, complex: bool = True) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128 if complex else torch.float64, requires_grad=True)


def gradients(outputs: Any, inputs: Any) -> Any:
    """Of a real loss of both parts."""
    return real_gradients([torch.view_as_real(o) if o.is_complex() else o for o in outputs], inputs)


def drawn(cell: lr.Cell, T: int) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Inputs, learned numbers and edges of a function."""
    spec = cell.spec
    inputs = {d.name: leaf(B, T, C, complex=d.complex) for d in spec.of("input")}
    learned = {d.name: leaf(*(C,) * (d.kind == "vector"), complex=d.complex) for k in ("vector", "scalar") for d in spec.of(k)}
    with torch.no_grad():
        for value in (*inputs.values(), *learned.values()):
            value /= 1 + value.abs().max()  # so that nothing grows
    edges = {key: leaf(B, C, *([s.depth] if s.depth > 1 else []), complex=s.name in spec.complex)
             for key, s in lr.function(cell).pipeline.sequences.items()}
    return inputs, learned, edges


@pytest.mark.parametrize("T", [1, 2, 33, 100])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", FUNCTIONS, ids=lambda c: c.name)
def test_a_function_is_its_equations(cell: lr.Cell, given: bool, T: int, anywhere: None) -> None:
    cell = lr.Cell(cell.spec.mirrored()) if T == 33 else cell
    args, params, init = drawn(cell, T)
    init, reset = (init, torch.rand(B, T) < 0.2) if given else ({}, None)
    got = as_tuple(lr.function(cell)(**args, **params, init=init, reset=reset))
    want = loop.outputs(cell.spec, loop.run(cell.spec, args, params, C, init, reset))
    assert [o.dtype for o in got] == [o.dtype for o in want]
    assert_close(got, want, 10)
    leaves = [*args.values(), *params.values(), *init.values()]
    assert_close(gradients(got, leaves), gradients(want, leaves), 1000)


@pytest.mark.parametrize("T", [1, 2, 33])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", MODULES, ids=lambda c: c.name)
def test_a_module_is_its_equations(cell: lr.Cell, given: bool, T: int, anywhere: None) -> None:
    layer = lr.RNN(cell, I, C, batch_first=True)
    x = leaf(B, T, I, complex=cell.spec.of("input")[0].complex)
    plan = layer.parts[0].pipeline.plan
    states = tuple(leaf(1, B, C, complex=s.name in cell.spec.complex) for s in plan.carried)
    reset = torch.rand(B, T) < 0.2 if given else None
    y, h_n = layer(x, (states if len(states) > 1 else states[0]) if given else None, reset=reset)
    params = parameters(layer)
    init = {s.name: v[0] for s, v in zip(plan.carried, states, strict=True)} if given else {
        n.removesuffix("_init"): p.expand(B, C) for n, p in params.items() if n.endswith("_init")}
    values = loop.run(cell.spec, {"z" if cell.name == "mixed" else "x": x}, params, C, init, reset)
    got = (*as_tuple(y), *as_tuple(h_n))
    want = (*loop.outputs(cell.spec, values), *(values[s.name][:, -1][None] for s in plan.carried))
    assert [o.dtype for o in got] == [o.dtype for o in want]
    assert_close(got, want, 10)
    leaves = [x, *params.values(), *(states if given else ())]
    assert_close(gradients(got, leaves), gradients(want, leaves), 1000)


def lru_loop(x: Tensor, p: Mapping[str, Tensor], h: Tensor) -> tuple[Tensor, Tensor]:
    """Orvieto et al. 2023, arXiv 2303.06349:

        lambda = exp(-exp(nu) + i exp(theta)), h[t] = lambda h[t-1] + gamma B x[t], y[t] = Re(C h[t]) + D x[t]

    x (T, B, I), h (B, H); gamma is learned as its logarithm.
    """
    lam, samples = torch.exp(torch.complex(-p["nu"].exp(), p["theta"].exp())), []
    for x_t in x:
        h = lam * h + p["gamma"].exp() * ((x_t + 0j) @ p["B.weight"].T)
        samples.append((h @ p["C.weight"].T).real + x_t @ p["D.weight"].T)
    return torch.stack(samples), h


@pytest.mark.parametrize("T", [1, 2, 33, 100])
def test_the_lru_of_the_paper(T: int, anywhere: None) -> None:
    layer, x, h_0 = lr.RNN(lru, I, C), leaf(T, B, I, complex=False), leaf(1, B, C)
    y, h_n = layer(x, h_0)
    want, last = lru_loop(x, parameters(layer), h_0[0])
    assert_close((y, h_n[0]), (want, last), 10)
    leaves = [x, h_0, *layer.parameters()]
    assert_close(gradients((y, h_n[0]), leaves), gradients((want, last), leaves), 100)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("T", [1, 2, 33, 100])
def test_a_complex_gate_is_the_papers_recurrence(T: int, reverse: bool, anywhere: None) -> None:
    """h[t] = a[t] h[t-1] + b[t], in complex128 by torch: da = dh conj(h[t-1]), and the carry goes back by conj(a)."""
    a, b, h0, reset = leaf(B, T, C), leaf(B, T, C), leaf(B, C), torch.rand(B, T) < 0.1
    with torch.no_grad():
        a /= a.abs() + 0.1
    got = lr.function(lr.Cell(gated.spec.mirrored()) if reverse else gated)(a, b, init={"h": h0}, reset=reset)
    want = truth.linear_scan(a, b, h0, reset, reverse)
    assert_close([got], [want], 10)
    assert_close(gradients([got], [a, b, h0]), gradients([want], [a, b, h0]), 1000)


@lr.cell
def smooth(z: lr.Input = lr.Input(complex=True), w: lr.Input = lr.Input(complex=True), v: lr.Vector = lr.Vector(complex=True),
           h: lr.State = lr.State(complex=True)):
    """Quotient, modulus, exponential: each where it is smooth."""
    h[t] = lr.exp(v * z[t]) * h[t - 1] / (2 + w[t]) + lr.abs(z[t] * w[t])
    return h[t] * lr.conjugate(h[t]), lr.abs(h[t])


def checkable(cell: lr.Cell) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    """A cell's outputs and last values as a function of all its tensors."""
    f, (inputs, learned, edges) = lr.function(cell), drawn(cell, 3)
    reset = torch.tensor([[False, False, True], [True, False, False]])

    def run(*tensors: Tensor) -> Any:
        given = dict(zip((*inputs, *learned), tensors, strict=False))
        before = dict(zip(edges, tensors[len(given):], strict=True))
        y, carry = f(**given, init=before, reset=reset, return_state=True)
        return (*as_tuple(y), *carry.now.values())

    return run, (*inputs.values(), *learned.values(), *edges.values())


@pytest.mark.parametrize("cell", [gated, second, ahead, *(pytest.param(c, marks=pytest.mark.long) for c in (crossed, smooth))],
                         ids=lambda c: c.name)
def test_torch_checks_both_orders_and_forward_mode(cell: lr.Cell, quick: None) -> None:
    run, tensors = checkable(cell)
    assert torch.autograd.gradcheck(run, tensors, check_forward_ad=True, fast_mode=True)
    # Of the larger ones an op of the third order would read more than 64 tensors.
    further = cell in (gated, ahead)
    assert torch.autograd.gradgradcheck(run, tensors, check_fwd_over_rev=further, check_rev_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("cell", [stood_for, *(pytest.param(c, marks=pytest.mark.long) for c in (lru, layered))],
                         ids=lambda c: c.name)
def test_a_module_is_differentiable_twice(cell: lr.Cell, quick: None) -> None:
    layer = lr.RNN(cell, 2, 2, batch_first=True)
    params, x = dict(layer.named_parameters()), leaf(1, 3, 2, complex=cell.spec.of("input")[0].complex)
    reset = torch.tensor([[False, False, True]])

    def run(x: Tensor, *values: Tensor) -> Any:
        y, h_n = functional_call(layer, dict(zip(params, values, strict=True)), (x,), {"reset": reset})
        return (*as_tuple(y), *as_tuple(h_n))

    assert torch.autograd.gradcheck(run, (x, *params.values()), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, *params.values()), check_fwd_over_rev=cell is not stood_for, fast_mode=True)


def test_complex_values_beside_16_bits() -> None:
    """torch has no complex numbers of 16 bits to compute with: they are complex64, in an autocast region too."""
    torch.manual_seed(0)

    @lr.cell
    def turning(x: lr.Input, a: lr.Vector = lr.Vector(complex=True), h: lr.State = lr.State(complex=True)):
        h[t] = a * h[t - 1] + x[t]
        return h[t]

    x, a = torch.randn(2, 5, 3).bfloat16(), 0.5 * torch.randn(3, dtype=torch.complex64)
    y = lr.function(turning)(x, a)
    assert y.dtype == torch.complex64
    torch.testing.assert_close(y, lr.function(turning)(x.float(), a), rtol=0.02, atol=0.02)

    @lr.cell
    def mapped(x: lr.Input, h: lr.State = lr.State(complex=True), B: lr.Affine = lr.Affine(complex=True)):
        h[t] = 0.5 * h[t - 1] + B(x[t])
        return lr.re(h[t])

    layer, x = lr.RNN(mapped, 3, 4, dtype=torch.float32), torch.randn(5, 2, 3, dtype=torch.float32)
    want, last = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, h_n = layer(x)
    assert y.dtype == torch.bfloat16 and h_n.dtype == torch.complex64
    torch.testing.assert_close(y.float(), want, rtol=0.05, atol=0.05)
    torch.testing.assert_close(h_n, last, rtol=0.05, atol=0.05)
