"""The torch.autograd.Functions around an op, and what is registered with it: saving, pulling back, vmap.

Three Functions, because the one that torch.func and forward mode need costs twice the time of another a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .batching import fold

if TYPE_CHECKING:
    from .ops import Op
    from .prepared import Prepared

Maybe = Tensor | None
NOTHING: frozenset[str] = frozenset()


class Eager(torch.autograd.Function):
    """An op and its gradient, for everyday calls."""

    @staticmethod
    def forward(ctx: Any, op: Op, *args: Maybe) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            outputs = op.raw(*args)
        save(ctx, op, args, outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Maybe) -> Any:
        return None, *pull(ctx, gradients, ctx.needs_input_grad[1:])


class Computed(torch.autograd.Function):
    """The outputs of a prepared call and their gradient."""

    without_torch_func: Callable[..., tuple[Tensor, ...]]  # `apply` without a search for tensors of torch.func, which none is

    @staticmethod
    def forward(ctx: Any, op: Op, prepared: Prepared, outputs: tuple[Tensor, ...], *args: Maybe) -> tuple[Tensor, ...]:
        _save(ctx, op, args, outputs, prepared.sizes, prepared.dtypes)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Maybe) -> Any:
        return None, None, None, *pull(ctx, gradients, ctx.needs_input_grad[3:])


Computed.without_torch_func = super(torch.autograd.Function, Computed).apply


class Transformed(torch.autograd.Function):
    """An op, its gradient, its tangent and its vmap rule, for torch.func and forward mode."""

    @staticmethod
    def forward(op: Op, *args: Maybe) -> tuple[Tensor, ...]:
        return op.raw(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, ...]) -> None:
        op, *args = inputs
        save(ctx, op, args, output)
        ctx.save_for_forward(*args, *output)

    @staticmethod
    def backward(ctx: Any, *gradients: Maybe) -> Any:
        return None, *pull(ctx, gradients, ctx.needs_input_grad[1:])

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Maybe) -> tuple[Tensor, ...]:
        op: Op = ctx.call[0]
        n = len(op.arguments)
        args, outputs = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
        return op.forward_mode(args[:-1], tangents[:-1], args[-1], outputs)

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], op: Op, *args: Maybe) -> Any:
        return fold(op, info, in_dims[1:], *args)


def save(ctx: Any, op: Op, args: Sequence[Maybe], outputs: Sequence[Tensor]) -> None:
    """Keep what the backward pass may read, and nothing else; where only borders of states are kept, all inputs."""
    _save(ctx, op, args, outputs, op.launcher.sizes(args), op.launcher.gives(op.launcher.dtype(args)))


def _save(ctx: Any, op: Op, args: Sequence[Maybe], outputs: Sequence[Tensor], sizes: tuple[int, int, int],
          dtypes: Sequence[torch.dtype]) -> None:
    ctx.call = op, sizes, dtypes
    inputs = () if op.thorough is None else args[:-1]
    ctx.save_for_backward(*op.backward().needed(args, outputs), *inputs, args[-1])
    ctx.set_materialize_grads(False)


def pull(ctx: Any, gradients: Sequence[Maybe], wanted: Sequence[bool]) -> list[Maybe]:
    """The gradients of an op's arguments, `reset` included."""
    op, sizes, dtypes = ctx.call
    *values, reset = ctx.saved_tensors
    if op.thorough is not None:
        count = len(op.backward().needs)
        values, inputs = values[:count], values[count:]
        if torch.is_grad_enabled() or op.transforms((*inputs, *gradients)):
            return _again(op, op.thorough, (*inputs, reset), gradients, wanted, sizes)
    return _pull(op, values, gradients, reset, wanted, sizes, dtypes)


def _pull(op: Op, values: Sequence[Maybe], gradients: Sequence[Maybe], reset: Maybe, wanted: Sequence[bool],
          sizes: tuple[int, int, int], dtypes: Sequence[torch.dtype]) -> list[Maybe]:
    absent = [name for name, g in zip(op.keeps, gradients, strict=False) if g is None]
    if len(absent) == len(op.keeps) and all(g is None for g in gradients):
        return [None] * len(op.arguments)
    return [*op.backward(frozenset(absent) if absent else NOTHING)(values, gradients, reset, wanted[:-1], sizes, dtypes), None]


def save_registered(op: Op, ctx: Any, inputs: Sequence[Maybe], output: Any) -> None:
    """`save` for the registered op, which in a graph may be one that does not write all that backward reads."""
    if op.kept is op:
        return save(ctx, op, inputs, (output,) if isinstance(output, Tensor) else output)
    ctx.call = op, (), ()
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)


def pull_registered(ctx: Any, *gradients: Maybe) -> tuple[Maybe, ...]:
    """`pull` for the registered op; what was not written is computed again."""
    op: Op = ctx.call[0]
    if op.kept is op:
        return tuple(pull(ctx, gradients, ctx.needs_input_grad))
    args = ctx.saved_tensors
    return tuple(_again(op, op, args, gradients, ctx.needs_input_grad, op.launcher.sizes(args)))


def _again(op: Op, same: Op, args: Sequence[Maybe], gradients: Sequence[Maybe], wanted: Sequence[bool],
           sizes: tuple[int, int, int]) -> list[Maybe]:
    """The gradients of an op's arguments from `same`, an op of the same values: what was not kept is computed again,
    differentiably."""
    kept = same.kept
    outputs = kept(*args)
    values = kept.backward().needed(args, outputs)
    by_name, dtypes = dict(zip(op.outputs, gradients, strict=True)), kept.launcher.gives(kept.launcher.dtype(args))
    return _pull(kept, values, [by_name.get(n) for n in kept.outputs], args[-1], wanted, sizes, dtypes)


def fold_registered(op: Op, info: Any, in_dims: Sequence[Any], *args: Maybe) -> Any:
    """`fold` for the registered op."""
    outputs, dims = fold(op, info, in_dims, *args)
    return (outputs[0], dims[0]) if op.size == 1 else (outputs, dims)
