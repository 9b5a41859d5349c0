"""Gradients of a Program twice: by central differences of the reference, and as its adjoint says. numpy, float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrdsl.backends.reference import partial_run, run
from lrdsl.ir.program import Program
from lrdsl.passes.adjoint import Adjoint, Piece

Array = Any
STEP = 1e-6


def plan_programs(spec: Any) -> tuple[Program, ...]:
    """The Programs of a cell as `partition` leaves them."""
    from lrdsl.passes.partition import partition
    from lrdsl.passes.stratify import stratify

    return partition(stratify(spec)).programs


def draw(
    program: Program, rng: np.random.Generator, B: int, T: int, C: int, *, edges: bool = True
) -> tuple[dict[str, Array], Array]:
    """A random tensor for each input, and boundaries. Without `edges` the constants stand there."""
    tensors = {b.name: rng.normal(size=(B, T, C * len(b.columns))) for b in program.buffers}
    tensors |= {v.name: rng.normal(size=(C,) if v.shape == "channel" else ()) for v in program.vectors}
    tensors |= {n: rng.normal(size=(B, e.depth, C)) for e in program.edges for n in (e.start, e.edge) if n and edges}
    return tensors, rng.random((B, T)) < 0.3


def differences(program: Program, tensors: dict[str, Array], cotangents: dict[str, Array], reset: Array) -> dict[str, Array]:
    """d loss / d input, loss = sum of outputs times cotangents. All numbers of a sequence are moved in one run, each in a
    copy of the batch of its own."""
    shared = {v.name for v in program.vectors}
    found = {}
    for name, value in tensors.items():
        slope = np.zeros_like(value)
        if name in shared:
            for at in np.ndindex(value.shape):
                up, down = (_moved(value, at, sign * STEP) for sign in (1, -1))
                losses = [_losses(program, {**tensors, name: v}, cotangents, reset).sum() for v in (up, down)]
                slope[at] = (losses[0] - losses[1]) / (2 * STEP)
        elif value.size:
            B, n = len(value), value[0].size
            moves = STEP * np.concatenate([np.eye(n), -np.eye(n)])
            copies = {k: v if k in shared else np.repeat(v, 2 * n, 0) for k, v in tensors.items()}
            copies[name] = copies[name] + np.tile(moves, (B, 1)).reshape(copies[name].shape)
            wide = {k: c if k in {s.name for s in program.sums} else np.repeat(c, 2 * n, 0) for k, c in cotangents.items()}
            losses = _losses(program, copies, wide, np.repeat(reset, 2 * n, 0)).reshape(B, 2, n)
            slope = ((losses[:, 0] - losses[:, 1]) / (2 * STEP)).reshape(value.shape)
        found[name] = slope
    return found


def _moved(value: Array, at: tuple[int, ...], by: float) -> Array:
    moved = np.array(value)
    moved[at] += by
    return moved


def _losses(program: Program, tensors: dict[str, Array], cotangents: dict[str, Array], reset: Array) -> Array:
    """One loss for each element of the batch."""
    out = partial_run(program, tensors, reset)
    return sum((out[n] * c).reshape(len(reset), -1).sum(1) for n, c in cotangents.items())


def backward(adjoint: Adjoint, tensors: dict[str, Array], outputs: dict[str, Array], cotangents: dict[str, Array],
             reset: Array) -> dict[str, Array]:
    """The gradients that the adjoint Program gives, put together as its `takes` and `gives` say."""
    where = {"input": tensors, "output": outputs, "gradient": cotangents}
    taken = {}
    for name, origin in zip(adjoint.program.inputs, adjoint.takes, strict=True):
        value = where[origin.what].get(origin.name)  # an edge that was not given
        if value is not None:
            value = value[:, ::-1] if origin.flip else value[:, origin.nearest - 1:][:, :1] if origin.nearest else value
        taken[name] = value
    given = run(adjoint.program, taken, reset)
    pieces = dict(adjoint.gives)
    found = {name: np.zeros_like(value) for name, value in tensors.items()}
    for name, gradient in found.items():
        for piece in pieces.get(name, ()):
            _add(gradient, piece, given, reset)
    return found


def _add(gradient: Array, piece: Piece, given: dict[str, Array], reset: Array) -> None:
    if piece.how == "whole":
        gradient += given[piece.name]
    elif piece.how == "window":
        window = given[piece.name][:, ::-1]
        gradient[:, : window.shape[1]] += window
    elif piece.how == "nearest":
        gradient[:, piece.lag - 1:piece.lag] += given[piece.name]
    else:
        _add_shifted(gradient, piece, given, reset)


def _add_shifted(gradient: Array, piece: Piece, given: dict[str, Array], reset: Array) -> None:
    """Values written at their reader's step t belong `lag` steps away: to the sequence, or past a boundary to an edge."""
    name, _, column = piece.name.partition("#")
    C = gradient.shape[2]
    sent = given[name][:, :, int(column) * C:(int(column) + 1) * C] if column else given[name]
    B, T = reset.shape
    for b in range(B):
        for t in range(T):
            met, depth = first_boundary(reset[b], t, piece.lag)
            if met is None and piece.how == "shifted":
                gradient[b, t + piece.lag] += sent[b, t]
            elif met is not None and piece.how == f"shifted {met}":
                gradient[b, depth] += sent[b, t]


def first_boundary(reset: Array, t: int, lag: int) -> tuple[str | None, int]:
    """What lies nearest on the way from t to t+lag: None, an "edge" or the "start"; and how deep beyond it the read goes."""
    for j in range(1, abs(lag) + 1):
        at = t - j + 1 if lag < 0 else t + j
        if at < len(reset) and reset[at]:
            return "edge", abs(lag) - j
        if at == (0 if lag < 0 else len(reset)):
            return "start", abs(lag) - j
    return None, 0


def worst(got: dict[str, Array], want: dict[str, Array]) -> tuple[float, str]:
    """The largest difference and where it is."""
    def error(name: str) -> float:
        return float(np.nan_to_num(np.abs(got[name] - want[name]), nan=np.inf).max(initial=0.0))

    return max(((error(n), n) for n in want), default=(0.0, ""))
