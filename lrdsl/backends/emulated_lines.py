"""Machine code to lines of text, by addr2line, which comes with every compiler; without it a place has no line."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .emulated_build import NAME


@functools.lru_cache(256)
def lines_of(path: Path, offsets: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """For each return address in a shared object, the lines of the text it belongs to: the innermost call first."""
    tool = shutil.which("addr2line")
    if not tool or not offsets:
        return tuple(() for _ in offsets)
    calls = [hex(max(offset - 1, 0)) for offset in offsets]  # a return address is that of the next instruction
    done = subprocess.run([tool, "-a", "-i", "-e", str(path), *calls], capture_output=True, text=True, check=False)
    found: list[list[int]] = []
    for line in done.stdout.splitlines():
        if line.startswith("0x"):
            found.append([])
            continue
        file, _, number = line.rpartition(":")
        digits = number.split(" ")[0]
        if Path(file).name == NAME and digits.isdigit():
            found[-1].append(int(digits))
    return tuple(tuple(numbers) for numbers in found)


def first_of_kernel(text: str, entry: str) -> int:
    """The line where the kernel's own part of a text begins, after all that texts have in common."""
    lines = text.splitlines()
    return next((k for k, line in enumerate(lines, 1) if line.startswith(f"namespace {entry}_")), 1)


def chosen(numbers: Sequence[int], first: int) -> int:
    """The line that tells most: the innermost one of the kernel, else the innermost one; 0 where there is none."""
    return next((n for n in numbers if n >= first), numbers[0] if numbers else 0)
