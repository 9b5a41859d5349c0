"""What a call refuses, in the user's names, with a way out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import lrdsl as lr
from lrdsl.errors import BackendUnavailable, CellError, DtypeMismatch, NotBuilt, ShapeMismatch, UnknownName
from tests.nn.cells import ahead, order2, single, smooth, stacked, window

T, B, I, H = 5, 2, 3, 4
x = torch.zeros(T, B, I, dtype=torch.float64)
s = torch.zeros(1, B, H, dtype=torch.float64)
packed = pack_sequence([x[:, 0], x[:3, 1]])
borders = torch.tensor([0, 2, 5])


def gilr_lstm() -> lr.RNN:
    return lr.RNN(lr.cells.gilr_lstm, I, H)


MODULE_CALLS: list[tuple[Any, type[Exception], str]] = [
    (lambda: gilr_lstm()(x[..., :2]), ShapeMismatch,
     "the input x has shape (5, 2, 2), not (time, features) or (time, batch, features) with 3 features"),
    (lambda: gilr_lstm()(x[0, 0]), ShapeMismatch, "the input x has shape (3,)"),
    (lambda: gilr_lstm()(x.float()), DtypeMismatch, "the input x is torch.float32 on cpu, the layer torch.float64 on cpu"),
    (lambda: gilr_lstm()(x.bfloat16()), DtypeMismatch, "the input x is torch.bfloat16 on cpu, the layer torch.float64 on cpu"),
    (lambda: gilr_lstm().half()(x.half(), (s, s)), DtypeMismatch, "h_0 of c is torch.float64 on cpu, the input torch.float16"),
    (lambda: gilr_lstm()(x.long()), ShapeMismatch, "not (time) or (time, batch): an integer stands for a one-hot vector of 3"),
    (lambda: gilr_lstm()(x[..., 0].bool()), DtypeMismatch, "the input x is torch.bool; integers, which mean one-hot vectors"),
    (lambda: gilr_lstm()(x[..., 0].long() + 3), CellError, "the input x holds the index 3; it has 3 features"),
    (lambda: gilr_lstm()(x[..., 0].int() - 1), CellError, "the input x holds the index -1; it has 3 features"),
    (lambda: lr.RNN(single, H, H)(x[..., 0].long()), DtypeMismatch, "one-hot vectors, but single reads x channel by channel"),
    (lambda: gilr_lstm()([x]), DtypeMismatch, "the input x is a list, not a tensor"),
    (lambda: gilr_lstm()(x.to("meta")), DtypeMismatch, "the input x is torch.float64 on meta, the layer torch.float64 on cpu"),
    (lambda: gilr_lstm()(packed, reset=x[..., 0] > 0), CellError, "x is a PackedSequence, which says where its sequences end"),
    (lambda: gilr_lstm()(packed, cu_seqlens=s), CellError, "and cu_seqlens= was given"),
    (lambda: gilr_lstm()(packed, (s, s[:, :1])), ShapeMismatch, "h_0 of h.h has shape (1, 1, 4), not (1, 2, 4)"),
    (lambda: lr.RNN(window, H, H)(pack_sequence([s[0]]), u=s), DtypeMismatch, "u is a Tensor, the first input a Packed"),
    (lambda: lr.RNN(window, H, H)(pack_sequence([s[0]]), u=pack_sequence([s[0, :1]])), ShapeMismatch, "for other lengths"),
    (lambda: gilr_lstm()(x, s), ShapeMismatch, "h_0 holds 1 states; gilr_lstm carries 2: c, h.h"),
    (lambda: gilr_lstm()(x, (s, s[:, :1])), ShapeMismatch, "h_0 of h.h has shape (1, 1, 4), not (1, 2, 4)"),
    (lambda: gilr_lstm()(x, (s, s.float())), DtypeMismatch, "h_0 of h.h is torch.float32"),
    (lambda: gilr_lstm()(x, (s, 0.0)), DtypeMismatch, "h_0 of h.h is a float, not a tensor"),
    (lambda: gilr_lstm()(x, lr.Carry({"h": s}, {})), ShapeMismatch, "does not hold layers.0.c, layers.0.h.h"),
    (lambda: gilr_lstm()(x, gilr_lstm()(x[:, :1], return_state=True)[1]), ShapeMismatch, "the Carry holds 1 sequences"),
    (lambda: gilr_lstm()(x, reset=torch.zeros(B, T, dtype=torch.bool)), ShapeMismatch, "reset has shape (2, 5), not (5, 2)"),
    (lambda: gilr_lstm()(x, reset=torch.zeros(T, B)), DtypeMismatch, "reset is torch.float64, not bool"),
    (lambda: gilr_lstm()(x, u=x), UnknownName, "gilr_lstm has no input u"),
    (lambda: gilr_lstm()(x[:, 0], cu_seqlens=s), DtypeMismatch, "cu_seqlens is torch.float64, not a tensor of int32 or int64"),
    (lambda: gilr_lstm()(x, cu_seqlens=borders), ShapeMismatch, "cuts one packed sequence, and x has a batch of 2"),
    (lambda: gilr_lstm()(x[:, 0], cu_seqlens=borders, reset=x[:, 0, 0] > 0), CellError, "both say where segments begin"),
    (lambda: gilr_lstm()(x[:4, 0], cu_seqlens=borders), ShapeMismatch, "cu_seqlens is [0, 2, 5]: it must go from 0 to 4"),
    (lambda: gilr_lstm()(x[:, 0], cu_seqlens=borders.flip(0)), ShapeMismatch, "cu_seqlens is [5, 2, 0]: it must"),
    (lambda: gilr_lstm()(x[:, 0], cu_seqlens=borders[1:]), ShapeMismatch, "cu_seqlens is [2, 5]"),
    (lambda: gilr_lstm()(x[:, 0], cu_seqlens=borders[None]), ShapeMismatch, "has shape (1, 3), not (segments + 1,)"),
    (lambda: gilr_lstm()(x[:, 0], cu_seqlens=borders[:0]), ShapeMismatch, "has shape (0,), not (segments + 1,)"),
    (lambda: gilr_lstm()(x[:, 0], cu_seqlens=[0, 5]), DtypeMismatch, "cu_seqlens is a list"),
    (lambda: gilr_lstm()(x[:, 0], (s[:, :1], s), cu_seqlens=borders), ShapeMismatch, "it is (layers, segments, hidden)"),
    (lambda: gilr_lstm()(x, cp=1), NotBuilt, "cp= is part of the language but not built yet"),
    (lambda: lr.RNN(window, H, H)(s), CellError, "window needs the input u"),
    (lambda: lr.RNN(window, H, H)(s, u=s[:, :1]), ShapeMismatch, "the input u has shape (1, 1, 4), the first input (1, 2, 4)"),
    (lambda: lr.RNN(stacked, I, H)(x, (s, s)), ShapeMismatch, "h_0 of p has shape (1, 2, 4), not (1, 2, 4, 2)"),
    (lambda: lr.RNN(lr.cells.gilr, I, H, bidirectional=True).step(x[0]), CellError, "gilr runs in both directions"),
    (lambda: lr.RNN(lr.Cell(lr.cells.gilr.spec.mirrored()), I, H).step(x[0]), CellError, "gilr runs from the right"),
    (lambda: lr.RNN(ahead, H, H).step(s[0]), CellError, "ahead reads x ahead, so that it cannot go step by step"),
]

a = torch.zeros(B, T, I, dtype=torch.float64)
FUNCTION_CALLS: list[tuple[Any, type[Exception], str]] = [
    (lambda: lr.function(lr.cells.gilr), CellError, "gilr has dense maps (gate, impulse), and a function has no weights"),
    (lambda: lr.function(lr.cells.gilr), CellError, "way out: make a module: lr.RNN(gilr, input_size, hidden_size)"),
    (lambda: lr.linear_scan(a, a[:, :3]), ShapeMismatch, "b of linear_scan has shape (2, 3, 3), a (2, 5, 3)"),
    (lambda: lr.linear_scan(a, a[:, :1]), ShapeMismatch, "time must agree, batch and channels must agree or be 1"),
    (lambda: lr.linear_scan(a, a.float()), DtypeMismatch, "b of linear_scan is torch.float32 on cpu"),
    (lambda: lr.linear_scan(a.half(), a.bfloat16()), DtypeMismatch, "b of linear_scan is torch.bfloat16 on cpu"),
    (lambda: lr.linear_scan(a.half(), a.half(), a[:, 0]), DtypeMismatch, "the initial value of h is torch.float64 on cpu"),
    (lambda: lr.linear_scan(a.long(), a), DtypeMismatch, "a is int64, not float32, float64, bfloat16 or float16"),
    (lambda: lr.linear_scan(a, 1.0), DtypeMismatch, "the input b is a float, not a tensor"),  # type: ignore[arg-type]
    (lambda: lr.linear_scan(a, a, a), ShapeMismatch, "the initial value of h has shape (2, 5, 3), not (2, 3)"),
    (lambda: lr.linear_scan(a, a, a[:, 0].float()), DtypeMismatch, "the initial value of h is torch.float32"),
    (lambda: lr.linear_scan(a[0], a[0]), ShapeMismatch, "no time at dimension 1 with features behind it"),
    (lambda: lr.linear_scan(a, a, dim=2), ShapeMismatch, "no time at dimension 2 with features behind it"),
    (lambda: lr.function(smooth)(a), CellError, "smooth takes 3 arguments (x, v, s), 1 were given"),
    (lambda: lr.function(smooth)(a, 1.0, 1.0, 1.0), CellError, "initial values go into init"),
    (lambda: lr.function(smooth)(a, 1.0, z=1.0), UnknownName, "smooth has no argument z"),
    (lambda: lr.function(smooth)(a, a[0, 0, :2], 1.0), ShapeMismatch, "the vector v has shape (2,), not (3,)"),
    (lambda: lr.function(smooth)(a, a[0, 0], a[0, 0]), ShapeMismatch, "the scalar s has shape (3,), not ()"),
    (lambda: lr.function(smooth)(a, a[0, 0].float(), 1.0), DtypeMismatch, "v is torch.float32"),
    (lambda: lr.function(smooth)(a, 1.0, 1.0, init={"x": 0.0}), UnknownName, "smooth reads no x at a lag"),
    (lambda: lr.function(smooth)(a, 1.0, 1.0, cu_seqlens=borders), ShapeMismatch, "have a batch of 2"),
    (lambda: lr.function(smooth)(a[:1], 1.0, 1.0, cu_seqlens=borders, reset=a[:1, :, 0] > 0), CellError, "both say where"),
    (lambda: lr.function(smooth)(a[:1], 1.0, 1.0, cu_seqlens=borders, init={"h": a[0, :4]}), ShapeMismatch, "not (2, 3)"),
    (lambda: lr.function(smooth)(a, 1.0, 1.0, cp=1), NotBuilt, "context parallelism"),
    (lambda: lr.function(smooth)(a, 1.0, 1.0, reset=a[0] > 0), ShapeMismatch, "reset has shape (5, 3), not (2, 5)"),
    (lambda: lr.function(order2)(a, a, init={"y": a[:, 0]}), ShapeMismatch, "then the 2 values, nearest first"),
]


@pytest.mark.parametrize("call, error, text", MODULE_CALLS + FUNCTION_CALLS, ids=lambda v: v if isinstance(v, str) else "")
def test_the_message(call: Any, error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_BACKEND", "reference")
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
    assert type(caught.value) is error


def test_a_backend_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_BACKEND", "abacus")
    with pytest.raises(BackendUnavailable, match="abacus"):
        lr.linear_scan(a, a)
