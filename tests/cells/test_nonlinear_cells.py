"""The cells that are nonlinear in their states against the loops over their papers' equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import lrdsl as lr
from lrdsl.cells import diag_gru, diag_lstm, indrnn, sru_v2
from lrdsl.cells.sru_v2 import with_highway_bias
from tests import truth
from tests.cells.both_ways import RESET, B, H, T, influence, set_map
from tests.nn.compare import assert_close, gradients, leaf, parameters

CELLS = (sru_v2, indrnn, diag_gru, diag_lstm)
each_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)


def truth_of(cell: lr.Cell, x: Tensor, params: Any, states: tuple[Tensor | None, ...], reset: Tensor | None,
             reverse: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
    return getattr(truth, cell.name)(x, params, *states, reset, reverse)  # type: ignore[no-any-return]


def states_of(cell: lr.Cell, layers: int) -> tuple[Tensor, ...]:
    return tuple(leaf(layers, B, H) for _ in cell.spec.names("state"))


def as_h_0(states: tuple[Tensor, ...]) -> Any:
    return states[0] if len(states) == 1 else states


@each_cell
@pytest.mark.parametrize(("steps", "given", "resets"), [(T, True, True), (T, False, False), (1, True, False)])
def test_it_is_its_equations(cell: lr.Cell, steps: int, given: bool, resets: bool, backend: str) -> None:
    """Values, h_n and all gradients, in both directions."""
    layer = lr.RNN(cell, H, H, batch_first=True, bidirectional=True, solver="sequential")
    x, states, reset = leaf(B, steps, H), states_of(cell, 2), RESET if resets else None
    y, h_n = layer(x, as_h_0(states) if given else None, reset=reset)
    ways = [truth_of(cell, x, parameters(layer, prefix), tuple(s[k] if given else None for s in states), reset, bool(k))
            for k, prefix in enumerate(("layers.0.", "layers.0.reverse."))]
    want = [torch.cat([h for h, _ in ways], 2), *(torch.stack(last) for last in zip(*(last for _, last in ways), strict=True))]
    got = [y, *((h_n,) if len(states) == 1 else h_n)]
    assert_close(got, want)
    leaves = [x, *layer.parameters(), *(states if given else ())]
    assert_close(gradients(got, leaves), gradients(want, leaves), 10)


@each_cell
@pytest.mark.parametrize("steps", [2, 33, 300])
def test_longer_sequences(cell: lr.Cell, steps: int, quick: None) -> None:
    layer, x = lr.RNN(cell, H, H, batch_first=True, solver="sequential"), leaf(B, steps, H)
    reset = torch.rand(B, steps) < 0.05
    want, _ = truth_of(cell, x, parameters(layer), (None,) * len(cell.spec.names("state")), reset)
    y, _ = layer(x, reset=reset)
    assert_close([y], [want])
    leaves = [x, *layer.parameters()]
    assert_close(gradients([y], leaves), gradients([want], leaves), 1000)


@each_cell
def test_whole_is_chunked_is_stepped(cell: lr.Cell, quick: None) -> None:
    """Two layers with boundaries: values, and what is left after the last step."""
    layer, x = lr.RNN(cell, H, H, num_layers=2, batch_first=True, solver="sequential"), torch.randn(B, T, H)
    whole, after = layer(x, reset=RESET, return_state=True)
    first, carry = layer(x[:, :4], reset=RESET[:, :4], return_state=True)
    parts = [first]
    for k in (4, 5):
        y, carry = layer.step(x[:, k], carry, reset=RESET[:, k])
        parts.append(y[:, None])
    assert_close((torch.cat(parts, 1), *carry.now.values()), (whole, *after.now.values()))


@each_cell
def test_without_a_solver_it_is_refused_at_its_line(cell: lr.Cell) -> None:
    with pytest.raises(lr.NotLinear, match=rf'(?s){cell.name}\.py.*way out.*solver="sequential" or "newton"') as refused:
        lr.RNN(cell, H, H)
    assert "[t-1]" in str(refused.value)


def test_the_reset_gate_of_sru_reads_the_old_state(quick: None) -> None:
    """With x = 0 and a forget gate that is shut, c[t] is 0 and c[t-1] is 1: how much of x passes tells which of them r sees."""
    layer, c = lr.RNN(sru_v2, H, H, solver="sequential"), torch.ones(1, H)
    set_map(layer, "forget", -800.0)
    params = parameters(layer)
    x = torch.zeros(1, H, requires_grad=True)
    with torch.no_grad():
        params["highway.weight"].zero_()
        params["highway.bias"].zero_()
        params["v_r"].fill_(2.0)
    (gradient,) = torch.autograd.grad(layer(x, c)[0].sum(), x)
    r = torch.sigmoid(torch.tensor(2.0))
    assert_close([gradient], [(params["update.weight"].sum(0) * r + (1 - r) * 3**0.5)[None]])


def test_the_highway_is_scaled_by_the_bias_that_it_starts_with(quick: None) -> None:
    layer = lr.RNN(with_highway_bias(-3.0), H, H, solver="sequential")
    params, x = parameters(layer), torch.randn(1, H)
    assert (params["highway.bias"] == -3).all()
    for name in ("forget", "highway"):
        set_map(layer, name, -800.0)
    assert_close([layer(x)[0]], [x * (1 + 2 * torch.exp(torch.tensor(-3.0))).sqrt()])


@each_cell
def test_no_step_sees_a_later_one_or_past_a_boundary(cell: lr.Cell, quick: None) -> None:
    layer = lr.RNN(cell, H, H, solver="sequential")
    if cell is indrnn:
        set_map(layer, "enter", 1.0)  # nothing is cut off by the relu
        with torch.no_grad():
            parameters(layer)["enter.weight"].copy_(0.1 * torch.rand(H, H))
            parameters(layer)["u"].fill_(0.5)
    assert torch.equal(influence(layer, H), torch.ones(T, T, dtype=torch.bool).tril())
    reset = torch.arange(T) == 3
    assert not influence(layer, H, reset)[3:, :3].any()


def test_against_the_cells_of_torch(quick: None) -> None:
    """torch.nn.GRU of one channel is a GRU with diagonal matrices; its z is 1 - z here."""
    gru, layer = torch.nn.GRU(1, 1), lr.RNN(diag_gru, 1, 1, solver="sequential")
    params = parameters(layer)
    with torch.no_grad():
        gru.bias_hh_l0.zero_()
        for k, (name, a) in enumerate((("reset", "a_r"), ("update", "a_z"), ("candidate", "a_n"))):
            sign = -1 if name == "update" else 1
            params[f"{name}.weight"].copy_(sign * gru.weight_ih_l0[k:k + 1])
            params[f"{name}.bias"].copy_(sign * gru.bias_ih_l0[k:k + 1])
            params[a].copy_(sign * gru.weight_hh_l0[k])
    x = torch.randn(50, 2, 1)
    assert_close(layer(x), gru(x))
