"""Every example runs, from another directory, as a user would start it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import lrdsl as lr

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SHORT = ("define_cell", "generate_kernels", "inspect_source")


def run(name: str, directory: Path, *arguments: str) -> str:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, str(EXAMPLES / f"{name}.py"), *arguments], cwd=directory, text=True, check=False,
                          stdin=subprocess.DEVNULL, capture_output=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_cell_is_defined(tmp_path: Path) -> None:
    said = run("define_cell", tmp_path)
    assert "gru alone is refused" in said and "gradients agree with the loop" in said


def test_kernels_are_generated(tmp_path: Path) -> None:
    said = run("generate_kernels", tmp_path, "kernels")
    names = {p.name for p in (tmp_path / "kernels").iterdir()}
    assert {f"gilr_lstm_{s}.{e}" for s in ("forward", "backward") for e in ("cu", "cpp")} <= names
    assert "spec -> real -> strata -> plan -> forward -> backward -> kernels -> source" in said and "0-spec.txt" in said
    assert (tmp_path / "kernels" / "gilr_lstm_forward.cu").read_text() == lr.cells.gilr_lstm.source("cuda", "forward")


def test_sources_are_inspected(tmp_path: Path) -> None:
    said = run("inspect_source", tmp_path)
    assert "A = a\n" in said and "const V v = a_*v_prev + x*(1.0f - a_);" in said
    assert "NotLinear: v[t] is not linear in v[t-1]" in said and "CellErrors: 3 mistakes" in said


def test_the_demo_shows_every_part(tmp_path: Path) -> None:
    for needed in ("matplotlib", "sklearn", "tqdm"):
        if find_spec(needed) is None:
            pytest.skip(f"the demo needs {needed}")
    said = run("demo", tmp_path, "--quick")
    assert said.index("gilr_lstm = surrogate(lstm, h=gilr)") < said.index("Found: 2 linear recurrences")
    assert "held-out accuracy after the last epoch" in said and "kernels and loop agree" in said
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"gilr_lstm.cu", "gilr_lstm.cpp", "demo.png"}
    assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_surrogates_are_trained(tmp_path: Path) -> None:
    for needed in ("sklearn", "tqdm"):
        if find_spec(needed) is None:
            pytest.skip(f"the example needs {needed}")
    said = run("surrogates", tmp_path, "--quick")
    assert "(surrogate: the dense maps reset, update, candidate read h.h[t-1], of gilr, instead of h[t-1])" in said
    rows = json.loads((tmp_path / "out" / "surrogates.json").read_text())
    assert len(rows) == 6 and all(len(row["accuracy"]) == 2 and row["accuracy"][-1] > 0.15 for row in rows)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_examples_use_public_names_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("lrdsl")]
    used = {a.name for n in imported for a in n.names} | {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "lr"}
    assert all(n.module == "lrdsl" for n in imported) and used <= set(lr.__all__)
    if path.stem in SHORT:
        assert len(path.read_text().splitlines()) < 80
