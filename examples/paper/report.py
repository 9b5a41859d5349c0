"""Fill docs/paper.md with what was measured: every table between `<!-- results: NAME -->` and `<!-- end -->`.

    python -m examples.paper.report                     (--check: write nothing, fail where the file is not up to date)

A table is made of results/NAME-*.json by the program NAME, so that its form can change without a new measurement; for programs
that have no `render`, it is what they wrote beside it as NAME-*.md. Without results it says which command to run.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from importlib import import_module
from pathlib import Path

from . import common

PAGE = common.HERE.parents[1] / "docs" / "paper.md"
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, results: Path) -> str:
    """A page with all its tables anew."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{tables(m[2], results)}\n\n{m[3]}", text)


def tables(name: str, results: Path) -> str:
    """All results of a program, the CPU's first, each with the hardware under it."""
    found = [show(name, path) for path in sorted(results.glob(f"{name}-*.json"))]
    return "\n\n".join(found) or f"*Not measured yet: `python -m examples.paper.{name}`.*"


def show(name: str, path: Path) -> str:
    """One result, with its picture where there is one."""
    render = getattr(import_module(f".{name}", __package__), "render", None)
    if render:
        record = json.loads(path.read_text(encoding="utf-8"))
        text = f"{render(record)}\n\n{common.where(record)}"
    else:
        text = path.with_suffix(".md").read_text(encoding="utf-8").strip()
    image = path.with_suffix(".png")
    return text + (f"\n\n![{path.stem}](../examples/paper/results/{image.name})" if image.exists() else "")


def main(arguments: list[str] | None = None) -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where the file is not up to date")
    said = parser.parse_args(arguments)
    old = PAGE.read_text(encoding="utf-8")
    new = filled(old, common.RESULTS)
    if not said.check:
        PAGE.write_text(new, encoding="utf-8")
    elif new != old:
        print("docs/paper.md is not up to date: python -m examples.paper.report", file=sys.stderr)
    return int(said.check and new != old)


if __name__ == "__main__":
    sys.exit(main())
