"""One JSON-lines file for everything that the GPU drill finds; nothing but the standard library is needed to write it.

Every line is written at once and whole, so that a kill loses only what is being measured. Every record has all of FIELDS, null
where they do not apply; what is the kind's own stands under `facts`. On the device "emulated" nothing is a speed: `seconds` and
`share` are null there.

    python -m benchmarks.gpu_records OUT DEVICE PART OUTCOME SECONDS          the drill's own record of how a part ended
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIELDS = ("part", "kind", "device", "gpu", "commit", "tree", "version", "kernel", "way", "strategy", "dtype", "shape", "bytes",
          "seconds", "share", "error", "note", "facts")
NAME = "results.jsonl"


class Records:
    """Appends to OUT/results.jsonl. device: "cuda" or "emulated"; gpu: what the GPU calls itself."""

    def __init__(self, out: Path, part: str, device: str, gpu: str | None = None) -> None:
        self.path, self.device = Path(out, NAME), device
        self._common = {"part": part, "device": device, "gpu": gpu, **origin()}

    def write(self, kind: str, *, kernel: str | None = None, way: str | None = None, strategy: str | None = None,
              dtype: str | None = None, shape: Sequence[int] | None = None, size: int | None = None,
              seconds: dict[str, float] | None = None, share: float | None = None, error: float | None = None,
              note: str = "", facts: Mapping[str, Any] | None = None) -> None:
        """One record. shape: (B, T, C); size: bytes that have to be moved; seconds: {median, low, high, runs}; share: of the
        copy bandwidth; error: against a float64 reference, over the largest magnitude."""
        record = {**dict.fromkeys(FIELDS), **self._common, "kind": kind, "kernel": kernel, "way": way, "strategy": strategy,
                  "dtype": dtype, "shape": list(shape) if shape else None, "bytes": size, "error": error, "note": note,
                  "facts": dict(facts or {})}
        if self.device != "emulated":
            record |= {"seconds": seconds, "share": share}
        line = json.dumps({name: _finite(record[name]) for name in FIELDS}, allow_nan=False)
        with self.path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def _finite(value: Any) -> Any:
    """JSON has no nan and no infinity: they become their names."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read(out: Path) -> list[dict[str, Any]]:
    """All records of a directory."""
    path = Path(out, NAME)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@functools.cache
def origin() -> dict[str, str]:
    """What was measured: commit (with `+` where files differ from it; "none" outside a repository), a digest of the package
    and its templates, and lrdsl's version."""
    code = hashlib.sha256()
    for path in sorted([*ROOT.glob("lrdsl/**/*.py"), *(p for p in ROOT.glob("templates/**/*") if p.is_file())]):
        code.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    commit = _git("rev-parse", "--short=12", "HEAD") or "none"
    version = re.search(r'__version__ = "(.+)"', (ROOT / "lrdsl" / "__init__.py").read_text())
    return {"commit": commit + ("+" if commit != "none" and _git("status", "--porcelain", "--", "lrdsl", "templates") else ""),
            "tree": code.hexdigest()[:12], "version": version[1] if version else "unknown"}


def _git(*command: str) -> str:
    try:
        return subprocess.run(["git", "--no-optional-locks", "-C", str(ROOT), *command], capture_output=True, text=True,
                              check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


if __name__ == "__main__":
    out, device, part, outcome, seconds = sys.argv[1:]
    Records(Path(out), part, device).write("outcome", note=outcome, facts={"took": int(seconds)})
