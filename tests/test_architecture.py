"""The rules of the house: imports go one way, each library has one door, what is public says what it does.

    errors, files, location, options  <-  ir  <-  frontend | passes | codegen | backends
    <-  cells, explain, stored  <-  programs, kernels  <-  compiler
    <-  nn, check  <-  cli
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lrdsl"
FILES = sorted(p for p in PACKAGE.rglob("*.py"))
EVERY = pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))

# A room, and the rooms that it may import; its own is always allowed, and `__version__` belongs to nobody.
FLOOR = {"errors", "files", "location", "options"}
MIDDLE = {"frontend", "passes", "codegen", "backends"}
MAY: dict[str, set[str]] = {
    "location": set(), "options": set(), "errors": {"location"}, "files": {"errors"}, "ir": FLOOR,
    **dict.fromkeys(MIDDLE, FLOOR | {"ir"}),
    "cells": FLOOR | {"ir", "frontend"},
    "explain": FLOOR | MIDDLE | {"ir"},
    "stored": FLOOR | MIDDLE | {"ir"},
    "programs": FLOOR | MIDDLE | {"ir", "stored"},
    "kernels": FLOOR | MIDDLE | {"ir", "stored"},
    "compiler": FLOOR | MIDDLE | {"ir", "cells", "explain", "programs"},
    "nn": FLOOR | MIDDLE | {"ir", "cells", "compiler", "kernels", "programs", "stored"},
}
MAY["check"] = MAY["compiler"] | {"compiler", "kernels"}
MAY["doctor"] = MAY["cli"] = MAY["__main__"] = {*MAY, "doctor", "cli"}
MAY["__init__"] = {*MAY}

# A library, and where it may be imported. doctor looks for what is installed, and imports inside its functions.
DOORS = {"jinja2": ("codegen",), "pycuda": ("backends/cuda", "doctor"), "cuda": ("backends/cuda", "doctor"),
         "torch": ("nn", "doctor")}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def imports(file: Path) -> Iterator[tuple[str, ast.stmt]]:
    """The absolute names of the modules that a file imports, with the statement."""
    here = ["lrdsl", *file.relative_to(PACKAGE).with_suffix("").parts][:-1]
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [] if not node.level else here[: len(here) - node.level + 1]
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{module}.{a.name}", node) for a in node.names) if not node.module else ((module, node),)


def room(file: Path) -> str:
    """The room that a file belongs to: its folder, or its own name."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


@EVERY
def test_imports_go_one_way(file: Path) -> None:
    for module, node in imports(file):
        parts = module.split(".")
        if parts[0] == "lrdsl" and parts[1:] and parts[1] not in (room(file), "__version__"):
            assert parts[1] in MAY[room(file)], f"{file.name}:{node.lineno} imports {module}"


@EVERY
def test_each_library_has_one_door(file: Path) -> None:
    place = str(file.relative_to(PACKAGE).with_suffix(""))
    for module, node in imports(file):
        doors = DOORS.get(module.split(".")[0])
        assert doors is None or any(place == d or place.startswith(f"{d}/") or place.startswith(f"{d}_") for d in doors), \
            f"{file.name}:{node.lineno} imports {module}"


def test_the_rules_find_something() -> None:
    """The scan sees relative, absolute and late imports."""
    seen = {m for file in FILES for m, _ in imports(file)}
    assert {"lrdsl.errors", "lrdsl.ir.program", "sympy", "jinja2", "torch"} <= seen
    assert {room(f) for f in FILES} <= set(MAY)


@EVERY
def test_nothing_that_is_read_can_run(file: Path) -> None:
    """No pickle, no eval; exec only for a cell's own text, which is the user's program; marshal only for parsed templates,
    which lie where compiled kernels do, and under the same promise."""
    for module, node in imports(file):
        if (module, room(file), file.name) != ("marshal", "codegen", "environment.py"):
            assert module.split(".")[0] not in ("pickle", "marshal", "shelve", "dill", "cloudpickle"), f"{file}:{node.lineno}"
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec", "__import__"):
            assert (node.func.id, room(file), file.name) == ("exec", "frontend", "rewrite.py"), f"{file}:{node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("torch", "load"), f"{file}:{node.lineno}"


def public(body: list[ast.stmt], inside: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions and classes of a module, and public methods of public classes that are more than an attribute."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(d).split("(")[0] for d in getattr(node, "decorator_list", [])}
        if not decorators & {"property", "functools.cached_property", "cached_property", "typing.overload", "overload"}:
            yield inside + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public(node.body, f"{node.name}.")


@EVERY
def test_what_is_public_has_a_docstring(file: Path) -> None:
    assert ast.get_docstring(tree(file)), "the file"
    silent = [f"{name} (line {node.lineno})" for name, node in public(tree(file).body)
              if not ast.get_docstring(node) and not _overrides(node)]
    assert not silent


def _overrides(node: ast.stmt) -> bool:
    """A visitor's method and its like, whose name is given from outside."""
    return isinstance(node, ast.FunctionDef) and node.name.startswith(("visit_", "emit", "forward", "backward", "setup_context",
                                                                      "jvp", "vmap", "extra_repr"))


def run_python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    clean = {k: v for k, v in os.environ.items() if k in ("HOME", "SYSTEMROOT", "LD_LIBRARY_PATH")}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent,
                          env={**clean, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_lrdsl_needs_neither_torch_nor_a_compiler_nor_a_gpu() -> None:
    code = """if True:
        import sys
        import lrdsl as lr
        cell = lr.cells.gilr
        assert cell.explain() and cell.source("cuda") and cell.source("cpu")
        print(sorted({m.split(".")[0] for m in sys.modules} & {"torch", "pycuda", "cuda"}))
        """
    assert run_python(code, PATH="", CUDA_VISIBLE_DEVICES="").strip() == "[]"


def test_every_public_name_is_there() -> None:
    import lrdsl as lr

    assert len(set(lr.__all__)) == len(lr.__all__) and set(lr.__all__) <= set(dir(lr))
    for name in lr.__all__:
        assert getattr(lr, name, None) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'lstm'"):
        lr.lstm  # noqa: B018
