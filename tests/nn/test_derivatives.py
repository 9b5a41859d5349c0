"""Derivatives of every order and in every mode: torch's own checks, and torch.func."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import lrdsl as lr
from tests.nn.cells import FUNCTIONS, order2, smooth
from tests.nn.compare import as_tuple, assert_close, leaf

B, T, C = 2, 3, 2


def arguments(f: object) -> list[Tensor]:
    return [leaf(B, T, C) if d.kind == "input" else leaf(C) if d.kind == "vector" else leaf()
            for d in f.arguments]  # type: ignore[attr-defined]


@pytest.mark.parametrize("cell", FUNCTIONS, ids=lambda c: c.name)
def test_torch_checks_first_and_second_order(cell: lr.Cell, quick: None) -> None:
    f = lr.function(cell)
    args = arguments(f)
    init = [leaf(1, C) if s.depth == 1 else leaf(1, C, s.depth) for s in f.pipeline.sequences.values()]
    reset = torch.tensor([[False, False, True], [True, False, False]])

    def run(*tensors: Tensor) -> object:
        y, carry = f(*tensors[:len(args)], init=dict(zip(f.pipeline.sequences, tensors[len(args):], strict=True)), reset=reset,
                     return_state=True)
        return (*as_tuple(y), *carry.now.values())

    assert gradcheck(run, (*args, *init), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (*args, *init), check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, lr.cells.qrnn_fo], ids=lambda c: c.name)
def test_a_module_is_differentiable_twice(cell: lr.Cell, quick: None) -> None:
    layer = lr.RNN(cell, 1, 1, batch_first=True)
    params, x = dict(layer.named_parameters()), leaf(1, 3, 1)
    reset = torch.tensor([[False, False, True]])

    def run(x: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(params, values, strict=True))
        return functional_call(layer, named, (x,), {"reset": reset})[0]  # type: ignore[no-any-return]

    assert gradcheck(run, (x, *params.values()), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (x, *params.values()), check_fwd_over_rev=True, fast_mode=True)


def scalar(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    return lr.linear_scan(a, b, h).sin().sum()


def plain(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """The same by torch's own operations."""
    out = []
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        out.append(h)
    return torch.stack(out, 1).sin().sum()


def three() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(B, T, C), torch.randn(B, T, C), torch.randn(B, C)


def test_torch_func(backend: str) -> None:
    args, v = three(), three()
    assert_close(grad(scalar, (0, 1, 2))(*args), grad(plain, (0, 1, 2))(*args))
    assert_close(jvp(scalar, args, v), jvp(plain, args, v))
    assert_close(vjp(scalar, *args)[1](torch.tensor(2.0)), vjp(plain, *args)[1](torch.tensor(2.0)))
    for transform in (lambda f: jacrev(jacrev(f)), hessian, lambda f: jacfwd(jacfwd(f)), lambda f: jacrev(jacfwd(f))):
        assert_close([transform(scalar)(*args)], [transform(plain)(*args)])


def test_reverse_over_forward_outside_torch_func(quick: None) -> None:
    args, v = three(), three()
    for f in (scalar, plain):
        args = tuple(a.detach().requires_grad_() for a in args)
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(a, d) for a, d in zip(args, v, strict=True)]
            tangent = forward_ad.unpack_dual(f(*duals)).tangent
        found = torch.autograd.grad(tangent, args)
        if f is scalar:
            ours = found
    assert_close(ours, found)


@pytest.mark.parametrize("dims", [(0, 0, 0), (1, None, 0), (None, 2, None), (None, None, 0)], ids=str)
def test_vmap_over_anything(dims: tuple[int | None, ...], quick: None) -> None:
    shapes = [[B, T, C], [B, T, C], [B, C]]
    for shape, d in zip(shapes, dims, strict=True):
        if d is not None:
            shape.insert(d, 5)
    args = tuple(torch.randn(s) for s in shapes)
    for f, g in ((scalar, plain), (grad(scalar, 1), grad(plain, 1))):
        assert_close([vmap(f, dims)(*args)], [vmap(g, dims)(*args)])


@pytest.mark.parametrize("cell", [smooth, order2], ids=lambda c: c.name)
@pytest.mark.parametrize("mapped", ["inputs", "parameters", "both", "reset", "reset and parameters"])
def test_vmap_of_values_and_gradients(cell: lr.Cell, mapped: str, quick: None) -> None:
    f = lr.function(cell)
    many = [torch.randn(3, *a.shape) for a in arguments(f)]
    inputs = [d.kind == "input" for d in f.arguments]
    dims = [0 if (mapped in ("inputs", "both") if i else mapped.endswith(("parameters", "both"))) else None for i in inputs]
    args = [m if d == 0 else m[0] for m, d in zip(many, dims, strict=True)]
    reset = torch.rand(3, B, T) < 0.4
    cut, where = (reset, 0) if mapped.startswith("reset") else (reset[0], None)

    def loss(reset: Tensor, *args: Tensor) -> Tensor:
        y = f(*args, reset=reset)
        return sum(o.sin().sum() for o in as_tuple(y))  # type: ignore[return-value]

    for g in (loss, grad(loss, tuple(range(1, 1 + len(args))))):
        if where is None and all(d is None for d in dims):
            continue
        got = vmap(g, (where, *dims))(cut, *args)
        want = [g(reset[k if where == 0 else 0], *(m[k] if d == 0 else m[0] for m, d in zip(many, dims, strict=True)))
                for k in range(3)]
        if isinstance(got, Tensor):
            assert_close([got], [torch.stack(want)])
        else:
            assert_close(got, [torch.stack(w) for w in zip(*want, strict=True)])


@pytest.mark.parametrize("cell", [lr.cells.gilr, lr.cells.qrnn_fo], ids=lambda c: c.name)
def test_gradients_of_single_samples(cell: lr.Cell, quick: None) -> None:
    """vmap(grad) with shared weights: the usual way to per-sample gradients."""
    layer = lr.RNN(cell, 2, 3, batch_first=True)
    params, x = {n: p.detach() for n, p in layer.named_parameters()}, torch.randn(4, 5, 2)

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, p, (x.unsqueeze(0),))[0].square().sum()

    got = vmap(grad(loss), (None, 0))(params, x)
    for k in range(4):
        want = torch.autograd.grad(layer(x[k:k + 1])[0].square().sum(), list(layer.parameters()))
        assert_close([g[k] for g in got.values()], want)


@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, lr.cells.qrnn_fo], ids=lambda c: c.name)
def test_an_ensemble_of_weights(cell: lr.Cell, quick: None) -> None:
    layers = [lr.RNN(cell, 2, 3, batch_first=True) for _ in range(3)]
    params, _ = torch.func.stack_module_state(layers)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 2)
    got = vmap(lambda p: functional_call(layers[0], p, (x,))[0])(params)
    assert_close(got, [layer(x)[0] for layer in layers])


def test_only_final_states_matter(quick: None) -> None:
    """The gradient of h_n alone, where the backward pass would have no sequence to read."""
    from tests.nn.cells import constant
    x = leaf(B, T, C)
    _, carry = lr.function(constant)(x, return_state=True)
    got = torch.autograd.grad(carry.now["h"].sum(), x)
    assert_close(got, [(0.5 ** torch.arange(T - 1.0, -1, -1)).reshape(1, T, 1).expand(B, T, C)])


def test_third_order(quick: None) -> None:
    a = torch.tensor(0.3, requires_grad=True)

    def f(a: Tensor) -> Tensor:
        return lr.linear_scan(a.expand(1, 5, 1), torch.ones(1, 5, 1))[0, -1, 0]  # 1 + a + a² + a³ + a⁴

    value = f(a)
    for want in (1 + 2 * 0.3 + 3 * 0.3**2 + 4 * 0.3**3, 2 + 6 * 0.3 + 12 * 0.3**2, 6 + 24 * 0.3, 24.0):
        value, = torch.autograd.grad(value, a, create_graph=True)
        assert abs(float(value.detach()) - want) < 1e-12


def test_a_graph_can_be_run_twice_and_checkpointed(quick: None) -> None:
    from torch.utils.checkpoint import checkpoint
    a, b, h = (v.requires_grad_() for v in three())
    y = scalar(a, b, h)
    first = torch.autograd.grad(y, (a, b, h), retain_graph=True)
    assert_close(first, torch.autograd.grad(y, (a, b, h)))
    for reentrant in (False, True):
        z = checkpoint(scalar, a, b, h, use_reentrant=reentrant)
        z.backward()
        assert_close(first, [v.grad for v in (a, b, h)])
        a.grad = b.grad = h.grad = None


def test_legacy_vmap_of_autograd(quick: None) -> None:
    args = three()
    ours = torch.autograd.functional.jacobian(scalar, args, vectorize=True)
    assert_close(ours, torch.autograd.functional.jacobian(plain, args))
