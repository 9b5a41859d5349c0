"""Programs: what `check` refuses, rule by rule; values that cannot be changed; how they print."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import sympy as sp

from lrdsl.errors import InternalError
from lrdsl.ir.functions import tanh
from lrdsl.ir.program import Buffer, Edge, Keep, Let, Program, Scan, Sum, Vector
from lrdsl.ir.symbols import At, Param
from lrdsl.location import Location

X, U, H, V = At("x"), At("u"), At("h"), Param("v")


def matrix(*rows: Any) -> sp.ImmutableMatrix:
    return sp.ImmutableMatrix([list(r) for r in rows])


GOOD = Program(
    name="p",
    reverse=False,
    buffers=(Buffer("x", ("x",)), Buffer("maps", ("u", "w"))),
    vectors=(Vector("v"), Vector("s", "one")),
    edges=(Edge("h", -1, 1, 0.5, "h.start", "h.edge", "h.final"), Edge("x", -1, 2, 0.0)),
    steps=(
        Let("a", tanh(U + V), Location("cells.py", 7)),
        Scan(("h",), (matrix([At("a")]),), (X * Param("s") + At("x", -2),)),
        Let("y", H * At("a")),
    ),
    keeps=(Keep("y", ("y",)), Keep("both", ("h", "a"), inner=True)),
    sums=(Sum("d.v", "y"), Sum("d.s", "a", "time and channels")),
)


def but(**changes: Any) -> Program:
    return dataclasses.replace(GOOD, **changes)


def test_a_good_program_is_given_back() -> None:
    assert GOOD.check() is GOOD


BAD = {
    "a sequence is defined twice": but(steps=(*GOOD.steps, Let("y", X))),
    "a sequence is defined twice (it is also read)": but(steps=(*GOOD.steps, Let("x", U))),
    "two tensors share a name": but(keeps=(*GOOD.keeps, Keep("maps", ("y",)))),
    "two tensors share a name (two outputs)": but(sums=(Sum("y", "y"),)),
    "runs against the program": but(steps=(GOOD.steps[0], dataclasses.replace(GOOD.steps[1], reverse=True), GOOD.steps[2])),
    "still reads": but(steps=(GOOD.steps[0], Scan(("h",), (matrix([At("a")]),), (At("h", -1),)), GOOD.steps[2])),
    "reads an unlisted parameter": but(vectors=(Vector("v"),)),
    "reads h[t+1] before it is computed": but(steps=(*GOOD.steps, Let("z", At("h", 1)))),
    "reads y[t] before it exists": but(steps=(Let("z", At("y")), *GOOD.steps)),
    "reads q[t-1], which nothing defines": but(steps=(*GOOD.steps, Let("z", At("q", -1)))),
    "reads q[t] before it exists": but(steps=(*GOOD.steps, Let("z", At("q")))),
    "x[t-2] has no edge": but(edges=GOOD.edges[:1]),
    "x[t-2] has no edge (one too short)": but(edges=(GOOD.edges[0], Edge("x", -1, 1, 0.0))),
    "h[t-1] has no edge": but(edges=GOOD.edges[1:]),
    "u[t+1] has no edge": but(steps=(*GOOD.steps, Let("z", At("u", 1)))),
    "z is written but never computed": but(keeps=(Keep("z", ("z",)),)),
    "z is written but never computed (a sum)": but(sums=(Sum("d.v", "z"),)),
    "A or b of h has the wrong shape": but(steps=(GOOD.steps[0], Scan(("h",), (matrix([1, 2]),), (X,)), GOOD.steps[2])),
    "A or b of h has the wrong shape (b)": but(steps=(GOOD.steps[0], Scan(("h",), (matrix([1]),), (X, X)), GOOD.steps[2])),
}


@pytest.mark.parametrize("what", BAD)
def test_check_refuses(what: str) -> None:
    with pytest.raises(InternalError) as caught:
        BAD[what].check()
    said = str(caught.value)
    assert what.split(" (")[0] in said and "lrdsl is at fault in stage 'program'" in said and "program p" in said


def test_a_reverse_program_reads_the_other_way() -> None:
    scan = Scan(("h",), (matrix([X]),), (At("x", -1),), reverse=True)
    edges = (Edge("h", 1, 1, 0.0), Edge("x", -1, 1, 0.0))
    program = Program("r", True, (Buffer("x", ("x",)),), (), edges, (scan, Let("y", At("h", 1))), (Keep("y", ("y",)),))
    assert program.check() is program and program.direction == -1 and program.back == 1
    with pytest.raises(InternalError, match="before it is computed"):
        dataclasses.replace(program, steps=(scan, Let("y", At("h", -1)))).check()


def test_programs_are_values() -> None:
    same = dataclasses.replace(GOOD, steps=tuple(dataclasses.replace(s) for s in GOOD.steps))
    assert same == GOOD and hash(same) == hash(GOOD) and len({same, GOOD}) == 1
    assert but(name="q") != GOOD and but(reverse=True) != GOOD
    for value, field in ((GOOD, "name"), (GOOD.steps[0], "expr"), (GOOD.edges[0], "depth"), (GOOD.keeps[0], "samples")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)
    with pytest.raises(TypeError):
        GOOD.steps[1].A[0][0, 0] = 1  # type: ignore[union-attr, index]


def test_digests_tell_numbers_apart_that_print_alike() -> None:
    near = Let("a", tanh(U + V) + sp.Float(0.1)), Let("a", tanh(U + V) + sp.Float(0.1 + 2**-56))
    one, other = (but(steps=(let, *GOOD.steps[1:])) for let in near)
    assert str(one) == str(other) and one.digest != other.digest and one.digest == but(steps=one.steps).digest


def test_tensors_in_the_order_of_a_call() -> None:
    assert GOOD.inputs == ("x", "maps", "v", "s", "h.start", "h.edge")
    assert GOOD.outputs == ("y", "both", "d.v", "d.s", "h.final")
    assert GOOD.loads == {"x": ("x", 0), "u": ("maps", 0), "w": ("maps", 1)}
    assert [e.base for e in GOOD.registers] == ["h"] and GOOD.edge("x", 1) is None
    assert [str(s) for s in GOOD.reads()] == ["u[t]", "a[t]", "x[t-2]", "x[t]", "h[t]", "h[t-1]"]


def test_a_scan_says_its_equations() -> None:
    scan = Scan(("h", "c"), (matrix([X, 0], [1, 0]), matrix([0, U], [0, 0])), (X, sp.S.Zero), reverse=True)
    assert [str(s) for s in scan.past] == ["h[t+1]", "c[t+2]"] and scan.order == 2
    assert scan.update(0) == X * At("h", 1) + U * At("c", 2) + X and scan.update(1) == At("h", 1)


def test_text(golden: Any) -> None:
    assert str(GOOD) == golden
    scan = Scan(("h", "c"), (matrix([X, 0], [1, 0]), matrix([0, U], [0, 0])), (X, sp.S.Zero), reverse=True)
    edges = (Edge("c", 1, 2, -1.0, "c.start", "c.edge", None, "c.crossing"), Edge("h", 1, 1, 0.0))
    assert str(Program("back", True, GOOD.buffers, (), edges, (scan,), (Keep("h", ("h",)),))) == golden("reverse")
