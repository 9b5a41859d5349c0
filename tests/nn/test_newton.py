"""Newton's method against the same recurrences solved one step after another: values, gradients, and what is reported."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import lrdsl as lr
from lrdsl.cells import diag_gru, diag_lstm, indrnn, sru_v2
from lrdsl.nn.newton import Solver
from tests.nn.compare import as_tuple, assert_close, gradients, leaf
from tests.nonlinear_cells import REAL, logistic, squared, strata

B, T, H = 2, 40, 4
ZOO = (sru_v2, indrnn, diag_gru, diag_lstm)
each_of_the_zoo = pytest.mark.parametrize("cell", ZOO, ids=lambda c: c.name)


def both(cell: lr.Cell, solver: Any = "newton", **options: Any) -> tuple[lr.RNN, lr.RNN]:
    """The same layer with both solvers."""
    one = lr.RNN(cell, H, H, batch_first=True, solver=solver, **options)
    other = lr.RNN(cell, H, H, batch_first=True, solver="sequential", **options)
    other.load_state_dict(one.state_dict())
    return one, other


def check_reports(layer: Any, converged: bool = True) -> None:
    reports = layer.solver_report()
    for r in [r for found in reports.values() for r in found] if isinstance(reports, dict) else reports:
        assert (not r.fallback) == converged and r.iterations == len(r.residuals), str(r)
        assert not converged or r.residual <= r.tolerance


def check_module(cell: lr.Cell, T: int = T) -> None:
    """Layers, directions, boundaries, initial values: values, h_n, all gradients; both as exact as rounding."""
    layers = 1 if cell is sru_v2 else 2  # whose x has as many features as there are states
    layer, steps = both(cell, num_layers=layers, bidirectional=True)
    x, reset = leaf(B, T, H), torch.rand(B, T) < 0.1
    h_0 = tuple(leaf(2 * layers, B, H) for _ in cell.spec.names("state"))
    found = []
    for f in (layer, steps):
        y, h_n = f(x, h_0 if len(h_0) > 1 else h_0[0], reset=reset)
        out = (y, *as_tuple(h_n))
        found.append((*out, *gradients(out, [x, *h_0, *f.parameters()])))
    assert_close(*found, 100)
    check_reports(layer)
    assert list(layer.solver_report()) == [f"layers.{k}{way}" for k in range(layers) for way in ("", ".reverse")]
    assert steps.solver_report() == {}


@each_of_the_zoo
def test_the_zoo(cell: lr.Cell, quick: None) -> None:
    check_module(cell)


@pytest.mark.long
@each_of_the_zoo
@pytest.mark.parametrize("steps", [T, 300])
def test_the_zoo_on_every_backend(cell: lr.Cell, steps: int, every_backend: str) -> None:
    """300 steps of so few channels are cut in chunks."""
    check_module(cell, steps)


def functions(cell: lr.Cell, solver: Any = "newton") -> tuple[Any, Any]:
    return lr.function(cell, solver=solver), lr.function(cell, solver="sequential")


@pytest.mark.parametrize("cell", REAL, ids=lambda c: c.name)
def test_functions(cell: lr.Cell, quick: None) -> None:
    """Every form that the equations may have, with initial values and boundaries."""
    f, g = functions(cell)
    shapes = {"input": (B, T, H), "vector": (H,), "scalar": ()}
    args = [torch.rand(shapes[d.kind], requires_grad=True) for d in f.arguments]
    init = {key: torch.rand((B, H) if s.depth == 1 else (B, H, s.depth), requires_grad=True)
            for key, s in f.pipeline.sequences.items()}
    reset, found = torch.rand(B, T) < 0.1, []
    for run in (f, g):
        y, carry = run(*args, init=init, reset=reset, return_state=True)
        out = (*as_tuple(y), *carry.now.values())
        found.append((*out, *gradients(out, [*args, *init.values()])))
    assert_close(*found, 1e4)
    check_reports(f)


def test_a_complex_state(quick: None) -> None:
    f, g = functions(squared)
    x, c = torch.randn(B, T, H), 0.3 * torch.randn(H, dtype=torch.complex128)
    assert_close(f(x, c), g(x, c), 100)
    check_reports(f)


@pytest.mark.parametrize("steps", [1, 2, 33, 300])
def test_lengths_and_chunks(steps: int, quick: None) -> None:
    layer, other = both(diag_lstm)
    x = torch.randn(B, steps, H)
    y, carry = other(x, return_state=True)
    assert_close([layer(x)[0]], [y], 100)
    first, half = layer(x[:, :steps // 2], return_state=True)
    second, after = layer(x[:, steps // 2:], half, return_state=True)
    assert_close((torch.cat([first, second], 1), *after.now.values()), (y, *carry.now.values()), 100)
    last, _ = layer.step(x[:, -1], layer(x[:, :-1], return_state=True)[1])
    assert_close([last], [y[:, -1]], 100)


def test_packed_segments(quick: None) -> None:
    layer, other = both(sru_v2)
    x, borders, h_0 = leaf(1, T, H), torch.tensor([0, 7, 7, 30, T]), leaf(1, 4, H)
    found = []
    for f in (layer, other):
        out = f(x, h_0, cu_seqlens=borders)
        found.append((*out, *gradients(out, [x, h_0, *f.parameters()])))
    assert_close(*found, 100)
    check_reports(layer)


def test_the_residual_is_that_of_what_is_returned(quick: None) -> None:
    f, _ = functions(logistic)
    r = 1 + torch.rand(B, T, H)
    x = f(r)
    before = torch.cat([torch.full((B, 1, H), 0.3), x[:, :-1]], 1)
    off = ((r * before * (1 - before) - x).abs() / (1 + x.abs())).max()
    [report] = f.solver_report()
    assert not report.fallback and abs(float(off) - report.residual) <= 1e-15 and report.name == "logistic"


def test_options(quick: None) -> None:
    """A loose tolerance takes fewer iterations, much damping takes more; all are held to the tolerance."""
    x, counts = torch.randn(B, T, H), []
    torch.manual_seed(1)
    plain = lr.RNN(diag_gru, H, H, batch_first=True, solver="sequential")
    for options in (lr.Newton(tol=1e-3), lr.Newton(damping=0), lr.Newton(damping=0.9)):
        layer = lr.RNN(diag_gru, H, H, batch_first=True, solver=options)
        layer.load_state_dict(plain.state_dict())
        y, _ = layer(x)
        [[report]] = layer.solver_report().values()
        counts.append(report.iterations)
        assert not report.fallback and report.residual <= report.tolerance == options.tolerance(2**-52)
        assert (y - plain(x)[0]).abs().max() <= 10 * report.tolerance
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_answers_are_within_the_tolerance(tol: float, quick: None) -> None:
    """Of a state that forgets over hundreds of steps, whose error is hundreds of residuals."""
    @lr.cell
    def slow(x: lr.Input, h: lr.State):
        h[lr.t] = h[lr.t - 1] + 0.003 * lr.tanh(x[lr.t] - h[lr.t - 1])
        return h[lr.t]

    f, g = functions(slow, lr.Newton(tol=tol))
    x = 3 * torch.randn(B, 3000, H)
    y, z = f(x), g(x)
    check_reports(f)
    assert ((y - z).abs() <= tol * (1 + z.abs())).all()


@pytest.mark.parametrize(("options", "why"), [(lr.Newton(max_iter=1), "1 iterations were not enough"),
                                              (lr.Newton(tol=1e-300, max_iter=9), "9 iterations were not enough")])
def test_where_it_does_not_converge(options: lr.Newton, why: str, quick: None) -> None:
    layer, other = both(sru_v2, options)
    x = leaf(B, T, H)
    y, z = layer(x)[0], other(x)[0]
    assert torch.equal(y, z) and torch.equal(*(torch.autograd.grad(o.sin().sum(), x)[0] for o in (y, z)))
    [[report]] = layer.solver_report().values()
    assert report.fallback == why and why in str(report) and report.iterations == options.max_iter


def test_chaos_falls_back(quick: None) -> None:
    """The logistic map at 4, whose states no iteration over all of time finds."""
    f, g = functions(logistic)
    r = torch.full((1, 2000, 3), 4.0)
    assert torch.equal(f(r), g(r))
    check_reports(f, converged=False)


def test_a_nan_falls_back_and_stays_where_it_was(quick: None) -> None:
    layer, other = both(indrnn)
    x = torch.randn(B, T, H)
    x[0, 20] = torch.nan
    y, z = layer(x)[0], other(x)[0]
    assert torch.equal(y.isnan(), z.isnan()) and z.isnan().any() and torch.equal(y.nan_to_num(), z.nan_to_num())
    assert "not finite" in str(layer.solver_report()["layers.0"][0])


def test_empty_calls(quick: None) -> None:
    layer, other = both(diag_lstm)
    for shape in ((B, 0, H), (0, T, H)):
        x = torch.randn(shape)
        assert_close(as_tuple(layer(x)[1]), as_tuple(other(x)[1]))
    assert layer.solver_report() == {}


def test_two_guesses_are_alive(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _ = both(sru_v2, lr.Newton(damping=0.9))
    guesses: list[weakref.ref[Tensor]] = []
    most, call = 0, Solver._call

    def watch(self: Solver, *args: Any) -> Any:
        nonlocal most
        most = max(most, sum(g() is not None for g in guesses))
        outputs = call(self, *args)
        guesses.append(weakref.ref(outputs[0]))
        return outputs

    monkeypatch.setattr(Solver, "_call", watch)
    layer(torch.randn(B, T, H))
    assert len(guesses) > 5 and most <= 1  # and the one that is being written


def test_derivatives_of_the_solution(quick: None) -> None:
    """The gradient's gradient, and forward mode, are those of the solution."""
    f, _ = functions(logistic)
    r, x = (2 + torch.rand(1, 4, 2)).requires_grad_(), leaf(1, 2)
    run = lambda r, x: f(r, init={"x": x.sigmoid()})
    assert gradcheck(run, (r, x), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, (r, x), check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torch_compile_and_vmap(quick: None) -> None:
    torch._dynamo.reset()
    layer, other = both(diag_lstm, num_layers=2)
    fast, x = torch.compile(layer, fullgraph=True, backend="aot_eager"), leaf(B, T, H)
    for _ in range(2):
        found = [(y := f(x)[0], *torch.autograd.grad(y.sin().sum(), [x, *f.parameters()])) for f in (fast, other)]
        assert_close(*found, 100)
    reports = layer.solver_report()
    assert list(reports) == ["layers.0", "layers.1"] and all(not r.fallback for (r,) in reports.values())
    layer(torch.zeros(B, T, H))  # one more, not compiled
    assert layer.solver_report() != reports
    f, g = functions(strata)
    many = torch.randn(3, B, T, H)
    assert_close([torch.func.vmap(f, (0, None))(many, torch.ones(H))], [torch.stack([g(x, torch.ones(H)) for x in many])], 100)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype: torch.dtype, quick: None) -> None:
    """The guesses are float32, so that the answers are those of the other solver but for a rounding of the last bit."""
    layer, other = both(sru_v2)
    x, eps = torch.randn(B, T, H).to(dtype), torch.finfo(dtype).eps
    y, z = layer.to(dtype)(x)[0], other.to(dtype)(x)[0]
    assert ((y - z).abs() <= 2 * eps * (1 + z.abs())).all() and (y == z).double().mean() > 0.9
    [[report]] = layer.solver_report().values()
    assert not report.fallback and report.tolerance == 2**(-23 * 0.75)


def test_a_copy_has_its_own_report(quick: None) -> None:
    layer, _ = both(sru_v2)
    layer(torch.randn(B, T, H))
    twin = copy.deepcopy(layer)
    before = twin.solver_report()
    layer(torch.zeros(B, T, H))
    assert before == twin.solver_report() != layer.solver_report()


def test_what_is_refused() -> None:
    for options, said in (({"tol": 0.0}, "tol is a positive number"), ({"max_iter": 0}, "max_iter is a positive integer"),
                          ({"damping": 1.0}, "damping is at least 0 and below 1")):
        with pytest.raises(lr.BadDeclaration, match=said):
            lr.Newton(**options)  # type: ignore[arg-type]
    with pytest.raises(lr.BadDeclaration, match=r"solver is \"sequential\", \"newton\" or lr\.Newton"):
        lr.function(logistic, solver="bisection")
    with pytest.raises(lr.NotLinear, match=r"dense maps forget.*so that it is not a recurrence channel"):
        lr.RNN(lr.cells.lstm, H, H, solver="newton")


def test_a_linear_cell_needs_no_solver(quick: None) -> None:
    layer, x = lr.RNN(lr.cells.gilr, H, H, solver="newton"), torch.randn(T, B, H)
    plain = lr.RNN(lr.cells.gilr, H, H)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x)[0], plain(x)[0]) and layer.solver_report() == {}
