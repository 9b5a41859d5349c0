"""The kernels of a Program, compiled and loaded for a backend: one Launch, which sends each call to the kernel of its size."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

from . import options, stored
from .backends import cuda, emulated, native, reference
from .codegen.emit import emit
from .errors import BackendUnavailable
from .ir.kernel import Strategy, Target
from .ir.program import Program
from .ir.source import Extent, Launch, Source
from .passes.schedule import blocks, chosen, schedule, spare, strategies

_codegen, _launch = logging.getLogger("lrdsl.codegen"), logging.getLogger("lrdsl.launch")
BACKENDS = ("reference", "native", "cuda", "emulated")


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
        strategy = chosen(program, "cpu", dtype, B, T, C)
        native.begin(program, dtype, strategy, stored.versions(), functools.partial(source_of, program, "cpu", dtype,
                                                                                    strategy=strategy))


def _on_cpu(program: Program, dtype: str) -> Launch:
    """A Program's kernels as one: each call goes to the one that its size is for; one that leaves threads without work to
    blocks of time, where the Program can be cut so."""
    fit = _fit(program, "cpu", dtype)

    @functools.cache
    def loaded(strategy: Strategy) -> Launch:
        return native.recall(program, dtype, strategy, stored.versions(),
                             functools.partial(source_of, program, "cpu", dtype, strategy=strategy))

    scheduled = functools.cache(functools.partial(schedule, program, "cpu", dtype))

    @functools.lru_cache(1024)
    def way(B: int, T: int, C: int, threads: int) -> tuple[Callable[..., None], tuple[int, ...]]:
        """What runs, and what it takes beside threads, if anything is to be said."""
        alone = fit(B, T, C)
        strategy: Strategy = "chained_lanes" if alone == "lanes" else "chained"
        if threads > max(B, 1) and strategy in strategies(program, "cpu") and spare(scheduled(strategy), B, C, threads):
            steps, width = blocks(scheduled(strategy), B, T, C)
            _launch.info("%s at (B, T, C) = (%d, %d, %d): blocks of %d steps, %d channels", program.name, B, T, C, steps, width)
            if steps:
                return loaded(strategy).run, (steps, width, 0)
        return loaded(alone).run, ()

    def run(values: Sequence[int], threads: int, *where: int) -> None:
        B, T, C = values[-3:]
        if threads > 1 and (B * T * C < native.SMALL or native.forked()):
            threads = 1
        walk, said = way(B, T, C, threads)
        walk(values, threads, *(said or where))

    def extent(B: int, T: int, C: int) -> Extent:
        return loaded(fit(B, T, C)).extent(B, T, C)

    def turned(values: Sequence[int], *where: int) -> None:
        _launch.info("%s at (B, T, C) = (%d, %d, %d), steps next to each other: lanes", program.name, *values[-3:])
        walk = loaded("lanes").turned
        assert walk is not None
        walk(values, *where)

    return Launch(run, extent, turned)


def _by_size(program: Program, dtype: str, loaded: Callable[[Strategy], Launch]) -> Launch:
    """A Program's CUDA kernels as one, in the same way."""
    fit = _fit(program, "cuda", dtype)

    def run(values: Sequence[int], *where: int) -> None:
        loaded(fit(*values[-3:])).run(values, *where)

    @functools.lru_cache(1024)
    def extent(B: int, T: int, C: int) -> Extent:
        return source_of(program, "cuda", dtype, strategy=fit(B, T, C)).extent(B, T, C)

    return Launch(run, extent)


def _fit(program: Program, target: Target, dtype: str) -> Callable[[int, int, int], Strategy]:
    """`chosen`, remembered, and said when it is first asked for a size."""
    @functools.lru_cache(1024)
    def fit(B: int, T: int, C: int) -> Strategy:
        strategy = chosen(program, target, dtype, B, T, C)
        _launch.info("%s at (B, T, C) = (%d, %d, %d): %s", program.name, B, T, C, strategy)
        return strategy

    return fit


def turns(program: Program) -> bool:
    """Whether native kernels take sequences that lie in memory as (B, C, T)."""
    return "lanes" in strategies(program, "cpu")


def backend_for(device: str) -> str:
    """The runner for tensors on a device: `LRDSL_BACKEND` if set, else native on the CPU and cuda on a GPU."""
    return options.backend() or ("cuda" if device == "cuda" else "native")
