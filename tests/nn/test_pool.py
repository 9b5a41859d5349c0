"""Outputs from the pool of huge pages: what keeps a block, what gives it back, and that nobody can tell such a tensor apart."""

from __future__ import annotations

import ctypes
import io
import mmap
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import lrdsl as lr
from lrdsl.backends.blocks import Block, Pool
from lrdsl.nn import ops, pool
from lrdsl.nn.launch import Launcher
from tests.nn.cells import FUNCTIONS, MODULES, constant
from tests.nn.compare import as_tuple, gradients

pytestmark = pytest.mark.usefixtures("quick")
SHAPE = (2, 30, 8)


class Poisoned(Pool):
    """Every block is full of nan when it is given."""

    def take(self, size: int) -> Block:
        block = super().take(size)
        ctypes.memset(ctypes.addressof(block.bytes.from_buffer(block.memory, block.start)), 255, size)
        return block


def pooled_from(smallest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs of so many bytes come from the pool, also those of calls that are prepared, which know whether theirs do."""
    monkeypatch.setattr(pool, "SMALLEST", smallest)
    for op in ops._ops.values():
        if isinstance(op.launcher, Launcher):
            monkeypatch.setattr(op.launcher, "_calls", {})


@pytest.fixture(params=["prepared", "not prepared"])
def pooled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """A pool of its own, which the smallest outputs come from."""
    found = Poisoned()
    monkeypatch.setattr(pool, "POOL", found)
    pooled_from(1, monkeypatch)
    if request.param == "not prepared":
        monkeypatch.setattr(Launcher, "prepared", lambda *_, **__: None)
    monkeypatch.delenv("LRDSL_POOL", raising=False)
    yield found


def scanned(grad: bool = False, time_first: bool = False) -> Tensor:
    a, b = torch.rand(SHAPE), torch.rand(SHAPE)
    if time_first:
        a, b = (x.transpose(0, 1).contiguous().transpose(0, 1) for x in (a, b))
    return lr.linear_scan(a.requires_grad_(grad), b)


def test_only_large_outputs_on_the_cpu_are_pooled(pooled: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pooled_from(2 * 30 * 8 * 8, monkeypatch)
    y = scanned()
    assert y.data_ptr() % mmap.PAGESIZE == 0 and lr.pool_usage().used == mmap.PAGESIZE == pooled.usage().used
    smaller = lr.linear_scan(*(torch.rand(2, 29, 8) for _ in "ab"))
    meta = pool.empty(torch.empty(1, device="meta"), SHAPE, torch.float64)
    assert (pooled.usage().misses, smaller.shape, meta.device.type) == (1, (2, 29, 8), "meta")
    held = scanned()
    del held
    assert pooled.idle == mmap.PAGESIZE
    monkeypatch.setenv("LRDSL_POOL", "0")
    scanned()
    assert (pooled.usage().misses, pooled.idle) == (2, 0)
    monkeypatch.setenv("LRDSL_POOL", "plenty")
    with pytest.raises(ValueError, match="LRDSL_POOL is 'plenty'"):
        scanned()
    monkeypatch.setenv("LRDSL_POOL", "1M")
    held = scanned()
    del y, held
    assert pooled.idle == 2 * mmap.PAGESIZE
    lr.empty_pool()
    assert pooled.idle == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.int32])
def test_every_dtype(dtype: torch.dtype, pooled: Pool) -> None:
    found = pool.empty(torch.empty(0), (3, 5, 7), dtype)
    assert (found.dtype, found.shape, found.stride(), found.is_leaf) == (dtype, (3, 5, 7), (35, 7, 1), True)
    assert found.data_ptr() % 64 == 0 and found.untyped_storage().nbytes() == 105 * dtype.itemsize


def test_a_block_lives_as_long_as_what_lies_in_it(pooled: Pool) -> None:
    y = scanned()
    size = pooled.usage().used
    for view in (lambda y: y[0, 3:], lambda y: y.numpy()[1:], lambda y: y.untyped_storage(), memoryview,
                 lambda y: torch.from_dlpack(y), lambda y: y.view(torch.int64).data):
        y = scanned()
        held = view(y.numpy() if view is memoryview else y)
        del y
        assert pooled.usage().used == size, "a view keeps it"
        del held
        assert pooled.usage().used == 0
    y = scanned(grad=True)
    loss = y.sum()
    del y
    assert pooled.usage().used == size, "saved for backward"
    loss.backward()
    assert pooled.usage().used == size, "the gradient of a, which the graph holds"
    del loss
    assert pooled.usage().used == 0


def test_a_storage_may_die_on_another_thread(pooled: Pool) -> None:
    held = [scanned()]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert pooled.usage().used == 0 < pooled.idle
    a, b = (torch.rand(SHAPE, requires_grad=True) for _ in "ab")
    misses = []
    for _ in range(5):  # autograd frees what it saved on the thread that runs backward
        torch.autograd.grad(lr.linear_scan(a, b).cos().sum(), (a, b))
        misses.append(pooled.usage().misses)
    assert pooled.usage().used == 0 and len(set(misses)) == 1


@pytest.mark.parametrize("time_first", [False, True])
def test_such_a_tensor_does_what_others_do(pooled: Pool, time_first: bool) -> None:
    y = scanned(time_first=time_first)
    want = y.clone()
    assert torch.equal(pickle.loads(pickle.dumps(y)), want) and not y._is_view() and y.is_leaf
    file = io.BytesIO()
    torch.save(y, file)
    assert len(file.getvalue()) < 2 * want.nbytes + 4096, "what is saved is the tensor, not the block"
    file.seek(0)
    assert torch.equal(torch.load(file), want)
    y.add_(1).mul_(2)
    y[0, 0] = 0
    want = (want + 1) * 2
    want[0, 0] = 0
    assert torch.equal(y, want)
    assert torch.equal(torch.add(y, 1, out=y), want + 1)
    used = pooled.usage().used
    assert torch.equal(y.share_memory_(), want + 1) and y.is_shared() and pooled.usage().used < used
    z = scanned(time_first=time_first)
    assert z.resize_(4, 5).shape == (4, 5) and z.set_(torch.zeros(3)).shape == (3,) and pooled.usage().used < used
    with torch.inference_mode():
        assert scanned(time_first=time_first).is_inference()


def test_only_the_size_of_its_storage_is_fixed(pooled: Pool) -> None:
    y = scanned()
    for grown in (lambda: y.resize_(3, 30, 8), lambda: y.untyped_storage().resize_(0)):
        with pytest.raises(RuntimeError, match="storage that is not resizable"):
            grown()


@pytest.mark.parametrize("time_first", [False, True])
def test_outputs_with_a_gradient_may_be_changed_in_place(time_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no gradient needs them. They are no views, which autograd would refuse to change, pooled or not."""
    x = torch.rand((30, 2, 8) if time_first else SHAPE).transpose(0, int(time_first)).requires_grad_()
    run = lr.function(constant)
    [want] = torch.autograd.grad((2 * run(x)).cos().sum(), x)
    for smallest in (1, 1 << 62):
        pooled_from(smallest, monkeypatch)
        y = run(x)
        assert (y.stride(0) < y.stride(1)) == time_first
        assert torch.equal(torch.autograd.grad(y.mul_(2).cos().sum(), x)[0], want)


class Scans(torch.utils.data.Dataset[Tensor]):
    """Computed where they are asked for."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, k: int) -> Tensor:
        return lr.linear_scan(torch.full(SHAPE, 0.5), torch.full(SHAPE, float(k)))


def test_workers_of_a_loader_have_their_own(pooled: Pool) -> None:
    """Forked after the pool was used; what they send lies in shared memory."""
    want = [Scans()[k] for k in range(6)]
    misses = pooled.usage().misses
    loader = torch.utils.data.DataLoader(Scans(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    got = list(loader)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)) and pooled.usage().misses == misses


@pytest.mark.parametrize("cell", [*MODULES, *FUNCTIONS], ids=lambda c: c.name)
def test_every_number_of_every_output_is_written(cell: lr.Cell, pooled: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that are full of nan give what fresh memory gives, to the bit."""
    def answers() -> list[Tensor]:
        torch.manual_seed(1)
        names = cell.spec.names("input")
        reset = torch.rand(13, 3) < 0.2
        if cell in MODULES:
            layer = lr.RNN(cell, 4, 4)
            given = {n: torch.randn(13, 3, 4, requires_grad=True) for n in names}
            x, *others = given.values()
            y, h_n = layer(x, reset=reset, **dict(zip(names[1:], others, strict=True)))
            leaves = [*given.values(), *layer.parameters()]
        else:
            numbers = [torch.randn(4 if d.kind == "vector" else ()).requires_grad_()
                       for d in cell.spec.declared if d.kind in ("vector", "scalar")]
            leaves = [*(torch.randn(3, 13, 4, requires_grad=True) for _ in names), *numbers]
            y, h_n = lr.function(cell)(*in_order(cell, leaves), reset=reset.t(), return_state=True)[0], ()
        outputs = [*as_tuple(y), *as_tuple(h_n)]
        return [*outputs, *(g for g in gradients(outputs, leaves) if g is not None)]
    got = answers()
    assert pooled.usage().misses > 0
    pooled_from(1 << 62, monkeypatch)
    for a, b in zip(got, answers(), strict=True):
        assert torch.equal(a, b) and not a.isnan().any()


def in_order(cell: lr.Cell, leaves: list[Tensor]) -> list[Tensor]:
    """Inputs and numbers as the signature has them."""
    inputs, numbers = (iter(x) for x in (leaves[:len(cell.spec.names("input"))], leaves[len(cell.spec.names("input")):]))
    from_where = {"input": inputs, "vector": numbers, "scalar": numbers}
    return [next(from_where[d.kind]) for d in cell.spec.declared if d.kind in from_where]


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux says so in /proc")
def test_memory_does_not_grow_over_ten_thousand_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward, of many lengths, with outputs of 128 to 600 KiB from the pool."""
    monkeypatch.setattr(pool, "POOL", Pool())
    pooled_from(1 << 17, monkeypatch)
    layer = lr.RNN(lr.cells.gilr, 4, 32, dtype=torch.float32)
    sizes = list[int]()
    for k in range(10_000):
        y, _ = layer(torch.ones(2 ** (k % 3) * 512 + 64 * (k % 7), 2, 4, dtype=torch.float32))
        if k % 4 == 0:
            y.sum().backward()
        if k % 1000 == 999:
            sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE)
    usage = lr.pool_usage()
    assert max(sizes[2:]) < sizes[1] + (16 << 20), sizes
    assert usage.hits > 100 * usage.misses > 0


def test_compilers_and_fake_tensors_take_nothing(pooled: Pool) -> None:
    with FakeTensorMode() as mode:
        a, b = (mode.from_tensor(torch.rand(SHAPE)) for _ in "ab")
        assert lr.linear_scan(a, b).shape == SHAPE
    assert pooled.usage().misses == 0
    graph = torch.compile(lambda a, b: lr.linear_scan(a, b).cos(), backend="aot_eager", dynamic=True)
    for T in (10, 20):
        a, b = (torch.rand(2, T, 8) for _ in "ab")
        assert torch.equal(graph(a, b), lr.linear_scan(a, b).cos())
    assert pooled.usage().used == 0 and pooled.usage().hits + pooled.usage().misses == 8
