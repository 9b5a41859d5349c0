"""The paper's kernel, which ours are measured against: right, of the form that is said, and counted as it is."""

from __future__ import annotations

import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lrdsl as lr
from benchmarks.peers import loop
from lrdsl.backends import cuda_compile
from lrdsl.backends.emulated_counts import Counts

pytest.importorskip("tqdm")
kernels, three_launches = (import_module(f"examples.paper.{n}") for n in ("kernels", "three_launches"))
pytestmark = pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler")
SIZES = ((1, 1), (16, 4), (33, 5), (1000, 37), (2100, 64))


def numbers(T: int, C: int) -> tuple[Tensor, Tensor, Tensor]:
    """a, b, and h by a loop in float64. A step that is lost would show itself."""
    generator = torch.Generator().manual_seed(T)
    a, b = 1 - 8 / max(T, 16) * torch.rand(T, C, generator=generator), torch.randn(T, C, generator=generator)
    return a, b, loop(a[None].double(), b[None].double())[0]


def assert_close(got: Tensor, want: Tensor) -> None:
    assert (got.double() - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize(("T", "C"), SIZES)
def test_three_launches_give_what_a_loop_gives(T: int, C: int) -> None:
    """a and b are read twice, h is written once."""
    a, b, want = numbers(T, C)
    three = three_launches.ThreeLaunches(a, b)
    counts = three.emulate()
    assert_close(three.h, want)
    assert [moved(c, "a") for c in counts] == [moved(c, "b") for c in counts] == [4 * T * C, 0, 4 * T * C]
    assert sum(c.stored("h") for c in counts) == 4 * T * C


def moved(counts: Counts, name: str) -> int:
    return counts.loaded(name) + counts.stored(name)


@pytest.mark.parametrize(("T", "C"), SIZES)
@pytest.mark.parametrize(("each_thread", "threads"), [(0, 1), (1, 1), (4, 1), (8, 2)])
def test_three_phases_give_what_a_loop_gives(T: int, C: int, each_thread: int, threads: int) -> None:
    a, b, want = numbers(T, C)
    h = torch.full_like(a, float("nan"))
    three_launches.three_phases(a, b, h, each_thread, threads)()
    assert_close(h, want)


@pytest.mark.parametrize("T", [1, 31, 33, 960, 961, 65536])
def test_warps_share_out_all_steps(T: int) -> None:
    found = three_launches.slices(T)
    assert sum(found) == T and min(found) >= 0 and len(found) == 32 * three_launches.blocks(T) <= 960


def test_the_longest_path_of_the_papers_launches() -> None:
    """960 warps of 3 steps each; of more than 32 channels a lane takes one after another."""
    assert kernels.steps_of_three(2880, 32) == 3 + 32 + 30 + 32 + 3
    assert kernels.steps_of_three(2880, 33) == 6 + 32 + 30 + 32 + 6


def test_the_longest_path_of_chunks() -> None:
    """One chunk: its warps' steps, the sum over warps, a state handed on, the steps again. It grows with T, a message for each
    group of chunks, while there is room for all of them, and as their number over the places where there is not."""
    chunks = next(k.chunks for k in kernels.KERNELS if k.chunks)
    alone = 2 * chunks.steps + chunks.warps + 1
    assert kernels.steps_of_chunks(chunks, 1, 32) == kernels.steps_of_chunks(chunks, chunks.length, 32) == alone
    two = kernels.steps_of_chunks(chunks, 2 * chunks.length, 32)
    assert two == alone + 2  # the transition of the one before is taken up, and applied
    many = [kernels.steps_of_chunks(chunks, n * 29 * chunks.length, 32, multiprocessors=10**6) for n in (2, 3, 4)]
    assert many[1] - many[0] == many[2] - many[1] > 0
    assert kernels.steps_of_chunks(chunks, 64 * chunks.length, 32, multiprocessors=1) >= 64 // chunks.at_once * chunks.steps * 2


def test_messages_between_chunks_come_in_groups_of_29() -> None:
    """Which `steps_of_chunks` counts on: four transitions for each of seven warps, and the chunk itself."""
    text = lr.cells.linear_scan.source("cuda", "forward")
    assert "GROUP = EACH * (W - 1) + 1" in text and "EACH = Told::WORDS <= 2 ? 4" in text


@pytest.mark.long
def test_nvcc_compiles_the_three_launches(tmp_path: Path) -> None:
    """For a GPU; its driver finds them by their names."""
    if (found := cuda_compile.find_nvcc()) is None:
        pytest.skip("no nvcc")
    cubin = tmp_path / "three.cubin"
    subprocess.run([found[0], "-arch=sm_90", "-cubin", "-o", str(cubin), str(three_launches.HERE / "three_launches.cu")],
                   check=True, cwd=tmp_path)
    assert all(entry.encode() + b"\0" in cubin.read_bytes() for entry in three_launches.ENTRIES)
