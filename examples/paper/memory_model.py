"""The networks of Table 3: two layers of GILR-LSTM, or of `torch.nn.LSTM`, and a linear unit that reads the last step.

The input is one-hot up to its sign. The GILR-LSTM looks up rows of its weights, `sign[t] * W(token[t])`, and no vector of 128
is built; `torch.nn.LSTM` needs the vectors. Time is cut in chunks: the forward pass keeps the states between them, the backward
pass computes each chunk again before it goes through it. The gradient is that of all T steps, and memory does not grow with T,
but for the tokens.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lrdsl as lr
from lrdsl import sigmoid, t, tanh

from .memory_task import SYMBOLS, Batch

CHUNK = 16384  # samples: steps times sequences
SMALL = 0.02  # of weights of the tokens at first: what is not to be remembered shall do little
ENTER = -4.0  # bias of the gates that let it enter
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
signed_gilr_lstm_delay0 = lr.surrogate(signed_lstm, h=signed_gilr, delay=0)
SURROGATES = {"gilr_lstm": [signed_gilr_lstm, lr.cells.gilr_lstm],
              "gilr_lstm_delay0": [signed_gilr_lstm_delay0, lr.cells.gilr_lstm_delay0]}
CELLS = (*SURROGATES, "lstm")
PRECISIONS = ("float32", "mixed", "bfloat16", "float64")


class Network(nn.Module):
    """Reads sequences, and says how sure it is that the first vector was e₁, not -e₁.

    cell: one of CELLS. longest: the number of steps that memories are made to last at first; see `remember`. precision: one of
    PRECISIONS, of all numbers; "mixed" has float32 weights, and bfloat16 sequences inside of the layers. States that are handed
    from chunk to chunk are float32 there, too, as they are within one.
    """

    def __init__(self, cell: str, hidden: int, longest: int, precision: str = "float32") -> None:
        super().__init__()
        self.hidden, self.lookup, self.mixed = hidden, cell in SURROGATES, precision == "mixed"
        self.rnn: nn.Module = lr.RNN(SURROGATES[cell], SYMBOLS, hidden) if self.lookup else nn.LSTM(SYMBOLS, hidden, 2)
        self.read = nn.Linear(hidden, 1)
        remember(self.rnn, longest)
        self.to(torch.float32 if self.mixed else getattr(torch, precision))

    def forward(self, batch: Batch, chunk: int = CHUNK) -> Tensor:
        """Logits (B,). chunk: how many samples are computed at once."""
        [(y, _)] = deque(self.walk(batch, pieces(batch, chunk)), maxlen=1)
        return self.answer(y)

    def walk(self, batch: Batch, pieces: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs and the states after them, piece by piece from the beginning."""
        state = None
        for k, tokens in enumerate(pieces):
            y, state = self.advance(tokens, None if k else batch.signs, state)
            yield y, state

    def answer(self, y: Tensor) -> Tensor:
        """Logits (B,) of the last step."""
        return self.read(y[-1].to(self.read.weight)).squeeze(1)

    def learn(self, batch: Batch, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
        """Logits (B,) and the loss; its gradient through all steps is added to those of the parameters.

        The states between chunks are all that is kept of the forward pass. They lie in one tensor, because many small ones
        between what is freed would scatter the heap, and it would grow by a chunk's tensors every time.
        """
        *before, last = pieces(batch, chunk)
        shape, dtype = (len(before) + 1, 2, 2, len(batch.positive), self.hidden), self.read.weight.dtype
        borders = self.read.weight.new_zeros(shape, dtype=torch.promote_types(dtype, torch.float32))  # h_0 is zero
        with torch.no_grad():
            for k, tokens in enumerate(before):
                borders[k + 1] = self.advance(tokens, None if k else batch.signs, borders[k])[1]
        border = borders[-1].clone().requires_grad_()
        y, _ = self.advance(last, None if before else batch.signs, border)
        logits = self.answer(y)
        loss = F.binary_cross_entropy_with_logits(logits.to(borders), batch.positive.to(borders))
        loss.backward()
        for k in reversed(range(len(before))):
            gradient, border = border.grad, borders[k].clone().requires_grad_()
            state = self.advance(before[k], None if k else batch.signs, border)[1]
            torch.autograd.backward(state, gradient)
        return logits.detach(), loss.detach()

    def advance(self, tokens: Tensor, signs: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (T, B, hidden) and the states after them, (2, layers, B, hidden). signs: those of the first vectors, (B,);
        None is 1."""
        T, B = tokens.shape
        width = self.hidden if self.lookup else SYMBOLS
        sign = self.read.weight.new_ones(width).expand(T, B, width)
        if signs is not None:
            sign = torch.cat([signs.to(sign)[None, :, None].expand(1, B, width), sign[1:]])
        before = state if state is None else tuple(state)
        if not self.lookup:
            y, after = self.rnn(sign * F.one_hot(tokens.long(), SYMBOLS).to(sign), before)
            return y, torch.stack(after)
        with torch.autocast(sign.device.type, torch.bfloat16, enabled=self.mixed):
            y, carry = self.rnn(tokens, before, return_state=True, sign=sign)  # h_n would be rounded to 16 bits
        return y, torch.stack([torch.cat([carry.now[f"layers.{k}.{name}"] for k in (0, 1)], 1).transpose(0, 1)
                               for name in ("c", "h.h")])


def pieces(batch: Batch, chunk: int) -> tuple[Tensor, ...]:
    """The tokens, cut in time; the last piece may be shorter."""
    return batch.tokens.split(max(1, chunk // len(batch.positive)))


@torch.no_grad()
def remember(rnn: nn.Module, longest: int) -> None:
    """Set what the network begins with: memories that last `longest` steps or more and that little enters, surrogates that look
    back over numbers of steps of every order up to it, and small weights of the tokens. Other biases are 0, other weights stay.

    A gate sigmoid(b) forgets in about exp(b) steps. That memories as long as what they are to hold should be there from the
    start is the observation of Tallec & Ollivier (2018, arXiv 1804.11188).
    """
    for name, parameter in rnn.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
        elif name == "weight_ih_l0" or (name.startswith("layers.0.") and "_h." not in name):  # of the tokens
            nn.init.uniform_(parameter, -SMALL, SMALL)
    for forget, enter, keep in gates(rnn):
        forget.uniform_(math.log(longest), math.log(longest) + 2)
        enter.fill_(ENTER)
        keep.uniform_(0, math.log(longest))


def gates(rnn: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each layer the biases of the gates that forget, let enter, and keep the surrogate (of an LSTM, none: empty)."""
    if isinstance(rnn, nn.LSTM):
        biases = [bias.detach().split(rnn.hidden_size) for bias in (rnn.bias_ih_l0, rnn.bias_ih_l1)]
        return [(forget, enter, forget[:0]) for enter, forget, *_ in biases]
    first, second = rnn.layers
    return [(first.forget_h.bias, first.enter_h.bias, first.h.gate_bias),
            (second.forget.bias, second.enter.bias, second.h.gate.bias)]
