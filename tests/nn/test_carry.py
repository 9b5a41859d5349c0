"""Whole = chunked = step by step, with resets and with inputs that are read at a lag."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lrdsl as lr
from tests.nn.cells import deep, order2, smooth, soft_lstm, stacked, strata, window
from tests.nn.compare import as_tuple, assert_close, gradients, leaf

B, T, C = 2, 7, 3
CHUNKS = [slice(0, 1), slice(1, 2), slice(2, 2), slice(2, 6), slice(6, 7)]


def assert_same(a: lr.Carry, b: lr.Carry) -> None:
    for x, y in zip(a, b, strict=True):
        assert list(x) == list(y)
        assert_close(x.values(), y.values())


@pytest.mark.parametrize("start", ["nothing", "init", "a Carry"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("cell", [lr.cells.linear_scan, order2, strata, smooth], ids=lambda c: c.name)
def test_chunks_of_a_function(cell: lr.Cell, mirrored: bool, start: str, backend: str) -> None:
    cell = lr.Cell(cell.spec.mirrored()) if mirrored else cell
    f = lr.function(cell)
    args = [leaf(B, T, C) if d.kind == "input" else leaf(C) if d.kind == "vector" else leaf() for d in f.arguments]
    init: Any = None
    if start != "nothing":
        init = {k: leaf(B, C) if s.depth == 1 else leaf(B, C, s.depth) for k, s in f.pipeline.sequences.items()}
    if start == "a Carry":
        init = f(*(a[:, :3] if a.dim() == 3 else a for a in args), init=init, return_state=True)[1].detach()
    reset = torch.rand(B, T) < 0.3
    whole, after = f(*args, init=init, reset=reset, return_state=True)
    parts, carry = [], init
    for at in reversed(CHUNKS) if mirrored else CHUNKS:
        y, carry = f(*(a[:, at] if a.dim() == 3 else a for a in args), init=carry, reset=reset[:, at], return_state=True)
        parts.append(as_tuple(y))
    chunked = [torch.cat(p, 1) for p in zip(*(reversed(parts) if mirrored else parts), strict=True)]
    assert_close(as_tuple(whole), chunked)
    assert_same(after, carry)
    assert_close(gradients(as_tuple(whole), args), gradients(chunked, args), 100)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, window, stacked, soft_lstm, deep], ids=lambda c: c.name)
def test_steps_of_a_module(cell: lr.Cell, given: bool, backend: str) -> None:
    layer = lr.RNN(cell, C, C, num_layers=2, batch_first=True)
    x, more = leaf(B, T, C), {n: leaf(B, T, C) for n in cell.spec.names("input")[1:]}
    states = tuple(leaf(2, B, C, *([s.depth] if s.depth > 1 else [])) for s in layer.parts[0].pipeline.plan.carried)
    h_0: Any = (states[0] if len(states) == 1 else states) if given else None
    reset = torch.rand(B, T) < 0.3
    whole, after = layer(x, h_0, reset=reset, return_state=True, **more)
    parts, carry = [], h_0
    for t in range(T):
        y, carry = layer.step(x[:, t], carry, reset=reset[:, t], **{n: v[:, t] for n, v in more.items()})
        parts.append(as_tuple(y))
    stepped = [torch.stack(p, 1) for p in zip(*parts, strict=True)]
    assert_close(as_tuple(whole), stepped)
    assert_same(after, carry)
    leaves = [x, *more.values(), *layer.parameters(), *(states if given else ())]
    assert_close(gradients(as_tuple(whole), leaves), gradients(stepped, leaves), 100)
    _, h_n = layer(x, h_0, reset=reset, **more)
    last = [after.now[f"layers.1.{s.name}"] for s in layer.parts[0].pipeline.plan.carried]
    assert_close([h[1] if h.dim() == 3 else h[1].transpose(1, 2) for h in as_tuple(h_n)],
                 [w[:, 0] if w.shape[1] == 1 else w for w in last])


def test_detach_cuts_the_history_and_to_casts() -> None:
    layer = lr.RNN(lr.cells.gilr, 2, 2)
    carry = layer(torch.randn(3, 1, 2), leaf(1, 1, 2), return_state=True)[1]
    assert all(v.requires_grad for part in carry for v in part.values())
    assert not any(v.requires_grad for part in carry.detach() for v in part.values())
    assert all(v.dtype == torch.float32 for part in carry.to(torch.float32) for v in part.values())


@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, deep], ids=lambda c: c.name)
def test_a_reverse_module_is_fed_from_right_to_left(cell: lr.Cell, backend: str) -> None:
    layer = lr.RNN(lr.Cell(cell.spec.mirrored()), C, C)
    inputs, reset = [torch.randn(T, B, C) for _ in cell.spec.names("input")], torch.rand(T, B) < 0.4

    def run(at: slice, carry: Any) -> Any:
        x, *more = (v[at] for v in inputs)
        named = dict(zip(cell.spec.names("input")[1:], more, strict=True))
        return layer(x, carry, reset=reset[at], return_state=True, **named)

    whole, after = run(slice(None), None)
    right, carry = run(slice(3, None), None)
    left, carry = run(slice(3), carry)
    assert_close(as_tuple(whole), [torch.cat(pair) for pair in zip(as_tuple(left), as_tuple(right), strict=True)])
    assert_same(after, carry)
