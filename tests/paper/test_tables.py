"""The programs of examples/paper run, small, and write what they print; the page that shows their results is up to date."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from lrdsl.backends import native
from lrdsl.passes import schedule

for needed in ("matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(needed)
common, framework, kernels, lstm, networks, report = (
    import_module(f"examples.paper.{n}") for n in ("common", "framework", "kernels", "lstm", "networks", "report"))
pytestmark = pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler")
Record = Mapping[str, Any]


@pytest.fixture(autouse=True)
def threads() -> Any:
    """What the programs set for this process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def quick(main: Callable[[list[str]], Record], tmp_path: Path, *arguments: str) -> Record:
    """Run a program; the JSON file that it wrote, whose table and picture stand beside it."""
    main(["--quick", "--out", str(tmp_path), *arguments])
    [path] = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    text = path.with_suffix(".md").read_text()
    assert "A quick run" in text and record["measured on"][0] in text and "nan" not in text
    return record


def assert_timed(*found: Any) -> None:
    assert all(0 < x["low"] <= x["median"] <= x["high"] and x["runs"] >= 3 for x in found)


def test_what_takes_long_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "PATIENCE", 0.01)
    calls = {"slow": 0, "quick": 0}

    def run(name: str) -> None:
        calls[name] += 1
        time.sleep(0.02 if name == "slow" else 0)
    found = common.timed({name: partial(run, name) for name in calls}, "cpu", seconds=0.0)
    assert calls == {"slow": 1, "quick": 5}  # one to see, one unmeasured, three rounds
    assert found["slow"].runs == 1 and found["slow"].median > 0.01 and found["quick"].runs == 3


def test_table_1(tmp_path: Path) -> None:
    record = quick(kernels.main, tmp_path)
    assert {(r["m"], r["T"]) for r in record["rows"]} == {(m, T) for m in (4, 32) for T in (16, 2048)}
    assert_timed(*(r[kind] for r in record["rows"] for kind in (kernels.SERIAL, kernels.OURS, kernels.DESIGN, kernels.BY_HAND)))
    of = {(r["m"], r["T"]): r for r in record["emulated"]}
    assert of[32, 16]["strategy"] == "serial" and of[32, 16]["steps of ours"] == 16 < of[32, 16]["steps of the paper's"]
    longest = of[32, 2048]
    assert longest["strategy"] == "chunked" and longest["steps of ours"] < longest["steps of the paper's"] < 2048
    assert 12 < longest["bytes of ours"] < 15 and longest["bytes of the paper's"] > 20


def test_table_1_says_where_ours_is_slower() -> None:
    times = {"median": 1.0}
    row = {"m": 4, "T": 16, kernels.SERIAL: times, kernels.OURS: {"median": 1.1}, kernels.DESIGN: times}
    said = kernels.render({"rows": [row], "emulated": []})
    assert "below 0.97 of serial at m = 4, T = 16 (0.91)." in said and "| 0.06 |" in re.sub(" +", " ", said)


def test_table_2(tmp_path: Path) -> None:
    record = quick(networks.main, tmp_path, "--networks", "SRU", "QRNN(10)", "--runs", str(tmp_path / "runs"))
    assert {r["network"] for r in record["rows"]} == {"SRU", "QRNN(10)"}
    assert_timed(*(r[way][who] for r in record["rows"] for way in networks.WAYS
                   for who in (networks.OURS, networks.SERIAL, networks.LSTM)))
    assert (native.SMALL, schedule.MANY) == (networks.SMALL, networks.MANY)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_networks_in_torch_are_those_of_lrdsl(name: str) -> None:
    """Both are held to the loop; torch's scan here before it is compiled."""
    assert [v.note for v in networks.verdicts(name, 3, 5, "cpu", compiled=False).values()] == ["", ""]
    network = networks.NETWORKS[name]
    made = networks.candidates(network, torch.randn(2, 20, 3), 5, compiled=False)
    inputs = {n: p.detach() for n, p in made[networks.OURS].leaves.items()}
    assert networks.judged(network, networks.written(network, inputs, networks.generic, compiled=False), 5).note == ""


def test_a_wrong_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    qrnn = networks.NETWORKS["QRNN(2)"]
    mixed = networks.Network(qrnn.cell, lambda scan, p: qrnn.written(scan, {**p, "x": 1.01 * p["x"]}))
    monkeypatch.setattr(networks, "NETWORKS", {"QRNN": mixed})
    with pytest.raises(SystemExit, match="QRNN, lrdsl: wrong by"):
        networks.verdicts("QRNN", 3, 5, "cpu", compiled=False)


def test_a_lost_step_is_found() -> None:
    """The loop that networks are held to is not blind."""
    sru = networks.NETWORKS["SRU"]
    made = networks.candidates(sru, torch.randn(2, 20, 3), 5, compiled=False)
    inputs = {n: p.detach() for n, p in made[networks.OURS].leaves.items()}

    def lost(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        h = networks.loop(a, b)
        return torch.cat([h[:, :-1], h[:, -2:-1]], 1)
    assert "wrong by" in networks.judged(sru, networks.written(sru, inputs, lost, compiled=False), 5).note


@pytest.mark.parametrize(("fails", "ways", "note"), [
    ("forward", (), "MemoryError: of scans"), ("gradient", ("forward",), "no gradient: MemoryError: of scans"),
    ("when large", (), "forward: MemoryError: of scans")])
def test_what_cannot_run_is_a_note_and_not_timed(fails: str, ways: tuple[str, ...], note: str,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    makes = networks.candidates

    def with_one_that_fails(network: Any, x: torch.Tensor, hidden: int, compiled: bool) -> Any:
        made = makes(network, x, hidden, False)
        good = made[networks.OURS]

        def call() -> torch.Tensor:
            if {"forward": True, "gradient": torch.is_grad_enabled(), "when large": len(x) > 2}[fails]:
                raise MemoryError("of scans")
            return good.call()
        return {**made, networks.COMPILED: networks.Ready(call, good.leaves)}
    monkeypatch.setattr(networks, "candidates", with_one_that_fails)
    networks.verdicts.cache_clear()
    row = networks.measure("SRU", (3, 8, 3, 4), "cpu", True, 0.0)
    networks.verdicts.cache_clear()
    assert row["notes"] == {networks.COMPILED: note}
    assert tuple(way for way in networks.WAYS if networks.COMPILED in row[way]) == ways
    assert all({networks.OURS, networks.SERIAL, networks.LSTM} <= set(row[way]) for way in networks.WAYS)
    assert "torch.compile is not timed both ways" in networks.render({"rows": [row]})


def test_serial_scans_run_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constant that is set for it is the one that kernels go by."""
    used = list[int]()
    launch = native.launch

    def watched(library: Any, source: Any) -> Any:
        class Library:
            def __getattr__(self, name: str) -> Any:
                kernel = getattr(library, name)

                def run(args: bytes, threads: int) -> None:
                    used.append(threads)
                    kernel(args, threads)
                return run
        return launch(Library(), source)
    monkeypatch.setattr(native, "launch", watched)
    monkeypatch.setattr(kernels, "launch_of", kernels.launch_of.__wrapped__)
    torch.set_num_threads(2)
    given = kernels.numbers(kernels.PROGRAM, 1, 4096, 64, "cpu")
    for serial in (False, True):
        networks.serial_scans(serial)
        kernels.candidates(given["a"][0], given["b"][0], threads=2)[kernels.OURS][0]()
    networks.serial_scans(False)
    assert used == [2, 1]


def test_the_lstm(tmp_path: Path) -> None:
    record = quick(lstm.main, tmp_path)
    assert [(r["b"], r["T"]) for r in record["rows"]] == [(1, 16), (8, 16), (1, 128)]  # b * T is limited
    assert_timed(*(r[way][who] for r in record["rows"] for way in lstm.WAYS for who in (lstm.OURS, lstm.LSTM)))


def test_the_framework(tmp_path: Path) -> None:
    record = quick(framework.main, tmp_path, "--cells", "GILR-LSTM", "QRNN (window surrogate)", "torch.nn.GRU",
                   "--runs", str(tmp_path / "runs"))
    gilr_lstm, qrnn, gru = record["rows"]
    assert gilr_lstm["recurrences"] == ["h.h", "c"] and (gilr_lstm["products"], gilr_lstm["passes"]) == (2, 2)
    assert qrnn["recurrences"] == ["c"] and (qrnn["products"], qrnn["passes"]) == (1, 1)
    assert "lines" not in gru and all(0 < r["bits a byte"] < 9 for r in record["rows"])


@pytest.mark.parametrize("name", framework.LAYERS_OF)
def test_cells_of_the_framework_learn_both_tasks(name: str) -> None:
    """Every parameter of both networks has a gradient; the gates that keep a state start open."""
    torch.manual_seed(0)
    make = framework.LAYERS_OF[name]
    for model, x in ((framework.Reader(make, units=4), torch.randn(2, 6, 1)),
                     (framework.Writer(make, 3, 4), torch.randint(256, (2, 6)))):
        model(x).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p is not model_of_bytes(model))
        kept = [p[4:8] for n, p in model.rnn.named_parameters() if "bias_ih" in n]
        kept += [p for n, p in model.rnn.named_parameters() if n.endswith(("gate.bias", "forget.bias"))]
        assert kept and all((p >= 0).all() for p in kept)


def test_all_networks_read_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[list[list[int]]]()
    monkeypatch.setattr(framework, "train", lambda model, batches, *_: seen.append([y.tolist() for _, y in batches()]))
    for name in ("GILR", "torch.nn.GRU"):
        framework.digits(name, framework.demo.digits(), framework.QUICK, "cpu", 3)
    assert seen[0] == seen[1] and len(seen[0]) == 3


def model_of_bytes(model: torch.nn.Module) -> torch.Tensor | None:
    """The vectors of bytes, of which a short text has few."""
    return model.read.weight if isinstance(model, framework.Writer) else None


def test_bits_a_byte_are_those_of_a_uniform_guess_before_anything_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """And every byte counts once."""
    class Uniform(torch.nn.Module):
        def __init__(self, *_: object) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, text: torch.Tensor) -> torch.Tensor:
            return 0 * self.weight + torch.zeros(text.shape[0], 256, text.shape[1])
    monkeypatch.setattr(framework, "Writer", Uniform)
    some = torch.randint(256, (5000,), dtype=torch.uint8)
    _, bits = framework.language("GILR", framework.Text(some, some, ""), framework.QUICK, "cpu")
    assert bits == pytest.approx(8, rel=1e-6)


def test_what_was_done_is_not_done_again(tmp_path: Path) -> None:
    calls = list[int]()

    def make() -> dict[str, Any]:
        calls.append(1)
        return {"loss": [0.5], "weights": torch.ones(2)}
    for settings, done in (("a", 1), ("a", 1), ("b", 2)):
        made = common.kept(tmp_path / "runs" / "x.pt", settings, make)
        assert made["loss"] == [0.5] and torch.equal(made["weights"], torch.ones(2)) and len(calls) == done


def test_an_interrupted_framework_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, fails = list[object](), [True]

    def digits(name: str, data: object, size: framework.Size, device: str, seed: int) -> tuple[torch.nn.Module, list[float]]:
        done.append(seed)
        return torch.nn.Linear(2, 3), [0.25, 0.5 + seed / 8]

    def language(*_: object) -> tuple[int, float]:
        done.append("text")
        if fails:
            raise KeyboardInterrupt
        return 7, 2.5
    monkeypatch.setattr(framework, "digits", digits)
    monkeypatch.setattr(framework, "language", language)
    said = framework.options().parse_args(["--runs", str(tmp_path)])
    data, size = ((), framework.Text(torch.zeros(1), torch.zeros(1), "")), framework.FULL
    with pytest.raises(KeyboardInterrupt):
        framework.measure("SRU", data, size, said)
    fails.clear()
    row = framework.measure("SRU", data, size, said)
    assert done == [0, 1, 2, "text", "text"]
    assert (row["parameters, digits"], row["accuracy"]) == (9, [0.5, 0.625, 0.75])
    assert (row["parameters, text"], row["bits a byte"]) == (7, 2.5)


def test_the_page_is_filled_from_results(tmp_path: Path) -> None:
    page = "before\n<!-- results: lstm -->\nold\n<!-- end -->\nafter\n<!-- results: networks -->\n<!-- end -->\n"
    quick(lstm.main, tmp_path)
    text = report.filled(page, tmp_path)
    assert text.startswith("before\n") and "old" not in text and "\nafter\n" in text and "thousand steps a second" in text
    assert "Not measured yet: `python -m examples.paper.networks`" in text and "lstm-cpu.png" in text
    assert report.filled(text, tmp_path) == text


def test_the_page_in_the_repository_is_up_to_date() -> None:
    assert report.main(["--check"]) == 0
