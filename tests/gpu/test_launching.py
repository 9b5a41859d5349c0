"""How kernels live with torch on a GPU: contexts, streams, graphs, threads and processes. What they compute is compared with
the CPU's."""

from __future__ import annotations

import copy
import importlib.util
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import lrdsl as lr
from lrdsl.backends import cuda, cuda_driver
from lrdsl.ir.source import Launch, fields
from lrdsl.kernels import source_of
from lrdsl.programs import plan_of

from .conftest import Run

CLOSE = {torch.float32: {"rtol": 2e-5, "atol": 2e-5}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}
SHAPES = ((2, 1, 3), (1, 33, 64), (3, 257, 65), (8, 1000, 128))  # B, T, C
DELAY = 200_000_000  # cycles: a tenth of a second, while which nothing behind it on its stream may begin


def drawn(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """a in (0, 1), b, and a gradient, on the CPU."""
    return torch.rand(shape, dtype=dtype), torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)


def with_gradients(run: Callable[..., Tensor], g: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The result of `run`, then the gradients of the inputs, on the CPU."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = run(*leaves)
    return [y.detach().cpu(), *(x.cpu() for x in torch.autograd.grad(y, leaves, g))]


def assert_same(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got.cpu(), want, **CLOSE[want.dtype])


def handwritten(entry: str, body: str = "") -> tuple[Launch, list[int]]:
    """A kernel with the slots of a scan, one block of it, and values for them: all zero but the sizes, which are one."""
    source = source_of(plan_of(lr.cells.linear_scan.spec).programs[0], "cuda", "float32")
    words = len(fields(source.program))
    text = f"struct Args {{ long long word[{words}]; }};\nextern \"C\" __global__ void {entry}(const Args a) {{ {body} }}\n"
    return cuda.load(replace(source, entry=entry, text=text, chunk=0)), [*[0] * (words - 3), 1, 1, 1]


# ---- the driver ---------------------------------------------------------------------------------------------------------


def test_pycuda_knows_this_driver() -> None:
    import pycuda.driver

    pycuda.driver.init()
    assert pycuda.driver.Device(0).compute_capability() == torch.cuda.get_device_capability(0)
    assert cuda_driver.driver().arch(0) == "sm_{}{}".format(*torch.cuda.get_device_capability(0))


def test_torch_works_in_the_primary_context() -> None:
    api = cuda_driver.bindings()
    torch.ones(1, device="cuda:0")
    current = int(api.cuCtxGetCurrent()[1])
    handle = api.cuDeviceGet(0)[1]
    assert current and current == int(api.cuDevicePrimaryCtxRetain(handle)[1])
    api.cuDevicePrimaryCtxRelease(handle)


def test_code_for_another_gpu_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "sm_80" if torch.cuda.get_device_capability(0)[0] != 8 else "sm_90"
    monkeypatch.setattr(cuda_driver.Driver, "arch", lambda self, device: other)
    launch, values = handwritten("nothing")
    with pytest.raises(cuda_driver.CudaError, match="load nothing on device 0") as caught:
        launch(values)
    assert caught.value.name == "CUDA_ERROR_NO_BINARY_FOR_GPU"


# ---- what is computed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_linear_scan_agrees_with_the_cpu(shape: tuple[int, int, int], dtype: torch.dtype, reverse: bool) -> None:
    a, b, g = drawn(shape, dtype)
    h0 = torch.randn(shape[0], shape[2], dtype=dtype)

    def run(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
        return lr.linear_scan(a, b, h0, reverse=reverse)

    for got, want in zip(with_gradients(run, g.cuda(), a.cuda(), b.cuda(), h0.cuda()), with_gradients(run, g, a, b, h0),
                         strict=True):
        assert_same(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_layer_agrees_with_the_cpu(dtype: torch.dtype) -> None:
    layer = lr.RNN(lr.cells.gilr_lstm, 5, 33, num_layers=2, bidirectional=True).to(dtype)
    there = copy.deepcopy(layer).cuda()
    x, reset = torch.randn(200, 4, 5, dtype=dtype), torch.rand(200, 4) < 0.02
    results = []
    for module, x_, reset_ in ((layer, x, reset), (there, x.cuda(), reset.cuda())):
        y, h_n = module(x_, reset=reset_)
        (y.square().mean() + sum(h.sum() for h in h_n)).backward()
        results.append([y, *h_n, *(p.grad for p in module.parameters())])
    for want, got in zip(*results, strict=True):
        assert_same(got, want)


# ---- streams and graphs -------------------------------------------------------------------------------------------------


def test_a_kernel_waits_for_what_is_before_it_on_its_stream() -> None:
    a, b, _ = drawn((4, 500, 64))
    there, source, target = a.cuda(), b.cuda(), torch.full_like(b, torch.nan).cuda()
    noise = torch.randn(2000, 2000, device="cuda")

    def work() -> Tensor:
        target.copy_(source + (noise @ noise).mean() * 0)
        h = lr.linear_scan(there, target)
        target.fill_(torch.nan)  # behind the kernel
        return h

    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()  # compiled and loaded, and memory taken
        stream.synchronize()
        torch.cuda._sleep(DELAY)
        h = work()
        waited = stream.query()
    stream.synchronize()
    assert_same(h, lr.linear_scan(a, b))
    assert not waited, "the launch has waited for the stream, or the delay is too short for this test"


def captured(work: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A graph of `work`, warmed up as torch asks for, and its outputs."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = work()
    return graph, outputs


def test_a_captured_graph_replays_on_new_inputs() -> None:
    """Forward and backward, at a length that is walked in chunks where the schedule does so."""
    shape = (2, 3000, 32)
    a, b, g = (x.cuda() for x in drawn(shape))
    a.requires_grad_(), b.requires_grad_()

    def work() -> tuple[Tensor, ...]:
        h = lr.linear_scan(a, b)
        return h, *torch.autograd.grad(h, (a, b), g)

    graph, outputs = captured(work)
    for _ in range(3):
        new_a, new_b, new_g = drawn(shape)
        with torch.no_grad():
            a.copy_(new_a), b.copy_(new_b), g.copy_(new_g)
        graph.replay()
        for got, want in zip(outputs, with_gradients(lr.linear_scan, new_g, new_a, new_b), strict=True):
            assert_same(got, want)


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs triton")
def test_compiled_with_graphs() -> None:
    layer = lr.RNN(lr.cells.gilr_lstm, 5, 32)
    compiled = torch.compile(copy.deepcopy(layer).cuda(), mode="reduce-overhead")
    for _ in range(4):  # the first ones warm up and record
        x, results = torch.randn(100, 3, 5), []
        for module, x_ in ((layer, x), (compiled, x.cuda())):
            module.zero_grad()
            torch.compiler.cudagraph_mark_step_begin()
            y, _ = module(x_)
            y.square().mean().backward()
            results.append([y.detach().cpu(), *(p.grad.cpu() for p in module.parameters())])
        for want, got in zip(*results, strict=True):
            assert_same(got, want)


# ---- threads and processes -------------------------------------------------------------------------------------------------

SCAN = """
import sys, threading
import torch
import lrdsl as lr
torch.manual_seed(0)
a, b = torch.rand(2, 100, 40), torch.randn(2, 100, 40)
here = [a.requires_grad_(), b.requires_grad_()]
there = [x.detach().cuda().requires_grad_() for x in here]
g = torch.ones(2, 100, 40, device="cuda")
want = lr.linear_scan(*here)
def assert_close(got, want):
    torch.testing.assert_close(got.cpu(), want, rtol=2e-5, atol=2e-5)
"""


def check(done: Any, status: int = 0, said: str = "") -> None:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == status, done.stderr
    assert (lines[-1] if lines else "") == said, done.stderr


def test_the_backward_threads_first_work_is_our_kernel(fresh: Run) -> None:
    check(fresh(SCAN + "h = lr.linear_scan(*there); h.backward(g); torch.cuda.synchronize()\n"
                       "want.backward(torch.ones_like(want))\n"
                       "[assert_close(x.grad, y.grad) for x, y in zip(there, here)]"))


@pytest.mark.parametrize("warm", ["", "lr.linear_scan(*there)\n"], ids=["cold", "loaded"])
def test_a_threads_first_work_is_our_kernel(warm: str, fresh: Run) -> None:
    check(fresh(SCAN + warm + "found = []\n"
                              "work = lambda: found.append(lr.linear_scan(*there))\n"
                              "threads = [threading.Thread(target=work) for _ in range(4)]\n"
                              "[t.start() for t in threads]; [t.join() for t in threads]\n"
                              "assert len(found) == 4\n"
                              "[assert_close(h, want) for h in found]"))


def test_threads_with_streams_of_their_own() -> None:
    def work(seed: int) -> bool:
        generator = torch.Generator().manual_seed(seed)
        a, b = torch.rand(3, 400, 50, generator=generator), torch.randn(3, 400, 50, generator=generator)
        want = lr.linear_scan(a, b)
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                assert_same(lr.linear_scan(a.cuda(), b.cuda()), want)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


@pytest.mark.parametrize("end, status, said", [
    ("", 0, ""), ("raise ValueError('mine')", 1, "ValueError: mine"), ("sys.exit(7)", 7, "")], ids=["end", "exception", "exit"])
def test_a_process_ends_as_it_should_with_modules_loaded(end: str, status: int, said: str, fresh: Run) -> None:
    """On the main thread, on the backward thread, and on one that has ended."""
    check(fresh(SCAN + "lr.linear_scan(*there).backward(g)\n"
                       "t = threading.Thread(target=lr.linear_scan, args=there); t.start(); t.join()\n" + end), status, said)


def test_a_process_that_forked_workers(fresh: Run) -> None:
    """A forked child is told; its parent works on."""
    check(fresh(SCAN + """
import multiprocessing
from lrdsl.backends import cuda_driver
lr.linear_scan(*there)
def child(results):
    try:
        cuda_driver.driver()
    except Exception as error:
        results.put(str(error))
fork = multiprocessing.get_context("fork")
results = fork.SimpleQueue()
process = fork.Process(target=child, args=(results,))
process.start()
assert "forked" in results.get()
process.join()
assert process.exitcode == 0
assert_close(lr.linear_scan(*there), want)
"""))


def test_data_loaders_that_fork_after_cuda_has_begun() -> None:
    layer = lr.RNN(lr.cells.gilr, 4, 8, batch_first=True).cuda()
    layer(torch.randn(1, 5, 4, device="cuda"))
    data = torch.randn(16, 30, 4)
    seen = 0
    for x, in DataLoader(TensorDataset(data), batch_size=4, num_workers=2, multiprocessing_context="fork"):
        y, _ = layer(x.cuda())
        y.square().mean().backward()
        seen += len(x)
    assert seen == 16 and all(torch.isfinite(p.grad).all() for p in layer.parameters())


# ---- time, and what tools find -------------------------------------------------------------------------------------------


def test_the_time_of_a_launch(record_property: Callable[[str, object], None]) -> None:
    """Recorded, in microseconds of the host: a small scan without gradients, a launch alone, and an op of torch's."""
    a, b, _ = (x.cuda() for x in drawn((1, 4, 4)))
    launch, values = handwritten("nothing")
    for name, work in (("scan_us", lambda: lr.linear_scan(a, b)), ("launch_us", lambda: launch(values)),
                       ("sigmoid_us", lambda: torch.sigmoid(a))):
        for _ in range(50):
            work()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(500):
            work()
        record_property(name, (time.perf_counter() - start) / 500 * 1e6)
        torch.cuda.synchronize()
    assert_same(lr.linear_scan(a, b), lr.linear_scan(a.cpu(), b.cpu()))


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("compute-sanitizer"), reason="needs compute-sanitizer")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool: str, fresh: Run) -> None:
    done = fresh(SCAN + "lr.linear_scan(*there).backward(g); torch.cuda.synchronize()", "compute-sanitizer", "--tool", tool,
                 "--error-exitcode", "99")
    assert done.returncode == 0, done.stdout[-4000:]
    assert "ERROR SUMMARY: 0 errors" in done.stdout or "RACECHECK SUMMARY: 0 hazards" in done.stdout


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("compute-sanitizer"), reason="needs compute-sanitizer")
def test_compute_sanitizer_finds_a_planted_bug(fresh: Run) -> None:
    """So that its silence above means something."""
    done = fresh("import torch; from tests.gpu.test_launching import handwritten; torch.ones(1, device='cuda')\n"
                 "launch, values = handwritten('planted', '*(float *)(a.word[0] + 64) = 1;')\n"
                 "launch(values); torch.cuda.synchronize()",
                 "compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "99")
    assert done.returncode and "Invalid __global__ write" in done.stdout
