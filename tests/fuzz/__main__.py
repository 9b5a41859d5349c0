"""Random cells without end, `python -m tests.fuzz --cells 20000`, or `make fuzz`.

Cell number n is always the same cell. The next number stands in a file, so that the same command goes on where it was stopped.
Each fault is made smaller and written as a Python file that shows it again. Exit status: 1 where there are faults.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .battery import Finding, most_looks, search, trials
from .grammar import Choices, grow
from .kernels import Kernels
from .shrink import shrink
from .wrong import MISTAKES, fault, spoil

TOGETHER = 20  # cells of a process, which begins anew because torch forgets no op
PATIENCE = 1800.0  # seconds for them


@dataclass
class Progress:
    """What is kept in the file."""

    next: int = 0
    cells: int = 0
    no_cells: int = 0
    wrong: int = 0
    looks: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def cells(first: int, out: Path) -> dict[str, Any]:
    """Some cells and as many wrong ones: the numbers that `Progress` adds up."""
    torch.set_num_threads(1)
    numbers = range(first, first + TOGETHER)
    given = list(_counted(numbers))
    found = {"next": first + TOGETHER, "cells": len(given), "no_cells": TOGETHER - len(given), "wrong": 0,
             "looks": sum(len(looks) for _, looks in given), "faults": []}
    seen = set()
    for finding in search(given, Kernels()):
        seed = finding.trial.setting.seed
        if seed not in seen:
            seen.add(seed)
            found["faults"].append(_kept(finding, seed, out))
    for number in numbers:
        dice = Choices(number)
        name = dice.pick([*MISTAKES])
        wrong = spoil(grow(dice, f"wrong_{number}", small=True), name, dice)
        if wrong:
            found["wrong"] += 1
            if said := fault(wrong):
                path = out / f"wrong_{number}.txt"
                path.write_text(f"{name}\n{said}\n\n{wrong.source}")
                found["faults"].append(f"{path.name}: {name}: {said.splitlines()[0]}")
    return found


def _counted(numbers: range) -> Iterator[Any]:
    with Kernels().used():  # for the names of ops
        yield from trials(numbers, most_looks)


def _kept(finding: Finding, seed: int, out: Path) -> str:
    """The fault, smaller, as a file."""
    path = out / f"cell_{seed}.py"
    path.write_text(finding.program())
    with contextlib.suppress(Exception):  # it may take the compiler down with it; the whole one is kept
        smaller = shrink(seed, finding.look)
        path.write_text((smaller or finding).program())
    return f"{path.name}: {finding.look}: {finding.what.splitlines()[0]}"


def _in_a_process(first: int, out: Path) -> dict[str, Any]:
    """`cells` in a process of its own; one that dies or hangs is a fault as well."""
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=lambda: send.send(cells(first, out)))
    process.start()
    send.close()
    try:
        if receive.poll(PATIENCE):
            return receive.recv()
        said = f"no end after {PATIENCE:g} s"
    except EOFError:
        process.join()
        said = f"the process died with {process.exitcode}"
    finally:
        process.kill()
        process.join()
    return {"next": first + TOGETHER, "faults": [f"cells {first} to {first + TOGETHER - 1}: {said}"]}


def main(arguments: list[str] | None = None) -> int:
    """Run until enough is done; report and keep what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cells", type=int, default=20_000, help="stop when so many numbers are done (20000)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="or after so many minutes")
    parser.add_argument("--seed", type=int, help="first number of a new run (0, or what the file says)")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="where progress and faults are kept (out/fuzz)")
    said = parser.parse_args(arguments)
    said.out.mkdir(parents=True, exist_ok=True)
    file, start = said.out / "progress.json", time.monotonic()
    now = Progress(**json.loads(file.read_text())) if file.exists() and said.seed is None else Progress(said.seed or 0)
    first = now.next
    print(f"from cell {now.next}, {len(now.faults)} faults so far; progress in {file}", flush=True)
    while now.cells + now.no_cells < said.cells and time.monotonic() - start < 60 * said.minutes:
        before = time.monotonic()
        found = _in_a_process(now.next, said.out)
        for name, value in found.items():
            setattr(now, name, value if name == "next" else getattr(now, name) + value)
        now.seconds += time.monotonic() - before
        partial = file.with_suffix(".part")
        partial.write_text(json.dumps(asdict(now), indent=1))
        os.replace(partial, file)
        for text in found["faults"]:
            print(text, flush=True)
        print(f"cells {first} to {now.next - 1}: {now.cells} cells, {now.looks} looks, {now.wrong} wrong cells, "
              f"{len(now.faults)} faults, {now.seconds:.0f} s", flush=True)
    return 1 if now.faults else 0


if __name__ == "__main__":
    sys.exit(main())
