"""How wrong a correct float32 result may be: rounding-error bounds, number by number, in numpy float64.

B1 to B8 are the bounds of shared/RELIABILITY.md, section 4; `u` is the unit roundoff of the arithmetic, see ROUNDOFF.

Use. Draw inputs that float32 represents exactly, run the code under test on them, and the float64 truth on the same:

    a, b = bounds.gates_near_one(rng, shape, T), rng.standard_normal(shape).astype(np.float32)
    exact = truth.linear_scan(torch.from_numpy(a).double(), torch.from_numpy(b).double()).numpy()
    c_m, c_a = bounds.counts("chunk", T, chunk=32)
    bound = bounds.scan_bound(a, b, c_m=c_m, c_a=c_a, u=bounds.ROUNDOFF["float32"])
    assert bounds.ratio(result, exact, bound) <= 1

A gate computed in float32 enters as an absolute error: `dense_bound` of its pre-activation, then `sigmoid_bound` or
`tanh_bound`, `product_bound`, and last `scan_bound(..., a_err=, b_err=)`; a bfloat16 result ends in `stored`. `a`, `b`
and `z` are those of the truth. Where the result is float64 too, the truth rounds as much: add the serial counts.
A complex product costs 3 roundings rather than 1 (Higham 2002, Lemma 3.5: sqrt(2) gamma_2): take 3 c_m.

The bounds say nothing where a term hides the error (a = 1 and a stale last step): add `integer_case`, which is exact.
Layout: time is `axis`, an edge `h0` broadcasts to the shape without it, `reset` is as in truth.py: bool (B, T).
"""

from math import ceil, expm1, log1p, log2
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Order = Literal["serial", "fma", "tree", "chunk"]

ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "tfloat32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SUBNORMAL = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}  # the smallest
NORMAL = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}  # with flush to zero


def gamma(k: float, u: float) -> float:
    """gamma_k = k u / (1 - k u) bounds |(1 + d_1) ... (1 + d_k) - 1| for |d_i| <= u (Higham 2002, Lemma 3.1)."""
    if k * u >= 1:
        raise ValueError(f"{k:g} roundings of {u:g} leave no digit: use a smaller problem, or a_err and b_err")
    return k * u / (1 - k * u)


def counts(order: Order, steps: int, chunk: int = 32) -> tuple[int, int]:
    """(c_m, c_a) of B1: roundings a factor, and additions on the longest path + 1. "chunk" is serial inside chunks,
    then a tree over their carries. Of any other order c_m is 1, and the additions are counted by hand."""
    if order in ("serial", "fma"):
        return (2, 1) if order == "serial" else (1, 1)
    leaves, inside = (steps, 0) if order == "tree" else (ceil(steps / chunk), chunk + 1)
    return 1, inside + ceil(log2(max(leaves, 1))) + 1


def scan(
    a: Array, b: Array, h0: ArrayLike = 0.0, *, axis: int = 1, reverse: bool = False, reset: Array | None = None
) -> Array:
    """h[t] = a[t] h[t-1] + b[t], serial, in the precision of a and b (the paper, section 2)."""
    a, b = np.broadcast_arrays(a, b)
    edge = np.asarray(h0, np.result_type(a, b)) + np.zeros_like(np.take(b, 0, axis))
    cut = np.moveaxis(_cuts(reset, b.shape, axis, reverse), axis, 0)
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    h, out = edge, np.empty(b.shape, edge.dtype)
    for t in range(len(b))[:: -1 if reverse else 1]:
        h = out[t] = a[t] * np.where(cut[t], edge, h) + b[t]
    return np.moveaxis(out, 0, axis)


def previous(
    h: Array, h0: ArrayLike = 0.0, *, axis: int = 1, reverse: bool = False, reset: Array | None = None
) -> Array:
    """What each step reads at lag 1: h[t-1] (in reverse h[t+1]), or h0 across an edge."""
    edge = np.expand_dims(np.broadcast_to(np.asarray(h0, h.dtype), np.take(h, 0, axis).shape), axis)
    return np.where(_cuts(reset, h.shape, axis, reverse), edge, np.roll(h, -1 if reverse else 1, axis))


def magnitudes(a: Array, b: Array, h0: ArrayLike = 0.0, **edges: Any) -> tuple[Array, Array]:
    """H[t] = |a[t]| H[t-1] + |b[t]| from |h0|, and W[t] = |a[t]| (W[t-1] + H[t-1]) from 0 (B1).

    H is the sum of the absolute terms of h, W the same sum with each term weighted by its number of factors."""
    a, b, h0 = _size(a), _size(b), _size(h0)
    H = scan(a, b, h0, **edges)
    return H, scan(a, a * previous(H, h0, **edges), **edges)


def scan_bound(
    a: Array,
    b: Array,
    h0: ArrayLike = 0.0,
    *,
    c_m: float,
    c_a: float,
    u: float,
    gate_ulp: float = 0.0,
    eps_b: float = 0.0,
    a_err: ArrayLike = 0.0,
    b_err: ArrayLike = 0.0,
    h0_err: ArrayLike = 0.0,
    tiny: float = SUBNORMAL["float32"],
    lam: float | None = None,
    **edges: Any,
) -> Array:
    """B1: |h^ - h| <= u (c_m W + c_a H) / (1 - k u) + underflow + E, k = c_m T + c_a, for any order with these counts.

    Relative errors of the coefficients (B8): `gate_ulp` units u of a are added to c_m, `eps_b` / u to c_a.
    Absolute ones, arrays: E[t] = (|a[t]| + a_err[t]) E[t-1] + a_err[t] |h[t-1]| + b_err[t] from h0_err, the distance of
    the exact recurrences of (a, b) and (a + a_err, b + b_err); H and W are then those of the enlarged magnitudes.
    Underflow: each addition on the path may meet a product off by `tiny`, of a's (times at most max H) or of a and h:
    2 (c_a + 1) tiny scan(|a|, 1 + max H). With flush to zero tiny is NORMAL.
    `lam`: B2 instead, lam u sqrt((c_m W + c_a H) H), for independent roundings; 1.61 was needed, lam=6 is safe. It may
    fail where roundings conspire (a = 1 and b constant), and may exceed B1: np.minimum of both is the sharp one."""
    axis = edges.get("axis", 1)
    wide = [_size(v) + _size(e) for v, e in ((a, a_err), (b, b_err), (h0, h0_err))]
    H, W = magnitudes(*wide, **edges)
    c_m, c_a = c_m + gate_ulp, c_a + eps_b / u
    if lam is None:
        rounding = gamma(c_m * H.shape[axis] + c_a, u) * (c_m * W + c_a * H) / (c_m * H.shape[axis] + c_a)
    else:
        rounding = lam * u * np.sqrt((c_m * W + c_a * H) * H)
    highest = np.maximum(H, previous(H, wide[2], **edges)).max(axis, keepdims=True)
    underflow = 2 * (c_a + 1) * tiny * scan(wide[0], 1 + highest, **edges)
    if not any(np.any(e) for e in (a_err, b_err, h0_err)):
        return np.asarray(rounding + underflow)
    h_read = previous(scan(_f8(a), _f8(b), _f8(h0), **edges), _f8(h0), **edges)
    moved = scan(wide[0], _size(a_err) * _size(h_read) + _size(b_err), _size(h0_err), **edges)
    return np.asarray(rounding + underflow + moved)


def contractive_bound(rho: float, b_max: float, *, c_m: float, c_a: float, u: float) -> float:
    """B3: |a| <= rho < 1 and |b|, |h0| <= b_max give one bound for every length,

        b_max (p / (1 - rho (1+q)) + rho q / ((1 - rho) (1 - rho (1+q)))),   1+p = (1+u)^c_a, 1+q = (1+u)^c_m,

    the sum over k of rho^k ((1+u)^(c_m k + c_a) - 1); to first order u (c_m rho / (1-rho)^2 + c_a / (1-rho)) b_max.
    c_a must not grow with the length either: a serial run, or a tree whose depth is given."""
    p, q = expm1(c_a * log1p(u)), expm1(c_m * log1p(u))
    if not 0 <= rho * (1 + q) < 1:
        raise ValueError(f"rho = {rho:g} is not contractive at roundoff {u:g}")
    return b_max * (p + rho * q / (1 - rho)) / (1 - rho * (1 + q))


class Gradients(NamedTuple):
    """Bounds of the errors of da, db (like a, b) and dh0 (like h0, without the time axis)."""

    da: Array
    db: Array
    dh0: Array


def gradient_bounds(
    a: Array,
    b: Array,
    dh: Array,
    h0: ArrayLike = 0.0,
    *,
    c_m: float,
    c_a: float,
    u: float,
    a_err: ArrayLike = 0.0,
    b_err: ArrayLike = 0.0,
    dh_err: ArrayLike = 0.0,
    tiny: float = SUBNORMAL["float32"],
    axis: int = 1,
    reverse: bool = False,
    reset: Array | None = None,
) -> Gradients:
    """The paper, section 2.2: a scan the other way, g[t] = conj(a[t+1]) g[t+1] + dh[t] (0 for a across an edge), and
    products, db = g, da[t] = g[t] conj(h[t-1]), dh0 = sum of conj(a[t]) g[t] over the reads of the edge. B1 bounds the
    errors of h and g; B8's product rule, |g| err_h + |h| err_g + err_h err_g + u |da|, those of da and dh0."""
    here: dict[str, Any] = {"axis": axis, "reverse": reverse, "reset": reset}
    back: dict[str, Any] = {"axis": axis, "reverse": not reverse}
    common: dict[str, Any] = {"c_m": c_m, "c_a": c_a, "u": u, "tiny": tiny}
    a, b, h0, dh, a_err = _f8(a), _f8(b), _f8(h0), _f8(dh), np.broadcast_to(_size(a_err), np.shape(b))
    cut = _cuts(reset, b.shape, axis, reverse)
    shifted, shifted_err = (previous(np.where(cut, 0.0, v), **back) for v in (a.conj(), a_err))
    g = scan(shifted, dh, **back)
    g_err = scan_bound(shifted, dh, a_err=shifted_err, b_err=dh_err, **common, **back)
    h_err = previous(scan_bound(a, b, h0, a_err=a_err, b_err=b_err, **common, **here), **here)
    da_err = product_bound(g, g_err, previous(scan(a, b, h0, **here), h0, **here), h_err, u=u, tiny=tiny)
    edge_err = np.where(cut, product_bound(a, a_err, g, g_err, u=u, tiny=tiny), 0.0)
    reads = int(cut.sum(axis).max())
    return Gradients(da_err, g_err, sum_bound(np.where(cut, a * g, 0.0), edge_err, u=u, axis=axis, terms=reads))


def product_bound(
    x: ArrayLike, x_err: ArrayLike, y: ArrayLike, y_err: ArrayLike, *, u: float, tiny: float = SUBNORMAL["float32"]
) -> Array:
    """The product rule: |x y - x^ y^| <= |x| e_y + |y| e_x + e_x e_y + u (|x| + e_x) (|y| + e_y) + tiny."""
    x, x_err, y, y_err = _size(x), _size(x_err), _size(y), _size(y_err)
    return np.asarray(x * y_err + y * x_err + x_err * y_err + u * (x + x_err) * (y + y_err) + tiny)


def sum_bound(
    x: ArrayLike,
    x_err: ArrayLike = 0.0,
    *,
    u: float,
    block: int = 1,
    axis: int | tuple[int, ...] | None = None,
    terms: int | None = None,
) -> Array:
    """A sum of n terms, block by block, then over the blocks: k = (block - 1) + (ceil(n / block) - 1) additions at most
    meet a term, and the error is gamma_k sum(|x| + e_x) + sum(e_x) (Higham 2002, section 4.2). block=1 is one serial
    run, and bounds every other order; `terms` is n where the others are 0."""
    size = _size(x)
    err = np.broadcast_to(_size(x_err), size.shape)
    n = terms or size.size // max(np.size(size.sum(axis)), 1)
    k = (block - 1) + (ceil(n / block) - 1)
    return np.asarray(gamma(k, u) * (size + err).sum(axis) + err.sum(axis))


def dense_bound(x: Array, weight: Array, bias: ArrayLike = 0.0, x_err: ArrayLike = 0.0, *, u: float) -> Array:
    """y = x W^T + bias, K terms in any order: gamma_(K+1) ((|x| + e_x) |W|^T + |bias|) + e_x |W|^T (Higham 2002, 3.5).

    x (..., K), weight (H, K); gives (..., H), the absolute error of a pre-activation. `u` is that of the hardware that
    multiplies: tfloat32 where torch allows it."""
    size, W = _size(x), _size(weight).T
    err = np.broadcast_to(_size(x_err), size.shape)
    return np.asarray(gamma(len(W) + 1, u) * ((size + err) @ W + _size(bias)) + err @ W)


def sigmoid_bound(z: Array, z_err: ArrayLike = 0.0, *, u: float, ulp: float = 4.0) -> Array:
    """|s(z + e) - s(z)| <= e min(1/4, s'(z) exp e), as |s''| <= s'; and `ulp` units u of the value to evaluate it."""
    value, mirrored = _sigmoid(z), _sigmoid(-_f8(z))
    return _gate_bound(value, value * mirrored, 0.25, 1.0, z_err, u * ulp)


def tanh_bound(z: Array, z_err: ArrayLike = 0.0, *, u: float, ulp: float = 4.0) -> Array:
    """|tanh(z + e) - tanh z| <= e min(1, tanh'(z) exp 2e), as |tanh''| <= 2 tanh'; and `ulp` units u of the value."""
    slope = 4 * _sigmoid(2 * _f8(z)) * _sigmoid(-2 * _f8(z))
    return _gate_bound(np.tanh(_f8(z)), slope, 1.0, 2.0, z_err, u * ulp)


def stored(value: Array, err: ArrayLike, dtype: str) -> Array:
    """The error after a store in a narrower type (B8): err + u_io (|value| + err) + the type's smallest subnormal."""
    return np.asarray(_size(err) + ROUNDOFF[dtype] * (_size(value) + _size(err)) + SUBNORMAL[dtype])


def ratio(result: ArrayLike, exact: ArrayLike, bound: ArrayLike) -> float:
    """The worst |result - exact| / bound, to be <= 1; inf where only one of the two is finite, or the shapes differ."""
    result, exact, bound = _f8(result), _f8(exact), _f8(bound)
    if result.shape != exact.shape:
        return np.inf
    with np.errstate(all="ignore"):
        same = (result == exact) | (np.isnan(result) & np.isnan(exact))
        quotient = np.where(same, 0.0, np.abs(result - exact) / np.maximum(bound, np.finfo(np.float64).tiny))
    return float(np.max(np.where(np.isnan(quotient), np.inf, quotient), initial=0.0))


def gates_near_one(rng: np.random.Generator, shape: tuple[int, ...], T: int, axis: int = 1) -> Array:
    """float32 coefficients a, one of four kinds a sequence, in turn: within 8/T of 1 (memory as long as the sequence);
    uniform in (-1, 1); that with an eighth of zeros and an eighth of ones; near 1 with about two zeros a sequence."""
    kind = np.expand_dims((np.arange(np.prod(shape) // shape[axis]) % 4).reshape(np.delete(shape, axis)), axis)
    near, wide, dice = 1 - min(8 / T, 1.0) * rng.random(shape), rng.uniform(-1, 1, shape), rng.random(shape)
    salted = np.where(dice < 1 / 8, 0.0, np.where(dice > 7 / 8, 1.0, wide))
    return np.choose(kind, (near, wide, salted, np.where(dice < 2 / T, 0.0, near))).astype(np.float32)


class Integers(NamedTuple):
    """A recurrence that every order of evaluation computes exactly: float32 a, b, h0, and the exact h."""

    a: Array
    b: Array
    h0: Array
    h: Array


def integer_case(rng: np.random.Generator, shape: tuple[int, ...], axis: int = 1, digits: int = 24) -> Integers:
    """B5: a in {-1, 0, 1}, mostly 1 and about two zeros a sequence, and integers b, h0 other than 0, so small that
    every partial result is below 2^digits (8 for bfloat16 storage). Compare with ==: no tolerance hides an index or a
    carry. With a dh made like b the gradient of b is exact too, and that of a is the exact one rounded once."""
    T = shape[axis]
    top = min(8, (2**digits - 1) // (T + 1))
    if top < 1:
        raise ValueError(f"{T} steps do not fit {digits} digits")
    a = np.where(rng.random(shape) < min(2 / T, 0.25), 0, rng.choice([-1, 1, 1, 1], shape))
    b, h0 = (rng.integers(1, top + 1, size) * rng.choice([-1, 1], size) for size in (shape, np.delete(shape, axis)))
    h = scan(a, b, h0, axis=axis)
    return Integers(a.astype(np.float32), b.astype(np.float32), h0.astype(np.float32), h)


def _cuts(reset: Array | None, shape: tuple[int, ...], axis: int, reverse: bool) -> Array:
    """Where the read at t gives the edge: the first step and reset[t]; in reverse the last step and reset[t+1]."""
    cut = np.zeros(shape, bool)
    if reset is not None:
        cut |= np.reshape(reset, np.shape(reset) + (1,) * (len(shape) - np.ndim(reset)))
    cut = np.moveaxis(cut, axis, 0)
    cut[0] = True
    return np.moveaxis(np.roll(cut, -1, 0) if reverse else cut, 0, axis)


def _f8(value: ArrayLike) -> Array:
    return np.asarray(value, np.complex128 if np.iscomplexobj(value) else np.float64)


def _size(value: ArrayLike) -> Array:
    return np.abs(_f8(value))


def _sigmoid(z: ArrayLike) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -_f8(z))))


def _gate_bound(value: Array, slope: Array, steepest: float, growth: float, z_err: ArrayLike, eps: float) -> Array:
    err = _size(z_err)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = err * np.fmin(steepest, slope * np.exp(growth * err))
    return np.asarray(moved + eps * (np.abs(value) + moved) + SUBNORMAL["float32"])
