"""Every stage of every test cell on paper: spec, strata, plan, and each Program forward, backward and as a tangent."""

from __future__ import annotations

from typing import Any

import pytest

from lrdsl.passes.adjoint import adjoint
from lrdsl.passes.partition import partition
from lrdsl.passes.simplify import simplify
from lrdsl.passes.stratify import stratify
from lrdsl.passes.tangent import tangent
from tests.cells_for_tests import CELLS


@pytest.mark.parametrize("name", CELLS)
def test_stages(name: str, golden: Any) -> None:
    strata = stratify(CELLS[name].spec)
    plan = partition(strata)
    adjoints = [adjoint(adjoint(simplify(p)).forward) for p in plan.programs]
    assert f"{strata.spec}\n\n{strata}\n\n{plan}" == golden("1-plan")
    assert "\n\n".join(str(a.forward) for a in adjoints) == golden("2-forward")
    assert "\n\n".join(str(a.program) for a in adjoints) == golden("3-backward")
    assert "\n\n".join(str(tangent(a.forward).program) for a in adjoints) == golden("4-tangent")


def test_how_the_tensors_of_a_backward_pass_belong(golden: Any) -> None:
    """What each input of the backward Program is, and what each gradient is made of."""
    lines = []
    for cell in (CELLS[name] for name in ("gilr", "order_two", "against", "lookahead", "apart")):
        for program in partition(stratify(cell.spec)).programs:
            made = adjoint(adjoint(simplify(program)).forward)
            lines += [program.name]
            lines += [f"  takes {n}: {o.what} {o.name}{', reversed' * o.flip}{f', {o.nearest} steps away' if o.nearest else ''}"
                      for n, o in zip(made.program.inputs, made.takes, strict=True)]
            lines += [f"  gives {n}: " + " + ".join(f"{p.name} ({p.how}{f', lag {p.lag}' if p.lag else ''})" for p in pieces)
                      for n, pieces in made.gives]
    assert "\n".join(lines) == golden
