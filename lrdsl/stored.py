"""What the passes made of a cell in an earlier process: found by a key of the cell, without running them. And parsed templates.

An entry is a record (`ir.record`) of the Plan and of the adjoints that training asks for, in the cache of compiled kernels and
under its rules. Its key is all that they follow from: the cell as written, wherever that stands, the code of this package, and
the versions of what the passes run on. Where there is none, or it cannot be read, the passes run.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import sys
from collections.abc import Sequence

import sympy as sp

from .backends import cache
from .codegen.environment import Parsed
from .files import fingerprint
from .ir import plan as _plan
from .ir import program as _program
from .ir import record
from .ir.plan import Plan
from .ir.program import Program
from .ir.solver import Newton
from .ir.spec import Declared, Equation, MapCall, Spec
from .location import Location
from .passes import adjoint as _adjoint
from .passes.adjoint import Adjoint

Adjoints = tuple[tuple[Program, tuple[str, ...], Adjoint], ...]
_CLASSES = {c.__name__: c for c in (*_program.RECORDED, *_plan.RECORDED, _adjoint.Adjoint, _adjoint.Origin, _adjoint.Piece)}
_OF_SPECS = {c.__name__: c for c in (Spec, Declared, Equation, MapCall, Newton)}


def places(spec: Spec) -> list[Location]:
    """The locations of a cell in order, each once: what its Programs cite."""
    return list(dict.fromkeys([spec.where, *(d.where for d in spec.declared), *(s.where for s in spec.statements)]))


@functools.cache
def versions() -> tuple[str, ...]:
    """Of all that runs the passes."""
    return fingerprint(), sp.__version__, platform.python_version()


def key(spec: Spec) -> str | None:
    """The name of a cell's entry; None for a cell that has none."""
    said = (spec.name, spec.declared, spec.statements, spec.outputs, spec.named, spec.solver, spec.pairs)
    try:
        return cache.key(["plan", *versions(), record.write(said, _OF_SPECS, places(spec), loose=True)]) + ".json"
    except record.Unrecordable:
        return None


def find(spec: Spec) -> tuple[Plan, Adjoints] | None:
    """The Plan of a cell and adjoints of its Programs by what has no gradient, at the cell's own lines; None if unknown."""
    name = key(spec)
    try:
        data = None if name is None else cache.read(cache.directory(), name)
        plan, adjoints = record.read(data.decode(), _CLASSES, places(spec)) if data else (None, ())
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None
    return (plan, adjoints) if isinstance(plan, Plan) else None


def put(spec: Spec, plan: Plan, adjoints: Sequence[tuple[Program, tuple[str, ...], Adjoint]]) -> None:
    """Remember them, if the cell can be written down and there is room."""
    name = key(spec)
    with contextlib.suppress(OSError, record.Unrecordable):
        if name:
            text = record.write((plan, tuple(adjoints)), _CLASSES, places(spec))
            cache.put(cache.directory(), name, text.encode(), sync=False)


class Templates:
    """Parsed templates in the same cache."""

    def find(self, key: str) -> bytes | None:
        """See `codegen.environment.Store`."""
        with contextlib.suppress(OSError):
            return cache.read(cache.directory(), self._name(key))
        return None

    def put(self, key: str, data: bytes) -> None:
        """See `codegen.environment.Store`."""
        with contextlib.suppress(OSError):
            cache.put(cache.directory(), self._name(key), data, sync=False)

    @staticmethod
    def _name(key: str) -> str:
        return cache.key(["template", *versions(), str(sys.implementation.cache_tag), key]) + ".code"


Parsed.store = Templates()
