"""The cells in torch are the cells of lrdsl: values and all gradients, and torch.nn.LSTM is the loop that it is held to."""

from __future__ import annotations

import pytest

from benchmarks import cells
from benchmarks.compare import compare
from benchmarks.timing import wall


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "sru" else pytest.mark.long)
                                  for n in cells.EQUATIONS if cells.zoo(n)])
def test_a_layer_and_its_peers_agree(name: str) -> None:
    found = compare(cells.case(name, 2, 12, 5, "cpu", compiled=False), "cpu", wall, seconds=0.0, rounds=1)
    both = {r.candidate for r in found if r.times and r.way == "forward and backward"}
    assert both == {"stream the same bytes", "lrdsl", "torch loop", "matrix products alone", "torch.nn.LSTM"}, \
        {r.candidate: r.note for r in found}
    assert all(r.error is None or r.error < 1e-5 for r in found)


def test_what_a_layer_moves() -> None:
    """GILR: two gates read and h written; backward the gates, h and its gradient read, the gates' gradients written."""
    cell = cells.zoo("gilr")
    assert cell is not None and cells.words(cell) == ((2, 1), (4, 2))


def test_a_cell_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "zoo", lambda name: None)
    assert cells.main(["--quick", "--cells", "gilr"]) == []
    assert "gilr: this version of lrdsl does not have it" in capsys.readouterr().out
