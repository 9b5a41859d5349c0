"""The costs that docs/compiler.md quotes: a rotation is no dense block, a companion step no product of matrices."""

from __future__ import annotations

from benchmarks.structures import table


def test_each_structure_costs_what_it_must() -> None:
    forward = {name: (c.numbers, c.step, c.join, c.carry) for name, c, _ in table()}
    # A single number has its rounding error beside it, which costs three products more a step and four a join.
    assert forward["linear_scan"] == (1, 5, 5, 2) and forward["best"] == (1, 0, 0, 0)
    assert forward["shared"] == (1, 7, 5, 6), "one decay for three states"
    assert forward["scaled_rotation"] == (2, 8, 4, 4), "a product of complex numbers"
    assert forward["dense"] == (4, 12, 8, 4)
    assert forward["order_four"] == (16, 4 + 4 * 4, 64, 16), "one row of the matrix; the others move"
    assert forward["coupled_pairs"][0] == 8 and forward["coupled_pairs"][2] == 32, "half of a dense 4x4"
    assert forward["filter_four"] == (0, 4, 0, 16), "a power of one matrix is never told"


def test_a_backward_pass_has_the_structure_of_its_forward_one() -> None:
    for name, forward, backward in table():
        if name != "best":
            assert (forward.structure, forward.numbers, forward.step, forward.join) == (
                backward.structure, backward.numbers, backward.step, backward.join), name
