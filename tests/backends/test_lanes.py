"""Native kernels whose lanes are steps: few channels, time contiguous in memory; against the reference, slot by slot."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

import lrdsl as lr
from lrdsl.passes.in_lanes import hindrance
from lrdsl.passes.schedule import chosen, schedules, strategies
from lrdsl.programs import plan_of
from tests.backends.harness import KINDS, LAYOUTS, Problem, load, programs
from tests.backends.test_agree import ALLOWED, OURS

TIMES = (1, 2, 15, 16, 17, 63, 64, 100, 331)
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 16, 20)
EDGES = tuple(itertools.product(("none", "some", "every"), ("given", "constant", "mixed"), ("", "time", "batch")))
CALLS = tuple(itertools.product((1, 3), CHANNELS, (*LAYOUTS, "turned"), (1, 2)))
CASES = [(name, kind, dtype) for name in OURS for kind in KINDS for dtype in ("float64", "float32")]
SHORT = [c for n, c in enumerate(CASES) if n % 29 == 0]

pytestmark = pytest.mark.usefixtures("compiler", "always_threads")


def agree(name: str, kind: str, dtype: str, times: Sequence[int], share: int, first: int = 0) -> None:
    """At each time one call in `share`, each with another kind of edges, from number `first` on. Boundaries are rare in every
    second of them, so that vectors of steps are solved between them."""
    for program in programs(OURS[name], [kind]):
        if "lanes" not in strategies(program, "cpu"):
            continue
        launch = load(program, dtype, strategy="lanes")
        for T, (k, (B, C, layout, threads)) in itertools.product(times, list(enumerate(CALLS))[first % share::share]):
            reset, edge, same = EDGES[(k + T) % len(EDGES)]
            problem = Problem(program, T, reset=reset, edges=edge, same=same, size=0.3 if same == "time" else 0.5, C=20)
            if reset == "some" and k % 2 and same != "time":
                problem.inputs[".reset"] = problem.inputs[".reset"] & (torch.arange(T) % 150 == 7).numpy()
            error = problem.error(problem.solve(launch, B, C, layout, dtype, threads))
            case = f"{program.name} at {(B, T, C, layout, threads, reset, edge, same)}"
            assert error <= ALLOWED[dtype] * max(1, T / 250), f"{case}: {error:.1e}"


@pytest.mark.parametrize(("name", "kind", "dtype"), SHORT)
def test_lanes_agree_with_the_reference(name: str, kind: str, dtype: str) -> None:
    n = SHORT.index((name, kind, dtype))
    agree(name, kind, dtype, (TIMES[n % 6], 64, 331), 23, n)


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind", "dtype"), CASES)
def test_lanes_agree_at_every_size(name: str, kind: str, dtype: str) -> None:
    agree(name, kind, dtype, TIMES, 13, CASES.index((name, kind, dtype)))


STEPS = 1 << 17
NEAR_ONE = {"constant": np.full(STEPS, 1 - 1e-5, "f4"),
            "different": (1 - 8 / STEPS * np.random.default_rng(0).random(STEPS)).astype("f4")}


def drift(coefficients: str, change: Callable[[str], str] = str) -> float:
    """The largest error over many steps with coefficients near 1, over what is allowed: twice that of a float32 loop, and 4 ulp
    of the largest state."""
    a, b = NEAR_ONE[coefficients], np.random.default_rng(1).standard_normal(STEPS).astype("f4")
    [program] = plan_of(lr.cells.linear_scan.spec).programs
    given = {"a": a[None, :, None, None], "b": b[None, :, None, None], "h.start": None, "h.edge": None, ".reset": None}
    problem = Problem(program, STEPS, B=1, C=1, given=given)
    got = problem.solve(load(program, "float32", change, "lanes"), 1, 1, "plain", "float32")["h"].ravel()
    truth, loop = (np.array(list(itertools.accumulate(zip(a.astype(kind), b.astype(kind), strict=True),
                                                      lambda h, x: x[0] * h + x[1], initial=kind(0)))[1:])
                   for kind in (np.float64, np.float32))
    return float(abs(got - truth).max() / (2 * abs(loop - truth).max() + 4 * np.spacing(abs(truth).max().astype("f4"))))


@pytest.mark.parametrize("coefficients", NEAR_ONE)
def test_products_near_one_do_not_drift(coefficients: str) -> None:
    assert drift(coefficients) <= 0.5


@pytest.mark.parametrize("coefficients", NEAR_ONE)
def test_products_without_their_rounding_errors_drift(coefficients: str) -> None:
    """That of a product that is rounded the same way in each vector is seen."""
    assert drift(coefficients, lambda text: text.replace("lr_fma(p[1], h.of[0], b.of[0])", "b.of[0]")) > 1


def solved(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The states of one channel, in float32."""
    [program] = plan_of(lr.cells.linear_scan.spec).programs
    given = {"a": a[None, :, None, None], "b": b[None, :, None, None], "h.start": None, "h.edge": None, ".reset": None}
    problem = Problem(program, len(a), B=1, C=1, given=given)
    return problem.solve(load(program, "float32", strategy="lanes"), 1, 1, "plain", "float32")["h"].ravel()


@pytest.mark.parametrize("place", [0, 63, *range(64, 128, 5), 200])
def test_what_is_not_finite_is_found_in_every_step_of_every_lane(place: int) -> None:
    """A nan goes on from its step; products that overflow where the states do not are walked in order."""
    a, b = (np.random.default_rng(place).random((2, 220)) / 2 + 0.25).astype("f4")
    b[place] = np.nan
    assert (np.isnan(solved(a, b)) == (np.arange(220) >= place)).all()
    b[: place + 5], a[place : place + 4] = 0, (1e30, 1e30, 1e-30, 1e-30)
    truth = itertools.accumulate(zip(a.astype("f8"), b.astype("f8"), strict=True), lambda h, x: x[0] * h + x[1], initial=0.0)
    np.testing.assert_allclose(solved(a, b), list(truth)[1:], rtol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("B", "T", "C"), [(2, 100, 5), (1, 1000, 20), (3, 64, 2)])
def test_steps_may_lie_next_to_each_other(reverse: bool, B: int, T: int, C: int) -> None:
    """(B, T, C) of memory (B, C, T): nothing is copied, results and gradients lie alike, and are what a copy has."""
    torch.manual_seed(T)
    a, b, g = torch.rand(B, C, T).mT, torch.randn(B, C, T).mT, torch.randn(B, C, T).mT

    def run(*inputs: torch.Tensor) -> list[torch.Tensor]:
        x, y = (i.detach().requires_grad_() for i in inputs)
        h = lr.linear_scan(x, y, reverse=reverse)
        return [h.detach(), *torch.autograd.grad(h, (x, y), g)]

    turned, plain = run(a, b), run(a.contiguous(), b.contiguous())
    for ours, theirs in zip(turned, plain, strict=True):
        assert ours.stride() == a.stride() and theirs.is_contiguous()
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=2e-6)
    mixed = run(a, b.contiguous())
    assert all(torch.equal(x, y) for x, y in zip(mixed, turned, strict=True))


def test_a_gradient_of_one_number_leaves_sequences_as_they_lie() -> None:
    a, b = (torch.rand(2, 4, 100).mT.requires_grad_() for _ in range(2))
    lr.linear_scan(a, b).sum().backward()
    assert a.grad is not None and a.grad.stride() == a.stride()


def test_each_size_has_its_kernel() -> None:
    [program] = plan_of(lr.cells.linear_scan.spec).programs
    sizes = {(8, 4096, 15): "lanes", (8, 4096, 16): "rows", (1, 63, 1): "rows", (1, 64, 1): "lanes"}
    for dtype, most in (("float32", 15), ("bfloat16", 15), ("float64", 7)):
        strategies_of = [k.strategy for k in schedules(program, "cpu", dtype)]
        assert strategies_of == ["rows", "gathered", "lanes", "chained", "chained_lanes"]
        found = [chosen(program, "cpu", dtype, 8, 4096, C) for C in range(1, 20)]
        assert found == ["lanes"] * most + ["rows"] * (19 - most)
    assert {size: chosen(program, "cpu", "float32", *size) for size in sizes} == sizes


def test_what_is_not_solved_in_lanes_says_why() -> None:
    nonlinear = lr.RNN(lr.cells.indrnn, 2, 3, solver="sequential").parts[0].pipeline.plan.programs[0]
    assert hindrance(nonlinear) == "the recurrence of h is not linear" and strategies(nonlinear, "cpu") == ("rows", "gathered")
    assert "at every size, because the recurrence of h is not linear;" in schedules(nonlinear, "cpu", "float32")[0].reason
