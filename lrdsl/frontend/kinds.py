"""The kinds of a signature: `Input State Affine Vector Scalar`, what may be said of each, and how each behaves in a body.

A kind stands in a signature as an annotation, its options as the default value: `h: lr.State = lr.State(init=1.0)`. In the
body the same class is bound to a name and to the `Recording` that collects the equations.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any, ClassVar

from ..errors import BadDeclaration, BadLag, DuplicateUpdate, NotBuilt, UnsupportedFunction
from ..ir.shapes import LARGEST_AXIS
from ..ir.symbols import At, Param
from ..location import Location, caller
from .recording import Recording
from .time import Time, lag_of, t


class Kind:
    """What all kinds share: options outside a body, a name and a recording inside."""

    kind: ClassVar[str]
    use: ClassVar[str] = "{name}[t]"

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._where = caller(3)
        self._name = ""
        self._recording: Recording | None = None

    def _bind(self, name: str, recording: Recording) -> Any:
        bound = object.__new__(type(self))
        bound._options, bound._where, bound._name, bound._recording = self._options, self._where, name, recording
        return bound

    def _body(self) -> Recording:
        if self._recording is None:
            raise BadDeclaration(f"lr.{type(self).__name__} has a value only inside a cell's body", None,
                                 f"name it in the signature: def cell(x: lr.Input, name: lr.{type(self).__name__})")
        return self._recording

    def __repr__(self) -> str:
        return f"{self.kind} {self._name}" if self._name else f"lr.{type(self).__name__}()"

    def __bool__(self) -> bool:
        return True

    def _misused(self, *_: Any) -> Any:
        """What every use of the bare name as a number comes to."""
        self._body()
        what = "a map" if self.kind == "affine" else "a sequence"
        raise UnsupportedFunction(f"{self._name} is {what}, not a number", None, "write " + self.use.format(name=self._name))

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = __rpow__ = _misused
    __neg__ = __pos__ = __abs__ = __mod__ = __floordiv__ = __matmul__ = __lt__ = __gt__ = __le__ = __ge__ = _misused
    __float__ = __int__ = __len__ = __iter__ = _sympy_ = _misused

    def __call__(self, *_: Any) -> Any:
        self._body()
        raise UnsupportedFunction(f"{self._name} is a sequence, not a map", None, f"write {self._name}[t]")

    def __setitem__(self, index: Any, value: Any) -> None:
        self._body()
        raise BadDeclaration(f"{self._name} is declared as {_a(self.kind)}; only states are set", None,
                             f"declare it as {self._name}: lr.State")


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aio" else f"a {noun}"


def _not_built(where: Location, **options: Any) -> None:
    for name, said in options.items():
        if said:
            raise NotBuilt(f"the option {name}={said!r} is part of the language but not built yet", where,
                           f"leave {name} out in this version")


def _axis(what: str, n: Any, where: Location) -> dict[str, int]:
    """The option that says how many numbers there are along the state axis; none where it was not given."""
    if n is None:
        return {}
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise BadDeclaration(f"{what}={n!r}: how many numbers a channel has is a positive integer", where, f"write {what}=16")
    if n > LARGEST_AXIS:
        raise NotBuilt(f"{what}={n}: a channel has at most {LARGEST_AXIS} numbers in this version", where,
                       f"write {what}={LARGEST_AXIS}, or less")
    return {"axis": n}


def _check_init(what: str, init: Any, where: Location) -> None:
    if not (init is None or callable(init) or _is_number(init)):
        raise BadDeclaration(f"{what} is a number or a callable that fills a tensor, not {init!r}", where,
                             f"write {what}=0.5, or a function such as torch.nn.init.zeros_")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


class Sequence(Kind):
    """A kind that has a value at every step."""

    def __getitem__(self, index: Any) -> Any:
        """The sample at t, t-k or t+k."""
        self._body()
        return At(self._name, lag_of(self._name, index))


class Input(Sequence):
    """A sequence given at call time: shape (batch, time, channels).

    size: "channel" (the hidden size; a tensor with one channel is broadcast), or the size of an input which only maps read.
    axis: N numbers a step along the state axis, shared by the channels: shape (batch, time, N).
    """

    kind = "input"

    def __init__(self, size: int | str = "channel", *, axis: int | None = None, complex: bool = False) -> None:
        super().__init__(size=size)
        _not_built(self._where, complex=complex)
        self._options |= _axis("axis", axis, self._where)
        if axis is not None and size != "channel":
            raise BadDeclaration(f"an Input has size={size!r} features or axis={axis} numbers a step, not both", self._where,
                                 "leave one of them out")
        if size != "channel" and not (isinstance(size, int) and size > 0):
            raise BadDeclaration(f'an Input\'s size is "channel" or a positive integer, not {size!r}', self._where,
                                 "leave size out, or give the number of features of a sequence that only maps read")


class State(Sequence):
    """A sequence of hidden channels, set by one equation `h[t] = …`.

    init: the initial value (a number); learned: a learned initial value, one a channel, that starts at `init`. size: N states
    a channel, the state axis: edges and h_n have shape (batch, hidden, N).
    """

    kind = "state"

    def __init__(self, init: float = 0.0, *, learned: bool = False, size: int | None = None,
                 complex: bool = False) -> None:
        super().__init__(init=init, learned=bool(learned))
        _not_built(self._where, complex=complex)
        self._options |= _axis("size", size, self._where)
        if not _is_number(init) or math.isnan(init):
            raise BadDeclaration(f"init={init!r}: the initial value of a state is a number", self._where,
                                 "write init=1.0; other values are given to each call")
        if math.isinf(init):
            raise NotBuilt("an infinite initial value belongs to recurrences over another algebra, not built yet",
                           self._where, "give a finite init")
        self._options["init"] = float(init)

    def __setitem__(self, index: Any, value: Any) -> None:
        """The equation of the state."""
        where, body = caller(), self._body()
        if lag := lag_of(self._name, index):
            raise BadLag(f"{self._name}[{index!r}] cannot be set: an equation says what a state is at t", None,
                         f"write {self._name}[t] = …, shifting the right-hand side by {-lag:+d}")
        if self._name in body.set_at:
            raise DuplicateUpdate(f"the state {self._name} is set twice, first at line {body.set_at[self._name].line}",
                                  None, "keep one equation a state; call the other value by another name")
        body.update(self._name, value, where)


class Affine(Kind):
    """A dense map of one or more operands, with bias: `gate(x[t], h[t-1])` is W [x; h] + bias.

    weight: (hidden, sum of the operands' sizes in the order of the call), uniform in ±1/sqrt(hidden) unless `init` says
    otherwise; bias: True, False, or the number it starts at; init: a number or a callable that fills a tensor in place.
    axis: N numbers a step along the state axis, shared by the channels: weight (N, operands), bias (N,).
    """

    kind = "affine"
    use = "{name}(x[t])"

    def __init__(self, size: int | str = "hidden", *, bias: bool | float = True,
                 init: float | Callable[[Any], Any] | None = None, axis: int | None = None, complex: bool = False,
                 skip: bool = False) -> None:
        super().__init__(bias=bias, init=init)
        _not_built(self._where, complex=complex, skip=skip, size=None if size == "hidden" else size)
        self._options |= _axis("axis", axis, self._where)
        _check_init("init", init, self._where)
        if not (isinstance(bias, bool) or _is_number(bias)):
            raise BadDeclaration(f"bias={bias!r}: it is True, False, or the number it starts at", self._where,
                                 "write bias=1.0")

    def __call__(self, *operands: Any) -> Any:
        """The map's value at t."""
        return self._body().map_call(self._name, operands, caller())

    def __getitem__(self, index: Any) -> Any:
        raise UnsupportedFunction(f"{self._name} is a map, not a sequence", None, f"write {self._name}(x[t])")


class Vector(Kind):
    """Learned numbers, one a channel: shape (hidden,). init: a number or a callable that fills a tensor in place.

    size: N numbers a channel along the state axis: shape (hidden, N).
    """

    kind = "vector"

    def __init__(self, init: float | Callable[[Any], Any] | None = None, *, size: int | None = None,
                 complex: bool = False) -> None:
        super().__init__(init=init)
        _not_built(self._where, complex=complex)
        self._options |= _axis("size", size, self._where)
        _check_init("init", init, self._where)

    def _bind(self, name: str, recording: Recording) -> Any:
        return Param(name)


class Scalar(Vector):
    """One learned number: shape (); with size=N numbers along the state axis, shared by the channels: shape (N,).

    init: a number or a callable that fills a tensor in place.
    """

    kind = "scalar"


class Mask(Kind):
    """A 0/1 sequence drawn from torch's generator; part of the language, not built yet."""

    kind = "mask"

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p=p)
        raise NotBuilt("lr.Mask is part of the language but not built yet", self._where,
                       "draw the mask yourself and give it as an Input")


class First:
    """`lr.first[t]`: 1 where an edge is read and none was given; part of the language, not built yet."""

    def __getitem__(self, index: Any) -> Any:
        raise NotBuilt("lr.first is part of the language but not built yet", None, "pass the flags as an Input")


first = First()

__all__ = ["Affine", "First", "Input", "Kind", "Mask", "Scalar", "Sequence", "State", "Time", "Vector", "first", "t"]
