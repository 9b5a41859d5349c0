"""A run of a C++ compiler, which others may run beside: started, and waited for where its product is needed."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import ToolchainError
from ..files import kept

_log = logging.getLogger("lrdsl.compile")


class Build:
    """A compiler at work on a text, which it reads where the command says "-"; it goes with the process that started it."""

    def __init__(self, command: Sequence[str], text: str, name: str) -> None:
        self.command, self.text, self.name, self.start = command, text, name, time.perf_counter()
        self.owner = os.getpid()
        self.work = tempfile.TemporaryDirectory(prefix="lrdsl-")
        self.product = Path(self.work.name, f"{name}.so")
        said = Path(self.work.name, "text")
        said.write_text(text, encoding="utf-8")
        try:
            with said.open(encoding="utf-8") as given, self._errors().open("wb") as errors:
                self.process = subprocess.Popen([*command, "-o", str(self.product)], stdin=given, stdout=errors, stderr=errors,
                                                cwd=self.work.name, env={**os.environ, "LC_ALL": "C"})
        except BaseException:
            self.work.cleanup()
            raise
        atexit.register(self._stop)

    def finish(self) -> bytes:
        """The shared object. Raises ToolchainError."""
        status = self.process.wait()
        atexit.unregister(self._stop)
        try:
            if status == 0 and self.product.exists():
                _log.info("compiled %s in %.2f s", self.name, time.perf_counter() - self.start)
                return self.product.read_bytes()
            errors = self._errors().read_text(encoding="utf-8", errors="replace")
        finally:
            self.work.cleanup()
        path = kept(self.text, self.name, ".cpp")
        said = [path if word == "-" else word for word in self.command]
        raise ToolchainError(said, errors or f"nothing, with exit status {status}", path)

    def _errors(self) -> Path:
        return Path(self.work.name, "errors")

    def _stop(self) -> None:
        if os.getpid() == self.owner:  # a forked child inherits this; the compiler is its parent's
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.wait()


def compiled(command: Sequence[str], text: str, name: str) -> bytes:
    """The shared object that a compiler makes of a text, which it reads where the command says "-". Raises ToolchainError."""
    return Build(command, text, name).finish()
