"""The pool of memory blocks: what it gives, takes back, keeps and lets go, on any thread and in a forked child."""

from __future__ import annotations

import ctypes
import gc
import mmap
import multiprocessing
import os
import random
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lrdsl.backends import blocks
from lrdsl.backends.blocks import PAGE, Pool, limit, memory, size_class

MiB = 1 << 20
MOST = 1 << 40
LINUX = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says so in /proc")


def resident() -> int:
    """The bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def touch(held: Any) -> None:
    """Write on every page."""
    memoryview(held).cast("B")[::mmap.PAGESIZE] = bytes(-(-len(held) // mmap.PAGESIZE))


def state(pool: Pool) -> tuple[int, int, int, int]:
    usage = pool.usage()
    return usage.used, usage.idle, usage.hits, usage.misses


def test_a_block_is_used_again_when_what_lay_in_it_is_dead() -> None:
    pool = Pool(MOST)
    first = pool.buffer(5 * MiB - 9)
    view = memoryview(first).cast("B")[1000:2000]
    size = size_class(5 * MiB)
    assert len(first) == size == 5 * MiB and state(pool) == (size, 0, 0, 1)
    first[:3] = b"abc"
    del first
    assert state(pool) == (size, 0, 0, 1), "a view keeps it"
    del view
    assert state(pool) == (0, size, 0, 1)
    again, other = pool.buffer(5 * MiB), pool.buffer(5 * MiB)
    assert again[:3] == b"abc" and other[:3] == bytes(3)
    assert state(pool) == (2 * size, 0, 1, 2)
    assert str(pool.usage()).startswith("10 MiB in use, 0 MiB idle of at most ")


def test_the_classes_waste_an_eighth_at_most() -> None:
    random.seed(0)
    drawn = [random.randrange(4 * MiB, 1 << random.randrange(23, 45)) for _ in range(500)]
    sizes = [4 * MiB, 4 * MiB + 1, PAGE * 3 - 1, *drawn]
    for size in sizes:
        found = size_class(size)
        assert size <= found <= size * 9 / 8 and found % mmap.PAGESIZE == 0 and size_class(found) == found
    assert len({size_class(n) for n in range(4 * MiB + 1, 8 * MiB + 1, 4096)}) == 8


def test_the_oldest_idle_blocks_go_first() -> None:
    pool, sizes = Pool(18 * MiB), [4 * MiB, 5 * MiB, 6 * MiB, 7 * MiB]
    held = {size: pool.buffer(size) for size in sizes}
    for size in (5 * MiB, 7 * MiB, 4 * MiB):
        del held[size]
    assert pool.idle == 16 * MiB
    del held[6 * MiB]  # 22 in all: the first, of 5, goes
    assert pool.idle == 17 * MiB and not pool._idle[5 * MiB] and all(pool._idle[n] for n in sizes if n != 5 * MiB)
    pool.trim(0)
    assert pool.idle == 0
    large = pool.buffer(32 * MiB)
    del large
    assert pool.idle == 0, "larger than all that may be idle"
    small = pool.buffer(MiB)
    del small
    pool.keep(MiB)
    assert pool.idle == MiB
    pool.keep(MiB - 1)
    assert pool.idle == 0, "a lower limit"


@LINUX
def test_what_is_let_go_is_the_system_s_again() -> None:
    pool = Pool(MOST)
    held = pool.buffer(64 * MiB)
    touch(held)
    before = resident()
    del held
    assert resident() > before - 8 * MiB
    pool.trim(0)
    assert resident() < before - 56 * MiB


@LINUX
def test_memory_does_not_grow_over_ten_thousand_outputs() -> None:
    random.seed(0)
    pool, largest, alive = Pool(MiB), 0, list[Any]()
    for k in range(10_000):
        held = pool.buffer(random.randrange(MiB // 16, MiB // 4))
        touch(held)
        alive = [*alive[-2:], held]
        if k == 1000:
            largest = resident()
        if k % 1000 == 0:
            assert pool.idle <= MiB and pool.usage().used <= MiB
    assert resident() < largest + 2 * MiB
    assert pool.usage().hits > 3000 and pool.usage().hits + pool.usage().misses == 10_000


def test_blocks_come_back_from_other_threads() -> None:
    """Each buffer is marked by its owner, handed over, and dies elsewhere; nobody ever sees another's mark in his own."""
    pool = Pool(8 * MiB)

    def work(mark: int) -> None:
        mine = list[Any]()
        for k in range(300):
            held = pool.buffer(MiB // 4 << k % 3)
            held[:2] = held[len(held) - 2:] = bytes([mark, k % 256])
            mine.append(held)
            if len(mine) > 3:
                old = mine.pop(0)
                assert old[:2] == old[-2:] and old[0] == bytes([mark])
                thread = threading.Thread(target=lambda held: None, args=(old,)) if k % 10 == 0 else None
                del old
                if thread:
                    thread.start()
                    thread.join()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    used, idle, hits, misses = state(pool)
    assert used == 0 and 0 < idle <= 8 * MiB and hits + misses <= 2400 and hits > 2000


def test_a_block_may_come_back_in_the_middle_of_anything() -> None:
    """In a signal handler, which takes blocks too, and in a collection of garbage: nothing waits for anything."""
    pool, caught = Pool(2 * MiB), [0]

    def handler(*_: object) -> None:
        caught[0] += 1
        held = pool.buffer(MiB)
        circle: list[Any] = [held]
        circle.append(circle)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
    try:
        for _ in range(5000):
            held = pool.buffer(MiB)
            held[0] = b"1"
            del held
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    gc.collect()
    used, idle, hits, misses = state(pool)
    assert caught[0] > 0 and used == 0 and idle <= 2 * MiB and hits + misses == 5000 + caught[0]


def test_a_forked_child_writes_on_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(MOST)
    monkeypatch.setattr(blocks, "POOL", pool)
    used, idle = pool.buffer(MiB), pool.buffer(MiB)
    used[:5] = idle[:5] = b"mine!"
    del idle
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def child() -> None:
        assert pool.idle == 0, "what is idle is not copied"
        fresh = pool.buffer(MiB)
        assert fresh[:5] == bytes(5) and used[:5] == b"mine!"
        fresh[:5] = used[:5] = b"child"
        there.send(pool.usage().misses)

    process = context.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0 and here.recv() == 3
    again = pool.buffer(MiB)
    assert used[:5] == again[:5] == b"mine!" and pool.usage().hits == 1


@LINUX
def test_the_system_is_asked_for_huge_pages() -> None:
    """For the whole ones: at the end of a block one would be larger than the block."""
    block = Pool().take(size_class(5 * MiB))
    begin = ctypes.c_char.from_buffer(block.memory, block.start)
    first = ctypes.addressof(begin)
    assert first % PAGE == 0
    wanted = {first: True, first + 4 * MiB - 1: True, first + 4 * MiB: False}
    found = dict[int, bool]()
    inside = list[int]()
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if told := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = [a for a in wanted if int(told[1], 16) <= a < int(told[2], 16)]
        elif line.startswith("VmFlags:"):
            found |= dict.fromkeys(inside, "hg" in line.split())
    assert found == wanted


def test_memory_that_is_not_there_is_an_error_after_all_that_is_idle_went() -> None:
    pool = Pool(MOST)
    held = pool.buffer(MiB)
    del held
    with pytest.raises((OSError, OverflowError, ValueError)):
        pool.buffer(1 << 62)
    assert pool.idle == 0


def test_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LRDSL_POOL", raising=False)
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory() <= physical and limit() == memory() // 8
    for said, meant in (("0", 0), ("123", 123), ("512M", 512 * MiB), ("2g", 2 << 30), ("3 KiB", 3072), ("1TB", 1 << 40)):
        monkeypatch.setenv("LRDSL_POOL", said)
        assert limit() == meant
    for said in ("-1", "many", "1.5G", "2GG"):
        monkeypatch.setenv("LRDSL_POOL", said)
        with pytest.raises(ValueError, match=f"LRDSL_POOL is '{said}', and means a number of bytes, as in 512M or 2G"):
            limit()
    groups = [tmp_path / "memory.max", tmp_path / "missing", tmp_path / "other"]
    groups[0].write_text("max\n")
    groups[2].write_text(f"{64 * MiB}\n")
    monkeypatch.setattr(blocks, "GROUPS", tuple(map(str, groups)))
    monkeypatch.setattr(blocks, "_memory", None)
    assert memory() == 64 * MiB
