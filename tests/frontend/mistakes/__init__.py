"""Wrong cells, one function each. The line that an error must cite ends in `# <-`; a place that has no line has no mark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lrdsl as lr
from lrdsl.errors import CellError
from lrdsl.passes.partition import partition
from lrdsl.passes.stratify import stratify

Case = Callable[[], Any]


@dataclass
class Cases:
    """The mistakes of one file: name -> (function that makes it, the classes of all errors it must raise)."""

    found: dict[str, tuple[Case, tuple[type[CellError], ...]]]

    def __call__(self, *classes: type[CellError]) -> Callable[[Case], Case]:
        def add(make: Case) -> Case:
            self.found[make.__name__] = (make, classes)
            return make
        return add


def run(cell: lr.Cell) -> None:
    """What `lr.RNN`, `lr.function` and `lr.compile` do first with a cell."""
    partition(stratify(cell.spec))
