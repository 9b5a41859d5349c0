"""Maps that skip: the identity where their operand has the hidden size, which is known when a layer is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.spec import Equation, MapCall, Spec, Statement
from ..ir.symbols import At


def without_skips(spec: Spec, sizes: Mapping[str, int], hidden: int) -> Spec:
    """The cell whose maps that skip are gone where they are the identity; sizes: the features of each Input.

    One map has one weight: it is the identity only if all its operands have the hidden size.
    """
    own = dict(sizes)
    for s in spec.statements:
        if isinstance(s, MapCall) and (said := spec[s.affine].option("size")):
            own[s.target] = sizes[spec.names("input")[0]] if said == "input" else said

    def plain(affine: str) -> bool:
        operands = [o for s in spec.statements if isinstance(s, MapCall) and s.affine == affine for o in s.operands]
        return all(own.get(o.base, hidden) == hidden for o in operands if isinstance(o, At))

    gone = {d.name for d in spec.of("affine") if d.option("skip") and plain(d.name)}
    if not gone:
        return spec
    statements: list[Statement] = [Equation(s.target, s.operands[0], s.where) if isinstance(s, MapCall) and s.affine in gone
                                   else s for s in spec.statements]
    declared = tuple(d for d in spec.declared if d.name not in gone)
    return replace(spec, declared=declared, statements=tuple(statements)).check()
