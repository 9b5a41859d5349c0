"""The two networks of Table 3: two layers of GILR-LSTM, or of `torch.nn.LSTM`, and a linear unit that reads the last step.

The input is one-hot up to its sign. The GILR-LSTM looks up rows of its weights, `sign[t] * W(token[t])`, and no vector of 128
is built; `torch.nn.LSTM` needs the vectors. Time is cut in chunks: the forward pass keeps the states between them, the backward
pass computes each chunk again before it goes through it. The gradient is that of all T steps, and memory does not grow with T,
but for the tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import lrdsl as lr
from lrdsl import sigmoid, t, tanh

from .memory_task import SYMBOLS, Batch

CELLS = ("gilr_lstm", "lstm")
CHUNK = 65536  # samples: steps times sequences
SMALL = 0.02  # of weights at first: what is not to be remembered shall do little
SHORT = 256  # steps that the second layer looks back over at first, at most
LOOKUP = lr.Affine(bias=False)


@lr.cell
def signed_gilr(token: lr.Input, sign: lr.Input, h: lr.State, *, gate: lr.Affine = LOOKUP, impulse: lr.Affine = LOOKUP,
                gate_bias: lr.Vector, impulse_bias: lr.Vector):
    """`lr.cells.gilr` of x[t] = sign[t] * one_hot(token[t])."""
    g = sigmoid(sign[t] * gate(token[t]) + gate_bias)
    i = tanh(sign[t] * impulse(token[t]) + impulse_bias)
    h[t] = g * h[t - 1] + (1 - g) * i
    return h[t]


@lr.cell
def signed_lstm(token: lr.Input, sign: lr.Input, h: lr.State, c: lr.State, *, forget: lr.Affine = LOOKUP,
                enter: lr.Affine = LOOKUP, leave: lr.Affine = LOOKUP, update: lr.Affine = LOOKUP,
                forget_h: lr.Affine, enter_h: lr.Affine, leave_h: lr.Affine, update_h: lr.Affine):
    """`lr.cells.lstm` of x[t] = sign[t] * one_hot(token[t])."""
    f = sigmoid(sign[t] * forget(token[t]) + forget_h(h[t - 1]))
    i = sigmoid(sign[t] * enter(token[t]) + enter_h(h[t - 1]))
    o = sigmoid(sign[t] * leave(token[t]) + leave_h(h[t - 1]))
    c[t] = f * c[t - 1] + i * tanh(sign[t] * update(token[t]) + update_h(h[t - 1]))
    h[t] = o * c[t]
    return h[t]


signed_gilr_lstm = lr.surrogate(signed_lstm, h=signed_gilr)


class Network(nn.Module):
    """Reads sequences, and says how sure it is that the first vector was e₁, not -e₁.

    cell: one of CELLS. longest: the number of steps that memories are made to last at first; see `remember`.
    """

    def __init__(self, cell: str, hidden: int, longest: int) -> None:
        super().__init__()
        self.hidden, self.lookup = hidden, cell == "gilr_lstm"
        self.rnn: nn.Module = (lr.RNN([signed_gilr_lstm, lr.cells.gilr_lstm], SYMBOLS, hidden) if self.lookup
                               else nn.LSTM(SYMBOLS, hidden, num_layers=2))
        self.read = nn.Linear(hidden, 1)
        remember(self.rnn, longest)

    def forward(self, batch: Batch, chunk: int = CHUNK) -> Tensor:
        """Logits (B,). chunk: how many samples are computed at once."""
        state: Any = None
        signs: Tensor | None = batch.signs
        *before, last = batch.tokens.split(max(1, chunk // len(batch.positive)))
        for tokens in before:
            if torch.is_grad_enabled():
                state = checkpoint(self.after, tokens, signs, state, use_reentrant=False, preserve_rng_state=False)
            else:
                state = self.after(tokens, signs, state)
            signs = None
        return self.read(self.advance(last, signs, state)[0][-1]).squeeze(1)

    def after(self, tokens: Tensor, signs: Tensor | None, state: Any) -> Any:
        """The state after a chunk."""
        return self.advance(tokens, signs, state)[1]

    def advance(self, tokens: Tensor, signs: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        """Outputs (T, B, hidden) and the state after them. signs: those of the first vectors, (B,); None is 1."""
        T, B = tokens.shape
        width = self.hidden if self.lookup else SYMBOLS
        sign = self.read.weight.new_ones(width).expand(T, B, width)
        if signs is not None:
            sign = torch.cat([signs.to(sign)[None, :, None].expand(1, B, width), sign[1:]])
        if self.lookup:
            return self.rnn(tokens, state, sign=sign)
        return self.rnn(sign * F.one_hot(tokens.long(), SYMBOLS).to(sign), state)


@torch.no_grad()
def remember(rnn: nn.Module, longest: int) -> None:
    """Set biases at first: the first layer's memory lasts `longest` steps or more, and little enters it; the second looks back
    over numbers of steps of every order up to SHORT. Other biases are 0, weights of the tokens small.

    A gate sigmoid(b) forgets in about exp(b) steps. That memories as long as what they are to hold should be there from the
    start is the observation of Tallec & Ollivier (2018, arXiv 1804.11188).
    """
    for name, parameter in rnn.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
        elif name == "weight_ih_l0" or (name.startswith("layers.0.") and "_h." not in name):  # of the tokens
            nn.init.uniform_(parameter, -SMALL, SMALL)
    (forget, enter, keep), second = gates(rnn)
    forget.uniform_(math.log(longest), math.log(longest) + 2)
    enter.fill_(-4)
    keep.uniform_(0, math.log(longest))
    forget, enter, keep = second
    forget.uniform_(0, math.log(SHORT))
    enter.copy_(-forget)
    keep.uniform_(0, math.log(SHORT))


def gates(rnn: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each layer the biases of the gates that forget, let enter, and keep the surrogate (of an LSTM, none: empty)."""
    if isinstance(rnn, nn.LSTM):
        biases = [bias.detach().split(rnn.hidden_size) for bias in (rnn.bias_ih_l0, rnn.bias_ih_l1)]
        return [(forget, enter, forget[:0]) for enter, forget, *_ in biases]
    first, second = rnn.layers
    return [(first.forget_h.bias, first.enter_h.bias, first.h.gate_bias),
            (second.forget.bias, second.enter.bias, second.h.gate.bias)]
