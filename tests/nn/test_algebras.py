"""Recurrences over (max, +), (min, +) and (logaddexp, +) as torch functions: against the loop over their equations, on every
backend; against torch's cumulative functions; ties, infinities, derivatives of every kind, chunks and steps."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import lrdsl as lr
from lrdsl.ir.spec import Spec
from tests.cells_of_algebras import CELLS
from tests.nn import loop
from tests.nn.compare import as_tuple, assert_close, gradients, leaf, parameters
from tests.nn.test_values import edges

B, T, C = 2, 6, 3
longest, cheapest, evidence, cummax, cummin, logcumsumexp, folded, picked, mixture, _, mapped = CELLS.values()
FUNCTIONS = [c for c in CELLS.values() if not c.spec.of("affine")]
# What the emulator compiles takes long; its text depends neither on what is given nor on the direction alone.
CASES = [pytest.param(c, given, mirrored, backend, id=f"{c.name}-{'given' if given else 'constant'}-"
                      f"{'mirrored' if mirrored else 'as-written'}-{backend}")
         for c in FUNCTIONS for given in (False, True) for mirrored in (False, True)
         for backend in ("reference", "native", "emulated") if backend != "emulated" or given != mirrored]


def arguments(cell: lr.Cell, draw: Any = leaf) -> dict[str, Tensor]:
    """The tensors of a call by name, in the order of the signature."""
    shape = {"input": (B, T, C), "vector": (C,), "scalar": ()}
    return {d.name: draw(*shape[d.kind]) for d in cell.spec.declared if d.kind != "state"}


def truth(spec: Spec, args: dict[str, Tensor], init: dict[str, Tensor], reset: Tensor | None) -> dict[str, Tensor]:
    """The loop, in which 1e300 stands for infinity: torch's own logaddexp has no gradient at -inf."""
    far = {d.name: torch.full((B, C), math.copysign(1e300, d.option("init"))) for d in spec.of("state")
           if math.isinf(d.option("init"))}
    kinds = {d.name: d.kind for d in spec.declared}
    inputs = {n: a for n, a in args.items() if kinds[n] == "input"}
    return loop.run(spec, inputs, {n: a for n, a in args.items() if n not in inputs}, C, far | init, reset)


def finite(values: Any, want: Any) -> list[Tensor]:
    """The values where the truth is a number, 0 elsewhere."""
    return [torch.where(w.abs() < 1e200, v, 0.0) for v, w in zip(values, want, strict=True)]


def agree(cell: lr.Cell, args: dict[str, Tensor], init: dict[str, Tensor], reset: Tensor | None) -> None:
    y = as_tuple(lr.function(cell)(*args.values(), init=init, reset=reset))
    want = loop.outputs(cell.spec, truth(cell.spec, args, init, reset))
    for got, w in zip(y, want, strict=True):
        assert torch.equal(got.isinf(), w.abs() > 1e200) and torch.equal(got[got.isinf()] > 0, w[got.isinf()] > 0)
    got, want = finite(y, want), finite(want, want)
    assert_close(got, want)
    leaves = [*args.values(), *init.values()]
    assert_close(gradients(got, leaves), gradients(want, leaves), 10)


@pytest.mark.parametrize(("cell", "given", "mirrored", "runner"), CASES)
def test_a_function_is_its_equations(cell: lr.Cell, given: bool, mirrored: bool, runner: str, quick: None,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    if runner != "reference" and lr.options.backend() == "reference":
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("LRDSL_BACKEND", runner)
    cell = lr.Cell(cell.spec.mirrored()) if mirrored else cell
    agree(cell, arguments(cell), edges(cell) if given else {}, torch.rand(B, T) < 0.3)


@pytest.mark.parametrize("cell", [longest, cheapest, evidence, cummax, cummin, logcumsumexp], ids=lambda c: c.name)
def test_ties_are_torchs(cell: lr.Cell, backend: str) -> None:
    """Halves, quarters … of a gradient where several steps are equal, and at a reset."""
    def few(*shape: int) -> Tensor:
        return torch.randint(0, 2, shape).double().requires_grad_()

    for _ in range(3):
        agree(cell, arguments(cell, few), {n: few(B, C) for n in edges(cell)}, torch.rand(B, T) < 0.3)


def test_a_module_is_its_equations(backend: str) -> None:
    layer = lr.RNN(mapped, 4, C, batch_first=True)
    x, states, reset = leaf(B, T, 4), (leaf(1, B, C), leaf(1, B, C)), torch.rand(B, T) < 0.3
    y, h_n = layer(x, states, reset=reset)
    params = parameters(layer)
    values = loop.run(mapped.spec, {"x": x}, params, C, {"m": states[0][0], "c": states[1][0]}, reset)
    want = [values["c"], values["m"][:, -1], values["c"][:, -1]]
    got = [y, *(h[0] for h in h_n)]
    assert_close(got, want)
    leaves = [x, *states, *params.values()]
    assert_close(gradients(got, leaves), gradients(want, leaves), 100)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("cell", "function"), [
    (cummax, lambda x: torch.cummax(x, 1).values), (cummin, lambda x: torch.cummin(x, 1).values),
    (logcumsumexp, lambda x: torch.logcumsumexp(x, 1))], ids=["cummax", "cummin", "logcumsumexp"])
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_cumulative_functions_of_torch(cell: lr.Cell, function: Any, size: float, reverse: bool, backend: str) -> None:
    x = (size * torch.randn(B, 40, C)).requires_grad_()
    got = lr.function(lr.Cell(cell.spec.mirrored()) if reverse else cell)(x)
    want = function(x.flip(1)).flip(1) if reverse else function(x)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
    weights = torch.randn(got.shape)
    for a, b in zip(*(torch.autograd.grad((y * weights).sum(), x) for y in (got, want)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_backward_pass_in_chunks(monkeypatch: pytest.MonkeyPatch, quick: None, caplog: pytest.LogCaptureFixture) -> None:
    """Long enough that the CUDA text cuts time: the forward pass is serial, the backward pass is not."""
    if lr.options.backend() == "reference":
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("LRDSL_BACKEND", "emulated")
    x, weights = leaf(B, 300, C), torch.randn(B, 300, C)
    reset = torch.rand(B, 300) < 0.01
    y = lr.function(logcumsumexp)(x, init={"h": torch.full((B, C), -math.inf)}, reset=reset)
    want = truth(logcumsumexp.spec, {"x": x}, {}, reset)["h"]
    assert_close([y], [want])
    with caplog.at_level("INFO", "lrdsl.launch"):
        assert_close(*(torch.autograd.grad((v * weights).sum(), [x]) for v in (y, want)), scale=10)
    assert caplog.messages[-1].endswith("chunked")


def test_cumprod(backend: str) -> None:
    """(+, *), where a factor of 0 spoils no gradient, and no division is made."""
    @lr.cell
    def cumprod(x: lr.Input, *, h: lr.State = lr.State(init=1.0)):
        h[lr.t] = x[lr.t] * h[lr.t - 1]
        return h[lr.t]

    x = torch.randn(B, 12, C)
    x[0, 5] = x[1, 3] = x[1, 8] = 0
    x.requires_grad_()
    got, want = lr.function(cumprod)(x), torch.cumprod(x, 1)
    assert_close([got], [want])
    assert_close(gradients([got], [x]), gradients([want], [x]))


@pytest.mark.parametrize("cell", [pytest.param(c, marks=pytest.mark.long) if c.name in ("mixture", "levels", "picked") else c
                                  for c in FUNCTIONS], ids=lambda c: c.name)
def test_torch_checks_first_and_second_order(cell: lr.Cell, quick: None) -> None:
    f = lr.function(cell)
    args, init = arguments(cell), edges(cell)
    leaves, reset = (*args.values(), *init.values()), torch.rand(B, T) < 0.3

    def run(*tensors: Tensor) -> object:
        y, carry = f(*tensors[:len(args)], init=dict(zip(init, tensors[len(args):], strict=True)), reset=reset,
                     return_state=True)
        return (*as_tuple(y), *carry.now.values())

    assert gradcheck(run, leaves, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, leaves, check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("cell", [logcumsumexp, cummax, cummin], ids=lambda c: c.name)
def test_second_order_past_an_infinite_edge(cell: lr.Cell, quick: None) -> None:
    """The edge is the constant; ties of numbers as well, where the curvature of a logaddexp is 1/4 and not 0."""
    x = torch.randn(B, T, C)
    x[:, 1] = x[:, 0]
    x.requires_grad_()
    f = lr.function(cell)
    if cell is logcumsumexp:
        assert gradcheck(f, (x,), check_forward_ad=True) and gradgradcheck(f, (x,), check_fwd_over_rev=True)
    y, = torch.autograd.grad(f(x).square().sum(), x, create_graph=True)
    assert all(g.isfinite().all() for g in (y, *torch.autograd.grad(y.square().sum(), x)))


@pytest.mark.parametrize("cell", FUNCTIONS, ids=lambda c: c.name)
def test_whole_is_chunks_and_steps(cell: lr.Cell, backend: str) -> None:
    """From the constant edge, with an empty chunk first, which leaves infinity in the Carry."""
    cell = lr.Cell(cell.spec.mirrored()) if cell is cheapest else cell
    f, args = lr.function(cell), arguments(cell)
    reset = torch.rand(B, T) < 0.3
    whole, after = f(*args.values(), reset=reset, return_state=True)
    slopes = gradients(finite(as_tuple(whole), as_tuple(whole)), list(args.values()))
    for cuts in ((0, 0, 1, 4, 4, T), range(T + 1)):
        parts, carry = [], None
        for lo, hi in pairwise(cuts):
            y, carry = f(*(a[:, lo:hi] if a.dim() == 3 else a for a in args.values()), init=carry, reset=reset[:, lo:hi],
                         return_state=True)
            parts.append(as_tuple(y))
        chunked = [torch.cat(p, 1) for p in zip(*parts, strict=True)]
        for a, b in zip((*as_tuple(whole), *after.now.values()), (*chunked, *carry.now.values()), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert_close(gradients(finite(chunked, chunked), list(args.values())), slopes, 100)


def test_padding_of_minus_infinity(backend: str) -> None:
    """A sequence padded on the left stays empty until its first number; no gradient is nan, and none goes to the padding."""
    x = torch.randn(B, T, C)
    x[0, :3] = x[1, 2:4] = -math.inf
    x.requires_grad_()
    y = lr.function(logcumsumexp)(x)
    want = torch.stack([torch.logsumexp(x[:, :k + 1], 1) for k in range(T)], 1)
    torch.testing.assert_close(y, want.detach())
    got, = torch.autograd.grad(y[:, -1].sum() + y.nan_to_num(neginf=0.0).square().sum(), x)
    shares = [torch.softmax(x[:, :k + 1], 1).nan_to_num(0.0) for k in range(T)]
    sent = [(1.0 * (k == T - 1) + 2 * y[:, k:k + 1].nan_to_num(neginf=0.0)) * s for k, s in enumerate(shares)]
    for k in range(T):
        torch.testing.assert_close(got[:, k], sum(s[:, k] for s in sent[k:]).detach())
    assert not got[0, :3].any()
    y, carry = lr.function(cummax)(x, return_state=True)
    got, = torch.autograd.grad(carry.now["h"].sum(), x)
    torch.testing.assert_close(got, (x == x.max(1, keepdim=True).values).double())


@pytest.mark.parametrize("cell", [picked, mixture], ids=lambda c: c.name)
def test_a_condition_that_leaves_the_past_alone_passes_its_gradient_on(cell: lr.Cell, backend: str) -> None:
    """Infinite values decide nothing: where only the past is there, all of the gradient goes to it, even if it is -inf."""
    x, y, h = torch.full((B, T, C), 0.75), torch.full((B, T, C), -0.25), torch.full((B, C), -math.inf, requires_grad=True)
    args = [x, y] if cell is picked else [x, y, torch.zeros(C)]
    _, carry = lr.function(cell)(*args, init={"h": h}, return_state=True)
    got, = torch.autograd.grad(carry.now["h"].sum(), h)
    assert not got.any()  # y[t-1] - 3, y[t-1] are there, and finite: the past is nothing beside them
    late = torch.where(torch.arange(T)[:, None] == 0, 0.25, y[0])[None].expand(B, T, C)
    _, carry = lr.function(cell)(x[:, :1], late[:, :1], *args[2:], init={"h": h}, return_state=True)
    got, = torch.autograd.grad(carry.now["h"].sum(), h)
    assert (got == 1).all() and carry.now["h"].isinf().all()


def test_a_nan_stays_behind_a_boundary(backend: str) -> None:
    a, b = leaf(B, T, C), torch.randn(B, T, C)
    b[:, 1] = math.nan
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 3] = True
    for cell in (longest, evidence):
        y = lr.function(cell)(a, b, reset=reset)
        assert y[:, 1:3].isnan().all() and y[:, 3:].isfinite().all()
        got, = torch.autograd.grad(y[:, 3:].sum(), a)
        assert got[:, 3:].isfinite().all() and got[:, 3:].any()


def test_vmap_and_compile(quick: None) -> None:
    x, v, s = torch.randn(4, B, T, C), torch.randn(C), torch.randn(())
    f = lr.function(folded)
    assert_close([torch.func.vmap(f, (0, None, None))(x, v, s)], [torch.stack([f(one, v, s) for one in x])])
    f, v = lr.function(cummax), x[0]
    assert_close([torch.compile(f, fullgraph=True, backend="aot_eager")(v)], [f(v)])
