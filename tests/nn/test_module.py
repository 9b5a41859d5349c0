"""The manners of torch.nn.LSTM: layouts, layers, directions, dropout, and everything that modules are put through."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrizations

import lrdsl as lr
from lrdsl.errors import BadDeclaration, NotLinear
from lrdsl.ir.symbols import Param
from tests.nn.cells import single, smooth, stacked, window
from tests.nn.compare import assert_close, parameters

T, B, I, H = 5, 2, 3, 4
gilr, gilr_lstm = lr.cells.gilr, lr.cells.gilr_lstm


def test_shapes_are_those_of_an_lstm() -> None:
    for layers in (1, 2):
        for bidirectional in (False, True):
            for batch_first in (False, True):
                options: dict[str, Any] = {"num_layers": layers, "batch_first": batch_first, "bidirectional": bidirectional}
                ours, theirs = lr.RNN(gilr_lstm, I, H, **options), torch.nn.LSTM(I, H, **options)
                x = torch.randn(B, T, I) if batch_first else torch.randn(T, B, I)
                for value in (x, x[0] if batch_first else x[:, 0]):
                    (y, h), (z, k) = ours(value), theirs(value)
                    assert y.shape == z.shape and [s.shape for s in h] == [s.shape for s in k]
                    assert ours(value, h)[0].shape == y.shape


def test_batch_first_and_unbatched_are_the_same_numbers(quick: None) -> None:
    layer = lr.RNN(gilr_lstm, I, H, num_layers=2)
    other = copy.deepcopy(layer)
    other.batch_first = True
    x, reset = torch.randn(T, B, I), torch.rand(T, B) < 0.3
    h_0 = torch.randn(2, B, H), torch.randn(2, B, H)
    y, h = layer(x, h_0, reset=reset)
    z, k = other(x.transpose(0, 1), h_0, reset=reset.T)
    assert_close([y, *h], [z.transpose(0, 1), *k])
    z, k = layer(x[:, 1], tuple(s[:, 1] for s in h_0), reset=reset[:, 1])
    assert_close([y[:, 1], *(s[:, 1] for s in h)], [z, *k])


def test_layers_and_directions_are_a_composition(quick: None) -> None:
    layer = lr.RNN(gilr, I, H, num_layers=2, bidirectional=True)
    x, h_0, reset = torch.randn(T, B, I), torch.randn(4, B, H), torch.rand(T, B) < 0.3
    y, h_n = layer(x, h_0, reset=reset)
    ends = []
    for k in range(2):
        found = []
        for way, name in enumerate(("", "reverse.")):
            part = lr.RNN(lr.Cell(gilr.spec.mirrored()) if way else gilr, x.shape[-1], H)
            own = {n.removeprefix(f"layers.{k}.{name}"): p for n, p in layer.named_parameters()
                   if n.startswith(f"layers.{k}.{name}") and (way or ".reverse." not in n)}
            part.load_state_dict({f"layers.0.{n}": p for n, p in own.items()})
            z, h = part(x, h_0[2 * k + way][None], reset=reset)
            found.append(z)
            ends.append(h[0])
        x = torch.cat(found, -1)
    assert_close([y, h_n], [x, torch.stack(ends)])


def test_dropout_acts_between_layers_only(quick: None) -> None:
    with pytest.warns(UserWarning, match="there is one"):
        lr.RNN(gilr, I, H, dropout=0.5)
    layer = lr.RNN(gilr, I, H, num_layers=2, dropout=1.0)
    y, h = layer(torch.randn(T, B, I))
    first, second = lr.RNN(gilr, I, H), lr.RNN(gilr, H, H)
    second.load_state_dict({f"layers.0.{n}": p for n, p in parameters(layer, "layers.1.").items()})
    assert_close([y], [second(torch.zeros(T, B, H))[0]])
    assert h[0].abs().max() > 0
    layer.eval()
    x = torch.randn(T, B, I)
    first.load_state_dict({f"layers.0.{n}": p for n, p in parameters(layer).items()})
    assert_close([layer(x)[0]], [second(first(x)[0])[0]])


def test_parameters_have_the_cells_names_and_shapes() -> None:
    shapes = {n: tuple(p.shape) for n, p in lr.RNN(gilr_lstm, I, H).named_parameters()}
    assert shapes["layers.0.forget.weight"] == (H, I + H) and shapes["layers.0.forget.bias"] == (H,)
    assert shapes["layers.0.h.gate.weight"] == (H, I)
    names = {n: tuple(p.shape) for n, p in lr.RNN(window, H, H, num_layers=2, bidirectional=True).named_parameters()}
    assert names["layers.0.gate.weight"] == (H, 3 * H) and names["layers.1.gate.weight"] == (H, 3 * 2 * H)
    assert names["layers.1.reverse.shift.weight"] == (H, 2 * H + H) and names["layers.0.h_init"] == (H,)
    assert {n for n, _ in lr.RNN(stacked, I, H).named_parameters()} >= {"layers.0.v", "layers.0.out.weight"}
    assert "layers.0.out.bias" not in dict(lr.RNN(stacked, I, H).named_parameters())


def test_parameters_start_as_they_should() -> None:
    @lr.cell
    def cell(x: lr.Input, h: lr.State, plain: lr.Affine, filled: lr.Affine = lr.Affine(bias=2.0, init=0.5),
             drawn: lr.Affine = lr.Affine(bias=False, init=torch.nn.init.orthogonal_), v: lr.Vector = lr.Vector(3.0),
             s: lr.Scalar = lr.Scalar(init=lambda p: p.fill_(7))):
        h[lr.t] = lr.sigmoid(plain(x[lr.t]) + filled(x[lr.t])) * h[lr.t - 1] + v * s * drawn(x[lr.t])
        return h[lr.t]
    p = parameters(lr.RNN(cell, H, H))
    assert 0.2 < p["plain.weight"].abs().max() <= 0.5 and p["plain.bias"].abs().max() <= 0.5
    assert (p["filled.bias"] == 2).all() and (p["filled.weight"] == 0.5).all()
    assert (p["v"] == 3).all() and p["s"] == 7
    assert_close([p["drawn.weight"] @ p["drawn.weight"].T], [torch.eye(H)])
    layer = lr.RNN(gilr, I, H)
    before = copy.deepcopy(layer.state_dict())
    layer.reset_parameters()
    assert not torch.equal(before["layers.0.gate.weight"], layer.state_dict()["layers.0.gate.weight"])


def test_modules_are_copied_pickled_loaded_and_shown(quick: None, tmp_path: Any) -> None:
    layer = lr.RNN(gilr_lstm, I, H, num_layers=2, bidirectional=True, dropout=0.25, batch_first=True).eval()
    x = torch.randn(B, T, I)
    y = layer(x)[0]
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    fresh = lr.RNN(gilr_lstm, I, H, num_layers=2, bidirectional=True, batch_first=True)
    fresh.load_state_dict(torch.load(tmp_path / "state.pt"))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert_close([other(x)[0]], [y])
    assert repr(layer) == "RNN(gilr_lstm, 3, 4, num_layers=2, batch_first=True, dropout=0.25, bidirectional=True)"


def test_modules_move_and_change_their_dtype(quick: None) -> None:
    layer = lr.RNN(gilr_lstm, I, H)
    y = layer(torch.ones(T, B, I))[0]
    z = layer.float()(torch.ones(T, B, I, dtype=torch.float32))[0]
    assert z.dtype == torch.float32 and (y - z).abs().max() < 1e-5
    assert lr.RNN(gilr, I, H, dtype=torch.float32, device="meta").get_parameter("layers.0.gate.bias").is_meta


def test_a_parametrized_weight_is_the_one_that_counts(quick: None) -> None:
    layer = lr.RNN(gilr, I, H)
    x = torch.randn(T, B, I)
    y = layer(x)[0]
    gate = layer.get_submodule("layers.0.gate")
    parametrizations.weight_norm(gate)
    assert_close([layer(x)[0]], [y])
    with torch.no_grad():
        gate.parametrizations["weight"].original0 *= 2
    assert (layer(x)[0] - y).abs().max() > 1e-3


def test_other_inputs_and_several_outputs(quick: None) -> None:
    layer = lr.RNN(window, H, H, num_layers=2)
    x, u = torch.randn(T, B, H), torch.randn(T, B, H)
    h, g = layer(x, u=u)[0]
    assert h.shape == g.shape == (T, B, H)
    first, second = lr.RNN(window, H, H), lr.RNN(window, H, H)
    first.load_state_dict({f"layers.0.{n}": p for n, p in parameters(layer).items()})
    second.load_state_dict({f"layers.0.{n}": p for n, p in parameters(layer, "layers.1.").items()})
    assert_close([h, g], second(first(x, u=u)[0][0], u=u)[0])


def test_one_channel_stands_for_all(quick: None) -> None:
    layer = lr.RNN(smooth, 1, H)
    x = torch.randn(T, B, 1)
    assert_close(layer(x)[0], lr.RNN.forward(_with(lr.RNN(smooth, H, H), layer), x.expand(T, B, H))[0])


def _with(layer: lr.RNN, other: lr.RNN) -> lr.RNN:
    layer.load_state_dict(other.state_dict())
    return layer


def test_what_is_refused_when_a_module_is_made() -> None:
    with pytest.raises(NotLinear, match="give h a linear surrogate"):
        lr.RNN(lr.cells.lstm, I, H)
    with pytest.raises(lr.ShapeMismatch, match=r"(?s)single reads x channel by channel.*hidden size 4, not 3.*cells\.py:\d+"):
        lr.RNN(single, I, H)
    with pytest.raises(lr.ShapeMismatch, match="not 8"):
        lr.RNN(single, H, H, num_layers=2, bidirectional=True)
    for name in ("type", "training", "h_init"):
        with pytest.raises(BadDeclaration, match=f"a parameter cannot be called {name}"):
            lr.RNN(_named(name), H, H)
    with pytest.raises(BadDeclaration, match="hidden_size is a positive integer, not 0"):
        lr.RNN(gilr, I, 0)
    with pytest.raises(BadDeclaration, match="runs cells"):
        lr.RNN(torch.tanh, I, H)  # type: ignore[arg-type]
    with pytest.raises(BadDeclaration, match="a list of 2 cells and num_layers=3"):
        lr.RNN([gilr, gilr], I, H, num_layers=3)
    with pytest.raises(BadDeclaration, match="a list of 0 cells"):
        lr.RNN([], I, H)
    with pytest.raises(BadDeclaration, match="runs cells, not 3"):
        lr.RNN([gilr, 3], I, H)  # type: ignore[list-item]
    with pytest.raises(BadDeclaration, match="solver is \"sequential\""):
        lr.RNN(gilr, I, H, solver="picard")


def _named(name: str) -> lr.Cell:
    def cell(x: lr.Input, v: lr.Vector, h: lr.State = lr.State(learned=True)):
        h[lr.t] = v * h[lr.t - 1] + x[lr.t]
        return h[lr.t]
    spec = lr.cell(cell).spec
    turn = {Param("v"): Param(name)}
    return lr.Cell(replace(spec, declared=tuple(replace(d, name=name) if d.name == "v" else d for d in spec.declared),
                           statements=tuple(replace(s, expr=s.expr.xreplace(turn)) for s in spec.statements)))


def test_data_parallel_training_sees_every_parameter(quick: None) -> None:
    layer = lr.RNN(gilr_lstm, I, H, num_layers=2, bidirectional=True)
    layer(torch.randn(T, B, I))[0].sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    layer.flatten_parameters()


def test_the_first_channel_of_torchs_own_gru_like_use(quick: None) -> None:
    """A training step with an optimizer lowers the loss."""
    layer, x = lr.RNN(gilr, I, H), torch.randn(T, B, I)
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    losses: list[Tensor] = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append(layer(x)[0].square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_the_tools_of_torch_see_the_ops(quick: None) -> None:
    layer, x = lr.RNN(gilr, I, H), torch.randn(T, B, I)
    assert_close([torch.jit.trace(layer, (x,))(x)[0]], [layer(x)[0]])
    with torch.profiler.profile() as profile:
        layer(x)[0].sum().backward()
    names = {e.key.rsplit("_", 1)[0] for e in profile.key_averages() if e.key.startswith("lrdsl::")}
    assert names == {"lrdsl::gilr", "lrdsl::gilr_backward"}
    f = lr.function(smooth)
    for other in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert_close(other(x, 0.5, 1.0), f(x, 0.5, 1.0))


def test_distributed_data_parallel(quick: None) -> None:
    layer, x = lr.RNN(gilr_lstm, I, H), torch.randn(T, B, I)
    want = torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        torch.nn.parallel.DistributedDataParallel(layer)(x)[0].sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert_close([p.grad for p in layer.parameters()], want)
