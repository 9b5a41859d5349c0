"""Lists of cells, maps that skip, maps of a size of their own, several outputs: what a stack of layers is made of."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

import lrdsl as lr
from lrdsl import sigmoid, t, tanh
from tests.nn import loop
from tests.nn.cells import smooth, stacked, window
from tests.nn.compare import as_tuple, assert_close, gradients, leaf, parameters

B, T, I, H = 2, 6, 3, 4
gilr, gilr_lstm, sru, qrnn = lr.cells.gilr, lr.cells.gilr_lstm, lr.cells.sru, lr.cells.qrnn_fo


@lr.cell
def highway(x: lr.Input, h: lr.State, gate: lr.Affine, *, carry: lr.Affine = lr.Affine(bias=False, skip=True)):
    """A highway around a recurrence, as wide as it must be."""
    g = sigmoid(gate(x[t]))
    h[t] = g * h[t - 1] + (1 - g) * carry(x[t - 1])
    return h[t] + carry(x[t])


@lr.cell
def narrow(x: lr.Input, h: lr.State, gate: lr.Affine, up: lr.Affine, down: lr.Affine = lr.Affine(size=2),
           out: lr.Affine = lr.Affine(size="input"), rank: lr.Affine = lr.Affine(size=3, bias=False)):
    """Maps through fewer numbers, before and after a state, at lags, in windows and of each other; one as wide as the input."""
    g = sigmoid(gate(down(x[t], x[t - 1])))
    h[t] = g * h[t - 1] + (1 - g) * tanh(up(rank(down(x[t - 1], x[t]), x[t - 2])))
    return out(h[t], h[t - 1]), rank(down(x[t], x[t - 1]), x[t]), h[t]


@lr.cell
def named(x: lr.Input, h: lr.State, gate: lr.Affine, p: lr.Affine = lr.Affine(size=2)):
    h[t] = sigmoid(gate(x[t])) * h[t - 1] + 1
    return {"code": p(h[t]), "h": h[t]}


narrow_lstm = lr.surrogate(lr.cells.lstm, h=named)


def test_each_layer_has_its_cell(quick: None) -> None:
    """The composition of modules of one layer: values, h_n, gradients, both directions."""
    cells = [gilr, qrnn, gilr]
    layer = lr.RNN(cells, I, H, bidirectional=True)
    x, h_0, reset = leaf(T, B, I), torch.randn(6, B, H), torch.rand(T, B) < 0.3
    y, h_n = layer(x, h_0, reset=reset)
    z, ends = x, []
    for k, cell in enumerate(cells):
        one = lr.RNN(cell, z.shape[-1], H, bidirectional=True)
        one.load_state_dict({f"layers.0.{n}": p for n, p in parameters(layer, f"layers.{k}.").items()})
        z, end = one(z, h_0[2 * k:2 * k + 2], reset=reset)
        ends.append(end)
    assert_close([y, h_n], [z, torch.cat(ends)])
    assert_close(gradients([y, h_n], [x]), gradients([z, torch.cat(ends)], [x]), 10)
    assert repr(layer) == f"RNN([gilr, {qrnn.name}, gilr], 3, 4, bidirectional=True)" and layer.num_layers == 3
    assert layer.name == f"[gilr, {qrnn.name}, gilr]" and layer.cell == tuple(cells)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_close([other(x)[0]], [layer(x)[0]])


@pytest.mark.parametrize("how", ["whole", "packed"])
def test_layers_that_carry_different_states(how: str, quick: None) -> None:
    layer = lr.RNN([gilr, gilr_lstm, order_two(), lr.cells.sru], I, H)
    x = torch.randn(T, B, I) if how == "whole" else torch.randn(T, I)
    more = {} if how == "whole" else {"cu_seqlens": torch.tensor([0, 2, T])}
    _, h_n = layer(x, **more)
    assert isinstance(h_n, tuple) and [tuple(h.shape) for h in (h_n[0], *h_n[1], h_n[2], h_n[3])] == [
        (1, B, H), (1, B, H), (1, B, H), (1, B, H, 2), (1, B, H)]
    h_0 = (torch.randn(1, B, H), None, torch.randn(1, B, H, 2), torch.randn(1, B, H))
    _, after = layer(x, h_0, **more, return_state=True)
    assert_close([after.edge["layers.0.h"][:, 0], after.edge["layers.2.y"].transpose(1, 2)], [h_0[0][0], h_0[2][0]])
    assert "layers.1.c" not in after.edge
    with pytest.raises(lr.ShapeMismatch, match="carry different states, so that h_0 holds one entry a layer"):
        layer(x, torch.randn(4, B, H), **more)
    with pytest.raises(lr.ShapeMismatch, match=r"h_0 of layer 1 of h\.h has shape"):
        layer(x, (None, (torch.zeros(1, B, H), torch.zeros(B, H)), None, None), **more)
    with pytest.raises(lr.ShapeMismatch, match="h_0 of layer 0 holds 2 states; gilr carries 1: h"):
        layer(x, ((x, x), None, None, None), **more)


def order_two() -> lr.Cell:
    @lr.cell
    def second(x: lr.Input, y: lr.State, a: lr.Affine):
        y[t] = 0.5 * y[t - 1] + 0.25 * y[t - 2] + a(x[t])
        return y[t]
    return second


def test_chunks_and_steps_of_a_list(backend: str) -> None:
    layer = lr.RNN([qrnn, gilr_lstm, highway], I, H)
    x, reset = torch.randn(T, B, I), torch.rand(T, B) < 0.3
    whole, after = layer(x, reset=reset, return_state=True)
    first, carry = layer(x[:3], reset=reset[:3], return_state=True)
    parts = [first]
    for k in range(3, T):
        y, carry = layer.step(x[k], carry, reset=reset[k])
        parts.append(y[None])
    assert_close([whole, *after.now.values()], [torch.cat(parts), *carry.now.values()])


def test_the_inputs_of_a_list(quick: None) -> None:
    layer = lr.RNN([window, gilr, window], H, H)
    x, u = torch.randn(T, B, H), torch.randn(T, B, H)
    (h, g), _ = layer(x, u=u)
    assert h.shape == g.shape == (T, B, H)
    with pytest.raises(lr.CellError, match=r"\[window, gilr, window\] needs the input u"):
        layer(x)

    @lr.cell
    def other(x: lr.Input, h: lr.State, m: lr.Affine, u: lr.Input = lr.Input(size=7)):
        h[t] = sigmoid(m(u[t])) * h[t - 1] + x[t]
        return h[t]

    with pytest.raises(lr.ShapeMismatch, match="read the input u with 4 and with 7 features"):
        lr.RNN([window, other], H, H)
    with pytest.raises(lr.CellError, match="gilr runs from the right"):
        lr.RNN([gilr, lr.Cell(gilr.spec.mirrored())], I, H).step(x[0, :, :I])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", [narrow, narrow_lstm, named], ids=lambda c: c.name)
def test_maps_of_their_own_size_are_their_equations(cell: lr.Cell, given: bool, mirrored: bool, backend: str) -> None:
    cell = lr.Cell(cell.spec.mirrored()) if mirrored else cell
    layer = lr.RNN(cell, I, H, batch_first=True)
    x, reset = leaf(B, T, I), torch.rand(B, T) < 0.3 if given else None
    states = layer.parts[0].pipeline.plan.carried
    h_0 = tuple(leaf(1, B, H) for _ in states) if given else None
    y, h_n = layer(x, h_0, reset=reset)
    params = parameters(layer)
    init = {s.name: h[0] for s, h in zip(states, h_0, strict=True)} if h_0 else {}
    values = loop.run(cell.spec, {"x": x}, params, H, init, reset)
    want = loop.outputs(cell.spec, values)
    got = as_tuple(y)
    assert_close(got, want)
    last = [values[s.name][:, 0 if mirrored else -1] for s in states]
    assert_close([h[0] for h in as_tuple(h_n)], last)
    leaves = [x, *params.values(), *(h_0 or ())]
    assert_close(gradients(got, leaves), gradients(want, leaves), 100)


def test_sizes_of_maps_are_those_of_parameters_and_outputs(quick: None) -> None:
    layer = lr.RNN(narrow, I, H, num_layers=2)
    shapes = {n: tuple(p.shape) for n, p in layer.named_parameters()}
    assert shapes["layers.0.down.weight"] == (2, 2 * I) and shapes["layers.0.down.bias"] == (2,)
    assert shapes["layers.0.gate.weight"] == (H, 2) and shapes["layers.0.up.weight"] == (H, 3)
    assert shapes["layers.0.rank.weight"] == (3, 2 + I) and "layers.0.rank.bias" not in shapes
    assert shapes["layers.1.out.weight"] == (I, 2 * H) and shapes["layers.1.down.weight"] == (2, 2 * I)
    assert [o.shape[-1] for o in layer(torch.randn(T, B, I))[0]] == [I, 3, H]
    both = lr.RNN(named, I, H, num_layers=2, bidirectional=True)
    assert both.get_parameter("layers.1.gate.weight").shape == (H, 4)  # it reads the first output, 2 numbers a direction
    assert {n: o.shape[-1] for n, o in both(torch.randn(T, B, I))[0].items()} == {"code": 4, "h": 2 * H}
    named_so = [p for n, p in both.layers[0].named_parameters() if n == "gate.weight"]
    assert_close(named_so, [both.get_parameter("layers.0.gate.weight")])


@pytest.mark.parametrize("cell", [narrow, narrow_lstm], ids=lambda c: c.name)
def test_chunks_and_steps_of_sized_maps(cell: lr.Cell, every_backend: str) -> None:
    layer = lr.RNN(cell, I, H, num_layers=2)
    x, reset = torch.randn(T, B, I), torch.rand(T, B) < 0.3
    whole, after = layer(x, reset=reset, return_state=True)
    first, carry = layer(x[:2], reset=reset[:2], return_state=True)
    parts = [as_tuple(first)]
    for k in range(2, T):
        y, carry = layer.step(x[k], carry, reset=reset[k])
        parts.append(tuple(o[None] for o in as_tuple(y)))
    assert_close(as_tuple(whole), [torch.cat(column) for column in zip(*parts, strict=True)])
    assert_close(after.now.values(), carry.now.values())
    y, h_n = layer(x[:, 0], cu_seqlens=torch.tensor([0, 1, T]))
    for k, at in enumerate((slice(0, 1), slice(1, T))):
        alone, own = layer(x[at, 0])
        assert_close([*(o[at] for o in as_tuple(y)), *(h[:, k] for h in as_tuple(h_n))], [*as_tuple(alone), *as_tuple(own)])


@pytest.mark.parametrize("size", [I, H])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_map_that_skips_is_the_identity_where_sizes_agree(size: int, mirrored: bool, every_backend: str) -> None:
    cell = lr.Cell(highway.spec.mirrored()) if mirrored else highway
    layer = lr.RNN(cell, size, H, batch_first=True)
    params = parameters(layer)
    assert ("carry.weight" in params) == (size != H)
    wide = lr.RNN(cell, H, H, bidirectional=True, num_layers=2).get_parameter("layers.1.reverse.carry.weight")
    assert wide.shape == (H, 2 * H)
    x, reset = leaf(B, T, size), torch.rand(B, T) < 0.3
    full = params | ({"carry.weight": torch.eye(H)} if size == H else {})
    want = loop.outputs(cell.spec, loop.run(cell.spec, {"x": x}, full, H, None, reset))
    got = [layer(x, reset=reset)[0]]
    assert_close(got, want)
    assert_close(gradients(got, [x, *params.values()]), gradients(want, [x, *params.values()]), 100)


def test_a_skip_of_a_narrow_map(quick: None) -> None:
    """The identity of a map whose size happens to be the hidden one."""
    @lr.cell
    def cell(x: lr.Input, h: lr.State, down: lr.Affine = lr.Affine(size=H), back: lr.Affine = lr.Affine(skip=True)):
        h[t] = 0.5 * h[t - 1] + back(down(h_in(x)))
        return h[t]

    layer, x = lr.RNN(cell, I, H), torch.randn(T, B, I)
    assert set(parameters(layer)) == {"down.weight", "down.bias"}
    want = loop.run(cell.spec, {"x": x.transpose(0, 1)}, parameters(layer) | {
        "back.weight": torch.eye(H), "back.bias": torch.zeros(H)}, H)["h"]
    assert_close([layer(x)[0]], [want.transpose(0, 1)])


def h_in(x: Any) -> Any:
    return x[t]


@pytest.mark.parametrize("size", [2, 3])
def test_torch_checks_first_and_second_order(size: int, quick: None) -> None:
    layer = lr.RNN([narrow, highway], size, 2)
    params, x = dict(layer.named_parameters()), leaf(3, 1, size)

    def run(x: Tensor, *values: Tensor) -> Any:
        y, h_n = functional_call(layer, dict(zip(params, values, strict=True)), (x,))
        return (y, *as_tuple(h_n))

    assert gradcheck(run, (x, *params.values()), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (x, *params.values()), check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_they_compile_whole(quick: None) -> None:
    torch._dynamo.reset()
    layer, x = lr.RNN([narrow, gilr_lstm, highway], I, H), torch.randn(T, B, I)
    found = []
    for f in (torch.compile(layer, fullgraph=True, backend="aot_eager"), layer):
        y = f(x)[0]
        found.append((y, *torch.autograd.grad(y.sin().sum(), list(layer.parameters()))))
    assert_close(*found)


def test_several_outputs_as_the_last_cell_returns_them(quick: None) -> None:
    x = torch.randn(T, B, H)
    y = lr.RNN([stacked, smooth], H, H)(x)[0]
    assert list(y) == ["y", "h"]
    assert isinstance(lr.RNN([smooth, stacked], H, H)(x)[0], tuple)
    first = lr.RNN([smooth], H, H)
    whole = lr.RNN([smooth, gilr], H, H)
    first.load_state_dict({f"layers.0.{n}": p for n, p in parameters(whole).items()})
    second = lr.RNN(gilr, H, H)
    second.load_state_dict({f"layers.0.{n}": p for n, p in parameters(whole, "layers.1.").items()})
    assert_close([whole(x)[0]], [second(first(x)[0]["y"])[0]])


def test_an_input_that_says_its_size(quick: None) -> None:
    @lr.cell
    def sized(h: lr.State, gate: lr.Affine, x: lr.Input = lr.Input(size=7)):
        h[t] = sigmoid(gate(x[t])) * h[t - 1] + 1
        return h[t]

    layer = lr.RNN(sized, 7, H, num_layers=2)  # the second layer reads the first
    assert layer(torch.randn(T, B, 7))[0].shape == (T, B, H)
    assert lr.RNN([gilr, gilr, sized], I, 7)(torch.randn(T, B, I))[0].shape == (T, B, 7)
    with pytest.raises(lr.BadDeclaration, match=r"(?s)its input x has 7 features, input_size is 3.*give input_size=7"):
        lr.RNN(sized, I, H)
    with pytest.raises(lr.BadDeclaration, match="sized says that its input x has 7 features, the layer before gives 4"):
        lr.RNN([gilr, sized], I, H)


def test_a_cell_of_maps_alone_has_no_kernel(quick: None) -> None:
    @lr.cell
    def maps(x: lr.Input, down: lr.Affine = lr.Affine(size=2)):
        return down(x[t], x[t - 1])

    layer, x = lr.RNN(maps, I, H, num_layers=2), torch.randn(T, B, I)
    y, h_n = layer(x)
    z = x
    for k in range(2):
        p = parameters(layer, f"layers.{k}.")
        before = torch.cat([torch.zeros_like(z[:1]), z[:-1]])
        z = torch.cat([z, before], 2) @ p["down.weight"].T + p["down.bias"]
    assert_close([y], [z])
    assert h_n == ()
    with pytest.raises(lr.BadDeclaration, match="maps is made of dense maps alone"):
        maps.source("cuda")


def test_what_explain_says() -> None:
    said = highway.explain()
    assert "carry skips: the identity where its operand has the hidden size" in said
    said = narrow.explain()
    assert "1. a map of a size of its own, down: down(x[t], x[t-1])" in said
    assert "a map of a size of its own, out: out(h[t], h[t-1])" in said
