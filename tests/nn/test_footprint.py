"""What `explain` says of memory, against the storages that really live."""

from __future__ import annotations

import re
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lrdsl as lr
from lrdsl.nn import pool
from tests.nn.compare import as_tuple

pytestmark = pytest.mark.usefixtures("quick")
B, T, H = 2, 4096, 16


class Living(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, until they die. own: those that were there before."""

    def __init__(self, own: set[int]) -> None:
        super().__init__()
        self.own = own
        self.sizes: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self.meet(tensor.untyped_storage())
        return found

    def meet(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.sizes and storage._cdata not in self.own:
            self.sizes[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.sizes.pop, storage._cdata)
            self.most = max(self.most, sum(self.sizes.values()))


def told(cell: lr.Cell, dtype: str) -> tuple[float, float]:
    """Saved, and at most, as `explain` has it."""
    text = cell.explain(dtype=dtype).replace("\n    ", " ")
    saved = re.search(rf"^Memory, {dtype} .*\n  saved for the backward pass: (\S+)", text, re.MULTILINE)
    most = re.search(r"^  at most at once, forward and backward: (\S+)$", text, re.MULTILINE)
    assert saved and most
    return float(saved[1].rstrip(",")), float(most[1])


def lived(cell: lr.Cell, dtype: torch.dtype, features: int) -> tuple[float, float]:
    """The same, of a layer as it runs, a step and channel."""
    layer, x = lr.RNN(cell, features, H, dtype=dtype), torch.rand(T, B, features, dtype=dtype)
    own = {t.untyped_storage()._cdata for t in (x, *layer.parameters())}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with Living(own) as living:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = as_tuple(layer(x)[0])
        torch.autograd.backward(y, [torch.ones_like(o) for o in y])
    return sum(saved.values()) / (B * T * H), living.most / (B * T * H)


@pytest.mark.parametrize("cell, features", [
    (lr.cells.gilr, 1), (lr.cells.sru, H), (lr.cells.qrnn_fo, 1), (lr.cells.gilr_lstm, 1),
    (lr.cells.slstm(), 1), (lr.cells.rglru, 1),
], ids=lambda c: getattr(c, "name", c))
def test_what_explain_says_of_memory(cell: lr.Cell, features: int) -> None:
    """Beside it there is less than a number a step for each lag of x, and what has no step."""
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        said, found = told(cell, name), lived(cell, dtype, features)
        more = (3 if features == 1 else 0) * dtype.itemsize / H + 50 * H * dtype.itemsize / (B * T)
        assert said[0] <= found[0] <= said[0] + more
        assert said[1] <= found[1] <= said[1] + more


def test_states_with_an_axis_are_counted_at_their_borders() -> None:
    """N numbers a channel every 32 steps; B and C, N numbers for all channels, are not of the channels."""
    cell, N = lr.cells.mamba_s6(8), 8
    said, found = told(cell, "float64")[0], lived(cell, torch.float64, H)[0]
    assert said == 8 * (1 + N / 32) and found == pytest.approx(said + 2 * 8 * N / H, rel=0.02)


def test_nothing_is_counted_twice_or_kept_by_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool sees the kernels' outputs: y and its gradients."""
    monkeypatch.setattr(pool, "POOL", pool.POOL.__class__())
    monkeypatch.setattr(pool, "SMALLEST", 8 * B * T * H)
    a, b = (torch.rand(B, T, H, requires_grad=True) for _ in "ab")
    y = lr.linear_scan(a, b)
    number = 8 * B * T * H
    assert lr.pool_usage().used == number
    torch.autograd.backward(y, torch.ones_like(y))
    assert lr.pool_usage().used == 3 * number and told(lr.cells.linear_scan, "float64") == (8, 32)
    del y, a, b
    assert lr.pool_usage().used == 0
