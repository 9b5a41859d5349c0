"""The driver: a cell's way to text, stage by stage.

    @cell ─> Spec ─> real Spec ─> Strata ─> Plan ─> Programs, forward ─> backward ─> Kernels ─> Sources

`compile` below is the table of contents of the compiler: each line is one stage, checked, remembered in `Compiled.stages`
and written to `LRDSL_DUMP` where that is set. Everything after `Program` is the same for forward and backward passes.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import explain as explanation
from . import options, stored
from .backends import cuda, emulated, native, reference
from .codegen.emit import emit, emit_together
from .errors import BackendUnavailable, BadDeclaration, CellError, NotBuilt
from .frontend.cell import Cell
from .ir.dtypes import DTYPES
from .ir.kernel import Kernel, Strategy, Target
from .ir.plan import Plan, Stage
from .ir.program import Program
from .ir.solver import Newton, solver_of
from .ir.source import Extent, Launch, Source
from .ir.spec import Spec
from .passes import precision
from .passes.adjoint import Adjoint
from .passes.footprint import footprint
from .passes.newton import iteration
from .passes.partition import partition
from .passes.ragged import ragged
from .passes.realify import realify
from .passes.replay import bordered
from .passes.schedule import blocks, chosen, narrow, schedule, schedules, spare, strategies
from .passes.simplify import simplify
from .passes.stratify import stratify

_codegen, _launch = logging.getLogger("lrdsl.codegen"), logging.getLogger("lrdsl.launch")
TARGETS: tuple[Target, ...] = ("cpu", "cuda")
BACKENDS = ("reference", "native", "cuda", "emulated")


@dataclass(frozen=True)
class Compiled:
    """A cell on its way to a target. `stages` maps the name of each stage to what it made; every one prints itself."""

    cell: Cell
    target: Target
    arch: str
    dtype: str
    stages: Mapping[str, Any]

    def explain(self) -> str:
        """What was found in the cell, and what was generated for it."""
        return explain(self.cell, self.dtype, self.cell.spec.solver)

    def source(self, stage: str | None = None) -> str:
        """The generated text: of `forward`, of `backward`, or of both in one file."""
        kernels: dict[str, tuple[Kernel, ...]] = self.stages["kernels"]
        if stage is not None and stage not in kernels:
            raise BadDeclaration(f"there is no generated text of stage {stage!r}", None, f"ask for {' or '.join(kernels)}")
        if not any(kernels.values()):
            raise BadDeclaration(f"{self.cell.name} is made of dense maps alone, which are left to torch: no text is generated",
                                 self.cell.spec.where, "run it with lr.RNN, or give it a state")
        return emit_together([k for name, ks in kernels.items() for k in ks if stage in (None, name)], self.arch)


class Stages(dict[str, Any]):
    """The stages in order; each prints as its parts do."""

    def __str__(self) -> str:
        return "\n\n".join(str(part) for value in self.values() for part in (value if isinstance(value, tuple) else (value,)))


def compile(cell: Cell, target: Target = "cuda", arch: str = "sm_90", dtype: str = "float32",
            solver: str | Newton | None = None) -> Compiled:
    """Every stage from a cell to the text for `target` ("cuda" or "cpu"); no compiler, driver or GPU is needed.

    solver: "sequential", "newton" or lr.Newton(…) for a recurrence that is not linear.
    Raises NotLinear, CyclicStates and other CellErrors for what no linear recurrence computes.
    """
    _check(target, dtype)
    cell = solved(cell, solver)
    stages: dict[str, Any] = {}

    def keep(name: str, made: Any) -> Any:
        stages[name] = made
        _dump(cell.spec, len(stages) - 1, name, made)
        return made

    spec = keep("spec", cell.spec.check())                                                      # Cell -> Spec
    real = keep("real", realify(spec))                                                          # Spec -> Spec
    strata = keep("strata", stratify(real))                                                     # Spec -> Strata
    plan = keep("plan", _with_keeps(partition(strata)))                                         # Strata -> Plan
    forward = keep("forward", plan.programs)                                                    # Plan -> Programs
    backward = keep("backward", tuple(backward_of(p) for p in forward))                         # Program -> Program
    newton = {"newton": keep("newton", found)} if (found := newton_of(forward)) else {}          # Program -> Programs
    passes = {"forward": forward, **newton, "backward": backward}
    kernels = keep("kernels", Stages({stage: tuple(k for p in programs for k in schedules(p, target, dtype))
                                      for stage, programs in passes.items()}))
    keep("source", Stages({name: emit(ks, arch) for name, ks in kernels.items()}))              # Kernel -> Source
    return Compiled(cell, target, arch, dtype, MappingProxyType(stages))


def solved(cell: Cell, solver: str | Newton | None) -> Cell:
    """The cell with a solver for what is not linear in it. Raises BadDeclaration."""
    return cell if solver is None else Cell(replace(cell.spec, solver=solver_of(solver)))


def _check(target: str, dtype: str) -> None:
    if target not in TARGETS:
        raise BadDeclaration(f"there is no target {target!r}", None, f"the targets are {', '.join(TARGETS)}")
    if dtype not in DTYPES:
        raise BadDeclaration(f"there is no dtype {dtype!r}", None, f"the dtypes are {', '.join(DTYPES)}")


def _with_keeps(plan: Plan) -> Plan:
    """The Programs simplified, and keeping what their backward passes read."""
    def kept(program: Program) -> Program:
        whole = precision.adjoint(simplify(program)).forward
        return precision.adjoint(bordered(whole)).forward if whole.axis else whole

    steps = tuple(Stage(kept(s.program)) if isinstance(s, Stage) else s for s in plan.steps)
    return replace(plan, steps=steps).check()


def backward_of(program: Program) -> Program:
    """The backward pass as training runs it: only what the cell returns has a gradient from outside."""
    return adjoint_of(program, inner_keeps(program)).program


def inner_keeps(program: Program) -> frozenset[str]:
    """Keeps that exist for the backward pass alone: their samples are scanned here and written for nobody else."""
    return frozenset(k.name for k in program.keeps if k.inner)


@functools.cache
def plan_of(spec: Spec) -> Plan:
    """The Plan that runs a cell. Raises NotLinear and its kin."""
    if stored_before := stored.find(spec):
        plan, adjoints = stored_before
        _adjoints.update({(program, frozenset(absent)): made for program, absent, made in adjoints})
    else:
        plan = _with_keeps(partition(stratify(realify(spec))))
        every = [(p, absent) for p in plan.programs for absent in dict.fromkeys((frozenset[str](), inner_keeps(p)))]
        stored.put(spec, plan, [(p, tuple(sorted(absent)), adjoint_of(p, absent)) for p, absent in every])
    if options.dump_dir():
        compile(Cell(spec), "cpu")
    return plan


def ragged_of(program: Program, given: frozenset[str], narrow: bool = False) -> Program:
    """The Program of a plan for packed segments, whose edges in `given` come as sequences; see `ragged`."""
    return precision.adjoint(simplify(ragged(program, given, narrow))).forward


def newton_of(programs: Sequence[Program]) -> tuple[Program, ...]:
    """The Programs that solve those of `programs` which Newton's method solves."""
    solved = [iteration_of(p) for p in programs if p.solver]
    return tuple(p for made in solved for p in (made.step, made.finish))


iteration_of = functools.cache(iteration)
_adjoints: dict[tuple[Program, frozenset[str]], Adjoint] = {}


def adjoint_of(program: Program, absent: frozenset[str]) -> Adjoint:
    """The backward pass of a Program where the gradients of the Keeps in `absent` are zero."""
    known = program, absent
    if known not in _adjoints:
        _adjoints[known] = precision.adjoint(program, absent)
    return _adjoints[known]


tangent_of = functools.cache(precision.tangent)


@functools.cache
def source_of(program: Program, target: Target, dtype: str, arch: str = "sm_90", strategy: Strategy | None = None) -> Source:
    """The Source of one Program, for the strategy that every Program has unless another is named."""
    source = emit([schedule(program, target, dtype, strategy)], arch)[0]
    _codegen.info("wrote %s for %s, %s: %d lines", source.entry, target, dtype, source.text.count("\n"))
    return source


@functools.cache
def launch_of(program: Program, dtype: str, backend: str) -> Launch:
    """A Program compiled for a runner: call it with the slots of `ir.source.fields`, see `ir.source.Launch`.

    Raises BackendUnavailable where the runner cannot work here, ToolchainError where a compiler refuses.
    """
    _launch.info("%s, %s: backend %s", program.name, dtype, backend)
    if backend == "reference":
        return reference.load(program, dtype)
    if backend == "native":
        return _on_cpu(program, dtype)
    if backend not in BACKENDS:
        raise BackendUnavailable(f"the backend {backend!r} does not exist; the backends are {', '.join(BACKENDS)}")
    def text(strategy: Strategy) -> Source:
        return source_of(program, "cuda", dtype, strategy=strategy)

    if backend == "cuda":  # which compiles when a kernel first runs on a device
        made = {s: cuda.load(text(s)) for s in strategies(program, "cuda")}
        return _by_size(program, dtype, made.__getitem__)
    return _by_size(program, dtype, functools.cache(lambda strategy: emulated.load(text(strategy))))


def begin(program: Program, dtype: str, backend: str, B: int, T: int, C: int) -> None:
    """Start what `launch_of` will soon be asked for, where a compiler can work on it beside this process."""
    if backend == "native":
        strategy = strategy_of(program, dtype, T, C)
        native.begin(program, dtype, strategy, stored.versions(), functools.partial(source_of, program, "cpu", dtype,
                                                                                    strategy=strategy))


def strategy_of(program: Program, dtype: str, T: int, C: int) -> Strategy:
    """The kernel that runs a Program on T steps of C channels on the CPU, where threads do not share the time."""
    return "lanes" if narrow(dtype, T, C) and "lanes" in strategies(program, "cpu") else "rows"


def _on_cpu(program: Program, dtype: str) -> Launch:
    """A Program's kernels as one: each call goes to the one that its size is for; one that leaves threads without work to
    blocks of time, where the Program can be cut so."""
    @functools.cache
    def loaded(strategy: Strategy) -> Launch:
        return native.recall(program, dtype, strategy, stored.versions(),
                             functools.partial(source_of, program, "cpu", dtype, strategy=strategy))

    @functools.lru_cache(1024)
    def fit(B: int, T: int, C: int) -> Strategy:
        strategy = strategy_of(program, dtype, T, C)
        _launch.info("%s at (B, T, C) = (%d, %d, %d): %s", program.name, B, T, C, strategy)
        return strategy

    @functools.lru_cache(1024)
    def cut(B: int, T: int, C: int) -> tuple[Strategy, int, int]:
        strategy: Strategy = "chained_lanes" if fit(B, T, C) == "lanes" else "chained"
        steps, width = 0, 0
        if strategy in strategies(program, "cpu"):
            steps, width = blocks(schedule(program, "cpu", dtype, strategy), B, T, C)
            _launch.info("%s at (B, T, C) = (%d, %d, %d): blocks of %d steps, %d channels", program.name, B, T, C, steps, width)
        return strategy, steps, width

    def run(values: Sequence[int], threads: int, *where: int) -> None:
        B, T, C = values[-3:]
        if threads > 1 and B * T * C >= native.SMALL and spare(B, C, threads) and not native.forked():
            strategy, steps, width = cut(B, T, C)
            if steps:
                loaded(strategy).run(values, threads, steps, width, 0)
                return
        loaded(fit(B, T, C)).run(values, threads, *where)

    def extent(B: int, T: int, C: int) -> Extent:
        return loaded(fit(B, T, C)).extent(B, T, C)

    def turned(values: Sequence[int], *where: int) -> None:
        _launch.info("%s at (B, T, C) = (%d, %d, %d), steps next to each other: lanes", program.name, *values[-3:])
        walk = loaded("lanes").turned
        assert walk is not None
        walk(values, *where)

    return Launch(run, extent, turned)


def _by_size(program: Program, dtype: str, loaded: Callable[[Strategy], Launch]) -> Launch:
    """The kernels of all strategies as one: each call goes to the one that its size is for."""
    kernels = schedules(program, "cuda", dtype)

    @functools.lru_cache(1024)
    def fit(B: int, T: int, C: int) -> tuple[Strategy, Extent]:
        strategy = chosen(kernels, B, T, C).strategy
        _launch.info("%s at (B, T, C) = (%d, %d, %d): %s", program.name, B, T, C, strategy)
        return strategy, source_of(program, "cuda", dtype, strategy=strategy).extent(B, T, C)

    def run(values: Sequence[int], *where: int) -> None:
        loaded(fit(*values[-3:])[0]).run(values, *where)

    def extent(B: int, T: int, C: int) -> Extent:
        return fit(B, T, C)[1]

    return Launch(run, extent)


def turns(program: Program) -> bool:
    """Whether native kernels take sequences that lie in memory as (B, C, T)."""
    return "lanes" in strategies(program, "cpu")


def backend_for(device: str) -> str:
    """The runner for tensors on a device: `LRDSL_BACKEND` if set, else native on the CPU and cuda on a GPU."""
    return options.backend() or ("cuda" if device == "cuda" else "native")


def source(cell: Cell, target: Target = "cuda", stage: str | None = None, *, arch: str = "sm_90",
           dtype: str = "float32", solver: str | Newton | None = None) -> str:
    """The generated text for "cuda" or "cpu": of `forward`, of `backward`, or of both in one file."""
    return compile(cell, target, arch, dtype, solver).source(stage)


def explain(cell: Cell, dtype: str = "float32", solver: str | Newton | None = None) -> str:
    """What was found in a cell and what was generated, or why it cannot run as it is."""
    _check("cpu", dtype)
    cell = solved(cell, solver)
    try:
        real, plan = realify(cell.spec), plan_of(cell.spec)
        found = partition(stratify(real))
        newton = newton_of(plan.programs)
        stages = {"forward": plan.programs, **({"newton": newton} if newton else {}),
                  "backward": tuple(backward_of(p) for p in plan.programs)}
        kernels: dict[str, explanation.Kernels] = {
            target: {name: tuple(k for p in programs for k in schedules(p, target, dtype)) for name, programs in stages.items()}
            for target in TARGETS}
    except CellError as error:
        return explanation.refused(cell.spec, error)
    memory = footprint(plan, [adjoint_of(p, inner_keeps(p)) for p in plan.programs], dtype)
    return explanation.text(cell.spec, real, found, plan, stages["backward"], kernels, memory, dtype)


def _dump(spec: Spec, number: int, name: str, made: Any) -> None:
    """One stage as a file below `LRDSL_DUMP/<cell>-<key>`."""
    place = options.dump_dir()
    if not place:
        return
    place = Path(place) / f"{spec.name}-{hashlib.sha256(str(spec).encode()).hexdigest()[:8]}"
    place.mkdir(parents=True, exist_ok=True)
    if name != "source":
        parts = made if isinstance(made, tuple) else (made,)
        (place / f"{number}-{name}.txt").write_text("\n\n".join(map(str, parts)) + "\n", encoding="utf-8")
        return
    for s in (s for sources in made.values() for s in sources):
        suffix = "cu" if s.target == "cuda" else "cpp"
        (place / f"{number}-{s.program.name}.{suffix}").write_text(s.text, encoding="utf-8")


# A Cell answers for itself; `frontend` imports nothing from here.
Cell.explain, Cell.source = explain, source  # type: ignore[attr-defined]


def _reserved(self: Cell, *_: Any, **__: Any) -> Any:
    raise NotBuilt("cell.report and cell.export are reserved names, not built yet", None,
                   "print(cell.explain()), or write cell.source(target) to a file")


Cell.report = Cell.export = _reserved  # type: ignore[attr-defined]
