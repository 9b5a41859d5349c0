"""Stabilised linear recurrences, whose states are scaled by a running maximum: RWKV-4's WKV, mLSTM's memory and normaliser, and
sLSTM without its recurrent matrix.

Nothing in the compiler knows of them: the maximum is a recurrence over (max, +), and numerator and denominator are plus-times
ones whose coefficients read it at t and t-1. The truth is the recurrence without the maximum, in which e^1000 is just a large
number: a loop in mpmath with 60 digits, and its gradient by central differences of 1e-25.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import lrdsl as lr
from lrdsl import abs, exp, maximum, sigmoid, softplus, t, tanh
from lrdsl.ir.program import Scan
from lrdsl.programs import plan_of
from tests.nn.compare import as_tuple, assert_close, gradients, leaf

T, CHANNELS = 6, 2
wkv = lr.cells.rwkv4_wkv


@lr.cell
def mlstm(f: lr.Input, i: lr.Input, k: lr.Input, v: lr.Input, q: lr.Input, c: lr.State, n: lr.State,
          m: lr.State = lr.State(init=-math.inf)):
    """The stabilised mLSTM (Beck et al. 2024, arXiv 2405.04517) of head size 1; f and i are what its gates are made of."""
    m[t] = maximum(m[t - 1] - softplus(-f[t]), i[t])
    forget, enter = exp(m[t - 1] - softplus(-f[t]) - m[t]), exp(i[t] - m[t])
    c[t] = forget * c[t - 1] + enter * v[t] * k[t]
    n[t] = forget * n[t - 1] + enter * k[t]
    return c[t] * q[t] / maximum(abs(n[t] * q[t]), exp(-m[t])), n[t]


@lr.cell
def slstm(f: lr.Input, i: lr.Input, z: lr.Input, o: lr.Input, c: lr.State, n: lr.State,
          m: lr.State = lr.State(init=-math.inf)):
    """The stabilised sLSTM (ibid.) without its recurrent matrix; the forget gate is an exponential here."""
    m[t] = maximum(m[t - 1] + f[t], i[t])
    forget, enter = exp(m[t - 1] + f[t] - m[t]), exp(i[t] - m[t])
    c[t] = forget * c[t - 1] + enter * tanh(z[t])
    n[t] = forget * n[t - 1] + enter
    return sigmoid(o[t]) * c[t] / n[t]


def plain_wkv(k: Any, v: Any, w: Any, u: Any) -> list[Any]:
    """One channel: sums of e^(k_i - (t-1-i) w) v_i, and of the same without v, nothing stabilised."""
    num, den, out = mp.mpf(0), mp.mpf(0), []
    for now, value in zip(k, v, strict=True):
        out.append((num + mp.exp(u + now) * value) / (den + mp.exp(u + now)))
        num, den = mp.exp(-w) * num + mp.exp(now) * value, mp.exp(-w) * den + mp.exp(now)
    return out


def plain_mlstm(f: Any, i: Any, k: Any, v: Any, q: Any) -> list[Any]:
    """One channel: c q / max(|n q|, 1), c and n with the gates sigmoid(f) and e^i as they are."""
    c, n, out = mp.mpf(0), mp.mpf(0), []
    for forget, enter, key, value, query in zip(f, i, k, v, q, strict=True):
        forget, enter = 1 / (1 + mp.exp(-forget)), mp.exp(enter)
        c, n = forget * c + enter * value * key, forget * n + enter * key
        out.append(c * query / max(mp.fabs(n * query), mp.mpf(1)))
    return out


def plain_slstm(f: Any, i: Any, z: Any, o: Any) -> list[Any]:
    """One channel: o c / n, with the gates e^f and e^i as they are."""
    c, n, out = mp.mpf(0), mp.mpf(0), []
    for forget, enter, new, leave in zip(f, i, z, o, strict=True):
        forget, enter = mp.exp(forget), mp.exp(enter)
        c, n = forget * c + enter * mp.tanh(new), forget * n + enter
        out.append(c / n / (1 + mp.exp(-leave)))
    return out


PLAIN: dict[str, Callable[..., list[Any]]] = {"rwkv4_wkv": plain_wkv, "mlstm": plain_mlstm, "slstm": plain_slstm}
EVERY = pytest.mark.parametrize("cell", [wkv, mlstm, slstm], ids=lambda c: c.name)


KNOWN: dict[tuple[Any, ...], tuple[np.ndarray, list[np.ndarray]]] = {}


def exact(name: str, args: list[Tensor], weights: Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
    """(values (T, C), gradients of their weighted sum), to all digits of a double. Backends share it."""
    key = name, *(tuple(a.detach().flatten().tolist()) for a in (*args, weights))
    if key not in KNOWN:
        KNOWN[key] = _exact(name, args, weights)
    return KNOWN[key]


def _exact(name: str, args: list[Tensor], weights: Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
    with mp.workdps(60):
        numbers = [[[mp.mpf(float(x)) for x in np.atleast_1d(a.detach().numpy()[..., c].squeeze())] for a in args]
                   for c in range(CHANNELS)]
        values = [PLAIN[name](*_shaped(own, args)) for own in numbers]
        slopes = [np.zeros((*(() if a.dim() == 1 else (T,)), CHANNELS)) for a in args]
        step = mp.mpf(10) ** -25

        def loss(own: list[list[Any]], c: int) -> Any:
            return sum(mp.mpf(float(w)) * y for w, y in zip(weights[:, c], PLAIN[name](*_shaped(own, args)), strict=True))

        for c, own in enumerate(numbers):
            for a, row in enumerate(own):
                for at, x in enumerate(row):
                    moved = []
                    for way in (step, -step):
                        row[at] = x + way
                        moved.append(loss(own, c))
                    row[at] = x
                    slopes[a][(at, c) if slopes[a].ndim == 2 else c] = float((moved[0] - moved[1]) / (2 * step))
        return np.array([[float(y) for y in own] for own in values]).T, slopes


def _shaped(own: list[list[Any]], args: list[Tensor]) -> list[Any]:
    return [row[0] if a.dim() == 1 else row for row, a in zip(own, args, strict=True)]


def arguments(cell: lr.Cell, size: float, B: int = 1, offset: float = 0.0) -> list[Tensor]:
    """Exponents of about `size` around an offset; the rest of about 1, the decay positive."""
    exponent, found = "k" if cell is wkv else "i", []
    for d in cell.spec.declared:
        if d.kind == "input":
            x = torch.randn(B, T, CHANNELS)
            found.append(x * size + offset if d.name == exponent else x)
        elif d.kind == "vector":
            found.append(torch.rand(CHANNELS) + 0.1)
    return [x.requires_grad_() for x in found]


@pytest.mark.parametrize("runner", ["reference", "native", "emulated"])
@pytest.mark.parametrize(("size", "offset"), [(1.0, 0.0), (3.0, 1e3), (30.0, 1e3)], ids=["small", "large", "wide"])
@EVERY
def test_it_is_the_recurrence_without_the_maximum(cell: lr.Cell, size: float, offset: float, runner: str, quick: None,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and all gradients. Where e^k overflows in every dtype, differences of the exponents lose digits of k alone."""
    if runner != "reference" and lr.options.backend() == "reference":
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("LRDSL_BACKEND", runner)
    args, weights = arguments(cell, size, offset=offset), torch.randn(T, CHANNELS)
    want, slopes = exact(cell.name, args, weights)
    y = as_tuple(lr.function(cell)(*args))[0]
    got = torch.autograd.grad((y[0] * weights).sum(), args)
    lost = 1e-15 * (1 + offset)
    np.testing.assert_allclose(y[0].detach(), want, rtol=10 * lost, atol=10 * lost)
    for g, s in zip(got, slopes, strict=True):
        np.testing.assert_allclose(g.reshape(s.shape), s, rtol=100 * lost, atol=100 * lost)


@EVERY
def test_float32_does_not_overflow_where_the_plain_form_does(cell: lr.Cell, backend: str) -> None:
    args = [a.detach().float().double().requires_grad_() for a in arguments(cell, 3.0, offset=1e3)]
    weights = torch.randn(T, CHANNELS)
    want, slopes = exact(cell.name, args, weights)
    narrow = [a.detach().float().requires_grad_() for a in args]
    y = as_tuple(lr.function(cell)(*narrow))[0]
    np.testing.assert_allclose(y[0].detach(), want, rtol=2e-3, atol=2e-3)
    for g, s in zip(torch.autograd.grad((y[0] * weights.float()).sum(), narrow), slopes, strict=True):
        np.testing.assert_allclose(g.reshape(s.shape), s, rtol=5e-3, atol=5e-3)
    assert narrow[0 if cell is wkv else 1].exp().isinf().all()


@EVERY
def test_the_maximum_is_a_stratum_of_its_own(cell: lr.Cell) -> None:
    (program,) = plan_of(cell.spec).programs
    scans = [s for s in program.steps if isinstance(s, Scan)]
    assert sorted(s.structure.name for s in scans) == ["(max, +)", "diagonal", "diagonal"]
    assert scans[0].algebra == "max-plus"


@EVERY
def test_whole_is_chunks_and_steps(cell: lr.Cell, backend: str) -> None:
    """With boundaries, from the infinite edge, which a Carry hands on where nothing came yet."""
    args = arguments(cell, 3.0, B=2, offset=1e3)
    f, reset = lr.function(cell), torch.rand(2, T) < 0.3
    whole, after = f(*args, reset=reset, return_state=True)
    slopes = gradients(as_tuple(whole), args)
    for cuts in ((0, 0, 1, 4, 4, T), tuple(range(T + 1))):
        parts, carry = [], None
        for lo, hi in pairwise(cuts):
            y, carry = f(*(a[:, lo:hi] if a.dim() == 3 else a for a in args), init=carry, reset=reset[:, lo:hi],
                         return_state=True)
            parts.append(as_tuple(y))
        chunked = [torch.cat(p, 1) for p in zip(*parts, strict=True)]
        assert_close(as_tuple(whole), chunked)
        assert_close(after.now.values(), carry.now.values())
        assert_close(gradients(chunked, args), slopes, 1e4)


def test_a_boundary_begins_anew(backend: str) -> None:
    args = arguments(wkv, 3.0, offset=1e3)
    reset = torch.zeros(1, T, dtype=torch.bool)
    reset[0, 3] = True
    f = lr.function(wkv)
    parts = [f(*(a[:, at] if a.dim() == 3 else a for a in args)) for at in (slice(3), slice(3, T))]
    whole, apart = f(*args, reset=reset), torch.cat(parts, 1)
    assert_close([whole], [apart])
    assert_close(gradients([whole], args), gradients([apart], args), 1e3)


@pytest.mark.parametrize("cell", [wkv, *(pytest.param(c, marks=pytest.mark.long) for c in (mlstm, slstm))],
                         ids=lambda c: c.name)
def test_torch_checks_first_and_second_order(cell: lr.Cell, quick: None) -> None:
    """Nothing but numbers comes out, although the maximum starts at -inf."""
    f, args = lr.function(cell), arguments(cell, 1.0)
    reset = torch.arange(T)[None] == 3

    def run(*tensors: Tensor) -> Any:
        return as_tuple(f(*tensors, reset=reset))

    assert gradcheck(run, args, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, args, check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


def test_given_states_have_gradients(backend: str) -> None:
    """A finite p0, num0, den0 stand for e^p0 num0 and e^p0 den0; -inf for nothing, whose gradient is 0 and not nan."""
    args = arguments(wkv, 1.0)
    init = {"p": leaf(1, CHANNELS), "num": leaf(1, CHANNELS), "den": torch.rand(1, CHANNELS).requires_grad_()}
    got = torch.autograd.grad(lr.function(wkv)(*args, init=init).square().sum(), list(init.values()))
    moved = {"p": init["p"] + 2, "num": init["num"] * math.exp(-2), "den": init["den"] * math.exp(-2)}
    assert_close([lr.function(wkv)(*args, init=init)], [lr.function(wkv)(*args, init=moved)])
    along = got[0] - init["num"] * got[1] - init["den"] * got[2]
    assert along.detach().abs().max() < 1e-12 and got[0].any()
    empty = {n: torch.full((1, CHANNELS), -math.inf if n == "p" else 1.0, requires_grad=True) for n in init}
    got = torch.autograd.grad(lr.function(wkv)(*args, init=empty).square().sum(), list(empty.values()))
    assert not any(g.any() for g in got)
