"""Problem 2b: its data, the network that looks its input up, and runs that are stopped and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

for needed in ("matplotlib", "tqdm"):
    pytest.importorskip(needed)
memory, model, report, run, task = (
    import_module(f"examples.paper.memory{n}") for n in ("", "_model", "_report", "_run", "_task"))
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"cell": "gilr_lstm", "length": 64, "start": 16, "hidden": 4, "batch": 3}


# --- the data

def test_the_data_are_the_paper_s() -> None:
    tokens, positive = task.draw(0, task.TRAINING, 0, 4096, 64)
    assert (tokens.shape, tokens.dtype, positive.shape) == ((4096, 64), torch.int32, (64,))
    assert not tokens[0].any() and set(positive.tolist()) == {0.0, 1.0}
    counts = torch.bincount(tokens[1:].flatten(), minlength=task.SYMBOLS).double()
    expected = counts.sum() / task.SYMBOLS
    assert counts.shape == (task.SYMBOLS,) and ((counts - expected).abs() < 5 * expected.sqrt()).all()
    assert task.Batch(tokens, positive).signs.tolist() == [1 if p else -1 for p in positive.tolist()]
    first_only = task.draw(0, task.TRAINING, 0, 4096, 64, first_only=True)
    assert not first_only.tokens[0].any() and first_only.tokens[1:].min() == 1


def test_the_stream_is_fresh_and_can_be_drawn_again() -> None:
    def bits(*which: int) -> bytes:
        return bytes(task.draw(*which, 40, 8).tokens.numpy().tobytes())
    places = [(seed, stream, number) for seed in (0, 1) for stream in (task.TRAINING, task.TESTING) for number in (0, 1)]
    assert len({bits(*place) for place in places}) == len(places)
    assert bits(1, 0, 7) == bits(1, 0, 7)


# --- the network

def by_hand(network: Any, batch: Any, delay: int) -> Tensor:
    """The logits, by a loop over the paper's equations (section 3.3) and vectors that are one-hot up to their sign. With a
    delay of 0 the gates read the surrogate at t, as in the paper's code."""
    x = F.one_hot(batch.tokens.long(), task.SYMBOLS).double()
    x[0] *= batch.signs.double().unsqueeze(1)
    first, second = (dict(layer.named_parameters()) for layer in network.rnn.layers)

    def of_tokens(name: str, x: Tensor, *s: Tensor) -> Tensor:
        more = [F.linear(s_t, first[f"{name}_h.weight"], first[f"{name}_h.bias"]) for s_t in s] or [first[f"{name}_bias"]]
        return F.linear(x, first[f"{name}.weight"]) + more[0]

    def of_layer(name: str, *operands: Tensor) -> Tensor:
        return F.linear(torch.cat(operands, 1), second[f"{name}.weight"], second[f"{name}.bias"])
    for dense in (of_tokens, of_layer):
        x = gilr_lstm(x, dense, network.hidden, delay)
    return F.linear(x[-1], network.read.weight, network.read.bias).squeeze(1)


def gilr_lstm(x: Tensor, dense: Callable[..., Tensor], hidden: int, delay: int) -> Tensor:
    s = c = x.new_zeros(x.shape[1], hidden)
    outputs = []
    for x_t in x:
        before = s
        g = torch.sigmoid(dense("h.gate", x_t))
        s = g * s + (1 - g) * torch.tanh(dense("h.impulse", x_t))
        read = before if delay else s
        f, i, o = (torch.sigmoid(dense(name, x_t, read)) for name in ("forget", "enter", "leave"))
        c = f * c + i * torch.tanh(dense("update", x_t, read))
        outputs.append(o * c)
    return torch.stack(outputs)


def shaken(cell: str) -> Any:
    """A network in float64 whose gates are nowhere near their ends, so that a mistake anywhere shows."""
    torch.manual_seed(0)
    network = model.Network(cell, 5, 100).double()
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    return network


def found(network: Any, logits: Tensor) -> list[Tensor]:
    """Logits and the gradients of all parameters."""
    return [logits, *torch.autograd.grad(logits.sum(), list(network.parameters()))]


@pytest.mark.parametrize(("cell", "delay"), [("gilr_lstm", 1), ("gilr_lstm_delay0", 0)])
def test_looking_up_is_the_product_with_one_hot_vectors(cell: str, delay: int) -> None:
    network, batch = shaken(cell), task.draw(3, 0, 0, 9, 4)
    torch.testing.assert_close(found(network, network(batch)), found(network, by_hand(network, batch, delay)))


@pytest.mark.parametrize("cell", model.CELLS)
def test_chunks_change_nothing(cell: str) -> None:
    network, batch = shaken(cell), task.draw(3, 0, 0, 11, 4)
    logits = network(batch)
    loss = F.binary_cross_entropy_with_logits(logits, batch.positive.double())
    whole = [logits, loss, *torch.autograd.grad(loss, list(network.parameters()))]
    for chunk in (1, 12, 20, 44):  # samples: steps of 1, of 3 and of 5, the last of them shorter; all
        network.zero_grad()
        torch.testing.assert_close([*network.learn(batch, chunk), *(p.grad for p in network.parameters())], whole)
        torch.testing.assert_close(network(batch, chunk), logits)


@pytest.mark.parametrize("precision", ["mixed", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_states_are_handed_on_in_float32(precision: str) -> None:
    """Sequences have 16 bits; the states that chunks and no chunks end in are the same to more than that."""
    torch.manual_seed(0)
    network, batch = model.Network("gilr_lstm", 5, 100, precision), task.draw(3, 0, 0, 40, 4)
    ends = [list(network.walk(batch, batch.tokens.split(steps)))[-1] for steps in (40, 7)]
    assert network.rnn.layers[0].forget.weight.dtype is (torch.float32 if precision == "mixed" else torch.bfloat16)
    assert {y.dtype for y, _ in ends} == {torch.bfloat16} and {state.dtype for _, state in ends} == {torch.float32}
    torch.testing.assert_close(ends[0][1], ends[1][1], rtol=1e-5, atol=1e-6)
    logits, loss = network.learn(batch, 28)
    assert loss.dtype is torch.float32 and torch.isfinite(loss) and logits.shape == (4,)


def test_no_vector_of_all_symbols_is_built() -> None:
    network, batch = shaken("gilr_lstm"), task.draw(3, 0, 0, 150, 2)
    shapes: set[tuple[int, ...]] = set()

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            shapes.update(tuple(o.shape) for o in (out if isinstance(out, tuple) else (out,)) if isinstance(o, Tensor))
            return out

    with Watch():
        network(batch).sum().backward()
    assert (2, 150) in {s[:2] for s in shapes} and not [s for s in shapes if len(s) > 2 and task.SYMBOLS in s]


@pytest.mark.parametrize("cell", model.CELLS)
def test_memories_last_from_the_start(cell: str) -> None:
    torch.manual_seed(0)
    for forget, enter, keep in model.gates(model.Network(cell, 64, 1000).rnn):
        assert (1 / torch.sigmoid(-forget)).min() >= 1000 and (torch.sigmoid(enter) < 0.02).all()
        assert keep.numel() == (0 if cell == "lstm" else 64)


# --- runs

def state(r: Any) -> list[Any]:
    """What must not depend on where a run was stopped: weights, Adam's moments, counters, the log."""
    phases = [(p.length, p.steps, p.five and p.five[0], p.fresh and p.fresh[0], p.failed) for p in r.progress.phases]
    moments = [v for s in r.optimizer.state_dict()["state"].values() for v in s.values()]
    lines = [json.loads(line) for line in r.log.read_text().splitlines()]
    return [list(r.network.parameters()), moments, phases, (r.progress.steps, r.progress.row, r.progress.tests), lines]


def go(r: Any, steps: int) -> Any:
    for _ in r.go():
        if r.progress.steps >= steps:
            break
    return r


def assert_same(a: Any, b: Any) -> None:
    (*tensors, phases, counters, lines), (*others, phases_b, counters_b, lines_b) = state(a), state(b)
    torch.testing.assert_close(tensors, others, rtol=0, atol=0)
    assert (phases, counters, lines) == (phases_b, counters_b, lines_b)


@pytest.mark.parametrize("cell", memory.RATES)
def test_a_run_that_was_stopped_goes_on(cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had not been stopped."""
    monkeypatch.setattr(run, "ENOUGH", 2)  # so that tests, failures and lengths come early
    monkeypatch.setattr(run, "FRESH", 4)
    settings = run.Settings(cell, 32, start=2, hidden=8, batch=2, rate=0.05)
    whole = go(run.Run(settings, tmp_path / "whole"), 45)
    assert len(whole.progress.phases) > 1 and sum(p.failed for p in whole.progress.phases)
    for stop in (7, 24, 33):  # without `keep`: what was done since the last checkpoint is lost, and its log with it
        stopped = go(run.Run(settings, tmp_path / "stopped"), stop)
        assert len(stopped.log.read_text().splitlines()) == stop
    assert_same(go(run.Run(settings, tmp_path / "stopped"), 45), whole)


def test_a_run_may_begin_from_another(tmp_path: Path) -> None:
    """With its weights and Adam's moments, in another precision."""
    first = go(run.Run(run.Settings(**SMALL), tmp_path / "first"), 3)
    first.keep()
    other = run.Run(run.Settings(**SMALL, precision="bfloat16"), tmp_path / "other")
    other.begin_from(first.path)
    for mine, its in zip(other.network.parameters(), first.network.parameters(), strict=True):
        assert mine.dtype is torch.bfloat16 and torch.equal(mine, its.bfloat16())
        assert other.optimizer.state[mine]["step"] == 3
    assert other.progress.steps == 0 and go(other, 1).progress.steps == 1


def test_kill_9_loses_a_few_steps(tmp_path: Path) -> None:
    arguments = ["--cells", "gilr_lstm", "--lengths", "256", "--seeds", "1", "--hidden", "4", "--threads", "1",
                 "--limit-minutes", "2", "--runs", str(tmp_path / "killed"), "--out", str(tmp_path / "results")]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    child = subprocess.Popen([sys.executable, "-m", "examples.paper.memory", *arguments], cwd=tmp_path,
                             env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL)
    log, end = tmp_path / "killed" / "gilr_lstm-256-from64-4units-seed0" / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") >= 25) and time.monotonic() < end and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = log.read_bytes().count(b"\n")
    settings, progress, _ = run.read_checkpoint(log.with_name("checkpoint.pt"))
    assert 0 <= done - progress.steps <= run.KEEP_STEPS
    assert_same(go(run.Run(settings, log.parent), done + 5), go(run.Run(settings, tmp_path / "whole"), done + 5))


def test_there_is_always_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    r = go(run.Run(run.Settings(**SMALL), tmp_path), 3)
    r.keep()

    def breaks(what: Any, file: Any) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", breaks)
        go(r, 5).keep()
    assert run.Run(run.Settings(**SMALL), tmp_path).progress.steps == 3


def test_a_mistake_on_fresh_sequences_counts(tmp_path: Path) -> None:
    r = run.Run(run.Settings(**SMALL), tmp_path)
    r.progress.row = run.ENOUGH
    r.network = lambda batch: 1 - 2 * batch.positive
    assert "0 fresh sequences of 256 right, 256 wrong" in next(r.go())
    phase = r.progress.phases[-1]
    assert (phase.five is None, phase.fresh, phase.failed, r.progress.row, r.progress.right) == (True, None, 1, 0, 0)


def test_other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--limit-minutes", "0", "--seeds", "1",
             "--cells", "lstm", "--lengths", "64", "--hidden", "3"]
    assert memory.main([*where, "--batch", "3"]) == 0
    assert "the same command goes on" in capsys.readouterr().out
    assert memory.main([*where, "--batch", "4"]) == 2
    assert "holds a run with batch 3, not 4" in capsys.readouterr().err
    assert memory.main([*where, "--batch", "4", "--fresh"]) == 0


def test_lengths_grow_by_fours() -> None:
    assert run.Settings("lstm", 1 << 20, start=64).lengths == [64 << 2 * k for k in range(8)]
    assert run.Settings("lstm", 8192, start=64).lengths == [64, 128, 512, 2048, 8192]
    assert run.Settings("lstm", 1024, start=1024).lengths == [1024]


# --- what is told

def row(seed: int, learned: bool = True, **more: Any) -> dict[str, Any]:
    phases = [run.Phase(64, 10, 30.0, 20.0, (8, 25.0), (10, 30.0)),
              run.Phase(1024, 20, 90.0, 40.0, (5, 30.0), (20 + 2 * seed, 90.0) if learned else None)]
    settings = run.asdict(run.Settings("gilr_lstm", 1024, seed, 64))
    return {**settings, "learned": learned, "phases": [run.asdict(p) for p in phases], "peak": 3e9, "loss": [1.0] * 30,
            "right": [8] * 30, **more}


def test_the_table_counts_all_lengths() -> None:
    record = {"rows": [row(0), row(1), row(2, learned=False), row(0, cell="lstm")]}
    lines = report.render(record).splitlines()
    assert [c.strip() for c in lines[2].split("|")[1:-1]] == [
        "1,024", "gilr_lstm", "64", "0.01", "64", "2 of 3", "15 ± 0", "31 ± 1.4", "1 ± 0", "2 ± 0", "2 ± 0", "3.0", "550 ± 40",
        "1.86 ± 0.12"]
    assert lines[3].startswith("| 1,024 | lstm | 64 | 0.01 | 64 | 1 of 1 | 15 | 30 |")
    assert "Minibatches of 8." in report.render(record)
    assert report.spread([40, 4000]) == "2,020 ± 2,800" and report.spread([0.5]) == "0.5" and report.spread([]) == "–"


def test_the_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert memory.main(["--quick", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "results")]) == 0
    assert "| 256 | lstm |" in capsys.readouterr().out
    record = json.loads((tmp_path / "results" / "memory-cpu.json").read_text())
    assert {(r["cell"], r["length"]) for r in record["rows"]} == {("gilr_lstm", 256), ("lstm", 256)}
    assert all(len(r["loss"]) == len(r["right"]) == sum(p["steps"] for p in r["phases"]) > 0 for r in record["rows"])
    assert (tmp_path / "results" / "memory-cpu.png").read_bytes().startswith(b"\x89PNG")


def test_it_learns(tmp_path: Path) -> None:
    settings = run.Settings("gilr_lstm", 64, start=32, hidden=32)
    r = go(run.Run(settings, tmp_path), 600)
    assert r.done and r.progress.phases[-1].fresh and len(r.progress.phases) == 2
    fresh = task.draw(99, task.TESTING, 0, 64, 512)
    with torch.no_grad():
        assert run.correct(r.network(fresh), fresh) >= 500
