"""One training run, which can be stopped at any time, kill -9 included, and goes on where it was.

A run is a directory: `checkpoint.pt`, replaced whole by renaming, and `log.jsonl`, a line each training step. Batches are drawn
from (seed, number), so that weights, Adam's state and a few counters are all that there is to keep.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .memory_model import Network
from .memory_task import TESTING, TRAINING, Batch, draw

ENOUGH = 5  # minibatches in a row that are all right: the paper's criterion
FRESH = 256  # sequences, none of them seen before, that must all be right as well: ours
UNITS = 64  # of each layer, where nothing else is said
CURRICULUM = 4  # each length is so many times the one before it
TESTED = 1 << 20  # samples in a batch of fresh sequences, about
KEEP_STEPS, KEEP_SECONDS = 10, 10.0  # what is lost at most, and the step under way


class Different(Exception):
    """The directory holds a run with other settings."""


@dataclass(frozen=True)
class Settings:
    """What a run depends on. start: the first length of the curriculum, `length` where there is none; rate: of Adam; longest:
    steps that memories last from the start, 0 for `length`; precision: see `memory_model.Network`."""

    cell: str
    length: int
    seed: int = 0
    start: int = 64
    hidden: int = UNITS
    batch: int = 8
    rate: float = 1e-2
    clip: float = 1.0
    first_only: bool = False
    device: str = "cpu"
    longest: int = 0
    precision: str = "float32"

    @property
    def lengths(self) -> list[int]:
        """Those that are trained in turn; the last is `length`."""
        found = [self.length]
        while found[0] > self.start:
            found.insert(0, max(self.start, found[0] // CURRICULUM))
        return found

    def network(self) -> Network:
        """A fresh one, its weights drawn."""
        return Network(self.cell, self.hidden, self.longest or self.length, self.precision).to(self.device)

    def draw(self, stream: int, number: int, T: int, B: int) -> Batch:
        """A batch, where the network is."""
        return Batch(*(tensor.to(self.device) for tensor in draw(self.seed, stream, number, T, B, self.first_only)))

    @property
    def name(self) -> str:
        """Of its directory."""
        kind = "-first-only" * self.first_only + f"-{self.device}" * (self.device != "cpu")
        kind += f"-{self.precision}" * (self.precision != "float32")
        kind += f"-{self.hidden}units" * (self.hidden != UNITS)
        return f"{self.cell}-{self.length}-from{self.start}{kind}-seed{self.seed}"


@dataclass
class Phase:
    """Training at one length. seconds: in all; training: without the tests. five: the step after which five minibatches in a
    row had been all right; fresh: the one after which 256 fresh sequences were, too; each with the seconds until then, None
    before. failed: times that they were not."""

    length: int
    steps: int = 0
    seconds: float = 0.0
    training: float = 0.0
    five: tuple[int, float] | None = None
    fresh: tuple[int, float] | None = None
    failed: int = 0


@dataclass
class Progress:
    """Where a run is. row: minibatches in a row that were all right; right: fresh sequences so far that were; tests: batches
    of fresh sequences drawn; log: its bytes; peak: bytes of memory that the process, or torch on a GPU, has held at most."""

    phases: list[Phase] = field(default_factory=list)
    steps: int = 0
    row: int = 0
    right: int = 0
    tests: int = 0
    log: int = 0
    peak: int = 0

    def done(self, settings: Settings) -> bool:
        """Whether the last length has been learned."""
        return self.phases[-1].length == settings.length and self.phases[-1].fresh is not None


class Run:
    """A run, begun or taken up. Raises Different where `directory` holds another one."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings, self.path, self.log = settings, directory / "checkpoint.pt", directory / "log.jsonl"
        torch.manual_seed(settings.seed)
        self.network = settings.network()
        self.optimizer = torch.optim.Adam(self.network.parameters(), settings.rate)
        self.progress = Progress([Phase(settings.lengths[0])])
        directory.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._load()
        self.log.touch()
        os.truncate(self.log, self.progress.log)  # what was logged after the checkpoint is done again
        self._kept = self.progress.steps, time.perf_counter()

    def begin_from(self, path: Path) -> None:
        """Start from the checkpoint of another run: its weights and Adam's state, in the precision of this one."""
        self._restore(read_checkpoint(path)[2])

    @property
    def done(self) -> bool:
        return self.progress.done(self.settings)

    def go(self) -> Iterator[str]:
        """Train until done; after each batch, what happened. Between batches, `keep` may be called."""
        while not self.done:
            phase, start = self.progress.phases[-1], time.perf_counter()
            testing = self.progress.row >= ENOUGH
            said = self._test(phase) if testing else self._train(phase)
            passed = time.perf_counter() - start
            phase.seconds += passed
            phase.training += 0.0 if testing else passed
            self._mark(phase)
            if self.progress.steps >= self._kept[0] + KEEP_STEPS or time.perf_counter() > self._kept[1] + KEEP_SECONDS:
                self.keep()
            yield said
        self.keep()

    def _train(self, phase: Phase) -> str:
        settings, progress = self.settings, self.progress
        batch = settings.draw(TRAINING, progress.steps, phase.length, settings.batch)
        self.optimizer.zero_grad()
        logits, loss = self.network.learn(batch)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip, error_if_nonfinite=True)
        self.optimizer.step()
        right = correct(logits, batch)
        progress.row = progress.row + 1 if right == settings.batch else 0
        progress.steps += 1
        phase.steps += 1
        self._write(T=phase.length, step=progress.steps, loss=loss.item(), right=right, norm=norm.item())
        return f"T {phase.length}, loss {loss.item():.3f}, {right} of {settings.batch} right, {progress.row} in a row"

    def _test(self, phase: Phase) -> str:
        """One batch of fresh sequences; one mistake, and five minibatches in a row must be all right again."""
        settings, progress = self.settings, self.progress
        count = min(FRESH - progress.right, max(settings.batch, TESTED // phase.length))
        batch = settings.draw(TESTING, progress.tests, phase.length, count)
        progress.tests += 1
        with torch.no_grad():
            right = correct(self.network(batch), batch)
        progress.right += right
        said = f"T {phase.length}, {progress.right} fresh sequences of {FRESH} right, {count - right} wrong"
        if right < count:
            progress.row = progress.right = 0
            phase.failed += 1
        return said

    def _mark(self, phase: Phase) -> None:
        """Note what has been reached; go on to the next length."""
        if self.progress.row >= ENOUGH and phase.five is None:
            phase.five = phase.steps, phase.seconds
        if self.progress.right == FRESH:
            phase.fresh = phase.steps, phase.seconds
            self.progress.row = self.progress.right = 0
            if not self.done:
                self.progress.phases.append(Phase(self.settings.lengths[len(self.progress.phases)]))

    def _write(self, **what: Any) -> None:
        with self.log.open("ab") as file:
            file.write(json.dumps(what).encode() + b"\n")
            self.progress.log = file.tell()

    def keep(self) -> None:
        """Replace the checkpoint: at every moment there is a whole one."""
        self.progress.peak = max(self.progress.peak, peak(self.settings.device))
        fresh = self.path.with_suffix(".new")
        with self.log.open("ab") as log, fresh.open("wb") as file:
            os.fsync(log.fileno())
            torch.save({"settings": asdict(self.settings), "progress": asdict(self.progress),
                        "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.path)
        self._kept = self.progress.steps, time.perf_counter()

    def _load(self) -> None:
        there, self.progress, kept = read_checkpoint(self.path)
        differ = [f"{n} {getattr(there, n)}, not {v}" for n, v in asdict(self.settings).items() if getattr(there, n) != v]
        if differ:
            raise Different(f"{self.path.parent} holds a run with {'; '.join(differ)}\n"
                            "  way out: the same settings again, another --runs, or --fresh, which deletes it")
        self._restore(kept)

    def _restore(self, kept: dict[str, Any]) -> None:
        self.network.load_state_dict(kept["network"])
        self.optimizer.load_state_dict(kept["optimizer"])


def read_checkpoint(path: Path) -> tuple[Settings, Progress, dict[str, Any]]:
    """Settings, progress, and the file's whole content."""
    kept = torch.load(path, map_location="cpu", weights_only=True)
    phases = [Phase(**phase) for phase in kept["progress"]["phases"]]
    return Settings(**kept["settings"]), Progress(**{**kept["progress"], "phases": phases}), kept


def peak(device: str) -> int:
    """The most bytes of memory that this process has held so far; on a GPU, torch there."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if (status := Path("/proc/self/status")).exists():  # getrusage has that of the process that began this one, too
        return 1024 * int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def correct(logits: torch.Tensor, batch: Batch) -> int:
    """How many answers are right."""
    return int(((logits > 0) == (batch.positive > 0.5)).sum())
