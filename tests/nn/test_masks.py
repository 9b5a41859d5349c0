"""`lr.Mask`: zeros and ones from torch's generator, all 1 in eval; `lr.first`: 1 where an edge is read and none was given."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import lrdsl as lr
from lrdsl import programs, sigmoid, t
from lrdsl.passes.bounds import contracts
from tests.nn import loop
from tests.nn.compare import as_tuple, assert_close, gradients, leaf, parameters

B, T, I, H = 3, 6, 2, 4


@lr.cell
def zoneout(x: lr.Input, h: lr.State, gate: lr.Affine, impulse: lr.Affine, out: lr.Affine, m: lr.Mask = lr.Mask(p=0.4),
            n: lr.Mask = lr.Mask(0.2)):
    """A mask in front of an update; another one that a dense map reads."""
    g = m[t] * (1 - sigmoid(gate(x[t])))
    h[t] = (1 - g) * h[t - 1] + g * impulse(x[t])
    return out(h[t] * n[t]), h[t]


@lr.cell
def masked(x: lr.Input, h: lr.State, m: lr.Mask = lr.Mask(p=0.5)):
    h[t] = 0.5 * m[t] * h[t - 1] + x[t]
    return h[t]


@lr.cell
def shown(x: lr.Input, h: lr.State, m: lr.Mask = lr.Mask(p=0.25)):
    h[t] = h[t - 1] + x[t]
    return m[t]


def drawn(layer: lr.RNN, shape: tuple[int, int], names: str) -> dict[str, Tensor]:
    """The masks that a call draws next, in the order of the signature, by torch alone."""
    state = torch.get_rng_state()
    found = {n: torch.bernoulli(torch.full((*shape, H), 1 - layer.cells[0].spec[n].option("p"))) for n in names}
    torch.set_rng_state(state)
    return found


def test_a_mask_is_in_the_equations(every_backend: str) -> None:
    layer = lr.RNN(zoneout, I, H, batch_first=True)
    x, reset, h_0 = leaf(B, T, I), torch.rand(B, T) < 0.3, leaf(1, B, H)
    params = parameters(layer)
    for training in (True, False):
        layer.train(training)
        masks = drawn(layer, (B, T), "mn")
        assert all(set(m.unique().tolist()) == {0, 1} for m in masks.values())
        masks = masks if training else {n: torch.ones_like(m) for n, m in masks.items()}
        y, h_n = layer(x, h_0, reset=reset)
        want = loop.outputs(zoneout.spec, loop.run(zoneout.spec, {"x": x, **masks}, params, H, {"h": h_0[0]}, reset))
        assert_close(y, want)
        leaves = [x, h_0, *params.values()]
        assert_close(gradients(y, leaves), gradients(want, leaves), 100)
        assert_close([h_n[0]], [y[1][:, -1]])


def test_seeds_and_chances(quick: None) -> None:
    layer = lr.RNN(shown, 1, H)
    x = torch.randn(400, 5, 1)
    torch.manual_seed(3)
    first = layer(x)[0]
    again = layer(x)[0]
    torch.manual_seed(3)
    assert torch.equal(first, layer(x)[0]) and not torch.equal(first, again)
    assert set(first.unique().tolist()) == {0, 1} and abs(float(first.mean()) - 0.75) < 0.03
    assert (first[:, 0] != first[:, 1]).any() and (first[..., 0] != first[..., 1]).any()
    assert (copy.deepcopy(layer).eval()(x)[0] == 1).all()
    for p, value in ((0, 1), (1, 0)):
        assert (lr.RNN(chance(p), 1, H)(x)[0] == value).all()
    both = lr.RNN(shown, 1, H, bidirectional=True)(x)[0]
    assert (both[..., :H] != both[..., H:]).any()  # each direction has its own


def chance(p: float) -> lr.Cell:
    @lr.cell
    def certain(x: lr.Input, h: lr.State, m: lr.Mask = lr.Mask(p)):
        h[t] = h[t - 1] + x[t]
        return m[t]
    return certain


def test_a_function_draws_as_dropout_does(quick: None) -> None:
    f, x = lr.function(masked), leaf(B, T, H)
    torch.manual_seed(1)
    y = f(x)
    torch.manual_seed(1)
    assert torch.equal(y, f(x)) and not torch.equal(y, f(x))
    assert_close([f(x, training=False)], [lr.linear_scan(torch.full_like(x, 0.5), x)])


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_draws_the_same(use_reentrant: bool, quick: None) -> None:
    layer, x = lr.RNN(zoneout, I, H), leaf(T, B, I)

    def run(x: Tensor) -> Any:
        return layer(x)[0]

    found = []
    for way in (run, lambda x: checkpoint(run, x, use_reentrant=use_reentrant)):
        torch.manual_seed(5)
        y = way(x)
        for p in (x, *layer.parameters()):
            p.grad = None
        sum(o.sin().sum() for o in y).backward()
        found.append([*y, *(p.grad.clone() for p in (x, *layer.parameters()) if p.grad is not None)])
    assert_close(*found)


def test_torch_checks_first_and_second_order(quick: None) -> None:
    layer, x = lr.RNN(zoneout, 1, 1), leaf(3, 1, 1)
    params = dict(layer.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Any:
        torch.manual_seed(2)
        return functional_call(layer, dict(zip(params, values, strict=True)), (x,))[0]

    assert gradcheck(run, (x, *params.values()), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (x, *params.values()), check_fwd_over_rev=True, fast_mode=True)


def test_a_mask_is_known_to_be_0_or_1_and_has_no_gradient() -> None:
    assert "A = 1 - g" in zoneout.explain() and "m[t]" in shown.explain()
    plan = lr.nn.pipeline.pipeline_of(zoneout.spec).plan
    assert all(all(contracts(p).values()) for p in plan.programs)
    for program in lr.nn.pipeline.pipeline_of(masked.spec).plan.programs:
        assert "d.m" not in programs.adjoint_of(program, frozenset()).program.outputs


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_call_draws_anew(quick: None) -> None:
    torch._dynamo.reset()
    layer, x = lr.RNN(zoneout, I, H), torch.randn(T, B, I, requires_grad=True)
    fast = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = []
    for f in (fast, layer):
        torch.manual_seed(7)
        y, _ = f(x)
        found.append([*y, *torch.autograd.grad(sum(o.sin().sum() for o in y), [x, *layer.parameters()])])
    assert_close(*found)
    assert not torch.equal(fast(x)[0][1], fast(x)[0][1])
    layer.eval()
    assert_close(fast(x)[0], layer(x)[0])


def test_in_eval_mode_whole_is_chunked_is_stepped(quick: None) -> None:
    layer, x = lr.RNN(zoneout, I, H).eval(), torch.randn(T, B, I)
    whole, after = layer(x, return_state=True)
    part, carry = layer(x[:4], return_state=True)
    outs = [part]
    for k in range(4, T):
        y, carry = layer.step(x[k], carry)
        outs.append(tuple(o[None] for o in y))
    assert_close(whole, [torch.cat(column) for column in zip(*outs, strict=True)])
    assert_close(after.now.values(), carry.now.values())


def test_packed_segments_and_words_are_masked(quick: None) -> None:
    layer = lr.RNN(zoneout, I, H)
    torch.manual_seed(1)
    y, _ = layer(torch.randint(I, (T,)), cu_seqlens=torch.tensor([0, 2, T]))
    assert y[0].shape == (T, H)


# lr.first: the RG-LRU's reset rule, where the input is not scaled at the first step.

@lr.cell
def rg(x: lr.Input, h: lr.State, gate: lr.Affine):
    a = sigmoid(gate(x[t]))
    h[t] = a * h[t - 1] + lr.where(lr.first[t] > 0, 1, lr.sqrt(1 - a**2)) * x[t]
    return h[t], lr.first[t]


@lr.cell
def later(x: lr.Input, h: lr.State, q: lr.State, gate: lr.Affine):
    """first in two fused passes and in a dense map."""
    h[t] = 0.5 * h[t - 1] + lr.first[t] * x[t]
    q[t] = sigmoid(gate(h[t - 1], lr.first[t])) * q[t - 1] + lr.first[t] * h[t]
    return q[t], lr.first[t]


rg_lstm = lr.surrogate(lr.cells.lstm, h=rg)


def by_hand(reset: Tensor | None, given: bool, reverse: bool) -> Tensor:
    first = torch.zeros(B, T)
    if not given:
        first[:, T - 1 if reverse else 0] = 1
        if reset is not None:
            for k in range(1, T):
                at = k - 1 if reverse else k
                first[:, at] = torch.where(reset[:, k], 1.0, first[:, at])
    return first


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", [rg, later, rg_lstm], ids=lambda c: c.name)
def test_first_is_where_no_edge_was_given(cell: lr.Cell, given: bool, mirrored: bool, every_backend: str) -> None:
    cell = lr.Cell(cell.spec.mirrored()) if mirrored else cell
    layer = lr.RNN(cell, H, H, batch_first=True)
    x, reset = leaf(B, T, H), torch.rand(B, T) < 0.3
    states = layer.parts[0].pipeline.plan.carried
    assert "first" not in [s.name for s in states]
    h_0 = tuple(leaf(1, B, H) for _ in states) if given else None
    y, h_n = layer(x, h_0 if h_0 is None or len(h_0) > 1 else h_0[0], reset=reset)
    if cell.name != "rg_lstm":
        assert_close([y[1]], [by_hand(reset, given, mirrored).unsqueeze(2).expand(B, T, H)])
    init = {s.name: h[0] for s, h in zip(states, h_0, strict=True)} if h_0 else {}
    init |= {d.name: torch.zeros(B, H) for d in cell.spec.of("first")} if given else {}
    want = loop.outputs(cell.spec, loop.run(cell.spec, {"x": x}, parameters(layer), H, init, reset))
    assert_close(as_tuple(y), want)
    leaves = [x, *layer.parameters(), *(h_0 or ())]
    assert_close(gradients(as_tuple(y), leaves), gradients(want, leaves), 100)
    assert len(as_tuple(h_n)) == len(states)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", [rg, later, rg_lstm], ids=lambda c: c.name)
def test_first_goes_through_chunks_steps_and_segments(cell: lr.Cell, given: bool, backend: str) -> None:
    """A chunk that goes on does not begin afresh; a boundary in it does, unless an edge was given in the beginning."""
    layer = lr.RNN(cell, H, H)
    x, reset = torch.randn(T, B, H), torch.rand(T, B) < 0.3
    reset[3, 0] = True
    states = layer.parts[0].pipeline.plan.carried
    every = tuple(torch.randn(1, B, H) for _ in states)
    h_0: Any = None if not given else every[0] if len(every) == 1 else every
    whole, after = layer(x, h_0, reset=reset, return_state=True)
    empty, carry = layer(x[:0], h_0, reset=reset[:0], return_state=True)
    part, carry = layer(x[:2], carry, reset=reset[:2], return_state=True)
    outs = [as_tuple(empty), as_tuple(part)]
    for k in range(2, T):
        y, carry = layer.step(x[k], carry, reset=reset[k])
        outs.append(tuple(o[None] for o in as_tuple(y)))
    assert_close(as_tuple(whole), [torch.cat(column) for column in zip(*outs, strict=True)])
    assert_close(after.now.values(), carry.now.values())
    y, _ = layer(x[:, 0], None if h_0 is None else h_0[:, :2] if isinstance(h_0, Tensor) else tuple(h[:, :2] for h in h_0),
                 cu_seqlens=torch.tensor([0, 2, T]))
    for k, at in enumerate((slice(0, 2), slice(2, T))):
        own = None if h_0 is None else h_0[:, k] if isinstance(h_0, Tensor) else tuple(h[:, k] for h in h_0)
        assert_close([o[at] for o in as_tuple(y)], as_tuple(layer(x[at, 0], own)[0]))


def test_first_in_chunks_of_time(every_backend: str) -> None:
    layer = lr.RNN(rg, H, H, batch_first=True)
    x, reset = leaf(1, 300, H), torch.zeros(1, 300, dtype=torch.bool)
    reset[0, [64, 100, 128, 129, 299]] = True
    got = layer(x, reset=reset)[0]
    want = loop.outputs(rg.spec, loop.run(rg.spec, {"x": x}, parameters(layer), H, None, reset))
    assert_close(got, want)
    assert_close(gradients(got[:1], [x, *layer.parameters()]), gradients(want[:1], [x, *layer.parameters()]), 1000)


def test_the_zeros_behind_first_cost_no_memory() -> None:
    """Neither pass writes them, and they have no gradient."""
    for program in lr.nn.pipeline.pipeline_of(rg.spec).plan.programs:
        adjoint = programs.adjoint_of(program, frozenset())
        assert "first" in [b.name for b in program.buffers]
        assert not any("first" in n for n in (*adjoint.forward.outputs, *adjoint.program.outputs))


def test_first_of_a_function(quick: None) -> None:
    @lr.cell
    def count(x: lr.Input, n: lr.State):
        n[t] = lr.where(lr.first[t] > 0, 100, n[t - 1] + x[t])
        return n[t]

    f, x, reset = lr.function(count), torch.ones(1, 5, 1), torch.tensor([[False, False, False, True, False]])
    assert f(x, reset=reset).flatten().tolist() == [100, 101, 102, 100, 101]
    assert f(x, reset=reset, init={"n": 7.0}).flatten().tolist() == [8, 9, 10, 8, 9]
    assert f(x, cu_seqlens=torch.tensor([0, 2, 5])).flatten().tolist() == [100, 101, 100, 101, 102]
    given = f(x, cu_seqlens=torch.tensor([0, 2, 5]), init={"n": torch.tensor([[1.0], [5.0]])})
    assert given.flatten().tolist() == [2, 3, 6, 7, 8]
    assert "first[t]" in count.explain()


def test_first_is_differentiable_around(quick: None) -> None:
    layer, x = lr.RNN(rg, 1, 1), leaf(3, 1, 1)
    params = dict(layer.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Any:
        return functional_call(layer, dict(zip(params, values, strict=True)), (x,),
                               {"reset": torch.tensor([[False], [False], [True]])})[0][0]

    assert gradcheck(run, (x, *params.values()), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (x, *params.values()), check_fwd_over_rev=True, fast_mode=True)
