"""Passes on Programs with an axis: shapes, sums that an adjoint adds, borders, levels, what is computed before all steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import lrdsl as lr
from lrdsl import exp, t, tanh
from lrdsl.backends.reference import run
from lrdsl.errors import InternalError
from lrdsl.ir import functions as f
from lrdsl.ir.program import Buffer, Edge, Keep, Let, Program, Sum, Vector
from lrdsl.ir.symbols import At, Param
from lrdsl.passes.adjoint import adjoint
from lrdsl.passes.levels import levels, prepared
from lrdsl.passes.replay import SEGMENT, bordered, unbordered
from lrdsl.passes.simplify import simplify
from lrdsl.programs import adjoint_of, backward_of, plan_of
from tests.axis_cells import mixed, s6


def program(*steps: Let, keeps: tuple[Keep, ...] = (Keep("y", ("y",)),), **more: Any) -> Program:
    """Lines over x (one a channel), u (shared) and h (N a channel)."""
    return Program("p", False, (Buffer("x", ("x",)), Buffer("u", ("u",), "axis"), Buffer("w", ("w",), "channel and axis")),
                   more.pop("vectors", ()), more.pop("edges", ()), steps, keeps, axis=3, **more)


def test_shapes_broadcast() -> None:
    p = program(Let("a", At("x") * 2), Let("b", At("x") * At("u")), Let("c", f.axis_sum(At("b")) * At("a")),
                Let("d", At("a")), Let("y", At("c") + At("a")), sized=("d",)).check()
    assert p.wide == {"u", "w", "b", "d"}
    assert [p.shape(n) for n in ("x", "u", "w", "a", "b", "c", "d")] == [
        "channel", "axis", "channel and axis", "channel", "channel and axis", "channel", "channel and axis"]


@pytest.mark.parametrize(("broken", "said"), [
    (lambda: program(Let("y", f.axis_sum(At("x")))), "adds up over an axis that is not there"),
    (lambda: program(Let("y", At("x") * 1), keeps=(Keep("y", ("y",), over="channels"),)), "different shapes"),
    (lambda: program(Let("y", At("x") * 2), Let("z", At("y") * At("u")), keeps=(Keep("k", ("y", "z")),)), "different shapes"),
    (lambda: program(Let("y", At("x") * At("u")), keeps=(Keep("k", ("y",), every=4),)), "no register"),
])
def test_what_check_refuses(broken: Any, said: str) -> None:
    with pytest.raises(InternalError, match=said):
        broken().check()


def test_what_broadcasts_adds_back() -> None:
    """The gradient of each input has its own shape: against differences, where a value of one number is read N times too."""
    p = program(Let("z", At("x") * Param("v")), Let("b", tanh_(At("u") * At("z") + At("w", -1) * Param("s"))),
                Let("wide", At("z") + At("x")), Let("y", f.axis_sum(At("b") * Param("m")) + f.axis_sum(At("wide")) * At("x")),
                vectors=(Vector("v"), Vector("s", "axis"), Vector("m", "channel and axis")),
                edges=(Edge("w", -1, 1, 0.0, "w.start", "w.edge"),), sized=("wide",)).check()
    B, T, C, N = 2, 4, 3, 3
    rng = np.random.default_rng(0)
    shapes = {"x": (B, T, C), "u": (B, T, N), "w": (B, T, N * C), "v": (C,), "s": (N,), "m": (N * C,), "w.start": (B, 1, N * C),
              "w.edge": (B, 1, N * C)}
    data = {n: rng.uniform(-1, 1, s) for n, s in shapes.items()}
    reset = rng.random((B, T)) < 0.4
    weight = rng.uniform(-1, 1, (B, T, C))
    made = adjoint(p)
    given = {n: {"gradient": {"y": weight}, "input": data, "output": {}}[o.what][o.name]
             for n, o in zip(made.program.inputs, made.takes, strict=True)}
    got = run(made.program, given, reset)
    for n, pieces in made.gives:
        [piece] = [q for q in pieces if q.how in ("whole", "window")] or [None]
        if piece is None:
            continue
        want = np.zeros(shapes[n])
        for at in np.ndindex(shapes[n]):
            up, down = (run(p, {**data, n: data[n] + s * 1e-6 * _unit(shapes[n], at)}, reset)["y"] for s in (1, -1))
            want[at] = ((up - down) * weight).sum() / 2e-6
        assert got[piece.name].shape == shapes[n], n
        np.testing.assert_allclose(got[piece.name], want, atol=1e-8, err_msg=n)
    overs = {k.name: k.over for k in made.program.keeps}
    assert overs["d.u"] == "channels" and overs["d.x"] == "" and overs["d.w"] == ""
    assert {s.name: s.over for s in made.program.sums} == {"d.v": "time", "d.s": "time and channels", "d.m": "time"}
    assert isinstance(made.program.sums[0], Sum)


def tanh_(expr: Any) -> Any:
    return f.tanh(expr)


def _unit(shape: tuple[int, ...], at: tuple[int, ...]) -> Any:
    out = np.zeros(shape)
    out[at] = 1
    return out


def test_only_near_states_with_an_axis_have_borders() -> None:
    """h is read one step back; q two steps; g has no axis: all but h are kept at every step."""
    [forward] = plan_of(mixed(3).spec).programs
    assert {k.name: k.every for k in forward.keeps if k.inner} == {"h.borders": SEGMENT, "g": 0, "q": 0}
    backward = backward_of(forward)
    assert backward.replay and backward.replay.states == (("h", "h.borders", "h.before"),)
    assert "g" in backward.replay.program.loads and backward.replayed == ("h.before",)
    assert unbordered(forward).keeps == tuple(k for k in forward.keeps if k.name != "h.borders")
    assert bordered(forward) == forward
    every = adjoint_of(unbordered(forward), frozenset())
    assert every.program.replay is None and "h" in {k.name for k in every.forward.keeps}


def test_a_program_without_need_of_its_states_has_no_replay() -> None:
    """A constant coefficient: the gradient asks for no state."""
    @lr.cell
    def fixed(x: lr.Input, h: lr.State = lr.State(size=4), B: lr.Affine = lr.Affine(axis=4)):
        h[t] = 0.5 * h[t - 1] + B(x[t])
        return lr.sum(h[t]) + x[t]
    [forward] = plan_of(fixed.spec).programs
    assert not any(k.every for k in forward.keeps) and backward_of(forward).replay is None


def test_a_replay_that_nobody_reads_is_dropped() -> None:
    [forward] = plan_of(s6(2).spec).programs
    backward = backward_of(forward)
    without = simplify(replace(backward, keeps=(), sums=tuple(s for s in backward.sums if s.name == "d.D")))
    assert backward.replay and without.replay is None
    assert "h.borders" not in without.inputs and "h.edge" not in without.inputs


def test_sums_wait_for_their_loop() -> None:
    """A sum behind a sum takes a second loop; two sums side by side do not."""
    @lr.cell
    def deep(x: lr.Input, h: lr.State = lr.State(size=2), w: lr.Vector = lr.Vector(size=2)):
        h[t] = exp(-exp(w)) * h[t - 1] + x[t]
        first = tanh(lr.sum(h[t]))
        return lr.sum(h[t] * w * first) + first * lr.sum(w * x[t])
    [p] = plan_of(deep.spec).programs
    ready, constants = prepared(p)
    found = levels(ready)
    assert [let.target for let in constants] == ["exp.w"]  # exp(-exp(w)) does not change with time: one line
    assert len(found) == 3 and not found[2].loop
    names = [[t for s in level.loop for t in s.targets] for level in found]
    assert "h" in names[0] and [sum(n.startswith("sum") for n in level) for level in names] == [2, 1, 0]
    forward, back = prepared(plan_of(s6(16).spec).programs[0])[0], prepared(backward_of(plan_of(s6(16).spec).programs[0]))[0]
    assert len([level for level in levels(forward) if level.loop]) == 1
    assert len([level for level in levels(back) if level.loop]) == 1
