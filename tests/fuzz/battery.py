"""What is asked of each cell: the text's values and derivatives, on every backend, and of every rewrite.

    findings = search(trials(range(100), some_looks), Kernels())
"""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
import torch

from lrdsl.errors import CellError, NotBuilt, UnsupportedFunction, UnusedName

from .compare import NARROW, Truth, results, truth
from .forms import fits
from .grammar import Choices, Dice, grow
from .kernels import BACKENDS, Asked, Kernels, Wanted
from .problems import Call, Problem, Setting, Subject, call_of, meaning_of, pose, setting
from .rewrites import REWRITES
from .written import Written

SHORT = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}
MOSTLY = (torch.float32, torch.float64, torch.bfloat16, torch.float64, torch.float32, torch.float16)


@dataclass(frozen=True)
class Look:
    """One comparison of a cell with its meaning. rewrite: "" for the cell itself."""

    rewrite: str
    backend: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return " ".join(filter(None, [self.rewrite, self.backend, SHORT[self.dtype]]))


@dataclass(frozen=True)
class Trial:
    """A cell and its setting, both plain data."""

    written: Written
    setting: Setting

    @functools.cached_property
    def subject(self) -> Subject:
        return Subject(self.written)

    @functools.cached_property
    def problem(self) -> Problem:
        return pose(self.subject, self.setting)

    @functools.cached_property
    def _truths(self) -> dict[torch.dtype | None, tuple[Problem, Truth]]:
        return {}

    def truth(self, dtype: torch.dtype = torch.float64) -> tuple[Problem, Truth]:
        """The numbers in a dtype, and what the text makes of them; float32 and float64 have the same."""
        key = dtype if dtype in NARROW else None
        if key not in self._truths:
            problem = self.problem if key is None else self.problem.stored(key)
            call = functools.partial(meaning_of, self.subject)
            self._truths[key] = problem, truth(call, self.subject.meaning.watch, problem)
        return self._truths[key]

    @functools.cached_property
    def _calls(self) -> dict[str, Call | None]:
        return {"": call_of(self.subject, self.problem)}

    def call(self, rewrite: str) -> Call | None:
        """lrdsl's call, of the cell or of a rewrite; None where the cell has none."""
        if rewrite not in self._calls:
            self._calls[rewrite] = REWRITES[rewrite](self.subject, self.problem, Choices(self.setting.seed))
        return self._calls[rewrite]

    def apart(self, look: Look) -> tuple[float, str]:
        """The largest error, in units of what is allowed, and where."""
        call = self.call(look.rewrite)
        if call is None or (look.dtype in NARROW and not fits(self.written.features | {"16 bits"})):
            return 0.0, ""
        problem, truth = self.truth(look.dtype)
        if look.dtype not in truth.dtypes:
            return 0.0, ""
        if look.rewrite:
            problem = replace(problem, level="first")
        want = {n: y for n, y in truth.want.items() if not look.rewrite or not (n.startswith("dd ") or n.endswith(" dot"))}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LRDSL_BACKEND", look.backend)
            return replace(truth, want=want).worst(results(call, problem, look.dtype), look.dtype)


@dataclass(frozen=True)
class Finding:
    """A cell that did not say the same; `what` it said instead."""

    trial: Trial
    look: Look
    what: str

    def __str__(self) -> str:
        return f"{self.look}: {self.what}\n{self.trial.setting}\n{self.trial.written.source}"

    def program(self) -> str:
        """A Python file that shows it again."""
        return f'''"""{self.look}: {self.what.splitlines()[0]}

{self.trial.written.source}
Run it from the root of the repository: PYTHONPATH=. python <this file>
"""

from tests.fuzz.battery import Look, Trial, again
from tests.fuzz.problems import Setting
from tests.fuzz.written import Line, Written
import torch

TRIAL = Trial(
    {self.trial.written},
    {self.trial.setting},
)
if __name__ == "__main__":
    print(again(TRIAL, {self.look!r}))
'''


class NoTrial(Exception):
    """A text that is no cell, for a reason that the grammar does not look for."""


def trial(dice: Dice | int, seed: int | None = None, small: bool = False, mark: str = "") -> Trial:
    """The cell of a number, or of dice; `mark` sets its name apart, and so everything that is cached of it. Raises NoTrial."""
    if isinstance(dice, int):
        dice, seed = Choices(dice), dice
    written = grow(dice, f"cell_{seed}{mark}", small)
    try:
        subject = Subject(written)
        if turned(subject):
            raise NoTrial("a recurrence whose terms cancel is none, and has its edges on another side")
        return Trial(written, setting(subject, dice, seed or 0, small))
    except NoTrial:
        raise
    except Exception as error:
        if isinstance(error, CellError) and expected(error):
            raise NoTrial(str(error)) from error
        # The first look at it finds the error again.
        return Trial(written, Setting(1, 1, 1, "none", "batch", "first", "none", (), (), "", False, seed or 0))


def turned(subject: Subject) -> bool:
    """Whether the run of a state has another direction than its text says."""
    sides = subject.meaning.sides
    return any(s.state and not s.ahead and s.side != sides.get(s.name, s.side) for s in subject.pipeline.sequences.values())


def expected(error: CellError) -> bool:
    """Whether it is no fault that a cell of the grammar ends so: sympy sees that terms cancel, or that a condition on
    learned numbers holds; or torch's ops take no more tensors."""
    return all(isinstance(e, UnusedName) or (isinstance(e, UnsupportedFunction) and "decided on the symbols" in e.what)
               or (isinstance(e, NotBuilt) and "tensors, and an op of torch" in e.what) for e in error.errors)


def all_looks(number: int) -> list[Look]:
    """Every backend in every dtype, every rewrite on the reference, and one of them on the others."""
    found = [Look("", backend, dtype) for backend in ("reference", *BACKENDS) for dtype in SHORT]
    found += [Look(rewrite, "reference", torch.float64) for rewrite in REWRITES]
    return [*found, Look([*REWRITES][number % len(REWRITES)], BACKENDS[number % 4], torch.float64)]


def most_looks(number: int) -> list[Look]:
    """Every backend in one dtype and two rewrites; everything, one cell in ten."""
    if number % 10 == 0:
        return all_looks(number)
    dtype, rewrites = MOSTLY[number % len(MOSTLY)], [*REWRITES, *REWRITES]
    found = [Look("", backend, dtype) for backend in ("reference", *BACKENDS)]
    return found + [Look(r, "reference", torch.float64) for r in rewrites[number % len(REWRITES):][:2]]


def some_looks(number: int) -> list[Look]:
    """A rewrite for half of the cells; a dtype for the others, and for half of these a backend that is compiled."""
    half = number // 2
    if number % 2:
        rewrite = [*REWRITES][half % len(REWRITES)]
        return [Look("", "reference", torch.float64), Look(rewrite, "reference", torch.float64)]
    dtype = MOSTLY[half % len(MOSTLY)]
    compiled = [Look("", ("native", "serial", "chunked", "lanes")[half // 2 % 4], dtype)] if half % 2 == 0 else []
    return [Look("", "reference", dtype), *compiled]


def trials(seeds: Iterable[int], looks: Callable[[int], list[Look]], small: bool = False,
           mark: str = "") -> Iterator[tuple[Trial, list[Look]]]:
    """The trials of some seeds, and what is looked at; without those that are none."""
    for seed in seeds:
        with contextlib.suppress(NoTrial):
            yield trial(seed, small=small, mark=mark), looks(seed)


def search(given: Iterable[tuple[Trial, Sequence[Look]]], kernels: Kernels, together: int = 25) -> Iterator[Finding]:
    """Every look at every trial. So many trials are compiled `together`, while the next ones are tried on the reference."""
    with kernels.used() as asked:
        waiting: list[tuple[Trial, Look]] = []
        wanted: list[Wanted] = []
        for k, (each, looks) in enumerate(given, 1):
            needs: dict[tuple[str, torch.dtype], list[Asked]] = {}  # none where the reference fails already
            for look in sorted(looks, key=lambda look: look.backend != "reference"):
                key = look.rewrite, look.dtype
                if key not in needs:
                    asked.clear()
                    finding = _finding(each, replace(look, backend="reference"))
                    needs[key] = [] if finding else list(asked)
                    if finding:
                        yield finding
                if look.backend != "reference" and needs[key]:
                    waiting.append((each, look))
                    wanted += [(*program, look.backend) for program in needs[key]]
            if k % together == 0:
                kernels.build(wanted)
                wanted = []
        kernels.build(wanted)
        for each, look in waiting:
            if finding := _finding(each, look):
                yield finding


def _finding(each: Trial, look: Look) -> Finding | None:
    try:
        error, where = each.apart(look)
    except Exception as raised:
        if isinstance(raised, CellError) and expected(raised):
            return None
        return Finding(each, look, f"{type(raised).__name__}: {raised}\n{traceback.format_exc(limit=-4)}")
    return Finding(each, look, f"{where} is off by {error:.3g} times what rounding explains") if not error <= 1 else None


def again(each: Trial, look: Look) -> str:
    """One look once more, in words."""
    findings = list(search([(each, [look])], Kernels()))
    return "\n".join(map(str, findings)) or f"{look}: as it should be"
