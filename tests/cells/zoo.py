"""Which reference loop a cell of the zoo is, and how the numbers of a case are drawn: one entry a cell.

The loops of tests/papers were written from the papers, and not beside the cells. `g` holds the inputs and the parameters by
the cell's names, `h` the initial states in the order of h_n (one, a tuple, or None), `r` the boundaries; sequences are (T, B,
size). A loop gives outputs and last states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import lrdsl as lr
from lrdsl import cells
from tests.papers import cumulative, filters, gated, oscillators, returns, stabilised, state_space, typed

I, H = 2, 3
Given = Mapping[str, Tensor]
Draw = Callable[[tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class Bound:
    """A cell and its truth. draws: for numbers that are not just normal; square: input_size is hidden_size; ends: inputs whose
    edge is given where the states' are, as "value.edge"."""

    cell: lr.Cell
    truth: Callable[[Given, Any, Tensor | None], tuple[Any, Any]]
    draws: Mapping[str, Draw] = field(default_factory=dict)
    square: bool = False
    ends: tuple[str, ...] = ()


def share(shape: tuple[int, ...]) -> Tensor:
    """Between 0.1 and 0.9."""
    return 0.1 + 0.8 * torch.rand(shape)


def positive(shape: tuple[int, ...]) -> Tensor:
    return 0.1 + torch.rand(shape)


def small(shape: tuple[int, ...]) -> Tensor:
    return 0.4 * torch.randn(shape)


def maps(g: Given, **names: str) -> dict[str, Tensor]:
    """W_z and b_z of z="update"; with b_z only where the map has a bias."""
    return {f"{kind}_{of}": g[f"{name}.{part}"] for of, name in names.items() for kind, part in (("W", "weight"), ("b", "bias"))
            if f"{name}.{part}" in g}


def typed_maps(g: Given) -> dict[str, Tensor]:
    """z, f, o, whose weights are [W | V] of x[t] and x[t-1]."""
    found = maps(g, z="update", f="forget", o="leave")
    for n in "zfo":
        found[f"W_{n}"], found[f"V_{n}"] = found[f"W_{n}"].chunk(2, 1)
    return found


def skipping(loop: Any, g: Given, h: Any, r: Tensor | None, x: str = "x", **more: Any) -> tuple[Any, Any]:
    """A state space model whose D is a matrix: the loops have a diagonal one."""
    y, last = loop(g[x], h, B=g["B.weight"], C=g["C.weight"], D=torch.zeros(H), reset=r, **more)
    return y + F.linear(g[x], g["D.weight"]), last


def s5(method: str) -> Bound:
    """Poles on the left."""
    return Bound(cells.s5(method),
                 lambda g, h, r: skipping(state_space.s5, g, h, r, Lambda=g["Lambda"], log_step=g["log_step"], method=method),
                 {"Lambda": lambda s: torch.complex(-positive(s), torch.randn(s))}, square=True)


def s4d(method: str) -> Bound:
    names = ("log_dt", "log_A_real", "A_imag", "B", "C", "D")
    return Bound(cells.s4d(4, method), lambda g, h, r: state_space.s4d(g["x"], h, **{n: g[n] for n in names}, method=method,
                                                                       reset=r), square=True)


def linoss(rule: str) -> Bound:
    loop = {"im": oscillators.linoss_im, "imex": oscillators.linoss_imex}[rule]
    return Bound(cells.linoss(rule), lambda g, h, r: skipping(loop, g, h, r, "u", A=torch.relu(g["a"]),
                                                              dt=torch.sigmoid(g["step"])), square=True)


def slstm(gate: str) -> Bound:
    return Bound(cells.slstm(gate), lambda g, h, r: stabilised.slstm(
        g["x"], h, **maps(g, z="new", i="enter", f="forget", o="leave"), forget=gate, reset=r), {"n": positive})


def called(loop: Any, first: str, **more: Any) -> Callable[[Given, Any, Tensor | None], tuple[Any, Any]]:
    """A loop whose arguments have the cell's names; the edge of an input is `value_end` there."""
    return lambda g, h, r: loop(g[first], h, **{n.replace(".edge", "_end"): v for n, v in g.items() if n != first}, reset=r,
                                **more)


NUMERATOR, DENOMINATOR = [0.5, -0.25, 0.125, 0.3], [2.0, -0.75, 0.5, 0.25, -0.125]
RETURNS = {"discount": share, "lam": share}

BOUND: dict[str, Bound] = {
    "t_rnn": Bound(cells.t_rnn, lambda g, h, r: typed.t_rnn(g["x"], h, W=g["update.weight"], V=g["forget.weight"],
                                                            b=g["forget.bias"], reset=r)),
    "t_gru": Bound(cells.t_gru, lambda g, h, r: typed.t_gru(g["x"], h, **typed_maps(g), reset=r)),
    "t_lstm": Bound(cells.t_lstm, lambda g, h, r: typed.t_lstm(g["x"], h, **typed_maps(g), reset=r)),
    "mingru": Bound(cells.mingru, lambda g, h, r: gated.mingru(g["x"], h, **maps(g, z="update", h="new"), reset=r)),
    "minlstm": Bound(cells.minlstm, lambda g, h, r: gated.minlstm(g["x"], h, **maps(g, f="forget", i="enter", h="new"),
                                                                  reset=r)),
    "hgrn": Bound(cells.hgrn(0.25), lambda g, h, r: gated.hgrn(g["x"], h, gamma=0.25, **maps(g, mu="forget", c="update"),
                                                               reset=r)),
    "rglru": Bound(cells.rglru, lambda g, h, r: gated.rglru(g["x"], h, Lambda=g["Lambda"], **maps(g, a="recur", x="enter"),
                                                            reset=r), square=True),
    "lru": Bound(cells.lru, lambda g, h, r: skipping(state_space.lru, g, h, r, nu_log=g["nu"], theta_log=g["theta"],
                                                     gamma_log=g["gamma"]), square=True),
    "s5": s5("zoh"), "s5_bilinear": s5("bilinear"),
    "mamba_s6": Bound(cells.mamba_s6(4), lambda g, h, r: state_space.mamba_s6(
        g["x"], h, A_log=g["A_log"], D=g["D"], **maps(g, B="B", C="C", delta="step"), reset=r), square=True),
    "linoss_im": linoss("im"), "linoss_imex": linoss("imex"),
    "slstm": slstm("sigmoid"), "slstm_exp": slstm("exp"),
    "rwkv4_wkv": Bound(cells.rwkv4_wkv, called(stabilised.rwkv4_wkv_stabilised, "k"), {"w": positive, "den": positive}),
    "mlstm_normaliser": Bound(cells.mlstm_normaliser, called(stabilised.mlstm_normaliser, "k")),
    "ema": Bound(cells.ema, called(filters.ema, "x"), {"alpha": share}),
    "damped_ema": Bound(cells.damped_ema, called(filters.damped_ema, "x"), {"alpha": share, "delta": share}),
    "mega_ema": Bound(cells.mega_ema(4), lambda g, h, r: filters.mega_ema(
        g["x"], h, alpha=torch.sigmoid(g["alpha"]), delta=torch.sigmoid(g["delta"]), beta=g["beta"], eta=g["eta"], reset=r)),
    "holt_winters": Bound(cells.holt_winters, called(filters.holt_winters, "x"), {"alpha": share, "beta": share}),
    "biquad": Bound(cells.biquad, called(filters.biquad, "x"), {"a1": small, "a2": small}),
    "lfilter": Bound(cells.lfilter(NUMERATOR, DENOMINATOR), called(
        filters.lfilter, "x", b=[c / DENOMINATOR[0] for c in NUMERATOR], a=[c / DENOMINATOR[0] for c in DENOMINATOR])),
    "kalman": Bound(cells.kalman, called(filters.kalman, "z"), {"gain": share, "transition": share}),
    "rotation": Bound(cells.rotation, lambda g, h, r: oscillators.rotation(
        g["x1"], h, x_2=g["x2"], rho=g["rho"], theta=g["theta"], reset=r), {"rho": share}),
    "discounted_return": Bound(cells.discounted_return, called(returns.discounted_return, "reward"), RETURNS),
    "gae": Bound(cells.gae, called(returns.gae, "reward"), RETURNS, ends=("value",)),
    "lambda_return": Bound(cells.lambda_return, called(returns.lambda_return, "reward"), RETURNS),
    "vtrace": Bound(cells.vtrace(1.5, 1.0), called(returns.vtrace, "reward", rho_bar=1.5, c_bar=1.0),
                    RETURNS | {"ratio": lambda s: 2 * positive(s)}, ends=("value",)),
    "cumsum": Bound(cells.cumsum, called(cumulative.cumsum, "x")),
    "cumprod": Bound(cells.cumprod, called(cumulative.cumprod, "x")),
    "cummax": Bound(cells.cummax, called(cumulative.cummax, "x")),
    "logcumsumexp": Bound(cells.logcumsumexp, called(cumulative.logcumsumexp, "x")),
}
