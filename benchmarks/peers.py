"""Other ways to h[t] = a[t] h[t-1] + b[t]: in torch, by hand in numba, jax, and packages where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor
from torch._higher_order_ops.associative_scan import associative_scan

from . import peers_jax, peers_numba
from .compare import Make, Ready, Tensors, leaves

Scan = Callable[[Tensor, Tensor], Tensor]


def loop(a: Tensor, b: Tensor) -> Tensor:
    """A step at a time; (B, T, C)."""
    h, states = torch.zeros_like(b[:, 0]), []
    for a_t, b_t in zip(a.unbind(1), b.unbind(1), strict=True):
        h = a_t * h + b_t
        states.append(h)
    return torch.stack(states, 1)


def combine(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """First the step p, then q."""
    return p[0] * q[0], q[0] * p[1] + q[1]


def generic(a: Tensor, b: Tensor) -> Tensor:
    """torch's associative_scan out of slices and sums; (B, T, C)."""
    return associative_scan(combine, (a, b), 1, combine_mode="generic")[1]


def pointwise(a: Tensor, b: Tensor) -> Tensor:
    """torch's associative_scan as one kernel: under torch.compile, on a GPU."""
    return associative_scan(combine, (a, b), 1, combine_mode="pointwise")[1]


def scans(device: str, compiled: bool = True) -> dict[str, Scan]:
    """What takes a and b as they are, by name; those that are compiled are slow to start."""
    found: dict[str, Scan] = {"torch loop": loop, "associative_scan": generic}
    if compiled:
        found["associative_scan, compiled"] = torch.compile(generic, dynamic=False)
        if device == "cuda":
            found["associative_scan, pointwise"] = torch.compile(pointwise, dynamic=False)
    return found


def plain(scan: Scan) -> Make:
    """A candidate that takes a and b as they are."""
    def make(inputs: Tensors) -> Ready:
        own = leaves(inputs)
        return Ready(lambda: scan(own["a"], own["b"]), own)
    return make


def packages(device: str) -> dict[str, Make]:
    """Packages that take a and b another way; each keeps its tensors in its own layout, which is not timed."""
    found: dict[str, Make] = {}
    if device == "cpu" and find_spec("numba"):
        found["numba by hand"] = peers_numba.by_hand()
    if device == "cuda" and find_spec("accelerated_scan"):
        found["accelerated-scan"] = _accelerated
    if device == "cuda" and find_spec("fla"):
        found["fla fused_recurrent_hgrn"] = lambda inputs: _hgrn("fused_recurrent_hgrn", inputs)
        found["fla chunk_hgrn"] = lambda inputs: _hgrn("chunk_hgrn", inputs)
    return found


def more(level: str, shape: tuple[int, int, int], turned: bool = False) -> dict[str, Make]:
    """Peers on a CPU: of all that is installed "all", only what is quick ("fast"), "numba" alone, or "none".

    turned: a and b are (B, C, T) in memory. What torch.compile makes of associative_scan takes minutes to compile where
    sequences are long, and the loop in torch is no match there.
    """
    if level == "none":
        return {}
    found: dict[str, Make] = {}
    if find_spec("numba"):
        for kept in (False, True):
            if not turned:
                found["numba by hand" + ", outputs kept" * kept] = peers_numba.by_hand(kept)
            if turned or shape[2] == 1:
                found["numba along time" + ", outputs kept" * kept] = peers_numba.along_time(kept)
    if level == "numba":
        return found
    if find_spec("jax"):
        found["jax lax.scan"] = peers_jax.stepwise(1)
    if shape[1] <= 8192:
        found["torch loop"] = plain(loop)
    if level == "fast":
        return found
    if find_spec("jax"):
        found["jax lax.scan, unroll 8"] = peers_jax.stepwise(8)
        found["jax associative_scan"] = peers_jax.associative()
    if find_spec("mambapy"):
        found["mamba.py pscan"] = plain(_mambapy)
    if find_spec("accelerated_scan"):
        found["accelerated-scan ref"] = plain(_reference)
    others = {"Heinsen's logarithms": heinsen, **scans("cpu", compiled=shape[1] <= 1024)}
    return {**{n: plain(s) for n, s in others.items()}, **found}


def heinsen(a: Tensor, b: Tensor) -> Tensor:
    """Heinsen 2023 (arXiv 2311.06281): cumulative sums of logarithms, complex for numbers below 0."""
    coefficients = torch.cumsum(a.to(torch.complex64).log(), 1)
    return (coefficients + torch.logcumsumexp(b.to(torch.complex64).log() - coefficients, 1)).exp().real


def _mambapy(a: Tensor, b: Tensor) -> Tensor:
    """mamba.py 1.2, which takes (B, T, D, N)."""
    return import_module("mambapy.pscan").pscan(a.unsqueeze(-1), b.unsqueeze(-1)).squeeze(-1)


def _reference(a: Tensor, b: Tensor) -> Tensor:
    """accelerated-scan 0.3 in torch alone, which takes (B, C, T), T a power of two."""
    return import_module("accelerated_scan.ref").scan(a.mT.contiguous(), b.mT.contiguous()).mT


def _accelerated(inputs: Tensors) -> Ready:
    """accelerated-scan 0.3 (Triton), on contiguous (B, C, T)."""
    scan = import_module("accelerated_scan.scalar").scan

    def turned(x: Tensor) -> Tensor:
        return x.transpose(1, 2).contiguous()
    own = leaves({n: turned(x) for n, x in inputs.items()})
    return Ready(lambda: scan(own["a"], own["b"]), own, turned, turned)


def _hgrn(name: str, inputs: Tensors) -> Ready:
    """fla's hgrn, which takes log a; gives (h, final state)."""
    run = getattr(import_module("fla.ops.hgrn"), name)
    a = inputs["a"]
    own = leaves({"a": a.log(), "b": inputs["b"]})

    def of_a(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**gradients, "a": gradients["a"] / a}
    return Ready(lambda: run(own["b"], own["a"])[0], own, gradients=of_a)
