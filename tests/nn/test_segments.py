"""Packed segments, `cu_seqlens` and PackedSequence: each segment is what a sequence of its own would be."""

from __future__ import annotations

import itertools
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

import lrdsl as lr
from lrdsl.nn.pipeline import pipeline_of
from tests.cells_of_algebras import CELLS as CELLS_OF_ALGEBRAS
from tests.nn import loop
from tests.nn.cells import FUNCTIONS, MODULES, order2, window
from tests.nn.compare import as_tuple, assert_close, gradients, leaf, parameters

LENGTHS = [3, 0, 1, 5, 2]  # the deepest lag of the cells is 3
T, N, C, I = sum(LENGTHS), len(LENGTHS), 3, 4
BORDERS = torch.tensor([0, *LENGTHS]).cumsum(0)
PIECES = [slice(a, b) for a, b in pairwise(BORDERS.tolist())]


def edges(cell: lr.Cell, rows: int = N, width: int = C) -> dict[str, Tensor]:
    found = {}
    for key, s in pipeline_of(cell.spec).sequences.items():
        found[key] = leaf(rows, width) if s.depth == 1 else leaf(rows, width, s.depth)
    return found


def by_loop(cell: lr.Cell, inputs: dict[str, Tensor], params: dict[str, Tensor], init: dict[str, Tensor]) -> list[Tensor]:
    """The outputs of the loop over each segment alone, one after another."""
    parts = []
    for k, at in enumerate(PIECES):
        if at.start < at.stop:
            values = loop.run(cell.spec, {n: x[:, at] for n, x in inputs.items()}, params, C,
                              {n: v[k:k + 1] for n, v in init.items()})
            parts.append(loop.outputs(cell.spec, values))
    return [torch.cat(column, 1) for column in zip(*parts, strict=True)]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", FUNCTIONS, ids=lambda c: c.name)
def test_a_function_is_its_equations_in_each_segment(cell: lr.Cell, given: bool, mirrored: bool, backend: str) -> None:
    cell = lr.Cell(cell.spec.mirrored()) if mirrored else cell
    args = {n: leaf(1, T, C) for n in cell.spec.names("input")}
    params = {n: leaf(C) for n in cell.spec.names("vector")} | {n: leaf() for n in cell.spec.names("scalar")}
    init = edges(cell) if given else {}
    f = lr.function(cell)
    y, carry = f(*({**args, **params}[d.name] for d in f.arguments), init=init, cu_seqlens=BORDERS, return_state=True)
    got, want = as_tuple(y), by_loop(cell, args, params, init)
    assert_close(got, want)
    leaves = [*args.values(), *params.values(), *init.values()]
    assert_close(gradients(got, leaves), gradients(want, leaves), 10)
    for k, at in enumerate(PIECES):
        own = {n: v[k:k + 1] for n, v in init.items()}
        alone = f(*({**args, **params}[d.name][:, at] if d.kind == "input" else params[d.name] for d in f.arguments), init=own,
                  return_state=True)[1]
        assert_close([w[k:k + 1] for w in carry.now.values()], alone.now.values())
        assert_close([w[k:k + 1] for w in carry.edge.values()], alone.edge.values())


@pytest.mark.parametrize(("given", "mirrored"), [(True, False), (False, True), *(
    pytest.param(*both, marks=pytest.mark.long) for both in ((False, False), (True, True)))])
@pytest.mark.parametrize("cell", MODULES, ids=lambda c: c.name)
def test_a_module_is_its_equations_in_each_segment(cell: lr.Cell, given: bool, mirrored: bool, backend: str) -> None:
    cell = lr.Cell(cell.spec.mirrored()) if mirrored else cell
    size = C if cell.name in ("single", "window") else I
    layer = lr.RNN(cell, size, C)
    first, *others = cell.spec.names("input")
    x, more = leaf(T, size), {n: leaf(T, C) for n in others}
    states = layer.parts[0].pipeline.plan.carried
    h_0 = [leaf(1, N, C) if s.depth == 1 else leaf(1, N, C, s.depth) for s in states] if given else None
    y, h_n = layer(x, None if h_0 is None else h_0[0] if len(h_0) == 1 else tuple(h_0), cu_seqlens=BORDERS.int(), **more)
    params = parameters(layer)
    init = {s.name: v[0] for s, v in zip(states, h_0, strict=True)} if h_0 else {
        n.removesuffix("_init"): p.expand(N, C) for n, p in params.items() if n.endswith("_init")}
    want = by_loop(cell, {n: v.unsqueeze(0) for n, v in {first: x, **more}.items()}, params, init)
    assert_close(as_tuple(y), [w[0] for w in want])
    ends = []
    for k, at in enumerate(PIECES):
        own = None if h_0 is None else h_0[0][:, k] if len(h_0) == 1 else tuple(h[:, k] for h in h_0)
        alone = layer(x[at], own, **{n: v[at] for n, v in more.items()})
        ends.append(as_tuple(alone[1]))
    last = [torch.stack(column, 1) for column in zip(*ends, strict=True)]
    assert_close(as_tuple(h_n), last)
    leaves = [x, *more.values(), *params.values(), *(h_0 or [])]
    assert_close(gradients((*as_tuple(y), *as_tuple(h_n)), leaves), gradients((*(w[0] for w in want), *last), leaves), 100)


@pytest.mark.parametrize("layout", ["time first", "batch first", "unbatched"])
def test_every_layout_of_a_batch_of_one(layout: str, quick: None) -> None:
    layer = lr.RNN(lr.cells.gilr_lstm, I, C, batch_first=layout == "batch first", num_layers=2, bidirectional=True)
    x, h_0 = torch.randn(T, I), (torch.randn(4, N, C), torch.randn(4, N, C))
    want, ends = layer(x, h_0, cu_seqlens=BORDERS)
    axis = {"time first": 1, "batch first": 0}.get(layout)
    y, h_n = layer(x if axis is None else x.unsqueeze(axis), h_0, cu_seqlens=BORDERS)
    assert_close([y if axis is None else y.squeeze(axis), *h_n], [want, *ends])
    for k, at in enumerate(PIECES):
        alone, own = layer(x[at], tuple(h[:, k] for h in h_0))
        assert_close([want[at], *(h[:, k] for h in ends)], [alone, *own])


@pytest.mark.parametrize("cell", [lr.cells.gilr_lstm, window], ids=lambda c: c.name)
def test_chunks_of_segments(cell: lr.Cell, every_backend: str) -> None:
    """Whole = chunked = step by step: the first half of every segment, then the rest, then a step of each as a batch."""
    layer = lr.RNN(cell, C, C, num_layers=2)
    x, more = torch.randn(T, C), {n: torch.randn(T, C) for n in cell.spec.names("input")[1:]}
    whole, after = layer(x, cu_seqlens=BORDERS, return_state=True, **more)
    parts: list[list[Any]] = [[] for _ in PIECES]
    carry = None
    for half in range(2):
        cuts = [slice((a.start + a.stop) // 2, a.stop) if half else slice(a.start, (a.start + a.stop) // 2) for a in PIECES]
        index = torch.cat([torch.arange(T)[c] for c in cuts])
        borders = torch.tensor([0, *(c.stop - c.start for c in cuts)]).cumsum(0)
        y, carry = layer(x[index], carry, cu_seqlens=borders, return_state=True, **{n: v[index] for n, v in more.items()})
        for k in range(N):
            parts[k].append([o[borders[k]:borders[k + 1]] for o in as_tuple(y)])
    halves = [torch.cat([half[j] for part in parts for half in part]) for j in range(len(as_tuple(whole)))]
    assert_close(as_tuple(whole), halves)
    assert carry is not None and list(carry.now) == list(after.now)
    assert_close(carry.now.values(), after.now.values())
    assert_close(carry.edge.values(), after.edge.values())
    x_t, more_t = torch.randn(N, C), {n: torch.randn(N, C) for n in more}
    y_t, _ = layer.step(x_t, after, **more_t)
    for k in range(N):
        alone = lr.Carry({n: w[k:k + 1] for n, w in after.now.items()}, {n: w[k:k + 1] for n, w in after.edge.items()})
        assert_close([o[k:k + 1] for o in as_tuple(y_t)],
                     as_tuple(layer.step(x_t[k:k + 1], alone, **{n: v[k:k + 1] for n, v in more_t.items()})[0]))


@pytest.mark.parametrize("mirrored", [False, True])
def test_long_segments_in_chunks_of_time(mirrored: bool, every_backend: str) -> None:
    """More steps than a chunk has, borders in chunks and between them, and an edge for each segment."""
    lengths = [100, 28, 0, 1, 300, 171]
    cell = lr.Cell(lr.cells.gilr.spec.mirrored()) if mirrored else lr.cells.gilr
    layer, borders = lr.RNN(cell, I, C), torch.tensor([0, *lengths]).cumsum(0)
    x, h_0 = leaf(sum(lengths), I), leaf(1, len(lengths), C)
    y, h_n = layer(x, h_0, cu_seqlens=borders)
    params, parts = parameters(layer), []
    for k, (a, b) in enumerate(pairwise(borders.tolist())):
        if a < b:
            values = loop.run(cell.spec, {"x": x[None, a:b]}, params, C, {"h": h_0[0, k:k + 1]})["h"][0]
            parts.append(values)
            assert_close([h_n[0, k]], [values[0 if mirrored else -1]])
    want = torch.cat(parts)
    assert_close([y], [want], 10)
    leaves = [x, h_0, *params.values()]
    assert_close(gradients([y], leaves), gradients([want], leaves), 1000)


@pytest.mark.parametrize("cell", [order2, lr.cells.linear_scan_reverse], ids=lambda c: c.name)
def test_torch_checks_first_and_second_order(cell: lr.Cell, quick: None) -> None:
    f, borders = lr.function(cell), torch.tensor([0, 1, 1, 4])
    args, init = [leaf(1, 4, 2) for _ in f.arguments], edges(cell, 3, 2)

    def run(*tensors: Tensor) -> Any:
        y, carry = f(*tensors[:len(args)], init=dict(zip(init, tensors[len(args):], strict=True)), cu_seqlens=borders,
                     return_state=True)
        return (*as_tuple(y), *carry.now.values())

    assert gradcheck(run, (*args, *init.values()), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (*args, *init.values()), check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


def test_a_module_is_differentiable_twice(quick: None) -> None:
    layer = lr.RNN(window, 2, 2)
    params, x, u, h = dict(layer.named_parameters()), leaf(4, 2), leaf(4, 2), leaf(1, 2, 2)

    def run(x: Tensor, u: Tensor, h: Tensor, *values: Tensor) -> Any:
        named = dict(zip(params, values, strict=True))
        y, h_n = functional_call(layer, named, (x, h), {"u": u, "cu_seqlens": torch.tensor([0, 3, 4])})
        return (*as_tuple(y), h_n)

    assert gradcheck(run, (x, u, h, *params.values()), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (x, u, h, *params.values()), check_fwd_over_rev=True, fast_mode=True)


def test_a_nan_stays_in_its_segment(backend: str) -> None:
    """In values, in final states and in gradients, and a given edge of another segment is no way around."""
    layer = lr.RNN(lr.cells.gilr_lstm, I, C)
    x, h_0 = torch.randn(T, I), (leaf(1, N, C), leaf(1, N, C))
    x[PIECES[0].stop - 1] = torch.nan
    x.requires_grad_()
    y, h_n = layer(x, h_0, cu_seqlens=BORDERS)
    assert y[PIECES[0]].isnan().any() and y[PIECES[0].stop:].isfinite().all()
    assert all(h[0, 0].isnan().any() and h[0, 1:].isfinite().all() for h in h_n)
    grads = torch.autograd.grad(y[PIECES[0].stop:].square().sum(), [x, *h_0])
    assert grads[0][PIECES[0].stop:].isfinite().all() and all(g[0, 1:].isfinite().all() for g in grads[1:])


@pytest.mark.parametrize("lengths", [[0], [0, 0], [1], [1, 1, 1], [7]], ids=str)
def test_few_and_short_segments(lengths: list[int], backend: str) -> None:
    layer = lr.RNN(window, C, C)
    borders = torch.tensor([0, *lengths]).cumsum(0)
    x, u, h_0 = torch.randn(sum(lengths), C), torch.randn(sum(lengths), C), leaf(1, len(lengths), C)
    (y, g), h_n = layer(x, h_0, u=u, cu_seqlens=borders)
    assert y.shape == g.shape == x.shape and h_n.shape == h_0.shape
    for k, n in enumerate(lengths):
        at = slice(int(borders[k]), int(borders[k]) + n)
        alone, own = layer(x[at], h_0[:, k], u=u[at])
        assert_close([y[at], g[at], h_n[:, k]], [*alone, own])
    assert torch.autograd.grad(h_n.sum(), h_0)[0].isfinite().all()
    none = lr.RNN(lr.cells.gilr, I, C)(torch.zeros(0, I), cu_seqlens=torch.tensor([0]))
    assert none[0].shape == (0, C) and none[1].shape == (1, 0, C)


def ragged(sizes: list[int], width: int = I) -> list[Tensor]:
    return [leaf(n, width) for n in sizes]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("lengths", [[5, 3, 3, 1], [2, 5, 1, 4], [1], [4, 4]], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences_have_the_manners_of_an_lstm(bidirectional: bool, lengths: list[int], given: bool,
                                                      backend: str) -> None:
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": bidirectional}
    ours, theirs = lr.RNN(lr.cells.gilr_lstm, I, C, **options), torch.nn.LSTM(I, C, **options)
    seqs = ragged(lengths)
    x = pack_sequence(seqs, enforce_sorted=False)
    rows = 4 if bidirectional else 2
    h_0 = tuple(leaf(rows, len(lengths), C) for _ in range(2)) if given else None
    (y, h_n), (z, k_n) = ours(x, h_0), theirs(x, h_0)
    assert isinstance(y, PackedSequence) and y.data.shape == z.data.shape
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(y, name), getattr(z, name))
    assert [h.shape for h in h_n] == [k.shape for k in k_n]
    padded, sizes = pad_packed_sequence(y)
    assert sizes.tolist() == lengths
    outs, ends = [], []
    for b, seq in enumerate(seqs):
        alone, own = ours(seq, None if h_0 is None else tuple(h[:, b] for h in h_0))
        assert_close([padded[:lengths[b], b], *(h[:, b] for h in h_n)], [alone, *own])
        outs.append(alone)
        ends.append(torch.stack(own))
    leaves = [*seqs, *ours.parameters(), *(h_0 or ())]
    assert_close(gradients([padded, *h_n], leaves),
                 gradients([torch.nn.utils.rnn.pad_sequence(outs), *torch.stack(ends, 2)], leaves), 100)


def test_packed_sequences_of_every_making(quick: None) -> None:
    layer = lr.RNN(lr.cells.gilr, I, C, batch_first=True, dropout=0.5, num_layers=2).eval()
    x = torch.randn(2, 5, I)
    want = [layer(x[b:b + 1, :n])[0][0] for b, n in enumerate((5, 2))]
    given = [pack_padded_sequence(x, torch.tensor([5, 2]), batch_first=True), pack_sequence([x[0], x[1, :2]]),
             pack_padded_sequence(x, torch.tensor([5, 2]), batch_first=True, enforce_sorted=False)]
    for packed in given:
        y, _ = layer(packed)
        found, lengths = pad_packed_sequence(y, batch_first=True)
        assert_close([found[b, :n] for b, n in enumerate(lengths.tolist())], want)
        assert (y.sorted_indices is None) == (packed.sorted_indices is None)


def test_packed_inputs_of_several_names_and_outputs(quick: None) -> None:
    layer, sizes = lr.RNN(window, C, C), [2, 4]
    xs, us = ragged(sizes, C), ragged(sizes, C)
    (h, g), carry = layer(pack_sequence(xs, False), u=pack_sequence(us, False), return_state=True)
    for b in range(2):
        alone, own = layer(xs[b].unsqueeze(1), u=us[b].unsqueeze(1), return_state=True)
        assert_close([pad_packed_sequence(o)[0][:sizes[b], b] for o in (h, g)], [o[:, 0] for o in alone])
        assert_close([w[b:b + 1] for w in carry.now.values()], own.now.values())


def test_a_step_goes_on_from_packed_sequences(quick: None) -> None:
    layer, sizes = lr.RNN(lr.cells.qrnn_fo, I, C), [2, 4]
    xs, x_t = ragged(sizes), torch.randn(2, I)
    carry = layer(pack_sequence(xs, False), return_state=True)[1]
    y_t, _ = layer.step(x_t, carry)
    for b in range(2):
        assert_close([y_t[b]], [layer(torch.cat([xs[b], x_t[b:b + 1]]))[0][-1]])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("given", [False, True])
def test_segments_compile_whole(given: bool, quick: None) -> None:
    torch._dynamo.reset()
    layer = lr.RNN(lr.cells.qrnn_fo, 3, 4, bidirectional=True)
    x, h_0 = torch.randn(6, 3, requires_grad=True), torch.randn(2, 3, 4) if given else None
    borders = torch.tensor([0, 2, 2, 6])
    found = []
    for f in (torch.compile(layer, fullgraph=True, backend="aot_eager"), layer):
        y, h_n = f(x, h_0, cu_seqlens=borders)
        found.append((y, h_n, *torch.autograd.grad(y.sin().sum() + h_n.square().sum(), [x, *layer.parameters()])))
    assert_close(*found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("strict", [False, True])
def test_segments_are_exported_for_any_number(strict: bool, quick: None) -> None:
    """Of steps and, from two on, of segments."""
    layer, x = lr.RNN(lr.cells.qrnn_fo, 3, 4), torch.randn(9, 3)
    shapes = {"x": {0: torch.export.Dim("time")}, "cu_seqlens": {0: torch.export.Dim("borders", min=3)}}
    program = torch.export.export(layer, (x,), {"cu_seqlens": torch.tensor([0, 2, 9])}, dynamic_shapes=shapes, strict=strict)
    for borders in ([0, 2, 9], [0, 1, 4, 6]):
        args = x[:borders[-1]], torch.tensor(borders)
        assert_close(program.module()(args[0], cu_seqlens=args[1]), layer(args[0], cu_seqlens=args[1]))
    with pytest.raises(RuntimeError, match="cu_seqlens must go from 0 to the number of steps"):
        program.module()(x, cu_seqlens=torch.tensor([0, 2, 8]))


def test_vmap_over_packed_batches(quick: None) -> None:
    layer, xs, hs = lr.RNN(lr.cells.qrnn_fo, I, C), torch.randn(3, T, I), torch.randn(3, 1, N, C)

    def loss(x: Tensor, h: Tensor) -> Tensor:
        y, h_n = layer(x, h, cu_seqlens=BORDERS)
        return y.sin().sum() + h_n.square().sum()

    for f in (loss, torch.func.grad(loss, (0, 1))):
        got, want = torch.vmap(f)(xs, hs), [f(x, h) for x, h in zip(xs, hs, strict=True)]
        if f is loss:
            assert_close([got], [torch.stack(want)])
        else:
            assert_close(got, [torch.stack(column) for column in zip(*want, strict=True)])


@pytest.mark.parametrize("name", ["longest", "cheapest", "evidence", "cummax"])
def test_segments_of_recurrences_over_other_algebras(name: str) -> None:
    """Given edges are joined as the past is, by + and the sum of the algebra; each segment is as if alone."""
    torch.manual_seed(0)
    cell = CELLS_OF_ALGEBRAS[name]
    names = cell.spec.names("input")
    borders, tensors = [0, 3, 4, 9], {n: torch.randn(1, 9, 2, dtype=torch.float64, requires_grad=True) for n in names}
    edges = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    [state] = cell.spec.names("state")
    leaves = (*tensors.values(), edges)
    run = lr.function(cell)
    packed = run(**tensors, init={state: edges}, cu_seqlens=torch.tensor(borders))
    apart = torch.cat([run(**{n: x[:, lo:hi] for n, x in tensors.items()}, init={state: edges[k:k + 1]})
                       for k, (lo, hi) in enumerate(itertools.pairwise(borders))], 1)
    torch.testing.assert_close(packed, apart)
    weights = torch.randn_like(packed)
    for got, want in zip(torch.autograd.grad((packed * weights).sum(), leaves),
                         torch.autograd.grad((apart * weights).sum(), leaves), strict=True):
        torch.testing.assert_close(got, want)


@lr.cell
def spun(x: lr.Input, a: lr.Vector = lr.Vector(complex=True), h: lr.State = lr.State(complex=True)):
    h[lr.t] = a * h[lr.t - 1] + x[lr.t] + x[lr.t - 1]
    return h[lr.t], lr.re(h[lr.t])


def test_segments_of_complex_values() -> None:
    """A segment begins with its complex state, and leaves one."""
    torch.manual_seed(0)
    x, h_0 = torch.randn(1, 9, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.complex128, requires_grad=True)
    a = (0.9 * torch.exp(1j * torch.rand(2, dtype=torch.float64))).requires_grad_()
    run, borders = lr.function(spun), [0, 3, 4, 9]
    (packed, _), carry = run(x, a, init={"h": h_0}, cu_seqlens=torch.tensor(borders), return_state=True)
    apart = [run(x[:, lo:hi], a, init={"h": h_0[k:k + 1]}, return_state=True) for k, (lo, hi) in enumerate(pairwise(borders))]
    torch.testing.assert_close(packed, torch.cat([y for (y, _), _ in apart], 1))
    torch.testing.assert_close(carry.now["h"], torch.cat([c.now["h"] for _, c in apart]))
    want = torch.autograd.grad(sum(y.abs().sum() for (y, _), _ in apart), (a, h_0))
    for got, wanted in zip(torch.autograd.grad(packed.abs().sum(), (a, h_0)), want, strict=True):
        torch.testing.assert_close(got, wanted)
