"""The generated kernels of the GPU drill, loaded and held to the definition of their Programs at a small size."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

import lrdsl as lr
from lrdsl.backends import cuda, cuda_compile, emulated
from lrdsl.codegen.emit import emit
from lrdsl.errors import LrdslError
from lrdsl.ir.kernel import Kernel
from lrdsl.ir.program import Program
from lrdsl.ir.source import Launch, Source
from lrdsl.passes.schedule import schedules

from .cells import zoo
from .compare import TOLERANCE
from .gpu_layout import difference, numbers, place, wanted
from .gpu_records import Records, origin, read

SMALL = {"cuda": (2, 1100, 40), "emulated": (2, 290, 5)}  # several chunks, a last warp with idle lanes


@dataclass(frozen=True)
class Work:
    """A Program and its kernels, by strategy; those of `launches` are ready to run."""

    program: Program
    way: str
    kernels: tuple[Kernel, ...]
    sources: Mapping[str, Source]
    launches: Mapping[str, Launch]

    @property
    def size(self) -> int:
        """Bytes of a step and channel that have to be moved."""
        return sum(self.kernels[0].bytes)


def works(cells: Iterable[str], dtype: str = "float32") -> Iterator[Work]:
    """Every Program of the cells that this version has, nothing loaded yet."""
    for name in cells:
        if cell := zoo(name):
            stages = lr.compile(cell, "cpu").stages
            for way in ("forward", "backward"):
                for program in stages[way]:
                    kernels = schedules(program, "cuda", dtype)
                    yield Work(program, way, kernels, {k.strategy: emit([k])[0] for k in kernels}, {})


def load(source: Source, device: str) -> Launch:
    """A kernel on the backend of a device: "cuda", or "emulated", which runs the same text on the CPU."""
    return emulated.load(source) if device == "emulated" else cuda.load(source)


def check(records: Records, cells: Sequence[str]) -> None:
    """Run every kernel once at a small size beside the definition in float64, and record how far off it was. Raises SystemExit
    in the end where one was wrong.

    A part of its own, serial kernels first: a kernel that hangs, or after which CUDA refuses all work, costs no timing of those
    that were found right before it.
    """
    found, shape, wrong = list(works(cells)), SMALL[records.device], 0
    if records.device == "cuda":
        compile_all([s for work in found for s in work.sources.values()])
    for strategy in ("serial", "chunked"):
        for work in (w for w in found if strategy in w.sources):
            program = work.program
            print(f"checking {program.name}, {strategy}", flush=True)
            off, inputs = math.nan, numbers(program, *shape, tensors_on(records.device))
            try:
                launch = load(work.sources[strategy], records.device)
                off = difference(place(program, launch, inputs, *shape).solve(program), wanted(program, inputs))
                note = "" if off <= TOLERANCE else f"wrong by {off:.1e}"
            except (LrdslError, RuntimeError) as error:
                note = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            records.write("check", kernel=program.name, way=work.way, strategy=strategy, dtype="float32", shape=shape,
                          error=off, note=note)
            wrong += bool(note)
    if wrong:
        raise SystemExit(f"{wrong} kernels are wrong or did not run")


def ready(cells: Sequence[str], records: Records) -> list[Work]:
    """All works with the kernels that `check` found right, loaded. Raises SystemExit where it found none."""
    same = {"kind": "check", "device": records.device, "tree": origin()["tree"], "note": ""}
    right = {(r["kernel"], r["strategy"]) for r in read(records.path.parent) if {k: r[k] for k in same} == same}
    found = []
    for work in works(cells):
        good = {s: load(source, records.device) for s, source in work.sources.items() if (work.program.name, s) in right}
        found += [replace(work, launches=good)] if good else []
    if not found:
        raise SystemExit("the part `check` has found no kernel right, so that there is none to time")
    return found


def compile_all(sources: Sequence[Source]) -> None:
    """Have nvcc, which takes a second a kernel, compile at once what is launched later."""
    arch = "sm_{}{}".format(*torch.cuda.get_device_capability())

    def one(source: Source) -> None:
        with suppress(LrdslError):  # the launch says it again, and is recorded
            cuda_compile.cubin(source.text, source.entry, arch)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, sources))


def tensors_on(device: str) -> str:
    """Where torch's tensors lie: the emulator's are the CPU's."""
    return "cuda" if device == "cuda" else "cpu"
