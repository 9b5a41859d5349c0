"""The driver: a cell's way to text, stage by stage.

    @cell ─> Spec ─> real Spec ─> Strata ─> Plan ─> Programs, forward ─> backward ─> Kernels ─> Sources

`compile` below is the table of contents of the compiler: each line is one stage, checked, remembered in `Compiled.stages`
and written to `LRDSL_DUMP` where that is set. Everything after `Program` is the same for forward and backward passes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import explain as explanation
from . import options
from .codegen.emit import emit, emit_together
from .errors import BadDeclaration, CellError, NotBuilt
from .frontend.cell import Cell
from .ir.dtypes import DTYPES
from .ir.kernel import Kernel, Target
from .ir.solver import Newton, solver_of
from .ir.spec import Spec
from .passes.footprint import footprint
from .passes.partition import partition
from .passes.realify import realify
from .passes.schedule import schedules
from .passes.stratify import stratify
from .programs import adjoint_of, backward_of, inner_keeps, newton_of, plan_of, with_keeps

TARGETS: tuple[Target, ...] = ("cpu", "cuda")


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
    plan = keep("plan", with_keeps(partition(strata)))                                         # Strata -> Plan
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


@functools.cache
def dumped(spec: Spec) -> None:
    """Write the stages of a cell that is about to run, once in a process, where `LRDSL_DUMP` asks for them."""
    if options.dump_dir():
        compile(Cell(spec), "cpu")


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
