"""bfloat16 and float16 tensors: dtypes of all that a call gives, and numbers beside float64 loops on the same rounded inputs.

Bound B8: an output is off by what float32 arithmetic may, and by half a unit of its last bit. A gradient that reads the state
as it was given out is off by half a unit of the state's as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

import lrdsl as lr
from lrdsl import sigmoid, t
from lrdsl.nn.ops import op_of
from tests import bounds, truth
from tests.nn import loop
from tests.nn.cells import around, order2, smooth, strata
from tests.nn.compare import as_tuple, parameters

NARROW = [torch.bfloat16, torch.float16]
NAME = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
F32 = bounds.ROUNDOFF["float32"]
B, T, C = 2, 40, 5


@pytest.fixture(params=NARROW, ids=NAME.values())
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["reference", "native", "emulated"])
def every(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend of a machine without a GPU."""
    from tests.nn.conftest import _there
    if request.param != "reference" and not _there():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("LRDSL_BACKEND", request.param)
    return str(request.param)


@lr.cell
def decay(x: lr.Input, h: lr.State, v: lr.Vector, w: lr.Scalar):
    """Learned numbers that 16 bits may not hold."""
    h[t] = v * h[t - 1] + x[t] + w
    return h[t]


@lr.cell
def decaying(x: lr.Input, h: lr.State, v: lr.Vector, look: lr.Affine):
    """The same after a dense map; the state is no output."""
    h[t] = v * h[t - 1] + look(x[t])
    return sigmoid(h[t])


def drawn(dtype: torch.dtype, *shape: int, near: bool = False) -> Tensor:
    values = 1 - 8 / T * torch.rand(shape) if near else torch.randn(shape)
    return values.to(dtype).requires_grad_()


def array(tensor: Tensor) -> Any:
    return tensor.detach().double().numpy()


@pytest.mark.parametrize("length", [1, 40, 300])
@pytest.mark.parametrize("with_reset", [False, True])
def test_a_scan_is_within_its_bound(every: str, dtype: torch.dtype, with_reset: bool, length: int) -> None:
    """Values and gradients, number by number; the initial state and its gradient are float32."""
    a, b, w = drawn(dtype, B, length, C, near=True), drawn(dtype, B, length, C), drawn(dtype, B, length, C).detach()
    h0 = torch.randn(B, C, dtype=torch.float32, requires_grad=True)
    reset = torch.rand(B, length) < 0.1 if with_reset else None
    h, carry = lr.function(lr.cells.linear_scan)(a, b, init={"h": h0}, reset=reset, return_state=True)
    gradients = torch.autograd.grad(h, (a, b, h0), w)
    assert [v.dtype for v in (h, *gradients, carry.now["h"])] == [dtype, dtype, dtype, torch.float32, torch.float32]
    ins = [truth.leaf(v) for v in (a, b, h0)]
    exact = truth.linear_scan(*ins, reset=reset)
    wanted = [array(v) for v in torch.autograd.grad(exact, ins, w.double())]
    # Any order of the sums, however time is cut; resets as in the loop.
    edges: dict[str, Any] = {"reset": None if reset is None else reset.numpy()}
    common: dict[str, Any] = {"c_m": 2, "c_a": length + 1, "u": F32}
    h_err = bounds.scan_bound(array(a), array(b), array(h0), **common, **edges)
    assert bounds.ratio(array(h), array(exact), bounds.stored(array(exact), h_err, NAME[dtype])) <= 1
    assert bounds.ratio(array(carry.now["h"][:, 0]), array(exact[:, -1]), h_err[:, -1]) <= 1
    found = bounds.gradient_bounds(array(a), array(b), array(w), array(h0), **common, **edges)
    read = np.abs(bounds.previous(array(exact), array(h0), **edges))  # as it is stored
    da_err = found.da + np.abs(wanted[1]) * bounds.stored(read, 0.0, NAME[dtype]) * (1 + 1e-3)
    for got, want, err in zip(gradients[:2], wanted, (da_err, found.db), strict=False):
        assert bounds.ratio(array(got), want, bounds.stored(want, err, NAME[dtype])) <= 1
    assert bounds.ratio(array(gradients[2]), wanted[2], found.dh0) <= 1


def of_loop(cell: lr.Cell, args: list[Tensor], init: list[Tensor], reset: Tensor, f: Any) -> tuple[Tensor, ...]:
    """The cell's outputs by a loop in float64."""
    spec = cell.spec
    inputs = {d.name: a for d, a in zip(f.arguments, args, strict=True) if d.kind == "input"}
    learned = {d.name: a for d, a in zip(f.arguments, args, strict=True) if d.kind != "input"}
    values = loop.run(spec, inputs, learned, C, dict(zip(f.pipeline.sequences, init, strict=True)), reset)
    return loop.outputs(spec, values)


def near(got: Tensor, want: Tensor, units: float, dtype: torch.dtype) -> None:
    """Off by a few units of the largest number."""
    scale, want = units * bounds.ROUNDOFF[NAME[dtype]] * float(want.detach().abs().max().clamp_min(1)), want.detach()
    assert (got.double() - want).abs().max() <= scale, float((got.double() - want).abs().max() / scale * units)


@pytest.mark.parametrize("cell", [lr.cells.linear_scan, order2, strata, around, smooth, decay], ids=lambda c: c.name)
def test_all_derivatives_of_a_function(cell: lr.Cell, every: str, dtype: torch.dtype) -> None:
    """Values, gradients, gradients of gradients and tangents, with edges and boundaries."""
    f, small = lr.function(cell), 0.5
    args = [(small * torch.randn(B, 9, C) if d.kind == "input" else small * torch.rand(C) if d.kind == "vector" else
             small * torch.rand(())).to(dtype).requires_grad_() for d in f.arguments]
    init = [(small * torch.randn(B, C, *([s.depth] if s.depth > 1 else []))).to(dtype).requires_grad_()
            for s in f.pipeline.sequences.values()]
    reset = torch.rand(B, 9) < 0.2
    every_input = [*args, *init]
    exact = [truth.leaf(v) for v in every_input]
    weights, second = [torch.randn(B, 9, C).to(dtype) for _ in range(4)], [torch.randn(v.shape).to(dtype) for v in every_input]

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        edges = dict(zip(f.pipeline.sequences, given[len(args):], strict=True))
        return as_tuple(f(*given[:len(args)], init=edges, reset=reset))

    def slow(*given: Tensor) -> tuple[Tensor, ...]:
        return of_loop(cell, list(given[:len(args)]), list(given[len(args):]), reset, f)

    found = []
    for function, given in ((run, every_input), (slow, exact)):
        outputs = function(*given)
        kind = given[0].dtype
        loss = [w.to(kind) for w in weights[:len(outputs)]]
        first = torch.autograd.grad(outputs, given, loss, create_graph=True, allow_unused=True)
        there = [(g, s.to(kind)) for g, s in zip(first, second, strict=True) if g is not None and g.requires_grad]
        twice = torch.autograd.grad([g for g, _ in there], given, [s for _, s in there], allow_unused=True)
        with forward_ad.dual_level():
            dual = function(*(forward_ad.make_dual(v.detach(), s.to(kind)) for v, s in zip(given, second, strict=True)))
            tangents = [forward_ad.unpack_dual(o).tangent for o in dual]
        found.append((outputs, first, twice, tangents))
    for ours, theirs, units in zip(*found, (2.5, 4, 12, 4), strict=True):
        for got, want in zip(ours, theirs, strict=True):
            if want is None or got is None:
                assert (got is None or not got.any()) and (want is None or not want.any())
                continue
            assert got.dtype == dtype
            near(got, want, units, dtype)


@pytest.mark.parametrize("cell", [lr.cells.linear_scan, lr.cells.linear_scan_reverse, strata, order2, smooth],
                         ids=lambda c: c.name)
def test_chunks_are_the_whole_to_the_last_bit(cell: lr.Cell, dtype: torch.dtype, quick: None) -> None:
    """Outputs, what is carried, and gradients: states go on in float32, and are read again with as many bits as inside."""
    mirrored = lr.function(cell).pipeline.reverse
    f, L = lr.function(cell), 12
    args = [(torch.randn(B, L, C) / 2 if d.kind == "input" else torch.rand(C) if d.kind == "vector" else torch.rand(())
             ).to(dtype).requires_grad_(d.kind == "input") for d in f.arguments]
    reset, w = torch.rand(B, L) < 0.2, torch.randn(B, L, C).to(dtype)
    carry: Any = {k: torch.randn(B, C, *([s.depth] if s.depth > 1 else []), dtype=torch.float32)
                  for k, s in f.pipeline.sequences.items() if k in cell.spec.names("state")}
    whole, after = f(*args, init=carry, reset=reset, return_state=True)
    parts = []
    for at in [slice(5, 12), slice(0, 5)] if mirrored else [slice(0, 5), slice(5, 12)]:
        y, carry = f(*(a[:, at] if a.dim() == 3 else a for a in args), init=carry, reset=reset[:, at], return_state=True)
        parts.append(as_tuple(y))
    chunked = [torch.cat(p, 1) for p in zip(*(reversed(parts) if mirrored else parts), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(as_tuple(whole), chunked, strict=True))
    assert all(torch.equal(after.now[k], carry.now[k]) and after.now[k].dtype == carry.now[k].dtype for k in after.now)
    moving = [a for a in args if a.requires_grad]
    both = [torch.autograd.grad(y, moving, [w] * len(y)) for y in (as_tuple(whole), chunked)]
    if all(k in cell.spec.names("state") for k in f.pipeline.sequences):  # else what an edge and a step send are rounded apart
        assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
    for a, b in zip(*both, strict=True):
        near(a, b.double(), 2, dtype)


def test_steps_do_not_stall(dtype: torch.dtype, quick: None) -> None:
    """A state of 16 bits would stay where it is: 1 + 2^-12 is 1."""
    layer = lr.RNN(decay, 1, 1)
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(1.0 if p.dim() else 0.0)
    layer = layer.to(dtype)
    x, carry = torch.full((1, 1), 2.0**-12, dtype=dtype), torch.ones(1, 1, 1, dtype=dtype)
    for _ in range(4096):
        y, carry = layer.step(x, carry)
    assert carry.now["layers.0.h"].dtype == torch.float32 and y.dtype == dtype and float(y.detach()) == 2
    y, h_n = layer(x.expand(4096, 1, 1), torch.ones(1, 1, 1, dtype=dtype))
    assert h_n.dtype == dtype and float(h_n.detach()) == 2


@pytest.mark.parametrize("cell", [lr.cells.gilr, lr.cells.sru, decaying, *(
    pytest.param(c, marks=pytest.mark.long) for c in (lr.cells.gilr_lstm, lr.cells.qrnn_ifo))], ids=lambda c: c.name)
def test_a_layer_has_the_manners_of_torch(cell: lr.Cell, dtype: torch.dtype, quick: None) -> None:
    """layer.to(dtype): all that it gives has that dtype, and is near the same layer in float64."""
    layer = lr.RNN(cell, C, C, num_layers=2, bidirectional=cell is not lr.cells.sru).to(dtype)
    exact = lr.RNN(cell, C, C, num_layers=2, bidirectional=cell is not lr.cells.sru)
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(7, B, C).to(dtype).requires_grad_()
    h_0 = tuple(torch.randn(2 * layer.directions, B, C, *([s.depth] if s.depth > 1 else [])).to(dtype) for s in layer.carried)
    found = []
    for module, kind in ((layer, dtype), (exact, torch.float64)):
        given, start = x.detach().to(kind).requires_grad_(), tuple(s.to(kind) for s in h_0)
        y, h_n = module(given, start if len(start) > 1 else start[0], reset=torch.arange(14).reshape(7, B) % 5 == 3)
        every_output = (y, *as_tuple(h_n))
        weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(kind)
        grads = torch.autograd.grad(y, [given, *module.parameters()], weights)
        assert {v.dtype for v in (*every_output, *grads)} == {kind}
        found.append((*every_output, *grads))
    for got, want in zip(*found, strict=True):
        near(got, want, 30, dtype)
    as_float = layer(x, tuple(s.float() for s in h_0) if len(h_0) > 1 else h_0[0].float())
    assert torch.equal(as_float[0], layer(x, h_0 if len(h_0) > 1 else h_0[0])[0])


@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, lr.cells.qrnn_ifo, decaying], ids=lambda c: c.name)
def test_chunks_and_steps_of_a_layer(cell: lr.Cell, dtype: torch.dtype, quick: None) -> None:
    """Whole = chunked = step by step, up to how torch adds up a matrix product of another size."""
    layer = lr.RNN(cell, C, C, num_layers=2).to(dtype)
    x, reset = torch.randn(9, B, C).to(dtype), torch.rand(9, B) < 0.2
    start = tuple(torch.randn(2, B, C, dtype=torch.float32) for _ in layer.carried)
    h_0: Any = start if len(start) > 1 else start[0]
    whole, after = layer(x, h_0, reset=reset, return_state=True)
    first, carry = layer(x[:4], h_0, reset=reset[:4], return_state=True)
    parts = [first]
    for k in range(4, 9):
        y, carry = layer.step(x[k], carry, reset=reset[k])
        parts.append(y[None])
    near(torch.cat(parts), whole.double(), 2, dtype)
    for name, value in after.now.items():
        assert carry.now[name].dtype == value.dtype
        near(carry.now[name], value.double(), 2, dtype)


def test_numbers_are_not_rounded(dtype: torch.dtype, every: str) -> None:
    """A number of Python, and a learned one that is float32, beside sequences of 16 bits."""
    x, v = drawn(dtype, B, 30, C), 1 - 2.0**-13
    numbers = torch.full((C,), v, dtype=torch.float32, requires_grad=True)
    by_number, by_tensor = (lr.function(decay)(x, given, 0.0) for given in (v, numbers))
    assert by_number.dtype == dtype and torch.equal(by_number, by_tensor)
    exact = truth.leaf(x), truth.leaf(numbers)
    want = of_loop(decay, [*exact, torch.zeros(())], [torch.zeros(B, C)], torch.zeros(B, 30, dtype=torch.bool),
                   lr.function(decay))
    near(by_tensor, want[0], 1.01, dtype)
    got = torch.autograd.grad(by_tensor, (x, numbers), torch.ones_like(by_tensor))
    assert [g.dtype for g in got] == [dtype, torch.float32]
    for g, e, units in zip(got, torch.autograd.grad(want[0], exact, torch.ones_like(want[0])), (1.01, 2), strict=True):
        near(g, e, units, dtype)
    rounded = lr.function(decay)(x, numbers.to(dtype), 0.0)  # to 1
    assert not torch.equal(rounded, by_tensor)


def test_a_layer_may_keep_a_number_in_float32(dtype: torch.dtype, quick: None) -> None:
    layer = lr.RNN(decaying, C, C).to(dtype)
    tree: Any = layer.layers[0]
    tree.v = torch.nn.Parameter(torch.full((C,), 1 - 2.0**-13, dtype=torch.float32))
    y, _ = layer(torch.randn(9, B, C).to(dtype))
    y.sum().backward()
    assert y.dtype == dtype and {n: p.grad.dtype for n, p in layer.named_parameters() if p.grad is not None} == {
        "layers.0.v": torch.float32, "layers.0.look.weight": dtype, "layers.0.look.bias": dtype}


@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, lr.cells.sru, decaying], ids=lambda c: c.name)
def test_autocast_is_that_of_a_layer_of_torch(cell: lr.Cell, quick: None) -> None:
    """As torch.nn.LSTM: x, weights and outputs in the region's dtype. States and learned numbers are float32."""
    layer = lr.RNN(cell, C, C, num_layers=2).float()
    x, like = torch.randn(9, B, C, dtype=torch.float32), torch.nn.LSTM(C, C).float()
    with torch.no_grad():
        if cell is decaying:
            for p in parameters(layer).values():
                p.copy_(torch.full_like(p, 1 - 2.0**-13) if p.shape == (C,) else p)
    for d in NARROW:
        with torch.autocast("cpu", d):
            y, h = layer(x)
            y_t = like(x)[0] if d is torch.bfloat16 else y  # torch's own has no float16 on all CPUs
            _, carry = layer(x, return_state=True)
        assert y.dtype == as_tuple(h)[0].dtype == y_t.dtype == d
        assert {v.dtype for k, v in carry.now.items() if k.endswith((".h", ".c"))} == {torch.float32}
        (y.float() ** 2).sum().backward()
        assert {p.grad.dtype for p in layer.parameters() if p.grad is not None} == {torch.float32}
        near(y, layer(x)[0].double(), 20, d)


def test_autocast_rounds_nothing_that_a_function_got(quick: None) -> None:
    """As torch.cumsum and torch.cat: float32 stays, 16 bits stay, both become float32."""
    a, b = torch.rand(B, T, C, dtype=torch.float32, requires_grad=True), torch.randn(B, T, C, dtype=torch.float32)
    want = lr.linear_scan(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        h = lr.linear_scan(a, b, torch.zeros(B, C, dtype=torch.bfloat16))
        narrow = lr.linear_scan(a.bfloat16(), b.bfloat16())
        mixed = lr.linear_scan(a, b.bfloat16())
        torch.autograd.grad(h.sum(), a)  # a backward pass inside of the region
        torch.autograd.grad(narrow.sum(), a)
        assert torch.equal(lr.function(decay)(b, 0.75, torch.tensor(1.0).bfloat16()), lr.function(decay)(b, 0.75, 1.0))
    assert torch.equal(h, want) and narrow.dtype == torch.bfloat16 and mixed.dtype == torch.float32
    assert torch.equal(narrow, lr.linear_scan(a.bfloat16(), b.bfloat16()))
    assert torch.equal(mixed, lr.linear_scan(a, b.bfloat16().float()))


def test_what_does_not_fit(dtype: torch.dtype, every: str) -> None:
    """float16 overflows to inf, as torch's conversion does, while the state goes on; nan stays nan; denormals are not lost."""
    a, b = torch.ones(1, 6, 1, dtype=dtype), torch.tensor([6e4, 6e4, -6e4, -6e4, 1.0, torch.nan]).to(dtype).reshape(1, 6, 1)
    h = lr.linear_scan(a, b).flatten()
    want = truth.linear_scan(a.double(), b.double()).flatten().to(dtype)
    assert torch.equal(h[:5], want[:5]) and bool(h[5].isnan())
    assert bool(h[1].isinf()) == (dtype == torch.float16) and float(h[4]) == 1
    tiny = torch.full((1, 3, 1), 2.0**-24 if dtype == torch.float16 else 2.0**-133).to(dtype)
    sums = lr.linear_scan(torch.ones_like(tiny), tiny)
    assert torch.equal(sums.flatten(), tiny.flatten() * torch.tensor([1, 2, 3]).to(dtype))


def test_the_ops_keep_torch_s_rules(dtype: torch.dtype, quick: None) -> None:
    f = lr.function(decay)
    [op] = [s for s, _ in f.pipeline.steps]
    for o, numbers in ((op, dtype), (op.precise, torch.float32)):
        shape = {s.name: () if s.name in o.launcher.lone else s.shape(B, 6, C) for s in o.launcher.ins}
        ins = {s.name: (torch.rand(shape[s.name]) / 2).to(numbers if s.kind == "vector" else
                                                          dtype if s.kind == "sequence" else torch.float32)
               for s in o.launcher.ins[:-1]}
        args = [v.requires_grad_() for v in ins.values()]
        torch.library.opcheck(o.overload, (*args, torch.rand(B, 6) < 0.3))
        torch.library.opcheck(o.kept.overload, (*args, None))
    assert op_of(op.precise.program) is op.precise is op.precise.precise


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_torch_makes_of_a_layer(quick: None) -> None:
    """compile, with and without autocast; meta tensors; torch.func; no steps and no batch."""
    layer = lr.RNN(lr.cells.gilr_lstm, 3, C).bfloat16()
    x = torch.randn(6, B, 3).bfloat16()
    torch._dynamo.reset()
    fast = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = []
    for f in (fast, layer):
        y, h = f(x)
        found.append((y, *h, *torch.autograd.grad(y.float().sin().sum() + h[0].float().sum(), list(layer.parameters()))))
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(*found, strict=True))
    single = lr.RNN(decaying, 3, C).float()
    torch._dynamo.reset()
    with torch.autocast("cpu", torch.bfloat16):
        for s in (x.float(), x):
            assert torch.equal(torch.compile(single, fullgraph=True, backend="aot_eager")(s)[0], single(s)[0])
    meta = lr.RNN(lr.cells.gilr_lstm, 3, C, device="meta", dtype=torch.float16)
    y, h = meta(torch.empty(6, B, 3, device="meta", dtype=torch.float16))
    assert y.dtype == h[0].dtype == torch.float16 and y.shape == (6, B, C)
    named = {n: p.detach() for n, p in layer.named_parameters()}

    def loss(params: Any, x: Tensor) -> Tensor:
        return functional_call(layer, params, (x,))[0].float().square().sum()

    many = vmap(grad(loss), (None, 1))(named, x.unsqueeze(2))
    each = [grad(loss)(named, x[:, k:k + 1]) for k in range(B)]
    for n, v in many.items():
        assert v.dtype == torch.bfloat16
        near(v, torch.stack([e[n] for e in each]).double(), 4, torch.bfloat16)
    y, dy = jvp(lambda x: layer(x)[0], (x,), (torch.ones_like(x),))
    assert y.dtype == dy.dtype == torch.bfloat16 and bool(dy.any())
    for shape in ((0, B, 3), (6, 0, 3)):
        y, h = layer(torch.empty(shape, dtype=torch.bfloat16))
        assert y.shape == (*shape[:2], C) and y.dtype == h[0].dtype == torch.bfloat16
