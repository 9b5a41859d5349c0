"""Generated CUDA kernels on the emulator: the numbers of the reference under every schedule, and no byte more than needed."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import lrdsl as lr
from lrdsl.backends.emulated import SCHEDULES, Counts, Emulator, load
from lrdsl.cells import linear_scan
from lrdsl.ir.program import Program
from lrdsl.ir.source import Launch, slots
from lrdsl.kernels import source_of
from lrdsl.passes.schedule import strategies
from lrdsl.programs import plan_of

from ..cells_for_tests import CELLS
from .harness import LAYOUTS, Problem, programs

MAP_NORESERVE = 0x4000

pytestmark = pytest.mark.usefixtures("compiler")

KERNELS = [("gilr", "backward"), ("strata", "forward"), ("against", "second"), ("rotation", "tangent"),
           ("lookahead", "backward")]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "kind"), KERNELS)
def test_kernels_agree_with_the_reference(name: str, kind: str, dtype: str) -> None:
    """Rows with gaps, time before batch, rows that lie on each other; odd sizes; boundaries and edges, some given."""
    allowed = 1e-5 if dtype == "float32" else 1e-14
    for program in programs(CELLS[name], [kind]):
        problems = [Problem(program, T, reset=reset, same=same, B=2, C=33)
                    for T, reset, same in ((1, "every", ""), (33, "none", "batch"), (70, "some", ""), (130, "some", "time"))]
        for strategy in strategies(program, "cuda"):
            source = source_of(program, "cuda", dtype, strategy=strategy)
            for k, (schedule, problem) in enumerate(itertools.product(SCHEDULES, problems)):
                B, C = ((2, 33), (1, 32), (2, 1))[k % 3]
                got = problem.solve(load(source, schedule), B, C, LAYOUTS[k // 2 % 3], dtype)
                assert problem.error(got) < allowed, (program.name, strategy, schedule, problem.T, B, C)


def counted(program: Program, strategy: Any, T: int, dtype: str = "float32") -> Counts:
    """What a kernel moves for 2 batch elements of 32 channels without boundaries, its edges constant."""
    source, found = source_of(program, "cuda", dtype, strategy=strategy), list[Counts]()
    emulator = Emulator(source)

    def run(values: Sequence[int], threads: int, device: int, stream: int, scratch: int) -> None:
        found.append(emulator.run(values, scratch=scratch))

    Problem(program, T, reset="none", edges="constant", B=2, C=32).solve(Launch(run, source.extent), 2, 32, dtype=dtype)
    return found[0]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_sample_is_read_once_and_written_once(dtype: str) -> None:
    """The ring of loads in flight reads nothing twice and nothing beyond the end. In the last chunk, whose number of loads is
    that of any other, the last step stands in for those that are missing."""
    program, size = plan_of(linear_scan.spec).programs[0], 8 if dtype == "float64" else 4
    for strategy, T in itertools.product(strategies(program, "cuda"), (1, 5, 16, 33, 200)):
        counts, a_step = counted(program, strategy, T, dtype), 2 * 32 * size
        chunk = source_of(program, "cuda", dtype, strategy=strategy).chunk or 1
        assert counts.loaded("sequence") == 2 * a_step * chunk * -(-T // chunk) and counts.stored("keep") == T * a_step
        assert counts.loaded("edge", "vector", "reset") == counts.loaded("keep") == 0
        assert counts.loaded("scratch") == counts.stored("scratch") == 0
        assert counts.stored("final") == a_step


def test_rows_that_lie_far_apart() -> None:
    """Offsets are numbers of 64 bits: the rows of both tensors lie 8 GB from each other."""
    program, far = plan_of(linear_scan.spec).programs[0], (1 << 31) + 64
    try:
        room = mmap.mmap(-1, 4 * (3 * far), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    except OSError as error:
        pytest.skip(f"no room for rows that far apart: {error}")
    memory = np.frombuffer(room, np.float32)
    a, b, h = (np.ndarray((1, 3, 8), np.float32, memory, 4 * k * 16, (0, 4 * far, 4)) for k in range(3))
    a[...], b[...], start = 0.5, np.arange(24).reshape(1, 3, 8), np.zeros((1, 1, 8), np.float32)
    values = [v for x in (a, b) for v in (x.ctypes.data, 0, far)]
    kept = {"sequence": values, "edge": [0, 0, 0], "keep": [h.ctypes.data, 0, far], "final": [start.ctypes.data]}
    for strategy in strategies(program, "cuda"):
        rest = [v for s in slots(program)[2:-1] for v in kept[s.kind]]
        Emulator(source_of(program, "cuda", "float32", strategy=strategy)).run([*values, *rest, 0, 0, 0, 1, 3, 8])
        np.testing.assert_array_equal(h[0, 2], 0.25 * b[0, 0] + 0.5 * b[0, 1] + b[0, 2])
        h[...] = 0


def test_messages_are_few() -> None:
    """Each chunk but the last tells one word a channel, and so does the last of a group; nobody else writes any."""
    program = plan_of(linear_scan.spec).programs[0]
    source = source_of(program, "cuda", "float32", strategy="chunked")
    counts = counted(program, "chunked", 5 * source.chunk)
    assert counts.messages[1] == 4 * 64 * 16 and counts.messages[0] >= counts.messages[1]
    assert counts.atomics == source.extent(2, 5 * source.chunk, 32).grid


def test_the_whole_way_from_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """LRDSL_BACKEND=emulated, forward and backward."""
    a, b, h = (torch.rand(2, 150, 5), torch.randn(2, 150, 5), torch.randn(2, 5))
    found = []
    for backend in ("native", "emulated"):
        monkeypatch.setenv("LRDSL_BACKEND", backend)
        tensors = [x.clone().requires_grad_() for x in (a, b, h)]
        y = lr.linear_scan(*tensors)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), tensors)])
    for native, emulated in zip(*found, strict=True):
        np.testing.assert_allclose(emulated, native, rtol=1e-4, atol=1e-4)
