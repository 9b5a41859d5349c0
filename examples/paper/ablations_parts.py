"""The parts of `ablations`: what is trained and measured. Each gives its rows, and keeps what it has done."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lrdsl as lr
from benchmarks.compare import Ready, error

from . import common, framework, memory, networks
from .ablations_precision import apart, errors, measure
from .framework import Make, demo
from .memory_report import of_run
from .memory_run import Run, Settings

Row = dict[str, Any]
NEWTON, SEQUENTIAL = "diagonal LSTM, Newton", "diagonal LSTM, step by step"
NETWORKS: Mapping[str, Make] = {
    "GILR-LSTM, surrogate at t-1": partial(lr.RNN, lr.cells.gilr_lstm),
    "GILR-LSTM, surrogate at t": partial(lr.RNN, lr.cells.gilr_lstm_delay0),
    NEWTON: partial(lr.RNN, lr.cells.diag_lstm, solver="newton"), "torch.nn.LSTM": nn.LSTM}
DELAYS = ("gilr_lstm", "gilr_lstm_delay0")
TRAINED, EXACT = ("float32", "mixed", "bfloat16"), "float64"  # precisions


@dataclass(frozen=True)
class Size:
    """How much is done. Problem 2b: seeds; units; iterations of a run at most; length for the delays; that for the precisions.
    digits: see `framework.Size`. The longest sequence, and for it precisions, batches that are compared, their size, and steps
    of training."""

    seeds: int
    units: int
    most: int
    delays: int
    precisions: int
    digits: framework.Size
    longest: int
    compared: tuple[str, ...]
    batches: int
    batch: int
    steps: int


FULL = Size(5, 32, 1000, 1024, 4096, framework.FULL, 1 << 20, (EXACT, *TRAINED), 3, 4, 5)
QUICK = Size(1, 4, 12, 64, 64, replace(framework.QUICK, images=32), 256, (EXACT, "mixed"), 1, 2, 2)


def learn(settings: Settings, runs: Path, most: int, start: Path | None = None) -> tuple[Path, Row]:
    """The checkpoint and the row of a run on problem 2b, which ends after so many iterations where it has not learned. start: a
    checkpoint that it goes on from."""
    run = Run(settings, runs / settings.name)
    if start and not run.progress.steps:
        run.begin_from(start)
    if run.progress.steps < most:
        memory.train(run, most=most)
    return run.path, of_run(run.path)


def problem(said: argparse.Namespace, size: Size, length: int, **more: Any) -> Iterator[Settings]:
    """A run of each seed at a length."""
    for seed in range(size.seeds):
        yield Settings("gilr_lstm", length, seed, hidden=size.units, device=said.device, **more)


def delay(said: argparse.Namespace, size: Size) -> list[Row]:
    """A row a run."""
    return [learn(replace(settings, cell=cell), said.runs / "delay", size.most)[1]
            for settings in problem(said, size, size.delays) for cell in DELAYS]


def digits(said: argparse.Namespace, size: Size) -> list[Row]:
    """A row a network and seed, and one with the seconds of a step of training of every network."""
    data = demo.digits()
    found = {(name, seed): common.kept(said.runs / "digits" / f"{k}-seed{seed}.pt", (name, size.digits, said.device),
                                partial(read_digits, name, data, size, said.device, seed))
             for seed in range(size.digits.seeds) for k, name in enumerate(NETWORKS)}
    rows = [{"network": name, "seed": seed, **{n: v for n, v in made.items() if n != "weights"}}
            for (name, seed), made in found.items()]
    weights = {name: found[name, 0]["weights"] for name in NETWORKS}
    return [*rows, common.kept(said.runs / "digits" / "time.pt", (size.digits, said.device, said.threads),
                        partial(time_digits, weights, data, said))]


def read_digits(name: str, data: demo.Digits, size: Size, device: str, seed: int) -> Row:
    """One network trained: accuracy after each epoch, and what Newton's method needed for the held-out images then."""
    iterations, failed = list[int](), list[int]()

    def after(model: framework.Reader) -> None:
        if isinstance(model.rnn, lr.RNN) and (told := model.rnn.solver_report()):
            reports = [report for layer in told.values() for report in layer]
            iterations.append(max(report.iterations for report in reports))
            failed.append(sum(bool(report.fallback) for report in reports))
    model, accuracy = framework.digits(name, data, size.digits, device, seed, NETWORKS[name], after)
    return {"parameters": framework.parameters(model), "accuracy": accuracy, "iterations": iterations, "failed": failed,
            "weights": {n: p.cpu() for n, p in model.state_dict().items()}}


def time_digits(weights: Mapping[str, Mapping[str, Tensor]], data: demo.Digits, said: argparse.Namespace) -> Row:
    """Seconds of a step of training with weights that have learned, and how far apart the logits of both solvers are."""
    makes = {**NETWORKS, SEQUENTIAL: partial(lr.RNN, lr.cells.diag_lstm, solver="sequential")}
    images, labels, held_out, _ = (x.to(said.device) for x in data)
    models, steps = dict[str, framework.Reader](), dict[str, Callable[[], object]]()
    for name, make in makes.items():
        model = models[name] = framework.Reader(make).to(said.device)
        model.load_state_dict(weights[NEWTON if name == SEQUENTIAL else name])
        ready = Ready(partial(loss_of, model, images[:demo.BATCH], labels[:demo.BATCH]), dict(model.named_parameters()))
        steps[name] = networks.runs(ready, networks.WAYS[1])
    with torch.no_grad():
        apart = error(models[NEWTON](held_out), models[SEQUENTIAL](held_out).double())
    times = common.timed(steps, said.device, 0.1 if said.quick else 20.0)
    return {"seconds": {name: common.spread(found) for name, found in times.items()}, "apart": apart}


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(images), labels)


def precision(said: argparse.Namespace, size: Size) -> list[Row]:
    """A row a run of each precision, another for its steps at the longest length, and a row a precision that is compared."""
    runs = said.runs / "precision"
    learned = [learn(replace(settings, precision=name), runs, size.most)
               for settings in problem(said, size, size.precisions, longest=size.longest) for name in TRAINED]
    start, first = learned[0]
    longest = Settings("gilr_lstm", size.longest, start=size.longest, hidden=size.units, batch=size.batch, device=said.device)
    learned += [learn(replace(longest, precision=name), runs, size.steps, start) for name in TRAINED]
    found = {name: common.kept(runs / f"{name}.pt", (size, said.device, said.threads, first["loss"]),
                        partial(apart, measure, replace(longest, precision=name), start, size.batches, said.threads))
             for name in common.progress(size.compared, "beside float64", len(size.compared))}
    rows = [{"precision": name, "length": size.longest, "batch": size.batch, "seconds": made["seconds"], "peak": made["peak"],
             "errors": [errors(own, true) for own, true in zip(made["found"], found[EXACT]["found"], strict=True)]}
            for name, made in found.items()]
    return [*(row for _, row in learned), *rows]


PARTS: Mapping[str, Callable[[argparse.Namespace, Size], list[Row]]] = {
    "delay": delay, "digits": digits, "precision": precision}
