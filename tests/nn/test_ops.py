"""The registered ops: torch's opcheck on every layout, names, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import lrdsl as lr
from lrdsl.errors import DtypeMismatch, NotBuilt, ShapeMismatch
from lrdsl.ir.program import Buffer, Program
from lrdsl.nn.ops import Op, name_of, op_of
from lrdsl.programs import adjoint_of, plan_of
from tests.nn.cells import around, smooth, strata
from tests.nn.compare import assert_close

B, T, C = 2, 5, 3


def program(cell: lr.Cell) -> Program:
    return plan_of(cell.spec).programs[0]


def arguments(op: Op, shape: tuple[int, int, int], edges: bool = True) -> list[Tensor | None]:
    """Random tensors for an op's inputs, the reset last."""
    b, t, c = shape
    found: list[Tensor | None] = []
    for slot in op.launcher.ins:
        match slot.kind:
            case "sequence":
                found.append(torch.rand(b, t, slot.columns * c, requires_grad=True))
            case "vector":
                found.append(torch.rand(() if slot.name in op.launcher.lone else c, requires_grad=True))
            case "edge":
                found.append(torch.rand(b, slot.depth, c, requires_grad=True) if edges else None)
            case "reset":
                found.append(torch.rand(b, t) < 0.3 if edges else None)
    return found


def permuted(a: Tensor | None, order: tuple[int, ...]) -> Tensor | None:
    """The same numbers in another memory order; a leaf."""
    if a is None or a.dim() != len(order):
        return a
    back = sorted(range(len(order)), key=lambda i: order[i])
    return a.detach().permute(order).contiguous().permute(back).requires_grad_(a.requires_grad)


@pytest.mark.parametrize("shape", [(B, T, C), (B, 1, C), (B, 0, C), (0, T, C), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("cell", [lr.cells.linear_scan, smooth, strata], ids=lambda c: c.name)
def test_opcheck_of_shapes(cell: lr.Cell, shape: tuple[int, int, int], quick: None) -> None:
    op = op_of(program(cell))
    torch.library.opcheck(op.overload, arguments(op, shape))
    back = op_of(adjoint_of(op.program, frozenset()).program)
    torch.library.opcheck(back.overload, arguments(back, shape, edges=False))


@pytest.mark.parametrize("layout", ["time first", "channels strided", "sliced", "expanded"])
def test_opcheck_of_layouts(layout: str, quick: None) -> None:
    op = op_of(program(lr.cells.gilr))
    args = arguments(op, (B, T, C))
    want = op(*args)
    if layout == "time first":
        args = [permuted(a, (1, 0, 2)) for a in args]
    elif layout == "channels strided":
        args = [permuted(a, (0, 2, 1)) for a in args]
    elif layout == "sliced":
        args = [a if a is None or a.dim() != 3 else torch.cat([a, a], 2).detach()[..., :a.shape[2]] for a in args]
    else:
        args = [a if a is None or a.dim() != 3 else a[:1, :1].detach().expand(a.shape) for a in args]
        want = op(*(None if a is None else a.contiguous() for a in args))
    assert_close(op(*args), want)
    torch.library.opcheck(op.overload, args)


def test_outputs_keep_the_memory_order_of_the_input(quick: None) -> None:
    a = torch.rand(T, B, C).transpose(0, 1)
    y = lr.linear_scan(a, a)
    assert y.stride() == a.stride()
    assert lr.linear_scan(a.contiguous(), a).is_contiguous()


def test_a_name_says_everything() -> None:
    plain = program(lr.cells.linear_scan)
    assert name_of(plain).startswith("linear_scan_")
    assert name_of(plain) == name_of(program(lr.cells.linear_scan)) != name_of(program(lr.cells.linear_scan_reverse))
    third = replace(plain, edges=tuple(replace(e, init=1 / 3) for e in plain.edges))
    near = replace(plain, edges=tuple(replace(e, init=0.333333333333333) for e in plain.edges))
    assert len({name_of(plain), name_of(third), name_of(near)}) == 3


def test_names_are_the_same_in_every_process() -> None:
    code = "import lrdsl as lr\nfrom lrdsl.nn.pipeline import pipeline_of\n" \
           "print([s[0].name for s in pipeline_of(lr.cells.gilr_lstm.spec).steps if hasattr(s[0], 'name')])"
    said = {subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                           capture_output=True, text=True).stdout for seed in ("1", "2")}
    assert len(said) == 1


def test_names_that_a_schema_cannot_hold(quick: None) -> None:
    plain = program(lr.cells.linear_scan)
    odd = {"a": "lambda", "b": "2λ.x"}
    buffers = tuple(replace(b, name=odd[b.name]) for b in plain.buffers)
    op = op_of(replace(plain, buffers=buffers))
    assert "Tensor _lambda, Tensor _2__x" in str(op.overload._schema)  # type: ignore[attr-defined]
    a = torch.rand(B, T, C)
    assert_close(op(a, a, None, None, None), op_of(plain)(a, a, None, None, None))


def test_an_op_of_torch_takes_64_tensors() -> None:
    plain = program(lr.cells.linear_scan)

    def wide(n: int) -> Program:
        more = [Buffer(f"u{k}", (f"u{k}",)) for k in range(n - len(plain.inputs) - 1)]
        return replace(plain, name="wide", buffers=(*plain.buffers, *more))

    assert len(op_of(wide(64)).arguments) == 64
    with pytest.raises(NotBuilt, match=r"(?s)wide reads 65 tensors, and an op of torch takes 64.*way out: give one dense map"):
        op_of(wide(65))


def test_ops_are_registered_by_many_threads_at_once(quick: None) -> None:
    cells = [lr.cell(_numbered(k)) for k in range(3)]
    gate = threading.Barrier(12)
    x = torch.rand(B, T, C)

    def work(k: int) -> Tensor:
        gate.wait()
        a = x.clone().requires_grad_()
        y = lr.function(cells[k % 3])(a)
        return torch.autograd.grad(y.sum(), a)[0]

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(work, range(12)))
    for k in range(12):
        assert_close([found[k]], [found[k % 3]])


def _numbered(k: int) -> object:
    def numbered(x: lr.Input, h: lr.State):
        h[lr.t] = (k + 2) * x[lr.t] * h[lr.t - 1] + x[lr.t]
        return h[lr.t]
    return numbered


def test_an_op_refuses_what_its_kernel_cannot_read() -> None:
    op = op_of(program(around))
    r, v, w = torch.rand(B, T, C), torch.rand(()), torch.rand(C)
    rest = (None,) * (len(op.arguments) - 3)
    names = op.program.inputs
    args = {"r": r, "v": v, "w": w}
    good = [args[n] for n in names[:3]]
    for bad, error, text in ((r[0], ShapeMismatch, "r has shape (5, 3), not (batch, time, channels)"),
                             (torch.rand(4), ShapeMismatch, "w has shape (4,), not (3,)"),
                             (w.float(), DtypeMismatch, "w is float32, not float64"),
                             (None, ShapeMismatch, "w is missing")):
        wrong = [bad if n == ("r" if bad is not None and bad.dim() == 2 else "w") else args[n] for n in names[:3]]
        with pytest.raises(error) as caught:
            op(*wrong, *rest)
        assert text in str(caught.value)
    assert len(op(*good, *rest)) == op.size


def test_meta_and_fake_tensors_have_the_shapes_of_real_ones() -> None:
    layer = lr.RNN(lr.cells.gilr_lstm, 3, 4, num_layers=2, device="meta")
    y, h = layer(torch.empty(5, 2, 3, device="meta"))
    assert y.shape == (5, 2, 4) and [s.shape for s in h] == [(2, 2, 4)] * 2


def test_inference_mode_and_threads(quick: None) -> None:
    a = torch.rand(B, 50, C)
    want = lr.linear_scan(a, a)
    with torch.inference_mode():
        assert torch.equal(lr.linear_scan(a, a), want)
    before = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            assert torch.equal(lr.linear_scan(a, a), want)
    finally:
        torch.set_num_threads(before)
