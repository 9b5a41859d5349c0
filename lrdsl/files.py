"""Where the package's own files lie, and those that it leaves for a reader."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from pathlib import Path

from .errors import InternalError


def templates() -> Path:
    """`lrdsl/templates` in a wheel, `templates` beside the package in a checkout or an editable install."""
    package = Path(__file__).resolve().parent
    for place in (package / "templates", package.parent / "templates"):
        if (place / "cpu").is_dir():
            return place
    raise InternalError("templates", f"neither {package / 'templates'} nor {package.parent / 'templates'} holds them")


@functools.cache
def fingerprint() -> str:
    """A hash of the package's own sources and templates: the version of the code, whatever `__version__` says."""
    package, digest = Path(__file__).resolve().parent, hashlib.sha256()
    for top, suffix in ((str(package), ".py"), (str(templates()), "")):
        for folder, folders, names in os.walk(top):
            folders[:] = sorted(f for f in folders if f != "__pycache__")
            for name in sorted(n for n in names if n.endswith(suffix)):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    data = file.read()
                digest.update(f"{path[len(top):]} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def kept(text: str, name: str, suffix: str) -> str:
    """The path of a temporary file with a refused text. It stays, for whoever reads the compiler's error."""
    fd, path = tempfile.mkstemp(prefix=f"lrdsl-{name}-", suffix=suffix)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    return path
