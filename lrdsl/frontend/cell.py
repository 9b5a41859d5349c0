"""`@lr.cell`: from a Python function to a Spec, with all mistakes of writing at once."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from ..errors import BadDeclaration, CellError, raise_all
from ..ir.complex import is_complex
from ..ir.spec import Declared, Equation, Spec
from ..ir.symbols import At
from ..location import Location, caller
from .body import Body
from .first import FIRST, with_first
from .kinds import Affine, Input, Kind, Mask, Scalar, State, Vector
from .recording import Recording
from .review import review


class Cell:
    """A declared cell: its `spec`, and what can be asked of it. Made by `lr.cell` and `lr.surrogate`.

    `explain()`, `source(target)` and the like are bound to this class by `lrdsl.compiler`.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.__name__ = spec.name
        self.__doc__ = spec.doc

    @property
    def name(self) -> str:
        return self.spec.name

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise BadDeclaration(f"{self.name} is a cell, not a function", caller(),
                             f"run it with lr.RNN({self.name}, …) or lr.function({self.name})")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.spec == other.spec

    def __hash__(self) -> int:
        return hash(self.spec)

    def __repr__(self) -> str:
        return f"<lrdsl cell {self.name}>"


def cell(function: Callable[..., Any]) -> Cell:
    """Declare a recurrent cell: the body runs once, on symbols, and says the equations.

    Raises CellError (one of its kin, or CellErrors with all of them) for mistakes of writing. Whether the cell is linear is
    decided where it is to run.
    """
    original = _plain_function(function)
    kinds, errors = _signature(original, sys._getframe(1).f_locals)
    states = [name for name, kind in kinds.items() if isinstance(kind, State)]
    recording = Recording(kinds, states)
    body = Body(original, recording)
    raise_all([e if e.where else type(e)(e.what, body.place(name), e.hint) for name, e in errors])
    value = body.run({name: kind._bind(name, recording) for name, kind in kinds.items()})
    declared = tuple(Declared(kind.kind, name, body.place(name), tuple(sorted(kind._options.items())))
                     for name, kind in kinds.items())
    found = list(recording.errors)
    outputs: tuple[tuple[str, At], ...] = ()
    if not found:
        place = body.start if value is None or body.returned is None else body.returned
        try:
            outputs = _outputs(value, recording, place, {FIRST, *(n for n, k in kinds.items() if isinstance(k, Input))})
        except CellError as error:
            found.append(type(error)(error.what, place, error.hint))
    source = body.definition.source if body.definition else ""
    notes = () if source else ("there is no source to read, so the names of its lines were generated",)
    spec = Spec(original.__name__, inspect.getdoc(original) or "", body.start, declared, tuple(recording.statements), outputs,
                notes + _skips(declared), source, isinstance(value, dict))
    try:
        spec = with_first(spec, recording.fresh)
    except CellError as error:
        found.append(error)
    raise_all([*found, *review(spec, complete=not found)])
    return Cell(spec.check())


def _skips(declared: tuple[Declared, ...]) -> tuple[str, ...]:
    """What `explain()` says of maps that skip; it knows no sizes."""
    names = ", ".join(d.name for d in declared if d.option("skip"))
    return (f"{names} skips: the identity where its operand has the hidden size",) if names else ()


def _plain_function(function: Any) -> types.FunctionType:
    """The function below any decorators."""
    while hasattr(function, "__wrapped__") or isinstance(function, staticmethod):
        function = function.__wrapped__
    unusual = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    if not inspect.isfunction(function) or function.__code__.co_flags & unusual or not function.__name__.isidentifier():
        what = f"{type(function).__name__} {getattr(function, '__name__', '')}".strip()
        raise BadDeclaration(f"a cell is made from a plain function with a name, not from the {what}", caller(3),
                             "write @lr.cell above a def, without yield or async")
    return function


def _signature(function: types.FunctionType, scope: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, CellError]]]:
    """Name -> kind instance, from annotations and default values; and what is wrong, with the name."""
    kinds: dict[str, Any] = {}
    errors: list[tuple[str, CellError]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        said = parameter.annotation
        try:
            while isinstance(said, str):  # in quotes below `from __future__ import annotations`, twice
                said = _evaluated(said, function, scope)
            kinds[name] = _kind(parameter, said)
        except CellError as error:
            errors.append((name, error))
    return kinds, errors


def _evaluated(said: str, function: types.FunctionType, scope: Mapping[str, Any]) -> Any:
    """An annotation that was written as text, or made text by `from __future__ import annotations`."""
    def holder() -> None: ...
    holder.__annotations__ = {"it": said}
    try:
        return inspect.get_annotations(holder, globals=function.__globals__, locals=scope, eval_str=True)["it"]
    except NameError as error:
        near = get_close_matches(str(error.name), _KINDS, 1)
        raise BadDeclaration(f"the annotation {error.name} is not defined", None,
                             f"did you mean {near[0]}?" if near else "import it, or write lr.Input, lr.State, …") from None
    except Exception as error:
        why = error.msg if isinstance(error, SyntaxError) else error
        raise BadDeclaration(f"the annotation {said!r} cannot be read: {why}", None, "write lr.Input, lr.State, …") from None


def _kind(parameter: inspect.Parameter, said: Any) -> Kind:
    """The kind that an annotation and a default value declare."""
    name, default = parameter.name, parameter.default
    is_class = isinstance(said, type) and issubclass(said, Kind)
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise BadDeclaration(f"the signature gathers names in {name}", None, "list a cell's names one by one")
    if isinstance(default, Kind):
        if is_class and not isinstance(default, said):
            raise BadDeclaration(f"{name} is annotated lr.{said.__name__}, and its default value is {default!r}", None,
                                 "say the same in both places")
        return default
    if default is not parameter.empty:
        wanted = said.__name__ if is_class else "State"
        raise BadDeclaration(f"the default value of {name} is {default!r}", None,
                             f"options of a kind are its default value: {name}: lr.{wanted} = lr.{wanted}(…); numbers that "
                             f"choose a variant belong to a factory around the cell")
    if isinstance(said, Kind):
        return said
    if is_class:
        try:
            return said()
        except CellError as error:
            raise type(error)(error.what, None, error.hint) from None
    raise BadDeclaration(f"{name} has no kind" + (f", but the annotation {getattr(said, '__name__', said)}"
                                                  if said is not parameter.empty else ""), None,
                         f"annotate it: {name}: lr.Input, or {', '.join(f'lr.{k}' for k in _KINDS[1:])}")


def _outputs(value: Any, recording: Recording, where: Location, inputs: set[str]) -> tuple[tuple[str, At], ...]:
    """The named outputs; an expression becomes a line of its own."""
    items = list(value.items()) if isinstance(value, dict) else [
        ("", v) for v in (value if isinstance(value, tuple | list) else [value])]
    if value is None or not items:
        raise BadDeclaration("the cell returns nothing", None, "end it with: return h[t]")
    outputs = []
    for name, expr in items:
        if not isinstance(name, str) or (name and not name.isidentifier()):
            raise BadDeclaration(f"an output is named {name!r}", None, "names of outputs are words: {\"y\": h[t]}")
        expr = recording.expression(expr)
        if not (isinstance(expr, At) and expr.lag == 0 and expr.base not in inputs):
            target = recording.fresh(name or "y")
            recording.statements.append(Equation(target, expr, where))
            expr = At(target, complex=is_complex(expr))
        outputs.append((name or expr.base, expr))
    names = [n for n, _ in outputs]
    if twice := [n for n in dict.fromkeys(names) if names.count(n) > 1]:
        raise BadDeclaration(f"{', '.join(twice)} is returned twice", None, "return each value once")
    return tuple(outputs)


_KINDS = ("Input", "State", "Affine", "Vector", "Scalar", "Mask")

__all__ = ["Affine", "Cell", "Input", "Mask", "Scalar", "State", "Vector", "cell"]
