"""Recurrences that are not linear, solved one step after another, against the loop over their equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import lrdsl as lr
from tests.nn import loop
from tests.nn.compare import as_tuple, assert_close, gradients, leaf
from tests.nonlinear_cells import REAL, squared

B, C = 2, 3


def arguments(f: Any, T: int) -> dict[str, Tensor]:
    return {d.name: leaf(B, T, C) if d.kind == "input" else leaf(C) if d.kind == "vector" else leaf() for d in f.arguments}


def edges(f: Any) -> dict[str, Tensor]:
    return {key: leaf(B, C) if s.depth == 1 else leaf(B, C, s.depth) for key, s in f.pipeline.sequences.items()}


@pytest.mark.parametrize("cell", REAL, ids=lambda c: c.name)
def test_it_is_its_equations(cell: lr.Cell, quick: None) -> None:
    check_equations(cell)


@pytest.mark.long
@pytest.mark.parametrize("cell", REAL, ids=lambda c: c.name)
def test_it_is_its_equations_on_every_backend(cell: lr.Cell, every_backend: str) -> None:
    check_equations(cell)


def check_equations(cell: lr.Cell) -> None:
    """Values and all gradients; without boundaries what is left for the next call, too."""
    for T, given in ((7, True), (1, False)):
        f = lr.function(cell, solver="sequential")
        args, init = arguments(f, T), edges(f) if given else {}
        reset = torch.rand(B, T) < 0.3 if given else None
        y, carry = f(*args.values(), init=init, reset=reset, return_state=True)
        inputs = {n: x for n, x in args.items() if x.dim() == 3}
        values = loop.run(cell.spec, inputs, args, C, init, reset)
        got, want = as_tuple(y), loop.outputs(cell.spec, values)
        assert_close(got, want)
        leaves = [*args.values(), *init.values()]
        assert_close(gradients(got, leaves), gradients(want, leaves), 10)
        for s in f.pipeline.plan.carried if reset is None else ():
            assert_close([carry.now[s.name][:, 0]], [values[s.name][:, 0 if s.side > 0 else -1]])


def test_a_complex_state(quick: None) -> None:
    f = lr.function(squared, solver="sequential")
    x, c, z = leaf(B, 5, C), torch.randn(C, dtype=torch.complex128).requires_grad_(), torch.randn(
        B, C, dtype=torch.complex128).requires_grad_()
    got = f(x, c, init={"z": z})
    want = loop.outputs(squared.spec, loop.run(squared.spec, {"x": x}, {"c": c}, C, {"z": z}))
    assert_close(got, want)
    assert_close(gradients(got, [x, c, z]), gradients(want, [x, c, z]), 10)


SMOOTH = [c for c in REAL if c.name not in ("clamped", "decided", "tropical")]


@pytest.mark.parametrize("cell", [c if c.name == "logistic" else pytest.param(c, marks=pytest.mark.long) for c in SMOOTH],
                         ids=lambda c: c.name)
def test_torch_checks_first_and_second_order(cell: lr.Cell, quick: None) -> None:
    f = lr.function(cell, solver="sequential")
    args, init = list(arguments(f, 3).values()), list(edges(f).values())
    reset = torch.tensor([[False, False, True], [True, False, False]])

    def run(*tensors: Tensor) -> object:
        y, carry = f(*tensors[:len(args)], init=dict(zip(f.pipeline.sequences, tensors[len(args):], strict=True)), reset=reset,
                     return_state=True)
        return (*as_tuple(y), *carry.now.values())

    assert gradcheck(run, (*args, *init), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (*args, *init), check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)
