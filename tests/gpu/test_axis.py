"""Cells with a state axis on a device, against float64 loops over their equations: complex states, 16 bits, segments."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import lrdsl as lr
from tests.axis_cells import s6, s6_loop
from tests.complex_axis_cells import s4d, s4d_loop
from tests.nn.compare import parameters
from tests.nn.test_complex import gradients

B, T, H = 2, 70, 33
ALLOWED = {torch.float64: 1e-11, torch.float32: 2e-4, torch.bfloat16: 3e-2}  # dense maps round to 16 bits, too


def want(cell: lr.Cell, x: Tensor, p: dict[str, Tensor], h_0: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """y (B, T, H) and the last state, by the loop."""
    if cell.name == "s6":
        return s6_loop(x, p, h_0, reset)
    return s4d_loop(x, *(p[n] for n in ("a", "w", "C", "step", "D")), h_0, reset)


def assert_near(got: Any, wanted: Any, dtype: torch.dtype) -> None:
    """Of the largest magnitude of each tensor."""
    for a, b in zip(got, wanted, strict=True):
        assert (a.detach().cpu() - b).abs().max() <= ALLOWED[dtype] * max(1.0, float(b.detach().abs().max()))


def both(cell: lr.Cell, dtype: torch.dtype, device: str, rows: int, *lead: int) -> tuple[Any, ...]:
    """The layer in float64 here and in `dtype` there, x and h_0 on both sides: the same numbers."""
    here = lr.RNN(cell, H, H, batch_first=True, dtype=torch.float32)
    there = copy.deepcopy(here).to(device, dtype)
    here = copy.deepcopy(there).cpu().double()
    x = torch.randn(*lead, H).to(dtype)
    h_0 = torch.randn(1, rows, H, 4, dtype=torch.complex64 if cell.spec.complex else torch.float32)
    kind = torch.complex128 if cell.spec.complex else torch.float64
    ours = x.to(device).requires_grad_(), h_0.to(device, kind if dtype == torch.float64 else h_0.dtype).requires_grad_()
    return here, there, (x.double().requires_grad_(), h_0.to(kind).requires_grad_()), ours


CASES = [(s6(4), dtype) for dtype in ALLOWED] + [(s4d(4), torch.float64), (s4d(4), torch.float32)]


@pytest.mark.parametrize(("cell", "dtype"), CASES, ids=str)
def test_a_layer_is_its_equations(cell: lr.Cell, dtype: torch.dtype, device: str) -> None:
    here, there, (x, h_0), (away, start) = both(cell, dtype, device, B, B, T)
    reset = torch.rand(B, T) < 0.05
    y, h_n = there(away, start, reset=reset.to(device))
    truth = want(cell, x, parameters(here), h_0[0], reset)
    assert_near((y, h_n[0]), truth, dtype)
    assert_near(gradients([y.cpu().double(), h_n[0].cpu()], [away, start, *there.parameters()]),
                gradients(truth, [x, h_0, *here.parameters()]), dtype)


@pytest.mark.parametrize(("cell", "dtype"), CASES[1:], ids=str)
def test_segments_are_sequences_of_their_own(cell: lr.Cell, dtype: torch.dtype, device: str) -> None:
    borders = [0, 3, 4, T]
    here, there, (x, h_0), (away, start) = both(cell, dtype, device, 3, T)
    y, h_n = there(away, start, cu_seqlens=torch.tensor(borders, device=device))
    p = parameters(here)
    parts = [want(cell, x[None, lo:hi], p, h_0[0, k:k + 1], None) for k, (lo, hi) in enumerate(pairwise(borders))]
    truth = torch.cat([p[0][0] for p in parts]), torch.cat([p[1] for p in parts])
    assert_near((y, h_n[0]), truth, dtype)
    assert_near(gradients([y.cpu().double(), h_n[0].cpu()], [away, start, *there.parameters()]),
                gradients(truth, [x, h_0, *here.parameters()]), dtype)
