"""Define a cell: a GRU without reset gate, which is not linear, and the linear surrogate that makes it run in parallel.

    python examples/define_cell.py

The result has two strata: `m`, a running mean, is solved first; the gates of `h` read it through dense maps, in any nonlinear
way. Outputs and gradients are compared with a plain loop.
"""

import torch
from torch.nn import functional as F

import lrdsl as lr
from lrdsl import sigmoid, t, tanh


@lr.cell
def gru(x: lr.Input, h: lr.State, keep: lr.Affine, update: lr.Affine):
    """GRU without reset gate. Not linear: two dense maps read h[t-1]."""
    k = sigmoid(keep(x[t], h[t - 1]))
    h[t] = k * h[t - 1] + (1 - k) * tanh(update(x[t], h[t - 1]))
    return h[t]


@lr.cell
def trace(x: lr.Input, m: lr.State, value: lr.Affine, *, rate: lr.Vector = lr.Vector(init=2.0)):
    """A running mean of a dense map of x, with one learned rate a channel."""
    a = sigmoid(rate)
    m[t] = a * m[t - 1] + (1 - a) * value(x[t])
    return m[t]


linear_gru = lr.surrogate(gru, h=trace)  # what the dense maps read of h, they read of trace instead


def by_hand(layer: lr.RNN, x: torch.Tensor) -> torch.Tensor:
    """The equations of linear_gru as a loop; x is (time, batch, features)."""
    p = dict(layer.layers[0].named_parameters())
    a = torch.sigmoid(p["h.rate"])
    m = h = x.new_zeros(x.shape[1], layer.hidden_size)
    outputs = []
    for x_t in x:
        k = torch.sigmoid(F.linear(torch.cat([x_t, m], 1), p["keep.weight"], p["keep.bias"]))
        u = torch.tanh(F.linear(torch.cat([x_t, m], 1), p["update.weight"], p["update.bias"]))
        m = a * m + (1 - a) * F.linear(x_t, p["h.value.weight"], p["h.value.bias"])
        h = k * h + (1 - k) * u
        outputs.append(h)
    return torch.stack(outputs)


def main() -> None:
    try:
        lr.RNN(gru, input_size=3, hidden_size=16)
    except lr.NotLinear as error:
        print(f"gru alone is refused:\n\n{error}\n")

    torch.manual_seed(0)
    layer = lr.RNN(linear_gru, input_size=3, hidden_size=16).double()
    for name, parameter in layer.named_parameters():
        print(f"{name:<26} {tuple(parameter.shape)}")
    x = torch.randn(100, 4, 3, dtype=torch.float64, requires_grad=True)
    y, (h_n, m_n) = layer(x)
    print(f"\ny {tuple(y.shape)}, h_n {tuple(h_n.shape)}, m_n {tuple(m_n.shape)}")

    expected, leaves = by_hand(layer, x), [x, *layer.parameters()]
    found = torch.autograd.grad(y.square().sum(), leaves)
    wanted = torch.autograd.grad(expected.square().sum(), leaves)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(found, wanted)
    print(f"outputs and {len(leaves)} gradients agree with the loop")


if __name__ == "__main__":
    main()
