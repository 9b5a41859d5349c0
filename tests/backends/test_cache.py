"""The kernel cache: private, atomic, self-healing, and never a way in for somebody else's code."""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lrdsl as lr
from lrdsl.backends import cache, native
from lrdsl.errors import BackendUnavailable
from lrdsl.ir.source import Source
from tests.backends.harness import programs

ROOT = Path(__file__).parents[2]
SOMEBODY = 12345  # another user
fork = multiprocessing.get_context("fork")

pytestmark = pytest.mark.usefixtures("compiler")


def probe(text: str = 'extern "C" int answer() { return 42; }') -> Source:
    [program] = programs(lr.cells.linear_scan, ["forward"])
    return Source("cpu", "answer", text, program, "float32")


def answer() -> int:
    """What the kernel `probe` says, loaded through the cache."""
    return int(native._library(probe()).answer())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache will be; nothing is there yet."""
    for name in ("LRDSL_CACHE_DIR", "XDG_CACHE_HOME", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home" / ".cache" / "lrdsl"


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory that a process falls back to, made for this test."""
    found = tmp_path / "private"
    found.mkdir(mode=0o700)
    monkeypatch.setattr(cache, "private_directory", lambda: found)
    return found


@pytest.fixture(scope="module")
def poison() -> Iterator[bytes]:
    """A shared object that says 13 and leaves a mark, as soon as it is loaded."""
    with tempfile.TemporaryDirectory() as work:
        text = 'extern "C" int answer() { return 13; } extern "C" int creat(const char *, unsigned);\n' \
               f'static int mark = creat("{work}/ran", 0600);'
        source = probe(text)
        data = native.compiled(native._command(), source.text, source.entry)
        ctypes.CDLL(str(cache.put(Path(work), "x.so", data)))
        assert Path(work, "ran").exists()  # it can
        Path(work, "ran").unlink()
        yield data + hashlib.sha256(data).digest()
        assert not Path(work, "ran").exists()  # and never did again


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make somebody else the owner of a file or directory (of all of ours, where we are not root)."""
    if os.getuid() == 0:
        os.chown(path, SOMEBODY, SOMEBODY)
    else:
        monkeypatch.setattr(os, "getuid", lambda: SOMEBODY)


# ---- what others planted never runs ---------------------------------------------------------------------------------


def entry(place: Path) -> Path:
    """Where the kernel `probe` would lie."""
    command = native._command()
    return place / (cache.key([probe().text, *command, cache.identity(command[0]), native.machine()]) + ".so")


def plant(folder: Path, data: bytes) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    entry(folder).write_bytes(data)
    entry(folder).chmod(0o500)


def plant_foreign_directory(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(place, data)
    give_away(place, monkeypatch)


def plant_link(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(place.parent / "elsewhere", data)
    place.symlink_to(place.parent / "elsewhere")


def plant_dangling_link(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    place.parent.mkdir()
    place.symlink_to(place.parent / "nowhere")


def plant_open_directory(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(place, data)
    place.chmod(0o777)


def plant_group_directory(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(place, data)
    place.chmod(0o770)
    monkeypatch.setattr(cache.grp, "getgrgid", lambda g: SimpleNamespace(gr_name="staff", gr_mem=["eve"]))


def plant_open_ancestor(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(place, data)
    place.parent.chmod(0o777)


def plant_open_ancestor_of_a_link(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(place.parents[1] / "safe" / "lrdsl", data)
    (place.parents[1] / "open").mkdir()
    (place.parents[1] / "open" / "link").symlink_to(place.parents[1] / "safe")
    (place.parents[1] / "open").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.parents[1] / "open" / "link"))


DIRECTORIES = [plant_foreign_directory, plant_link, plant_dangling_link, plant_open_directory, plant_group_directory,
               plant_open_ancestor, plant_open_ancestor_of_a_link]


@pytest.mark.parametrize("how", DIRECTORIES, ids=lambda f: f.__name__[6:])
def test_a_directory_that_others_may_write_to_is_not_used(
        how: Callable[..., None], place: Path, private: Path, poison: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    how(place, poison, monkeypatch)
    assert cache.directory() == private
    assert answer() == 42


def plant_foreign_file(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(place, data)
    if os.getuid():
        pytest.skip("only root can give a single file away")
    os.chown(entry(place), SOMEBODY, SOMEBODY)


def plant_writable_file(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(place, data)
    entry(place).chmod(0o770)


def plant_linked_file(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(place, data)
    entry(place).rename(place / "real")
    entry(place).symlink_to(place / "real")


def plant_read_only_file(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As somebody does who does not know of the digest."""
    plant(place, data[:-32])
    entry(place).chmod(0o444)


def plant_pipe(place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir(parents=True, mode=0o700)
    os.mkfifo(entry(place))


@pytest.mark.parametrize("how", [plant_foreign_file, plant_writable_file, plant_linked_file, plant_read_only_file, plant_pipe],
                         ids=lambda f: f.__name__[6:])
def test_a_planted_file_is_replaced(how: Callable[..., None], place: Path, poison: bytes,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    how(place, poison, monkeypatch)
    assert cache.directory() == place and cache.find(place, entry(place).name) is None
    assert answer() == 42
    found = entry(place).lstat()
    assert stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o500 and found.st_uid == os.getuid()


def test_a_directory_in_the_place_of_an_entry_is_left_alone(place: Path, private: Path) -> None:
    entry(place).mkdir(parents=True, mode=0o700)
    place.chmod(0o700)
    assert answer() == 42 and entry(private).exists() and entry(place).is_dir()


def test_doctor_and_cache_agree_on_what_is_wrong(place: Path, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lrdsl import doctor
    for how in (plant_open_directory, plant_open_ancestor):
        how(place, b"", monkeypatch)
        assert cache.directory() == private and not doctor._cache().ok
        place.chmod(0o700)
        place.parent.chmod(0o700)
        assert cache.directory() == place and doctor._cache().ok
    shutil.rmtree(place)
    place.parent.chmod(0o777)
    assert not doctor._cache().ok and cache.directory() == private


def test_a_group_of_the_users_own_is_nobody_else(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that give each user a group of his name, and a umask that lets it write."""
    me = cache.pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(cache.grp, "getgrgid", lambda g: SimpleNamespace(gr_name=me, gr_mem=[me]))
    place.parent.mkdir()
    place.parent.chmod(0o775)
    assert cache.directory() == place
    monkeypatch.setattr(cache.grp, "getgrgid", lambda g: SimpleNamespace(gr_name=me, gr_mem=[me, "eve"]))
    assert cache.directory() != place


# ---- damage is healed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", [
    lambda data: data[:len(data) // 2], lambda data: data[:-1], lambda data: b"", lambda data: data[-32:],
    lambda data: data[:31], lambda data: data[:500] + bytes([data[500] ^ 4]) + data[501:],
    lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    lambda data: data + b"\0", lambda data: bytes(len(data))],
    ids=["torn", "truncated", "empty", "digest", "less", "flipped", "flipped digest", "longer", "zeros"])
def test_a_damaged_entry_is_compiled_again(spoil: Callable[[bytes], bytes], place: Path) -> None:
    assert answer() == 42
    whole = entry(place).read_bytes()
    entry(place).unlink()  # it is loaded: a new file, not the same one changed
    plant(place, spoil(whole))
    assert answer() == 42 and hashlib.sha256(entry(place).read_bytes()[:-32]).digest() == entry(place).read_bytes()[-32:]


def test_an_entry_of_another_machine_is_compiled_again(place: Path, private: Path) -> None:
    """Whole, but nothing that this system can load, as when a home is shared; or one that is mounted noexec."""
    place.mkdir(parents=True, mode=0o700)
    cache.put(place, entry(place).name, b"\x7fELF of an ARM")
    assert answer() == 42 and entry(private).exists()


def test_two_machines_share_a_cache(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whose CPUs differ in one instruction set: either finds what was compiled for it, and nothing else."""
    compiled, build, machine = [], native.Build, native.machine
    monkeypatch.setattr(native, "Build", lambda *said: compiled.append(said) or build(*said))
    place.mkdir(parents=True, mode=0o700)
    found = []
    for flags in ("avx2", "avx2 avx512f", "avx2", "avx2 avx512f"):
        cpuinfo = tmp_path / f"{flags}.txt"
        cpuinfo.write_text(f"processor\t: 0\nmodel name\t: one CPU\nflags\t\t: {flags}\n")
        monkeypatch.setattr(native, "machine", functools.partial(machine, cpuinfo))
        found.append(native.build(probe(), place))
    assert found[0] == found[2] != found[1] == found[3] and len(compiled) == 2


def test_the_length_of_sve_is_told_to_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native, "_lengths", lambda: ("-msve-vector-bits=256",))
    assert "-msve-vector-bits=256" in native._command()
    monkeypatch.setenv("CXX", "g++ -march=armv8-a")
    assert "-msve-vector-bits=256" not in native._command()


def test_without_a_place_for_code_the_error_says_so(place: Path, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise OSError("failed to map segment from shared object")

    monkeypatch.setattr(native.ctypes, "CDLL", refuse)
    with pytest.raises(BackendUnavailable, match=r"failed to map segment(?s:.*)noexec in LRDSL_CACHE_DIR or TMPDIR"):
        answer()


# ---- places that cannot be written ----------------------------------------------------------------------------------


def test_a_home_that_cannot_be_written(place: Path, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/1/nobody")  # where even root cannot make a directory
    assert answer() == 42 and cache.directory() == private


def test_a_read_only_cache_is_not_used(place: Path, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer() == 42
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert cache.directory() == private


def test_without_a_home(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert answer() == 42 and entry(tmp_path / f"lrdsl-{os.getuid()}").exists()


def full(monkeypatch: pytest.MonkeyPatch, *places: Path) -> None:
    """Writing to a place fails as on a full disk."""
    sync = os.fsync

    def refuse(fd: int) -> None:
        if any(Path(os.readlink(f"/proc/self/fd/{fd}")).is_relative_to(place) for place in places):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(fd)

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_full_disk(place: Path, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch, place)
    assert answer() == 42 and entry(private).exists() and not list(place.iterdir())
    entry(private).unlink()
    full(monkeypatch, place, private)
    with pytest.raises(BackendUnavailable, match="No space left"):
        answer()


def test_umask_0_opens_nothing(place: Path) -> None:
    before = os.umask(0)
    try:
        assert answer() == 42
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (place.parent, place, entry(place))}
    assert list(modes.values()) == [0o700, 0o700, 0o500]


# ---- many at once ---------------------------------------------------------------------------------------------------


def _race(start: Any, results: Any) -> None:
    start.wait()
    try:
        results.put(answer())
    except BaseException as error:
        results.put(repr(error))


def test_sixteen_processes_race_for_a_cold_entry(place: Path) -> None:
    start, results = fork.Event(), fork.SimpleQueue()
    racers = [fork.Process(target=_race, args=(start, results)) for _ in range(16)]
    for racer in racers:
        racer.start()
    start.set()
    assert [results.get() for _ in racers] == [42] * 16
    for racer in racers:
        racer.join()
    assert [p.name for p in place.iterdir()] == [entry(place).name]


def _write(place: Path) -> None:
    while True:
        cache.put(place, "k.so", os.urandom(200_000))


def test_kill_9_in_the_middle_leaves_a_whole_entry_or_none(place: Path) -> None:
    place.mkdir(parents=True, mode=0o700)
    for n in range(20):
        writer = fork.Process(target=_write, args=(place,))
        writer.start()
        time.sleep(0.01 + 0.003 * n)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        assert cache.find(place, "k.so") or not (place / "k.so").exists()
    assert cache.put(place, "k.so", b"code") == cache.find(place, "k.so")


def test_only_the_oldest_of_our_own_are_dropped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LARGEST", 10)
    place.mkdir(parents=True, mode=0o700)
    strange = ["libc.so", "thesis.tex", ".profile", "a" * 39 + ".so"]
    for name in strange:
        (place / name).write_text("mine")
    names = [cache.key([str(n)]) + ".so" for n in range(11)]
    for n, name in enumerate(names):
        if n == 10:
            cache.find(place, names[0])  # in use again
        cache.put(place, name, b"code")
        os.utime(place / name, (n, n)) if n < 10 else None
    left = {p.name for p in place.iterdir()}
    assert left == {*strange, *(set(names) - {names[1], names[2]})} and names[0] in left


def test_a_process_that_forked_keeps_its_own_directory(place: Path) -> None:
    """A child that ends in the ordinary way removes only what is its own."""
    code = f"""
import os, pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
from lrdsl.backends import cache
mine = cache.private_directory()
if not os.fork():
    assert cache.private_directory() != mine
    print(cache.private_directory(), flush=True)
    sys.exit()
os.wait()
assert mine.is_dir()
print(mine)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    theirs, mine = map(Path, done.stdout.split())
    assert not theirs.exists() and not mine.exists()


# ---- the key --------------------------------------------------------------------------------------------------------


def test_the_key_changes_with_every_ingredient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: list[str]) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cache, "find", lambda place, name: asked.append(name) or place / name)
    monkeypatch.delenv("CXX", raising=False)
    native.build(probe())
    native.build(probe())
    assert asked[0] == asked[1] and len(asked[0]) == 43
    native.build(probe('extern "C" int answer() { return 43; }'))
    for n, flag in enumerate(native.FLAGS):
        with monkeypatch.context() as m:
            m.setattr(native, "FLAGS", native.FLAGS[:n] + native.FLAGS[n + 1:])
            native.build(probe())
            m.setattr(native, "FLAGS", (*native.FLAGS[:n], flag + "x", *native.FLAGS[n + 1:]))
            native.build(probe())
    mine = tmp_path / "g++"
    mine.write_text("#!/bin/sh\nexec g++ \"$@\"\n")
    mine.chmod(0o700)
    for said in (str(mine), f"{mine} -march=x86-64", f"{mine} -O1"):
        monkeypatch.setenv("CXX", said)
        native.build(probe())
    os.utime(mine, (1, 1))  # a new version of it
    native.build(probe())
    with monkeypatch.context() as m:
        m.setattr(native, "machine", lambda: "a processor with other instructions")
        native.build(probe())
    with monkeypatch.context() as m:
        m.setattr(cache, "SCHEMA", cache.SCHEMA + 1)
        native.build(probe())
    assert len(set(asked)) == len(asked) - 1


def test_parts_of_a_key_do_not_run_together() -> None:
    assert len({cache.key(parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"])}) == 5
