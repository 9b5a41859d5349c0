"""From Kernel to Source: everything a template needs, as finished lines, and the text it makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir.kernel import CHAINED, LANES, Axis, Kernel, lagged
from ..ir.names import c_name
from ..ir.program import Edge, Let, Nonlinear, Scan, Step
from ..ir.shapes import Shape
from ..ir.source import OUTPUTS, SIZES, Source, slots
from ..ir.symbols import params, samples
from ..ir.text import show
from .axis import Lines, axis_view
from .axis_chunked import in_chunks
from .axis_views import AxisView
from .chain import ChainView, chain_view
from .chunked import ChunksView, chunks_view
from .environment import environment, text
from .in_lanes import InLanes, LanesView
from .lines import Constants, Load, PairWindow, Register, Store, Total, Window, step_lines
from .memory import STORED, Memory, together
from .printers import Printer, number


@dataclass(frozen=True)
class View:
    """What a template sees of a kernel. Every text in it is finished."""

    entry: str
    strategy: str
    header: tuple[str, ...]
    args: tuple[tuple[str, str, str], ...]
    loads: tuple[Load, ...]
    vectors: tuple[tuple[str, str, str], ...]
    scalars: tuple[tuple[str, str, str], ...]
    reads: frozenset[str]
    registers: tuple[Register, ...]
    windows: tuple[Window, ...]
    constants: Constants
    lines: tuple[str, ...]
    stores: tuple[Store, ...]
    sums: tuple[Total, ...]
    rows: int
    reverse: bool
    first: str
    forth: str
    time: str
    crossed: str
    after: str
    further: str
    inside: str
    fold: int
    ahead: int
    block: int
    chunks: ChunksView | None
    axis: AxisView | None = None
    chain: ChainView | None = None
    lanes: LanesView | None = None
    pairs: tuple[PairWindow, ...] = ()

    @property
    def paired(self) -> bool:
        """Whether it reads or writes pairs."""
        return any("Pair<" in declared for declared, _, _ in self.args)

    @property
    def moved(self) -> int:
        """Numbers of a step and channel that are read and written: what is read at two lags is so once."""
        return sum({x.base: x.size for x in self.loads}.values()) + sum(x.size for x in self.stores)

    @property
    def folded(self) -> tuple[Total, ...]:
        """The sums, whose short parts are added up apart."""
        return tuple(s for s in self.sums if not s.largest)


def emit(kernels: Sequence[Kernel], arch: str = "") -> tuple[Source, ...]:
    """One Source a Kernel: each compiles alone."""
    found = []
    for kernel in kernels:
        seen = view(kernel)
        chunks = seen.axis.chunks if seen.axis else seen.chunks
        found.append(Source(kernel.target, kernel.entry, _file([kernel], [seen], arch), kernel.program, kernel.dtype,
                            kernel.block, kernel.chunk, chunks.messages if chunks else 0,
                            kernel.axis.together if kernel.axis else 0, kernel.strategy == "lanes", kernel.strategy in CHAINED))
    return tuple(found)


def emit_together(kernels: Sequence[Kernel], arch: str = "") -> str:
    """All kernels of a cell in one file, for reading."""
    return _file(kernels, [view(k) for k in kernels], arch)


def _file(kernels: Sequence[Kernel], views: Sequence[View], arch: str) -> str:
    first = kernels[0]
    real = {"float32": "float", "float64": "double"}[first.compute]
    narrow = {"bfloat16": "1", "float16": "0"}.get(first.dtype, "")
    prelude = text("cpu/vmath.h") if first.target == "cpu" else text("cuda/prelude.cuh")
    if narrow and first.target == "cuda":
        prelude += text("cuda/narrow.cuh")
    if any(v.paired for v in views) and first.target == "cuda":
        prelude += text("cuda/pairs.cuh")
    if any(k.chunk for k in kernels):
        prelude += text("cuda/chunks.cuh")
    if any(k.axis for k in kernels) and first.target == "cuda":
        prelude += text("cuda/axis.cuh")
    if any(k.axis and k.chunk for k in kernels):
        prelude += text("cuda/axis_chunks.cuh")
    template = environment().get_template("cpu/rows.cpp.j2" if first.target == "cpu" else "cuda/file.cu.j2")
    return template.render(real=real, double=int(first.dtype == "float64"), narrow=narrow, arch=arch, prelude=prelude,
                           kernels=views)


def view(kernel: Kernel) -> View:
    """The Kernel as finished lines."""
    program, names = kernel.program, dict(kernel.names)
    printer = Printer(names, kernel.compute)
    field, types = _fields(kernel), _types(kernel)
    if kernel.axis:
        return _over_an_axis(kernel, kernel.axis, printer, field, types)
    memory = Memory(kernel, field, types)

    def beyond(tensor: str | None, depth: int) -> str:
        return f"a.{field[tensor]} + b * {f'{depth} * ' if depth > 1 else ''}a.C" if tensor else ""

    def register(e: Edge) -> Register:
        return Register(f"{names[e.base]}_kept", names[e.base], e.depth,
                        tuple(names[lagged(e.base, e.side * k)] for k in range(1, e.depth + 1)),
                        memory.window(e.start, e), memory.window(e.edge, e),
                        beyond(e.final, e.depth), beyond(e.crossing, e.depth))

    load_of = memory.loads()
    loads = tuple(dict.fromkeys(load_of.values()))
    registers = tuple(map(register, program.registers))
    constants = _constants(kernel, printer)
    lines: list[str] = []
    for step in kernel.last or program.steps:
        lines += step_lines(step, names, printer)
    stores = memory.stores()
    sums = tuple(Total(field[s.name], names[s.sample], s.largest) for s in program.sums)
    chunks = None
    if kernel.chunks:
        written = {n: tuple(store for s, store in stores if s == n) for n, _ in stores}
        totals = {x.sample: tuple(s for s in sums if s.value == names[x.sample]) for x in program.sums}
        chunks = chunks_view(kernel, kernel.chunks, printer, register, written, totals)
    chain, in_lanes = None, InLanes(memory, register) if kernel.strategy in LANES else None
    if kernel.strategy in CHAINED:
        crossings = [(field[e.crossing], e.depth) for e in program.registers if e.crossing]
        chain = chain_view(kernel, printer, register, load_of, sums, crossings, in_lanes)
    reverse = program.reverse
    return View(
        kernel.entry, kernel.strategy, _header(kernel), _args(kernel, field), loads,
        tuple((names[v.name], field[v.name], types[v.name]) for v in program.vectors if v.shape == "channel"),
        tuple((names[v.name], field[v.name], types[v.name]) for v in program.vectors if v.shape == "one"),
        _learned(program.steps, names), registers, tuple(memory.windows.values()), constants,
        tuple(lines), together([store for _, store in stores]), sums,
        sum(r.depth for r in registers) + memory.rows + 2 * len(program.sums) + len(constants.names), reverse,
        "a.T - 1 - s0" if reverse else "s0", "--t" if reverse else "++t", "a.T - 1 - s" if reverse else "s",
        "t + 1" if reverse else "t", "t" if reverse else "t + 1", "-" if reverse else "+", _inside(kernel),
        kernel.fold, kernel.ahead, kernel.block, chunks,
        chain=chain, lanes=in_lanes.view() if in_lanes else None, pairs=tuple(memory.pairs.values()))


def _constants(kernel: Kernel, printer: Printer) -> Constants:
    """What is computed before all steps."""
    names, read = dict(kernel.names), {s.base for step in kernel.program.steps for e in step.exprs for s in samples(e)}
    lines = tuple(f"const V {names[let.target]} = {printer(let.expr)};" for let in kernel.constants)
    return Constants(lines, _learned(kernel.constants, names),
                     tuple(names[let.target] for let in kernel.constants if let.target in read))


def _learned(steps: Sequence[Step], names: Mapping[str, str]) -> frozenset[str]:
    """The learned numbers that steps read."""
    return frozenset(names[str(p)] for step in steps for e in step.exprs for p in params(e))


def _types(kernel: Kernel) -> dict[str, str]:
    """Tensor -> what its elements are called in the text."""
    known = {"uint8": "unsigned char", kernel.compute: "real"}
    found = {s: known.get(s.dtype(kernel.dtype), STORED) for s in slots(kernel.program)}
    return {s.name: f"Pair<{element}>" if s.paired else element for s, element in found.items()}


def _over_an_axis(kernel: Kernel, axis: Axis, printer: Printer, field: dict[str, str], types: dict[str, str]) -> View:
    """A kernel whose loads, stores and lines are those of its axis."""
    windows: dict[tuple[str | None, float, bool], Window] = {}

    def window(given: str | None, e: Edge, shape: Shape, stored: bool) -> str:
        key = (given, 0.0 if given and e.init == 0 else e.init, stored)
        if key not in windows:
            name = f"{field[given]}_beyond" if given else "zeros" if e.init == 0 else f"constant_{len(windows)}"
            apart = {"axis": "1", "channel and axis": "a.C"}.get(shape, "0") if given else "0"
            numbers = kernel.program.axis if apart != "0" else 1
            windows[key] = Window(f"{name}_stored" if stored else name, field[given] if given else "",
                                  number(e.init, kernel.compute), stored, e.depth, apart, not given or shape != "axis", numbers)
        return windows[key].name

    lines = Lines(kernel, axis, printer, field, types, window)
    seen = axis_view(lines)
    if kernel.chunk:
        seen = in_chunks(seen, lines)
    reverse, numbers = kernel.program.reverse, sum(r.depth * r.numbers for walk in seen.walks for r in walk.registers)
    numbers += sum(w.rows for w in windows.values()) + sum(2 * (seen.size if wide else 1) for _, _, wide in seen.sums)
    numbers += sum(seen.size if wide else 1 for _, wide in seen.constant_names) + seen.segment * seen.size * len(seen.replayed)
    return View(kernel.entry, "axis_chunked" if kernel.chunk else "axis", _header(kernel), _args(kernel, field), (), (), (),
                frozenset(), (), tuple(windows.values()), Constants((), frozenset(), ()), (), (), (), numbers, reverse, "", "",
                seen.walk.time, seen.walk.crossed, "", "", "", kernel.fold, 0, kernel.block, None, seen)


def _inside(kernel: Kernel) -> str:
    """Where the steps that are loaded at once, for serial those after lo, lo + 1, … of the ring, read nothing beyond an end."""
    lags = [r.sample.lag * kernel.program.direction for r in kernel.reads]
    behind, before = max([0, *(-lag for lag in lags)]), max([0, *lags])
    if kernel.chunks:
        return (f"s0 >= {behind} && " if behind else "") + f"s0 + {kernel.chunks.steps + before} <= a.T"
    first = f"lo >= {behind - kernel.ahead} && " if behind > kernel.ahead else ""
    return f"{first}lo + {2 * kernel.ahead + before} <= a.T"


def _fields(kernel: Kernel) -> dict[str, str]:
    """Names of the fields of Args, each once; those of strides begin with their tensor's."""
    ours = {"reset", "reset_batch", "reset_time"}
    taken, found = {*SIZES, *ours, "scratch"}, dict[str, str]()
    for s in slots(kernel.program):
        plain = name = s.name.lstrip(".") if s.kind == "reset" else c_name(s.name, set())
        k, ends = 1, [f.removeprefix(s.name).replace(".", "_") for f in s.fields]
        taken -= ours if s.kind == "reset" else set()
        while taken & {name + end for end in ends}:
            name, k = f"{plain}_{k + 1}", k + 1
        found |= {f: name + end for f, end in zip(s.fields, ends, strict=True)}
        taken |= {name + end for end in ends}
    return found


def _args(kernel: Kernel, field: dict[str, str]) -> tuple[tuple[str, str, str], ...]:
    """(type, names, comment) of the fields of Args, a line each tensor."""
    lone = {v.name for v in kernel.program.vectors if v.shape == "one"}
    part, over = ("chunks, ", "chunks and B") if kernel.chunk else ("", "B")
    shapes = {"sequence": "(B, T, {n})", "keep": "(B, T, {n})", "vector": "({n})", "edge": "(B, {d}, {n}), or none",
              "sum": f"({part}B, {{n}}), to be added up over {over}", "final": "(B, {d}, {n})", "reset": "(B, T), or none",
              "crossing": f"({part}B, {{d}}, {{n}})" + (", to be added up over chunks" if part else ""),
              "shared": "(parts, B, T, {n}), to be added up over parts of the channels"}
    lines, types = [], _types(kernel)
    for s in slots(kernel.program):
        width = ("C" if s.columns == 1 else f"{s.columns}*C") if s.channels or s.name in lone else str(s.columns)
        width = "C, 2" if s.paired else width
        shape = shapes[s.kind].format(n=width, d=s.depth).replace("T", f"T/{s.every}" if s.every > 1 else "T", 1)
        if s.kind == "sum" and not s.channels:
            shape = f"({part}parts, B, {s.columns}), to be added up over {part}parts of the channels and B"
        lines.append((f"{'' if s.kind in OUTPUTS else 'const '}{types[s.name]} *", field[s.name], shape))
        if len(s.fields) > 1:
            lines.append(("Index ", ", ".join(field[n] for n in s.fields[1:]), ""))
    lines.append(("Index ", ", ".join(SIZES), ""))
    if kernel.chunk:
        lines.append(("unsigned char *", "scratch", "zero: a ticket, then messages"))
    return tuple(lines)


def _header(kernel: Kernel) -> tuple[str, ...]:
    """The equations as comments: the lines in order, A and b of each recurrence."""
    program = kernel.program
    lines = [f"{program.name}, {kernel.dtype}: {kernel.strategy}, {'from the right' if program.reverse else 'from the left'}.",
             f"{kernel.reason[0].upper()}{kernel.reason[1:]}.", ""]
    for step in (*kernel.constants, *program.steps):
        place = f"   ({step.where.short})" if step.where else ""
        if isinstance(step, Let):
            lines.append(f"  {step.target}{'' if step in kernel.constants else '[t]'} = {show(step.expr)}{place}")
            continue
        if isinstance(step, Nonlinear):
            lines += [f"  {target}[t] = {show(e)}{place}" for target, e in zip(step.targets, step.exprs, strict=True)]
            continue
        if step.other:
            A, b = step.A[0][0, 0], step.b[0]
            equation = step.other.equation("A" if A != 0 else "0", str(step.past[0]), "b")
            lines.append(f"  {step.targets[0]}[t] = {equation}{place}")
            lines += [f"      A = {show(A)}"] * (A != 0) + [f"      b = {show(b)}"]
            continue
        for i, state in enumerate(step.targets):
            terms = [f"A{_index(step, i, j, k)} {step.back(s, k + 1)}" for k, m in enumerate(step.A)
                     for j, s in enumerate(step.targets) if m[i, j] != 0]
            lines.append(f"  {state}[t] = {' + '.join([*terms, 'b'])}{place}")
            lines += [f"      A{_index(step, i, j, k)} = {show(m[i, j])}" for k, m in enumerate(step.A)
                      for j in range(len(step.targets)) if m[i, j] != 0]
            lines.append(f"      b = {show(step.b[i])}")
    return tuple(_plain(line) for line in lines)


def _index(scan: Scan, i: int, j: int, k: int) -> str:
    many = len(scan.targets) > 1
    return (f"[{i},{j}]" if many else "") + (f"@{k + 1}" if scan.order > 1 else "")


def _plain(line: str) -> str:
    """Comment text can end neither the line nor, by a backslash or a trigraph, swallow the next one."""
    return line.replace("\n", " ").replace("\r", " ").replace("\\", "/").replace("?", "").rstrip()
