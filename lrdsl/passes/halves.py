"""The names of real and imaginary parts, and a Plan of them as its user knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..ir.plan import Affine, Plan, Sequence
from ..ir.spec import Declared, Spec
from .simplify import fresh

Halves = Mapping[str, tuple[str, str]]


def halves(spec: Spec) -> Halves:
    """`z.re` and `z.im` for every complex value z."""
    names = dict.fromkeys([*(d.name for d in spec.declared), *(s.target for s in spec.statements)])
    taken = set(names)
    return {n: (fresh(f"{n}.re", taken), fresh(f"{n}.im", taken)) for n in names if n in spec.complex}


def map_halves(spec: Spec) -> Halves:
    """The same for every complex map."""
    taken = {d.name for d in spec.declared}
    return {d.name: (fresh(f"{d.name}.re", taken), fresh(f"{d.name}.im", taken)) for d in spec.of("affine") if d.complex}


def declared_halves(spec: Spec) -> tuple[Declared, ...]:
    """The declarations; of what is complex two, the numbers that they start at taken apart."""
    found: list[Declared] = []
    values, maps = halves(spec), map_halves(spec)
    for d in spec.declared:
        if d.complex:
            names = (maps if d.kind == "affine" else values)[d.name]
            options = [tuple((k, _part(v, part) if k in ("init", "bias") else v) for k, v in d.options if k != "complex")
                       for part in ("real", "imag")]
            found += [replace(d, name=n, options=said) for n, said in zip(names, options, strict=True)]
        else:
            found.append(d)
    return tuple(found)


def _part(said: Any, part: str) -> Any:
    return getattr(said, part) if isinstance(said, int | float | complex) and not isinstance(said, bool) else said


def _operands(half: Affine, complex: bool) -> tuple[str, ...]:
    """The operands of a map of which this is a half, or which this is: one with a size of its own has both parts of each."""
    if not complex or half.size == "hidden":
        return half.operands
    K = len(half.operands) // 2
    return tuple(a or b for a, b in zip(half.operands[:K], half.operands[K:], strict=True))


def whole(plan: Plan, spec: Spec) -> Plan:
    """A Plan of `realify(spec)` with the inputs, sequences, maps and outputs of `spec`. Its steps stay those of halves."""
    whose = {half: name for names in (halves(spec), map_halves(spec)) for name, pair in names.items() for half in pair}
    parts: dict[tuple[str, int], list[Sequence]] = {}
    for s in plan.sequences:
        parts.setdefault((whose.get(s.name, s.name), s.side), []).append(s)
    sequences = tuple(replace(own[0], name=name, init=complex(*(s.init for s in own)) if len(own) > 1 else own[0].init)
                      for (name, _), own in parts.items())
    affines = {name: replace(a, name=name, operands=tuple(whose.get(o, o) for o in _operands(a, name != a.name)))
               for a in plan.affines for name in [whose.get(a.name, a.name)]}
    inputs = tuple(dict.fromkeys(whose.get(n, n) for n in plan.inputs))
    return replace(plan, inputs=inputs, sequences=sequences, affines=tuple(affines.values()),
                   outputs=tuple((n, e.base) for n, e in spec.outputs))
