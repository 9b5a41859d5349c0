"""A network of problem 2b in one precision beside another: states, logits, gradients, seconds and memory at a length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.compare import error
from benchmarks.timing import clock_of

from .memory_model import CHUNK, pieces
from .memory_run import Settings, peak, read_checkpoint
from .memory_task import TESTING

Found = Mapping[str, Tensor]  # of a batch
WARM = 64  # steps of a first call, in which kernels are loaded


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """`work` done in a process of its own, whose memory nothing else has used."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        return other.submit(work, *arguments).result()


def measure(settings: Settings, start: Path, batches: int, threads: int) -> dict[str, Any]:
    """The network of a checkpoint, in the precision and at the length of `settings`. found: of each batch; seconds: of its
    gradients; peak: bytes of memory that they took at most beyond what was held before."""
    torch.set_num_threads(threads)
    network = settings.network()
    network.load_state_dict(read_checkpoint(start)[2]["network"])
    network.learn(settings.draw(TESTING, 0, WARM, settings.batch))
    clock, before = clock_of(settings.device), peak(settings.device)
    seconds, found = list[float](), list[Found]()
    for k in range(batches):
        batch = settings.draw(TESTING, k, settings.length, settings.batch)
        network.zero_grad()
        seconds.append(clock(partial(network.learn, batch)))
        with torch.no_grad():
            walked = [(y[-1:].clone(), state) for y, state in network.walk(batch, pieces(batch, CHUNK))]
        gradients = {f"gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
        found.append({"states": torch.stack([state for _, state in walked]), "logits": network.answer(walked[-1][0]).detach(),
                      **gradients})
    return {"seconds": seconds, "peak": peak(settings.device) - before,
            "found": [{name: x.double().cpu() for name, x in each.items()} for each in found]}


def errors(own: Found, true: Found) -> dict[str, float]:
    """The largest differences over the largest magnitudes: of both kinds of states, at the ends of all chunks, of logits, and
    of gradients, all of them and those of the forget gates' biases alone."""
    gradients = [name for name in true if name.startswith("gradient")]
    forget = [name for name in gradients if name.endswith(("forget.bias", "forget_h.bias"))]
    return {"memories c": error(own["states"][:, 0], true["states"][:, 0]),
            "surrogates": error(own["states"][:, 1], true["states"][:, 1]), "logits": error(own["logits"], true["logits"]),
            "gradients": error(*(torch.cat([x[name].flatten() for name in gradients]) for x in (own, true))),
            "forget biases' gradients": max(error(own[name], true[name]) for name in forget)}
