"""Kernels over an axis in chunks of time: against loops over time, under adverse schedules, with planted faults; bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import lrdsl as lr
from lrdsl import exp, t, tanh
from lrdsl.backends.emulated import SCHEDULES, EmulationError, Emulator, Schedule
from lrdsl.backends.problem import Problem
from lrdsl.ir.program import Program
from lrdsl.ir.source import RESET, Source
from lrdsl.kernels import source_of
from lrdsl.passes.schedule import chosen, schedules
from lrdsl.passes.strata import STEPS, WARPS
from lrdsl.programs import backward_of, plan_of
from tests.axis_cells import mixed, mixed_loop, returns, returns_loop, s6, s6_loop
from tests.nn.compare import assert_close, gradients, leaf, parameters

pytestmark = pytest.mark.usefixtures("compiler")

CHUNK, GROUP = WARPS * STEPS, 8


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's tensors go to the emulator, in float64."""
    monkeypatch.setenv("LRDSL_BACKEND", "emulated")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def chunked(cell: lr.Cell, backward: bool) -> tuple[Program, Source]:
    """A cell's one Program, or the gradient of it, and its chunked kernel."""
    [forward] = plan_of(cell.spec).programs
    program = backward_of(forward) if backward else forward
    return program, source_of(program, "cuda", "float32", strategy="chunked")


@pytest.mark.parametrize("T", [CHUNK + 1, 2 * CHUNK + STEPS + 3])
def test_the_selective_scan_in_chunks(T: int, emulated: None) -> None:
    """Values, final states, and the gradients of everything, the initial states among them; with boundaries and without."""
    layer = lr.RNN(s6(3), 5, 5, batch_first=True)
    x, h_0, p = leaf(2, T, 5), leaf(1, 2, 5, 3), parameters(layer)
    for reset in (None, torch.rand(2, T) < 4 / T):
        y, h_n = layer(x, h_0, reset=reset)
        want, last = s6_loop(x, p, h_0[0], reset)
        assert_close((y, h_n[0]), (want, last), 100)
        inputs = [x, h_0, *p.values()]
        assert_close(gradients((y, h_n), inputs), gradients((want, last.unsqueeze(0)), inputs), 1e4)


def test_from_the_right_in_chunks(emulated: None) -> None:
    """Learned initial states; a gradient that is sent a step back, as a recurrence of its own."""
    layer, r = lr.RNN(returns(2), 3, 3, batch_first=True), leaf(2, CHUNK + 9, 3)
    p, reset = parameters(layer), torch.rand(2, CHUNK + 9) < 0.05
    y, _ = layer(r, reset=reset)
    want, _ = returns_loop(r, p, reset)
    assert_close((y,), (want,), 10)
    assert_close(gradients((y,), [r, *p.values()]), gradients((want,), [r, *p.values()]), 1000)


@pytest.mark.parametrize("backward", [False, pytest.param(True, marks=pytest.mark.long)])
def test_recurrences_that_wait_for_each_other(backward: bool, emulated: None) -> None:
    """States of one number and of N, of order two, each in the other's gates: three strata, and four of the gradient."""
    f, T = lr.function(mixed(2)), CHUNK + STEPS + 5
    given, edges = [leaf(2, T, 3), leaf(2, T, 2), leaf(3, 2), leaf(2), leaf(3)], [leaf(2, 3, 2), leaf(2, 3, 2, 2), leaf(2, 2)]
    reset = torch.rand(2, T) < 4 / T
    got = f(*given, init=dict(zip("hqu", edges, strict=True)), reset=reset)
    want = mixed_loop(*given, *edges, reset)
    assert_close(got, want, 1e3)
    if backward:
        assert_close(gradients(got, [*given, *edges]), gradients(want, [*given, *edges]), 1e5)


def test_what_lies_behind_a_boundary_stays_there(emulated: None) -> None:
    """A nan in one chunk, a boundary in the next: what follows is finite, and as without the nan."""
    layer, at = lr.RNN(s6(2), 2, 2, batch_first=True), CHUNK + 40
    x, reset = torch.randn(1, 3 * CHUNK, 2), torch.zeros(1, 3 * CHUNK, dtype=torch.bool)
    reset[0, at] = True
    clean, h_clean = layer(x, reset=reset)
    x[0, CHUNK - 7] = float("nan")
    y, h_n = layer(x, reset=reset)
    assert torch.isnan(y[0, CHUNK - 7:at]).all() and torch.equal(y[0, at:], clean[0, at:]) and torch.equal(h_n, h_clean)


def outputs_of(problem: Problem, emulator: Emulator, way: Schedule) -> tuple[float, dict[str, Any]]:
    """(the largest error, the outputs) of a launch."""
    found: dict[str, Any] = {}
    error = Problem._error

    def kept(outputs: dict[str, Any], dtype: str) -> float:
        found.update(outputs)
        return error(problem, outputs, dtype)

    problem._error = kept  # type: ignore[method-assign]
    return problem.run(emulator, way)[0], found


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_every_schedule_gives_the_same_bits(backward: bool) -> None:
    """Over two groups of chunks and a bit, with and without boundaries: right, and no bit depends on who is first."""
    program, source = chunked(s6(3), backward)
    emulator = Emulator(source)
    for reset, ways in ((False, (SCHEDULES[0], *SCHEDULES[2:])), (True, SCHEDULES[3:5])):
        problem, found = Problem(program, (2, (2 * GROUP + 1) * CHUNK + 5, 2), reset, True, "gaps"), set()
        for way in ways:
            error, outputs = outputs_of(problem, emulator, way)
            assert error < 1e-4, way
            found.add(b"".join(np.ascontiguousarray(a).tobytes() for a in outputs.values()))
        assert len(found) == 1


@lr.cell
def remembers(x: lr.Input, d: lr.Input, *, h: lr.State = lr.State(size=5), A: lr.Vector = lr.Vector(size=5),
              u: lr.Input = lr.Input(axis=5)):
    """Forgets so little that what a chunk does is seen in the next but one."""
    h[t] = exp(-exp(A - 6) * abs(d[t])) * h[t - 1] + x[t] * u[t] / 8
    return lr.sum(h[t] * A)


FAULTS = (
    ("a chunk is the block's number, not its ticket", "ticket = atomicAdd((unsigned *)a.scratch, 1u)", "ticket = blockIdx.x"),
    ("stretches are read before they are there", "mine.cut;\n    __syncthreads();", "mine.cut;"),
    ("prefixes are read before they are there", "      whole[r] = sum;\n    }\n    __syncthreads();",
     "      whole[r] = sum;\n    }"),
    ("the states are read before they are there", "any = __syncthreads_or(any);", "(void)any;"),
    ("the first number of a slice is lost", "if (r * W + i < N) board.get(w, i", "if (i && r * W + i < N) board.get(w, i"),
    ("a group's state is not told", "if (tells_state(at) && !slow) tell_state", "if (false) tell_state"),
    ("a group's state is the one before it", "whole[r](h));", "h);"),
    ("chunks of a group are left out", "c += AT_ONCE", "c += AT_ONCE + 1"),
    ("what a boundary cut off is multiplied by 0", "return cut ? b[n] : a[n](h, b[n]);", "return a[n](h, b[n]);"),
    ("boundaries in earlier warps are forgotten", "mine.cut = mine.cut || board.cut[i];", ";"),
    ("a boundary in a stretch is forgotten", " h_upto.boundary(n, ", " (void)(n, "),
    ("a warp begins with the state before the chunk", "if (w) before[n] = before_warp", "if (false) before[n] = before_warp"),
    ("one segment is computed again for another", "+ segment * a.h_borders_time", "+ (segment / 2) * a.h_borders_time"),
    ("a warp is left out of the sums", "for (int w = 1; w < W; ++w) mine", "for (int w = 2; w < W; ++w) mine"),
    ("parts of chunks lie on each other", "a.d_A + ((chunk * a.B", "a.d_A + ((0 * a.B"),
)


@pytest.mark.long
@pytest.mark.parametrize(("name", "old", "new"), FAULTS, ids=[name.replace(" ", "_") for name, _, _ in FAULTS])
def test_a_planted_fault_is_found(name: str, old: str, new: str) -> None:
    """By the emulator, or by other numbers than the right text's, in one of three schedules; a nan lies before boundaries."""
    program, right = chunked(remembers, "boundar" not in name)
    assert old in right.text
    problem = Problem(program, (2, (GROUP + 2) * CHUNK + 40, 2), True, True, "plain")
    x, reset = problem.inputs["x"], problem.inputs[RESET]
    assert x is not None and reset is not None
    x[0, 50, :, 0], reset[0, CHUNK + 2 * STEPS + 9] = np.nan, True
    want = outputs_of(problem, Emulator(right), SCHEDULES[0])[1]
    assert all(np.isfinite(a).mean() >= 0.5 for a in want.values())
    emulator = Emulator(replace(right, text=right.text.replace(old, new)))
    ways = SCHEDULES[0], SCHEDULES[2], Schedule("random", "reversed", resident=3, preempt=100, weak=True, seed=7)
    assert any(_differs(problem, emulator, way, want) for way in ways), name


def test_bytes_that_a_step_moves_in_chunks() -> None:
    """Of s6 with N = 16, in float32, a step and channel: what serial moves (see test_axis), and 10 more for the walk that adds
    up, which a cache has. Messages of 16 bytes for each number and chunk of 128 steps: 2 told, and up to 8 times as many heard.
    """
    B, T, C, N = 1, 2 * GROUP * CHUNK, 32, 16
    for backward, want in ((False, 12 + 4 + 2 + 10), (True, 20 + 8 + 2 + 12 + 10)):
        program, source = chunked(s6(N), backward)
        _, counts = Problem(program, (B, T, C), False, False, "plain").run(Emulator(source), Schedule())
        moved = (counts.loaded("sequence") + counts.stored("keep", "shared")) / (B * T * C)
        assert want - 2 <= moved <= want, moved
        heard, told = (n / (B * T * C) for n in counts.messages)
        assert 1.8 <= told <= 2 and heard <= 10, (told, heard)
        assert counts.loaded("vector", "edge") / (B * T * C) <= 2.6 and counts.atomics == T // CHUNK, "a ticket a block"
        assert counts.stored("sum", "final", "crossing") / (B * T * C) <= 1.2


def test_the_size_chooses() -> None:
    [forward] = plan_of(s6(16).spec).programs
    sizes = {(1, 4096, 768): "chunked", (16, 4096, 1536): "serial", (1, 128, 8): "serial", (1, 129, 8): "chunked"}
    assert {size: chosen(forward, "cuda", "float32", *size) for size in sizes} == sizes
    extent = source_of(forward, "cuda", "float32", strategy="chunked").extent(3, 300, 40)
    assert (extent.grid, extent.parts, extent.shared, extent.scratch) == (3 * 2 * 3, 3, 2, 16 + 3 * 2 * 3 * 32 * 16 * 16)


def test_what_does_not_fit_is_serial() -> None:
    """With the reason in the text; nothing is refused."""
    @lr.cell
    def far(x: lr.Input, h: lr.State = lr.State(size=3)):
        h[t] = h[t - 1] / 2 - h[t - 3] / 8 + x[t]
        return lr.sum(h[t])

    @lr.cell
    def back(x: lr.Input, h: lr.State = lr.State(size=3)):
        h[t] = h[t - 1] / 2 + x[t]
        return lr.sum(h[t] * h[t - 3])

    @lr.cell
    def tower(x: lr.Input, a: lr.State, b: lr.State, c: lr.State, d: lr.State, e: lr.State = lr.State(size=3)):
        a[t] = a[t - 1] / 2 + x[t]
        b[t] = tanh(a[t]) * b[t - 1] + x[t]
        c[t] = tanh(b[t]) * c[t - 1] + x[t]
        d[t] = tanh(c[t]) * d[t - 1] + x[t]
        e[t] = tanh(d[t]) * e[t - 1] + x[t]
        return lr.sum(e[t])

    for cell, said in ((far, "the state of h has 3 numbers, and chunks over an axis hold 2"),
                       (back, "it reads what it computes, h, 3 steps back"),
                       (tower, "more than 4 of its recurrences wait for each other"),
                       (mixed(64), "what the warps of a chunk share does not fit the memory of a block")):
        [kernel] = schedules(plan_of(cell.spec).programs[0], "cuda", "float32")
        assert kernel.strategy == "serial" and kernel.reason.endswith(f"at every size, because {said}")


@lr.cell
def grows(x: lr.Input, a: lr.Input, *, h: lr.State = lr.State(size=3), u: lr.Input = lr.Input(axis=3)):
    """Nothing bounds a."""
    h[t] = a[t] * h[t - 1] + x[t] * u[t]
    return lr.sum(h[t] * u[t])


def grown(T: int) -> tuple[torch.Tensor, ...]:
    """x, a, u, and weights of a loss: coefficients whose products overflow where neither a state nor a gradient does, in
    float32. Channel 0: 3 while the state is 0; 1: 4 in every other chunk; 2: nowhere; 3: the state grows to 1e30 and shrinks
    again."""
    rng = torch.Generator().manual_seed(0)
    x, u = torch.rand(1, T, 4, generator=rng) - 0.5, torch.rand(1, T, 3, generator=rng)
    a = torch.full((1, T, 4), 0.9)
    at = torch.arange(T)
    a[0, :3 * CHUNK, 0], a[0, 3 * CHUNK, 0], x[0, :3 * CHUNK + 3, 0] = 3.0, 0.0, 0.0
    wild, last = at // CHUNK % 2 == 0, at % CHUNK == CHUNK - 1
    a[0, wild, 1], a[0, last, 1], x[0, :, 1], x[0, wild & last, 1] = 4.0, 0.0, 0.0, 1.0
    a[0, :, 3] = torch.where(wild, 1.7, 1 / 1.7)
    a[0, last & ~wild, 3] = 0.0
    return x, a, u, torch.linspace(-1, 1, T).unsqueeze(1) * (a[0] < 2)


@pytest.mark.parametrize("reset", [False, True])
def test_products_overflow_where_states_do_not(reset: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such chunks are walked in order, number by number, and their state is told: the values of a loop, and all gradients."""
    monkeypatch.setenv("LRDSL_BACKEND", "emulated")
    T = (GROUP + 3) * CHUNK + 7
    *given, weight = (v.requires_grad_() for v in grown(T))
    cut = (torch.arange(T) % 300 == 299).unsqueeze(0) if reset else None
    y = lr.function(grows)(*given, reset=cut)
    x, a, u = wide = [v.detach().double().requires_grad_() for v in given]
    h, ys = torch.zeros(1, 4, 3, dtype=torch.float64), []
    for at in range(T):
        if cut is not None and cut[0, at]:
            h = torch.zeros_like(h)
        h = a[:, at].unsqueeze(2) * h + x[:, at].unsqueeze(2) * u[:, at].unsqueeze(1)
        ys.append((h * u[:, at].unsqueeze(1)).sum(2))
    want = torch.stack(ys, 1)
    got, truth = torch.autograd.grad((y * weight).sum(), given), torch.autograd.grad((want * weight.double()).sum(), wide)
    for n, (one, other) in enumerate(((y, want), *zip(got, truth, strict=True))):
        scale = other.detach().abs().amax(1, keepdim=True) if n < 3 else other.detach().abs().max()
        assert torch.isfinite(one).all() and ((one - other).abs() <= 1e-4 * (1 + scale)).all(), n


def test_chunks_in_order_give_the_same_bits() -> None:
    """Whoever is first; and without what they tell, or with half of it, nobody gets further, or gets it right."""
    program, source = chunked(grows, False)
    problem, found = Problem(program, (1, (GROUP + 3) * CHUNK + 7, 4), False, False, "plain"), set()
    for name, value in zip(("x", "a", "u"), grown(problem.sizes[1]), strict=False):
        old = problem.inputs[name]
        assert old is not None
        old[...] = value.numpy().reshape(old.shape)
    emulator = Emulator(source)
    for way in SCHEDULES:
        outputs = outputs_of(problem, emulator, way)[1]
        assert all(np.isfinite(a).all() for a in outputs.values())
        found.add(b"".join(np.ascontiguousarray(a).tobytes() for a in outputs.values()))
    assert len(found) == 1
    for old, new in (("LOOSE && s.overflows(h) ?", "false ?"), ("x]) board.put_state", "x] && false) board.put_state"),
                     ("const bool slow = LOOSE && whole[r].overflows(h);", "const bool slow = false;")):
        assert old in source.text
        assert any(_differs(problem, Emulator(replace(source, text=source.text.replace(old, new))), way, outputs)
                   for way in (SCHEDULES[1], SCHEDULES[3], SCHEDULES[5])), old


def _differs(problem: Problem, emulator: Emulator, way: Schedule, want: dict[str, Any]) -> bool:
    """Whether a launch fails or gives other numbers."""
    try:
        got = outputs_of(problem, emulator, way)[1]
    except EmulationError:
        return True
    return any(not np.allclose(a, want[n], 1e-5, 1e-5, equal_nan=True) for n, a in got.items())
