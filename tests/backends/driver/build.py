"""Builds stand-ins for libcuda.so.1. A process that has loaded one gives it to whoever asks for that name later."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

FAKE = Path(__file__).with_name("fake.c")
NO_DEVICE = 100


def gcc() -> str | None:
    """The C compiler, where there is one."""
    return shutil.which("gcc")


def has(module: str) -> bool:
    """Whether a module is installed; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def build(text: str, directory: Path) -> Path:
    """C text as a libcuda.so.1."""
    product = directory / "libcuda.so.1"
    subprocess.run([gcc() or "gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1",
                    "-x", "c", "-", "-o", str(product)], input=text, text=True, check=True)
    return product


def fake(directory: Path) -> Path:
    """The recording driver."""
    return build(FAKE.read_text(), directory)


def stub(library: Path, directory: Path) -> Path:
    """A driver that has every function which `library` (PyCUDA's) names, and says of each that there is no device."""
    names = {name.decode() for name in re.findall(rb"\0(cu[A-Z]\w+)(?=\0)", library.read_bytes())}
    told = {"cuGetErrorName", "cuGetErrorString"}
    lines = [f"int {name}(void) {{ return {NO_DEVICE}; }}" for name in sorted(names - told)]
    lines += [f'int {name}(int e, const char **said) {{ *said = e == {NO_DEVICE} ? "no device" : "?"; return 0; }}'
              for name in sorted(told)]
    return build("\n".join(lines), directory)
