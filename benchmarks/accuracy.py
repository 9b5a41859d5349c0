"""Largest errors of the zoo's cells against float64 loops written from the paper: values and all gradients.

    python -m benchmarks.accuracy

Inputs and weights are float32 numbers, the same in both dtypes; T = 1000, batch 3, 24 inputs, 32 hidden. An error is the
largest difference over the largest magnitude of the tensor; the worst gradient is named.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import lrdsl as lr
from tests import truth

T, B, I, H = 1000, 3, 24, 32


def layer(cell: lr.Cell, loop: Callable[..., tuple[Tensor, ...]], dtype: torch.dtype) -> tuple[Any, Any]:
    """(values and gradients of the module, of the loop), by name."""
    torch.manual_seed(0)
    module = lr.RNN(cell, I, H, batch_first=True)
    x, start = torch.randn(B, T, I), [torch.randn(1, B, H) for _ in module.carried]
    module, x, start = module.to(dtype), leaf(x, dtype), [leaf(s, dtype) for s in start]
    y, h_n = module(x, start[0] if len(start) == 1 else tuple(start))
    outputs = [y, *(h_n if isinstance(h_n, tuple) else (h_n,))]
    named = {n.removeprefix("layers.0."): p for n, p in module.named_parameters()}
    ours = measured(outputs, {"x": x, **{f"h_0 {k}": s for k, s in enumerate(start)}, **named})
    double = {n: leaf(p.detach(), torch.float64) for n, p in named.items()}
    x, start = leaf(x.detach(), torch.float64), [leaf(s.detach(), torch.float64) for s in start]
    want = loop(x, double, *(s[0] for s in start))
    want = [want[0], *(w[None] for w in want[1:])]
    return ours, measured(want, {"x": x, **{f"h_0 {k}": s for k, s in enumerate(start)}, **double})


def scan(_: lr.Cell, loop: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Any, Any]:
    """The same for the linear scan, with some coefficients within 8/T of 1."""
    torch.manual_seed(0)
    a, b, h0 = 1 - 8 / T * torch.rand(B, T, H), torch.randn(B, T, H), torch.randn(B, H)
    ours, want = [leaf(v, dtype) for v in (a, b, h0)], [leaf(v, torch.float64) for v in (a, b, h0)]
    return (measured([lr.linear_scan(*ours)], dict(zip(("a", "b", "h0"), ours, strict=True))),
            measured([loop(*want)], dict(zip(("a", "b", "h0"), want, strict=True))))


def leaf(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).requires_grad_()


def measured(outputs: list[Tensor], inputs: dict[str, Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The outputs, and the gradient of a fixed weighted sum of them."""
    torch.manual_seed(1)
    loss = sum((o * torch.randn(o.shape).to(o.dtype)).sum() for o in outputs)
    return [o.detach() for o in outputs], dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values())), strict=True))


def error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).abs().max() / want.abs().max())


def main() -> None:
    """Print the table."""
    cells: list[tuple[lr.Cell, Any, Any]] = [
        (lr.cells.linear_scan, truth.linear_scan, scan), (lr.cells.gilr, truth.gilr, layer),
        (lr.cells.gilr_lstm, truth.gilr_lstm, layer),
        (lr.cells.gilr_lstm_delay0, lambda *a: truth.gilr_lstm(*a, delay=0), layer)]
    print(f"{'cell':<18}{'backend':<11}{'dtype':<9}{'values':>9}{'gradients':>11}  worst of")
    for cell, loop, run in cells:
        for backend in ("reference", "native"):
            os.environ["LRDSL_BACKEND"] = backend
            for dtype in (torch.float64, torch.float32):
                (values, gradients), (true_values, true_gradients) = run(cell, loop, dtype)
                value = max(error(v, w) for v, w in zip(values, true_values, strict=True))
                errors = {n: error(g, true_gradients[n]) for n, g in gradients.items()}
                worst = max(errors, key=lambda n: errors[n])
                print(f"{cell.name:<18}{backend:<11}{str(dtype)[6:]:<9}{value:>9.1e}{errors[worst]:>11.1e}  {worst}")


if __name__ == "__main__":
    main()
