"""What a signature may say and may not, found by the wrong cells of tests/fuzz."""

from __future__ import annotations

import pytest

import lrdsl as lr
from lrdsl import t
from lrdsl.errors import BadDeclaration


@pytest.mark.parametrize(("kind", "options"), [
    (lr.State, {"initial": 1.0}), (lr.Input, {"features": 4}), (lr.Affine, {"biases": False}), (lr.Vector, {"value": 1.0})])
def test_an_option_that_there_is_not(kind: type, options: dict[str, object]) -> None:
    with pytest.raises(BadDeclaration, match=next(iter(options))) as error:
        kind(**options)
    assert "its options are" in error.value.hint and error.value.where and error.value.where.file == __file__


def test_too_many_values() -> None:
    with pytest.raises(BadDeclaration, match="too many positional arguments"):
        lr.State(0.5, True)


def test_an_annotation_in_quotes_below_the_future_import() -> None:
    @lr.cell
    def quoted(x: "lr.Input", h: "lr.State"):  # noqa: UP037
        h[t] = 0.5 * h[t - 1] + x[t]
        return h[t]

    assert quoted.spec.names("input") == ("x",)
    with pytest.raises(BadDeclaration, match="no attribute 'Stat'"):
        @lr.cell
        def wrong(x: lr.Input, h: "lr.Stat" = lr.State()):  # noqa: UP037
            h[t] = 0.5 * h[t - 1] + x[t]
            return h[t]
