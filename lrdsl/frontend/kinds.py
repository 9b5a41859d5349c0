"""The kinds of a signature: `Input State Affine Vector Scalar Mask`, what may be said of each, and how each behaves in a body.

A kind stands in a signature as an annotation, its options as the default value: `h: lr.State = lr.State(init=1.0)`. In the
body the same class is bound to a name and to the `Recording` that collects the equations.
"""

from __future__ import annotations

import builtins
import cmath
import inspect
import numbers
from collections.abc import Callable
from typing import Any, ClassVar

import sympy as sp

from ..errors import BadDeclaration, BadLag, DuplicateUpdate, NotBuilt, ShapeMismatch, UnsupportedFunction
from ..ir import functions as f
from ..ir.shapes import LARGEST_AXIS
from ..ir.symbols import At, Param
from ..location import Location, caller
from .first import First, first
from .recording import Recording
from .time import Time, lag_of, t


class Kind:
    """What all kinds share: options outside a body, a name and a recording inside."""

    kind: ClassVar[str]
    use: ClassVar[str] = "{name}[t]"

    def __new__(cls, *given: Any, **options: Any) -> Any:
        """Check the options' names; `__init__` checks their values."""
        signature = inspect.signature(cls.__init__)
        try:
            signature.bind(None, *given, **options)
        except TypeError as error:
            raise BadDeclaration(f"lr.{cls.__name__}: {error}", caller(),
                                 f"its options are {', '.join([*signature.parameters][1:])}") from None
        return super().__new__(cls)

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._where = caller(3)
        self._name = ""
        self._recording: Recording | None = None

    def _bind(self, name: str, recording: Recording) -> Any:
        bound = object.__new__(type(self))
        bound._options, bound._where, bound._name, bound._recording = self._options, self._where, name, recording
        return bound

    @property
    def _complex(self) -> bool:
        return bool(self._options.get("complex"))

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


def _check_init(what: str, init: Any, where: Location, complex: bool) -> None:
    if not (init is None or callable(init) or _is_number(init, complex)):
        raise BadDeclaration(f"{what} is a number or a callable that fills a tensor, not {init!r}", where,
                             f"write {what}=0.5, or a function such as torch.nn.init.zeros_{_also(init)}")


def _is_number(value: Any, complex: bool = False) -> bool:
    return isinstance(value, numbers.Complex if complex else numbers.Real) and not isinstance(value, bool)


def _also(value: Any) -> str:
    """A second way out, for a complex number where a real one is wanted."""
    return ", or add complex=True" if isinstance(value, builtins.complex) else ""


def _said(complex: bool) -> dict[str, bool]:
    """The option, where it is on."""
    return {"complex": True} if complex else {}


class Sequence(Kind):
    """A kind that has a value at every step."""

    def __getitem__(self, index: Any) -> Any:
        """The sample at t, t-k or t+k."""
        self._body()
        return At(self._name, lag_of(self._name, index), self._complex)


class Input(Sequence):
    """A sequence given at call time: shape (batch, time, channels).

    size: "channel" (the hidden size; a tensor with one channel is broadcast), or the size of an input which only maps read.
    Integers, (batch, time), stand for one-hot vectors where only maps read it: they look up rows of their weights.
    axis: N numbers a step along the state axis, shared by the channels: shape (batch, time, N).
    complex: its values are complex numbers; a real tensor is taken for one without imaginary part.
    """

    kind = "input"

    def __init__(self, size: int | str = "channel", *, axis: int | None = None, complex: bool = False) -> None:
        super().__init__(size=size, **_said(complex))
        self._options |= _axis("axis", axis, self._where)
        if axis is not None and size != "channel":
            raise BadDeclaration(f"an Input has size={size!r} features or axis={axis} numbers a step, not both", self._where,
                                 "leave one of them out")
        if size != "channel" and not (isinstance(size, int) and size > 0):
            raise BadDeclaration(f'an Input\'s size is "channel" or a positive integer, not {size!r}', self._where,
                                 "leave size out, or give the number of features of a sequence that only maps read")


class State(Sequence):
    """A sequence of hidden channels, set by one equation `h[t] = …`.

    init: the initial value, a number; infinite ones are for recurrences over another algebra, h[t] = maximum(h[t-1], x[t]),
    whose sums they do not change. learned: a learned initial value, one a channel, that starts at `init`. size: N states a
    channel, the state axis: edges and h_n have shape (batch, hidden, N). complex: its values are complex numbers.
    """

    kind = "state"

    def __init__(self, init: builtins.complex = 0.0, *, learned: bool = False, size: int | None = None,
                 complex: bool = False) -> None:
        super().__init__(init=init, learned=bool(learned), **_said(complex))
        self._options |= _axis("size", size, self._where)
        if isinstance(init, sp.Number):  # sympy's -oo as well
            init = float(init)
        if not _is_number(init, complex) or cmath.isnan(init):
            raise BadDeclaration(f"init={init!r}: the initial value of a state is a number", self._where,
                                 f"write init=1.0; other values are given to each call{_also(init)}")
        if cmath.isinf(init) and learned:
            raise BadDeclaration(f"init={init!r}: no step of learning leads away from infinity", self._where,
                                 "give a learned state a finite init")
        if cmath.isinf(init) and complex:
            raise BadDeclaration(f"init={init!r}: complex states have finite values", self._where, "give a finite init")
        self._options["init"] = builtins.complex(init) if complex else float(init)  # type: ignore[arg-type]

    def __setitem__(self, index: Any, value: Any) -> None:
        """The equation of the state."""
        where, body = caller(), self._body()
        if lag := lag_of(self._name, index):
            raise BadLag(f"{self._name}[{index!r}] cannot be set: an equation says what a state is at t", None,
                         f"write {self._name}[t] = …, shifting the right-hand side by {-lag:+d}")
        if self._name in body.set_at:
            raise DuplicateUpdate(f"the state {self._name} is set twice, first at line {body.set_at[self._name].line}",
                                  None, "keep one equation a state; call the other value by another name")
        body.update(self._name, value, where, self._complex)


class Affine(Kind):
    """A dense map of one or more operands, with bias: `gate(x[t], h[t-1])` is W [x; h] + bias.

    weight: (size, sum of the operands' sizes in the order of the call), uniform in ±1/sqrt(hidden) unless `init` says
    otherwise; bias: True, False, or the number it starts at; init: a number or a callable that fills a tensor in place.
    size: "hidden", a number a channel; or "input" (the features of the layer's first Input) or n: then the value is no
    channel's, and only dense maps and outputs read it.
    axis: N numbers a step along the state axis, shared by the channels: weight (N, operands), bias (N,).
    skip: where its one operand has the hidden size, the map is the identity and has no parameters.
    complex: weight and bias are complex, real and imaginary parts uniform in ±1/sqrt(2 hidden), which gives them the variance
    of real ones. A real map of a complex operand acts on both parts.
    """

    kind = "affine"
    use = "{name}(x[t])"

    def __init__(self, size: int | str = "hidden", *, bias: bool | builtins.complex = True,
                 init: builtins.complex | Callable[[Any], Any] | None = None, axis: int | None = None, complex: bool = False,
                 skip: bool = False) -> None:
        super().__init__(bias=bias, init=init, **_said(complex))
        self._options |= _axis("axis", axis, self._where)
        self._options |= {name: said for name, said, plain in (("size", size, "hidden"), ("skip", bool(skip), False))
                          if said != plain}
        if size not in ("hidden", "input") and not (isinstance(size, int) and not isinstance(size, bool) and size > 0):
            raise BadDeclaration(f'size={size!r}: a map gives "hidden", "input" or a positive number of features', self._where,
                                 "leave size out for a number a channel")
        if axis is not None and size != "hidden":
            raise BadDeclaration(f"an Affine gives size={size!r} features or axis={axis} numbers a step, not both", self._where,
                                 "leave one of them out")
        if skip and (size != "hidden" or axis is not None):
            said = f"axis={axis}" if axis is not None else f"size={size!r}"
            raise NotBuilt(f"a map that skips gives the hidden size, not {said}", self._where,
                           f"leave {said.partition('=')[0]} out, or skip")
        _check_init("init", init, self._where, complex)
        if not (isinstance(bias, bool) or _is_number(bias, complex)):
            raise BadDeclaration(f"bias={bias!r}: it is True, False, or the number it starts at", self._where,
                                 f"write bias=1.0{_also(bias)}")

    def __call__(self, *operands: Any) -> Any:
        """The map's value at t."""
        if self._options.get("skip") and len(operands) > 1:
            raise ShapeMismatch(f"{self._name} skips, so that it maps one operand, not {len(operands)}", None,
                                "leave skip out, or give it one operand")
        return self._body().map_call(self._name, operands, caller(), self._complex)

    def __getitem__(self, index: Any) -> Any:
        raise UnsupportedFunction(f"{self._name} is a map, not a sequence", None, f"write {self._name}(x[t])")


class Vector(Kind):
    """Learned numbers, one a channel: shape (hidden,). init: a number or a callable that fills a tensor in place.

    size: N numbers a channel along the state axis: shape (hidden, N).
    complex: they are complex numbers, drawn as the weights of a complex Affine.
    """

    kind = "vector"

    def __init__(self, init: builtins.complex | Callable[[Any], Any] | None = None, *, size: int | None = None,
                 complex: bool = False) -> None:
        super().__init__(init=init, **_said(complex))
        self._options |= _axis("size", size, self._where)
        _check_init("init", init, self._where, complex)

    def _bind(self, name: str, recording: Recording) -> Any:
        return Param(name, self._complex)


class Scalar(Vector):
    """One learned number: shape (); with size=N numbers along the state axis, shared by the channels: shape (N,).

    init: a number or a callable that fills a tensor in place; complex: as of a Vector.
    """

    kind = "scalar"


class Mask(Sequence):
    """A sequence of zeros and ones, (batch, time, hidden), that torch's generator draws for each call, layer and direction.

    p: the probability of 0, as torch.nn.Dropout has it; nothing is rescaled, and in eval mode all are 1: `m[t]` in front of
    an update is zoneout (Krueger et al. 2017, section 3.1; in eval mode without its expectation).
    """

    kind = "mask"

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p=p)
        if not _is_number(p) or not 0 <= p <= 1:
            raise BadDeclaration(f"p={p!r}: it is the probability of a 0, between 0 and 1", self._where, "write p=0.1")
        self._options["p"] = float(p)

    def __getitem__(self, index: Any) -> Any:
        """The sample at t, as a comparison: it has no gradient, and is known to be 0 or 1."""
        self._body()
        if lag := lag_of(self._name, index):
            raise BadLag(f"{self._name}[{index!r}]: a mask is drawn for each step and has no edge, so that it is read at t",
                         None, f"write {self._name}[t], or keep it in a state and read that at {Time(lag)!r}")
        return f.greater(At(self._name), sp.S.Zero)


__all__ = ["Affine", "First", "Input", "Kind", "Mask", "Scalar", "Sequence", "State", "Time", "Vector", "first", "t"]
