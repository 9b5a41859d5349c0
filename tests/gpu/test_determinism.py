"""Same inputs, same bits: run after run, beside other work, and whatever uninitialised memory holds."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import lrdsl as lr

RUNS = 100
SHAPES = ((4, 1, 8), (64, 100, 96), (2, 5000, 33))  # B, T, C: few steps, many channels, much time


@pytest.fixture(params=[False, True], ids=["as ever", "deterministic mode"], autouse=True)
def mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch's own switch, which fills fresh memory with nan."""
    torch.use_deterministic_algorithms(request.param)
    yield
    torch.use_deterministic_algorithms(False)


def noise(stream: torch.cuda.Stream) -> None:
    """Work on another stream, so that blocks start in another order."""
    with torch.cuda.stream(stream):
        x = torch.randn(512, 512, device="cuda")
        for _ in range(5):
            x = x @ x / 512


def differing(first: list[Tensor], other: list[Tensor]) -> list[int]:
    """Which of the tensors differ in a bit."""
    return [n for n, (x, y) in enumerate(zip(first, other, strict=True)) if not torch.equal(x.view(torch.int32),
                                                                                            y.view(torch.int32))]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_scan_and_its_gradients(shape: tuple[int, int, int]) -> None:
    a, b, g, h0 = (torch.randn(s, device="cuda") for s in (shape, shape, shape, shape[::2]))
    a, b, h0, beside = a.sigmoid().requires_grad_(), b.requires_grad_(), h0.requires_grad_(), torch.cuda.Stream()

    def run() -> list[Tensor]:
        h = lr.linear_scan(a, b, h0)
        return [h.detach(), *torch.autograd.grad(h, (a, b, h0), g)]

    first = run()
    for n in range(RUNS):
        if n % 3 == 0:
            noise(beside)
        assert not differing(first, run()), n
    assert all(torch.isfinite(x).all() for x in first)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_layer_and_its_gradients(shape: tuple[int, int, int]) -> None:
    """Sums over batch and time, too: gradients of the weights."""
    B, T, C = shape
    layer = lr.RNN(lr.cells.gilr_lstm, 5, C).cuda()
    x, reset, beside = torch.randn(T, B, 5, device="cuda"), torch.rand(T, B, device="cuda") < 0.02, torch.cuda.Stream()

    def run(module: torch.nn.Module) -> list[Tensor]:
        module.zero_grad()
        y, _ = module(x, reset=reset)
        y.square().mean().backward()
        return [y.detach(), *(p.grad.clone() for p in module.parameters())]

    first = run(layer)
    for n in range(RUNS):
        if n % 3 == 0:
            noise(beside)
        assert not differing(first, run(copy.deepcopy(layer) if n % 10 == 0 else layer)), n
    assert all(torch.isfinite(x).all() for x in first)
