"""One torch op a Program: forward, its adjoint, the adjoint's adjoint … each is just a Program.

An op is named by the content of its Program and by the code that derives its gradient, because torch's compilation
caches trust the name: an op of the same name with another backward gets the old one's gradient, silently.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import keyword
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from ..errors import LrdslError, NotBuilt
from ..ir.program import Program
from ..passes.precision import with_full
from ..passes.replay import unbordered
from ..programs import adjoint_of, inner_keeps, tangent_of
from ..stored import versions
from . import derive, functions
from .checks import constant
from .dtypes import NARROW, autocasts, settled
from .launch import Launcher, Tensors
from .newton import Solver
from .prepared import Signature, signature, unwatched

SCHEMA = 1  # of names, of the order of arguments and of the slots
LARGEST = 64  # arguments of an op: torch keeps a set of them in one word

_library = torch.library.Library("lrdsl", "FRAGMENT")
_ops: dict[str, Op] = {}
_lock = threading.RLock()


class Op:
    """The torch op of a Program: called with its inputs in order, then `reset`; gives a tuple of its outputs in order.

    Differentiable any number of times, backward and forward; works under torch.func, vmap, compile, export and autocast.
    Shapes as in `launch.Launcher`. Raises ShapeMismatch, DtypeMismatch, BackendUnavailable, and when it is made NotBuilt for
    a Program with too many inputs.
    """

    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name
        self.arguments = (*program.inputs, "reset")
        self.outputs = program.outputs
        self.size, self.keeps = len(self.outputs), tuple(k.name for k in program.keeps)
        self.launcher = Solver(program) if program.solver else Launcher(program)
        self.ragged: dict[tuple[bool, tuple[str, ...]], Op] = {}  # its relatives for packed segments: 16 bits, edges given
        self._begun: set[torch.dtype] = set()
        self._backwards: dict[frozenset[str], derive.Backward] = {}
        self.overload: Callable[..., Any] = self._register()

    @functools.cached_property
    def kept(self) -> Op:
        """The op that also writes what the backward pass reads."""
        if self.program.replay:  # a gradient from borders; what differentiates it again goes by `thorough`
            return self
        forward = adjoint_of(self.program, frozenset()).forward
        return self if forward == self.program else op_of(forward)

    def ready(self) -> Op:
        """This op, with `kept` and its gradient made: while torch.compile traces a call, nothing can be but by a `constant`."""
        self.kept.backward()
        return self

    @functools.cached_property
    def thorough(self) -> Op | None:
        """This op without borders, for derivatives of its gradient; None where this one's gradient has them itself."""
        program = unbordered(self.program)
        return None if program == self.program else op_of(program)

    @functools.cached_property
    def picks(self) -> tuple[int, ...]:
        """Where the outputs of this op stand among those of `kept`."""
        return tuple(self.kept.program.outputs.index(n) for n in self.outputs)

    @functools.cached_property
    def forward_mode(self) -> derive.Forward:
        """How tangents are pushed through this op."""
        tangent = tangent_of(self.program)
        return derive.Forward(self.program, tangent, op_of(tangent.program) if any(tangent.gives) else None)

    @functools.cached_property
    def wide(self) -> Op:
        """The same Program with every scalar given channel by channel: for vmap, which folds an axis into the channels."""
        vectors = tuple(replace(v, shape="channel") for v in self.program.vectors)
        sums = tuple(replace(s, over="time") for s in self.program.sums)
        return op_of(replace(self.program, vectors=vectors, sums=sums))

    @functools.cached_property
    def precise(self) -> Op:
        """The same Program whose learned numbers are in the precision of the arithmetic, where its sequences have 16 bits."""
        names = {v.name for v in self.program.vectors}
        return op_of(with_full(self.program, names)) if names - self.program.full_names else self

    def backward(self, absent: frozenset[str] = frozenset()) -> derive.Backward:
        """How gradients are pulled back when those of the Keeps in `absent` are zero."""
        if absent not in self._backwards:
            adjoint = adjoint_of(self.program, absent)
            # Without a sequence to read, a Program would not know how long it is: then read the zeros.
            self._backwards[absent] = derive.Backward(
                self.program, adjoint, op_of(adjoint.program), self.backward().needs if absent else None) \
                if adjoint.program.buffers or not absent else self.backward()
        return self._backwards[absent]

    def __call__(self, *args: Tensor | None, windows: bool = True) -> Tensors:
        """Compute, by the one of five ways that the moment asks for. windows: False where nobody reads the outputs that are
        windows, the last ones, which then need not be there."""
        if not torch.compiler.is_compiling() and unwatched():
            known = self.known(signature(args), args, windows)
            if known is not None:
                return known
        first = args[0]
        if first is not None and (first.dtype in NARROW or autocasts(first)):
            args, precise = settled(self.launcher.ins, args)
            if precise:
                _make_precise(self.name)
                return self.precise(*args)
        differentiable = torch.is_grad_enabled() and _learns(args)
        if torch.compiler.is_compiling() or torch._C._is_tracing():
            return self._own(self.kept.raw(*args)) if differentiable else self.raw(*args)
        if self.transforms(args):
            return self._own(functions.Transformed.apply(self.kept, *args))  # type: ignore[no-untyped-call]
        if differentiable:
            return self._own(functions.Eager.apply(self.kept, *args))  # type: ignore[no-untyped-call]
        with torch._C._AutoDispatchBelowAutograd():
            return self.raw(*args)

    def known(self, found: Signature, args: Sequence[Tensor | None], windows: bool = True) -> Tensors | None:
        """The outputs of a prepared call in a moment that is `unwatched`; None for other calls. found: its signature; windows:
        as in a call."""
        if args[0] is None or args[0].dtype in NARROW:
            return None
        differentiable = torch.is_grad_enabled() and _learns(args)
        if differentiable and args[0].dtype not in self._begun:
            self._begin(args[0].dtype, args[0].device.type, self.launcher.sizes(args))
        prepared = (self.kept if differentiable else self).launcher.prepared(found, args, windows or differentiable)
        outputs = prepared(args) if prepared else None
        if outputs is None or not differentiable:
            return outputs
        return self._own(functions.Computed.without_torch_func(self.kept, prepared, outputs, *args))

    def _begin(self, dtype: torch.dtype, device: str, sizes: tuple[int, int, int]) -> None:
        """Let a compiler begin with the kernel of the gradient, while another makes that of the values."""
        self._begun.add(dtype)
        with contextlib.suppress(LrdslError):  # which whoever asks for the gradient is told
            gradient = self.kept.backward(inner_keeps(self.kept.program))
            op_of(gradient.adjoint.program).launcher.begin(dtype, device, sizes)

    @staticmethod
    def transforms(args: Iterable[Tensor | None]) -> bool:
        """Whether torch.func or forward mode asks for more than the values of a call on these."""
        return torch._C._are_functorch_transforms_active() or _dual(args)

    def _own(self, outputs: Tensors) -> Tensors:
        return outputs if self.kept is self else tuple([outputs[i] for i in self.picks])

    def raw(self, *args: Tensor | None) -> Tensors:
        """The registered op itself."""
        out = self.overload(*args)
        return (out,) if self.size == 1 else tuple(out)

    def _register(self) -> Callable[..., Any]:
        program, path = self.program, f"lrdsl::{self.name}"
        if len(self.arguments) > LARGEST:
            raise NotBuilt(f"{program.name} reads {len(self.arguments)} tensors, and an op of torch takes {LARGEST}", None,
                           "give one dense map several samples, use fewer inputs, lags and learned numbers, or make two cells "
                           "of it; cell.source(target) writes its kernels all the same")
        names = _arguments(self.arguments)
        optional = {*program.inputs} - {b.name for b in program.buffers} - {v.name for v in program.vectors} | {"reset"}
        said = ", ".join(f"Tensor{'?' if a in optional else ''} {n}" for a, n in zip(self.arguments, names, strict=True))
        gives = ", ".join(["Tensor"] * self.size)
        tag = getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order)
        _library.define(f"{self.name}({said}) -> ({gives})", tags=(torch.Tag.pt2_compliant_tag, tag))
        single = self.size == 1
        run, fake = self.launcher.run, self.launcher.fake
        for key in ("CPU", "CUDA"):
            _library.impl(self.name, (lambda *a: run(*a)[0]) if single else run, key)
        # torch notes where an op was registered, and looks for the module of that file among all that the process has loaded.
        inspect.modulesbyfile.setdefault(__file__, __name__)
        torch.library.register_fake(path, (lambda *a: fake(*a)[0]) if single else fake, lib=_library)
        torch.library.register_autograd(path, functions.pull_registered, setup_context=functools.partial(
            functions.save_registered, self), lib=_library)
        torch.library.register_vmap(path, functools.partial(
            functions.fold_registered, self), lib=_library)
        return getattr(torch.ops.lrdsl, self.name).default

    def __reduce__(self) -> Any:
        return op_of, (self.program,)

    def __deepcopy__(self, memo: Any) -> Op:
        return self

    def __repr__(self) -> str:
        return f"<torch.ops.lrdsl.{self.name}>"


@functools.cache
def op_of(program: Program) -> Op:
    """The op of a Program, registered when first asked for."""
    name = name_of(program)
    with _lock:
        if name not in _ops:
            _ops[name] = Op(program, name)
        return _ops[name]


def named(name: str) -> Op:
    """The op that was registered under that name."""
    return _ops[name]


@constant
def _make_precise(name: str) -> bool:
    """Make the precise form of the op of that name, unless it is there."""
    named(name).precise.ready()
    return True


def name_of(program: Program) -> str:
    """`gilr_1f3c…`: the Program's name and a hash of all that decides what the op and its gradient compute: the Program, the
    code."""
    parts = [*versions(), str(SCHEMA), program.digest]
    parts += [str(program.solver)] if program.solver else []
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]
    return f"{_identifier(program.name)}_{digest}"


def _identifier(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def _arguments(names: Iterable[str]) -> list[str]:
    """The names as identifiers of a schema, each different."""
    found: list[str] = []
    for name in names:
        plain = _identifier(name)
        plain = f"_{plain}" if plain[0].isdigit() or keyword.iskeyword(plain) or plain in ("self", "out") else plain
        unique, k = plain, 2
        while unique in found:
            unique, k = f"{plain}_{k}", k + 1
        found.append(unique)
    return found


def _learns(args: Iterable[Tensor | None]) -> bool:
    """Whether one of them has a gradient. A loop, because a generator costs each call twice the time."""
    for a in args:  # noqa: SIM110
        if a is not None and a.requires_grad:
            return True
    return False


def _dual(args: Iterable[Tensor | None]) -> bool:
    if forward_ad._current_level < 0:
        return False
    try:
        return any(a is not None and forward_ad.unpack_dual(a).tangent is not None for a in args)
    except RuntimeError:  # torch.autograd's own old vmap has no rule for unpack_dual
        return True
