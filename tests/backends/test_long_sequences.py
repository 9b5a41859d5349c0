"""A million steps in float32: no kernel is further from the truth than twice a plain loop, and 4 units in the last place.

The plain loop computes in float32 too, one product and one sum after the other, nothing fused; the truth is the same loop in
float64. Gates are 0, 1, 1e-30, saturated, and what lies between, a kind a channel.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrdsl.backends import native
from lrdsl.ir.source import RESET
from lrdsl.programs import plan_of
from tests.backends.harness import Problem
from tests.backends.structures import STRUCTURES
from tests.backends.test_not_finite import put
from tests.backends.test_structure_bounds import launch

Array = Any

pytestmark = pytest.mark.usefixtures("compiler", "always_threads")

LOOPS = """
#include <cmath>
template <class R> struct Loops {
  static void diagonal(long T, long C, const float *const *in, R *h) {
    for (long c = 0; c < C; ++c) {
      R x = 0;
      for (long t = 0; t < T; ++t) h[t * C + c] = x = (R)in[0][t * C + c] * x + (R)in[1][t * C + c];
    }
  }
  static void order_two(long T, long C, const float *const *in, R *h) {
    for (long c = 0; c < C; ++c) {
      R x = 0, y = 0;
      for (long t = 0, i = c; t < T; ++t, i += C) {
        const R next = (R)in[0][i] * x + (R)in[1][i] * y + (R)in[2][i];
        y = x, h[i] = x = next;
      }
    }
  }
  static void rotation(long T, long C, const float *const *in, R *h) {
    for (long c = 0; c < C; ++c) {
      R x = 0, y = 0;
      for (long t = 0, i = c; t < T; ++t, i += C) {
        const R next = (R)in[0][i] * x - (R)in[1][i] * y + (R)in[2][i];
        y = (R)in[1][i] * x + (R)in[0][i] * y + (R)in[3][i];
        h[i] = x = next;
      }
    }
  }
  static void logaddexp(long T, long C, const float *const *in, R *h) {
    for (long c = 0; c < C; ++c) {
      R x = 0;
      for (long t = 0, i = c; t < T; ++t, i += C) {
        const R past = (R)in[0][i] + x, rest = in[1][i];
        h[i] = x = std::fmax(past, rest) + std::log1p(std::exp(-std::fabs(past - rest)));
      }
    }
  }
};
#define LOOP(name) \\
  extern "C" void name##_f4(long T, long C, const float *const *in, float *h) { Loops<float>::name(T, C, in, h); } \\
  extern "C" void name##_f8(long T, long C, const float *const *in, double *h) { Loops<double>::name(T, C, in, h); }
LOOP(diagonal) LOOP(order_two) LOOP(rotation) LOOP(logaddexp)
"""
CASES = {"diagonal": ("diagonal", ("a", "b")), "order 2": ("order_two", ("a", "b", "p")),
         "rotation": ("rotation", ("c", "s", "p", "q")), "logaddexp-plus": ("logaddexp", ("a", "b"))}


@pytest.fixture(scope="session")
def loops(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The plain loops, compiled without fused products."""
    place: Path = tmp_path_factory.mktemp("loops") / "loops.so"
    flags = ("-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-x", "c++", "-")
    subprocess.run([*native.compiler(), *flags, "-o", str(place)], input=LOOPS, text=True, check=True)
    return ctypes.CDLL(str(place))


# Gates that forget and gates that do not. Errors of the latter are random walks, of which one says little: four channels each.
FORGETS, LASTS = ("0", "1e-30", "saturated", "between", "0, 1 and 1e-30"), ("1", "near 1", "3e-5 from 1", "the largest below 1")
KINDS = (*FORGETS, *LASTS) * 2 + LASTS * 2  # of each channel


def gates(rng: Any, T: int) -> Array:
    """(T, channels)."""
    draw = functools.partial(rng.random, T)

    def one(kind: str) -> Array:
        match kind:
            case "saturated":  # sigmoids that are 1, nearly 0, and 2e-35 in float32
                return 1 / (1 + np.exp(rng.choice([-80.0, 20, 80], T)))
            case "between":
                return draw()
            case "0, 1 and 1e-30":
                return np.choose(rng.integers(0, 3, T), (1.0, 0.0, 1e-30))
            case "near 1":
                return 1 - 8 / T * draw()
            case "3e-5 from 1":  # their products are all rounded the same way
                return 1 - 6e-5 * draw()
        return np.full(T, 1 - 2.0**-24 if kind == "the largest below 1" else float(kind))

    return np.stack([one(kind) for kind in KINDS], 1)


def inputs(name: str, T: int) -> dict[str, Array]:
    """float32 numbers (T, channels)."""
    rng = np.random.default_rng(T)
    gate = gates(rng, T)
    shape = gate.shape
    part, angle = rng.random(shape), rng.uniform(-3, 3, shape)
    with np.errstate(divide="ignore"):
        made = {"diagonal": (gate,), "order 2": (gate * part, gate * (1 - part)),
                "rotation": (gate * np.cos(angle), gate * np.sin(angle)), "logaddexp-plus": (np.log(gate),)}[name]
    names = CASES[name][1]
    rests = rng.standard_normal((len(names) - len(made), *shape))
    several = np.arange(shape[1]) >= len(set(KINDS))
    rests = np.where(several, np.abs(rests), rests)  # beside one of both signs, those whose roundings conspire
    return {n: v.astype(np.float32) for n, v in zip(names, (*made, *rests), strict=True)}


def loop(loops: ctypes.CDLL, name: str, given: dict[str, Array], dtype: str) -> Array:
    rows = [np.ascontiguousarray(given[n]) for n in CASES[name][1]]
    T, C = rows[0].shape
    h = np.empty((T, C), dtype)
    addresses = (ctypes.c_void_p * len(rows))(*(r.ctypes.data for r in rows))
    getattr(loops, f"{CASES[name][0]}_{dtype}")(ctypes.c_long(T), ctypes.c_long(C), addresses, ctypes.c_void_p(h.ctypes.data))
    return h


def worst(loops: ctypes.CDLL, name: str, runner: str, T: int, change: Any = str) -> dict[str, float]:
    """The largest error of each kind of gates, over what is allowed; errors are parts of the largest |h| of their channel."""
    given = inputs(name, T)
    exact, plain = (loop(loops, name, given, dtype) for dtype in ("f8", "f4"))
    [program] = plan_of(STRUCTURES[name].cell.spec).programs
    C = exact.shape[1]
    problem = Problem(program, T, B=1, C=C, given={**dict.fromkeys([*program.inputs, RESET]),
                                                   **{n: v[None, :, None] for n, v in given.items()}})
    ours = problem.solve(launch(program, runner, change), 1, C, dtype="float32", threads=2)[program.keeps[0].name][0, :, 0]
    largest = np.abs(exact).max(0)
    error, allowed = (np.abs(h - exact).max(0) / largest for h in (ours, plain))
    ulp = np.spacing(largest.astype(np.float32)) / largest
    found = {}
    for kind in dict.fromkeys(KINDS):
        which = np.array(KINDS) == kind
        found[kind] = float(error[which].max() / (2 * allowed[which].max() + 4 * ulp[which].max()))
    return found


@pytest.mark.parametrize("runner", ["serial", "chunked"])
@pytest.mark.parametrize("name", ["diagonal", "order 2", "logaddexp-plus"])
def test_no_kernel_is_much_further_from_the_truth_than_a_plain_loop(loops: ctypes.CDLL, name: str, runner: str) -> None:
    assert max(worst(loops, name, runner, 20_000).values()) <= 1


@pytest.mark.long
@pytest.mark.parametrize("runner", ["native", "serial", "chunked"])
@pytest.mark.parametrize("name", CASES)
def test_no_kernel_is_after_a_million_steps(loops: ctypes.CDLL, name: str, runner: str) -> None:
    assert max(worst(loops, name, runner, 1_000_000).values()) <= 1


MUTANTS = {
    "coefficients rounded to 16 bits": ("order 2", "chunked", r"(const V [ab]_ = )(at\[k\]\.[ab]_);",
                                        r"\1__uint_as_float(__float_as_uint(\2) & 0xffffff00u);"),
    "a sum of exponentials off by 1e-6": ("logaddexp-plus", "chunked", r"\+ lr_log1p_exp\(d\)", "+ lr_log1p_exp(d) * 1.00001f"),
    "a product without its rounding error": ("diagonal", "chunked", r"return p\[i\] \+ p\[1\];", "return p[i];"),
    "a state rounded to 16 bits": ("diagonal", "native", r"put<WHOLE>\(at\.h_kept \+ c, h, n\)",
                                   "put<WHOLE>(at.h_kept + c, (V)((I)h & -256), n)"),
    "a turn off by 1e-6": ("rotation", "serial", r"= s_\*x_prev", "= 1.000001f*s_*x_prev"),
}


QUICK = "a product without its rounding error"


@pytest.mark.parametrize("mutant", [pytest.param(m, marks=() if m == QUICK else pytest.mark.long) for m in MUTANTS])
def test_a_spoiled_kernel_is_further(loops: ctypes.CDLL, mutant: str) -> None:
    name, runner, old, new = MUTANTS[mutant]
    assert max(worst(loops, name, runner, 100_000, put(old, new)).values()) > 1
