"""torch.compile and torch.export see one op a Program, and nothing breaks the graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.fx.experimental.proxy_tensor import make_fx

import lrdsl as lr
from tests.nn.cells import around, sides, window
from tests.nn.compare import as_tuple, assert_close

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


def compiled(f: Any, **options: Any) -> Any:
    return torch.compile(f, fullgraph=True, backend="aot_eager", **options)


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, lr.cells.qrnn_fo], ids=lambda c: c.name)
def test_a_module_compiles_whole(cell: lr.Cell, dynamic: bool | None, quick: None) -> None:
    layer = lr.RNN(cell, 3, 4, bidirectional=True)
    fast = compiled(layer, dynamic=dynamic)
    for T in (5, 6) if dynamic else (5,):
        x = torch.randn(T, 2, 3, requires_grad=True)
        found = []
        for f in (fast, layer):
            y, h_n = f(x)
            h = as_tuple(h_n)
            loss = y.sin().sum() + sum(k * (v * v + v).sum() for k, v in enumerate(h, 1))
            found.append((y, *h, *torch.autograd.grad(loss, [x, *layer.parameters()])))
        assert_close(*found)
        with torch.no_grad():
            assert_close([fast(x)[0]], [layer(x)[0]])


def test_a_graph_holds_one_op_a_program_and_direction() -> None:
    graphs = []

    def look(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append([str(n.target) for n in graph.graph.nodes if "lrdsl" in str(n.target)])
        return make_boxed_func(graph)

    layer = lr.RNN(lr.cells.gilr, 3, 4)
    torch.compile(layer, fullgraph=True, backend=aot_autograd(fw_compiler=look))(torch.randn(5, 2, 3))[0].sum().backward()
    assert [len(g) for g in graphs] == [1, 1]
    assert graphs[0][0].startswith("lrdsl.gilr_") and graphs[1][0].startswith("lrdsl.gilr_backward_")


def test_state_resets_and_options_compile(quick: None) -> None:
    layer = lr.RNN(window, 3, 3, batch_first=True)

    def run(x: Tensor, u: Tensor, carry: lr.Carry | None) -> Any:
        y, carry = layer(x, carry, u=u, reset=x[..., 0] > 0.5, return_state=True)
        return y, carry

    fast, x, u = compiled(run), torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    y, carry = run(x, u, None)
    z, other = fast(x, u, None)
    assert_close([*y, *carry.now.values()], [*z, *other.now.values()])
    assert_close(run(x, u, carry)[0], fast(x, u, other.detach())[0])


def test_functions_compile(quick: None) -> None:
    f = lr.function(around)

    def run(r: Tensor, w: Tensor) -> Any:
        y = lr.linear_scan(r, r.tanh(), 0.5, reverse=True)
        return (*f(y, 0.5, w, init={"g": 1.0}, reset=None), y)

    args = torch.rand(2, 5, 3, requires_grad=True), torch.rand(3, requires_grad=True)
    a, b = run(*args), compiled(run)(*args)
    assert_close(a, b)
    assert_close(torch.autograd.grad(sum(v.sum() for v in a), args), torch.autograd.grad(sum(v.sum() for v in b), args))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, lr.cells.qrnn_fo], ids=lambda c: c.name)
def test_an_exported_module_can_be_trained(cell: lr.Cell, strict: bool, quick: None) -> None:
    layer = lr.RNN(cell, 3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    dims = {"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}}
    program = torch.export.export(layer, (x,), dynamic_shapes=dims, strict=strict)
    module = program.module()
    for part in (x, x[:, :3]):
        assert_close([module(part)[0]], [layer(part)[0]])
    module(x)[0].sum().backward()
    layer(x)[0].sum().backward()
    theirs = dict(module.named_parameters())
    assert_close([theirs[n].grad for n, _ in layer.named_parameters()], [p.grad for p in layer.parameters()])


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, lr.cells.qrnn_fo, sides], ids=lambda c: c.name)
def test_boundaries_are_exported_for_any_time(cell: lr.Cell, strict: bool, quick: None) -> None:
    layer = lr.RNN(cell, 3, 4)
    x, reset = torch.randn(6, 2, 3), torch.rand(6, 2) < 0.4
    shapes = {"x": {0: torch.export.Dim("time")}, "reset": {0: torch.export.Dim("time")}}
    program = torch.export.export(layer, (x,), {"reset": reset}, dynamic_shapes=shapes, strict=strict)
    for T in (6, 2):
        assert_close([program.module()(x[:T], reset=reset[:T])[0]], [layer(x[:T], reset=reset[:T])[0]])


def test_an_exported_program_is_saved_and_loaded(tmp_path: Any, quick: None) -> None:
    layer = lr.RNN(lr.cells.gilr, 3, 4)
    x = torch.randn(5, 2, 3)
    torch.export.save(torch.export.export(layer, (x,)), tmp_path / "layer.pt2")
    assert_close([torch.export.load(tmp_path / "layer.pt2").module()(x)[0]], [layer(x)[0]])


def test_vmap_inside_a_graph(quick: None) -> None:
    a = torch.rand(3, 2, 4, 2)
    run = torch.vmap(lambda a: lr.linear_scan(a, a))
    assert_close([compiled(run)(a)], [run(a)])


def test_make_fx_shows_the_op() -> None:
    a = torch.rand(2, 4, 3)
    graph = make_fx(lambda a: lr.linear_scan(a, a), tracing_mode="fake")(a)
    assert "lrdsl.linear_scan_" in graph.code
