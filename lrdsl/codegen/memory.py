"""Where a kernel's tensors are in memory, and what of them each step reads and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ..ir.kernel import LANES, Kernel, Read, lagged
from ..ir.program import Edge
from ..ir.symbols import At
from .lines import Load, PairWindow, Store, Window
from .printers import number

STORED = "Stored"  # what the text calls a number of 16 bits
HALVES = ("re", "im")


class Memory:
    """The texts of a kernel without an axis. field: of Args, by tensor; types: of elements. `windows` and `pairs` are what
    loads and registers have asked for."""

    def __init__(self, kernel: Kernel, field: Mapping[str, str], types: Mapping[str, str]) -> None:
        self.kernel, self.field, self.types, self.names = kernel, field, types, dict(kernel.names)
        self.buffers = {b.name: b for b in kernel.program.buffers}
        self.windows: dict[tuple[str | None, float, bool], Window] = {}
        self.pairs: dict[tuple[str, str, str], PairWindow] = {}

    @property
    def rows(self) -> int:
        """Rows of scratch memory that windows take on a CPU."""
        return sum(w.rows for w in self.windows.values()) + sum(2 * w.depth for w in self.pairs.values())

    def base(self, tensor: str, column: int) -> str:
        """Where row 0 of a column is."""
        offset = {0: "", 1: "a.C"}.get(column, f"{column} * a.C")
        if self.kernel.target == "cpu":
            offset = " + ".join(filter(None, [offset, "lo"]))
            if self.kernel.strategy in LANES:
                offset = f"{f'({offset})' if column else offset} * across(a.{self.field[tensor]}_time)"
        at = self.field[tensor]
        return f"a.{at} + b * a.{at}_batch" + (f" + {offset}" if offset else "")

    def time(self, tensor: str) -> str:
        """How far apart its rows are."""
        step = f"a.{self.field[tensor]}_time"
        return f"along({step})" if self.kernel.strategy in LANES else step

    def window(self, given: str | None, e: Edge, stored: bool = False) -> str:
        """What lies beyond a segment: that which is given, else the constant."""
        key = (given, 0.0 if given and e.init == 0 else e.init, stored)
        if key not in self.windows:
            name = f"{self.field[given]}_beyond" if given else "zeros" if e.init == 0 else f"constant_{len(self.windows)}"
            self.windows[key] = Window(f"{name}_stored" if stored else name, self.field[given] if given else "",
                                       number(e.init, self.kernel.compute), stored, e.depth)
        return self.windows[key].name

    def loads(self) -> dict[At, Load]:
        """By sample; one for both parts of a pair at a lag."""
        return {r.sample: self._pair(r) if self.buffers[r.buffer].paired else self._load(r) for r in self.kernel.reads}

    def _first(self, tensor: str, column: int | None, lag: int) -> bool:
        """Whether it is at this lag that a column, or a pair, is first read."""
        return next(r.sample.lag for r in self.kernel.reads if r.buffer == tensor and column in (None, r.column)) == lag

    def _load(self, r: Read) -> Load:
        lag, stored = r.sample.lag, self.types[r.buffer] == STORED
        start, cut = (self.window(end, r.edge, stored) for end in (r.edge.start, r.edge.edge)) if r.edge else ("", "")
        return Load(self.names[lagged(r.sample.base, lag)], self.base(r.buffer, r.column), self.time(r.buffer),
                    (lag > 0) - (lag < 0), abs(lag), start, cut, self._first(r.buffer, r.column, lag), self.types[r.buffer])

    def _pair(self, r: Read) -> Load:
        lag = r.sample.lag
        reads = sorted((x for x in self.kernel.reads if (x.buffer, x.sample.lag) == (r.buffer, lag)), key=lambda x: x.column)
        edges = [x.edge for x in reads if x.edge]
        start, cut = (self._beyond(edges, end, lag, self.types[r.buffer]) if edges else "" for end in ("start", "edge"))
        away = f"_{'before' if lag < 0 else 'after'}_{abs(lag)}" if lag else ""
        return Load(f"{self.field[r.buffer]}{away}_pair", self.base(r.buffer, 0), self.time(r.buffer), (lag > 0) - (lag < 0),
                    abs(lag), start, cut, self._first(r.buffer, None, lag), self.types[r.buffer],
                    tuple((self.names[lagged(x.sample.base, lag)], HALVES[x.column]) for x in reads))

    def _beyond(self, edges: Sequence[Edge], end: Literal["start", "edge"], lag: int, type: str) -> str:
        """Of a pair that is read at a lag; a part that is not read has the values of the other."""
        stored = STORED in type and self.kernel.target == "cuda"  # on a CPU, the rows of pairs are rounded as they are made
        re, im = (self.window(e.start if end == "start" else e.edge, e, stored) for e in (edges[0], edges[-1]))
        known = self.pairs.setdefault((re, im, type), PairWindow(f"beyond_{len(self.pairs)}", re, im, 0, type))
        self.pairs[re, im, type] = replace(known, depth=max(known.depth, abs(lag)))
        return known.name

    def stores(self) -> list[tuple[str, Store]]:
        """(sample, where it is written)."""
        return [(s, Store(f"to_{self.field[k.name]}" + (f"_{column}" if len(k.samples) > 1 else ""),
                          self.base(k.name, 0 if k.paired else column), self.time(k.name), self.names[s], self.types[k.name],
                          HALVES[column] if k.paired else "", self.field[k.name], 0 if k.paired else column))
                for k in self.kernel.program.keeps for column, s in enumerate(k.samples)]


def together(stores: Sequence[Store]) -> tuple[Store, ...]:
    """The stores, those of both parts of a pair as one."""
    found: dict[tuple[str, str], Store] = {}
    for s in stores:
        other = found.get((s.base, "im" if s.half == "re" else "re")) if s.half else None
        if other:
            re, im = (s, other) if s.half == "re" else (other, s)
            pair = f"Pair<V>{{{re.value}, {im.value}}}"
            found[other.base, other.half] = replace(s, pointer=s.pointer.rpartition("_")[0], value=pair, half="")
        else:
            found[s.base, s.half] = s
    return tuple(found.values())
