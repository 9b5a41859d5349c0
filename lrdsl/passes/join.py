"""Program to Program: recurrences that decay alike become one, of which a chunked kernel tells the decay once.

Numerator and denominator of a weighted mean, real and imaginary part under a real gate. Holds afterwards: the same values; no
scan reads another of its states.
"""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from ..ir.program import Program, Scan
from ..ir.symbols import samples
from .order import in_order


def joined(program: Program) -> Program:
    """Scans of one state with equal A, none of which needs another at any lag, as one scan with a shared decay."""
    needs = _needs(program)
    groups: list[list[Scan]] = []
    for scan in (s for s in program.steps if isinstance(s, Scan) and s.structure.state == ((0, 1),) and not s.other):
        apart = (g for g in groups if g[0].A == scan.A and len(g) < 4 and not any(
            needs[a.targets[0]] & set(b.targets) for other in g for a, b in ((scan, other), (other, scan))))
        groups.append(found := next(apart, []))
        found.append(scan)
    for group in {id(g): g for g in groups if len(g) > 1}.values():
        one = replace(group[0], targets=tuple(s.targets[0] for s in group), b=tuple(s.b[0] for s in group),
                      A=(sp.ImmutableMatrix(sp.diag(*(s.A[0][0, 0] for s in group))),))
        steps = [one if s is group[-1] else s for s in program.steps if s not in group[:-1]]
        ordered = in_order(steps)
        assert ordered is not None
        program = replace(program, steps=ordered)
    return program.check()


def _needs(program: Program) -> dict[str, set[str]]:
    """Sequence -> all that it comes from, at any step."""
    needs = {t: {a.base for e in s.exprs for a in samples(e)} for s in program.steps for t in s.targets}
    size = -1
    while size != (size := sum(map(len, needs.values()))):
        for name in needs:
            needs[name] |= {m for n in needs[name] if n in needs for m in needs[n]}
    return needs
