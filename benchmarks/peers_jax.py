"""jax beside torch on the CPU: `lax.scan` and `associative_scan` under `jit`, on torch's own memory.

jax takes its number of threads when it starts, from `prepare`. Forward with gradients is one jitted function.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .compare import Make, Ready, Tensors, leaves

Scan = Callable[[Any, Any], Any]


def prepare(threads: int) -> None:
    """To be called before jax is imported."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "NPROC": str(threads)}
    if threads == 1:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"


def stepwise(unroll: int) -> Make:
    """lax.scan over time."""
    def scan(a: Any, b: Any) -> Any:
        jax = import_module("jax")

        def step(h: Any, now: Any) -> tuple[Any, Any]:
            h = now[0] * h + now[1]
            return h, h
        rows = jax.lax.scan(step, jax.numpy.zeros_like(b[:, 0]), (a.swapaxes(0, 1), b.swapaxes(0, 1)), unroll=unroll)[1]
        return rows.swapaxes(0, 1)
    return _jitted(scan)


def associative() -> Make:
    """associative_scan over time."""
    def scan(a: Any, b: Any) -> Any:
        jax = import_module("jax")
        return jax.lax.associative_scan(lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1]), (a, b), axis=1)[1]
    return _jitted(scan)


def _jitted(scan: Scan) -> Make:
    def make(inputs: Tensors) -> Ready:
        jax = import_module("jax")
        turned = not inputs["a"].is_contiguous()  # (B, C, T) in memory, as which jax sees it

        def outer(x: Tensor) -> Tensor:
            return (x.mT if turned else x).detach()

        def inner(a: Any, b: Any) -> Any:
            return scan(a.mT, b.mT).mT if turned else scan(a, b)

        def both(a: Any, b: Any, gradient: Any) -> Any:
            h, back = jax.vjp(inner, a, b)
            return h, *back(gradient)
        own = leaves(inputs)
        a, b = (jax.numpy.from_dlpack(outer(x)) for x in (inputs["a"], inputs["b"]))
        forward, forward_and_back = jax.jit(inner), jax.jit(both)

        def returned(x: Any) -> Tensor:
            found = torch.from_dlpack(x)
            return found.mT if turned else found

        def call() -> Tensor:
            return returned(forward(a, b).block_until_ready())

        def back(gradients: Sequence[Tensor]) -> list[Tensor]:
            found = jax.block_until_ready(forward_and_back(a, b, jax.numpy.from_dlpack(outer(gradients[0]))))
            return [returned(x) for x in found[1:]]
        return Ready(call, own, both=back)
    return make
