"""Rounding-error bounds for every structure of a recurrence and every algebra, on native kernels and both forms of CUDA text.

Truth is a loop over the cell's own equations (tests/nn/loop.py) and torch.autograd of it, in float64; the bounds are those of
tests/rounding.py. Whole numbers must come out exact. Kernels whose text was spoiled show that each check can fail.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrdsl.backends.emulated import EmulationError, Emulator
from lrdsl.ir.program import Program, Scan
from lrdsl.ir.source import RESET, Launch
from lrdsl.kernels import source_of
from lrdsl.nn.pieces import assemble
from lrdsl.passes.schedule import strategies
from lrdsl.programs import adjoint_of, inner_keeps, plan_of
from tests import bounds
from tests.backends.harness import Problem
from tests.backends.harness import load as load_native
from tests.backends.structures import STRUCTURES, Case
from tests.nn import loop
from tests.rounding import Analysis, Counts, Rounded, U

Array = Any
Change = Callable[[str], str]
FUSED = "fma" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "fma")
RUNNERS = ("native", "lanes", "serial", "chunked")
B, C = 2, 19  # a vector and a tail

pytestmark = pytest.mark.usefixtures("compiler", "always_threads")


@pytest.fixture(scope="module", autouse=True)
def small_steps_on_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def launch(program: Program, runner: str, change: Change = str) -> Launch:
    """A kernel in float32: native, or the CUDA text of a strategy on the emulator; `change` may edit its text."""
    if runner in ("native", "lanes"):
        return load_native(program, "float32", change, "lanes" if runner == "lanes" else "rows")
    source = source_of(program, "cuda", "float32", strategy=runner)  # type: ignore[arg-type]
    made = Emulator(replace(source, text=change(source.text)))
    return Launch(lambda values, threads, device, stream, scratch: (made.run(values, scratch=scratch), None)[1], source.extent)


def run(program: Program, runner: str, T: int, tensors: dict[str, Array], reset: Array, change: Change) -> dict[str, Array]:
    """The outputs of a kernel on (B, T, C) tensors, as float64 numbers."""
    given = {n: v[:, :, None] if v is not None and v.ndim == 3 and n in program.loads else v for n, v in tensors.items()}
    problem = Problem(program, T, B=B, C=C, given={**dict.fromkeys([*program.inputs]), **given, RESET: reset})
    layout = "turned" if runner == "lanes" else "plain"
    found = problem.solve(launch(program, runner, change), B, C, layout, "float32", 2)
    return {n: (v[:, :, 0] if v.ndim == 4 else v).astype(np.float64) for n, v in found.items()}


def counts_of(runner: str) -> Counts:
    """What the emulator compiles without optimisation may be fused or not; `lr_fma` is."""
    return Counts(runner in ("chunked", "lanes"), FUSED and runner in ("native", "lanes"))


def check(case: Case, runner: str, T: int, change: Change = str, whole: bool = False,
          backward: bool = True) -> dict[str, float]:
    """The worst error over its bound, by output: of the states, of the final ones, and of all gradients. Of whole numbers any
    error is infinite."""
    rng = np.random.default_rng(T)
    numbers, reset = case.numbers(rng, B, T, C, whole), rng.random((B, T)) < 2 / T
    [forward] = plan_of(case.cell.spec).programs
    adjoint = adjoint_of(forward, inner_keeps(forward))
    forward = adjoint.forward

    def drawn(*shape: int) -> Array:
        return rng.integers(-2, 3, shape).astype(float) if whole else rng.standard_normal(shape).astype("f4").astype("f8")

    depth = {e.base: e.depth for e in forward.edges if e.base in case.states}
    h0 = {s: drawn(B, depth[s], C) * (1 if case.algebra is None or not whole else 1024) for s in case.states}
    tensors = {**numbers, **{f"{s}.{end}": h0[s] for s in case.states for end in ("start", "edge")}}
    got = run(forward, runner, T, tensors, reset, change)
    counts = counts_of(runner)
    told = Analysis(forward, tensors, reset, counts, lam=None if whole else 6).outputs

    given = [*(k.name for k in forward.keeps if not k.inner), *(f"{s}.final" for s in case.states)]
    cotangents = {f"{n}.grad": drawn(*told[n].value.shape) for n in given}
    truth = _truth(case, numbers, h0, reset, cotangents, T, backward) if T <= 300 else {}
    want = dict(told)
    if backward:
        back = adjoint.program
        origins = dict(zip(back.inputs, adjoint.takes, strict=True))
        learned = {v.name for v in forward.vectors}

        def tensor(name: str, outputs: dict[str, Any]) -> Any:
            o = origins[name]
            value = (tensors[o.name] if o.what == "input" else outputs[o.name] if o.what == "output" else
                     cotangents[f"{o.name}.grad"])
            if o.nearest:
                return value[:, o.nearest - 1:o.nearest]
            return value[:, ::-1] if o.flip else value

        rigorous = Analysis(forward, tensors, reset, counts).outputs
        gave = run(back, runner, T, {n: tensor(n, got) for n in back.inputs}, reset, change)
        found = Analysis(back, {n: tensor(n, rigorous) for n in back.inputs}, reset, counts).outputs
        for name, pieces in adjoint.gives:
            if any(p.name in back.outputs for p in pieces):
                flags, deep = torch.from_numpy(reset), depth.get(name.split(".")[0], 1)
                parts = [{n: torch.from_numpy(np.array(part)) for n, part in made.items()} for made in (
                    gave, {n: v.value for n, v in found.items()}, {n: v.err for n, v in found.items()})]
                values = [assemble(pieces, part, {}, flags, deep).numpy() for part in parts]
                values = [v.sum(0) for v in values] if name in learned else values  # of the batch, exactly
                got[f"d.{name}"], want[f"d.{name}"] = values[0], Rounded(*values[1:])
        for s in case.states:  # the same window before the sequence and beyond boundaries
            got[f"d.{s}0"] = got.pop(f"d.{s}.start") + got.pop(f"d.{s}.edge")
            start, edge = want.pop(f"d.{s}.start"), want.pop(f"d.{s}.edge")
            want[f"d.{s}0"] = Rounded(start.value + edge.value, start.err + edge.err)
    wrong = {}
    for name, expected in want.items():
        assert np.isfinite(expected.err).all() if not whole else np.abs(expected.value).max() < 2**24, f"{name} is not bounded"
        value = truth.get(name, expected.value)
        np.testing.assert_allclose(expected.value, value, rtol=1e-9, atol=1e-9 * (1 + np.abs(value).max()), err_msg=name)
        wrong[name] = (0.0 if (got[name] == value).all() else np.inf) if whole else bounds.ratio(got[name], value, expected.err)
    return wrong


def _truth(case: Case, numbers: dict[str, Array], h0: dict[str, Array], reset: Array, cotangents: dict[str, Array], T: int,
           backward: bool) -> dict[str, Array]:
    """The loop's states, and the gradients of their products with the cotangents."""
    spec = case.cell.spec
    leaves = {n: torch.from_numpy(v).requires_grad_(backward) for n, v in (*numbers.items(), *h0.items())}
    inputs = {n: leaves[n] for n in spec.names("input")}
    learned = {n: leaves[n] for n in numbers if n not in inputs}
    values = loop.run(spec, inputs, learned, C, {s: leaves[s].movedim(1, -1) for s in h0}, torch.from_numpy(reset))
    found = {n: v.detach().numpy() for n, v in values.items() if n in case.states}
    if not backward:
        return found
    reverse = next(iter(plan_of(spec).programs)).reverse
    kept = [n for n in values if f"{n}.grad" in cotangents]
    loss: Any = sum((values[n] * torch.from_numpy(cotangents[f"{n}.grad"])).sum() for n in kept)
    for s in case.states:
        window = [leaves[s][:, k] for k in range(h0[s].shape[1])]
        for t in range(T)[::-1 if reverse else 1]:  # what is read beyond the last step
            cut = torch.from_numpy(reset[:, t + reverse, None]) if t + reverse < T else None
            if cut is not None:
                window = [torch.where(cut, leaves[s][:, k], w) for k, w in enumerate(window)]
            window = [values[s][:, t], *window[:-1]]
        if reverse:
            window = [torch.where(torch.from_numpy(reset[:, :1]), leaves[s][:, k], w) for k, w in enumerate(window)]
        final = torch.stack(window, 1)
        found[f"{s}.final"] = final.detach().numpy()
        loss = loss + (final * torch.from_numpy(cotangents[f"{s}.final.grad"])).sum()
    for n, g in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
        found[f"d.{n}0" if n in h0 else f"d.{n}"] = g.numpy()
    return found


ALL = [(name, runner) for name in STRUCTURES for runner in RUNNERS
       if runner != "lanes" or "lanes" in strategies(plan_of(STRUCTURES[name].cell.spec).programs[0], "cpu")]
SHORT = [("rotation", "lanes"), ("dense", "lanes"), ("max-plus", "lanes"), ("order 2", "chunked"), ("rotation", "chunked"),
         ("constant", "chunked"), ("dense", "native"), ("turning", "native"),
         ("logaddexp-plus", "chunked"), ("triangular", "serial"), ("max-plus", "serial"), ("min-plus", "native")]


def passes(name: str, runner: str, T: int, change: Change = str) -> bool:
    """Whether no error is above its bound, and whole numbers are exact. A gradient that a comparison decides has no bound."""
    case = STRUCTURES[name]
    try:
        wrong = check(case, runner, T, change, backward=case.algebra != "kinked")
        if case.whole and T <= 300:
            wrong |= {f"{n}, whole": x for n, x in check(case, runner, T, change, whole=True).items()}
    except EmulationError:
        return False
    return max(wrong.values()) <= 1


@pytest.mark.parametrize(("name", "runner"), SHORT)
def test_no_error_exceeds_its_bound(name: str, runner: str) -> None:
    """Over three chunks and a part of a fourth."""
    assert passes(name, runner, 300)


@pytest.mark.long
@pytest.mark.parametrize("T", [1, 2, 33, 257])
@pytest.mark.parametrize(("name", "runner"), ALL)
def test_no_error_exceeds_its_bound_at_any_length(name: str, runner: str, T: int) -> None:
    assert passes(name, runner, T)


@pytest.mark.long
@pytest.mark.parametrize(("name", "runner"), ALL)
def test_no_error_exceeds_its_bound_in_a_long_sequence(name: str, runner: str) -> None:
    """Over more than one group of chunks."""
    assert passes(name, runner, 4096)


CONTRACTIVE = {"shared": (1, 1.0), "order 2": (2, 1.0), "order 3": (3, 1.0), "constant": (2, 1.0), "dense": (1, 1.0),
               "rotation": (1, 2 ** 0.5)}


def contracted(name: str, runner: str, T: int, change: Change = str) -> float:
    """B3: the worst error over the one bound that holds at every length, where rows, or the modulus, add up to 0.9 at most.

    A product of order k has a factor each k steps at least, so that k times as many roundings come with one."""
    case, (k, norm), rng = STRUCTURES[name], CONTRACTIVE[name], np.random.default_rng(T)
    numbers = {n: v if n not in case.given else v * 0.9 / 1.0001 for n, v in case.numbers(rng, B, T, C).items()}
    numbers |= {n: rng.uniform(-1, 1, v.shape) for n, v in numbers.items() if n not in case.given}
    if name == "dense":  # rows that add up to less than 1, where they are not orthogonal
        numbers |= {n: np.where(np.arange(C) % 2, v, v * 0.5 ** 0.5) for n, v in numbers.items() if n in case.given}
    numbers = {n: v.astype("f4").astype("f8") for n, v in numbers.items()}
    [program] = plan_of(case.cell.spec).programs
    edges = {f"{s}.{end}": None for s in case.states for end in ("start", "edge")}
    got = run(program, runner, T, {**numbers, **edges}, np.zeros((B, T), bool), change)
    exact = Analysis(program, numbers, None, counts := counts_of(runner)).outputs
    c_m, c_a = np.max([counts.of(program, s) for s in program.steps if isinstance(s, Scan)], 0)
    bound = bounds.contractive_bound(0.9, norm, c_m=c_m * k * norm, c_a=c_a, u=U)
    assert bound < 1e-4
    return max(float(np.abs(got[s] - exact[s].value).max()) for s in case.states) / bound


@pytest.mark.long
@pytest.mark.parametrize("T", [10, 4096])
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", CONTRACTIVE)
def test_a_contractive_recurrence_has_one_bound_for_every_length(name: str, runner: str, T: int) -> None:
    assert contracted(name, runner, T) <= 1


# ---- the checks can fail: spoiled kernels ---------------------------------------------------------------------------


def put(old: str, new: str) -> Change:
    """A change of a kernel's text."""
    return lambda text: re.sub(old, new, text, flags=re.S)


BFLOAT16 = r"__uint_as_float(__float_as_uint(\2) & 0xffff0000u)"
MUTANTS: dict[str, tuple[str, str, Change]] = {
    "products of matrices in the wrong order": ("dense", "chunked", put(r"later\.a\.after\(a\)", "a.after(later.a)")),
    "of a step with those before it, too": ("order 2", "chunked", put(r"lr_fma\(c1, e\.p\[2\]", "lr_fma(c1, e.p[1]")),
    "rotations turn the other way": ("rotation", "chunked", put(r"\{\{lr_fma\(-p\[1\], h", "{{lr_fma(p[1], h")),
    "fused sums lose four bits": (
        "order 2", "chunked", put(r"return fmaf\(a, b, c\);", "return fmaf(a, b, c) * 1.000001f;")),
    "coefficients in bfloat16": ("order 2", "chunked", put(r"(const V [abc]_ = )(at\[k\]\.[abc]_);", rf"\1{BFLOAT16};")),
    "results in bfloat16": ("triangular", "serial", put(r"(put\([^;]*, )(\w+)\);", rf"\1{BFLOAT16});")),
    "both numbers of an edge are the first": ("order 2", "chunked", put(r"edge_beyond\.at\(1\)", "edge_beyond.at(0)")),
    "a power of one step too few": (
        "constant", "chunked", put(r"k < STEPS; \+\+k\) v = step", "k < STEPS - 1; ++k) v = step")),
    "a square too few": ("constant", "chunked", put(r"n < W; n \*= 2", "n < W / 2; n *= 2")),
    "a chunk's state is not added up": ("order 2", "chunked", put(r"h = sum\(h\);", ";")),
    "addends of a stretch are those of its end": ("max-plus", "chunked", put(r"p\[0\] \+ e\.p\[0\]", "p[0]")),
    "a sum of exponentials off by 1e-5": (
        "logaddexp-plus", "chunked", put(r"\+ lr_log1p_exp\(d\)", "+ lr_log1p_exp(d) + 1e-5f")),
    "the second lag is the first": ("order 2", "native", put(r"b_\*x_prev2", "b_*x_prev")),
    "angles off by 1e-6": ("turning", "native", put(r"lr_cos\((\w+)\)", r"lr_cos(1.000001f*\1)")),
    "a minimum of two is the second": ("min-plus", "native", put(r"select\(\(a < b\) \| \(a != a\), a, b\)", "b")),
}

QUICK = ("both numbers of an edge are the first", "a sum of exponentials off by 1e-5", "angles off by 1e-6")


@pytest.mark.parametrize("mutant", [pytest.param(m, marks=() if m in QUICK else pytest.mark.long) for m in MUTANTS])
def test_a_spoiled_kernel_is_found_out(mutant: str) -> None:
    name, runner, change = MUTANTS[mutant]
    [program] = plan_of(STRUCTURES[name].cell.spec).programs
    target, strategy = ("cpu", None) if runner == "native" else ("cuda", runner)
    text = source_of(program, target, "float32", strategy=strategy).text  # type: ignore[arg-type]
    assert change(text) != text, "the mutant is none"
    assert not passes(name, runner, 300, change)
