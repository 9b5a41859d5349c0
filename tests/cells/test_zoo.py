"""Every cell of the zoo against the loop that was written from its paper: values, last states, all gradients, boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import lrdsl as lr
from lrdsl.ir.program import Scan
from lrdsl.nn.pipeline import pipeline_of
from lrdsl.programs import plan_of
from tests.cells.zoo import BOUND, Bound, H, I
from tests.nn.compare import as_tuple, gradients

B = 2
EVERY = pytest.mark.parametrize("name", BOUND)
CASES = [(1, False, False), (2, True, True), (33, False, True), (33, True, False)]  # T, whether states are given, boundaries


@dataclass(frozen=True)
class Problem:
    """Inputs and parameters, initial states, edges of inputs, by name; boundaries (T, B)."""

    given: dict[str, Tensor]
    states: dict[str, Tensor]
    edges: dict[str, Tensor]
    reset: Tensor | None

    @property
    def leaves(self) -> list[Tensor]:
        return [*self.given.values(), *self.states.values(), *self.edges.values()]

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Problem:
        """The same numbers elsewhere, complex ones in the precision of `dtype`, as leaves."""
        def moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            kinds = {True: torch.promote_types(dtype, torch.complex32), False: dtype}
            return {n: x.detach().to(device, kinds[x.is_complex()]).requires_grad_() for n, x in tensors.items()}

        return Problem(moved(self.given), moved(self.states), moved(self.edges),
                       None if self.reset is None else self.reset.to(device))


def drawn(bound: Bound, T: int, begun: bool, boundaries: bool) -> Problem:
    """Numbers that float32 has, too."""
    layer, spec = layer_of(bound), bound.cell.spec

    def draw(name: str, shape: tuple[int, ...], complex: bool = False) -> Tensor:
        made = bound.draws[name](shape) if name in bound.draws else torch.randn(
            shape, dtype=torch.complex128 if complex else torch.float64)
        return made.to(torch.complex64 if complex else torch.float32).to(made.dtype).requires_grad_()

    sizes = {n: layer.input_size if k == 0 else H for k, n in enumerate(spec.names("input"))}
    given = {n: draw(n, (T, B, size)) for n, size in sizes.items()}
    given |= {n.removeprefix("layers.0."): draw(n.removeprefix("layers.0."), p.shape, p.is_complex())
              for n, p in layer.named_parameters()}
    last = {s.name: (*([s.depth] if s.depth > 1 else []), *([s.size] if s.size else [])) for s in layer.carried}
    states = {n: draw(n, (B, H, *more), spec[n].complex) for n, more in last.items()} if begun else {}
    edges = {n: draw(n, (B, H)) for n in bound.ends} if begun else {}
    reset = torch.rand(T, B) < 0.2
    if pipeline_of(spec).reverse:
        reset[0] = False  # a Carry lies beyond that boundary, a last state before it
    return Problem(given, states, edges, reset if boundaries else None)


def layer_of(bound: Bound) -> lr.RNN:
    wide = bound.square or not bound.cell.spec.names("affine")
    return lr.RNN(bound.cell, H if wide else I, H)


def call(bound: Bound, p: Problem, at: slice = slice(None), start: Any = None, **options: Any) -> Any:
    """What the kernels give for some of the steps: of a module where there are dense maps, else of a function."""
    spec = bound.cell.spec
    inputs = {n: p.given[n][at] for n in spec.names("input")}
    options |= {"reset": None if p.reset is None else p.reset[at]}
    if not spec.names("affine"):
        learned = {n: x for n, x in p.given.items() if n not in inputs}
        return lr.function(bound.cell, dim=0)(**inputs, **learned, init=start or {**p.states, **p.edges}, **options)
    h_0 = tuple(h.unsqueeze(0) for h in p.states.values()) or None
    learned = {f"layers.0.{n}": x for n, x in p.given.items() if n not in inputs}
    start = start or (h_0[0] if h_0 and len(h_0) == 1 else h_0)
    return functional_call(layer_of(bound), learned, (*inputs.values(), start), options)


def results(bound: Bound, p: Problem) -> tuple[Tensor, ...]:
    """Outputs and last states."""
    if bound.cell.spec.names("affine"):
        y, h_n = call(bound, p)
        return *as_tuple(y), *(h[0] for h in as_tuple(h_n))
    y, carry = call(bound, p, return_state=True)
    last = [carry.now[s.name] for s in pipeline_of(bound.cell.spec).plan.carried]
    return *as_tuple(y), *(h.squeeze(1) if h.shape[1] == 1 else h.movedim(1, 2) for h in last)


def truth(bound: Bound, p: Problem) -> tuple[Tensor, ...]:
    """The same by the loop."""
    states = tuple(p.states.values()) or None
    y, last = bound.truth({**p.given, **{f"{n}.edge": e for n, e in p.edges.items()}},
                          states if states is None or len(states) > 1 else states[0], p.reset)
    return *as_tuple(y), *as_tuple(last)


def real(tensors: Any) -> list[Tensor]:
    """Complex numbers as pairs."""
    return [torch.view_as_real(x) if x.is_complex() else x for x in tensors]


def assert_near(got: Any, want: Any, allowed: float) -> None:
    """Of the largest number of each tensor, or of 1."""
    for a, b in zip(real(got), real(want), strict=True):
        assert a.shape == b.shape
        assert (a.double().cpu() - b).abs().max() <= allowed * max(1.0, float(b.detach().abs().max()))


def check(name: str, case: tuple[int, bool, bool], dtype: torch.dtype, allowed: float, device: str = "cpu") -> None:
    """Values, last states and the gradients of all of them, of one case."""
    bound = BOUND[name]
    p = drawn(bound, *case)
    q = p.to(dtype, device)
    got, want = results(bound, q), truth(bound, p)
    assert {x.dtype for x in real(got)} == {dtype}
    assert_near(got, want, allowed)
    slopes, true = (derivatives(y, leaves) for y, leaves in ((got, q.leaves), (want, p.leaves)))
    assert_near(slopes, true, 100 * allowed)


def derivatives(outputs: tuple[Tensor, ...], leaves: list[Tensor]) -> list[Tensor]:
    """0 of what has no influence."""
    return [torch.zeros_like(x) if d is None else d for d, x in zip(gradients(real(outputs), leaves), leaves, strict=True)]


@pytest.mark.parametrize("case", CASES, ids=str)
@EVERY
def test_it_is_its_paper(name: str, case: tuple[int, bool, bool], backend: str) -> None:
    check(name, case, torch.float64, 1e-12)


# What is not one diagonal recurrence from the left.
STRUCTURES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lru", "s4d", "s4d_bilinear", "s5", "s5_bilinear", "rotation"), ("scaled rotation, constant",)),
    **dict.fromkeys(("linoss_im", "linoss_imex", "holt_winters"), ("dense 2x2, constant",)),
    **dict.fromkeys(("slstm", "slstm_exp", "rwkv4_wkv"), ("(max, +)", "diagonal", "diagonal")),
    **dict.fromkeys(("ema", "damped_ema", "mega_ema", "kalman", "cumsum"), ("diagonal, constant",)),
    "mlstm_normaliser": ("(max, +)", "diagonal"), "cummax": ("(max, +)",), "logcumsumexp": ("(logaddexp, +)",),
    "biquad": ("companion, order 2, constant",), "lfilter": ("companion, order 4, constant",),
}
BACKWARDS = {"discounted_return", "gae", "lambda_return", "vtrace"}


@EVERY
def test_what_the_compiler_finds(name: str) -> None:
    found = [(p.structure(s).name, p.reverse) for p in plan_of(BOUND[name].cell.spec).programs for s in p.steps
             if isinstance(s, Scan)]
    assert found == [(structure, name in BACKWARDS) for structure in STRUCTURES.get(name, ("diagonal",))]


@EVERY
def test_whole_is_chunks(name: str, quick: None) -> None:
    """Cut in two, the later part first where the run comes from the right."""
    bound = BOUND[name]
    p, reverse = drawn(bound, 7, True, True), pipeline_of(bound.cell.spec).reverse
    whole, after = call(bound, p, return_state=True)
    parts, carry = [], None
    for at in (slice(3, 7), slice(3)) if reverse else (slice(3), slice(3, 7)):
        y, carry = call(bound, p, at, carry, return_state=True)
        parts.append(as_tuple(y))
    parts = [torch.cat(pair) for pair in zip(*(reversed(parts) if reverse else parts), strict=True)]
    assert_near((*parts, *carry.now.values()), (*as_tuple(whole), *after.now.values()), 1e-12)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", [*CASES, (150, True, True)], ids=str)
@EVERY
def test_every_backend_in_both_precisions(name: str, case: tuple[int, bool, bool], dtype: torch.dtype,
                                          every_backend: str) -> None:
    """150 steps are more than one chunk of the CUDA text."""
    check(name, case, dtype, 1e-12 if dtype == torch.float64 else 2e-5)


@pytest.mark.long
@EVERY
def test_it_is_differentiated_again(name: str, quick: None) -> None:
    """Of few channels and steps: what torch.autograd of the loop gives, by the kernels."""
    bound = BOUND[name]
    p = drawn(bound, 3, True, True)
    got, want = ((results(bound, p), p), (truth(bound, p), p))
    second = []
    for y, q in (got, want):
        first = torch.autograd.grad(sum((o * torch.linspace(-1, 2, o.numel()).reshape(o.shape)).cos().sum() for o in real(y)),
                                    q.leaves, create_graph=True, allow_unused=True)
        assert any(d is not None for d in first)
        second.append(derivatives(tuple(d for d in first if d is not None and d.requires_grad), q.leaves))
    assert_near(*second, 1e-9)
