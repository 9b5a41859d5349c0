"""Complex layers on a device, in both dtypes, against a complex128 loop over their equations: values and gradients."""

from __future__ import annotations

import copy

import pytest
import torch

import lrdsl as lr
from tests.nn import loop
from tests.nn.compare import as_tuple, parameters
from tests.nn.complex_cells import layered, lru
from tests.nn.test_complex import gradients

B, H = 2, 33
ALLOWED = {torch.float64: 1e-11, torch.float32: 2e-4}


@pytest.mark.parametrize("dtype", ALLOWED, ids=str)
@pytest.mark.parametrize("T", [40, 200])
@pytest.mark.parametrize("cell", [lru, layered], ids=lambda c: c.name)
def test_a_layer_is_its_equations(cell: lr.Cell, T: int, dtype: torch.dtype, device: str) -> None:
    here = lr.RNN(cell, H, H, batch_first=True, dtype=torch.float32).double()  # the same numbers on both sides
    there = copy.deepcopy(here).to(device, dtype)
    kind = dtype.to_complex() if cell.spec.of("input")[0].complex else dtype
    away = torch.randn(B, T, H, dtype=kind).to(device).requires_grad_()
    x = away.detach().cpu().to(torch.complex128 if kind.is_complex else torch.float64).requires_grad_()
    reset = torch.rand(B, T) < 0.05
    got = as_tuple(there(away, reset=reset.to(device))[0])
    want = loop.outputs(cell.spec, loop.run(cell.spec, {"x": x}, parameters(here), H, None, reset))
    pairs = [*zip(got, want, strict=True), *zip(gradients([o.cpu() for o in got], [away, *there.parameters()]),
                                                gradients(want, [x, *here.parameters()]), strict=True)]
    for a, b in pairs:
        assert (a.cpu() - b).abs().max() <= ALLOWED[dtype] * max(1.0, float(b.detach().abs().max()))
