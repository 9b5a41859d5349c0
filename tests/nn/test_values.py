"""Values and all gradients of every cell against the loop over its equations, resets and initial values included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lrdsl as lr
from tests.nn import loop
from tests.nn.cells import FUNCTIONS, MODULES
from tests.nn.compare import as_tuple, assert_close, gradients, leaf, parameters

B, T, C, I = 2, 6, 3, 4


def edges(cell: lr.Cell) -> dict[str, Tensor]:
    found = {}
    for key, s in lr.nn.pipeline.pipeline_of(cell.spec).sequences.items():
        found[key] = leaf(B, C) if s.depth == 1 else leaf(B, C, s.depth)
    return found


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", FUNCTIONS, ids=lambda c: c.name)
def test_a_function_is_its_equations(cell: lr.Cell, given: bool, mirrored: bool, backend: str) -> None:
    cell = lr.Cell(cell.spec.mirrored()) if mirrored else cell
    args = {n: leaf(B, T, C) for n in cell.spec.names("input")}
    params = {n: leaf(C) for n in cell.spec.names("vector")} | {n: leaf() for n in cell.spec.names("scalar")}
    init = edges(cell) if given else {}
    reset = torch.rand(B, T) < 0.3 if given else None
    result = lr.function(cell)(*(({**args, **params})[d.name] for d in cell.spec.declared if d.kind != "state"), init=init,
                               reset=reset)
    got = as_tuple(result)
    want = loop.outputs(cell.spec, loop.run(cell.spec, args, params, C, init, reset))
    assert_close(got, want)
    leaves = [*args.values(), *params.values(), *init.values()]
    assert_close(gradients(got, leaves), gradients(want, leaves), 10)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", MODULES, ids=lambda c: c.name)
def test_a_module_is_its_equations(cell: lr.Cell, given: bool, mirrored: bool, backend: str) -> None:
    cell = lr.Cell(cell.spec.mirrored()) if mirrored else cell
    size = C if cell.name in ("single", "window") else I
    layer = lr.RNN(cell, size, C, batch_first=True)
    first, *others = cell.spec.names("input")
    x, more = leaf(B, T, size), {n: leaf(B, T, C) for n in others}
    plan = lr.nn.pipeline.pipeline_of(cell.spec).plan
    states = [leaf(1, B, C) if s.depth == 1 else leaf(1, B, C, s.depth) for s in plan.carried] if given else None
    reset = torch.rand(B, T) < 0.3 if given else None
    y, h_n = layer(x, None if states is None else states[0] if len(states) == 1 else tuple(states), reset=reset, **more)
    outputs = as_tuple(y)
    params = parameters(layer)
    init = {s.name: v[0] for s, v in zip(plan.carried, states, strict=True)} if states else {
        n.removesuffix("_init"): p.expand(B, C) for n, p in params.items() if n.endswith("_init")}
    values = loop.run(cell.spec, {first: x, **more}, params, C, init, reset)
    want = loop.outputs(cell.spec, values)
    assert_close(outputs, want)
    last = [values[s.name][:, 0 if s.side > 0 else -1] for s in plan.carried]
    nearest = [h[0] if h.dim() == 3 else h[0, ..., 0] for h in (h_n if isinstance(h_n, tuple) else (h_n,))]
    assert_close(nearest, last)
    leaves = [x, *more.values(), *params.values(), *(states or [])]
    assert_close(gradients((*outputs, *nearest), leaves), gradients((*want, *last), leaves), 100)
