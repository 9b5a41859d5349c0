"""The functions of templates/cpu/vmath.h beside glibc's vectors (libmvec) and torch: time for 16 numbers in L1, and errors.

    python -m benchmarks.vmath --out DIR                       every function, dtype and instruction set that runs here
    python -m benchmarks.vmath --functions exp tanh --march native --dtypes float

Times are what a fifth of interleaved runs stay below (other work only adds to a run), of a loop over 1024 numbers in [-6, 6],
for the logarithm and the root positive ones; ours and libmvec's are compiled alike, and torch's time is the difference between
two lengths, so that its call does not count.
Cycles are of the clock that a chain of additions shows. An error is the largest over the sample of tests/vmath.py, in ulp
(gelu: of x; sin and cos: where |x| is at most 1e5): what is flushed to 0, or thought to be 0, has large ones. libmvec
promises 4 ulp; it is called by its own names, without -ffast-math.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests import vmath

from .table import heading
from .timing import measured

SETS = ("native", "x86-64-v3", "x86-64")
LETTERS = {16: "b", 32: "d", 64: "e"}  # of the names in libmvec, by the bytes of a vector
COUNT, TURNS = 1024, 200
Array = Any


@dataclass(frozen=True)
class Row:
    """Nanoseconds and cycles are for 16 numbers; errors in ulp; None where there is no such function."""

    march: str
    dtype: str
    function: str
    ns: float
    cycles: float
    error: float
    libmvec_ns: float | None
    libmvec_ratio: float | None
    libmvec_error: float | None
    torch_ns: float | None
    torch_error: float | None


def loops(names: Sequence[str]) -> str:
    """For each name of a function on vectors, a loop over numbers, some turns long."""
    return "".join(f"""
static __attribute__((noinline)) void once_{n}(const real *x, real *y, long n) {{
  for (long i = 0; i < n; i += LANES) store(y + i, {n}(load(x + i)));
}}
extern "C" void time_{n}(const real *x, real *y, long n, long turns) {{
  for (long k = 0; k < turns; ++k) once_{n}(x, y, n);
}}""" for n in names)


CHAIN = """
extern "C" long chain(long n) {
  long x = 0;
  for (long k = 0; k < n; ++k) {
    x += 1;
    asm volatile("" : "+r"(x));
  }
  return x;
}
"""


def library(march: str, dtype: str, functions: Sequence[str], place: Path) -> tuple[Any, dict[str, str]]:
    """(the loops, the name of libmvec's function for those that it has)."""
    size = vmath.NUMPY[dtype].itemsize
    text = vmath.header(dtype) + loops([f"lr_{f}" for f in functions]) + CHAIN + 'extern "C" int width() { return LR_BYTES; }\n'
    product = place / f"ours-{march}-{dtype}.so"
    vmath.compile_text(["g++", f"-march={march}", "-shared"], text, product)
    ours = ctypes.CDLL(str(product))
    width, named = ours.width(), {}
    try:
        glibc = ctypes.CDLL("libmvec.so.1")
    except OSError:
        return ours, {}
    for f in functions:
        name = f"_ZGV{LETTERS[width]}N{width // size}v_{f}{'' if dtype == 'double' else 'f'}"
        if hasattr(glibc, name):
            named[f] = name
    return ours, named


def peers(march: str, dtype: str, named: dict[str, str], place: Path) -> Any:
    """The same loops over libmvec's functions."""
    text = vmath.header(dtype) + "".join(f'extern "C" V {name}(V);\n' for name in named.values()) + loops([*named.values()])
    product = place / f"libmvec-{march}-{dtype}.so"
    source = place / f"libmvec-{march}-{dtype}.cpp"
    source.write_text(text)
    command = ["g++", f"-march={march}", *vmath.FLAGS, "-shared", str(source), "-o", str(product), "-lmvec", "-lm"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(product))


def looped(loop: Any, x: Array) -> Callable[[], None]:
    """The loop over x, TURNS times. Both arrays begin a line of the cache, and half a page apart: a load that looks like one of
    what was just stored would wait for it."""
    bytes_ = np.empty(2 * x.nbytes + 4096, "u1")
    first = -bytes_.ctypes.data % 64
    given, result = (bytes_[at:at + x.nbytes].view(x.dtype) for at in (first, first + x.nbytes + 2048))
    given[...] = x
    arguments = [*vmath.pointers(given, result), ctypes.c_long(x.size), ctypes.c_long(TURNS)]
    return lambda: (loop(*arguments), bytes_)[0]


def over(loop: Any, x: Array) -> Array:
    """The loop's function of x, any number of them."""
    padded = np.concatenate([x, np.ones(-x.size % 16, x.dtype)])
    y = np.empty_like(padded)
    loop(*vmath.pointers(padded, y), ctypes.c_long(padded.size), ctypes.c_long(1))
    return y[:x.size]


def in_torch(function: str, x: Array) -> Callable[[], Array]:
    """torch's function of x, into memory that is there."""
    call, given = getattr(torch.ops.aten, function).out, torch.from_numpy(x)
    out = torch.empty_like(given)
    return lambda: call(given, out=out).numpy()


def turned(run: Callable[[], object]) -> Callable[[], None]:
    """TURNS of it."""
    def turns() -> None:
        for _ in range(TURNS):
            run()
    return turns


def worst(function: str, dtype: str, found: Callable[[Array], Array]) -> float:
    """The largest error over the sample, in ulp."""
    x, expected = vmath.reference(function, dtype)
    if function in ("sin", "cos"):
        x, expected = x[abs(x) <= 1e5], expected[abs(x) <= 1e5]
    return float(vmath.error(function, found(x), x, expected).max())


def rows(march: str, dtype: str, functions: Sequence[str], seconds: float, place: Path) -> Iterator[Row]:
    """The functions for one instruction set and dtype."""
    ours, named = library(march, dtype, functions, place)
    theirs = peers(march, dtype, named, place) if named else None
    for f in functions:
        x = np.random.default_rng(0).uniform(-6, 6, 4 * COUNT).astype(vmath.NUMPY[dtype])
        x = abs(x) + x.dtype.type(1e-3) if f in ("log", "log1p", "sqrt") else x
        own = getattr(ours, f"time_lr_{f}")
        peer = getattr(theirs, f"time_{named[f]}") if f in named else None
        chain = functools.partial(ours.chain, ctypes.c_long(COUNT * TURNS))
        candidates = {"ours": looped(own, x[:COUNT]), "chain": chain}
        if peer:
            candidates["libmvec"] = looped(peer, x[:COUNT])
        if march == "native":
            candidates |= {"short": turned(in_torch(f, x[:COUNT])), "long": turned(in_torch(f, x))}
        taken = {name: times.low for name, times in measured(candidates, seconds, 1000).items()}
        unit = TURNS * COUNT / 16 * 1e-9  # from seconds to nanoseconds for 16 numbers
        yield Row(march, dtype, f, taken["ours"] / unit, 16 * taken["ours"] / taken["chain"],
                  worst(f, dtype, functools.partial(over, own)),
                  *((taken["libmvec"] / unit, taken["ours"] / taken["libmvec"], worst(f, dtype, functools.partial(over, peer)))
                    if peer else (None, None, None)),
                  *(((taken["long"] - taken["short"]) / 3 / unit, worst(f, dtype, lambda x, f=f: in_torch(f, x)()))
                    if march == "native" else (None, None)))


def show(row: Row) -> str:
    """One line."""
    def text(value: float | None, digits: int = 2) -> str:
        return "-" if value is None else f"{value:.{digits}f}"
    return (f"{row.march:<11}{row.dtype:<8}{row.function:<10}{row.ns:>8.2f}{row.cycles:>8.1f}{row.error:>8.2f}"
            f"{text(row.libmvec_ns):>10}{text(row.libmvec_ratio):>8}{text(row.libmvec_error):>8}"
            f"{text(row.torch_ns):>9}{text(row.torch_error):>8}")


def main(said: Sequence[str] | None = None) -> None:
    """Measure, print, write `vmath.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", nargs="*", default=[*vmath.FUNCTIONS], choices=vmath.FUNCTIONS)
    parser.add_argument("--dtypes", nargs="*", default=[*vmath.NUMPY], choices=[*vmath.NUMPY])
    parser.add_argument("--march", nargs="*", default=[m for m in SETS if vmath.CPU_FLAGS[m] <= vmath.cpu_flags()])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each function")
    parser.add_argument("--out", type=Path, help="a directory for vmath.csv")
    asked = parser.parse_args(said)
    torch.set_num_threads(1)
    print("\n".join(heading("cpu")))
    print(f"{'for':<11}{'dtype':<8}{'function':<10}{'ns':>8}{'cycles':>8}{'ulp':>8}{'libmvec':>10}{'ratio':>8}{'ulp':>8}"
          f"{'torch':>9}{'ulp':>8}")
    found = []
    with tempfile.TemporaryDirectory() as place:
        for march in asked.march:
            for dtype in asked.dtypes:
                for row in rows(march, dtype, asked.functions, asked.seconds, Path(place)):
                    print(show(row), flush=True)
                    found.append(row)
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        with (asked.out / "vmath.csv").open("w", newline="") as file:
            file.writelines(f"# {line}\n" for line in heading("cpu"))
            writer = csv.writer(file)
            writer.writerow(f.name for f in fields(Row))
            for row in found:
                writer.writerow("" if v is None else f"{v:.4g}" if isinstance(v, float) else v for v in astuple(row))


if __name__ == "__main__":
    main()
