"""A smaller cell with the same fault: fewer and simpler choices of the dice, as long as the look still finds one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from lrdsl.errors import CellError

from .battery import Finding, Look, NoTrial, search, trial
from .grammar import Choices
from .kernels import Kernels


def shrink(seed: int, look: Look, small: bool = False, seconds: float = 60.0) -> Finding | None:
    """The least cell found in that time; None where not even the first one is at fault again."""
    def fault(choices: list[int]) -> tuple[Finding, list[int]] | None:
        dice = Choices(replay=choices)
        try:
            found = next(search([(trial(dice, seed, small), [look])], Kernels()), None)
        except (NoTrial, CellError):
            return None
        return (found, dice.taken) if found else None

    dice = Choices(seed)
    try:
        trial(dice, seed, small)
    except (NoTrial, CellError):
        return None
    best = fault(dice.taken)
    return best and smallest(best, fault, time.monotonic() + seconds)[0]


def smallest(best: tuple[Finding, list[int]], fault: Callable[[list[int]], tuple[Finding, list[int]] | None],
             until: float) -> tuple[Finding, list[int]]:
    """Accept each change that leaves a fault and makes the choices less, until none does."""
    again = True
    while again and time.monotonic() < until:
        again = False
        for less in _less(best[1]):
            if time.monotonic() > until:
                break
            found = fault(less)
            if found and (len(found[1]), found[1]) < (len(best[1]), best[1]):
                best, again = found, True
                break
    return best


def _less(choices: list[int]) -> Iterator[list[int]]:
    """Without some in a row, the most first; with some in a row all simplest; with one of them simpler."""
    n = len(choices)
    for size in (n // 2, n // 4, n // 8, 8, 4, 2, 1):
        for at in range(0, n, max(size, 1)):
            if size:
                yield choices[:at] + choices[at + size:]
                if any(choices[at:at + size]):
                    yield choices[:at] + [0] * len(choices[at:at + size]) + choices[at + size:]
    for at, k in enumerate(choices):
        if k > 1:
            yield [*choices[:at], k // 2, *choices[at + 1:]]
