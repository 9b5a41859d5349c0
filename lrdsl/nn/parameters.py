"""The parameters of one layer and direction, under the names that the cell gives them: `forget.weight`, `h.gate.bias`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import BadDeclaration, DtypeMismatch, ShapeMismatch
from ..ir.spec import Equation, MapCall, Spec
from .carry import NONE, Window
from .dtypes import COMPLEX
from .pipeline import Pipeline
from .planar import dtype_of
from .products import INTEGERS
from .windows import time_first

_TAKEN = frozenset(dir(nn.Module()))


class Names(nn.Module):
    """A place in the tree of names: it holds parameters, and further places.

    Complex parameters follow `.double()`, `.float()` and `.to(torch.float64)` as real ones do, where torch would leave them or
    drop their imaginary parts.
    """

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        def change(tensor: Tensor) -> Tensor:
            part = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            changed: Tensor = fn(part)
            if changed.is_complex():
                raise DtypeMismatch(f"a layer has a real dtype, and {changed.dtype} is none", None,
                                    "write layer.double() or layer.float(): complex parameters stay complex")
            if tensor.is_complex() and changed.dtype not in COMPLEX:
                raise DtypeMismatch(f"torch has no complex numbers of {changed.dtype} that lrdsl computes with", None,
                                    "write layer.float() or layer.double()")
            return torch.view_as_complex(changed) if tensor.is_complex() else changed
        return super()._apply(change, recurse)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Entry:
    """One parameter. owner: the declared name that it belongs to; init: None for uniform in ±1/sqrt(hidden), or for both parts
    of a complex number in ±1/sqrt(2 hidden)."""

    path: tuple[str, ...]
    kind: Literal["weight", "number", "initial"]
    owner: str
    shape: tuple[int, ...]
    init: Any
    complex: bool


class Layer:
    """What one layer in one direction has learned; the tensors are in a tree of `Names`. sizes: features of each input.

    weight (size, sum of the operands' sizes in the order of the call), bias (size,), where `size` is the map's, Vectors
    (hidden,), Scalars (), and for each learned initial state `h` a parameter `h_init` (hidden,). With a state axis of N: weight
    (N, …), bias (N,), Vectors and initial states (hidden, N), Scalars (N,).
    features: those of each output.
    Raises ShapeMismatch for an input that is read channel by channel and has not the hidden size, BadDeclaration for a name
    that torch.nn.Module has taken.
    """

    def __init__(self, pipeline: Pipeline, sizes: Mapping[str, int], hidden: int) -> None:
        self.pipeline, self.sizes, self.hidden = pipeline, dict(sizes), hidden
        check_sizes(pipeline, sizes, hidden)
        named = {"input": self.sizes[pipeline.plan.inputs[0]], "hidden": hidden}
        self.heights = {a.name: pipeline.spec[a.name].option("axis") or (named[a.size] if isinstance(a.size, str) else a.size)
                        for a in pipeline.plan.affines}
        given = self.sizes | {s.target: self.heights[s.affine] for s in pipeline.spec.statements
                              if isinstance(s, MapCall) and pipeline.spec[s.affine].option("size")}
        self.widths = {a.name: [given.get(o, hidden) for o in a.operands] for a in pipeline.plan.affines}
        self.features = tuple(given.get(base, hidden) for _, base in pipeline.plan.outputs)
        self.reads_more = bool(pipeline.spec.of("mask") + pipeline.spec.of("first"))
        self.inputs = pipeline.spec.names("input")
        self.entries = tuple(self._entries())
        self._some = next((e.path for e in sorted(self.entries, key=lambda e: e.kind != "weight")), ())
        self._check_names()

    def _entries(self) -> Iterator[Entry]:
        H, learned = self.hidden, [s.name for s in self.pipeline.plan.carried if s.learned]
        for d in self.pipeline.spec.declared:
            path, init = tuple(d.name.split(".")), d.option("init")
            axis: tuple[int, ...] = (d.option("axis"),) if d.option("axis") else ()
            if d.kind == "affine":
                rows = self.heights[d.name]
                yield Entry((*path, "weight"), "weight", d.name, (rows, sum(self.widths[d.name])), init, d.complex)
                bias = d.option("bias", True)
                if bias is not False:
                    yield Entry((*path, "bias"), "number", f"{d.name}.bias", (rows,), None if bias is True else bias, d.complex)
            elif d.kind in ("vector", "scalar"):
                yield Entry(path, "number", d.name, (H, *axis) if d.kind == "vector" else axis, init, d.complex)
            elif d.name in learned:
                yield Entry((*path[:-1], f"{path[-1]}_init"), "initial", d.name, (H, *axis), init or 0.0, d.complex)

    def _check_names(self) -> None:
        spec, seen = self.pipeline.spec, set[tuple[str, ...]]()
        for e in self.entries:
            for k in range(1, len(e.path) + 1):
                if e.path[:k] in seen or e.path[k - 1] in _TAKEN:
                    raise BadDeclaration(f"{spec.name}: a parameter cannot be called {e.path[k - 1]}: torch.nn.Module, or "
                                         "another parameter, has that name", spec.where, "give it another name")
            seen.add(e.path)

    def make(self, device: Any = None, dtype: torch.dtype | None = None) -> Names:
        """The tree with all parameters, drawn. dtype: the real one; complex parameters have its precision."""
        tree, dtype = Names(), dtype or torch.get_default_dtype()
        if dtype.is_complex:
            raise DtypeMismatch(f"a layer has a real dtype, and {dtype} is none", None,
                                "what is complex is said in the cell: lr.Affine(complex=True)")
        for e in self.entries:
            place = tree
            for name in e.path[:-1]:
                if name not in place._modules:
                    place.register_module(name, Names())
                place = place._modules[name]  # type: ignore[assignment]
            place.register_parameter(e.path[-1], nn.Parameter(torch.empty(
                e.shape, device=device, dtype=dtype_of(dtype, e.complex))))
        self.draw(tree)
        return tree

    @torch.no_grad()
    def draw(self, tree: nn.Module) -> None:
        """Uniform in ±1/sqrt(hidden), complex ones of the same variance, unless the cell's `init` or `bias` says otherwise."""
        for e in self.entries:
            tensor = get(tree, e.path)
            if e.init is None:
                most = 1 / math.sqrt((1 + e.complex) * self.hidden)
                nn.init.uniform_(torch.view_as_real(tensor) if e.complex else tensor, -most, most)
            elif callable(e.init):
                e.init(tensor)
            else:
                tensor.fill_(e.init)

    def some(self, tree: nn.Module) -> Tensor | None:
        """A parameter, for its dtype and device: a weight if there is one, because numbers may be more precise."""
        return get(tree, self._some) if self._some else None

    def numbers(self, tree: nn.Module) -> dict[str, Tensor]:
        """Biases, Vectors and Scalars by name."""
        return {e.owner: get(tree, e.path) for e in self.entries if e.kind == "number"}

    def weights(self, tree: nn.Module) -> dict[tuple[str, int], Tensor]:
        """(affine, operand) -> its columns of the weight."""
        found: dict[tuple[str, int], Tensor] = {}
        for e in self.entries:
            if e.kind == "weight":
                weight, widths = get(tree, e.path), self.widths[e.owner]
                parts = (weight,) if len(widths) == 1 else weight.split_with_sizes(widths, 1)
                for k, part in enumerate(parts):
                    found[e.owner, k] = part
        return found

    def windows(self, tree: nn.Module, B: int, given: Mapping[str, Window]) -> dict[str, Window]:
        """(start, edge) of every sequence, (B, k, size): what was given, else the learned initial states."""
        found = dict(given)
        for e in self.entries:
            if e.kind == "initial":
                depth = self.pipeline.sequences[e.owner].depth
                value = get(tree, e.path).expand(B, depth, *e.shape)
                start, edge = given.get(e.owner, NONE)
                found[e.owner] = value if start is None else start, value if edge is None else edge
        return found

    def beside(self, tree: nn.Module, x: Tensor, training: bool) -> dict[str, Tensor]:
        """What a call with x (B, T, size) reads beside its inputs."""
        if not self.reads_more:
            return {}
        like = self.some(tree) if x.dtype in INTEGERS else x
        assert like is not None
        return beside(self.pipeline.spec, like, x, self.hidden, training)


def get(tree: nn.Module, path: tuple[str, ...]) -> Tensor:
    """The parameter there now: functional_call and parametrizations may have replaced it."""
    place: Any = tree
    for name in path[:-1]:
        place = place._modules[name]
    found = place._parameters.get(path[-1])
    return getattr(place, path[-1]) if found is None else found


def beside(spec: Spec, like: Tensor, x: Tensor, channels: int, training: bool) -> dict[str, Tensor]:
    """What a cell reads beside the inputs of a call, (B, T, channels) for x (B, T, …), in the dtype of `like`: masks, drawn
    from torch's generator or all 1, and the zeros of `lr.first`.

    torch.bernoulli draws as torch's own dropout does: seeds, checkpointing and torch.compile mean the same here.
    """
    (B, T), swap, like = x.shape[:2], time_first(x), like.real if like.is_complex() else like
    found = {d.name: like.new_zeros(channels).expand(B, T, channels) for d in spec.of("first")}
    for d in spec.of("mask"):
        if training:
            chance = like.new_full((1, 1, 1), 1 - d.option("p"))
            drawn = torch.bernoulli(chance.expand(*((T, B) if swap else (B, T)), channels))
            found[d.name] = drawn.transpose(0, 1) if swap else drawn
        else:
            found[d.name] = like.new_ones(channels).expand(B, T, channels)
    return found


def check_sizes(pipeline: Pipeline, sizes: Mapping[str, int], hidden: int) -> None:
    """Raise ShapeMismatch for an input that must have the hidden size, or 1, or that of the state axis, and has not."""
    for d in pipeline.spec.of("input"):
        if d.option("axis", sizes[d.name]) != sizes[d.name]:
            raise ShapeMismatch(f"{pipeline.spec.name} says that {d.name} has {d.option('axis')} numbers a step, not "
                                f"{sizes[d.name]}", d.where, f"give it {d.option('axis')} features, or map it: "
                                                             f"{d.name}: lr.Input, and an lr.Affine(axis={d.option('axis')})")
    for name in pipeline.channelwise:
        if name in sizes and sizes[name] not in (1, hidden):
            spec = pipeline.spec
            raise ShapeMismatch(
                f"{spec.name} reads {name} channel by channel, so that {name} has the hidden size {hidden}, not {sizes[name]}",
                _reader(spec, name), f"make the sizes equal, or read {name} through a dense map: declare project: lr.Affine "
                                     f"and write project({name}[t])")


def _reader(spec: Spec, name: str) -> Any:
    equations = sorted(spec.statements, key=lambda s: not isinstance(s, Equation))
    return next((s.where for s in equations if any(r.base == name for r in s.reads())), spec.where)
