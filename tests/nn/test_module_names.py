"""What a cell's inputs may be called in a module, found by the random cells of tests/fuzz."""

from __future__ import annotations

import pytest
import torch

import lrdsl as lr
from lrdsl import t
from lrdsl.errors import BadDeclaration


@lr.cell
def later(u: lr.Input, x: lr.Input, x_t: lr.Input, h: lr.State, gate: lr.Affine):
    """Inputs that are called what the first one is called in a module."""
    h[t] = lr.sigmoid(gate(u[t])) * h[t - 1] + x[t] - x_t[t]
    return h[t]


def test_an_input_may_be_called_x() -> None:
    layer = lr.RNN(later, 3, 3)
    u, x = torch.randn(2, 1, 3), torch.randn(2, 1, 3)
    y, _ = layer(u, x=x, x_t=torch.zeros_like(x))
    first, carry = layer.step(u[0], x=x[0], x_t=torch.zeros_like(x[0]))
    second, _ = layer.step(u[1], carry, x=x[1], x_t=torch.zeros_like(x[0]))
    torch.testing.assert_close(torch.stack([first, second]), y)


def test_an_input_may_not_be_called_as_an_argument() -> None:
    @lr.cell
    def segments(u: lr.Input, reset: lr.Input, h: lr.State):
        h[t] = reset[t] * h[t - 1] + u[t]
        return h[t]

    with pytest.raises(BadDeclaration, match=r"calls an input reset(.|\n)*test_module_names.py:\d+") as error:
        lr.RNN(segments, 3, 3)
    assert error.value.hint
