"""Where the numbers of a kernel over an axis are, in the words of each target.

CUDA: a thread has a channel; N numbers are an array in its registers, what the channels share is staged for a warp. CPU: the
lanes of a vector are channels; N numbers are N rows of a sweep's scratch memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..ir.kernel import Read, Target, lagged
from ..ir.program import Edge, Program
from ..ir.shapes import AXIAL, Shape
from ..ir.symbols import At
from .lines import Register, Store

Windows = Callable[[str | None, Edge, Shape, bool], str]


@dataclass(frozen=True)
class AxisLoad:
    """`value` is read by `text`: in CUDA a number, on the CPU a row of them. shape: that of the sequence; type: of its
    elements."""

    value: str
    text: str
    shape: Shape
    type: str


@dataclass(frozen=True)
class AxisRegister(Register):
    """numbers: N where it has the axis, else 1. base: the sequence's name in the Program."""

    base: str
    numbers: int
    wide: bool


class Memory:
    """Texts of loads, stores and places, for one kernel. starting: before all steps, where vectors are still in memory."""

    def __init__(self, target: Target, program: Program, names: Mapping[str, str], field: Mapping[str, str],
                 types: Mapping[str, str], windows: Windows) -> None:
        self.cuda, self.program, self.names, self.field, self.windows = target == "cuda", program, names, field, windows
        self.types = types
        self.starting = False
        self.constants: set[str] = set()

    def name(self, s: At) -> str:
        """The name of a sample."""
        return self.names[lagged(s.base, s.lag)]

    def base(self, tensor: str, column: int, shape: Shape) -> str:
        """Where row 0 of a column lies."""
        numbers = column * (self.program.axis if shape in AXIAL else 1)
        offset = f" + {numbers}" + ("" if shape == "axis" else " * a.C") if numbers > 1 or (numbers and shape == "axis") else \
            " + a.C" if numbers else ""
        return f"a.{self.field[tensor]} + b * a.{self.field[tensor]}_batch{offset}"

    def shared_row(self, keep: str, width: int, offset: int) -> str:
        """Where the row of step t of a keep over channels lies, of this part and batch element."""
        return f"a.{self.field[keep]} + ((row * a.B + b) * a.T + t) * {width}" + (f" + {offset}" if offset else "")

    def load(self, r: Read) -> AxisLoad:
        """A load at step t, beyond the segment from its edges; for the CPU the row, and how far its numbers lie apart."""
        shape = next(b.shape for b in self.program.buffers if b.name == r.buffer)
        lag, e, name = r.sample.lag, r.edge, self.name(r.sample)
        at = {"axis": " + n", "channel and axis": " + n * a.C + c"}.get(shape, " + c") if self.cuda else \
            "" if shape == "axis" else " + lo"
        rows, time = self.base(r.buffer, r.column, shape) + at, f"a.{self.field[r.buffer]}_time"
        apart = {"axis": "1", "channel and axis": "a.C"}.get(shape, "0")
        type = self.types[r.buffer]
        if e is None:
            text = f"get({rows} + t * {time})" if self.cuda else f"Row<{type}>{{{rows} + t * {time}, {apart}}}"
            return AxisLoad(name, text, shape, type)
        start, cut = (self.windows(n, e, shape, type != "real") for n in (e.start, e.edge))
        if self.cuda and apart != "0":
            by = "n" if apart == "1" else "n * a.C"
            start, cut = f"offset({start}, {by})", f"offset({cut}, {by})"
        way, more = "earlier" if lag < 0 else "later", "" if self.cuda else f", {apart}"
        return AxisLoad(name, f"{way}({rows}, {time}, t, {abs(lag)}, {start}, {cut}, reset{more})", shape, type)

    def register(self, program: Program, e: Edge) -> AxisRegister:
        """A shift register."""
        wide = e.base in program.wide
        shape: Shape = "channel and axis" if wide else "channel"
        numbers = self.program.axis if wide else 1

        def rows(tensor: str | None) -> str:
            many = e.depth * numbers
            return f"a.{self.field[tensor]} + b * {f'{many} * ' if many > 1 else ''}a.C" if tensor else ""

        cut = self.windows(e.edge, e, shape, False)
        start = self.windows(e.start, e, shape, False) if program is self.program else cut  # a replay starts from borders
        return AxisRegister(f"{self.names[e.base]}_kept", self.names[e.base], e.depth,
                            tuple(self.names[lagged(e.base, e.side * k)] for k in range(1, e.depth + 1)),
                            start, cut, rows(e.final), rows(e.crossing), e.base, numbers, wide)

    # What a loop reads, at number n.

    def take(self, program: Program, s: At) -> str:
        """A sample; "" where it has one number a channel."""
        if s.base not in program.wide:
            return ""
        name = self.name(s)
        listed = program.loads.get(s.base)
        shape: Shape = program.shape(s.base)
        if s.base in self.constants:
            return f"{name}_all[n]" if self.cuda else f"get<WHOLE>(at.{name} + n * width + c, live)"
        if listed and shape == "axis":
            return f"at.{name}[k][n]" if self.cuda else f"splat(at.{name}.at[n * at.{name}.n])"
        if listed:
            if not self.cuda:
                return f"get<WHOLE>(at.{name}.at + n * at.{name}.n + c, live)"
            return self.load(Read(s, *listed, program.edge(s.base, 1 if s.lag > 0 else -1) if s.lag else None)).text
        if s.base in self.program.replayed:
            return f"{name}_kept[place][n]" if self.cuda else f"get<WHOLE>(at.{name} + n * width + c, live)"
        if s.lag and not self.cuda:
            return f"get<WHOLE>(at.{self.names[s.base]}_kept + {self._at(abs(s.lag) - 1)} * width + c, live)"
        return f"{name}_all[n]"

    def _at(self, depth: int) -> str:
        return f"({depth * self.program.axis} + n)" if depth else "n"

    def take_learned(self, v: str) -> str:
        """A learned number; "" where it is one a channel or one in all."""
        shape, name = self.program.shape(v), self.names[v]
        if shape == "axis":
            return f"{name}_all[n]" if self.cuda and not self.starting else f"get(a.{self.field[v]} + n)" if self.cuda else \
                f"splat(at.{name}[n])"
        if shape != "channel and axis":
            return ""
        if not self.cuda:
            return f"get<WHOLE>(at.{name} + n * channels + c, live)"
        return f"get(a.{self.field[v]} + n * a.C + c)" if self.starting else f"{name}_all[n]"

    def take_one_learned(self, v: str) -> str:
        """A learned number, one a channel or one in all, for the whole step; "" for others, and where a thread has it."""
        shape, name = self.program.shape(v), self.names[v]
        if self.cuda or shape in AXIAL:
            return ""
        return f"splat(*at.{name})" if shape == "one" else f"get<WHOLE>(at.{name} + c, live)"

    def take_one(self, program: Program, s: At) -> str:
        """A sample with one number a channel, for the whole step; "" for others, and for what is computed."""
        name = self.name(s)
        if s.base in program.wide or s.base in self.constants:
            return f"get<WHOLE>(at.{name} + c, live)" if s.base in self.constants and s.base not in program.wide and \
                not self.cuda else ""
        if s.base in program.loads:
            return f"ahead.{name}" if self.cuda else f"get<WHOLE>(at.{name}.at + c, live)"
        if s.lag and not self.cuda:
            past = f"{abs(s.lag) - 1} * width + " if abs(s.lag) > 1 else ""
            return f"get<WHOLE>(at.{self.names[s.base]}_kept + {past}c, live)"
        return ""

    # What a loop leaves.

    def hold(self, name: str) -> str:
        """A number that a later loop reads."""
        return f"{name}_all[n] = {name};"

    def keep_constant(self, name: str) -> str:
        """A number that does not change with time."""
        return f"{name}_all[n] = {name};" if self.cuda else f"put<WHOLE>(at.{name} + n * width + c, {name}, live);"

    def shift(self, r: AxisRegister) -> list[str]:
        """The register moves on."""
        if self.cuda:
            return [f"{to}_all[n] = {value};" for to, value in r.moves]
        return [f"put<WHOLE>(at.{r.name} + {self._at(r.past.index(to))} * width + c, {value}, live);" for to, value in r.moves]

    def store(self, x: Store) -> str:
        """A number is written."""
        if self.cuda:
            return f"if (there) put({x.base} + t * {x.time} + n * a.C + c, {x.value});"
        return f"put<WHOLE>(at.{x.pointer} + n * channels + c, {x.value}, live);"

    def add(self, field: str, value: str) -> str:
        """A number is added to a sum over time."""
        if self.cuda:
            return f"{field}_part[n] += {value};"
        place = f"at.{field}_part + n * width + c"
        return f"put<WHOLE>({place}, get<WHOLE>({place}, live) + {value}, live);"

    def across_line(self, value: str) -> str:
        """A number is added up over channels."""
        if self.cuda:
            return f"{value}_row[n] = there ? {value} : splat(0);"
        return f"at.{value}_row[n] += only<WHOLE>({value}, live);"
