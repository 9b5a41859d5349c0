"""What `benchmarks.cpu` says in short: a Markdown table with its aims, compile times, growth as a picture."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import compile_time
from .compare import PAST, STREAM, WAYS
from .table import Row

OURS, LIMITS = "lrdsl", (STREAM, PAST)


@dataclass(frozen=True)
class Aims:
    """Ratios to streaming the same bytes, at most; speed-ups forward and backward over the best in numba and over the best
    other peer, at least; on two threads, over streaming with two, at most. None: nothing was asked."""

    forward: float | None = None
    both: float | None = None
    numba: float | None = None
    other: float | None = None
    two_threads: float | None = None

    @property
    def doubled(self) -> Aims:
        """What is asked of two threads."""
        return Aims(self.two_threads, self.two_threads)


@dataclass(frozen=True)
class Measured:
    """The rows of one line with so many threads."""

    rows: Sequence[Row]
    aims: Aims

    def of(self, candidate: str, way: str) -> Row | None:
        """The row of a candidate that was timed."""
        return next((r for r in self.rows if (r.candidate, r.way) == (candidate, way) and r.times), None)

    def peers(self, numba: bool) -> list[Row]:
        """Those that were timed forward and backward, in numba or the others, the fastest first."""
        found = [r for r in self.rows if r.way == WAYS[1] and r.times and r.candidate not in (OURS, *LIMITS)
                 and r.candidate.startswith("numba") == numba]
        return sorted(found, key=lambda r: r.times.median if r.times else 0)


def table(found: Sequence[Measured]) -> str:
    """Markdown: a line each, aims in brackets, in bold what misses its aim; after the bar, streaming past the caches."""
    lines = ["| cell | shape (B, T, C) | threads | forward / limit | both / limit | over numba by hand | over the best other |",
             "|---|---|---|---|---|---|---|"]
    for m in found:
        if not m.rows:
            continue
        first = m.rows[0]
        aims = m.aims if first.threads == 1 else m.aims.doubled
        ours = m.of(OURS, WAYS[1])
        cells = [_ratio(m.of(OURS, way), aim) + _limit(m.of(PAST, way))
                 for way, aim in zip(WAYS, (aims.forward, aims.both), strict=True)]
        cells += [_over(ours, m.peers(True), aims.numba), _over(ours, m.peers(False)[:1], aims.other)]
        lines.append(f"| {first.cell} | {first.B}, {first.T}, {first.C} | {first.threads} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(row: Row | None, aim: float | None) -> str:
    ratio = row and row.ratio
    return "-" if not ratio else _beside(f"{ratio:.2f}", aim, "≤", ratio <= (aim or ratio))


def _limit(row: Row | None) -> str:
    return f" / {row.ratio:.2f}" if row else ""


def _over(ours: Row | None, peers: Sequence[Row], aim: float | None) -> str:
    """Speed-ups over peers; the aim is beside the first, the fastest peer."""
    cells = []
    for peer in peers:
        if ours and ours.times and peer.times:
            gain, asked = peer.times.median / ours.times.median, None if cells else aim
            cells.append(f"{_beside(f'{gain:.1f}×', asked, '≥', gain >= (asked or gain))} {peer.candidate}")
    return "; ".join(cells) or "-"


def _beside(text: str, aim: float | None, sign: str, reached: bool) -> str:
    """A figure with what was aimed at."""
    return text if aim is None else f"{text if reached else f'**{text}**'} ({sign} {aim:g})"


def compiling(rounds: int = 2) -> str:
    """Markdown: from a new cell to its results, each in a fresh process."""
    runs: dict[tuple[bool, str], list[list[float]]] = {}
    for _ in range(rounds):
        for other in (False, True):
            with tempfile.TemporaryDirectory() as cache:
                for state in ("cold", "warm"):
                    runs.setdefault((other, state), []).append(compile_time.run(cache, other))
    lines = ["Until a new cell has run, ms, imports excluded (what others compile is `first_s` in the CSV file):", "",
             "| cache | process | declared | forward | forward and backward |", "|---|---|---|---|---|"]
    for (other, state), times in runs.items():
        cells = [f"{statistics.median(t) * 1e3:.0f}" for t in zip(*times, strict=True)]
        lines.append(f"| {state} | {'has run another cell' if other else 'new'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(found: Sequence[tuple[str, Measured]], path: Path, title: str) -> None:
    """Growth: the time of one number, in times of streaming it, against steps and channels; without matplotlib, a line."""
    try:
        from matplotlib import figure
    except ImportError:
        print(f"no picture {path.name}: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)
        return
    rows = [(axis, r) for axis, m in found for r in m.rows if r.times and r.candidate not in LIMITS]
    panels = [(axis, way) for axis in dict.fromkeys(a for a, _ in found) for way in WAYS]
    names = list(dict.fromkeys(r.candidate for _, r in rows))
    sheet = figure.Figure(figsize=(11, 1 + 3.5 * (len(panels) // 2)), layout="constrained")
    for (axis, way), ax in zip(panels, sheet.subplots(len(panels) // 2, 2, squeeze=False).flat, strict=True):
        for name, threads in sorted({(r.candidate, r.threads) for _, r in rows}):
            own = sorted((r.T if axis == "T" else r.C, r.ratio) for a, r in rows
                         if (a, r.way, r.candidate, r.threads) == (axis, way, name, threads))
            if own:
                ax.plot(*zip(*own, strict=True), marker=".", color=f"C{names.index(name)}", linestyle="-:"[threads > 1],
                        label=f"{name}, {threads} thread(s)")
        ax.axhline(1, color="black", linewidth=0.5)
        ax.set(xscale="log", yscale="log", title=f"{way}, against {axis}", xlabel=axis, ylabel="times streaming the same bytes")
        if ax.lines:
            ax.legend(fontsize=7)
    sheet.suptitle(title, fontsize=9)
    sheet.savefig(path, dpi=120)
