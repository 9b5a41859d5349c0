"""Kernels over an axis against the definition: the CUDA text under every schedule, the C++ at every size; bytes moved."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

import lrdsl as lr
from lrdsl.backends.emulated import SCHEDULES, Emulator, Schedule
from lrdsl.backends.problem import Problem
from lrdsl.check import check
from lrdsl.ir.program import Program
from lrdsl.kernels import source_of
from lrdsl.nn.dtypes import compute, dtype_of
from lrdsl.nn.launch import Launcher
from lrdsl.passes.replay import SEGMENT
from lrdsl.programs import backward_of, plan_of
from tests.axis_cells import gaps, meets, meets_loop, mixed, returns, s6, turn
from tests.codegen.test_axis import programs
from tests.complex_axis_cells import s4d, wave

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.mark.parametrize("strategy", ["serial", "chunked"])
def test_the_cuda_text_is_right_under_every_schedule(strategy: Any) -> None:
    """Forward and backward, on both sides of a chunk's end."""
    for program in programs(s6(3))[:2]:
        emulator = Emulator(source_of(program, "cuda", "float64", strategy=strategy))
        for size, reset in (((2, 35, 33), True), ((1, 129, 5), False)):
            problem = Problem(program, size, reset, True, "gaps")
            assert all(problem.run(emulator, way)[0] <= 1e-12 for way in SCHEDULES), (program.name, size)


@pytest.mark.long
@pytest.mark.parametrize("cell", [s6(1), s6(3), s6(16), s6(40), mixed(3), returns(3), turn(2), s4d(3), wave(2)],
                         ids=lambda c: f"{c.name}{c.spec.axis}")
def test_every_cuda_text_is_right_under_every_schedule(cell: lr.Cell) -> None:
    checked = check(cell)
    assert checked.right, str(checked)


def test_a_wrong_sum_over_channels_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the emulator must see: lanes without a channel that leave something, and a lane that is left out."""
    backward = programs(s6(3))[1]
    right = source_of(backward, "cuda", "float64")
    problem = Problem(backward, (2, 3, 30), True, True, "plain")
    assert problem.run(Emulator(right), Schedule())[0] <= 1e-12
    for old, new in (("there ? d_B : splat(0)", "d_B"), ("far < 32", "far < 16"), ("half > 0", "half > 1")):
        assert old in right.text
        error, _ = problem.run(Emulator(replace(right, text=right.text.replace(old, new))), Schedule())
        assert error > 1e-3, old


def tensors(program: Program, B: int, T: int, C: int, time_first: bool, dtype: torch.dtype) -> list[torch.Tensor | None]:
    """Inputs of a size, edges and boundaries among them. All are numbers of `dtype`, edges too, which are float32 where it has
    16 bits."""
    generator = torch.Generator().manual_seed(T + C)
    found: list[torch.Tensor | None] = []
    launcher = Launcher(program)
    for s in launcher.ins[:-1]:
        shape = () if s.name in launcher.lone else s.shape(B, T, C)
        value = torch.rand(shape, generator=generator, dtype=torch.float64).mul(1.0).sub(0.5)
        value = value.to(compute(dtype) if s.full else dtype).to(dtype_of(s, dtype))
        if time_first and s.kind == "sequence":
            value = value.transpose(0, 1).contiguous().transpose(0, 1)
        found.append(None if s.kind == "edge" and C % 2 else value)
    return [*found, torch.rand((B, T), generator=generator) < 0.1 if T % 2 else None]


SIZES = [(2, 1, 1), (1, 31, 5), (2, 32, 63), (1, 33, 64), (3, 65, 65), (1, 70, 130)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", [s6(1), s6(16), mixed(3), returns(5), turn(2), gaps(2)],
                         ids=lambda c: f"{c.name}{c.spec.axis}")
def test_cpu_kernels_agree_with_the_definition(cell: lr.Cell, dtype: Any, monkeypatch: pytest.MonkeyPatch,
                                               always_threads: None) -> None:
    allowed = 1e-12 if dtype == torch.float64 else 2e-5
    for program, (k, (B, T, C)) in itertools.product(programs(cell), enumerate(SIZES)):
        given = tensors(program, B, T, C, k % 2 == 1, dtype)
        monkeypatch.setenv("LRDSL_BACKEND", "native")
        got = Launcher(program).run(*given)
        monkeypatch.setenv("LRDSL_BACKEND", "reference")
        want = Launcher(program).run(*(v.double() if v is not None and v.is_floating_point() else v for v in given))
        for name, a, b in zip(program.outputs, got, want, strict=True):
            error = float((a - b).abs().max() / (1 + b.abs().max()))
            assert error <= allowed, f"{program.name}, {name} at {(B, T, C)}: {error:.1e}"


UNITS = {torch.bfloat16: 2**-8, torch.float16: 2**-11}  # half of one in the last place


@pytest.mark.parametrize(("cell", "dtype", "kinds"), [
    (mixed(3), torch.bfloat16, slice(2)), (returns(5), torch.float16, slice(1, 2)),
    *(pytest.param(c, dtype, slice(4), marks=pytest.mark.long) for c in (s6(5), mixed(3), returns(5), turn(2), s4d(3))
      for dtype in UNITS)])
def test_kernels_of_16_bits_agree_with_the_definition(cell: lr.Cell, dtype: Any, kinds: slice,
                                                      monkeypatch: pytest.MonkeyPatch, always_threads: None) -> None:
    """Each output is off by what float32 may, and by half a unit where it is stored in 16 bits: states and borders are not.
    Odd numbers of channels have constant edges."""
    for k, program in enumerate(programs(cell)[kinds]):
        launcher = Launcher(program)
        for j, (B, T, C) in enumerate([(2, 33, 64), (1, 70, 5), (3, 2, 70)]):
            given = tensors(program, B, T, C, (j + k) % 2 == 1, dtype)
            monkeypatch.setenv("LRDSL_BACKEND", "reference")
            want = Launcher(program).run(*(v.double() if v is not None and v.is_floating_point() else v for v in given))
            for backend in ("native", "emulated") if j == 1 else ("native",):
                monkeypatch.setenv("LRDSL_BACKEND", backend)
                for slot, a, b in zip(launcher.outs, launcher.run(*given), want, strict=True):
                    assert a.dtype == dtype_of(slot, dtype)
                    bound = 2e-5 * (1 + float(b.abs().max()))
                    bound = bound + UNITS[dtype] * (b.abs() + bound) if a.dtype == dtype else bound
                    assert ((a - b).abs() <= bound).all(), f"{program.name}, {slot.name} at {(B, T, C)}, {backend}"


@pytest.mark.parametrize("N", [40, 64])
def test_more_numbers_than_lanes(N: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several slices of a warp's sums, the last of which may be short; smaller blocks where shared memory runs out."""
    for program in programs(s6(N))[:2]:
        given = tensors(program, 2, 35, 33, False, torch.float64)
        outs = []
        for backend in ("emulated", "native", "reference"):
            monkeypatch.setenv("LRDSL_BACKEND", backend)
            outs.append(Launcher(program).run(*given))
        for got in outs[:2]:
            assert all(float((a - b).abs().max() / (1 + b.abs().max())) <= 1e-12 for a, b in zip(got, outs[2], strict=True))


def test_bytes_that_a_step_moves() -> None:
    """Of s6 with N = 16, in float32, a step and channel. What the channels share is read and written once a warp of 32.

    Forward: two numbers read, one written (12), B and C once a warp (4), a border every 32 steps (2). Backward: three read, two
    written (20), B and C read, and their gradients written, once a warp (8), the border read (2); and what the segment is
    computed again from: step, x, and B and C once more (12, from a cache: the same warp read them, or is about to).
    States: 16 numbers a step and channel would be 64.
    """
    [forward] = plan_of(s6(16).spec).programs
    B, T, C, N = 1, 8 * SEGMENT, 64, 16
    for program, want in ((forward, 12 + 4 + 2), (backward_of(forward), 20 + 8 + 2 + 12)):
        problem = Problem(program, (B, T, C), False, False, "plain")
        _, counts = problem.run(Emulator(source_of(program, "cuda", "float32")), Schedule())
        moved = (counts.loaded("sequence") + counts.stored("keep", "shared")) / (B * T * C)
        assert want - 2 <= moved <= want, moved
        others = counts.loaded() + counts.stored() - counts.loaded("sequence") - counts.stored("keep", "shared")
        assert others <= 6 * N * 4 * C * B + 4096, "learned numbers, edges and sums: once a channel"
        assert counts.atomics == 0


def test_borders_are_what_the_register_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the steps 0, 32, 64 …, before a boundary there, in either direction of the run."""
    for cell, name in ((s6(2), "h"), (returns(2), "g")):
        [program] = plan_of(cell.spec).programs
        borders = next(k for k in program.keeps if k.every)
        assert borders.samples == (name,) and borders.every == SEGMENT and borders.inner
        T = 2 * SEGMENT + 1
        given = tensors(program, 1, T, 4, False, torch.float64)
        reset = torch.zeros(1, T, dtype=torch.bool)
        at = T - SEGMENT if program.reverse else SEGMENT
        reset[0, at] = True  # between the segments
        monkeypatch.setenv("LRDSL_BACKEND", "native")
        launcher = Launcher(program)
        out = dict(zip(program.outputs, launcher.run(*given[:-1], reset), strict=True))
        short = [v if s.kind != "sequence" or v is None else v[:, -SEGMENT:] if program.reverse else v[:, :SEGMENT]
                 for s, v in zip(launcher.ins[:-1], given, strict=False)]
        half = dict(zip(program.outputs, launcher.run(*short, None), strict=True))
        start = next(v for s, v in zip(launcher.ins, given, strict=True) if s.name == f"{name}.start")
        assert start is not None and torch.equal(out[borders.name][:, 0], start[:, 0])
        assert torch.equal(out[borders.name][:, 1], half[f"{name}.final"][:, 0])
        assert out[borders.name].shape == (1, 3, 8) and torch.isfinite(out[borders.name]).all()


@pytest.mark.parametrize("backend", ["native", "reference", "emulated"])
def test_states_that_run_both_ways(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values and all gradients of a layer against a loop, with boundaries."""
    monkeypatch.setenv("LRDSL_BACKEND", backend)
    torch.manual_seed(0)
    layer = lr.RNN(meets(3), 6, 6, dtype=torch.float64, batch_first=True)
    p = {n.removeprefix("layers.0."): v for n, v in layer.named_parameters()}
    x, reset = torch.randn(2, SEGMENT + 8, 6, dtype=torch.float64, requires_grad=True), torch.rand(2, SEGMENT + 8) < 0.1
    weight, inputs = torch.randn(2, SEGMENT + 8, 6, dtype=torch.float64), (x, *p.values())
    got, want = layer(x, reset=reset)[0], meets_loop(x, p, reset)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(y, inputs, weight) for y in (got, want)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
