"""The six environment variables, in one table. None of them changes generated text.

They are read when they are asked for, so setting one later in the process works.
"""

import functools
import logging
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PRODUCTS = ("linear", "blas", "onednn")  # torch.nn.functional.linear; torch's BLAS; oneDNN
LOGS = ("codegen", "compile", "launch")


@dataclass(frozen=True)
class EnvVar:
    """One environment variable: what it means, and what happens when it is unset or empty."""

    name: str
    meaning: str
    default: str


ENVIRONMENT: tuple[EnvVar, ...] = (
    EnvVar("LRDSL_DUMP", "a directory that every stage of a compilation is written to", "nothing is written"),
    EnvVar(
        "LRDSL_BACKEND",
        "the backend that runs the kernels: reference, native, cuda or emulated",
        "chosen by the device of the tensors",
    ),
    EnvVar("LRDSL_CACHE_DIR", "where compiled kernels are kept", "$XDG_CACHE_HOME/lrdsl, else ~/.cache/lrdsl"),
    EnvVar("LRDSL_POOL", "bytes (512M, 2G) of large outputs on the CPU that are kept for the next ones; 0 is no pool",
           "an eighth of the memory"),
    EnvVar("LRDSL_PRODUCTS", f"what multiplies large matrices on the CPU: {', '.join(PRODUCTS)}",
           "what is fastest, measured once"),
    EnvVar("LRDSL_LOGS", f"what to tell on stderr, separated by commas: {', '.join(LOGS)}", "warnings only"),
)

# What os.environ holds, where it can be had: to ask os.environ for what is not set takes ten times as long.
_SET = getattr(os.environ, "_data", os.environ)
_BACKEND, _POOL = (os.environ.encodekey(name) if _SET is not os.environ else name for name in ("LRDSL_BACKEND", "LRDSL_POOL"))


def dump_dir() -> Path | None:
    """Where the stages are dumped; None when they are not."""
    value = _get("LRDSL_DUMP")
    return _path(value) if value else None


def backend() -> str | None:
    """The backend that the user insists on; None when the choice is ours. Every call of a kernel asks."""
    return (_get("LRDSL_BACKEND").lower() or None) if _BACKEND in _SET else None


def cache_dir() -> Path:
    """Where compiled kernels are kept. It need not exist yet, and whoever uses it checks who owns it."""
    if value := _get("LRDSL_CACHE_DIR"):
        return _path(value)
    xdg = Path(_get("XDG_CACHE_HOME"))
    if xdg.is_absolute():  # the XDG specification says to ignore a relative path
        return xdg / "lrdsl"
    try:
        return Path.home() / ".cache" / "lrdsl"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"lrdsl-{os.getuid()}"


def pool() -> int | None:
    """The bytes that the pool of large outputs may keep idle; None when the user does not say. Raises ValueError. Every large
    output asks."""
    value = _get("LRDSL_POOL") if _POOL in _SET else ""
    return _bytes(value) if value else None


def products() -> str:
    """What multiplies large matrices on the CPU; "" when that is measured."""
    return _get("LRDSL_PRODUCTS").lower()


def logs() -> frozenset[str]:
    """The names in LRDSL_LOGS; each is the last part of a logger's name, as in ``lrdsl.compile``."""
    return frozenset(filter(None, (name.strip().lower() for name in _get("LRDSL_LOGS").split(","))))


def configure_logs() -> None:
    """Let the loggers named in LRDSL_LOGS speak, on stderr. To call it again is harmless."""
    names = logs()
    if not names:
        return
    root = logging.getLogger("lrdsl")
    if not any(isinstance(handler, _Stderr) for handler in root.handlers):
        root.addHandler(_Stderr())
    for name in sorted(names.intersection(LOGS)):
        root.getChild(name).setLevel(logging.DEBUG)
    if unknown := sorted(names.difference(LOGS)):
        root.warning("LRDSL_LOGS: no log is named %s; there are %s", ", ".join(unknown), ", ".join(LOGS))


class _Stderr(logging.Handler):
    """Writes to whatever ``sys.stderr`` is at the time, which tests and notebooks replace."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


@functools.cache
def _bytes(value: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", value, re.IGNORECASE)
    if not found:
        raise ValueError(f"LRDSL_POOL is {value!r}, and means a number of bytes, as in 512M or 2G; 0 switches the pool off")
    return int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ")


def _get(name: str) -> str:
    return os.environ.get(name, "").strip()


def _path(value: str) -> Path:
    return Path(os.path.expanduser(value))
