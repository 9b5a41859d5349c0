"""The reference itself, against the truth loops: it is what everything else is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import lrdsl as lr
from lrdsl import t
from lrdsl.backends import reference
from lrdsl.backends.reference import run
from lrdsl.ir.plan import Dense
from lrdsl.ir.source import RESET
from lrdsl.programs import plan_of
from tests import truth
from tests.backends.harness import LAYOUTS, Problem, programs
from tests.cells_for_tests import CELLS

Array = Any
B, T, C, I = 3, 17, 5, 4


@lr.cell
def second_order(a1: lr.Input, a2: lr.Input, b: lr.Input, y: lr.State):
    y[t] = a1[t] * y[t - 1] + a2[t] * y[t - 2] + b[t]
    return y[t]


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).uniform(-1, 1, shape)


def assert_same(got: Array, want: torch.Tensor) -> None:
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-13, atol=1e-14)


RESETS = {"none": None, "some": drawn(B, T, seed=9) < -0.6, "first": np.arange(T)[None] == np.zeros((B, 1)),
          "last": np.arange(T)[None] == np.full((B, 1), T - 1), "every": np.ones((B, T), bool)}


def torched(*arrays: Array) -> list[Any]:
    return [None if a is None else torch.from_numpy(np.asarray(a)) for a in arrays]


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("reverse", [False, True])
def test_linear_scan(reset: str, reverse: bool) -> None:
    a, b, h0 = drawn(B, T, C), drawn(B, T, C, seed=1), drawn(B, C, seed=2)
    [program] = programs(lr.cells.linear_scan_reverse if reverse else lr.cells.linear_scan, ["forward"])
    want = truth.linear_scan(*torched(a, b, h0, RESETS[reset]), reverse=reverse)
    got = run(program, {"a": a, "b": b, "h.start": h0[:, None], "h.edge": h0[:, None]}, RESETS[reset])
    assert_same(got["h"], want)
    if not (reverse and reset in ("first", "every")):  # beyond the boundary before t = 0 it is the edge
        assert_same(got["h.final"][:, 0], want[:, 0 if reverse else -1])
    bare = run(program, {"a": a, "b": b, "h.start": None, "h.edge": None})
    assert_same(bare["h"], truth.linear_scan(*torched(a, b), reverse=reverse))


def test_second_order() -> None:
    a1, a2, b, y0 = drawn(B, T, C) / 2, drawn(B, T, C, seed=1) / 2, drawn(B, T, C, seed=2), drawn(B, 2, C, seed=3)
    [program] = programs(second_order, ["forward"])
    got = run(program, {"a1": a1, "a2": a2, "b": b, "y.start": y0, "y.edge": y0})
    want = truth.second_order(*torched(a1, a2, b, y0))
    assert_same(got["y"], want)
    assert_same(got["y.final"], want[:, [-1, -2]])  # nearest first


def test_discounted_return() -> None:
    r = drawn(B, T, C)
    [program] = programs(CELLS["discounted"], ["forward"])
    got = run(program, {"r": r, "gamma": np.array(0.9), "g.start": None, "g.edge": None})
    assert_same(got["g"], truth.discounted_return(*torched(r), 0.9))


def _plan(cell: lr.Cell, x: Array, params: dict[str, Array], edges: dict[str, Array], reset: Array | None) -> dict[str, Array]:
    """A whole Plan by hand: products of numpy, Programs of the reference."""
    plan = plan_of(cell.spec)
    known: dict[str, Any] = {"x": x}
    starts: dict[str, Array] = {f"{base}.{e}": v[:, None] for base, v in edges.items() for e in ("start", "edge")}
    operands = {a.name: a.operands for a in plan.affines}

    def weight(block: Any) -> Array:
        sizes = [x.shape[2] if o == "x" else C for o in operands[block.affine]]
        [operand] = block.operands
        before = sum(sizes[:operand])
        return params[f"{block.affine}.weight"][:, before:before + sizes[operand]]

    for step in plan.steps:
        if isinstance(step, Dense):
            for name, blocks in step.outputs:
                known[name] = np.concatenate([known[step.source] @ weight(block).T for block in blocks], -1)
                for block in blocks:
                    if step.source in edges:
                        edge = (edges[step.source] @ weight(block).T)[:, None]
                        starts |= {f"{block.target}.{e}": edge for e in ("start", "edge")}
        else:
            given = {n: known.get(n, starts.get(n, params.get(n))) for n in step.program.inputs}
            known |= run(step.program, given, reset)
    return known


def _parameters(names: tuple[str, ...], inputs: int) -> dict[str, Array]:
    found = {f"{n}.weight": drawn(C, inputs if n.startswith(("h.", "gate", "impulse")) else inputs + C, seed=k)
             for k, n in enumerate(names)}
    return found | {f"{n}.bias": drawn(C, seed=100 + k) for k, n in enumerate(names)}


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("cell", ["gilr", "gilr_lstm", "gilr_lstm_delay0"])
def test_cells_of_the_paper(cell: str, reset: str) -> None:
    found = getattr(lr.cells, cell)
    params = _parameters(tuple(a.name for a in plan_of(found.spec).affines), I)
    x, c0, s0 = drawn(B, T, I), drawn(B, C, seed=1), drawn(B, C, seed=2)
    named = {n: torch.from_numpy(p) for n, p in params.items()}
    if cell == "gilr":
        h, last = truth.gilr(torch.from_numpy(x), named, *torched(s0, RESETS[reset]))
        got = _plan(found, x, params, {"h": s0}, RESETS[reset])
        assert_same(got["h.final"][:, 0], last)
    else:
        h, c, s = truth.gilr_lstm(torch.from_numpy(x), named, *torched(c0, s0, RESETS[reset]), delay=int(cell == "gilr_lstm"))
        got = _plan(found, x, params, {"c": c0, "h.h": s0}, RESETS[reset])
        assert_same(got["c.final"][:, 0], c)
        assert_same(got["h.h.final"][:, 0], s)
    assert_same(got["h"], h)


@pytest.mark.parametrize("name", ["order_two", "against", "strata", "gilr"])
@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_nothing_leaks_through_a_boundary(name: str, kind: str) -> None:
    """A nan in one segment stays there, in each direction and in the gradient too."""
    [program] = programs(CELLS[name], [kind])
    found = Problem(program, 12, reset="none", edges="given", B=1, C=3)
    reset = np.zeros((1, 12), bool)
    reset[:, [4, 8]] = True
    clean = {n: v.reshape(*v.shape[:2], -1) if v is not None and v.ndim == 4 else v for n, v in found.inputs.items()}
    clean.pop(RESET)
    spoiled = {n: v.copy() if v is not None and v.ndim == 3 and v.shape[1] == 12 else v for n, v in clean.items()}
    for v in spoiled.values():
        if v is not None and v.ndim == 3 and v.shape[1] == 12:
            v[:, 4:8] = np.nan
    a, b = run(program, clean, reset), run(program, spoiled, reset)
    for keep in program.keeps:
        assert np.isnan(b[keep.name][:, 4:8]).any()
        assert (a[keep.name] == b[keep.name])[:, [0, 1, 2, 3, 8, 9, 10, 11]].all()
    for e in program.registers:
        assert e.final is None or (a[e.final] == b[e.final]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["forward", "backward", "tangent"])
@pytest.mark.parametrize("T", [0, 1, 9])
def test_addresses_mean_what_arrays_do(layout: str, kind: str, T: int) -> None:
    for program in programs(lr.cells.gilr_lstm, [kind]):
        launch = reference.load(program, "float64")
        for same_axis in ("", "time", "batch"):
            problem = Problem(program, T, same=same_axis, B=2, C=7)
            for b, c in ((2, 7), (1, 3), (0, 7)):
                assert problem.error(problem.solve(launch, b, c, layout)) < 1e-14


def test_an_empty_sequence_has_no_address() -> None:
    """As torch has it: the address of an empty tensor is 0."""
    [program] = programs(lr.cells.linear_scan, ["forward"])
    start, final = np.full((1, 1, 2), 0.5), np.zeros((1, 1, 2))
    reference.load(program, "float64")([0, 0, 2, 0, 0, 2, start.ctypes.data, 2, 2, 0, 0, 0, 0, 0, 2, final.ctypes.data, 0, 0, 0,
                                        1, 0, 2], 1)
    assert (final == 0.5).all()
