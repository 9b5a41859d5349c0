"""Cells of the zoo, by every strategy and in every dtype, against a float64 loop over their equations: values and gradients.

These run in the rehearsal, too: with LRDSL_BACKEND=emulated, on the CPU, the same kernels are executed by the emulator.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import lrdsl as lr
from lrdsl.backends import cuda_compile
from lrdsl.cli import zoo
from lrdsl.compiler import solved
from lrdsl.kernels import source_of
from lrdsl.passes.schedule import SHORT, strategies
from lrdsl.programs import backward_of, newton_of, plan_of
from tests.nn import loop
from tests.nn.compare import as_tuple, parameters

B, C = 2, 33
# Of the others, test_zoo.py has one case each.
SOLVED = [lr.cells.sru_v2, lr.cells.indrnn, lr.cells.diag_gru, lr.cells.diag_lstm]
CELLS = {name: zoo()[name] for name in ("gilr", "gilr_gru", "gilr_lstm", "gilr_lstm_delay0", "linear_scan",
                                        "linear_scan_reverse", "qrnn_f", "qrnn_fo", "qrnn_ifo", "sru")}
CELLS |= {f"{cell.name}, {solver}": solved(cell, solver) for cell in SOLVED for solver in ("sequential", "newton")}
LENGTHS = {"serial": 40, "chunked": 200}  # by the schedule's rule: few channels are cut in chunks above SHORT steps
ALLOWED = {torch.float64: 1e-11, torch.float32: 2e-4}
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def assert_near(got: Any, want: Any, dtype: torch.dtype) -> None:
    """Of the largest magnitude of each tensor."""
    for a, b in zip(got, want, strict=True):
        if a is None or b is None:
            assert (a is None or not a.any()) and (b is None or not b.any())
        else:
            assert a.dtype == dtype and a.shape == b.shape
            assert (a.double().cpu() - b).abs().max() <= ALLOWED[dtype] * max(1.0, float(b.detach().abs().max()))


def leaf(like: Tensor, dtype: torch.dtype, device: str) -> Tensor:
    """The same numbers, elsewhere."""
    return like.detach().to(device, dtype).requires_grad_()


def drawn(*shape: int) -> Tensor:
    """float32 numbers in float64, so that both sides begin with the same."""
    return torch.randn(shape).double().requires_grad_()


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """What nvcc takes half a second a kernel for is compiled side by side."""
    if not torch.cuda.is_available():
        return
    arch = "sm_{}{}".format(*torch.cuda.get_device_capability())
    programs = [q for cell in CELLS.values() for p in plan_of(cell.spec).programs
                for q in (p, *newton_of([p]), backward_of(p))]
    sources = [source_of(p, "cuda", dtype, strategy=s) for p in programs for dtype in ("float64", "float32")
               for s in strategies(p, "cuda")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda s: cuda_compile.cubin(s.text, s.entry, arch), sources))


def test_the_lengths_ask_for_the_strategies() -> None:
    assert LENGTHS["serial"] <= SHORT < LENGTHS["chunked"]


@pytest.mark.parametrize("boundaries", [False, True], ids=["whole", "resets"])
@DTYPES
@pytest.mark.parametrize("strategy", LENGTHS)
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_its_equations(name: str, strategy: str, dtype: torch.dtype, boundaries: bool, device: str) -> None:
    cell, T = CELLS[name], LENGTHS[strategy]
    inputs = {n: drawn(B, T, C) for n in cell.spec.names("input")}
    inputs |= {n: (0.98 + 0.02 * v.sigmoid()).detach().float().double().requires_grad_() for n, v in inputs.items() if n == "a"}
    states = {n: drawn(B, C) for n in cell.spec.names("state")}
    reset = torch.rand(B, T) < 0.05 if boundaries else None
    there = {n: leaf(v, dtype, device) for n, v in inputs.items()}
    reset_there = None if reset is None else reset.to(device)
    if cell.spec.names("affine"):
        layer = lr.RNN(cell, C, C, batch_first=True).to(device, dtype)
        states = {s.name: drawn(B, C) for s in layer.carried}
        h_0 = {n: leaf(v, dtype, device) for n, v in states.items()}
        start = tuple(v.unsqueeze(0) for v in h_0.values())
        y, _ = layer(*there.values(), start if len(start) > 1 else start[0], reset=reset_there)
        params = parameters(layer)
    else:
        h_0 = {n: leaf(v, dtype, device) for n, v in states.items()}
        params = {}
        y = lr.function(cell)(*there.values(), init=h_0, reset=reset_there)
    params_here = {n: leaf(p, torch.float64, "cpu") for n, p in params.items()}
    want = loop.outputs(cell.spec, loop.run(cell.spec, inputs, params_here, C, states, reset))
    assert_near(as_tuple(y), want, dtype)
    here, away = [*inputs.values(), *states.values(), *params_here.values()], [*there.values(), *h_0.values(), *params.values()]
    assert_near(gradients(as_tuple(y), away), gradients(want, here), dtype)


def gradients(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> Any:
    """Of a loss that weighs every number differently."""
    loss = sum((o * torch.linspace(-1, 2, o.numel(), dtype=torch.float64).to(o).reshape(o.shape)).cos().sum() for o in outputs)
    return torch.autograd.grad(loss, inputs, allow_unused=True)
