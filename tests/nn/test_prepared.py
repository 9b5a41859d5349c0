"""Calls that are prepared once: the second call of a signature is the first one's, and whoever watches still sees an op."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import lrdsl as lr
from lrdsl.nn import launch, prepared
from lrdsl.passes import schedule
from tests.nn.compare import assert_close
from tests.nn.test_pool import pooled_from


def loop(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The definition."""
    h, found = torch.zeros_like(a[:, 0]), []
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        found.append(h)
    return torch.stack(found, 1)


LAYOUTS = {"plain": lambda x: x.clone(), "time first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
           "channels apart": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
           "one for all": lambda x: x[:1, :1].expand(x.shape), "negated view": lambda x: torch._neg_view(-x)}


@pytest.fixture(params=["small", "large"])
def tensors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is small is copied at need; what is large, for which its bytes stand here, comes from the pool."""
    if request.param == "large":
        pooled_from(1, monkeypatch)
        monkeypatch.setattr(launch, "LARGE", 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("tensors")
def test_every_call_of_a_signature_has_its_own_values(layout: str) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        a, b = (LAYOUTS[layout](torch.rand(2, 5, 3, dtype=torch.float64)).detach().requires_grad_() for _ in "ab")
        y = lr.linear_scan(a, b)
        want = loop(a, b)
        assert_close(y, want)
        assert_close(torch.autograd.grad(y.sum(), (a, b)), torch.autograd.grad(want.sum(), (a, b)))


@pytest.mark.parametrize("layout", ["plain", "time first", "channels apart"])
def test_large_outputs_lie_as_those_of_a_first_call(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a = LAYOUTS[layout](torch.rand(3, 5, 2))
    with monkeypatch.context() as patched:
        patched.setattr(launch.Launcher, "prepared", lambda *_, **__: None)
        want = lr.linear_scan(a, a)
    pooled_from(1, monkeypatch)
    used = lr.pool_usage().used
    for _ in range(2):
        y = lr.linear_scan(a, a)
        assert lr.pool_usage().used > used and not y._is_view()
        assert torch.equal(y, want) and y.stride() == want.stride() == a.stride()


def test_results_do_not_share_memory() -> None:
    a, b = torch.rand(1, 4, 2), torch.rand(1, 4, 2)
    one = lr.linear_scan(a, b)
    kept = one.clone()
    lr.linear_scan(a, 2 * b)
    assert_close(one, kept)


@pytest.mark.usefixtures("tensors")
def test_windows_are_left_out_only_where_nobody_reads_them() -> None:
    """An initial value with and without a gradient, and a call with and without its last state, have the same signature."""
    scan = lr.function(lr.cells.linear_scan)
    for learned in (False, True, False, True):
        a, b, h0 = (torch.rand(*shape, 2, dtype=torch.float64) for shape in ((3, 4), (3, 4), (3,)))
        leaves = [x.requires_grad_() for x in (a, b, *[h0] * learned)]
        want = loop(a, torch.cat([b[:, :1] + a[:, :1] * h0[:, None], b[:, 1:]], 1))
        y = lr.linear_scan(a, b, h0)
        assert_close(torch.autograd.grad(y.sin().sum(), leaves), torch.autograd.grad(want.sin().sum(), leaves))
        with torch.no_grad():
            assert_close(scan(a, b, init={"h": h0}), want)
            outputs, carry = scan(a, b, init={"h": h0}, return_state=True)
            assert_close(outputs, want)
            assert_close(carry.now["h"][:, 0], want[:, -1])
            assert_close(scan(a, b), loop(a, b))
            assert_close(scan(a, b, return_state=True)[1].now["h"][:, 0], loop(a, b)[:, -1])


def test_mistakes_are_found_after_a_right_call() -> None:
    a = torch.rand(1, 4, 2, dtype=torch.float64)
    lr.linear_scan(a, a)
    for wrong in (torch.rand(1, 5, 2), torch.rand(1, 4, 3), torch.rand(4, 2)):
        with pytest.raises(lr.ShapeMismatch):
            lr.linear_scan(a, wrong)
    with pytest.raises(lr.DtypeMismatch):
        lr.linear_scan(a, a.float())
    with pytest.raises(lr.DtypeMismatch):
        lr.linear_scan(a, 3.0)  # type: ignore[arg-type]
    assert_close(lr.linear_scan(a, a), loop(a, a))


def test_a_backend_that_is_set_later_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.rand(1, 3, 2)
    want, asked = lr.linear_scan(a, a), []
    launch_of = launch.launch_of
    monkeypatch.setattr(launch, "launch_of", lambda p, dtype, backend: asked.append(backend) or launch_of(p, dtype, backend))
    op = lr.function(lr.cells.linear_scan).pipeline.steps[0][0]
    monkeypatch.setattr(op.launcher, "_launches", {})  # type: ignore[union-attr]
    monkeypatch.setattr(op.launcher, "_calls", dict(op.launcher._calls))  # type: ignore[union-attr]
    for backend in ("reference", "", "reference"):
        monkeypatch.setenv("LRDSL_BACKEND", backend)
        assert_close(lr.linear_scan(a, a), want)
    assert "reference" in asked


class Seen(TorchDispatchMode):
    """The ops that a mode sees."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_mode_and_a_profiler_see_the_op() -> None:
    a = torch.rand(1, 4, 2)
    want = lr.linear_scan(a, a)
    with Seen() as seen:
        assert_close(lr.linear_scan(a, a), want)
    assert any(n.startswith("lrdsl.linear_scan") for n in seen.names)
    with torch.profiler.profile() as profile:
        lr.linear_scan(a, a)
    assert any(e.name.startswith("lrdsl::linear_scan") for e in profile.events() or ())


def test_a_new_length_asks_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of sentences have another length each; sympy takes a millisecond for what a kernel does in microseconds."""
    def both(T: int) -> None:
        a = torch.rand(1, T, 2, requires_grad=True)
        assert_close(torch.autograd.grad(lr.linear_scan(a, a).sum(), a)[0], torch.autograd.grad(loop(a, a).sum(), a)[0])
    both(70)
    for module, name in ((schedule.in_lanes, "hindrance"), (schedule.chain, "hindrance"), (schedule, "levels")):
        monkeypatch.setattr(module, name, None)
    for T in range(71, 80):
        both(T)


def test_signatures_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "MOST", 3)
    scan = lr.function(lr.cells.linear_scan)
    for T in range(1, 9):
        a = torch.rand(1, T, 2)
        assert_close(scan(a, a), loop(a, a))
        assert len(scan._unchanged) <= 3
