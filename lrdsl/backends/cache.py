"""Kernels, and what led to them, on disk: private to the user, atomic, keyed by everything that matters, and never pickled.

Promise: nobody but the owner of the account (or root) can get code into the cache, and a damaged entry is compiled again.
The digest at an entry's end detects damage; it does not authenticate. A directory that is not private is never used: the
kernel is then built in a temporary one for this process alone. The cache is no format to exchange.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import grp
import hashlib
import os
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .. import options

SCHEMA = 1
LARGEST = 4000  # entries; some 20 kB each
_DIGEST = hashlib.sha256().digest_size
_OURS = re.compile(r"[0-9a-f]{40}\.(so|cubin|json|code)|\.lrdsl-\w+")  # what may be removed: the directory may hold other files


def key(parts: Iterable[str]) -> str:
    """A name for the build that these texts determine."""
    digest = hashlib.sha256(f"lrdsl cache {SCHEMA}".encode())
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:40]


def directory() -> Path:
    """The cache if it is private, else a directory of this process."""
    place = options.cache_dir().absolute()
    try:
        for folder in (*reversed(place.parents), place):  # mkdir's `parents` would obey the umask, which may be 0
            if not os.path.lexists(folder):
                folder.mkdir(mode=0o700, exist_ok=True)
        return private_directory() if trouble(place) else place
    except OSError:
        return private_directory()


def trouble(place: Path) -> str:
    """What is wrong with a directory as a place for code, as a predicate of its name; "" where nothing is."""
    found = place.lstat()
    mode = f"(mode {stat.S_IMODE(found.st_mode):04o})"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory, but a link" if stat.S_ISLNK(found.st_mode) else "is not a directory"
    if found.st_uid != os.getuid():
        return f"belongs to user {found.st_uid}, not to you ({os.getuid()})"
    if _others_write(found):
        return f"can be written by others {mode}"
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return f"cannot be written {mode}"
    return exposed(place)


def exposed(place: Path) -> str:
    """As `trouble`, of the directories above: whoever may write to one may put another in the place of what it holds."""
    for parent in dict.fromkeys([*place.absolute().parents, *place.resolve().parents]):
        if parent.exists():
            found = parent.stat()
            if found.st_uid not in (0, os.getuid()) or (_others_write(found) and not found.st_mode & stat.S_ISVTX):
                return f"can be replaced by others, who may write to {parent}"
    return ""


def _others_write(found: os.stat_result) -> bool:
    """Whether a user other than root and this one may write. Many systems give each user a group of his own name, alone."""
    if found.st_mode & stat.S_IWOTH or not found.st_mode & stat.S_IWGRP:
        return bool(found.st_mode & stat.S_IWOTH)
    try:
        name, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(found.st_gid)
    except KeyError:
        return True
    return group.gr_name != name or bool({*group.gr_mem} - {name})


def private_directory() -> Path:
    """A directory that only this process uses; it goes with the process."""
    return _private(os.getpid())


@functools.cache
def _private(process: int) -> Path:
    place = tempfile.mkdtemp(prefix="lrdsl-")

    def remove() -> None:
        if os.getpid() == process:  # a forked child inherits this; the directory is its parent's
            shutil.rmtree(place, ignore_errors=True)

    atexit.register(remove)
    return Path(place)


def code(text: str) -> str:
    """A text as part of a key: a cell that moves to another line is still the same code, so without whole lines of comment."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("//"))


def identity(path: str) -> str:
    """A compiler as part of a key: its path and its file's state; asking for the version would take longer than a cache hit."""
    state = os.stat(path)
    return f"{os.path.realpath(path)} {state.st_size} {state.st_mtime_ns}"


def find(place: Path, name: str) -> Path | None:
    """The entry, if it is whole, ours and nobody else's to write. It is loaded by its path: `place` is private."""
    return None if read(place, name) is None else place / name


def read(place: Path, name: str) -> bytes | None:
    """What the entry holds, under the conditions of `find`."""
    try:
        fd = os.open(place / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
            return None
        try:
            data = file.read()
            os.utime(fd)  # the entries that are dropped are those not used for longest
        except OSError:
            return None
    if len(data) <= _DIGEST or hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        return None
    return data[:-_DIGEST]


def put(place: Path, name: str, data: bytes, sync: bool = True) -> Path:
    """Publish an entry atomically. sync: wait until it is on disk; one that is quickly made again may be lost in a crash, which
    its digest tells. Raises OSError where it cannot be written."""
    fd, temporary = tempfile.mkstemp(prefix=".lrdsl-", dir=place)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data + hashlib.sha256(data).digest())
            file.flush()
            if sync:
                os.fsync(fd)
            os.fchmod(fd, 0o500)
        os.replace(temporary, place / name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _shrink(place)
    return place / name


def _shrink(place: Path) -> None:
    """Drop the oldest entries above the limit; losing a race about it does no harm."""
    with contextlib.suppress(OSError):
        entries = [e for e in os.scandir(place) if _OURS.fullmatch(e.name)]
        if len(entries) > LARGEST:
            for entry in sorted(entries, key=lambda e: e.stat().st_mtime)[:len(entries) - LARGEST * 9 // 10]:
                os.unlink(entry.path)
