"""Nonlinear recurrences as Programs: the user's lines, the derivative, and the two Programs of Newton's method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch
from torch import Tensor

import lrdsl as lr
from lrdsl.backends.reference import run
from lrdsl.compiler import solved
from lrdsl.ir import functions as f
from lrdsl.ir.program import Buffer, Let, Nonlinear, Program, Scan, Sum
from lrdsl.ir.symbols import At, Param
from lrdsl.nn.launch import Launcher
from lrdsl.nn.ops import name_of
from lrdsl.passes.nonlinear import Partials, closed
from lrdsl.passes.schedule import strategies
from lrdsl.programs import adjoint_of, backward_of, iteration_of, plan_of
from tests.nonlinear_cells import later, second, three


def program(cell: lr.Cell, solver: Any = "newton") -> Program:
    [found] = plan_of(solved(cell, solver).spec).programs
    return found


def scans(p: Program) -> list[str]:
    return [p.structure(s).name for s in p.steps if isinstance(s, Scan)]


@pytest.mark.parametrize("cell", [lr.cells.sru_v2, lr.cells.diag_lstm], ids=lambda c: c.name)
def test_the_programs(cell: lr.Cell, golden: Any) -> None:
    """As it is solved one step after another, a step of Newton's method, and what is given in the end."""
    forward = program(cell)
    made = iteration_of(forward)
    assert "\n\n".join(map(str, (forward, made.step, made.finish))) == golden


def test_the_derivative_is_a_scan_the_other_way() -> None:
    for cell, structure in ((lr.cells.diag_gru, "diagonal"), (lr.cells.diag_lstm, "dense 2x2"), (three, "dense 3x3"),
                            (second, "companion, order 2")):
        forward = program(cell, "sequential")
        backward = backward_of(forward)
        assert scans(forward) == [] and scans(backward) == [structure] and backward.reverse != forward.reverse
        assert strategies(forward, "cuda") == ("serial",) and strategies(backward, "cuda") == ("serial", "chunked")
    assert program(later).reverse and not backward_of(program(later)).reverse


def test_a_step_of_newtons_method_is_cut_in_chunks() -> None:
    for cell in (lr.cells.diag_gru, lr.cells.diag_lstm, three, second, later):
        made = iteration_of(program(cell))
        assert len(scans(made.step)) == 1 and scans(made.finish) == [] and not made.step.solver
        assert strategies(made.step, "cuda") == strategies(made.finish, "cuda") == ("serial", "chunked")
        assert not any(isinstance(s, Nonlinear) for p in (made.step, made.finish) for s in p.steps)


def test_solvers_share_kernels_and_not_ops() -> None:
    one, other, third = (program(lr.cells.indrnn, s) for s in ("sequential", "newton", lr.Newton(tol=1e-3)))
    assert one.digest == other.digest == third.digest and iteration_of(other).step == iteration_of(third).step
    assert len({name_of(p) for p in (one, other, third)}) == 3
    assert backward_of(one) == backward_of(other)


def test_lines_inside_stand_before_and_for_a_derivative_behind() -> None:
    x, h = At("x"), At("h", -1)
    steps = (Let("g", f.sigmoid(h)), Let("k", At("g") * x), Let("u", x + 1), Nonlinear(("h",), (At("k") + At("u"),), (1,)))
    assert [s.targets for s in closed(steps)] == [("u",), ("h",), ("g",), ("k",)]
    assert closed(steps)[1].exprs == (f.sigmoid(h) * x + At("u"),)


def test_partial_derivatives_keep_what_occurs_twice_together() -> None:
    """Of g h + (1 - g) u with g = sigmoid(a h): (h - u) times that of g, without a difference of products."""
    h, u, a = At("h", -1), At("u"), Param("a")
    g = f.sigmoid(a * h)
    of = Partials([g * h + (1 - g) * u, f.where(f.greater(h, u), f.log(u), h**3)])
    assert of(0, h) == g + a * g * (1 - g) * (h - u) and of(0, u) == 1 - g
    assert of(1, u) == f.where(f.greater(h, u), 1 / u, sp.S.Zero), "what is not taken is not computed"
    assert of(1, h) == f.where(f.greater(h, u), sp.S.Zero, 3 * h**2) and of(1, a) == 0


def test_a_step_is_newtons(quick_rng: np.random.Generator) -> None:
    """Against a loop: h[t] = J[t] h[t-1] + F(g[t-1]) - J[t] g[t-1], torch's derivative of the paper's equations, damped."""
    B, T, C, damped = 2, 9, 3, 0.75
    forward = program(lr.cells.diag_lstm)
    made = iteration_of(forward)
    names = ("forget", "leave", "update")
    maps = {n: quick_rng.normal(size=(B, T, C)) for n in names}
    given: dict[str, Any] = {v.name: quick_rng.normal(size=C) for v in forward.vectors}
    guess, start = quick_rng.normal(size=(B, T, 2, C)), quick_rng.normal(size=(2, B, 1, C))
    reset = quick_rng.random((B, T)) < 0.2
    order = [c.removesuffix(".x") for c in forward.buffers[0].columns]
    tensors = given | {"x.maps": np.concatenate([maps[n] for n in order], 2), "guess": guess.reshape(B, T, 2 * C),
                       "damped": damped, "c.start": start[0], "h.start": start[1], "c.edge": start[0], "h.edge": start[1]}
    assert made.step.loads["c.guess"] == ("guess", 0) and made.step.loads["h.guess"] == ("guess", 1)
    out = run(made.step, tensors, reset)

    p = {n: torch.tensor(v) for n, v in given.items()}
    x = {n: torch.tensor(v) for n, v in maps.items()}

    def F(t: int, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(x["forget"][:, t] + p["forget.bias"] + p["a_f"] * h + p["p_f"] * c)
        new = gate * c + (1 - gate) * torch.tanh(x["update"][:, t] + p["update.bias"] + p["a_z"] * h)
        return new, torch.sigmoid(x["leave"][:, t] + p["leave.bias"] + p["a_o"] * h + p["p_o"] * new) * torch.tanh(new)

    first = tuple(torch.tensor(s[:, 0]) for s in start)
    states, g, worst, change = first, first, torch.tensor(0.0), 0.0
    for t in range(T):
        cut = torch.tensor(reset[:, t, None])
        states, g = (tuple(torch.where(cut, e, s) for e, s in zip(first, old, strict=True)) for old in (states, g))
        ahead = tuple(s - old for s, old in zip(states, g, strict=True))
        value, moved = torch.func.jvp(lambda c, h, t=t: F(t, c, h), g, ahead)  # type: ignore[misc]
        states = tuple(v + damped * m for v, m in zip(value, moved, strict=True))
        g = tuple(torch.tensor(guess[:, t, k]) for k in (0, 1))
        worst = max(worst, *(((v - s).abs() / (1 + s.abs())).max() for v, s in zip(value, g, strict=True)))
        change = max(change, *(float(((s - k).abs() / (1 + s.abs())).max()) for s, k in zip(states, g, strict=True)))
        np.testing.assert_allclose(out["states"].reshape(B, T, 2, C)[:, t], torch.stack(states, 1), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose([out["residual"], out["change"]], [worst, change], rtol=1e-12)


@pytest.fixture
def quick_rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("backend", ["reference", "native", pytest.param("emulated", marks=pytest.mark.long)])
@pytest.mark.parametrize("T", [5, 300])
def test_the_largest_value_of_a_pass(T: int, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over batch, time and channels, over chunks and blocks of channels; nan where there is one, 0 where all are 0."""
    monkeypatch.setenv("LRDSL_BACKEND", backend)
    x = torch.rand(3, T, 70)
    launcher = Launcher(largest())
    for change, want in (((1, T // 2, 66), 7.0), ((2, T - 1, 3), torch.nan)):
        x[change] = want
        found, total = launcher.run(x, None)
        assert torch.equal(found.isnan(), torch.tensor(want).isnan()) and (found.isnan() or found == want)
        torch.testing.assert_close(total, x.sum(), equal_nan=True, rtol=1e-5, atol=0)
    assert launcher.run(torch.zeros(3, T, 70), None)[0] == 0
    assert adjoint_of(largest(), frozenset()).takes, "the sum has a gradient, and the largest has none"


def largest() -> Program:
    return Program("peak", False, (Buffer("x", ("x",)),), (), (), (Let("y", f.absolute(At("x"))),), (),
                   (Sum("top", "y", "time and channels", largest=True), Sum("all", "y", "time and channels"))).check()
