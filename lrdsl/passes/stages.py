"""Which Program of a Plan computes what, and which way each of them runs.

A Program runs one way. What it computes it may read at the same step, and at a lag on the side that it comes from. On the
other side, and through a dense map, a sequence is read from memory, where an earlier Program wrote it. A state belongs in a
Program that runs its way: that of its recurrence, or else the one that the lags at which it is read make of it.
Holds afterwards: no fewer Programs compute all that is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from ..ir.program import Recurrent, Step
from ..ir.spec import Spec
from ..ir.symbols import At, samples


@dataclass(frozen=True)
class Stages:
    """of: sequence -> the number, from 1, of the first Program that can compute it, 0 for an input. runs: for each Program,
    whether it runs from the right."""

    of: Mapping[str, int]
    runs: tuple[bool, ...]

    def against(self, side: int) -> bool:
        """Whether a Program cannot read what it computes on a side (-1: earlier, +1: later)."""
        return (side < 0) in self.runs


def sides(spec: Spec, steps: Sequence[Step]) -> dict[str, int]:
    """For each state that is read at a lag, in the order of the signature, the side that its run comes from: for one that is
    no recurrence the side on which it is read, or that of the first recurrence if it is read on both."""
    found = {t: 1 if s.reverse else -1 for s in steps if isinstance(s, Recurrent) for t in s.targets}
    first = next((found[n] for n in spec.names("state") if n in found), -1)
    for name in spec.names("state"):
        read = {1 if r.lag > 0 else -1 for s in spec.statements for r in s.reads() if r.base == name and r.lag}
        if read:
            found.setdefault(name, first if len(read) == 2 else read.pop())
    return {n: found[n] for n in spec.names("state") if n in found}


def stages(steps: Sequence[Step], inputs: Sequence[str], products: Mapping[str, str], sized: Mapping[str, Set[str]],
           side: Mapping[str, int], wanted: Set[str]) -> Stages:
    """The fewest Programs that compute `wanted`.

    steps: in an order in which each reads only earlier ones; products: product -> its source; sized: a map's value that is
    computed between Programs -> what it reads; side: as `sides` has it.
    """
    def mapped(known: Set[str]) -> frozenset[str]:
        """With what maps make of it."""
        while more := {n for n, reads in sized.items() if n not in known and reads <= known}:
            known = known | more
        return frozenset(known)

    first = next(iter(side.values()), -1) > 0
    start = mapped(frozenset(inputs))
    found: dict[frozenset[str], tuple[bool, ...]] = {start: ()}
    while not (whole := next((runs for known, runs in found.items() if wanted <= known), None)):
        longer: dict[frozenset[str], tuple[bool, ...]] = {}
        for known, runs in found.items():
            for reverse in (first, not first):  # where both ways do, all Programs run as the first state does
                longer.setdefault(mapped(known | _computed(steps, known, products, side, reverse)), (*runs, reverse))
        found = {known: runs for known, runs in longer.items() if not any(known < more for more in longer)}
    of, known = dict.fromkeys(start, 0), start
    for number, reverse in enumerate(whole, 1):
        new = mapped(known | _computed(steps, known, products, side, reverse)) - known
        of |= dict.fromkeys(new, number)
        known |= new
    return Stages(of, whole)


def _computed(steps: Sequence[Step], known: Set[str], products: Mapping[str, str], side: Mapping[str, int],
              reverse: bool) -> set[str]:
    """What a Program that runs this way can compute from sequences in memory."""
    new: set[str] = set()
    back = 1 if reverse else -1

    def readable(s: At, own: tuple[str, ...]) -> bool:
        return products.get(s.base, s.base) in known or (s.base in new and s.lag * back >= 0) or (
            s.base in own and s.lag * back > 0)

    for step in steps:
        if step.targets[0] not in known and all(side.get(t, back) == back for t in step.targets) \
                and all(readable(s, step.targets) for e in step.exprs for s in samples(e)):
            new.update(step.targets)
    return new


__all__ = ["Stages", "sides", "stages"]
