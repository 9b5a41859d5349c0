"""Newton's method on tensors: the loop around the two Programs of `passes.newton`, and what it reports."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ir.program import Program
from ..ir.solver import Newton
from ..programs import iteration_of
from .dtypes import compute
from .launch import Launcher, Tensors
from .prepared import Signature

GROWTH = 1e6  # times the smallest residual so far: an iteration that is so far off does not come back


def _settled(residuals: Sequence[float], changes: Sequence[float], tolerance: float) -> bool:
    """Whether the steps fit each other, and the last iteration changed nothing; or no less than the one before, so that what it
    changed is rounding."""
    fit = [r <= tolerance for r in residuals[-2:]]
    return fit[-1] and (changes[-1] <= tolerance or (len(fit) == 2 and all(fit) and changes[-1] > changes[-2] / 2))


@dataclass(frozen=True)
class SolverReport:
    """What Newton's method did in one call, for the recurrences of one fused pass.

    name: of the pass. iterations: scans that were run. residual: of the states that were returned, the largest
    |F(h[t-1]) - h[t]| / (1 + |h[t]|); of the last guess where they were not solved by Newton's method. change: the largest
    |h[t] - g[t]| / (1 + |h[t]|) by which the last iteration changed the guess g, about the error of g; that of h is less.
    residuals: that of each guess, from the first one on. fallback: why the recurrence was solved one step after another
    instead, or "".
    """

    name: str
    iterations: int
    residual: float
    change: float
    tolerance: float
    residuals: tuple[float, ...]
    fallback: str = ""

    def __str__(self) -> str:
        how = f"one step after another, because {self.fallback}" if self.fallback else "by Newton's method"
        return (f"{self.name}: solved {how}; {self.iterations} iteration{'s' * (self.iterations != 1)}, residual "
                f"{self.residual:.1e}, change {self.change:.1e}, tolerance {self.tolerance:.1e}")


class Solver(Launcher):
    """Runs a Program whose recurrence is not linear, by Newton's method: a Launcher in all but how its outputs are computed.

    Two guesses are alive at a time, whatever the number of iterations. Two numbers an iteration are waited for.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        assert program.solver
        self.options: Newton = program.solver
        self.name = program.name.removesuffix("_ragged")
        self.made = iteration_of(program)
        self.steps, self.finish = Launcher(self.made.step), Launcher(self.made.finish)

    def prepared(self, found: Signature, args: Sequence[Tensor | None], windows: bool = True) -> None:
        """None: each iteration is a call of its own."""

    def run(self, *args: Tensor | None) -> Tensors:
        """The solution, by Newton's method if that converges, else one step after another."""
        B, T, C = self.sizes(args)
        if not (B and T and C):
            return super().run(*args)
        given = dict(zip((*self.program.inputs, ".reset"), args, strict=True))
        tolerance = self.options.tolerance(torch.finfo(compute(self.dtype(args))).eps)
        residuals: list[float] = []
        changes: list[float] = []
        guess = self._start(args[0], B, T, C)
        while not (why := self._hopeless(residuals)):
            damped = 1 - self.options.damping * min([1.0, *residuals[-1:]])
            given[self.made.damped] = torch.tensor(damped, dtype=guess.dtype, device=guess.device)
            guess, *told = self._call(self.steps, given, guess)
            for found, number in zip((residuals, changes), torch.stack(told).tolist(), strict=True):
                found.append(number)
            if _settled(residuals, changes, tolerance):
                outputs = dict(zip(self.made.finish.outputs, self._call(self.finish, given, guess), strict=True))
                last = float(outputs[self.made.residual])
                if last <= tolerance:
                    JOURNAL.tell(SolverReport(self.name, len(residuals), last, changes[-1], tolerance, tuple(residuals)))
                    return tuple(outputs[n] for n in self.program.outputs)
        JOURNAL.tell(SolverReport(self.name, len(residuals), residuals[-1], changes[-1], tolerance, tuple(residuals), why))
        return super().run(*args)

    def _start(self, like: Tensor | None, B: int, T: int, C: int) -> Tensor:
        """The constants that the states start from, at every step, in the memory of one step."""
        assert like is not None
        first = torch.tensor(self.made.starts, dtype=compute(like.dtype), device=like.device)
        return first.repeat_interleave(C).expand(B, T, len(self.made.starts) * C)

    def _call(self, launcher: Launcher, given: dict[str, Tensor | None], guess: Tensor) -> Tensors:
        return launcher.run(*(guess if n == self.made.guess else given[n] for n in (*launcher.program.inputs, ".reset")))

    def _hopeless(self, residuals: Sequence[float]) -> str:
        """Why the iteration ends without a solution, "" while it may go on."""
        if not residuals:
            return ""
        if not math.isfinite(residuals[-1]):
            return "a guess was not finite"
        if residuals[-1] > GROWTH * min(residuals):
            return "the residual grew"
        return f"{len(residuals)} iterations were not enough" if len(residuals) >= self.options.max_iter else ""


class Journal(threading.local):
    """The reports of a thread, in order. total: how many there were; the last ones are kept."""

    def __init__(self) -> None:
        self.total = 0
        self._last: deque[SolverReport] = deque(maxlen=1000)

    def tell(self, report: SolverReport) -> None:
        """One more."""
        self.total += 1
        self._last.append(report)

    def since(self, total: int) -> tuple[SolverReport, ...]:
        """Those that came after there were `total`."""
        return tuple(self._last)[max(0, len(self._last) - (self.total - total)):]

    def latest(self, names: Sequence[str]) -> tuple[SolverReport, ...]:
        """The last reports of Programs with these names, as many as there are names."""
        found = [report for report in self._last if report.name in names]
        return tuple(found[-len(names):]) if names and len(found) >= len(names) else ()


JOURNAL = Journal()
