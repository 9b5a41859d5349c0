"""The command line: look at cells, at what is generated for them, and at this machine."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from . import __version__, options
from .compiler import TARGETS, compile
from .errors import BadDeclaration, CellError, LrdslError, NotBuilt, UnknownName
from .frontend.cell import Cell
from .ir.dtypes import DTYPES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it went well, 1 for a mistake or a kernel that is wrong, 2 for a command that does not exist."""
    said = _parser().parse_args(arguments)
    options.configure_logs()
    try:
        result = said.run(said)
        print(result)
        return int(not getattr(result, "right", True))
    except LrdslError as error:
        print(f"lrdsl: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    table = "\n".join(f"  {v.name:<17}{v.meaning} (else: {v.default})" for v in options.ENVIRONMENT)
    parser = argparse.ArgumentParser("lrdsl", description="linear recurrences, from equations to CUDA and C++",
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog=f"CELL is a cell of the zoo, or file.py:name\n\nenvironment\n{table}")
    parser.add_argument("--version", action="version", version=f"lrdsl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    command("list", _list, "the cells of the zoo")
    explain = command("explain", _explain, "what is found in a cell")
    source = command("source", _source, "the generated text of a cell")
    command("doctor", _doctor, "what this machine has, what is missing, what that costs, and how to get it")
    check = command("check", _check, "run a cell's CUDA text on the emulator, under every schedule, against the definition")
    check.add_argument("cell", metavar="CELL")
    for name, later in (("bench", "time a cell"), ("report", "write a cell's report")):
        command(name, _later, f"{later} (reserved, not built yet)").add_argument("cell", metavar="CELL", nargs="?")
    for with_cell in (explain, source):
        with_cell.add_argument("cell", metavar="CELL")
        with_cell.add_argument("--dtype", choices=DTYPES, default="float32")
    source.add_argument("--target", choices=TARGETS, default="cuda")
    source.add_argument("--arch", default="sm_90", help="the GPU that the text is for (default sm_90)")
    source.add_argument("--stage", choices=("forward", "backward"), help="one pass only")
    return parser


def _list(_: argparse.Namespace) -> str:
    found = zoo()
    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {(cell.spec.doc or '').splitlines()[0] if cell.spec.doc else ''}".rstrip()
                     for name, cell in found.items())


def _explain(said: argparse.Namespace) -> str:
    return str(find(said.cell).explain(said.dtype))  # type: ignore[attr-defined]


def _source(said: argparse.Namespace) -> str:
    return compile(find(said.cell), said.target, said.arch, said.dtype).source(said.stage).rstrip("\n")


def _check(said: argparse.Namespace) -> object:
    from .check import check
    return check(find(said.cell))


def _doctor(_: argparse.Namespace) -> str:
    from . import doctor
    return doctor.render(doctor.report())


def _later(_: argparse.Namespace) -> str:
    raise NotBuilt("this command is reserved, not built yet", None, "lrdsl --help lists what there is")


def zoo() -> dict[str, Cell]:
    """Every cell of `lrdsl.cells` by name; for a function that makes cells, the one that it makes unless told otherwise."""
    from . import cells
    values = {name: getattr(cells, name) for name in sorted(cells.__all__)}
    made = {name: value if isinstance(value, Cell) else value() for name, value in values.items() if not _asks(value)}
    return {name: value for name, value in made.items() if isinstance(value, Cell)}


def _asks(value: Any) -> bool:
    """Whether a function of the zoo has arguments that must be given."""
    return not isinstance(value, Cell) and any(p.default is p.empty for p in inspect.signature(value).parameters.values())


def find(name: str) -> Cell:
    """A cell of the zoo, or `file.py:name`. Raises UnknownName, with what is there."""
    path, colon, attribute = name.rpartition(":")
    if not colon and Path(name).suffix == ".py":
        path, attribute = name, ""
    known = _cells_of(_load(path)) if path else zoo()
    if attribute in known:
        return known[attribute]
    place = path or "the zoo"
    if not attribute and len(known) == 1:
        return next(iter(known.values()))
    near = get_close_matches(attribute, known, 1)
    raise UnknownName(f"{place} has no cell {attribute!r}" if attribute else f"{place} holds several cells", None,
                      f"did you mean {near[0]}?" if near else f"its cells are {', '.join(known) or '(none)'}")


def _cells_of(module: ModuleType) -> dict[str, Cell]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Cell)}


def _load(path: str) -> ModuleType:
    file = Path(path)
    if not file.is_file():
        raise BadDeclaration(f"there is no file {path}", None, "write file.py:name")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except LrdslError:
        raise
    except Exception as error:  # a mistake of Python's, in the user's file
        raise BadDeclaration(f"{path} cannot be imported: {type(error).__name__}: {error}", None,
                             f"python {path} shows where") from error
    finally:
        sys.path.pop(0)
    return module


__all__ = ["CellError", "find", "main", "zoo"]
