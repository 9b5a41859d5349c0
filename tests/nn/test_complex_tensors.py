"""Complex tensors at the door: dtypes, layouts, parameters, Carry, torch.compile and torch.func."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lrdsl as lr
from lrdsl import t
from lrdsl.errors import BadDeclaration, DtypeMismatch
from lrdsl.nn.windows import time_first
from tests import truth
from tests.nn.compare import as_tuple, assert_close
from tests.nn.complex_cells import crossed, gated, layered, lru, mixed, second, squeezed
from tests.nn.test_complex import B, C, I, gradients, leaf

T = 7
CHUNKS = [slice(0, 1), slice(1, 2), slice(2, 2), slice(2, 6), slice(6, 7)]


def assert_same(a: lr.Carry, b: lr.Carry) -> None:
    for x, y in zip(a, b, strict=True):
        assert list(x) == list(y) and [v.dtype for v in x.values()] == [v.dtype for v in y.values()]
        assert_close(x.values(), y.values())


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("cell", [gated, second, crossed], ids=lambda c: c.name)
def test_chunks_of_a_function(cell: lr.Cell, mirrored: bool, backend: str) -> None:
    cell = lr.Cell(cell.spec.mirrored()) if mirrored else cell
    f, spec = lr.function(cell), cell.spec
    args = [leaf(B, T, C, complex=d.complex) if d.kind == "input" else leaf(*(C,) * (d.kind == "vector"), complex=d.complex)
            for d in f.arguments]
    init: Any = {k: leaf(B, C, *([s.depth] if s.depth > 1 else []), complex=s.name in spec.complex)
                 for k, s in f.pipeline.sequences.items()}
    reset = torch.rand(B, T) < 0.3
    whole, after = f(*args, init=init, reset=reset, return_state=True)
    parts, carry = [], init
    for at in reversed(CHUNKS) if mirrored else CHUNKS:
        y, carry = f(*(a[:, at] if a.dim() == 3 else a for a in args), init=carry, reset=reset[:, at], return_state=True)
        parts.append(as_tuple(y))
    chunked = [torch.cat(p, 1) for p in zip(*(reversed(parts) if mirrored else parts), strict=True)]
    assert_close(as_tuple(whole), chunked, 10)
    assert_same(after, carry)
    assert_close(gradients(as_tuple(whole), args), gradients(chunked, args), 1000)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", [lru, layered, mixed, second, squeezed], ids=lambda c: c.name)
def test_steps_of_a_module(cell: lr.Cell, given: bool, backend: str) -> None:
    layer = lr.RNN(cell, C, C, num_layers=2, batch_first=True)
    x, *others = (leaf(B, T, C, complex=d.complex) for d in cell.spec.of("input"))
    more = dict(zip(cell.spec.names("input")[1:], others, strict=True))
    states = tuple(leaf(2, B, C, *([s.depth] if s.depth > 1 else []), complex=s.name in cell.spec.complex)
                   for s in layer.parts[0].pipeline.plan.carried)
    h_0: Any = (states[0] if len(states) == 1 else states) if given else None
    reset = torch.rand(B, T) < 0.3
    whole, after = layer(x, h_0, reset=reset, return_state=True, **more)
    parts, carry = [], h_0
    for k in range(T):
        y, carry = layer.step(x[:, k], carry, reset=reset[:, k], **{n: v[:, k] for n, v in more.items()})
        parts.append(as_tuple(y))
    stepped = [torch.stack(p, 1) for p in zip(*parts, strict=True)]
    assert_close(as_tuple(whole), stepped, 10)
    assert_same(after, carry)
    leaves = [x, *others, *layer.parameters(), *(states if given else ())]
    assert_close(gradients(as_tuple(whole), leaves), gradients(stepped, leaves), 1000)
    h_n = as_tuple(layer(x, h_0, reset=reset, **more)[1])
    last = [after.now[f"layers.1.{s.name}"] for s in layer.parts[0].pipeline.plan.carried]
    assert_close([h[1] if h.dim() == 3 else h[1].transpose(1, 2) for h in h_n],
                 [w[:, 0] if w.shape[1] == 1 else w for w in last])
    assert carry.detach().to(torch.device("cpu")).now.keys() == carry.now.keys()


def test_layers_and_directions_are_complex(quick: None) -> None:
    """Two layers both ways, by hand from single ones."""
    layer = lr.RNN(layered, I, C, num_layers=2, bidirectional=True)
    x, h_0 = leaf(T, B, I), leaf(4, B, C)
    y, h_n = layer(x, h_0)
    assert y.is_complex() and y.shape == (T, B, 2 * C) and h_n.dtype == torch.complex128 and h_n.shape == (4, B, C)
    ends, below = [], x
    for k in range(2):
        found = []
        for way, name in enumerate(("", "reverse.")):
            part = lr.RNN(lr.Cell(layered.spec.mirrored()) if way else layered, below.shape[-1], C)
            part.load_state_dict({f"layers.0.{n}": layer.get_parameter(f"layers.{k}.{name}{n}")
                                  for n in ("gate.weight", "gate.bias", "W.weight", "W.bias")})
            z, h = part(below, h_0[2 * k + way][None])
            found.append(z)
            ends.append(h[0])
        below = torch.cat(found, -1)
    assert_close([y, h_n], [below, torch.stack(ends)])


def test_a_complex_output_needs_a_complex_input_above() -> None:
    @lr.cell
    def out(x: lr.Input, h: lr.State = lr.State(complex=True)):
        h[t] = 1j * h[t - 1] + x[t]
        return h[t]

    assert lr.RNN(out, C, C)(torch.randn(T, B, C))[0].is_complex()
    with pytest.raises(BadDeclaration, match=r"(?s)first output of out, h, is complex.*return lr\.re\(h\)"):
        lr.RNN(out, C, C, num_layers=2)
    below = lr.RNN(lru, I, C, num_layers=2)  # real in and out
    assert not below(torch.randn(T, B, I))[0].is_complex()


def test_dropout_drops_both_parts_together(quick: None) -> None:
    @lr.cell
    def through(x: lr.Input = lr.Input(complex=True), h: lr.State = lr.State(complex=True)):
        h[t] = 0 * h[t - 1] + x[t]
        return h[t]

    layer, x = lr.RNN(through, C, C, num_layers=2, dropout=0.5), leaf(40, B, C)
    y = layer(x)[0]
    gone = y == 0
    assert 0.3 < gone.double().mean() < 0.7
    assert_close([y[~gone]], [2 * x[~gone]])
    assert_close([layer.eval()(x)[0]], [x])


def test_parameters_are_complex_and_start_as_said() -> None:
    H = 64
    shapes = {n: (tuple(p.shape), p.dtype) for n, p in lr.RNN(lru, I, C, dtype=torch.float32).named_parameters()}
    assert shapes["layers.0.B.weight"] == ((C, I), torch.complex64) and shapes["layers.0.D.weight"] == ((C, I), torch.float32)
    layer = lr.RNN(mixed, 32, H)
    p = {n.removeprefix("layers.0."): v.detach() for n, v in layer.named_parameters()}
    assert p["W.weight"].shape == (H, 64) and p["W.weight"].dtype == p["v"].dtype == p["h_init"].dtype == torch.complex128
    for name in ("W.weight", "W.bias", "v"):
        parts = torch.view_as_real(p[name])
        assert 0.7 / math.sqrt(2 * H) < parts.abs().max() <= 1 / math.sqrt(2 * H)
    assert abs(float(p["W.weight"].abs().square().mean()) * 3 * H - 1) < 0.1  # the variance of a real weight
    assert (p["h_init"] == 0.25 + 0.5j).all() and p["G.bias"].dtype == torch.float64
    assert (lr.RNN(layered, I, C).get_parameter("layers.0.W.bias") == 1 - 1j).all()
    assert (layer.reset_parameters() is None) and not torch.equal(p["v"] + 0, layer.get_parameter("layers.0.v").detach() + 1)


def test_modules_change_their_dtype_and_keep_imaginary_parts(quick: None) -> None:
    layer, x = lr.RNN(mixed, C, C), leaf(T, B, C)
    before, y = copy.deepcopy(layer.state_dict()), layer(x)[0][0]
    for change in (lambda m: m.float(), lambda m: m.to(torch.float32)):
        small = change(copy.deepcopy(layer))
        assert {p.dtype for p in small.parameters()} == {torch.float32, torch.complex64}
        z = small(x.to(torch.complex64))[0][0]
        assert z.dtype == torch.complex64 and (z - y).abs().max() < 1e-5
    (layer(x)[0][0].real.sum()).backward()
    for change in (lambda m: m.float().double(), lambda m: m.to(torch.float32).to(torch.float64), lambda m: m.to("cpu")):
        again = change(copy.deepcopy(layer))
        assert {p.dtype for p in again.parameters()} == {torch.float64, torch.complex128}
        for name, p in again.named_parameters():
            assert (p - before[name]).abs().max() < 1e-7 and (p.grad is None or p.grad.dtype == p.dtype)
    for wrong in (lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.type(torch.complex64)):
        with pytest.raises(DtypeMismatch, match=r"layer\.(float|double)\(\)"):
            wrong(copy.deepcopy(layer))
    with pytest.raises(DtypeMismatch, match="what is complex is said in the cell"):
        lr.RNN(lru, I, C, dtype=torch.complex64)
    assert lr.RNN(lru, I, C, device="meta").to_empty(device="cpu").get_parameter("layers.0.C.weight").is_complex()


def test_modules_are_copied_saved_and_trained(quick: None) -> None:
    layer, x = lr.RNN(layered, I, C, num_layers=2, batch_first=True), leaf(B, T, I)
    file, fresh = io.BytesIO(), lr.RNN(layered, I, C, num_layers=2, batch_first=True)
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file))
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (fresh, copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert_close([other(x)[0]], [layer(x)[0]])
    optimizer, losses = torch.optim.Adam(layer.parameters(), 0.05), list[float]()
    for _ in range(5):
        optimizer.zero_grad()
        loss = layer(x.detach())[0].abs().square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_real_tensor_is_a_complex_one_without_imaginary_part(backend: str) -> None:
    a, b, h = leaf(B, T, C, complex=False), leaf(B, T, C), leaf(B, C, complex=False)
    got = lr.function(gated)(a, b, init={"h": h})
    want = truth.linear_scan(a + 0j, b, h + 0j)
    assert_close([got], [want])
    found, expected = gradients([got], [a, b, h]), gradients([want], [a, b, h])
    assert [g.dtype for g in found] == [g.dtype for g in expected] == [torch.float64, torch.complex128, torch.float64]
    assert_close(found, expected, 10)
    assert_close([lr.function(gated)(a, b, init={"h": 1 + 2j})], [truth.linear_scan(a + 0j, b, torch.full((B, C), 1 + 2j))])
    layer, x = lr.RNN(layered, I, C), leaf(T, B, I, complex=False)
    assert_close([layer(x, torch.zeros(1, B, C))[0]], [layer(x + 0j)[0]])


@pytest.mark.parametrize("call, text", [
    (lambda: lr.linear_scan(leaf(B, T, C), leaf(B, T, C)),
     "the input a is torch.complex128, and a is declared real"),
    (lambda: lr.linear_scan(torch.ones(B, T, C), torch.ones(B, T, C), leaf(B, C)), "the initial value of h"),
    (lambda: lr.linear_scan(torch.ones(B, T, C), torch.ones(B, T, C), 1j), "the initial value of h is 1j, and h is declared"),
    (lambda: lr.function(gated)(leaf(B, T, C), leaf(B, T, C).to(torch.complex64)), "b of gated is torch.complex64"),
    (lambda: lr.function(gated)(leaf(B, T, C), leaf(B, T, C), init={"h": torch.zeros(B, C, dtype=torch.complex64)}),
     "give it .to(torch.complex128)"),
    (lambda: lr.RNN(lr.cells.gilr, I, C)(leaf(T, B, I)), "declare x: lr.Input = lr.Input(complex=True), or give a real part"),
    (lambda: lr.RNN(lr.cells.gilr, I, C)(torch.zeros(T, B, I), leaf(1, B, C)), "h_0 is torch.complex128, and h is declared"),
    (lambda: lr.RNN(layered, I, C)(leaf(T, B, I).to(torch.complex64)),
     "the input x is torch.complex64 on cpu, the layer torch.complex128 on cpu"),
    (lambda: lr.RNN(lru, I, C)(torch.zeros(T, B, I), torch.zeros(1, B, C, dtype=torch.complex64)),
     "give h_0.to(torch.complex128)"),
    (lambda: lr.RNN(layered, I, C)(leaf(T, B, I).to(torch.complex32)), "the input x is torch.complex32 on cpu, the layer"),
])
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_what_is_refused(call: Any, text: str, quick: None) -> None:
    with pytest.raises(DtypeMismatch) as caught:
        call()
    assert text in str(caught.value)


@pytest.mark.parametrize("autocast", [False, True])
def test_autocast_computes_in_float32(autocast: bool, quick: None) -> None:
    layer, x = lr.RNN(layered, I, C, dtype=torch.float32), leaf(T, B, I).to(torch.complex64)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y, h = layer(x)
        assert y.dtype == h.dtype == torch.complex64
        with pytest.raises(DtypeMismatch, match="declared real"):
            lr.RNN(lr.cells.gilr, I, C, dtype=torch.float32)(x)
    assert (y - layer.double()(x.to(torch.complex128))[0]).abs().max() < (0.1 if autocast else 1e-5)


def test_every_layout_of_memory_is_the_same(quick: None) -> None:
    """Lazy conjugates and negatives, strides, time first: the numbers count, not how they lie in memory."""
    a, b = leaf(B, T, C).detach(), leaf(B, T, C).detach()
    want = truth.linear_scan(a, b)
    f = lr.function(gated)
    ways = {
        "time first": lambda z: z.transpose(0, 1).contiguous().transpose(0, 1),
        "channels apart": lambda z: torch.stack([z, 0 * z], -1).flatten(2)[..., ::2],
        "conjugate": lambda z: z.conj().resolve_conj().conj(),
        "channel first": lambda z: z.transpose(1, 2).contiguous().transpose(1, 2),
    }
    for name, way in ways.items():
        assert torch.equal(way(a), a)
        got = f(way(a), way(b))
        assert_close([got], [want], 10)
        assert (got.stride(0) < got.stride(1)) == (name == "time first")
    assert ways["conjugate"](a).is_conj()
    # The imaginary part of a conjugate is a lazy negative.
    real = lr.linear_scan(a.conj().imag, b.conj().imag)
    assert_close([real], [truth.linear_scan(-a.imag, -b.imag)], 10)
    x, gate = a.detach().clone().requires_grad_(), torch.ones(1, 1, 1, dtype=torch.complex128)
    assert_close([f(gate.expand(B, T, C), x)], [x.cumsum(1)])
    want = truth.linear_scan(a.transpose(0, 1), b.transpose(0, 1)).transpose(0, 1)
    assert_close([lr.function(gated, dim=0)(a, b)], [want], 10)


class Fresh(TorchDispatchMode):
    """Counts tensors of so many bytes and more that lie in memory of their own."""

    def __init__(self, size: int, *known: Tensor) -> None:
        super().__init__()
        self.size, self.alive = size, [z.untyped_storage() for z in known]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for z in tree_leaves(made):
            if isinstance(z, Tensor) and z.numel() * z.itemsize >= self.size and \
                    z.untyped_storage().data_ptr() not in [s.data_ptr() for s in self.alive]:
                self.alive.append(z.untyped_storage())
                self.found.append(str(func))
        return made


@pytest.mark.parametrize("in_time", [False, True])
def test_no_sequence_is_copied(in_time: bool, quick: None) -> None:
    """What takes memory is the states forward, and the gradients of both inputs backward: no part, no whole."""
    def drawn() -> Tensor:
        z = torch.randn((20, 2, 33) if in_time else (2, 20, 33), dtype=torch.complex64)
        return z.transpose(0, 1) if in_time else z

    a, b, g, h0 = (drawn().requires_grad_(), drawn().requires_grad_(), drawn(), torch.randn(2, 33, dtype=torch.complex64))
    f, size = lr.function(gated), a.numel() * 4
    with Fresh(size, a, b) as forward:
        y = f(a, b, init={"h": h0})
    with Fresh(size, a, b, y, g) as backward:
        da, db = torch.autograd.grad(y, [a, b], g)
    assert len(forward.found) == 1 and "gated" in forward.found[0]
    assert len(backward.found) == 2 and all("gated_backward" in name for name in backward.found)
    assert all(time_first(z) == in_time for z in (y, da, db))
    p, q = (z.detach().to(torch.complex128).requires_grad_() for z in (a, b))
    want = truth.linear_scan(p, q, h0.to(torch.complex128))
    for got, exact in zip((y, da, db), (want, *torch.autograd.grad(want, [p, q], g.to(torch.complex128))), strict=True):
        assert (got - exact).abs().max() <= 1e-6 * exact.abs().max()


def test_a_function_of_pairs_is_compiled_whole(quick: None) -> None:
    torch._dynamo.reset()
    f, a, b = lr.function(gated), leaf(B, T, C), leaf(B, T, C)
    found = [(y, *gradients([y], [a, b])) for y in (torch.compile(f, fullgraph=True, backend="aot_eager")(a, b), f(a, b))]
    assert_close(*found, 10)


def test_nothing_to_do(quick: None) -> None:
    for shape in ((B, 0, C), (0, T, C), (B, T, 0)):
        z, h = leaf(*shape), leaf(shape[0], shape[2])
        y, carry = lr.function(gated)(z, z, init={"h": h}, return_state=True)
        assert y.shape == shape and y.is_complex() and carry.now["h"].shape == (shape[0], 1, shape[2])
        dz, dh = torch.autograd.grad(y.real.sum() + carry.now["h"].real.sum(), [z, h])
        assert dz.shape == z.shape and dz.dtype == z.dtype
        assert_close([dh], [torch.full_like(h, shape[1] == 0)])


@lr.cell
def sizes(z: lr.Input = lr.Input(complex=True), w: lr.Input = lr.Input(complex=True), h: lr.State = lr.State()):
    """A modulus and a quotient, where they are delicate."""
    h[t] = 0 * h[t - 1] + lr.abs(z[t])
    return h[t], z[t] / w[t], 1 / w[t]


def test_the_gradient_of_a_modulus_is_0_at_0(backend: str) -> None:
    """As torch's, of every order; never nan."""
    z = torch.tensor([0, 3 + 4j, -2j, 0]).reshape(1, 4, 1).requires_grad_()
    w = torch.ones(1, 4, 1, dtype=torch.complex128)
    found = []
    for f in (lambda z: lr.function(sizes)(z, w)[0], torch.abs):
        g, = torch.autograd.grad(f(z).sum(), z, create_graph=True)
        gg, = torch.autograd.grad(torch.view_as_real(g).sin().sum(), z)
        found.append((f(z), g, gg))
    assert_close(*found, 10)
    assert (found[0][1][0, [0, 3]] == 0).all() and found[0][2].isfinite().all()


def test_no_square_overflows(backend: str) -> None:
    """Numbers whose squares are beyond float32, and below it, have moduli, quotients and gradients of these."""
    z = torch.tensor([3e30 + 4e30j, 3e-30 - 4e-30j, 1e19j, 2.0]).reshape(1, 4, 1).to(torch.complex64).requires_grad_()
    w = torch.tensor([1e30 - 1e30j, 2e-30 + 1e-30j, 1e-19 + 1e-25j, -4.0]).reshape(1, 4, 1).to(torch.complex64).requires_grad_()
    size, quotient, inverse = lr.function(sizes)(z, w)
    p, q = z.detach().to(torch.complex128).requires_grad_(), w.detach().to(torch.complex128).requires_grad_()
    for got, want in ((size, p.abs()), (quotient, p / q), (inverse, 1 / q)):
        assert ((got - want).abs() <= 1e-6 * want.abs()).all()
    g = torch.autograd.grad(size.sum() + (quotient / quotient.detach().abs()).real.sum(), [z])[0]
    h = torch.autograd.grad(p.abs().sum() + ((p / q) / (p / q).detach().abs()).real.sum(), [p])[0]
    assert ((g - h).abs() <= 1e-5 * h.abs()).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Torchinductor does not support")
@pytest.mark.parametrize("cell", [lru, layered, mixed], ids=lambda c: c.name)
def test_torch_compile_sees_a_whole_graph(cell: lr.Cell, quick: None) -> None:
    torch._dynamo.reset()
    layer = lr.RNN(cell, I, C)
    fast = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = leaf(T, B, I, complex=cell.spec.of("input")[0].complex)
    found = []
    for f in (fast, layer):
        y, h_n = f(x)
        outputs = (*as_tuple(y), *as_tuple(h_n))
        found.append((*outputs, *gradients(outputs, [x, *layer.parameters()])))
    assert_close(*found, 10)
    with torch.no_grad():
        assert_close(as_tuple(fast(x)[0]), as_tuple(layer(x)[0]))


def test_torch_func(quick: None) -> None:
    def ours(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        return (lr.function(gated)(a, b, init={"h": h}) * (1 + 2j)).real.sin().sum()

    def plain(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        return (truth.linear_scan(a, b, h) * (1 + 2j)).real.sin().sum()

    args, v = (tuple(leaf(*s).detach() for s in ((B, T, C), (B, T, C), (B, C))) for _ in range(2))
    assert_close(grad(ours, (0, 1, 2))(*args), grad(plain, (0, 1, 2))(*args), 10)
    assert_close(jvp(ours, args, v), jvp(plain, args, v), 100)
    many = tuple(torch.stack([a, 2 * a, a.conj() + 0]) for a in args)
    for f in (ours, grad(ours)):
        assert_close([vmap(f)(*many)], [torch.stack([f(*one) for one in zip(*many, strict=True)])], 10)
    layer = lr.RNN(layered, I, C, batch_first=True)
    params, x = {n: p.detach() for n, p in layer.named_parameters()}, leaf(3, T, I).detach()

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, p, (x[None],))[0].abs().square().sum()

    got = vmap(grad(loss), (None, 0))(params, x)
    for k in range(3):
        want = torch.autograd.grad(layer(x[k:k + 1])[0].abs().square().sum(), list(layer.parameters()))
        assert_close([g[k] for g in got.values()], want, 10)
