"""Same cell, same bytes: in fresh processes, whatever the hash seed, and a second time in the same process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lrdsl as lr
from tests.cells_for_tests import CELLS

ROOT = Path(__file__).parents[1]
PRINT = """if True:
    import sys
    import lrdsl as lr
    from lrdsl.errors import CellError
    from tests.cells_for_tests import CELLS
    from tests.nn.complex_cells import FUNCTIONS, MODULES
    for cell in (*CELLS.values(), *FUNCTIONS, *MODULES)[::int(sys.argv[1])]:
        for target in ("cpu", "cuda"):
            try:
                made = lr.compile(cell, target)
            except CellError as error:
                print(error)
            else:
                print(*made.stages.items(), *made.stages.values(), sep="\\n")
        print(cell.explain())
    """


def printed(seeds: str, share: int) -> dict[str, str]:
    """Everything that a fresh process makes of one test cell in `share`, for each seed."""
    running = {seed: subprocess.Popen([sys.executable, "-c", PRINT, str(share)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
                                      env={**os.environ, "PYTHONHASHSEED": seed}) for seed in seeds}
    texts = {seed: process.communicate()[0] for seed, process in running.items()}
    assert not any(process.returncode for process in running.values())
    return texts


@pytest.mark.parametrize(("seeds", "share"), [("01", 4), pytest.param("0123", 1, marks=pytest.mark.long)])
def test_fresh_processes_with_other_hash_seeds_make_the_same_bytes(seeds: str, share: int) -> None:
    texts = printed(seeds, share)
    first = texts["0"].splitlines()
    assert len(first) > 1000 and any("__global__" in line for line in first)
    for seed in seeds[1:]:
        differing = [(a, b) for a, b in zip(first, texts[seed].splitlines(), strict=False) if a != b]
        assert not differing and texts[seed] == texts["0"], (seed, differing[:3])


def test_a_second_time_makes_the_same_bytes() -> None:
    for name in ("gilr_lstm", "rotation", "compound"):
        one, two = (str(lr.compile(lr.Cell(CELLS[name].spec), "cuda").source()) for _ in range(2))
        assert one == two


def test_a_cell_that_moves_to_another_line_is_the_same_code(tmp_path: Path) -> None:
    from lrdsl import cli, kernels, programs
    from lrdsl.backends import native

    text = ("import lrdsl as lr\nfrom lrdsl import t\n{}@lr.cell\ndef leaky(x: lr.Input, h: lr.State, v: lr.Vector):\n"
            "    u = {} * x[t]\n    h[t] = v * h[t - 1] + lr.tanh(u)\n    return h[t]\n")
    (tmp_path / "here.py").write_text(text.format("", 0.1))
    (tmp_path / "there.py").write_text(text.format("\n\n", 0.1))
    (tmp_path / "other.py").write_text(text.format("", 0.10000000000000002))
    here, there, other = (programs.plan_of(cli.find(str(tmp_path / f"{n}.py")).spec).programs[0]
                          for n in ("here", "there", "other"))
    assert here.digest == there.digest != other.digest and str(here) != str(there)
    builds = [native.build(kernels.source_of(p, "cpu", "float64"), tmp_path) for p in (here, there, other)]
    assert builds[0] == builds[1] != builds[2]
