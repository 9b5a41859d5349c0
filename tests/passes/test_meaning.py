"""A Plan means what its cell says: the equations, read as a definition by recursion over time, against the Programs.

The definition knows nothing of strata, scans or products: a state at t is its right-hand side at t, a map is W x + bias,
and a read that meets a boundary is the edge. Sizes: one sequence, H channels; the hidden size is H for all.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import lrdsl as lr
from lrdsl.backends.reference import evaluate, run
from lrdsl.ir.plan import Dense, Plan
from lrdsl.ir.spec import MapCall, Spec
from lrdsl.ir.symbols import Param, params, samples
from lrdsl.passes.adjoint import adjoint
from lrdsl.passes.partition import partition
from lrdsl.passes.simplify import simplify
from lrdsl.passes.stratify import stratify
from tests.cells_for_tests import CELLS
from tests.two_way_cells import TWO_WAY

from .differences import first_boundary
from .random_cells import random_cell

Array = Any
T, H = 7, 3


class Given:
    """Random numbers for everything that a cell takes. The two kinds of edge differ, so that neither passes for the other."""

    def __init__(self, spec: Spec, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.inputs = {n: rng.normal(size=(T, H)) for n in spec.names("input")}
        self.learned = {Param(n): rng.normal(size=H) for n in spec.names("vector")}
        self.learned |= {Param(n): rng.normal() * np.ones(H) for n in spec.names("scalar")}
        operands = {s.affine: len(s.operands) for s in spec.statements if isinstance(s, MapCall)}
        self.weight = {a: rng.normal(size=(n, H, H)) / H for a, n in operands.items()}
        self.bias = {a: rng.normal(size=H) * (spec[a].option("bias") is not False) for a in operands}
        self.reset = rng.random(T) < 0.3
        names = [*spec.names("input"), *(s.target for s in spec.statements)]
        self.edges = {(n, side, what): rng.normal(size=(9, H)) for n in names for side in (-1, 1) for what in ("start", "edge")}


class Definition:
    """The value of every name at every step, by recursion."""

    def __init__(self, spec: Spec, given: Given) -> None:
        self.given, self.statements = given, {s.target: s for s in spec.statements}
        self.at = cache(self._at)

    def _at(self, base: str, t: int) -> Array:
        if base in self.given.inputs:
            return self.given.inputs[base][t]
        statement = self.statements[base]
        if isinstance(statement, MapCall):
            weights = self.given.weight[statement.affine]
            parts = [W @ self.value(o, t) for W, o in zip(weights, statement.operands, strict=True)]
            return sum(parts) + self.given.bias[statement.affine]
        return self.value(statement.expr, t)

    def value(self, expr: Any, t: int) -> Array:
        """An expression at t."""
        values = {p: self.given.learned[p] for p in params(expr)} | {s: self.read(s.base, s.lag, t) for s in samples(expr)}
        return evaluate(expr, values) + np.zeros(H)

    def read(self, base: str, lag: int, t: int) -> Array:
        """A sequence `lag` steps from t, or its edge."""
        met, depth = first_boundary(self.given.reset, t, lag)
        return self.at(base, t + lag) if met is None else self.given.edges[base, 1 if lag > 0 else -1, met][depth]


def window(given: Given, base: str, values: Array, lag: int) -> Array:
    """A sequence (T, H) `lag` steps away, edges included."""
    met = [first_boundary(given.reset, t, lag) for t in range(T)]
    return np.stack([values[t + lag] if what is None else given.edges[base, 1 if lag > 0 else -1, what][depth]
                     for t, (what, depth) in enumerate(met)])


def execute(plan: Plan, given: Given) -> dict[str, Array]:
    """Everything that the steps of a Plan write: sequences (T, H), and the last values (depth, H) of what is carried."""
    known = dict(given.inputs)
    products: dict[str, tuple[str, Array]] = {}
    for step in plan.steps:
        if isinstance(step, Dense):
            seen = [window(given, step.source, known[step.source], lag) for lag in step.lags]
            for buffer, blocks in step.outputs:
                weights = {b.target: [given.weight[b.affine][k] for k in b.operands] for b in blocks}
                known[buffer] = np.hstack([sum(s @ W.T for s, W in zip(seen, weights[b.target], strict=True)) for b in blocks])
                products |= {target: (step.source, W[0]) for target, W in weights.items() if not step.windowed}
            continue
        program = adjoint(simplify(step.program)).forward
        tensors = {b.name: known[b.name][None] for b in program.buffers}
        learned = given.learned | {Param(f"{a}.bias"): bias for a, bias in given.bias.items()}
        tensors |= {v.name: learned[Param(v.name)][:1] if v.shape == "one" else learned[Param(v.name)] for v in program.vectors}
        for edge in program.edges:
            source, W = products.get(edge.base, (edge.base, np.eye(H)))
            for name, what in ((edge.start, "start"), (edge.edge, "edge")):
                if name:
                    tensors[name] = (given.edges[source, edge.side, what][: edge.depth] @ W.T)[None]
        known |= {n: value[0] for n, value in run(program, tensors, given.reset[None]).items()}
    return known


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mirrored", [False, True], ids=["as-written", "mirrored"])
@pytest.mark.parametrize("cell", {**CELLS, **TWO_WAY}.values(), ids=lambda c: c.name)
def test_a_plan_means_what_its_cell_says(cell: lr.Cell, mirrored: bool, seed: int) -> None:
    check(cell.spec.mirrored() if mirrored else cell.spec, seed)


def check(spec: Spec, seed: int = 0) -> None:
    """Outputs and last values of a cell, both ways."""
    given = Given(spec, seed)
    plan = partition(stratify(spec))
    says, does = Definition(spec, given), execute(plan, given)
    for _, sample in plan.outputs:
        want = np.stack([says.at(sample, t) for t in range(T)])
        assert np.isfinite(want).all() and want.any()
        np.testing.assert_allclose(does[sample], want, rtol=1e-11, atol=1e-11, err_msg=sample)
    for state in plan.carried:
        end = -1 if state.side > 0 else T
        want = [says.read(state.name, state.side * (k + 1), end) for k in range(state.depth)]
        np.testing.assert_allclose(does[f"{state.name}.final"], want, rtol=1e-11, atol=1e-11, err_msg=f"the last {state.name}")


@pytest.mark.parametrize("seed", range(20))
def test_random_cells(seed: int) -> None:
    spec = random_cell(seed).spec
    check(spec, seed)
    check(spec.mirrored(), seed)


@pytest.mark.parametrize("seed", range(30))
def test_random_cells_of_both_ways(seed: int) -> None:
    spec = random_cell(seed, two_ways=True).spec
    check(spec, seed)
    check(spec.mirrored(), seed)


def test_the_random_cells_differ() -> None:
    specs = [random_cell(seed).spec for seed in range(20)]
    assert {len(partition(stratify(s)).programs) for s in specs} >= {2, 3}
    assert random_cell(0) == random_cell(0) and len(set(specs)) == 20
    plans = [partition(stratify(random_cell(seed, two_ways=True).spec)) for seed in range(30)]
    runs = {"".join("FR"[p.reverse] for p in plan.programs) for plan in plans}
    assert {"FRF", "RFR"} <= runs and max(map(len, runs)) >= 4


@lr.cell
def behind(x: lr.Input, p: lr.State, q: lr.State, gate: lr.Affine, look: lr.Affine):
    """Windows of an input on both sides and of a state that is solved before, and one sample that is read twice."""
    p[lr.t] = lr.sigmoid(look(x[lr.t + 2], x[lr.t - 1])) * p[lr.t - 1] + x[lr.t]
    q[lr.t] = lr.sigmoid(gate(p[lr.t - 3], x[lr.t], p[lr.t - 1], p[lr.t - 1])) * q[lr.t - 1] + p[lr.t]
    return q[lr.t]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mirrored", [False, True], ids=["as-written", "mirrored"])
@pytest.mark.parametrize("cell", [CELLS["apart"], behind], ids=lambda c: c.name)
def test_maps_at_lags(cell: lr.Cell, mirrored: bool, seed: int) -> None:
    check(cell.spec.mirrored() if mirrored else cell.spec, seed)


@lr.cell
def gru(x: lr.Input, h: lr.State, update: lr.Affine, reset: lr.Affine, candidate: lr.Affine):
    z, r = lr.sigmoid(update(x[lr.t], h[lr.t - 1])), lr.sigmoid(reset(x[lr.t], h[lr.t - 1]))
    kept = r * h[lr.t - 1]
    h[lr.t] = (1 - z) * h[lr.t - 1] + z * lr.tanh(candidate(x[lr.t], kept))
    return h[lr.t]


@lr.cell
def scaled(x: lr.Input, s: lr.State, v: lr.Vector):
    s[lr.t] = lr.sigmoid(v) * s[lr.t - 1] + x[lr.t]
    return 2 * s[lr.t]


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("turned", [False, True], ids=["", "the other way"])
@pytest.mark.parametrize("by", ["gilr", "scaled"])
def test_surrogates_of_a_gru(by: str, turned: bool, delay: int) -> None:
    spec = {"gilr": CELLS["gilr"], "scaled": scaled}[by].spec
    check(lr.surrogate(gru, h=lr.Cell(spec.mirrored() if turned else spec), delay=delay).spec)
