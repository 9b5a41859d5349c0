"""The truth and the bounds themselves: known answers, central differences, and planted faults that must be caught."""

from collections.abc import Callable, Iterator
from functools import partial
from math import exp, tanh
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from tests import bounds, truth
from tests.bounds import Array

U = bounds.ROUNDOFF["float32"]
EDGES = [(reverse, reset) for reverse in (False, True) for reset in (False, True)]


def sequence(*values: float) -> Tensor:
    """One batch row, one channel."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1)


def marks(*steps: int, of: int, batch: int = 1) -> Tensor:
    """Boundaries before these steps, in the first batch row."""
    reset = torch.zeros(batch, of, dtype=torch.bool)
    reset[0, list(steps)] = True
    return reset


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def lstm_params(inputs: int, hidden: int) -> dict[str, Tensor]:
    sizes = {"h.gate": inputs, "h.impulse": inputs}
    sizes |= dict.fromkeys(("forget", "enter", "update", "leave"), inputs + hidden)
    weights = {f"{name}.weight": draw(k, hidden, size) for k, (name, size) in enumerate(sizes.items())}
    return weights | {f"{name}.bias": draw(100 + k, hidden) for k, name in enumerate(sizes)}


def gilr_params(inputs: int, hidden: int) -> dict[str, Tensor]:
    params = lstm_params(inputs, hidden)
    return {name.removeprefix("h."): value for name, value in params.items() if name.startswith("h.")}


def sigmoid(z: float) -> float:
    return 1 / (1 + exp(-z))


# Known answers


@pytest.mark.parametrize(
    ("reverse", "resets", "expected"),
    [
        (False, (), (11, 34, 137)),
        (False, (0,), (11, 34, 137)),
        (False, (1,), (11, 16, 65)),
        (False, (2,), (11, 34, 21)),
        (True, (), (129, 64, 21)),
        (True, (0,), (129, 64, 21)),
        (True, (1,), (11, 64, 21)),
        (True, (2,), (33, 16, 21)),
    ],
)
def test_linear_scan_by_hand(reverse: bool, resets: tuple[int, ...], expected: tuple[int, ...]) -> None:
    a, b, h0 = sequence(2, 3, 4), sequence(1, 1, 1), torch.tensor([[5.0]], dtype=torch.float64)
    h = truth.linear_scan(a, b, h0, marks(*resets, of=3) if resets else None, reverse)
    assert h.flatten().tolist() == list(expected)
    assert truth.linear_scan(a, b, None, marks(1, 2, of=3), reverse).flatten().tolist() == [1, 1, 1]


def test_a_boundary_belongs_to_its_row() -> None:
    a, b = torch.ones(2, 3, 1, dtype=torch.float64), torch.ones(2, 3, 1, dtype=torch.float64)
    assert truth.linear_scan(a, b, reset=marks(1, of=3, batch=2))[..., 0].tolist() == [[1, 1, 2], [1, 2, 3]]


@pytest.mark.parametrize(("reverse", "behind"), [(False, 0), (True, 1)])
def test_nan_stays_behind_a_boundary(reverse: bool, behind: int) -> None:
    a, b, h0 = sequence(2, 3).requires_grad_(), sequence(1, 1), torch.full((1, 1), 5.0, dtype=torch.float64)
    b[0, behind] = torch.nan
    h0.requires_grad_()
    b.requires_grad_()
    h = truth.linear_scan(a, b, h0, marks(1, of=2), reverse)
    seen = 1 - behind
    grads = torch.autograd.grad(h[0, seen, 0], (a, b, h0))
    assert h[0, seen, 0] == a[0, seen, 0] * 5 + 1
    assert [g.flatten()[seen].item() for g in grads[:2]] == [5, 1]
    assert grads[0].flatten()[behind] == 0 and grads[1].flatten()[behind] == 0
    assert grads[2].item() == a[0, seen, 0]


def test_gradient_of_the_paper() -> None:
    """Section 2.2, by hand: dh = (1, 10), g = (1 + 3*10, 10), da = g h[t-1], dh0 = a[0] g[0]."""
    a, b = sequence(2, 3).requires_grad_(), sequence(1, 1).requires_grad_()
    h0 = torch.full((1, 1), 5.0, dtype=torch.float64, requires_grad=True)
    da, db, dh0 = torch.autograd.grad(truth.linear_scan(a, b, h0), (a, b, h0), sequence(1, 10))
    assert (db.flatten().tolist(), da.flatten().tolist(), dh0.item()) == ([31, 10], [31 * 5, 10 * 11], 62)


@pytest.mark.parametrize("reverse", [False, True])
def test_gilr_by_hand(reverse: bool) -> None:
    values = {"gate.weight": 0.5, "gate.bias": 0.25, "impulse.weight": -1.5, "impulse.bias": 1.0}
    params = {k: torch.full((1, 1) if "weight" in k else (1,), v, dtype=torch.float64) for k, v in values.items()}
    xs, h, expected = [0.3, -0.7, 2.0], 0.9, {}
    for t in (2, 1, 0) if reverse else (0, 1, 2):
        g = sigmoid(0.5 * xs[t] + 0.25)
        h = g * h + (1 - g) * tanh(-1.5 * xs[t] + 1.0)
        expected[t] = h
    got, last = truth.gilr(sequence(*xs), params, torch.full((1, 1), 0.9, dtype=torch.float64), None, reverse)
    assert got.flatten().tolist() == pytest.approx([expected[t] for t in range(3)], rel=1e-14)
    assert last.item() == pytest.approx(h, rel=1e-14)


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("reverse", [False, True])
def test_gilr_lstm_by_hand(delay: int, reverse: bool) -> None:
    """One channel, numbers of Python's math; the weights tell the operand x from the operand s."""
    names = ("h.gate", "h.impulse", "forget", "enter", "update", "leave")
    w = {name: (0.3 + 0.1 * k, -0.2 + 0.15 * k, 0.5 - 0.2 * k) for k, name in enumerate(names)}  # for x, for s, bias
    params = {f"{name}.bias": torch.tensor([w[name][2]], dtype=torch.float64) for name in names}
    for name in names:
        params[f"{name}.weight"] = torch.tensor([w[name][: 1 if name[:2] == "h." else 2]], dtype=torch.float64)
    xs, s, c, expected = [0.3, -0.7, 2.0], 0.9, -0.4, {}
    for t in (2, 1, 0) if reverse else (0, 1, 2):
        g, j = sigmoid(w["h.gate"][0] * xs[t] + w["h.gate"][2]), tanh(w["h.impulse"][0] * xs[t] + w["h.impulse"][2])
        before, s = s, g * s + (1 - g) * j
        z = {k: v[0] * xs[t] + v[1] * (before if delay else s) + v[2] for k, v in w.items()}
        c = sigmoid(z["forget"]) * c + sigmoid(z["enter"]) * tanh(z["update"])
        expected[t] = sigmoid(z["leave"]) * c
    c0, s0 = (torch.full((1, 1), v, dtype=torch.float64) for v in (-0.4, 0.9))
    h, c_last, s_last = truth.gilr_lstm(sequence(*xs), params, c0, s0, None, delay, reverse)
    assert h.flatten().tolist() == pytest.approx([expected[t] for t in range(3)], rel=1e-13)
    assert [c_last.item(), s_last.item()] == pytest.approx([c, s], rel=1e-13)
    with pytest.raises(ValueError, match="delay"):
        truth.gilr_lstm(sequence(*xs), params, delay=2)


def test_highway_sru_by_hand() -> None:
    u_z, u_f, u_r, x = (sequence(*values) for values in ((1, -2), (0.5, 0.1), (-0.3, 0.8), (3, 4)))
    b_f, b_r = torch.tensor([0.2], dtype=torch.float64), torch.tensor([-0.6], dtype=torch.float64)
    c0 = sigmoid(0.7) * 0.25 + (1 - sigmoid(0.7)) * 1
    c1 = sigmoid(0.3) * c0 + (1 - sigmoid(0.3)) * -2
    h0 = sigmoid(-0.9) * tanh(c0) + (1 - sigmoid(-0.9)) * 3
    h1 = sigmoid(0.2) * tanh(c1) + (1 - sigmoid(0.2)) * 4
    h, c = truth.highway_sru(u_z, u_f, u_r, x, b_f, b_r, torch.full((1, 1), 0.25, dtype=torch.float64))
    assert c.flatten().tolist() == pytest.approx([c0, c1], rel=1e-14)
    assert h.flatten().tolist() == pytest.approx([h0, h1], rel=1e-14)


def test_second_order_by_hand() -> None:
    one, y0 = sequence(1, 1, 1, 1), torch.tensor([[[1.0], [0.0]]], dtype=torch.float64)
    assert truth.second_order(one, one, 0 * one, y0).flatten().tolist() == [1, 2, 3, 5]
    assert truth.second_order(2 * one, one, 0 * one, y0.flip(1)).flatten().tolist() == [1, 2, 5, 12]
    assert truth.second_order(one, 3 * one, one).flatten().tolist() == [1, 2, 6, 13]


def test_discounted_return_by_hand() -> None:
    assert truth.discounted_return(sequence(1, 2, 4), 0.5).flatten().tolist() == [3, 4, 4]


def test_float32_is_refused() -> None:
    with pytest.raises(TypeError, match="float32"):
        truth.linear_scan(torch.ones(1, 2, 1), torch.ones(1, 2, 1))
    copy = truth.leaf(torch.tensor([0.1]))
    assert copy.dtype == torch.float64 and copy.requires_grad and copy.item() == np.float32(0.1)


# Laws


@pytest.mark.parametrize("delay", [0, 1])
def test_reset_is_a_new_run_and_reverse_is_a_mirror(delay: int) -> None:
    x, params, c0, s0 = draw(7, 1, 9, 3), lstm_params(3, 2), draw(8, 1, 2), draw(9, 1, 2)
    h, c, s = truth.gilr_lstm(x, params, c0, s0, marks(4, of=9), delay)
    left, right = (truth.gilr_lstm(part, params, c0, s0, None, delay) for part in (x[:, :4], x[:, 4:]))
    assert torch.equal(h, torch.cat((left[0], right[0]), 1)) and torch.equal(c, right[1]) and torch.equal(s, right[2])
    mirrored = truth.gilr_lstm(x.flip(1), params, c0, s0, marks(9 - 4, of=9), delay, reverse=True)
    assert torch.equal(mirrored[0].flip(1), h) and torch.equal(mirrored[1], c) and torch.equal(mirrored[2], s)
    u, b = draw(1, 1, 9, 2), draw(2, 2)
    sru_h, sru_c = truth.highway_sru(u, u + 1, u + 2, u + 3, b, b, c0, marks(4, of=9))
    parts = [truth.highway_sru(v, v + 1, v + 2, v + 3, b, b, c0) for v in (u[:, :4], u[:, 4:])]
    assert torch.equal(sru_h, torch.cat([h for h, _ in parts], 1))
    assert torch.equal(sru_c, torch.cat([c for _, c in parts], 1))
    carried = truth.gilr_lstm(x[:, 4:], params, left[1], left[2], None, delay)
    whole = truth.gilr_lstm(x, params, c0, s0, None, delay)
    assert torch.equal(whole[0][:, 4:], carried[0])


@pytest.mark.parametrize(("reverse", "resets"), EDGES)
def test_gradients_are_central_differences(reverse: bool, resets: bool) -> None:
    reset = marks(2, 3, of=5, batch=2) if resets else None
    a, b, h0, x = draw(1, 2, 5, 3), draw(2, 2, 5, 3), draw(3, 2, 3), draw(4, 2, 5, 2)

    def with_params(cell: Callable[..., Any], params: dict[str, Tensor], *edges: Tensor, **options: Any) -> None:
        def call(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            named = dict(zip(params, rest[len(edges) :], strict=True))
            return tuple(cell(x, named, *rest[: len(edges)], reset=reset, reverse=reverse, **options))

        assert gradcheck(call, (x, *edges, *params.values()), fast_mode=True)

    assert gradcheck(lambda a, b, h0: truth.linear_scan(a, b, h0, reset, reverse), (a, b, h0), fast_mode=True)
    with_params(truth.gilr, gilr_params(2, 3), h0)
    for delay in (0, 1):
        with_params(truth.gilr_lstm, lstm_params(2, 3), h0, draw(5, 2, 3), delay=delay)
    if not reverse:
        sru = (a, b, draw(6, 2, 5, 3), draw(7, 2, 5, 3), draw(8, 3), draw(9, 3), h0)
        assert gradcheck(partial(truth.highway_sru, reset=reset), sru, fast_mode=True)
    if reverse and not resets:
        assert gradcheck(truth.second_order, (a, b, draw(6, 2, 5, 3), draw(7, 2, 2, 3)), fast_mode=True)
        assert gradcheck(truth.discounted_return, (b, h0), fast_mode=True)


def test_numpy_scan_agrees_with_the_truth() -> None:
    a, b, h0, reset = draw(1, 2, 9, 3), draw(2, 2, 9, 3), draw(3, 2, 3), marks(0, 4, 8, of=9, batch=2)
    plain = [v.detach().numpy() for v in (a, b, h0)]
    for reverse, resets in EDGES:
        cut = reset if resets else None
        h = truth.linear_scan(a, b, h0, cut, reverse).detach().numpy()
        edges: dict[str, Any] = {"reverse": reverse, "reset": None if cut is None else cut.numpy()}
        np.testing.assert_allclose(bounds.scan(*plain, **edges), h, rtol=1e-15)
        np.testing.assert_allclose(plain[0] * bounds.previous(h, plain[2], **edges) + plain[1], h, rtol=1e-13)


# The bounds: correct code stays inside, wrong code does not


def tree(a: Array, b: Array) -> Array:
    """Hillis-Steele, over axis 1."""
    step = 1
    while step < a.shape[1]:
        pair = a[:, step:] * b[:, :-step] + b[:, step:], a[:, step:] * a[:, :-step]
        b, a = (np.concatenate((old[:, :step], new), 1) for old, new in zip((b, a), pair, strict=True))
        step *= 2
    return b


def chunked(a: Array, b: Array, chunk: int = 32) -> Array:
    """Serial in chunks, a tree over the carries, and a fix-up."""
    split = (a.shape[0], -1, chunk, a.shape[2])
    a4, b4 = a.reshape(split), b.reshape(split)
    products, local = np.multiply.accumulate(a4, 2, dtype=a.dtype), bounds.scan(a4, b4, axis=2)
    carries = tree(products[:, :, -1], local[:, :, -1])
    before = np.concatenate((np.zeros_like(carries[:, :1]), carries[:, :-1]), 1)
    return np.asarray(products * before[:, :, None] + local).reshape(a.shape)


def bfloat16(x: Array) -> Array:
    return torch.from_numpy(x).bfloat16().float().numpy()


ORDERS: dict[bounds.Order, Callable[[Array, Array], Array]] = {"serial": bounds.scan, "tree": tree, "chunk": chunked}
STEPS = 4096


def families(steps: int) -> Iterator[tuple[str, Array, Array]]:
    """The inputs of RELIABILITY.md, and our own maker; (1, T, 8) each."""
    rng, shape = np.random.default_rng(0), (1, steps, 8)
    uniform, normal = rng.random(shape), rng.standard_normal(shape)
    for name, a, b in (
        ("uniform", uniform, normal),
        ("near one", 0.999 + 0.001 * uniform, uniform[:, ::-1]),
        ("near one, signed b", 0.999 + 0.001 * uniform, normal),
        ("signed", 2 * uniform - 1, normal),
        ("ones", np.ones(shape), normal),
        ("ours", bounds.gates_near_one(rng, shape, steps), normal),
    ):
        yield name, a.astype(np.float32), b.astype(np.float32)


def f8(x: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).double()


def test_scan_bound_holds_and_catches_mutants() -> None:
    for name, a, b in families(STEPS):
        exact = truth.linear_scan(f8(a), f8(b)).numpy()
        for order, run in ORDERS.items():
            c_m, c_a = bounds.counts(order, STEPS)
            worst = bounds.scan_bound(a, b, c_m=c_m, c_a=c_a, u=U)
            likely = bounds.scan_bound(a, b, c_m=c_m, c_a=c_a, u=U, lam=6)
            h = run(a, b)
            assert 0.01 < bounds.ratio(h, exact, worst) <= 1, (name, order)
            assert 0.01 < bounds.ratio(h, exact, likely) <= 1, (name, order)
        dropped = a.copy()
        dropped[:, STEPS // 2, 3] = 0
        mutants = {
            "one carry dropped": chunked(dropped, b),
            "gates rounded to bfloat16": chunked(bfloat16(a), b),
            "gates off by 2^-20": chunked(a * np.float32(1 + 2**-20), b),
            "last step stale": np.concatenate((h[:, :-1], h[:, -2:-1]), 1),
            "output rounded to bfloat16": bfloat16(h),
            "batch of nan": np.full_like(h, np.nan),
        }
        for mutant, wrong in mutants.items():
            caught = bounds.ratio(wrong, exact, np.minimum(worst, likely)) > 1
            assert caught != (name == "ones" and mutant == "gates rounded to bfloat16"), (name, mutant)


def test_integers_catch_what_the_bound_cannot() -> None:
    """RELIABILITY.md: at a = 1 a stale last step hides below the bound, once the sequence is long. B5 sees it."""
    rng = np.random.default_rng(1)
    a, b = np.ones((1, 65536, 1), np.float32), rng.standard_normal((1, 65536, 1)).astype(np.float32)
    h = tree(a, b)
    exact, stale = np.cumsum(b, 1, dtype=np.float64), np.concatenate((h[:, :-1], h[:, -2:-1]), 1)
    c_m, c_a = bounds.counts("tree", 65536)
    worst = bounds.scan_bound(a, b, c_m=c_m, c_a=c_a, u=U)
    assert bounds.ratio(h, exact, worst) <= 1 and bounds.ratio(stale, exact, worst) <= 1
    case = bounds.integer_case(rng, (2, STEPS, 8))
    for run in ORDERS.values():
        folded = case.b.copy()
        folded[:, 0] += case.a[:, 0] * case.h0
        h = run(case.a, folded)
        assert np.array_equal(h, case.h)
        assert not np.array_equal(h[:, -1], h[:, -2])


def test_integer_case_is_exact_and_keeps_memory() -> None:
    rng = np.random.default_rng(2)
    for steps, digits in ((1, 24), (100, 8), (1000, 11), (1000, 24)):
        a, b, h0, h = bounds.integer_case(rng, (3, steps, 4), digits=digits)
        assert set(np.unique(a)) <= {-1, 0, 1} and b.all() and h0.all() and np.abs(h).max() < 2**digits
        assert bounds.magnitudes(a, b, h0)[0].max() < 2**digits
        assert h.dtype == np.int64 and a.dtype == np.float32 and (a == 0).mean() <= 0.5
    with pytest.raises(ValueError, match="digits"):
        bounds.integer_case(rng, (1, 300, 1), digits=8)


def test_gates_near_one_are_of_four_kinds() -> None:
    a = bounds.gates_near_one(np.random.default_rng(3), (2, 1000, 8), 1000).astype(np.float64)
    kinds = [a[:, :, k::4] for k in range(4)]
    assert all(np.abs(kinds[k]).max() <= 1 for k in range(4))
    assert (1 - kinds[0]).max() <= 8 / 1000 and (1 - kinds[0]).min() < 1 / 1000
    assert (kinds[1] < 0).any() and not (kinds[1] == 0).any()
    assert (kinds[2] == 0).mean() > 0.1 and (kinds[2] == 1).mean() > 0.1
    assert 0 < (kinds[3] == 0).mean() < 0.01 and np.median(kinds[3]) > 0.99


@pytest.mark.parametrize(("reverse", "resets"), EDGES)
def test_edges_and_gradients_keep_their_bounds(reverse: bool, resets: bool) -> None:
    rng, shape = np.random.default_rng(4), (2, 300, 8)
    a = bounds.gates_near_one(rng, shape, 300)
    b, h0, dh = (rng.standard_normal(size).astype(np.float32) for size in (shape, (2, 8), shape))
    reset = rng.random((2, 300)) < 0.02 if resets else None
    edges: dict[str, Any] = {"reverse": reverse, "reset": reset}
    leaves = [truth.leaf(torch.from_numpy(v)) for v in (a, b, h0)]
    boundaries = None if reset is None else torch.from_numpy(reset)
    exact = truth.linear_scan(leaves[0], leaves[1], leaves[2], boundaries, reverse)
    grads = torch.autograd.grad(exact, leaves, f8(dh))

    h = bounds.scan(a, b, h0, **edges)
    cut = bounds.previous(np.zeros(shape, bool), True, **edges)
    g = bounds.scan(bounds.previous(np.where(cut, np.float32(0), a), reverse=not reverse), dh, reverse=not reverse)
    da, dh0 = g * bounds.previous(h, h0, **edges), np.where(cut, a * g, np.float32(0)).sum(1)
    assert all(v.dtype == np.float32 for v in (h, g, da, dh0))

    counted: dict[str, Any] = {"c_m": 2, "c_a": 1, "u": U, **edges}
    assert 0.01 < bounds.ratio(h, exact.detach().numpy(), bounds.scan_bound(a, b, h0, **counted)) <= 1
    allowed = bounds.gradient_bounds(a, b, dh, h0, **counted)
    results = dict(zip(("da", "db", "dh0"), (da, g, dh0), strict=True))
    for (name, result), grad, bound in zip(results.items(), grads, allowed, strict=True):
        assert 0.01 < bounds.ratio(result, grad.numpy(), bound) <= 1, name
        assert bounds.ratio(result * np.float32(1 + 2**-10), grad.numpy(), bound) > 1, name
    unshifted = g * h
    assert bounds.ratio(unshifted, grads[0].numpy(), allowed.da) > 1
    ungated = bounds.scan(bounds.previous(a, reverse=not reverse), dh, reverse=not reverse)
    assert (bounds.ratio(ungated, grads[1].numpy(), allowed.db) > 1) == resets


def test_coefficient_errors() -> None:
    """A gate off by 16 units is outside the plain bound, inside the three that know of it."""
    rng = np.random.default_rng(5)
    a, b = bounds.gates_near_one(rng, (1, 500, 8), 500), rng.standard_normal((1, 500, 8)).astype(np.float32)
    exact, eps = truth.linear_scan(f8(a), f8(b)).numpy(), 16 * U
    h = bounds.scan(a * np.float32(1 + eps), b * np.float32(1 + eps))
    counted: dict[str, Any] = {"c_m": 2, "c_a": 1, "u": U}
    assert bounds.ratio(h, exact, bounds.scan_bound(a, b, **counted)) > 1
    for known in ({"gate_ulp": 17, "eps_b": 17 * U}, {"a_err": np.abs(a) * 17 * U, "b_err": np.abs(b) * 17 * U}):
        assert 0.1 < bounds.ratio(h, exact, bounds.scan_bound(a, b, **counted, **known)) <= 1
    late = bounds.scan(a, b, np.float32(1e-3))
    assert bounds.ratio(late, exact, bounds.scan_bound(a, b, **counted)) > 1
    assert bounds.ratio(late, exact, bounds.scan_bound(a, b, **counted, h0_err=1.01e-3)) <= 1


def test_contractive_bound_needs_no_length() -> None:
    rng, rho = np.random.default_rng(6), 0.9
    closed = bounds.contractive_bound(rho, 1.0, c_m=2, c_a=1, u=U)
    assert closed == pytest.approx(U * (2 * rho / (1 - rho) ** 2 + 1 / (1 - rho)), rel=1e-4)
    for steps in (10, 1000):
        a = np.full((1, steps, 8), rho - 1e-6, np.float32)
        b = rng.uniform(-1, 1, a.shape).astype(np.float32)
        assert bounds.ratio(bounds.scan(a, b), truth.linear_scan(f8(a), f8(b)).numpy(), closed) <= 1
        componentwise = bounds.scan_bound(a, np.ones_like(b), c_m=2, c_a=1, u=U)
        assert (0.5 if steps == 1000 else 0) < componentwise.max() / closed <= 1.001
    with pytest.raises(ValueError, match="contractive"):
        bounds.contractive_bound(1.0, 1.0, c_m=2, c_a=1, u=U)


def test_sums_products_and_gates() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((4096, 8)).astype(np.float32)
    exact = x.astype(np.float64).sum(0)
    serial, blocks = (np.add.accumulate(v, -2)[..., -1, :] for v in (x, x.reshape(64, 64, 8)))
    blocks = np.add.accumulate(blocks, 0)[-1]
    assert 1e-4 < bounds.ratio(serial, exact, bounds.sum_bound(x, u=U, axis=0)) <= 1
    narrow = bounds.sum_bound(x, u=U, axis=0, block=64)
    assert 1e-3 < bounds.ratio(blocks, exact, narrow) <= 1
    assert bounds.ratio(blocks - x[17], exact, narrow) > 1 and bounds.ratio(bfloat16(blocks), exact, narrow) > 1
    assert np.allclose(narrow / np.abs(x).sum(0), 126 * U, rtol=1e-4)

    w, bias = rng.standard_normal((5, 8)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    x_err, z = np.abs(x) * 30 * U, x.astype(np.float64) @ w.T.astype(np.float64) + bias
    z_err = bounds.dense_bound(x, w, bias, x_err, u=U)
    moved = (x * np.float32(1 - 30 * U)) @ w.T + bias
    assert 0.5 < bounds.ratio(moved, z, z_err) <= 1
    assert bounds.ratio(bfloat16(x) @ w.T + bias, z, z_err) > 1

    for name, bound in (("sigmoid", bounds.sigmoid_bound), ("tanh", bounds.tanh_bound)):
        gate = getattr(torch, name)
        value = gate(f8(z)).numpy()
        assert 0.01 < bounds.ratio(gate(torch.from_numpy(moved)).numpy(), value, bound(z, z_err, u=U)) <= 1
        for shift, low in ((1e-3, 0.9), (-0.5, 0.5), (3.0, 0.1), (-900.0, 0.0)):  # exact gates of wrong arguments
            assert low < bounds.ratio(gate(f8(z + shift)).numpy(), value, bound(z, abs(shift), u=U, ulp=0)) <= 1
        assert bounds.ratio(gate(f8(z + 0.02)).numpy(), value, bound(z, 0.01, u=U)) > 1
        assert bound(np.full(1, 10.0), 1e-3, u=U, ulp=0) < 1e-7, "a saturated gate hardly moves"


def test_ratio_and_gamma_do_not_hide_failure() -> None:
    one = np.ones(3)
    assert bounds.ratio(one, one, 0 * one) == 0 and bounds.ratio(one + 1, one, 0 * one) > 1
    assert bounds.ratio(one * np.nan, one, one) == bounds.ratio(one, one * np.nan, one) == np.inf
    assert bounds.ratio(one * np.inf, one, one * np.inf) == bounds.ratio(one[:2], one, one) == np.inf
    assert bounds.ratio(one * np.nan, one * np.nan, one) == bounds.ratio(one * np.inf, one * np.inf, one) == 0
    with pytest.raises(ValueError, match="no digit"):
        bounds.scan_bound(np.ones((1, 300, 1)), np.ones((1, 300, 1)), c_m=1, c_a=1, u=bounds.ROUNDOFF["bfloat16"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_roundoff_table(dtype: torch.dtype) -> None:
    name, info = str(dtype).removeprefix("torch."), torch.finfo(dtype)
    assert bounds.ROUNDOFF[name] == info.eps / 2
    assert bounds.NORMAL[name] == info.tiny
    assert bounds.SUBNORMAL[name] == info.tiny * info.eps
    value = np.linspace(-3, 3, 999)
    store = f8(value).to(dtype).double().numpy()
    assert (0.9 if dtype != torch.float64 else -1) < bounds.ratio(store, value, bounds.stored(value, 0.0, name)) <= 1


def test_underflow_keeps_its_bound() -> None:
    """Products far below the smallest float32: the relative terms vanish, the absolute one does not."""
    a = np.full((1, 64, 1), 2.0**-20, np.float32)
    b = np.where(np.arange(64) % 5, 2.0**-140, 3 * 2.0**-149).astype(np.float32)[None, :, None]
    for order, run in ORDERS.items():
        c_m, c_a = bounds.counts(order, 64)
        exact = truth.linear_scan(f8(a), f8(b)).numpy()
        assert bounds.ratio(run(a, b), exact, bounds.scan_bound(a, b, c_m=c_m, c_a=c_a, u=U)) <= 1
        assert bounds.ratio(run(a, b), exact, bounds.scan_bound(a, b, c_m=c_m, c_a=c_a, u=U, tiny=0)) > 1


# A whole layer: errors travel from the products through the gates and two scans


Pair = tuple[Array, Array]


def gate_pair(kind: str, x: Pair, weight: Array, bias: Array) -> Pair:
    """The exact gate of a dense map, and the bound of its error in float32."""
    z, z_err = x[0] @ weight.T + bias, bounds.dense_bound(x[0], weight, bias, x[1], u=U)
    if kind == "tanh":
        return np.tanh(z), bounds.tanh_bound(z, z_err, u=U)
    return 1 / (1 + np.exp(-z)), bounds.sigmoid_bound(z, z_err, u=U)


def product_pair(x: Pair, y: Pair) -> Pair:
    return x[0] * y[0], bounds.product_bound(*x, *y, u=U)


def scan_pair(a: Pair, b: Pair, h0: Array, edges: dict[str, Any]) -> Pair:
    options: dict[str, Any] = {"c_m": 2, "c_a": 1, "u": U, "a_err": a[1], "b_err": b[1], **edges}
    return bounds.scan(a[0], b[0], h0, **edges), bounds.scan_bound(a[0], b[0], h0, **options)


def lstm_pair(x: Array, p: dict[str, Array], c0: Array, s0: Array, delay: int, edges: dict[str, Any]) -> Pair:
    """GILR-LSTM with its bound, in float64."""
    exact_x = (x, 0 * x)
    g = gate_pair("sigmoid", exact_x, p["h.gate.weight"], p["h.gate.bias"])
    j = gate_pair("tanh", exact_x, p["h.impulse.weight"], p["h.impulse.bias"])
    s = scan_pair(g, product_pair((1 - g[0], g[1] + U * (1 - g[0] + g[1])), j), s0, edges)
    heard = (bounds.previous(s[0], s0, **edges), bounds.previous(s[1], **edges)) if delay else s
    both = np.concatenate((x, heard[0]), -1), np.concatenate((0 * x, heard[1]), -1)
    kinds = {"forget": "sigmoid", "enter": "sigmoid", "leave": "sigmoid", "update": "tanh"}
    f, i, o, z = (gate_pair(kind, both, p[f"{name}.weight"], p[f"{name}.bias"]) for name, kind in kinds.items())
    return product_pair(o, scan_pair(f, product_pair(i, z), c0, edges))


def lstm_float32(x: Array, p: dict[str, Array], c0: Array, s0: Array, delay: int, edges: dict[str, Any]) -> Array:
    """The same in float32, as a kernel would."""

    def dense(name: str, operand: Array) -> Array:
        return np.asarray(operand @ p[f"{name}.weight"].T + p[f"{name}.bias"])

    def sigmoid(z: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-z)))

    g = sigmoid(dense("h.gate", x))
    s = bounds.scan(g, (1 - g) * np.tanh(dense("h.impulse", x)), s0, **edges)
    both = np.concatenate((x, bounds.previous(s, s0, **edges) if delay else s), -1)
    f, i, o = (sigmoid(dense(name, both)) for name in ("forget", "enter", "leave"))
    h = o * bounds.scan(f, i * np.tanh(dense("update", both)), c0, **edges)
    assert h.dtype == np.float32
    return h


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize(("reverse", "resets"), EDGES)
def test_gilr_lstm_in_float32_keeps_its_bound(delay: int, reverse: bool, resets: bool) -> None:
    rng = np.random.default_rng(8)
    x, c0, s0 = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 200, 6), (2, 8), (2, 8)))
    p = {name: v.detach().numpy().astype(np.float32) / np.float32(3) for name, v in lstm_params(6, 8).items()}
    p["forget.bias"] = p["forget.bias"] + np.float32(3)
    reset = rng.random((2, 200)) < 0.02 if resets else None
    edges: dict[str, Any] = {"reverse": reverse, "reset": reset}
    cut = None if reset is None else torch.from_numpy(reset)
    exact = truth.gilr_lstm(f8(x), {k: f8(v) for k, v in p.items()}, f8(c0), f8(s0), cut, delay, reverse)[0].numpy()
    wide = {k: v.astype(np.float64) for k, v in p.items()}
    value, bound = lstm_pair(x.astype(np.float64), wide, c0, s0, delay, edges)
    np.testing.assert_allclose(value, exact, rtol=1e-11, atol=1e-14)
    assert (bound / np.abs(exact).mean()).max() < 2e-3, "a bound that allows everything proves nothing"
    assert 1e-3 < bounds.ratio(lstm_float32(x, p, c0, s0, delay, edges), exact, bound) <= 1
    assert bounds.ratio(lstm_float32(x, p, c0, s0, 1 - delay, edges), exact, bound) > 1
    assert bounds.ratio(lstm_float32(x, p, c0, 0 * s0, delay, edges), exact, bound) > 1
    assert (
        bounds.ratio(
            lstm_float32(x, p | {"forget.weight": bfloat16(p["forget.weight"])}, c0, s0, delay, edges), exact, bound
        )
        > 1
    )
    if resets:
        assert bounds.ratio(lstm_float32(x, p, c0, s0, delay, {"reverse": reverse}), exact, bound) > 1


# Cells of other papers


def number(value: float, *shape: int) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64)


def sru_params(hidden: int) -> dict[str, Tensor]:
    names = ("forget", "highway", "update")
    weights = {f"{name}.weight": draw(k, hidden, hidden) for k, name in enumerate(names)}
    return weights | {f"{name}.bias": draw(100 + k, hidden) for k, name in enumerate(names[:2])}


def qrnn_params(inputs: int, hidden: int, window: int) -> dict[str, Tensor]:
    names = ("forget", "enter", "update", "leave")
    weights = {f"{name}.weight": draw(k, hidden, window * inputs) for k, name in enumerate(names)}
    return weights | {f"{name}.bias": draw(100 + k, hidden) for k, name in enumerate(names)}


@pytest.mark.parametrize("reverse", [False, True])
def test_sru_by_hand(reverse: bool) -> None:
    values = {"forget": 0.5, "highway": -1.5, "update": 0.75}
    params = {f"{name}.weight": number(value, 1, 1) for name, value in values.items()}
    params |= {"forget.bias": number(0.25, 1), "highway.bias": number(1.0, 1)}
    xs, c, expected = [0.3, -0.7, 2.0], 0.9, {}
    for t in (2, 1, 0) if reverse else (0, 1, 2):
        f, r = sigmoid(0.5 * xs[t] + 0.25), sigmoid(-1.5 * xs[t] + 1.0)
        c = f * c + (1 - f) * 0.75 * xs[t]
        expected[t] = r * tanh(c) + (1 - r) * xs[t]
    h, last = truth.sru(sequence(*xs), params, number(0.9, 1, 1), None, reverse)
    assert h.flatten().tolist() == pytest.approx([expected[t] for t in range(3)], rel=1e-14)
    assert last.item() == pytest.approx(c, rel=1e-14)


def test_sru_is_the_highway_of_its_products() -> None:
    x, params, c0, reset = draw(7, 2, 9, 3), sru_params(3), draw(8, 2, 3), marks(4, 5, of=9, batch=2)
    products = [x @ params[f"{name}.weight"].T for name in ("update", "forget", "highway")]
    h, c = truth.highway_sru(*products, x, params["forget.bias"], params["highway.bias"], c0, reset)
    got, last = truth.sru(x, params, c0, reset)
    assert torch.allclose(got, h, rtol=1e-13, atol=1e-14) and torch.allclose(last, c[:, -1], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
@pytest.mark.parametrize("reverse", [False, True])
def test_qrnn_by_hand(pooling: str, reverse: bool) -> None:
    """A window of 3 on three steps, the first of which sees itself alone; a boundary hides the first step from the last."""
    names = ("forget", "enter", "update", "leave")
    w = {name: (0.3 + 0.1 * k, -0.2 + 0.15 * k, 0.7 - 0.1 * k, 0.5 - 0.2 * k) for k, name in enumerate(names)}
    params = {f"{name}.weight": torch.tensor([w[name][:3]], dtype=torch.float64) for name in names}
    params |= {f"{name}.bias": number(w[name][3], 1) for name in names}
    for resets in ((), (1,), (2,)):
        c, expected, run = 0.9, {}, [0.3, -0.7, 2.0]
        for step, x in enumerate(run):
            before = 0 if step in resets else 1
            one = run[step - 1] if step >= 1 and before else 0
            two = run[step - 2] if step >= 2 and not resets else 0
            z = {name: v[0] * x + v[1] * one + v[2] * two + v[3] for name, v in w.items()}
            f = sigmoid(z["forget"])
            c = f * (c if before else 0.9) + (sigmoid(z["enter"]) if pooling == "ifo" else 1 - f) * tanh(z["update"])
            expected[step] = c if pooling == "f" else sigmoid(z["leave"]) * c
        xs, cut = (run[::-1], [3 - t for t in resets]) if reverse else (run, resets)
        reset = marks(*cut, of=3) if resets else None
        h, last = truth.qrnn(sequence(*xs), params, pooling, 3, number(0.9, 1, 1), reset, reverse)
        got = h.flatten().tolist()[::-1] if reverse else h.flatten().tolist()
        assert got == pytest.approx(list(expected.values()), rel=1e-13)
        assert last.item() == pytest.approx(c, rel=1e-13)
    with pytest.raises(ValueError, match="pooling"):
        truth.qrnn(sequence(1), params, "of", 3)


def test_a_reset_is_a_new_run_of_these_too() -> None:
    x, c0, reset = draw(7, 1, 9, 3), draw(8, 1, 3), marks(4, of=9)
    weights = qrnn_params(3, 3, 3)
    runs: list[Callable[..., Any]] = [lambda x, **edges: truth.sru(x, sru_params(3), c0, **edges)]
    runs += [partial(lambda x, pooling, **edges: truth.qrnn(x, weights, pooling, 3, c0, **edges), pooling=pooling)
             for pooling in ("f", "fo", "ifo")]
    for run in runs:
        h, last = run(x, reset=reset)
        left, right = run(x[:, :4]), run(x[:, 4:])
        assert torch.equal(h, torch.cat((left[0], right[0]), 1)) and torch.equal(last, right[1])
        mirrored = run(x.flip(1), reset=marks(9 - 4, of=9), reverse=True)
        assert torch.equal(mirrored[0].flip(1), h) and torch.equal(mirrored[1], last)


@pytest.mark.parametrize(("reverse", "resets"), EDGES)
def test_gradients_of_these_are_central_differences(reverse: bool, resets: bool) -> None:
    reset = marks(2, 3, of=5, batch=2) if resets else None
    x, c0, edges = draw(4, 2, 5, 2), draw(3, 2, 2), {"reset": reset, "reverse": reverse}

    def check(cell: Callable[..., Any], params: dict[str, Tensor]) -> None:
        def call(x: Tensor, c0: Tensor, *values: Tensor) -> Any:
            return cell(x, dict(zip(params, values, strict=True)), c0=c0, **edges)

        assert gradcheck(call, (x, c0, *params.values()), fast_mode=True)

    check(truth.sru, sru_params(2))
    for pooling in ("f", "fo", "ifo"):
        check(partial(truth.qrnn, pooling=pooling, window=3), qrnn_params(2, 2, 3))


def test_nan_stays_behind_the_boundary_of_a_window() -> None:
    x = draw(4, 1, 5, 2).detach()
    x[0, :2] = torch.nan
    x.requires_grad_()
    h, _ = truth.qrnn(x, qrnn_params(2, 2, 3), "fo", 3, reset=marks(2, of=5))
    (grad,) = torch.autograd.grad(h[0, 2:].sum(), x)
    assert h[0, 2:].isfinite().all() and h[0, :2].isnan().all() and grad[0, 2:].isfinite().all()
