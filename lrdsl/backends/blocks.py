"""Memory for large outputs on the CPU: blocks of huge pages, used again when what lay in them has died.

The system gives a page when it is first touched, zeroed, by a trap: for the outputs of a kernel that costs several times the
kernel. A block that was used before has its pages.

Nothing here takes a lock. A tensor may die on any thread and at any moment, in a signal handler, in a collection of garbage in
the middle of this code, or while another thread forks; so all that is shared is a dict or a deque, and is changed by single
operations, which are atomic. A block belongs to who took it out.

A fork is harmless: the mappings are private, so that each process writes on its own copies of what both see. A child forgets
the blocks that are idle, because it costs more to copy a page that nobody reads than to get a fresh one.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import options

PAGE = 2 << 20  # bytes of a huge page
SHARE = 8  # of the memory of the machine, idle blocks may hold one part in so many
GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # what a container may use


class Block:
    """`size` bytes that begin at the border of a huge page. since: when it became idle, in the order of all that did."""

    __slots__ = ("bytes", "memory", "since", "size", "start")

    def __init__(self, size: int) -> None:
        self.size, self.since, self.bytes = size, 0, ctypes.c_char * size
        self.memory = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.start = -ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) % PAGE
        if whole := size // PAGE * PAGE:
            with suppress(AttributeError, OSError):  # a system without huge pages
                self.memory.madvise(mmap.MADV_HUGEPAGE, self.start, whole)


@dataclass(frozen=True)
class Usage:
    """What the pool holds in bytes, and how many blocks it gave: hits were there, misses were made.

    idle never exceeds limit for longer than it takes to give a block back.
    """

    used: int
    idle: int
    limit: int
    hits: int
    misses: int

    def __str__(self) -> str:
        used, idle, limit = (f"{n / 2**20:.0f} MiB" for n in (self.used, self.idle, self.limit))
        return f"{used} in use, {idle} idle of at most {limit}, {self.hits} hits, {self.misses} misses"


class Pool:
    """Blocks by their size, the last one that became idle first. most: the bytes that idle blocks may hold."""

    def __init__(self, most: int = 0) -> None:
        self._idle: dict[int, deque[Block]] = {}
        self._used: dict[int, tuple[Block, weakref.ref[object]]] = {}
        self._clock = itertools.count()
        self._hits = self._misses = 0
        self._most = most

    def keep(self, most: int) -> None:
        """Idle blocks may hold `most` bytes from now on."""
        if most != self._most:
            self._most = most
            self.trim(most)

    def buffer(self, size: int) -> ctypes.Array[ctypes.c_char]:
        """`size` bytes or some more, of any content; the block is given back when the last reference to them has gone.

        Raises OSError where the system has no memory left.
        """
        return self.of_class(size_class(size))

    def of_class(self, size: int) -> ctypes.Array[ctypes.c_char]:
        """The same, where `size` is a `size_class`."""
        block = self.take(size)
        held = block.bytes.from_buffer(block.memory, block.start)
        # Not weakref.finalize, which took 10 µs where it was in no cache.
        self._used[id(block)] = block, weakref.ref(held, functools.partial(self._back, block))
        return held

    def take(self, size: int) -> Block:
        """A block of exactly this size."""
        try:
            block = self._idle[size].pop()
            self._hits += 1
            return block
        except (KeyError, IndexError):
            self._misses += 1
        self._idle.setdefault(size, deque())
        try:
            return Block(size)
        except (OSError, OverflowError, ValueError):
            self.trim(0)
            return Block(size)

    def _back(self, block: Block, _: object, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        self._used.pop(id(block), None)
        if ending():  # all memory goes back on its own, and names of this module may be gone
            return
        block.since = next(self._clock)
        self._idle[block.size].append(block)
        self.trim(self._most)  # not what the environment says: who knows what is left of it when the interpreter ends

    def trim(self, most: int) -> None:
        """Give idle blocks back to the system, the oldest first, until they hold `most` bytes."""
        while self.idle > most:
            oldest: list[tuple[int, deque[Block]]] = []
            for blocks in tuple(self._idle.values()):
                with suppress(IndexError):
                    oldest.append((blocks[0].since, blocks))
            with suppress(IndexError, ValueError):  # another thread took it
                min(oldest)[1].popleft()

    @property
    def idle(self) -> int:
        """The bytes of all idle blocks."""
        return sum(size * len(blocks) for size, blocks in tuple(self._idle.items()))

    def usage(self) -> Usage:
        """The statistic."""
        return Usage(sum(block.size for block, _ in tuple(self._used.values())), self.idle, limit(), self._hits, self._misses)


def size_class(size: int) -> int:
    """The size of a block for `size` bytes: one of eight in each doubling, so that at most an eighth lies waste."""
    step = max(1 << max(0, (size - 1).bit_length() - 4), mmap.PAGESIZE)
    return -(-size // step) * step


def limit() -> int:
    """The bytes that idle blocks may hold: what LRDSL_POOL says, else a share of the machine's memory. 0: there is no pool."""
    said = options.pool()
    return memory() // SHARE if said is None else said


def memory() -> int:
    """The bytes of memory of this machine, or of the container in which we are."""
    global _memory
    if _memory is None:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
        for group in GROUPS:
            with suppress(OSError, ValueError):
                found.append(int(Path(group).read_text()))
        _memory = min(found)
    return _memory


_memory: int | None = None
POOL = Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: POOL.trim(0))
