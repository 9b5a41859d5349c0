"""float32 kernels against float64 truth loops, number by number: no error above the rounding-error bounds of tests/bounds.py.

The bounds catch what a tolerance hides: gates rounded to bfloat16, one carry in a thousand lost. That they do is tested here
as well, on mutants: kernels whose text was spoiled.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lrdsl as lr
from lrdsl.ir.source import RESET
from tests import bounds, truth
from tests.backends.harness import Problem, load, load_all, programs
from tests.cells_for_tests import CELLS

Array = Any
Change = Callable[[str], str]
U = bounds.ROUNDOFF["float32"]
FMA = "fma" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "fma")
# Roundings a factor, and those of a term before and after its run (back.h[t] = a (back.h[t+1] + dh) is a sum of products).
COUNTS = {"c_m": 1 if FMA else 2, "c_a": 2}
ULP = 5  # lr_sigmoid and lr_tanh are off by at most 2.2 ulp, an ulp is at most 2 u
B, C = 2, 19  # a vector and a tail
TIMES = (1, 33, 257, 4096)

pytestmark = pytest.mark.usefixtures("compiler", "always_threads")


@dataclass(frozen=True)
class Rounded:
    """An exact value, and how far a float32 computation of it may be off."""

    value: Array
    err: Array

    def __add__(self, other: Rounded) -> Rounded:
        err = self.err + other.err
        return Rounded(self.value + other.value, err + U * (np.abs(self.value + other.value) + err))

    def __sub__(self, other: Rounded) -> Rounded:
        return self + Rounded(-other.value, other.err)

    def __mul__(self, other: Rounded) -> Rounded:
        return Rounded(self.value * other.value, bounds.product_bound(self.value, self.err, other.value, other.err, u=U))

    def sigmoid(self) -> Rounded:
        return Rounded(1 / (1 + np.exp(-self.value)), bounds.sigmoid_bound(self.value, self.err, u=U, ulp=ULP))

    def tanh(self) -> Rounded:
        return Rounded(np.tanh(self.value), bounds.tanh_bound(self.value, self.err, u=U, ulp=ULP))

    def previous(self, h0: Array, reset: Array) -> Rounded:
        """At t-1; the edge, which is exact, beyond a boundary."""
        return Rounded(bounds.previous(self.value, h0, reset=reset), bounds.previous(self.err, 0.0, reset=reset))

    def total(self) -> Rounded:
        """Its sum over time, added up in parts of 256, and then exactly over the batch."""
        err = bounds.sum_bound(self.value, self.err, u=U, block=min(256, self.value.shape[1]), axis=1)
        return Rounded(self.value.sum((0, 1)), err.sum(0))


def exact(value: Array) -> Rounded:
    return Rounded(value, np.zeros_like(value))


def scanned(a: Rounded, b: Rounded, h0: Array, reset: Array) -> Rounded:
    err = bounds.scan_bound(a.value, b.value, h0, a_err=a.err, b_err=b.err, reset=reset, u=U, **COUNTS)
    return Rounded(bounds.scan(a.value, b.value, h0, reset=reset), err)


def backward(a: Rounded, b: Rounded, dh: Rounded, h0: Array, reset: Array) -> tuple[Rounded, Rounded]:
    """The gradients of h (what reaches each sample) and of h0."""
    found = bounds.gradient_bounds(a.value, b.value, dh.value, h0, a_err=a.err, b_err=b.err, dh_err=dh.err, reset=reset, u=U,
                                   **COUNTS)
    cut = bounds._cuts(reset, a.value.shape, 1, False)
    g = bounds.scan(bounds.previous(np.where(cut, 0.0, a.value), reverse=True), dh.value, reverse=True)
    edge = np.where(cut, a.value * g, 0.0).sum(1)
    return Rounded(g, found.db), Rounded(edge, found.dh0 + U * np.abs(edge))  # added up in two parts


def kernel(cell: lr.Cell, kind: str, change: Change = str, number: int = -1) -> Callable[..., dict[str, Array]]:
    """The last Program of a cell (or another one) as a function of its tensors, in float64 but computed in float32."""
    program = programs(cell, [kind])[number]
    launch = load(program, "float32", change)

    def run(T: int, **given: Array) -> dict[str, Array]:
        named = {name.replace("__", "."): value for name, value in given.items()}
        problem = Problem(program, T, B=B, C=C, given={**dict.fromkeys([*program.inputs, RESET]), **named})
        return {n: v.astype(np.float64) for n, v in problem.solve(launch, B, C, "plain", "float32", 2).items()}

    return run


def drawn(rng: np.random.Generator, *shape: int) -> Array:
    """float32 numbers, in float64."""
    return rng.standard_normal(shape).astype(np.float32).astype(np.float64)


def boundaries(rng: np.random.Generator, T: int) -> Array:
    return rng.random((B, T)) < 2 / T


def gate_inputs(rng: np.random.Generator, T: int) -> Array:
    """Pre-activations; in two channels of three the gate is within 8/T of 1, so that memory is as long as the sequence."""
    far = 1 - min(8 / T, 0.9) * rng.random((B, T, C))
    return np.where(np.arange(C) % 3 < 2, np.log(far / (1 - far + 1e-9)), 2 * drawn(rng, B, T, C)).astype("f4").astype("f8")


def confirm(formulas: Mapping[str, Array], run: Callable[..., Any], dh: Array, **arrays: Array) -> Array:
    """The truth's h. Where the loop is short, the formulas of its gradients are compared with autograd's."""
    at = {n: truth.leaf(torch.from_numpy(a)) for n, a in arrays.items()}
    if dh.shape[1] > 257:
        with torch.no_grad():
            return run(**at)
    h = run(**at)
    found = torch.autograd.grad((h * torch.from_numpy(dh)).sum(), list(at.values()), allow_unused=True, materialize_grads=True)
    for name, gradient in zip(at, found, strict=True):
        if name in formulas:
            np.testing.assert_allclose(formulas[name], gradient.numpy(), rtol=1e-8, atol=1e-8, err_msg=name)
    return h.detach()


def worst(got: Mapping[str, Array], want: Mapping[str, Rounded | tuple[Array, Array]]) -> dict[str, float]:
    """The worst error over its bound, by name."""
    pairs = {n: (w.value, w.err) if isinstance(w, Rounded) else w for n, w in want.items()}
    return {n: bounds.ratio(got[n], *pair) for n, pair in pairs.items()}


# ---- what is checked: each gives the worst error over its bound, by output ----------------------------------------


def check_scan(T: int, change: Change = str) -> dict[str, float]:
    """linear_scan and its gradients: B1, B2, and the product rule of B8."""
    rng = np.random.default_rng(T)
    a, b = bounds.gates_near_one(rng, (B, T, C), T).astype("f8"), drawn(rng, B, T, C)
    h0, dh, reset = drawn(rng, B, C), drawn(rng, B, T, C), boundaries(rng, T)
    edges = {"h__start": h0[:, None], "h__edge": h0[:, None], RESET: reset}
    got = kernel(lr.cells.linear_scan, "forward", change)(T, a=a[:, :, None], b=b[:, :, None], **edges)
    back = kernel(lr.cells.linear_scan, "backward", change)(T, h=got["h"], a=a[:, :, None], h__grad=dh[:, :, None], **edges)

    h = scanned(exact(a), exact(b), h0, reset)
    likely = bounds.scan_bound(a, b, h0, reset=reset, u=U, lam=6, **COUNTS)
    g, d_h0 = backward(exact(a), exact(b), exact(dh), h0, reset)
    da = g * h.previous(h0, reset)
    true = confirm({"a": da.value, "b": g.value, "h0": d_h0.value},
                   lambda a, b, h0: truth.linear_scan(a, b, h0, torch.from_numpy(reset)), dh, a=a, b=b, h0=h0)
    return worst({"h": got["h"][:, :, 0], "h.final": got["h.final"][:, 0], "a": back["d.a"][:, :, 0], "b": back["d.b"][:, :, 0],
                  "h0": (back["d.h.start"] + back["d.h.edge"])[:, 0]},
                 {"h": (true, np.minimum(h.err, likely)), "h.final": (true[:, -1], h.err[:, -1]), "a": da, "b": g, "h0": d_h0})


def check_gilr(T: int, change: Change = str) -> dict[str, float]:
    """gilr: the error of its gates (B8) on top, and the sums over time."""
    rng = np.random.default_rng(T)
    u, v, b_g, b_i = gate_inputs(rng, T), drawn(rng, B, T, C), drawn(rng, C) / 8, drawn(rng, C)
    h0, dh, reset = drawn(rng, B, C), drawn(rng, B, T, C), boundaries(rng, T)
    given = {"x__maps": np.stack([u, v], 2), "gate__bias": b_g, "impulse__bias": b_i, "h__start": h0[:, None],
             "h__edge": h0[:, None], RESET: reset}
    got = kernel(lr.cells.gilr, "forward", change)(T, **given)
    back = kernel(lr.cells.gilr, "backward", change)(T, h=got["h"], h__grad=dh[:, :, None], **given)

    one = exact(np.ones((B, T, C)))
    g, i = (exact(u) + exact(b_g * one.value)).sigmoid(), (exact(v) + exact(b_i * one.value)).tanh()
    stay = one - g
    h = scanned(g, stay * i, h0, reset)
    reach, d_h0 = backward(g, stay * i, exact(dh), h0, reset)
    d_i = reach * stay * (one - i * i)
    d_g = reach * (h.previous(h0, reset) - i) * g * stay
    eye = torch.eye(2 * C, dtype=torch.float64)
    maps = {"gate.weight": eye[:C], "impulse.weight": eye[C:]}

    def loop(x: Any, b_g: Any, b_i: Any, h0: Any) -> Any:
        return truth.gilr(x, {**maps, "gate.bias": b_g, "impulse.bias": b_i}, h0, torch.from_numpy(reset))[0]

    true = confirm({"x": np.concatenate([d_g.value, d_i.value], -1), "b_g": d_g.value.sum((0, 1)),
                    "b_i": d_i.value.sum((0, 1)), "h0": d_h0.value}, loop, dh,
                   x=np.concatenate([u, v], -1), b_g=b_g, b_i=b_i, h0=h0)
    return worst({"h": got["h"][:, :, 0], "u": back["d.x.maps"][:, :, 0], "v": back["d.x.maps"][:, :, 1],
                  "b_g": back["d.gate.bias"].sum(0), "b_i": back["d.impulse.bias"].sum(0),
                  "h0": (back["d.h.start"] + back["d.h.edge"])[:, 0]},
                 {"h": (true, h.err), "u": d_g, "v": d_i, "b_g": d_g.total(), "b_i": d_i.total(), "h0": d_h0})


def check_lstm(T: int, change: Change = str) -> dict[str, float]:
    """The second Program of gilr_lstm, whose gates read another recurrence's products at t-1."""
    rng = np.random.default_rng(T)
    x, s = drawn(rng, B, T, 4, C), drawn(rng, B, T, 4, C) / 4
    x[:, :, 0] = gate_inputs(rng, T)
    bias, s0, c0 = drawn(rng, 4, C) / 8, drawn(rng, B, 4, C) / 4, drawn(rng, B, C)
    dh, reset = drawn(rng, B, T, C), boundaries(rng, T)
    names = ("forget", "enter", "leave", "update")
    given = {"x__maps__2": x, "h__h__maps": s, "c__start": c0[:, None], "c__edge": c0[:, None], RESET: reset,
             **{f"{n}__bias": bias[k] for k, n in enumerate(names)},
             **{f"{n}__h__h__{e}": s0[:, k, None] for k, n in enumerate(names) for e in ("start", "edge")}}
    got = kernel(lr.cells.gilr_lstm, "forward", change)(T, **given)
    back = kernel(lr.cells.gilr_lstm, "backward", change)(T, c=got["c"], h__grad=dh[:, :, None], **given)

    one = exact(np.ones((B, T, C)))
    heard = [exact(bounds.previous(s[:, :, k], s0[:, k], reset=reset)) for k in range(4)]
    z = [heard[k] + exact(x[:, :, k]) + exact(bias[k] * one.value) for k in range(4)]
    f, i, o, new = z[0].sigmoid(), z[1].sigmoid(), z[2].sigmoid(), z[3].tanh()
    c = scanned(f, i * new, c0, reset)
    reach, d_c0 = backward(f, i * new, exact(dh) * o, c0, reset)
    d = [reach * c.previous(c0, reset) * f * (one - f), reach * new * i * (one - i), c * exact(dh) * o * (one - o),
         reach * i * (one - new * new)]
    cut = bounds._cuts(reset, (B, T, C), 1, False)
    sent = [Rounded(*(bounds.previous(np.where(cut, 0.0, part), reverse=True) for part in (e.value, e.err))) for e in d]

    true = confirm({"x": np.stack([e.value for e in d], 2), "s": np.stack([e.value for e in sent], 2), "c0": d_c0.value,
                    "bias": np.stack([e.value.sum((0, 1)) for e in d])}, functools.partial(_lstm_loop, reset), dh,
                   x=x, s=s, bias=bias, s0=s0, c0=c0)
    gave = {"h": got["h"][:, :, 0], "c": got["c"][:, :, 0], "c0": (back["d.c.start"] + back["d.c.edge"])[:, 0]}
    want: dict[str, Any] = {"h": (true, (c * o).err), "c": c, "c0": d_c0}
    for k, n in enumerate(names):
        gave |= {f"x.{n}": back["d.x.maps.2"][:, :, k], f"s.{n}": back["d.h.h.maps"][:, :, k],
                 f"b.{n}": back[f"d.{n}.bias"].sum(0)}
        want |= {f"x.{n}": d[k], f"s.{n}": sent[k], f"b.{n}": d[k].total()}
    return worst(gave, want)


def _lstm_loop(reset: Array, x: Any, s: Any, bias: Any, s0: Any, c0: Any) -> torch.Tensor:
    """The paper's section 3.3 on products: z = W x[t] + U s[t-1] + b, in the order forget, enter, leave, update."""
    c, heard, hs = c0, s0, []
    for t in range(reset.shape[1]):
        cut = torch.from_numpy(reset[:, t, None])
        z = torch.where(cut[..., None], s0, heard) + x[:, t] + bias
        f, i, o = torch.sigmoid(z[:, :3]).unbind(1)
        c = f * torch.where(cut, c0, c) + i * torch.tanh(z[:, 3])
        heard = s[:, t]
        hs.append(o * c)
    return torch.stack(hs, 1)


def check_integers(T: int, change: Change = str) -> dict[str, float]:
    """B5: a in {-1, 0, 1} and integers, forward and backward, from either side: not one bit may be wrong."""
    rng = np.random.default_rng(T)
    case = bounds.integer_case(rng, (B, T, C))
    a, b, h0, reset = case.a.astype("f8"), case.b.astype("f8"), case.h0.astype("f8"), boundaries(rng, T)
    dh = bounds.integer_case(rng, (B, T, C)).b.astype("f8")
    wrong = {}
    for cell, reverse in ((lr.cells.linear_scan, False), (lr.cells.linear_scan_reverse, True)):
        edges = {"h__start": h0[:, None], "h__edge": h0[:, None], RESET: reset}
        h = bounds.scan(a, b, h0, reverse=reverse, reset=reset)
        g = bounds.scan(*_adjoint(a, dh, reverse, reset), reverse=not reverse)
        da = (g * bounds.previous(h, h0, reverse=reverse, reset=reset)).astype("f4")
        got = kernel(cell, "forward", change)(T, a=a[:, :, None], b=b[:, :, None], **edges)
        back = kernel(cell, "backward", change)(T, h=h[:, :, None], a=a[:, :, None], h__grad=dh[:, :, None], **edges)
        last = np.where(reset[:, :1], h0, h[:, 0]) if reverse else h[:, -1]
        pairs = {"h": (got["h"][:, :, 0], h), "h.final": (got["h.final"][:, 0], last),
                 "b": (back["d.b"][:, :, 0], g), "a": (back["d.a"][:, :, 0], da)}
        wrong |= {f"{n} {cell.name} {reverse}": float("inf") if (x != y).any() else 0.0 for n, (x, y) in pairs.items()}
    return wrong


def _adjoint(a: Array, dh: Array, reverse: bool, reset: Array) -> tuple[Array, Array]:
    shifted = np.where(bounds._cuts(reset, a.shape, 1, reverse), 0.0, a)
    return bounds.previous(shifted, reverse=not reverse), dh


def check_slots(T: int, change: Change = str) -> dict[str, float]:
    """What the truth loops have not: edges that differ from the start, order two, reads ahead."""
    found = {}
    for name, kind in (("order_two", "forward"), ("against", "forward"), ("gilr", "backward")):
        [program] = programs(CELLS[name], [kind])
        problem = Problem(program, min(T, 257), edges="given", B=B, C=C)
        outputs = problem.solve(load(program, "float32", change), B, C, "plain", "float32", 2)
        found[f"{name} {kind}"] = problem.error(outputs) / 1e-5
    return found


CHECKS: dict[str, Callable[..., dict[str, float]]] = {
    "scan": check_scan, "gilr": check_gilr, "lstm": check_lstm, "integers": check_integers, "slots": check_slots}


@pytest.fixture(scope="module", autouse=True)
def small_steps_on_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    cells = (lr.cells.linear_scan, lr.cells.linear_scan_reverse, lr.cells.gilr, lr.cells.gilr_lstm)
    load_all([(programs(c, [k])[-1], "float32") for c in cells for k in ("forward", "backward")])


@pytest.mark.parametrize("T", TIMES)
@pytest.mark.parametrize("name", CHECKS)
def test_no_error_exceeds_its_bound(name: str, T: int) -> None:
    ratios = CHECKS[name](T)
    assert max(ratios.values()) <= 1, ratios


@pytest.mark.long
@pytest.mark.parametrize("name", ["scan", "gilr", "lstm", "integers"])
def test_no_error_exceeds_its_bound_in_a_long_sequence(name: str) -> None:
    ratios = CHECKS[name](40000)
    assert max(ratios.values()) <= 1, ratios


@pytest.mark.parametrize("T", [10, 4096])
def test_a_contractive_recurrence_has_one_bound_for_every_length(T: int) -> None:
    """B3."""
    rng = np.random.default_rng(T)
    a, b = (rng.uniform(-s, s, (B, T, C)).astype("f4").astype("f8") for s in (0.9, 1.0))
    got = kernel(lr.cells.linear_scan, "forward")(T, a=a[:, :, None], b=b[:, :, None])["h"][:, :, 0]
    bound = bounds.contractive_bound(0.9, 1.0, c_m=COUNTS["c_m"], c_a=1, u=U)
    assert np.abs(got - bounds.scan(a, b)).max() <= bound < 1e-5


# ---- the checks can fail: spoiled kernels ---------------------------------------------------------------------------


def put(old: str, new: str, count: int = 0) -> Change:
    """A change of a kernel's text, where it applies."""
    return lambda text: re.sub(old, new, text, count=count, flags=re.S)


EVERY, LOOPS = "scan gilr lstm integers slots", "scan gilr lstm integers"
MUTANTS: dict[str, tuple[Change, str]] = {
    "no boundary is seen": (put(r"if \(reset\.at\(t( \+ 1)?\)\) cross\(\);", ""), EVERY),
    "a boundary is seen a step late": (put(r"reset\.at\(t\)\) cross", "reset.at(t - 1)) cross"), EVERY),
    "the carry is lost between two steps": (put(r"(at\.(\w+_kept) = scratch.*?[+-]{2}t\) \{)",
                                                r"\1 if (t == 97) clear(at.\2, 1, 0, width);"), LOOPS),
    "the carry is not kept": (put(r"put<WHOLE>\(at\.\w+_kept \+ c, \w+, n\);", ""), EVERY),
    "the lagged row is the next one": (put(r"rows \+ \(t - k\) \*", "rows + (t - k + 1) *"), EVERY),
    "the leading row is the one before": (put(r"rows \+ \(t \+ k\) \*", "rows + (t + k - 1) *"), "integers slots"),
    "earlier() looks for boundaries one step off": (put(r"reset\.at\(t - j \+ 1\)", "reset.at(t - j)"), EVERY),
    "later() looks for boundaries one step off": (put(r"reset\.at\(t \+ j\)", "reset.at(t + j + 1)"), "integers slots"),
    "earlier() sees the start one step late": (put(r"t - j \+ 1 == 0", "t - j == 0"), EVERY),
    "windows are counted from the far end": (put(r"(start|edge)\.row\(k - j\)", r"\1.row(j - 1)"), "slots"),
    "the edge is the start": (put(r"edge\.row\(k - j\)", "start.row(k - j)"), "slots"),
    "a register of two is not shifted": (put(r"put<WHOLE>\(at\.\w+_kept \+ 1 \* width \+ c, \w+, n\);", ""), "slots"),
    "time runs forward in the backward pass": (put(r"long t = a\.T - 1 - s0;(.*?)--t\)", r"long t = s0;\1++t)"), LOOPS),
    "the last step is left out": (put(r"steps\(0, a\.T\)", "steps(0, a.T - 1)"), EVERY),
    "the tail is left out": (put(r"if \(c < width\) lanes<false>\(at, c, width - c, width\);", ""), EVERY),
    "the tail is written as a whole vector": (put(r"else store_n\(p, v, n\);", "else store(p, v);"), LOOPS),
    "the last block of channels is left out": (put(r"< w\.a\.B \* w\.blocks", "< w.a.B * w.blocks - 1"), EVERY),
    "the last sums are not folded": (put(r"    fold\(\w+_total, at\.\w+_part, width\);\n    copy", "    copy"), "gilr lstm"),
    "folded sums are not emptied": (put(r", part\[c\] = 0", ""), "gilr lstm"),
    "what crosses a boundary is overwritten": (put(r"\+= rows\[k \* width \+ c\]", "= rows[k * width + c]"), "slots"),
    "the final state is the one before": (
        put(r"copy\((a\.h_final[^,]*), a\.C, at\.h_kept", r"copy(\1, a.C, a.h + b * a.h_batch + (a.T - 2) * a.h_time + lo"),
        "scan integers"),
    "gates in bfloat16": (put(r"const V (g|f) = (lr_sigmoid\(\w+\));", r"const V \1 = (V)((I)\2 & -65536);"), "gilr lstm"),
    "gates off by 2^-20": (put(r"const V (g|f) = (lr_sigmoid\(\w+\));", r"const V \1 = \2*0.999999046f;"), "gilr lstm"),
    "1 - g from a gate in half precision": (put(r"1\.0f - (g|f)\b", r"1.0f - (V)((I)\1 & -8192)"), "gilr lstm"),
    "results in bfloat16": (put(r"write<WHOLE>\((at\.to_\w+ \+ c), (\w+),", r"write<WHOLE>(\1, (V)((I)\2 & -65536),"), EVERY),
}
# Mutants that are none: their kernels are as right as the original.
EQUIVALENT: dict[str, Change] = {
    "channels are walked upwards": put(
        r"long c = width - width % LANES;.*?LANES, width\);\n",
        "long c = 0; for (; c + LANES <= width; c += LANES) lanes<true>(at, c, LANES, width);\n"
        "    if (c < width) lanes<false>(at, c, width - c, width);\n"),
    "sums are folded at every step": put(r"% 256 == 0", "% 1 == 0"),
    "nothing is fetched ahead": put(r"  if \(WHOLE\) __builtin_prefetch\([^;]*;\n", ""),
    "all is written past the cache": put("CACHE = 32 << 20", "CACHE = 0"),
}


def judge(name: str, change: Change) -> bool:
    """Whether a check lets a kernel pass."""
    try:
        return max(CHECKS[name](600, change).values()) <= 1
    except AssertionError:  # it wrote where it must not
        return False


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_spoiled_kernel_is_found_out(mutant: str) -> None:
    change, checks = MUTANTS[mutant]
    assert not judge(checks.split()[0], change)


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_spoiled_kernel_is_found_out_by_each_check_that_can(mutant: str) -> None:
    change, checks = MUTANTS[mutant]
    assert not [name for name in checks.split() if judge(name, change)]


@pytest.mark.parametrize("mutant", EQUIVALENT)
def test_an_equivalent_kernel_passes(mutant: str) -> None:
    assert judge("gilr", EQUIVALENT[mutant])
