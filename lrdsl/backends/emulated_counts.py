"""What a launch on the emulator moved, and how often it did what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """Bytes that a launch moved between one tensor and its threads. kind: as in `ir.source.Slot`, or "scratch".

    message_loaded, message_stored: by the relaxed accesses with which blocks talk, not in the others.
    """

    name: str
    kind: str
    loaded: int
    stored: int
    message_loaded: int
    message_stored: int


@dataclass(frozen=True)
class Sectors:
    """What one line of the text asked of global memory: requests, one a warp; 32-byte sectors that they touched; bytes."""

    requests: int
    sectors: int
    bytes: int

    @property
    def efficiency(self) -> float:
        """The share of the sectors' bytes that was asked for."""
        return self.bytes / (32 * self.sectors)


@dataclass(frozen=True)
class Counts:
    """What a launch did. traffic: by tensor, in the order of slots; lines: by line of the text, where asked for.

    switches: from thread to thread. polls: loads that may wait for another thread. barriers: of blocks; collectives: of warps.
    """

    traffic: tuple[Traffic, ...]
    atomics: int
    barriers: int
    collectives: int
    polls: int
    switches: int
    lines: Mapping[int, Sectors]

    def loaded(self, *which: str) -> int:
        """Bytes loaded from tensors of these names or kinds, from all where none is given; without messages."""
        return sum(t.loaded for t in self.traffic if not which or t.name in which or t.kind in which)

    def stored(self, *which: str) -> int:
        """As `loaded`, of bytes stored."""
        return sum(t.stored for t in self.traffic if not which or t.name in which or t.kind in which)

    @property
    def messages(self) -> tuple[int, int]:
        """Bytes of messages loaded and stored."""
        return sum(t.message_loaded for t in self.traffic), sum(t.message_stored for t in self.traffic)
