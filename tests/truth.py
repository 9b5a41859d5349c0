"""The truth: every recurrence as a slow float64 loop over time, written from the equations and from nothing else.

The equations are those of Martin & Cundy, "Parallelizing Linear Recurrent Neural Nets Over Sequence Length" (ICLR 2018,
arXiv 1709.04057), called "the paper" below. Nothing here imports lrdsl. `torch.autograd` of a loop is the truth of its
gradients. Time is dimension 1 of every sequence, features are last: (batch B, time T, channels C).

Edges, the same everywhere: a read before the first step (in reverse: after the last one) gives the initial value, 0
where it is None; so does any read across a boundary. `reset` is a bool (B, T), and `reset[b, t]` is a boundary between
t-1 and t: it cuts the read of sample t-1 at t, and in reverse the read of sample t at t-1. `reset[:, 0]` changes
nothing. The edge is selected, never multiplied in, so that a nan behind a boundary stays there, in the gradient too.

Inputs that are not float64 (or complex128) are refused: a truth in float32 would be none. `leaf` makes them.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

Params = Mapping[str, Tensor]


def leaf(values: Tensor) -> Tensor:
    """A float64 (complex128) copy of `values` that asks for a gradient: the same numbers, exactly."""
    return values.detach().to(torch.complex128 if values.is_complex() else torch.float64).requires_grad_()


def linear_scan(
    a: Tensor, b: Tensor, h0: Tensor | None = None, reset: Tensor | None = None, reverse: bool = False
) -> Tensor:
    """h[t] = a[t] h[t-1] + b[t]; in reverse h[t] = a[t] h[t+1] + b[t].

    The paper, section 2: the diagonal linear recurrence h_t = (Lambda_t * h_{t-1}) + x_t.
    Shapes: a, b (B, T, C), h0 (B, C), reset (B, T); gives h (B, T, C).
    """
    _refuse_narrow(a, b, h0)
    edge = _edge(h0, b)
    h, samples = edge, {}
    for t in _steps(b, reverse):
        h = a[:, t] * _read(h, edge, reset, t, reverse) + b[:, t]
        samples[t] = h
    return _sequence(samples)


def gilr(
    x: Tensor, params: Params, h0: Tensor | None = None, reset: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Gated impulse linear recurrence, the paper, section 3.1 (its U, b_g are `gate`, its V, b_z are `impulse`):

        g[t] = sigmoid(U x[t] + b_g)
        i[t] = tanh(V x[t] + b_z)
        h[t] = g[t] h[t-1] + (1 - g[t]) i[t]

    Shapes: x (B, T, I), {gate,impulse}.weight (H, I), {gate,impulse}.bias (H,), h0 (B, H), reset (B, T);
    gives h (B, T, H) and h_last (B, H): the sample that the recurrence ends on, h[:, 0] in reverse.
    """
    _refuse_narrow(x, h0, *params.values())
    edge = _edge(h0, x, like=params["gate.bias"])
    h, samples = edge, {}
    for t in _steps(x, reverse):
        g = torch.sigmoid(_dense(params, "gate", x[:, t]))
        i = torch.tanh(_dense(params, "impulse", x[:, t]))
        h = g * _read(h, edge, reset, t, reverse) + (1 - g) * i
        samples[t] = h
    return _sequence(samples), h


def gilr_lstm(
    x: Tensor,
    params: Params,
    c0: Tensor | None = None,
    s0: Tensor | None = None,
    reset: Tensor | None = None,
    delay: int = 1,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The LSTM with a GILR as linear surrogate, the paper, section 3.3 (s is the paper's h with a tilde):

        s[t] = GILR of x[t], with the parameters h.gate.*, h.impulse.*
        f[t], i[t], o[t] = sigmoid(V x[t] + U s[t-1] + b), with forget, enter, leave
        z[t] = tanh(V x[t] + U s[t-1] + b), with update
        c[t] = f[t] c[t-1] + i[t] z[t]
        h[t] = o[t] c[t]                  without a tanh on c[t]

    delay=1 is the paper's text: the gates read s[t-1], s0 at an edge (in reverse s[t+1]). delay=0 is the authors' code
    (layers.py, linear_surrogate_lstm): they read s[t], which crosses no boundary.
    Shapes: x (B, T, I), {forget,enter,update,leave}.weight (H, I + H) = [V | U] and .bias (H,), h.{gate,impulse}.weight
    (H, I) and .bias (H,), c0 and s0 (B, H), reset (B, T); gives h (B, T, H), c_last (B, H), s_last (B, H).
    """
    if delay not in (0, 1):
        raise ValueError(f"delay is 0 or 1, not {delay}")
    _refuse_narrow(x, c0, s0, *params.values())
    surrogate = {name.removeprefix("h."): value for name, value in params.items() if name.startswith("h.")}
    s, s_last = gilr(x, surrogate, s0, reset, reverse)
    edge_c, edge_s = (_edge(edge, x, like=params["forget.bias"]) for edge in (c0, s0))
    c, s_before, samples = edge_c, edge_s, {}
    for t in _steps(x, reverse):
        heard = s[:, t] if delay == 0 else _read(s_before, edge_s, reset, t, reverse)
        f, i, o = (torch.sigmoid(_dense(params, name, x[:, t], heard)) for name in ("forget", "enter", "leave"))
        z = torch.tanh(_dense(params, "update", x[:, t], heard))
        c = f * _read(c, edge_c, reset, t, reverse) + i * z
        samples[t] = o * c
        s_before = s[:, t]
    return _sequence(samples), c, s_last


def highway_sru(
    u_z: Tensor,
    u_f: Tensor,
    u_r: Tensor,
    x: Tensor,
    b_f: Tensor,
    b_r: Tensor,
    c0: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """SRU with its highway, from the products u = W x (Lei & Zhang, arXiv 1709.02755, first version; the paper, 3.2):

        f[t] = sigmoid(u_f[t] + b_f)
        r[t] = sigmoid(u_r[t] + b_r)
        c[t] = f[t] c[t-1] + (1 - f[t]) u_z[t]
        h[t] = r[t] tanh(c[t]) + (1 - r[t]) x[t]      (the authors' code has no tanh here)

    Shapes: u_z, u_f, u_r, x (B, T, C), b_f, b_r (C,), c0 (B, C), reset (B, T); gives h and c (B, T, C).
    """
    _refuse_narrow(u_z, u_f, u_r, x, b_f, b_r, c0)
    edge = _edge(c0, u_z)
    c, cells, outputs = edge, {}, {}
    for t in _steps(x):
        f = torch.sigmoid(u_f[:, t] + b_f)
        r = torch.sigmoid(u_r[:, t] + b_r)
        c = f * _read(c, edge, reset, t) + (1 - f) * u_z[:, t]
        cells[t] = c
        outputs[t] = r * torch.tanh(c) + (1 - r) * x[:, t]
    return _sequence(outputs), _sequence(cells)


def second_order(a1: Tensor, a2: Tensor, b: Tensor, y0: Tensor | None = None) -> Tensor:
    """y[t] = a1[t] y[t-1] + a2[t] y[t-2] + b[t]: an order-2 filter with moving coefficients.

    Not in the paper: its framework (section 2.1) with a companion matrix for Lambda_t.
    Shapes: a1, a2, b (B, T, C), y0 (B, 2, C) with y0[:, 0] = y[-1] and y0[:, 1] = y[-2]; gives y (B, T, C).
    """
    _refuse_narrow(a1, a2, b, y0)
    y1, y2 = (_edge(None if y0 is None else y0[:, k], b) for k in (0, 1))
    samples = {}
    for t in _steps(b):
        y1, y2 = a1[:, t] * y1 + a2[:, t] * y2 + b[:, t], y1
        samples[t] = y1
    return _sequence(samples)


def discounted_return(r: Tensor, gamma: float | Tensor) -> Tensor:
    """G[t] = r[t] + gamma G[t+1], 0 after the last step (Sutton & Barto, equation 3.9): a reverse recurrence.

    Shapes: r (B, T, C), gamma a number or anything that broadcasts to (B, C); gives G (B, T, C).
    """
    _refuse_narrow(r)
    later, samples = torch.zeros_like(r[:, 0]), {}
    for t in _steps(r, reverse=True):
        later = r[:, t] + gamma * later
        samples[t] = later
    return _sequence(samples)


def _steps(sequence: Tensor, reverse: bool = False) -> Iterable[int]:
    """The times in the order of the recurrence."""
    steps = range(sequence.shape[1])
    return reversed(steps) if reverse else steps


def _read(before: Tensor, edge: Tensor, reset: Tensor | None, t: int, reverse: bool = False) -> Tensor:
    """The sample that step t reads at lag 1: (B, C) of `before`, or of `edge` where a boundary lies between."""
    boundary = t + 1 if reverse else t
    if reset is None or boundary == reset.shape[1]:
        return before
    return torch.where(reset[:, boundary, None], edge, before)


def _edge(edge: Tensor | None, sequence: Tensor, like: Tensor | None = None) -> Tensor:
    """(B, C) of the initial value, or zeros, with the channels of `like` (by default of the sequence)."""
    channels = (sequence if like is None else like).shape[-1]
    return sequence.new_zeros(sequence.shape[0], channels) if edge is None else edge


def _dense(params: Params, name: str, *operands: Tensor) -> Tensor:
    """W [operands] + bias at one step: operands (B, K1), (B, K2), ..., weight (H, K1 + K2 + ...); gives (B, H)."""
    return torch.cat(operands, dim=-1) @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def _sequence(samples: Mapping[int, Tensor]) -> Tensor:
    """(B, T, C) of samples by time, in whichever order they were computed."""
    return torch.stack([samples[t] for t in range(len(samples))], dim=1)


def _refuse_narrow(*tensors: Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None and tensor.dtype not in (torch.float64, torch.complex128):
            raise TypeError(f"the truth is computed in float64, not in {tensor.dtype}: see `leaf`")


def sru(
    x: Tensor, params: Params, c0: Tensor | None = None, reset: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """SRU from x itself (Lei & Zhang, arXiv 1709.02755 v1, equations 3 to 7), with g = tanh:

        f[t] = sigmoid(W_f x[t] + b_f), with forget
        r[t] = sigmoid(W_r x[t] + b_r), with highway
        c[t] = f[t] c[t-1] + (1 - f[t]) W x[t], with update
        h[t] = r[t] tanh(c[t]) + (1 - r[t]) x[t]

    Shapes: x (B, T, H), {forget,highway,update}.weight (H, H), {forget,highway}.bias (H,), c0 (B, H), reset (B, T);
    gives h (B, T, H) and c_last (B, H).
    """
    _refuse_narrow(x, c0, *params.values())
    edge = _edge(c0, x)
    c, samples = edge, {}
    for t in _steps(x, reverse):
        f, r = (torch.sigmoid(_dense(params, name, x[:, t])) for name in ("forget", "highway"))
        c = f * _read(c, edge, reset, t, reverse) + (1 - f) * (x[:, t] @ params["update.weight"].T)
        samples[t] = r * torch.tanh(c) + (1 - r) * x[:, t]
    return _sequence(samples), c


def qrnn(
    x: Tensor,
    params: Params,
    pooling: str,
    window: int,
    c0: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Quasi-recurrent network (Bradbury et al., arXiv 1611.01576, section 2). A gate is a convolution masked to the past,
    V_0 x[t] + V_1 x[t-1] + … + V_{k-1} x[t-k+1] + b with k = window, in which x beyond an edge is 0:

        z[t] = tanh(convolution), with update; f[t], i[t], o[t] = sigmoid(convolution), with forget, enter, leave
        "f"      h[t] = c[t] = f[t] c[t-1] + (1 - f[t]) z[t]
        "fo"     c[t] = f[t] c[t-1] + (1 - f[t]) z[t],  h[t] = o[t] c[t]
        "ifo"    c[t] = f[t] c[t-1] + i[t] z[t],        h[t] = o[t] c[t]

    Shapes: x (B, T, I), weights (H, k I) = [V_0 | V_1 | …], biases (H,), c0 (B, H), reset (B, T); gives h (B, T, H) and
    c_last (B, H). In reverse the window is x[t], x[t+1] ….
    """
    if pooling not in ("f", "fo", "ifo"):
        raise ValueError(f"pooling is f, fo or ifo, not {pooling}")
    _refuse_narrow(x, c0, *params.values())
    edge = _edge(c0, x, like=params["forget.bias"])
    c, samples = edge, {}
    for t in _steps(x, reverse):
        seen = [_seen(x, reset, t, k, reverse) for k in range(window)]
        f, z = torch.sigmoid(_dense(params, "forget", *seen)), torch.tanh(_dense(params, "update", *seen))
        i = torch.sigmoid(_dense(params, "enter", *seen)) if pooling == "ifo" else 1 - f
        c = f * _read(c, edge, reset, t, reverse) + i * z
        samples[t] = c if pooling == "f" else torch.sigmoid(_dense(params, "leave", *seen)) * c
    return _sequence(samples), c


def _seen(x: Tensor, reset: Tensor | None, t: int, k: int, reverse: bool) -> Tensor:
    """(B, I): x[t-k], in reverse x[t+k]; 0 outside the sequence, and where any boundary lies between."""
    at = t + k if reverse else t - k
    if not 0 <= at < x.shape[1]:
        return torch.zeros_like(x[:, t])
    if reset is None:
        return x[:, at]
    between = reset[:, min(at, t) + 1 : max(at, t) + 1].any(1)
    return torch.where(between[:, None], 0.0, x[:, at])


def sru_v2(
    x: Tensor, params: Params, c0: Tensor | None = None, reset: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """SRU whose gates read c[t-1] (Lei et al., EMNLP 2018, section 3), with a highway bias that started at 0:

        f[t] = sigmoid(W_f x[t] + v_f c[t-1] + b_f), with forget
        r[t] = sigmoid(W_r x[t] + v_r c[t-1] + b_r), with highway
        c[t] = f[t] c[t-1] + (1 - f[t]) W x[t], with update
        h[t] = r[t] c[t] + (1 - r[t]) sqrt(3) x[t]

    Shapes: x (B, T, H), {forget,highway,update}.weight (H, H), {forget,highway}.bias (H,), v_f, v_r (H,), c0 (B, H), reset
    (B, T); gives h (B, T, H) and (c_last (B, H),).
    """
    _refuse_narrow(x, c0, *params.values())
    edge = _edge(c0, x)
    c, samples = edge, {}
    for t in _steps(x, reverse):
        before = _read(c, edge, reset, t, reverse)
        f = torch.sigmoid(_dense(params, "forget", x[:, t]) + params["v_f"] * before)
        r = torch.sigmoid(_dense(params, "highway", x[:, t]) + params["v_r"] * before)
        c = f * before + (1 - f) * (x[:, t] @ params["update.weight"].T)
        samples[t] = r * c + (1 - r) * 3**0.5 * x[:, t]
    return _sequence(samples), (c,)


def indrnn(
    x: Tensor, params: Params, h0: Tensor | None = None, reset: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """IndRNN (Li et al., arXiv 1803.04831, equation 4): h[t] = relu(W x[t] + u h[t-1] + b), with enter.

    Shapes: x (B, T, I), enter.weight (H, I), enter.bias, u (H,), h0 (B, H), reset (B, T); gives h (B, T, H), (h_last,).
    """
    _refuse_narrow(x, h0, *params.values())
    edge = _edge(h0, x, like=params["u"])
    h, samples = edge, {}
    for t in _steps(x, reverse):
        h = torch.relu(_dense(params, "enter", x[:, t]) + params["u"] * _read(h, edge, reset, t, reverse))
        samples[t] = h
    return _sequence(samples), (h,)


def diag_gru(
    x: Tensor, params: Params, h0: Tensor | None = None, reset: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The GRU with diagonal recurrent matrices (Danieli et al., arXiv 2510.21450), z on the new value:

        z[t] = sigmoid(W_z x[t] + a_z h[t-1] + b_z), with update; r[t] the same with reset
        n[t] = tanh(W_n x[t] + a_n (r[t] h[t-1]) + b_n), with candidate
        h[t] = (1 - z[t]) h[t-1] + z[t] n[t]

    Shapes: x (B, T, I), weights (H, I), biases and a (H,), h0 (B, H), reset (B, T); gives h (B, T, H) and (h_last,).
    """
    _refuse_narrow(x, h0, *params.values())
    edge = _edge(h0, x, like=params["a_z"])
    h, samples = edge, {}
    for t in _steps(x, reverse):
        before = _read(h, edge, reset, t, reverse)
        z = torch.sigmoid(_dense(params, "update", x[:, t]) + params["a_z"] * before)
        r = torch.sigmoid(_dense(params, "reset", x[:, t]) + params["a_r"] * before)
        n = torch.tanh(_dense(params, "candidate", x[:, t]) + params["a_n"] * (r * before))
        h = (1 - z) * before + z * n
        samples[t] = h
    return _sequence(samples), (h,)


def diag_lstm(
    x: Tensor,
    params: Params,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The LSTM with diagonal recurrent matrices, coupled gates and peepholes (Danieli et al., arXiv 2510.21450):

        f[t] = sigmoid(W_f x[t] + a_f h[t-1] + p_f c[t-1] + b_f), with forget
        z[t] = tanh(W_z x[t] + a_z h[t-1] + b_z), with update
        c[t] = f[t] c[t-1] + (1 - f[t]) z[t]
        o[t] = sigmoid(W_o x[t] + a_o h[t-1] + p_o c[t] + b_o), with leave
        h[t] = o[t] tanh(c[t])

    Shapes: x (B, T, I), weights (H, I), biases, a and p (H,), h0 and c0 (B, H), reset (B, T); gives h (B, T, H) and
    (h_last, c_last).
    """
    _refuse_narrow(x, h0, c0, *params.values())
    edge_h, edge_c = (_edge(edge, x, like=params["a_f"]) for edge in (h0, c0))
    h, c, samples = edge_h, edge_c, {}
    for t in _steps(x, reverse):
        h_before, c_before = _read(h, edge_h, reset, t, reverse), _read(c, edge_c, reset, t, reverse)
        f = torch.sigmoid(_dense(params, "forget", x[:, t]) + params["a_f"] * h_before + params["p_f"] * c_before)
        z = torch.tanh(_dense(params, "update", x[:, t]) + params["a_z"] * h_before)
        c = f * c_before + (1 - f) * z
        o = torch.sigmoid(_dense(params, "leave", x[:, t]) + params["a_o"] * h_before + params["p_o"] * c)
        h = o * torch.tanh(c)
        samples[t] = h
    return _sequence(samples), (h, c)
