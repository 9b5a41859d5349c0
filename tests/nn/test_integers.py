"""Integers mean one-hot vectors: the same values and gradients as of one-hot tensors, which are never built."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils.rnn import pack_sequence
from torch.overrides import TorchFunctionMode

import lrdsl as lr
from lrdsl import sigmoid, t
from tests.nn import loop
from tests.nn.cells import sides
from tests.nn.compare import as_tuple, assert_close, gradients, parameters

B, T, V, C = 2, 6, 5, 3


@lr.cell
def spelled(x: lr.Input, h: lr.State, gate: lr.Affine, both: lr.Affine, u: lr.Input = lr.Input(size=4),
            low: lr.Affine = lr.Affine(size=2)):
    """Words at several lags, alone and in a window, beside other words; through a map of a size of its own, too."""
    h[t] = sigmoid(gate(x[t - 1]) + both(u[t], x[t], x[t - 2])) * h[t - 1] + both(u[t - 1], x[t], x[t])
    return h[t], low(x[t - 1], x[t])


CELLS = [lr.cells.gilr, lr.cells.gilr_lstm, lr.cells.qrnn_fo, sides, spelled]


def drawn(cell: lr.Cell, *shape: int) -> dict[str, Tensor]:
    return {d.name: torch.randint(V if k == 0 else d.option("size"), shape) for k, d in enumerate(cell.spec.of("input"))}


def one_hot(layer: lr.RNN, words: dict[str, Tensor]) -> dict[str, Tensor]:
    first = next(iter(words))
    return {n: F.one_hot(v, layer.input_size if n == first else layer.features[n]).double() for n, v in words.items()}


def call(layer: lr.RNN, inputs: dict[str, Any], *args: Any, **more: Any) -> Any:
    first, *others = inputs
    return layer(inputs[first], *args, **{n: inputs[n] for n in others}, **more)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)
def test_they_are_the_equations_of_one_hot_vectors(cell: lr.Cell, resets: bool, mirrored: bool, backend: str) -> None:
    cell = lr.Cell(cell.spec.mirrored()) if mirrored else cell
    layer = lr.RNN(cell, V, C, batch_first=True)
    words, reset = drawn(cell, B, T), torch.rand(B, T) < 0.3 if resets else None
    params = parameters(layer)
    got = as_tuple(call(layer, words, reset=reset)[0])
    want = loop.outputs(cell.spec, loop.run(cell.spec, one_hot(layer, words), params, C, None, reset))
    assert_close(got, want)
    assert_close(gradients(got, list(params.values())), gradients(want, list(params.values())), 100)


@pytest.mark.parametrize("layout", ["time first", "batch first", "unbatched", "int32", "segments", "packed"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)
def test_every_layout(cell: lr.Cell, layout: str, backend: str) -> None:
    """Two layers, both directions, a Carry where there is one."""
    layer = lr.RNN(cell, V, C, num_layers=2, bidirectional=True, batch_first=layout == "batch first")
    words = drawn(cell, *((T,) if layout in ("unbatched", "segments", "packed") else (B, T) if layer.batch_first else (T, B)))
    words = {n: v.int() for n, v in words.items()} if layout == "int32" else words
    hot = one_hot(layer, {n: v.long() for n, v in words.items()})
    more: dict[str, Any] = {"cu_seqlens": torch.tensor([0, 2, 2, T])} if layout == "segments" else {}
    if layout == "packed":
        words, hot = ({n: pack_sequence([v[:2], v[2:]], False) for n, v in d.items()} for d in (words, hot))  # type: ignore[misc]
    (y, h), (z, k) = call(layer, words, **more), call(layer, hot, **more)
    if layout == "packed":
        y, z = ([o.data for o in as_tuple(v)] if not hasattr(v, "data") else v.data for v in (y, z))
    ours, theirs = ([*(v if isinstance(v, list) else as_tuple(v)), *as_tuple(e)] for v, e in ((y, h), (z, k)))
    assert_close(ours, theirs)
    assert_close(gradients(ours, list(layer.parameters())), gradients(theirs, list(layer.parameters())), 100)


@pytest.mark.parametrize("cell", [lr.cells.qrnn_fo, spelled, lr.cells.gilr_lstm], ids=lambda c: c.name)
def test_chunks_and_steps(cell: lr.Cell, every_backend: str) -> None:
    layer = lr.RNN(cell, V, C, num_layers=2)
    words, reset = drawn(cell, T, B), torch.rand(T, B) < 0.3
    whole, after = call(layer, words, reset=reset, return_state=True)
    carry, parts = None, []
    for at in (slice(0, 1), slice(1, 1), slice(1, 4)):
        y, carry = call(layer, {n: v[at] for n, v in words.items()}, carry, reset=reset[at], return_state=True)
        parts.append(as_tuple(y))
    for k in range(4, T):
        first, *others = words
        y, carry = layer.step(words[first][k], carry, reset=reset[k], **{n: words[n][k] for n in others})
        parts.append(tuple(o.unsqueeze(0) for o in as_tuple(y)))
    assert_close(as_tuple(whole), [torch.cat(column) for column in zip(*parts, strict=True)])
    assert carry is not None
    assert_close(after.now.values(), carry.now.values())
    with pytest.raises(lr.CellError, match="holds the index 5"):
        layer.step(torch.full((B,), V), carry, **{n: words[n][0] for n in list(words)[1:]})


def test_segments_go_on_from_a_carry(quick: None) -> None:
    layer, words = lr.RNN(spelled, V, C), drawn(spelled, 8)
    whole = call(layer, words, cu_seqlens=torch.tensor([0, 3, 8]))[0]
    _, carry = call(layer, {n: v[[0, 1, 3]] for n, v in words.items()}, cu_seqlens=torch.tensor([0, 2, 3]), return_state=True)
    y, _ = call(layer, {n: v[[2, 4, 5, 6, 7]] for n, v in words.items()}, carry, cu_seqlens=torch.tensor([0, 1, 5]))
    assert_close(as_tuple(y), [o[[2, 4, 5, 6, 7]] for o in as_tuple(whole)])


def test_a_carry_of_words_is_no_carry_of_vectors(quick: None) -> None:
    layer, words = lr.RNN(lr.cells.qrnn_fo, V, C), torch.randint(V, (T, B))
    _, carry = layer(words, return_state=True)
    assert carry.to(torch.float32).now["layers.0.x"].dtype == torch.int64
    with pytest.raises(lr.DtypeMismatch, match=r"the Carry holds x as torch\.int64, and the input is torch.float64"):
        layer(F.one_hot(words, V).double(), carry)
    with pytest.raises(lr.DtypeMismatch, match=r"the Carry holds x as torch.float64"):
        layer(words, layer(F.one_hot(words, V).double(), return_state=True)[1])


@pytest.mark.parametrize("tokens", [2, 9])
def test_no_vector_is_built(tokens: int, quick: None) -> None:
    """No tensor has the vocabulary as its last dimension, but weights and their gradients."""
    layer = lr.RNN(lr.cells.qrnn_fo, V, C)
    shapes: list[tuple[int, ...]] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            shapes.extend(tuple(o.shape) for o in (out if isinstance(out, tuple) else (out,)) if isinstance(o, Tensor))
            return out

    with Watch():
        layer(torch.randint(V, (tokens, 7)))[0].sum().backward()
    assert (tokens, 7) in [s[:2] for s in shapes] or (7, tokens) in [s[:2] for s in shapes]
    assert not [s for s in shapes if V in s and s not in ((C, V), (V, C), (C, 2 * V), (3 * C, 2 * V))]


def test_torch_checks_first_and_second_order(quick: None) -> None:
    layer, words = lr.RNN(spelled, V, 2), drawn(spelled, 3, 1)
    params = dict(layer.named_parameters())

    def run(*values: Tensor) -> Any:
        named = dict(zip(params, values, strict=True))
        return as_tuple(functional_call(layer, named, (words["x"],), {"u": words["u"]})[0])

    assert gradcheck(run, tuple(params.values()), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, tuple(params.values()), check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_they_compile_whole(quick: None) -> None:
    torch._dynamo.reset()
    layer, words = lr.RNN(lr.cells.qrnn_fo, V, C, num_layers=2), torch.randint(V, (T, B))
    found = []
    for f in (torch.compile(layer, fullgraph=True, backend="aot_eager"), layer):
        y, h_n = f(words)
        found.append((y, h_n, *torch.autograd.grad(y.sin().sum() + h_n.square().sum(), list(layer.parameters()))))
    assert_close(*found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_graph_checks_the_range(quick: None) -> None:
    torch._dynamo.reset()
    layer, words = lr.RNN(lr.cells.qrnn_fo, V, C), torch.randint(V, (T, B))
    for f in (torch.compile(layer, fullgraph=True, backend="aot_eager"), torch.export.export(layer, (words,)).module()):
        assert_close([f(words)[0]], [layer(words)[0]])
        for wrong in (words + V, words - V):
            with pytest.raises(RuntimeError, match="the input x holds an index out of range"):
                f(wrong)


def test_vmap_over_words(quick: None) -> None:
    layer, words = lr.RNN(lr.cells.qrnn_fo, V, C), torch.randint(V, (4, T, B))
    assert_close([torch.vmap(lambda w: layer(w)[0])(words)], [torch.stack([layer(w)[0] for w in words])])
