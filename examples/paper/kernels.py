"""Table 1 of the paper: the parallel kernel against the serial one, one sequence of m channels, forward.

    python -m examples.paper.kernels                    (--quick: a few small sizes; --device cuda: on a GPU)

The paper's design is Algorithm 1: time in slices, one a processor; what each does to a state is added up, and when the states
between them are known all steps are walked again. Ours is what lrdsl chooses to run at a size.

On a GPU: the `serial` kernel of lrdsl, a thread a channel; the paper's three launches, with up to 960 warps; ours, in chunks or
serial. On a CPU, serial is lrdsl's kernel `rows` on one thread, which walks time once with the channels in its vectors. Ours
is what lrdsl runs on all threads: for a few channels `lanes`, whose vectors hold consecutive steps, and where the sequences do
not fit the cache, blocks of time that the threads share. The paper's design is its natural counterpart, three phases, where a
thread has 1, 4 or 8 slices of time, whichever is fastest (steps of one are computed while those of the others wait). It reads
twice and multiplies three times as often, so that by the paper's own count it wins from three processors on. By hand: its last
phase alone, as one slice, which is the serial walk with no more in it than this recurrence needs; where it is faster than
lrdsl's, so would be its design for that.

The CUDA texts of both are compared on the emulator: bytes moved, and steps on the critical path, which are those that one
thread takes after another or waits for, on 132 multiprocessors: steps of the recurrence, sums of stretches, states handed on.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import lrdsl as lr
from benchmarks.compare import TOLERANCE, error
from benchmarks.gpu_layout import Call, numbers, place
from benchmarks.peers import loop
from lrdsl.backends import cuda, native
from lrdsl.backends.emulated import Emulator
from lrdsl.backends.emulated_counts import Counts
from lrdsl.codegen.emit import emit
from lrdsl.ir.kernel import Chunks, Kernel
from lrdsl.ir.source import CHANNELS, Launch
from lrdsl.kernels import launch_of, source_of
from lrdsl.nn.threads import share_threads
from lrdsl.passes.schedule import chosen, schedules

from . import common
from .three_launches import LANES, WARPS, ThreeLaunches, blocks, slices, three_phases

# Table 1 of the paper: {T: speed-ups at m = 4, 32, 128}.
PAPER = {16: (0.06, 0.06, 0.05), 256: (0.22, 0.22, 0.86), 4096: (1.02, 2.94, 3.36), 65536: (38.5, 41.8, 17.5)}
MS, TS = (4, 32, 128), tuple(4**k for k in range(2, 11))
MULTIPROCESSORS = 132
SERIAL, OURS, DESIGN, BY_HAND = "serial", "lrdsl", "the paper's design", "by hand"
NEVER_SLOWER = 0.97

PROGRAM = lr.compile(lr.cells.linear_scan, "cuda").stages["forward"][0]
KERNELS: tuple[Kernel, ...] = schedules(PROGRAM, "cuda", "float32")


def candidates(a: Tensor, b: Tensor, threads: int) -> dict[str, tuple[Callable[[], object], Callable[[], Tensor]]]:
    """By name, what to run on (T, m) and where it leaves h. The paper's design may be there in several forms."""
    (T, m), inputs = a.shape, {"a": a[None], "b": b[None]}

    def ours(launch: Launch) -> tuple[Call, Callable[[], Tensor]]:
        call = place(PROGRAM, launch, inputs, 1, T, m)
        return call, lambda: call.outputs["h"][0]
    if a.is_cuda:
        three = ThreeLaunches(a, b)
        texts = {k.strategy: cuda.load(emit([k])[0]) for k in KERNELS}
        return {SERIAL: ours(texts["serial"]), OURS: ours(texts[chosen(PROGRAM, "cuda", "float32", 1, T, m)]),
                DESIGN: (three.on_gpu(), lambda: three.h)}
    share_threads()
    serial, of_serial = ours(native.load(source_of(PROGRAM, "cpu", "float32")))
    fit = launch_of(PROGRAM, "float32", "native")
    parallel, of_parallel = ours(fit)
    found: dict[str, tuple[Callable[[], object], Callable[[], Tensor]]] = {
        SERIAL: (serial, of_serial), OURS: (lambda: fit(parallel.values, threads), of_parallel)}
    h = torch.empty_like(a)
    for each in (0, 1, 4, 8):
        name = f"{DESIGN}, {each} slices a thread" if each else BY_HAND
        found[name] = three_phases(a, b, h, each, threads), lambda: h
    return found


def measure(m: int, T: int, said: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """One row: seconds of each candidate, all of them held to a loop in float64 where T is small, else to the serial kernel."""
    given = numbers(PROGRAM, 1, T, m, said.device)
    a, b = given["a"][0], given["b"][0]
    made = candidates(a, b, said.threads)
    many, count = {}, 1
    want: Tensor | None = loop(a[None].double(), b[None].double())[0] if T <= 4096 else None
    for name, (run, h) in made.items():
        h().fill_(float("nan"))
        run()
        want = h().double() if want is None else want
        if not error(h(), want) <= TOLERANCE:
            raise SystemExit(f"{name} at m = {m}, T = {T} is wrong by {error(h(), want):.1e}")
    if said.device == "cpu":  # by the clock of a CPU, calls are too short to be timed one by one
        _, count = common.repeated(made[SERIAL][0])
    for name, (run, _) in made.items():
        many[name] = partial(_repeat, run, count)
    times = common.timed(many, said.device, seconds)
    kinds = {kind: [n for n in times if n.startswith(kind)] for kind in (SERIAL, OURS, DESIGN, BY_HAND)}
    best = {kind: min(names, key=lambda n: times[n].median) for kind, names in kinds.items() if names}
    return {"m": m, "T": T, "calls a run": count, "design": best[DESIGN],
            **{kind: common.spread(times[name]) for kind, name in best.items()}}


def _repeat(run: Callable[[], object], count: int) -> None:
    for _ in range(count):
        run()


def emulated(m: int, T: int) -> dict[str, Any]:
    """Bytes a step and channel and steps on the critical path, of both designs; the bytes counted by the emulator."""
    given = numbers(PROGRAM, 1, T, m, "cpu")
    three = ThreeLaunches(given["a"][0], given["b"][0])
    strategy = chosen(PROGRAM, "cuda", "float32", 1, T, m)
    kernel = next(k for k in KERNELS if k.strategy == strategy)
    source = emit([kernel])[0]
    call = place(PROGRAM, Launch(lambda *_: None, source.extent), given, 1, T, m)
    ours = Emulator(source).run(call.values, scratch=call.scratch.data_ptr(), sectors=True)
    return {"m": m, "T": T, "strategy": kernel.strategy, "bytes of the paper's": moved(three.emulate()) / T / m,
            "bytes of ours": moved([ours]) / T / m, "steps of serial": T, "steps of the paper's": steps_of_three(T, m),
            "steps of ours": T if kernel.chunks is None else steps_of_chunks(kernel.chunks, T, m)}


def moved(launches: list[Counts]) -> int:
    """Bytes of all sectors that warps asked for, once a request, messages and scratch memory included."""
    return 32 * sum(line.sectors for counts in launches for line in counts.lines.values())


def steps_of_three(T: int, C: int) -> int:
    """The longest path of the paper's launches: every one waits for all of the one before it."""
    walk, channels = max(slices(T)) * -(-C // LANES), -(-C // (WARPS * LANES))
    return walk + WARPS * channels + blocks(T) * channels + WARPS * channels + walk


def steps_of_chunks(chunks: Chunks, T: int, C: int, multiprocessors: int = MULTIPROCESSORS) -> int:
    """The longest path of a chunked kernel, for a diagonal recurrence: when each chunk has told its transition, knows the state
    before it, and is done. Chunks begin in order, as many at once as there is room for."""
    rows, warps, each = -(-C // CHANNELS), chunks.warps, 4
    group = each * (warps - 1) + 1
    running: list[int] = []
    told, handed_on = list[int](), 0  # when; of the chunks of this group, of the last state of the group before
    for c in range(-(-T // chunks.length)):
        places = max(1, multiprocessors * chunks.at_once // rows)
        begin = heapq.heappop(running) if len(running) == places else 0
        if c % group == 0:
            told, start = [], handed_on
        added = begin + chunks.steps + warps
        state = max(added, start)
        for first in range(0, len(told), each):
            some = told[first:first + each]
            state = max(state, max(max(some), added) + len(some)) + 1
        told.append(added)
        handed_on = state + 1
        heapq.heappush(running, state + 1 + chunks.steps)
    return max(running)


def render(record: common.Record) -> str:
    """Table 1, and the emulator's."""
    rows = {(r["T"], r["m"]): r for r in record["rows"]}
    ms = sorted({m for _, m in rows})
    kinds = [kind for kind in (DESIGN, OURS, BY_HAND) if kind in record["rows"][0]]
    head = ["T", *(f"m={m}: {what}" for m in ms for what in ("paper", "its design", "ours", BY_HAND)[:len(kinds) + 1])]
    lines = [[f"{T:,}", *(x for m in ms for x in (
        common.ratio(dict(zip(MS, PAPER.get(T, ()), strict=False)).get(m)),
        *(common.ratio(speed_up(rows[T, m], kind)) for kind in kinds)))] for T in sorted({T for T, _ in rows})]
    ratios = {f"m = {m}, T = {T:,}": speed_up(row, OURS) for (T, m), row in rows.items()}
    slow = [f"{what} ({x:.2f})" for what, x in ratios.items() if x < NEVER_SLOWER]
    text = ["How many times as fast as lrdsl's serial kernel. *paper*: its Table 1, over its own; the others: here.",
            common.table(head, lines),
            f"Ours is below {NEVER_SLOWER} of serial " + (f"at {', '.join(slow)}." if slow else "nowhere.")]
    if record["emulated"]:
        text += ["The CUDA texts on the emulator: bytes a step and channel, in sectors of 32 bytes, of sequences and of what "
                 f"processors tell each other; steps on the critical path, with {MULTIPROCESSORS} multiprocessors.",
                 common.table(["m, T", "bytes: paper's", "ours", "steps: serial", "paper's", "ours", "our kernel"], [
                     [f"{r['m']}, {r['T']:,}", *(f"{r[f'bytes of {x}']:.2f}" for x in ("the paper's", "ours")),
                      *(f"{r[f'steps of {x}']:,}" for x in ("serial", "the paper's", "ours")), r["strategy"]]
                     for r in record["emulated"]])]
    return "\n\n".join(text)


def speed_up(row: dict[str, Any], kind: str) -> float:
    """Times as fast as serial."""
    return row[SERIAL]["median"] / row[kind]["median"]


def draw(record: common.Record, sheet: Any) -> None:
    """Speed-ups over T, a panel each m."""
    ms = sorted({r["m"] for r in record["rows"]})
    for m, ax in zip(ms, sheet.subplots(1, len(ms), squeeze=False, sharey=True)[0], strict=True):
        rows = [r for r in record["rows"] if r["m"] == m]
        for kind, color in ((DESIGN, "C1"), (OURS, "C0"), (BY_HAND, "C2")):
            if kind in rows[0]:
                ax.plot([r["T"] for r in rows], [speed_up(r, kind) for r in rows], "o-", color=color, label=kind)
        said = [(T, ups[MS.index(m)]) for T, ups in PAPER.items() if m in MS]
        ax.plot(*zip(*said, strict=True), "x:", color="gray", label="paper's Table 1, its GPU")
        ax.axhline(1, color="black", linewidth=0.7)
        ax.set(xscale="log", yscale="log", title=f"m = {m}", xlabel="T")
        ax.legend(fontsize=7)
    sheet.supylabel("times as fast as the serial kernel")


def main(arguments: list[str] | None = None) -> common.Record:
    """Measure, print and write."""
    said = common.options(__doc__).parse_args(arguments)
    common.prepare(said)
    ms, Ts = ((4, 32), (16, 2048)) if said.quick else (MS, TS)
    sizes = [(m, T) for m in ms for T in Ts]
    rows = [measure(m, T, said, 0.02 if said.quick else 2.0) for m, T in common.progress(sizes, "timing", len(sizes))]
    counted = [(m, T) for m, T in sizes if T <= 65536]
    found = [emulated(m, T) for m, T in common.progress(counted, "on the emulator", len(counted))]
    return common.save(said, "kernels", rows, render, draw, emulated=found)


if __name__ == "__main__":
    main()
