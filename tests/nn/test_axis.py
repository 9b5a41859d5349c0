"""States with an axis in torch: values and all gradients against loops over time, every mode of derivative, carry, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

import lrdsl as lr
from lrdsl.errors import DtypeMismatch, ShapeMismatch
from lrdsl.nn.parameters import beside
from lrdsl.passes.replay import SEGMENT
from tests.axis_cells import (
    lagged,
    lagged_loop,
    mixed,
    mixed_loop,
    returns,
    returns_loop,
    s6,
    s6_loop,
    staged,
    staged_loop,
    turn,
    turn_loop,
)
from tests.nn.compare import as_tuple, assert_close, gradients, leaf, parameters

D = 5
LENGTHS = (1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 3)


@pytest.fixture
def everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A backend; the emulator too, which runs the CUDA text."""
    monkeypatch.setenv("LRDSL_BACKEND", request.param)
    return str(request.param)


BACKENDS = pytest.mark.parametrize("everywhere", ["reference", "native", "emulated"], indirect=True)


def problem(N: int, T: int, B: int = 2, channels: int = D, dtype: torch.dtype = torch.float64) -> tuple[lr.RNN, Tensor, Tensor]:
    """A layer of s6, x and h_0."""
    layer = lr.RNN(s6(N), channels, channels, batch_first=True, dtype=dtype)
    return layer, leaf(B, T, channels).to(dtype), leaf(1, B, channels, N).to(dtype)


@BACKENDS
@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("N", [3, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 16))])
def test_mambas_selective_scan(N: int, T: int, everywhere: str) -> None:
    layer, x, h_0 = problem(N, T)
    p = parameters(layer)
    for reset in (None, torch.rand(2, T) < 4 / (T + 3)):
        y, h_n = layer(x, h_0, reset=reset)
        want, last = s6_loop(x, p, h_0[0], reset)
        assert_close((y, h_n[0]), (want, last), 10)
        inputs = [x, h_0, *p.values()]
        assert_close(gradients((y, h_n), inputs), gradients((want, last.unsqueeze(0)), inputs), 1000)


@BACKENDS
def test_more_channels_than_a_warp_in_float32(everywhere: str) -> None:
    """70 channels: two and a bit of a warp, one and a bit of a block of the CPU; time first in memory."""
    layer = lr.RNN(s6(3), 70, 70, dtype=torch.float32)
    x, T = torch.randn(40, 3, 70, dtype=torch.float32, requires_grad=True), 40
    p = parameters(layer)
    y, h_n = layer(x)
    double = {n: v.detach().double().requires_grad_() for n, v in p.items()}
    wide = x.detach().double().requires_grad_()
    want, last = s6_loop(wide.transpose(0, 1), double, torch.zeros(3, 70, 3))
    weight = torch.linspace(-1, 1, want.numel()).reshape(3, T, 70)
    got = torch.autograd.grad((y.transpose(0, 1) * weight.float()).sum(), [x, *p.values()])
    truth = torch.autograd.grad((want * weight).sum(), [wide, *double.values()])
    for a, b in ((y, want.transpose(0, 1)), (h_n[0], last), *zip(got, truth, strict=True)):
        assert (a - b).abs().max() <= 2e-5 * max(1.0, float(b.detach().abs().max()))


def arguments(N: int, T: int, B: int = 2, C: int = 3) -> tuple[list[Tensor], list[Tensor]]:
    """The arguments of `mixed`, and its edges h, q, u."""
    return ([leaf(B, T, C), leaf(B, T, N), leaf(C, N), leaf(N), leaf(C)], [leaf(B, C, N), leaf(B, C, 2, N), leaf(B, N)])


@BACKENDS
@pytest.mark.parametrize("T", [1, 2, SEGMENT + 4])
def test_everything_that_an_axis_meets(T: int, everywhere: str) -> None:
    f = lr.function(mixed(3))
    given, edges = arguments(3, T)
    for reset in (None, torch.rand(2, T) < 4 / (T + 3)):
        got = f(*given, init=dict(zip("hqu", edges, strict=True)), reset=reset)
        want = mixed_loop(*given, *edges, reset)
        assert_close(got, want, 100)
        assert_close(gradients(got, [*given, *edges]), gradients(want, [*given, *edges]), 1e4)
    constant = f(*given)
    half = torch.full_like(edges[0], 0.5)
    assert_close(constant, mixed_loop(*given, half, torch.zeros_like(edges[1]), torch.zeros_like(edges[2])), 100)
    numbers = f(*given, init={"h": 0.5, "q": 0, "u": 0.0})
    assert_close(numbers, constant)


@BACKENDS
def test_coupled_states_are_computed_again_together(everywhere: str) -> None:
    f, T = lr.function(turn(3)), SEGMENT + 4
    given, edges = [leaf(2, T, 3), leaf(2, T, 3), leaf(3, 3), leaf(2, T, 3)], [leaf(2, 3, 3), leaf(2, 3, 3)]
    with torch.no_grad():
        given[2].mul_(0.3), given[3].mul_(0.3)
    reset = torch.rand(2, T) < 0.1
    got = f(*given, init=dict(zip("pq", edges, strict=True)), reset=reset)
    want = turn_loop(*given, *edges, reset)
    assert_close((got,), (want,), 100)
    assert_close(gradients((got,), [*given, *edges]), gradients((want,), [*given, *edges]), 1e4)


@BACKENDS
def test_states_that_another_program_reads(everywhere: str) -> None:
    layer, T = lr.RNN(staged(3), D, D, batch_first=True), SEGMENT + 2
    x, h_0, p, reset = leaf(2, T, D), leaf(1, 2, D, 3), parameters(layer), torch.rand(2, T) < 0.1
    y, h_n = layer(x, h_0, reset=reset)
    want, last = staged_loop(x, p, h_0[0], reset)
    assert_close((y, h_n[0]), (want, last), 10)
    inputs = [x, h_0, *p.values()]
    assert_close(gradients((y, h_n), inputs), gradients((want, last.unsqueeze(0)), inputs), 1000)


def test_a_state_that_only_another_needs_has_borders_too(backend: str) -> None:
    """The gradient asks for p alone, and p needs q."""
    @lr.cell
    def half(x: lr.Input, p: lr.State = lr.State(size=2), q: lr.State = lr.State(size=2), c: lr.Vector = lr.Vector(size=2)):
        p[lr.t] = c * p[lr.t - 1] - q[lr.t - 1] / 2 + x[lr.t]
        q[lr.t] = p[lr.t - 1] / 2 + q[lr.t - 1] / 4
        return lr.sum(p[lr.t])
    f = lr.function(half)
    [program] = f.pipeline.plan.programs
    assert [k.samples for k in program.keeps if k.every] == [("p",), ("q",)] and len(program.keeps) == 3
    x, c = leaf(2, 2 * SEGMENT + 1, 3), torch.rand(3, 2, requires_grad=True)
    y = f(x, c)
    assert_close(torch.autograd.grad(y.sin().sum(), [x, c], retain_graph=True),
                 torch.autograd.grad(y.sin().sum(), [x, c], create_graph=True), 100)


@BACKENDS
@pytest.mark.parametrize("T", [1, SEGMENT + 5])
def test_from_the_right_with_learned_initial_states(T: int, everywhere: str) -> None:
    layer, r = lr.RNN(returns(3), D, D, batch_first=True), leaf(2, T, D)
    p = parameters(layer)
    assert p["g_init"].shape == (D, 3) and torch.all(p["g_init"] == 0.25) and p["b.weight"].shape == (3, D)
    for reset in (None, torch.rand(2, T) < 0.2):
        y, _ = layer(r, reset=reset)
        want, _ = returns_loop(r, p, reset)
        assert_close((y,), (want,), 10)
        assert_close(gradients((y,), [r, *p.values()]), gradients((want,), [r, *p.values()]), 1000)


@BACKENDS
@pytest.mark.parametrize("N", [1, pytest.param(2, marks=pytest.mark.long)])
def test_torch_checks_first_and_second_order(N: int, everywhere: str) -> None:
    f = lr.function(mixed(N))
    given, edges = arguments(N, 3, 1, 2)
    reset = torch.tensor([[False, False, True]])

    def run(*tensors: Tensor) -> Any:
        y, carry = f(*tensors[:5], init=dict(zip("hqu", tensors[5:], strict=True)), reset=reset, return_state=True)
        return (*y, *carry.now.values())

    assert gradcheck(run, (*given, *edges), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (*given, *edges), fast_mode=True)


@pytest.mark.long
def test_a_module_is_differentiable_twice(quick: None) -> None:
    """Over a border of segments."""
    layer, x, h_0 = problem(2, SEGMENT + 2, 1, 2)
    params = dict(layer.named_parameters())

    def run(x: Tensor, h_0: Tensor, *values: Tensor) -> Any:
        return functional_call(layer, dict(zip(params, values, strict=True)), (x, h_0))

    assert gradcheck(run, (x, h_0, *params.values()), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (x, h_0, *params.values()), check_fwd_over_rev=True, fast_mode=True)


def test_both_ways_to_the_gradient_are_the_same(quick: None) -> None:
    """From borders, and from all states where a gradient of it is asked for; torch.func, jvp over grad, and vmap."""
    layer, x, h_0 = problem(3, 2 * SEGMENT + 1)
    p = dict(layer.named_parameters())

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        y, h_n = functional_call(layer, p, (x, h_0))
        return y.sin().sum() + h_n.cos().sum()

    plain = torch.autograd.grad(loss(p, x), list(p.values()))
    twice = torch.autograd.grad(loss(p, x), list(p.values()), create_graph=True)
    assert all(g.requires_grad for g in twice)
    assert_close(twice, plain, 1000)
    detached = {n: v.detach() for n, v in p.items()}
    assert_close(grad(loss)(detached, x.detach()).values(), plain, 1000)
    direction = torch.randn_like(x)
    _, forward = jvp(lambda x: grad(loss)(detached, x)["layers.0.A"], (x.detach(),), (direction,))
    x2 = x.detach().requires_grad_()
    [backward] = torch.autograd.grad(
        torch.autograd.grad(loss(p, x2), p["layers.0.A"], create_graph=True)[0], x2, torch.ones(D, 3))
    forward = forward.detach()
    assert abs(float(forward.sum() - (backward * direction).sum())) <= 1e-9 * float(forward.abs().sum())
    several = torch.randn(3, *x.shape)
    assert_close([vmap(lambda x: layer(x, h_0)[0])(several)], [torch.stack([layer(x, h_0)[0] for x in several])])
    stacked = {n: v.detach().expand(2, *v.shape) * torch.tensor([1.0, 0.5]).reshape(2, *[1] * v.dim()) for n, v in p.items()}
    each = [functional_call(layer, {n: v[k] for n, v in stacked.items()}, (x, h_0))[0] for k in range(2)]
    assert_close([vmap(lambda p: functional_call(layer, p, (x, h_0))[0])(stacked)], [torch.stack(each)])


class Allocations(TorchDispatchMode):
    """The largest tensor that any operation gives, or that our ops allocate inside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.largest = 0
        for name in ("new_empty", "new_zeros"):
            made = getattr(Tensor, name)

            def watched(*args: Any, made: Any = made, **named: Any) -> Tensor:
                out: Tensor = made(*args, **named)
                self.largest = max(self.largest, out.numel())
                return out
            monkeypatch.setattr(Tensor, name, watched)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


@BACKENDS
def test_the_states_of_all_steps_are_never_in_memory(everywhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither forward nor backward makes a tensor of (B, T, D, N); the gradient of the gradient does."""
    B, T, channels, N = 2, 2 * SEGMENT, 32, 16
    layer, x, h_0 = problem(N, T, B, channels)
    layer(x, h_0)  # made and compiled
    with Allocations(monkeypatch) as seen:
        y, h_n = layer(x, h_0)
        torch.autograd.grad(y.sum() + h_n.sum(), [x, h_0, *layer.parameters()])
    assert B * T * channels <= seen.largest <= 4 * B * T * channels < B * T * channels * N
    if everywhere == "native":
        with Allocations(monkeypatch) as seen:
            y, h_n = layer(x, h_0)
            torch.autograd.grad(y.sum() + h_n.sum(), [x, h_0, *layer.parameters()], create_graph=True)
        assert seen.largest >= B * T * channels * N  # what is looked for can be seen


@pytest.mark.parametrize("cell", [s6(3), returns(3)], ids=lambda c: c.name)
def test_chunks_and_steps(cell: lr.Cell, backend: str) -> None:
    layer, T = lr.RNN(cell, D, D, num_layers=2, batch_first=True), SEGMENT + 3
    x, reset = leaf(2, T, D), torch.rand(2, T) < 0.1
    h_0 = leaf(2, 2, D, 3)
    whole, after = layer(x, h_0, reset=reset, return_state=True)
    assert all(w.shape == (2, 1, D, 3) for n, w in after.now.items() if n.endswith((".h", ".g")))
    reverse = cell.name == "returns"
    cuts = [slice(0, 1), slice(1, SEGMENT), slice(SEGMENT, SEGMENT), slice(SEGMENT, T)]
    parts: dict[int, Tensor] = {}
    carry: Any = h_0
    for k in reversed(range(4)) if reverse else range(4):
        parts[k], carry = layer(x[:, cuts[k]], carry, reset=reset[:, cuts[k]], return_state=True)
    chunked = torch.cat([parts[k] for k in range(4)], 1)
    assert_close([whole, *after.now.values()], [chunked, *carry.now.values()], 10)
    inputs = [x, h_0, *layer.parameters()]
    assert_close(gradients([whole], inputs), gradients([chunked], inputs), 1000)
    if not reverse:
        carry, ys = h_0, []
        for at in range(T):
            y, carry = layer.step(x[:, at], carry, reset=reset[:, at])
            ys.append(y)
        assert_close([whole, *after.now.values()], [torch.stack(ys, 1), *carry.now.values()], 10)


def test_chunks_of_a_function(backend: str) -> None:
    """`mixed` but for what it reads ahead: that is an edge, which a Carry cannot know."""
    @lr.cell
    def back(x: lr.Input, u: lr.Input = lr.Input(axis=2), q: lr.State = lr.State(size=2), w: lr.Scalar = lr.Scalar(size=2)):
        q[lr.t] = q[lr.t - 1] / 2 + q[lr.t - 2] * w + u[lr.t - 1] * x[lr.t]
        return lr.sum(q[lr.t] * u[lr.t - 2])
    f = lr.function(back)
    x, u, w = leaf(2, 7, 3), leaf(2, 7, 2), leaf(2)
    init = {"q": leaf(2, 3, 2, 2), "u": leaf(2, 2, 2)}
    reset = torch.rand(2, 7) < 0.3
    whole, after = f(x, u, w, init=init, reset=reset, return_state=True)
    carry: Any = init
    parts = []
    for at in (slice(0, 1), slice(1, 1), slice(1, 6), slice(6, 7)):
        y, carry = f(x[:, at], u[:, at], w, init=carry, reset=reset[:, at], return_state=True)
        parts.append(y)
    assert_close([whole, *after.now.values()], [torch.cat(parts, 1), *carry.now.values()])
    assert after.now["q"].shape == (2, 2, 3, 2) and after.now["u"].shape == (2, 2, 2)


def test_layers_directions_and_stacks(backend: str) -> None:
    layer = lr.RNN(s6(3), 4, 4, num_layers=2, bidirectional=False)
    x = leaf(6, 2, 4)
    y, h_n = layer(x)
    first, second = ({n.removeprefix(f"layers.{k}."): p for n, p in layer.named_parameters() if n.startswith(f"layers.{k}.")}
                     for k in range(2))
    a, h_a = s6_loop(x.transpose(0, 1), first, torch.zeros(2, 4, 3))
    b, h_b = s6_loop(a, second, torch.zeros(2, 4, 3))
    assert_close((y, h_n), (b.transpose(0, 1), torch.stack([h_a, h_b])), 10)
    both = lr.RNN(s6(3), 4, 4, bidirectional=True)
    y, h_n = both(x)
    there = {n.removeprefix("layers.0."): p for n, p in both.named_parameters() if ".reverse." not in n}
    back = {n.removeprefix("layers.0.reverse."): p for n, p in both.named_parameters() if ".reverse." in n}
    a, h_a = s6_loop(x.transpose(0, 1), there, torch.zeros(2, 4, 3))
    b, h_b = s6_loop(x.transpose(0, 1).flip(1), back, torch.zeros(2, 4, 3))
    assert_close((y, h_n), (torch.cat([a, b.flip(1)], 2).transpose(0, 1), torch.stack([h_a, h_b])), 10)
    alone, h_n = layer(x[:, 0])
    assert alone.shape == (6, 4) and h_n.shape == (2, 4, 3)


def test_a_surrogate_with_an_axis(quick: None) -> None:
    """A state that only N states of a surrogate make linear; their sum is read a step earlier."""
    cell = lr.surrogate(lr.cells.lstm, h=s6(2))
    layer = lr.RNN(cell, 3, 3)
    x = leaf(5, 2, 3)
    y, (c_n, h_n) = layer(x)
    assert c_n.shape == (1, 2, 3) and h_n.shape == (1, 2, 3, 2)
    p = parameters(layer)
    s, last = s6_loop(x.transpose(0, 1), {n.removeprefix("h."): v for n, v in p.items() if n.startswith("h.")},
                      torch.zeros(2, 3, 2))
    assert_close((h_n[0],), (last,), 10)
    c, before, ys = torch.zeros(2, 3), torch.zeros(2, 3), []
    for at in range(5):
        heard = torch.cat([x[at], before], 1)
        f, i, o, z = (torch.nn.functional.linear(heard, p[f"{n}.weight"], p[f"{n}.bias"]) for n in
                      ("forget", "enter", "leave", "update"))
        c = f.sigmoid() * c + i.sigmoid() * z.tanh()
        ys.append(o.sigmoid() * c)
        before = s[:, at]
    assert_close((y, c_n[0]), (torch.stack(ys), c), 10)
    assert_close(gradients((y,), [x, *p.values()]), gradients((torch.stack(ys),), [x, *p.values()]), 1000)


def test_empty_and_single(backend: str) -> None:
    layer, x, h_0 = problem(3, 4)
    y, h_n = layer(x[:, :0], h_0)
    assert y.shape == (2, 0, D) and torch.equal(h_n, h_0)
    [gradient] = torch.autograd.grad(h_n.sum() + y.sum(), h_0)
    assert torch.equal(gradient, torch.ones_like(h_0))
    y, h_n = layer(x[:0], h_0[:, :0])
    assert y.shape == (0, 4, D) and h_n.shape == (1, 0, D, 3)


x = torch.zeros(2, 4, D, dtype=torch.float64)
u = torch.zeros(2, 4, 3, dtype=torch.float64)
WRONG = [
    (lambda layer, f: layer(x, torch.zeros(1, 2, D)), ShapeMismatch,
     r"h_0 has shape \(1, 2, 5\), not \(1, 2, 5, 3\)(?s:.*)then the 3 numbers of a channel"),
    (lambda layer, f: f(x, x[..., :4], 1.0, 1.0, 1.0), ShapeMismatch,
     r"u of mixed has shape \(2, 4, 4\): 4 numbers a step, not 3"),
    (lambda layer, f: f(x, u[:, :3], 1.0, 1.0, 1.0), ShapeMismatch, "u of mixed has shape .*(?s:.*)time must agree"),
    (lambda layer, f: f(x, u.float(), 1.0, 1.0, 1.0), DtypeMismatch, "u of mixed is torch.float32"),
    (lambda layer, f: f(x, u, torch.zeros(D), 1.0, 1.0), ShapeMismatch, r"the vector w has shape \(5,\), not \(5, 3\)"),
    (lambda layer, f: f(x, u, 1.0, torch.zeros(2), 1.0), ShapeMismatch, r"the scalar s has shape \(2,\), not \(3,\)"),
    (lambda layer, f: f(x, u, 1.0, 1.0, 1.0, init={"h": torch.zeros(2, D)}), ShapeMismatch,
     r"initial value of h has shape \(2, 5\), not \(2, 5, 3\)"),
    (lambda layer, f: lr.RNN(reads_shared(), 4, D), ShapeMismatch, "shared says that u has 3 numbers a step, not 4"),
]


def reads_shared() -> lr.Cell:
    @lr.cell
    def shared(u: lr.Input = lr.Input(axis=3), h: lr.State = lr.State(size=3), gate: lr.Affine = lr.Affine()):
        h[lr.t] = lr.sigmoid(gate(u[lr.t])) * h[lr.t - 1] + u[lr.t]
        return lr.sum(h[lr.t])
    return shared


@pytest.mark.parametrize(("call", "error", "said"), WRONG)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception], said: str, quick: None) -> None:
    with pytest.raises(error, match=said):
        call(lr.RNN(s6(3), D, D, batch_first=True), lr.function(mixed(3)))


def test_an_input_with_an_axis_is_mapped_like_any_other(backend: str) -> None:
    """Its N numbers are features of a dense map, and N numbers a channel beside it."""
    layer, u = lr.RNN(reads_shared(), 3, D), leaf(4, 2, 3)
    p = parameters(layer)
    y, h_n = layer(u)
    h, ys = torch.zeros(2, D, 3), []
    for now in u:
        h = torch.sigmoid(torch.nn.functional.linear(now, p["gate.weight"], p["gate.bias"])).unsqueeze(2) * h + now.unsqueeze(1)
        ys.append(h.sum(2))
    assert_close((y, h_n[0]), (torch.stack(ys), h))
    assert_close(gradients((y,), [u, *p.values()]), gradients((torch.stack(ys),), [u, *p.values()]), 100)


def test_torch_compiles_it(quick: None) -> None:
    torch.compiler.reset()
    layer, x, h_0 = problem(3, SEGMENT + 1)
    run = torch.compile(lambda x, h_0: layer(x, h_0)[0], fullgraph=True, backend="aot_eager")
    assert_close((run(x, h_0),), (layer(x, h_0)[0],))
    inputs = [x, h_0, *layer.parameters()]
    assert_close(gradients((run(x, h_0),), inputs), gradients((layer(x, h_0)[0],), inputs), 100)


def test_a_thread_more_changes_no_bit(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """Sums over channels have parts of their own, whatever the number of threads."""
    from lrdsl.backends import native
    monkeypatch.setattr(native, "SMALL", 0)
    layer, x, h_0 = problem(3, 70, 3, 150)
    before, runs = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        runs.append(torch.autograd.grad(as_tuple(layer(x, h_0))[0].sin().sum(), [x, h_0, *layer.parameters()]))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@lr.cell
def crowded(x: lr.Input, *, h: lr.State = lr.State(size=2, init=0.5), g: lr.State, A: lr.Vector = lr.Vector(size=2),
            m: lr.Mask = lr.Mask(p=0.5), few: lr.Affine = lr.Affine(size=2), B: lr.Affine = lr.Affine(axis=2),
            skip: lr.Affine = lr.Affine(skip=True), gate: lr.Affine):
    h[lr.t] = lr.sigmoid(A) * h[lr.t - 1] + m[lr.t] * B(few(x[lr.t]))
    g[lr.t] = lr.sigmoid(gate(x[lr.t])) * g[lr.t + 1] + lr.sum(h[lr.t] * h[lr.t + 1])
    return skip(g[lr.t])


@BACKENDS
def test_beside_a_state_from_the_right_a_mask_and_maps_with_sizes(everywhere: str) -> None:
    """h is read by the other run, ahead of its own; the map that skips is the identity."""
    layer, T = lr.RNN(crowded, 4, D, batch_first=True), SEGMENT + 3
    p = parameters(layer)
    assert p["few.weight"].shape == (2, 4) and p["B.weight"].shape == (2, 2) and "skip.weight" not in p
    x, h_0, g_0 = leaf(2, T, 4), leaf(1, 2, D, 2), leaf(1, 2, D)
    for reset in (None, torch.rand(2, T) < 0.1):
        torch.manual_seed(3)
        y, (h_n, g_n) = layer(x, (h_0, g_0), reset=reset)
        torch.manual_seed(3)
        m = beside(layer.cells[0].spec, x, x, D, True)["m"].unsqueeze(3)
        B = F.linear(F.linear(x, p["few.weight"], p["few.bias"]), p["B.weight"], p["B.bias"]).unsqueeze(2)
        a = torch.sigmoid(F.linear(x, p["gate.weight"], p["gate.bias"]))
        flags = torch.zeros(2, T, dtype=torch.bool) if reset is None else reset
        h, hs = h_0[0], []
        for at in range(T):
            h = torch.sigmoid(p["A"]) * torch.where(flags[:, at, None, None], h_0[0], h) + m[:, at] * B[:, at]
            hs.append(h)
        g, ys = g_0[0], []
        constant = torch.full_like(h, 0.5)
        for at in reversed(range(T)):
            cut = flags[:, at + 1, None] if at + 1 < T else torch.zeros(2, 1, dtype=torch.bool)
            ahead = torch.where(cut.unsqueeze(2), constant, hs[at + 1]) if at + 1 < T else constant
            g = a[:, at] * torch.where(cut, g_0[0], g) + (hs[at] * ahead).sum(2)
            ys.insert(0, g)
        want = (torch.stack(ys, 1), h.unsqueeze(0), g.unsqueeze(0))
        assert_close((y, h_n, g_n), want, 100)
        inputs = [x, h_0, g_0, *p.values()]
        assert_close(gradients((y, h_n, g_n), inputs), gradients(want, inputs), 1e4)


@BACKENDS
def test_where_a_run_begins(everywhere: str) -> None:
    """lr.first, and integers for the maps: rows of weights with N numbers are looked up."""
    @lr.cell
    def begins(x: lr.Input, h: lr.State = lr.State(size=3), B: lr.Affine = lr.Affine(axis=3), gate: lr.Affine = lr.Affine()):
        h[lr.t] = lr.where(lr.first[lr.t] > 0, 2, 0.5) * h[lr.t - 1] + lr.first[lr.t] + B(x[lr.t]) * gate(x[lr.t - 1])
        return lr.sum(h[lr.t] * B(x[lr.t]))
    layer, T = lr.RNN(begins, 6, D, batch_first=True), SEGMENT + 3
    p, x, reset = parameters(layer), torch.randint(6, (2, T)), torch.rand(2, T) < 0.1
    y, h_n = layer(x, reset=reset)
    hot = F.one_hot(x, 6).double()
    assert_close((y, h_n), layer(hot, reset=reset), 10)
    B, gate = p["B.bias"] + hot @ p["B.weight"].T, hot @ p["gate.weight"].T
    h, ys = torch.zeros(2, D, 3), []
    for at in range(T):
        begin = reset[:, at, None, None] | (at == 0)
        before = torch.where(begin.squeeze(2), 0.0, gate[:, at - 1]) + p["gate.bias"]
        h = torch.where(begin, 1.0, 0.5 * h) + B[:, at].unsqueeze(1) * before.unsqueeze(2)
        ys.append((h * B[:, at].unsqueeze(1)).sum(2))
    assert_close((y, h_n[0]), (torch.stack(ys, 1), h), 10)
    assert_close(gradients((y, h_n), list(p.values())), gradients((torch.stack(ys, 1), h.unsqueeze(0)), list(p.values())), 1000)


def test_layers_with_and_without_an_axis(backend: str) -> None:
    """They carry states that cannot be stacked, though of the same depth."""
    layer, x = lr.RNN([s6(3), lr.cells.gilr], D, D), leaf(4, 2, D)
    y, (first, second) = layer(x)
    assert first.shape == (1, 2, D, 3) and second.shape == (1, 2, D)
    again, _ = layer(x, (torch.zeros_like(first), None))
    assert_close((y,), (again,))


@pytest.mark.parametrize("everywhere", ["reference", "native"], indirect=True)
def test_a_line_that_is_read_at_t_and_at_a_lag(everywhere: str) -> None:
    """It is kept for the one read, and so not computed again for the other."""
    x = leaf(2, SEGMENT + 3, D)
    y, want = lr.function(lagged(3))(x), lagged_loop(x, 3)
    torch.testing.assert_close(y, want)
    weigh = torch.randn(y.shape, dtype=torch.float64)
    assert_close(torch.autograd.grad((y * weigh).sum(), x), torch.autograd.grad((want * weigh).sum(), x))
