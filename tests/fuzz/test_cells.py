"""Random cells mean what their text says, on every backend; and what says so is tested itself.

`make fuzz` tries as many as there is time for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings

import tests.fuzz.__main__ as command
from lrdsl.errors import CellError
from tests import truth
from tests.nn.compare import leaf

from .battery import Finding, Look, Trial, all_looks, expected, search, some_looks, trial, trials
from .grammar import FORMS, HOLE, Choices, Line, Written, cells, grow
from .kernels import BACKENDS, Kernels
from .meaning import FUNCTIONS, Meaning
from .problems import Setting, Subject, setting
from .rewrites import REWRITES
from .shrink import smallest

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compiler() -> None:
    from lrdsl.backends import native
    from lrdsl.errors import BackendUnavailable

    try:
        native.compiler()
    except BackendUnavailable as error:
        pytest.skip(str(error).splitlines()[0])


def test_cells_say_what_their_text_says(compiler: None) -> None:
    found = list(map(str, search(trials(range(100), some_looks, small=True), Kernels())))
    assert not found, "\n\n".join(found[:3])


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 2000, 50))
def test_more_cells_say_what_their_text_says(first: int, compiler: None) -> None:
    """The first of them as a user's compiler would optimize them."""
    found = list(map(str, search(trials(range(first, first + 50), some_looks), Kernels(level=2 if first == 1000 else 0))))
    assert not found, "\n\n".join(found[:3])


@given(cells())
@settings(max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_cells_that_hypothesis_draws(written: Written) -> None:
    """On the definition alone; it shrinks what fails."""
    try:
        with Kernels().used():
            drawn = Trial(written, setting(Subject(written), Choices(), 0, small=True))
    except CellError as error:
        assert expected(error)
        return
    assert not list(map(str, search([(drawn, [Look("", "reference", torch.float64)])], Kernels())))


# ---- the grammar


def test_the_grammar_is_closed_and_all_of_it_grows() -> None:
    texts = [grow(Choices(seed), small=seed % 2 == 0) for seed in range(600)]
    sources = "\n".join(w.source for w in texts)
    known = {*FORMS, "input", "sample", "learned", "map", "past"}
    assert {hole for forms in FORMS.values() for form in forms for hole in HOLE.findall(form)} <= known
    assert {f for f in FUNCTIONS if f"{f}(" not in sources} == set()
    for form in ("[t - 8]", "[t + 8]", " > ", " >= ", " < ", " <= ", " & ", " | ", "~", "** 2", "** 3", "** 0.5", "** (-2)",
                 " / ", "lr.Scalar", "lr.Vector", "learned=True", "size=4", "bias=False", "bias=0.5", 'return {"y0"'):
        assert form in sources, form
    assert {len(w.of("State")) for w in texts} == {1, 2, 3, 4}
    assert {max(map(len, _groups(w))) for w in texts} == {1, 2, 3}
    assert {w.reverse for w in texts} == {False, True} and len(set(texts)) > 590
    assert grow(Choices(7)) == grow(Choices(7))


def _groups(written: Written) -> list[list[str]]:
    """The states of each stratum."""
    strata = {line.stratum for line in written.lines}
    return [[line.target for line in written.lines if line.state and line.stratum == n] for n in strata]


def test_settings_differ() -> None:
    with Kernels().used():
        said = [t.setting for t, _ in trials(range(80), lambda _: [], small=True)]
    for name, values in {"edges": 4, "layout": 3, "level": 3, "boundaries": 3, "single": 3, "quarters": 2, "T": 6, "C": 5,
                         "B": 4}.items():
        assert len({getattr(s, name) for s in said}) == values, name


# ---- what says what a text means


def test_the_meaning_of_a_scan_is_the_loop_of_the_truth() -> None:
    text = "@lr.cell\ndef scan(a: lr.Input, b: lr.Input, h: lr.State):\n    h[t] = a[t] * h[t - 1] + b[t]\n    return h[t]\n"
    a, b, h0, reset = leaf(2, 6, 3).double(), leaf(2, 6, 3).double(), leaf(2, 3).double(), torch.rand(2, 6) < 0.4
    kinds = {"a": "Input", "b": "Input", "h": "State"}
    found = Meaning(text, "scan", kinds).run({"a": a, "b": b, "h:init": h0[:, None]}, 3, reset, False, {"h": 1})
    want = truth.linear_scan(a, b, h0, reset)
    torch.testing.assert_close(found["out0"], want)
    torch.testing.assert_close(found["h:final"][:, 0], want[:, -1])


def test_the_meaning_of_lags_edges_and_states_out_of_order() -> None:
    text = ("@lr.cell\ndef c(x: lr.Input, g: lr.State, h: lr.State = lr.State(init=5.0)):\n    m = g[t]\n    g[t] = h[t] + 1\n"
            "    h[t] = h[t + 2] + x[t - 1] + x[t + 1]\n    return {'y': m}\n")
    meaning = Meaning(text, "c", {"x": "Input", "g": "State", "h": "State"})
    x = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)[None, :, None]
    reset = torch.tensor([[False, False, True, False]])  # h[1] and x[1+1] read beyond it, and so does x[2-1]
    found = meaning.run({"x": x, "x:init": 100 * torch.ones_like(x[:, :1])}, 1, reset, True, {"h": 2})
    # h[3] = 5 + 4 + 100, h[2] = 5 + 0 + 8, h[1] = 5 + 1 + 100, h[0] = 5 + 0 + 2: behind is later here, and given as 100
    assert found["out0"].flatten().tolist() == [8.0, 107.0, 14.0, 110.0]
    assert found["h:final"].flatten().tolist() == [7.0, 106.0]
    assert meaning.watch.least == 1.0


def test_kinks_are_seen() -> None:
    text = "@lr.cell\ndef c(x: lr.Input):\n    return maximum(x[t], 0.5) + where(equal(x[t], 1), x[t], 2)\n"
    meaning = Meaning(text, "c", {"x": "Input"})
    for value, least in ((0.5, 0.3), (0.5 + 1e-9, 1e-9), (1 - 1e-8, 5e-9)):
        meaning.run({"x": torch.full((1, 1, 1), value, dtype=torch.float64)}, 1, None, False, {})
        assert 0.5 * least < meaning.watch.least < 2 * least


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_errors_are_seen(dtype: torch.dtype) -> None:
    """A thousandth of what a wrong gate would do, in one number of one result."""
    with Kernels().used():
        every = trial(3, small=True)
    want = every.truth.want
    assert every.truth.worst({n: y.to(dtype) for n, y in want.items()}, dtype)[0] < 1
    for name in want:
        wrong = {n: y.clone() for n, y in want.items()}
        wrong[name].view(-1)[-1] += (1e-11 if dtype == torch.float64 else 1e-3) * want[name].abs().max().clamp_min(1.0)
        error, where = every.truth.worst(wrong, dtype)
        assert error > 1 and where == name


# ---- what a fault leaves behind


def test_a_fault_becomes_a_program(tmp_path: Path) -> None:
    with Kernels().used():
        each = trial(5, small=True)
    finding = Finding(each, Look("hoisted", "serial", torch.float32), "off")
    scope: dict[str, object] = {"__name__": "fault"}
    exec(finding.program(), scope)
    assert scope["TRIAL"] == each and isinstance(each.setting, Setting) and isinstance(each.written.lines[0], Line)
    assert each.written.source in finding.program() and 'Look(rewrite=\'hoisted\', backend=\'serial\'' in finding.program()


def test_a_cell_that_is_refused_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.problems.pipeline_of", lambda spec: 1 / 0)
    [finding] = search(trials([0], lambda _: [Look("", "reference", torch.float64)], small=True, mark="_refused"), Kernels())
    assert "ZeroDivisionError" in finding.what and finding.trial.setting.seed == 0


def test_choices_shrink() -> None:
    """Here a fault is any cell that calls softplus."""
    def fault(choices: list[int]) -> tuple[Written, list[int]] | None:
        dice = Choices(replay=choices)
        written = grow(dice)
        return (written, dice.taken) if "softplus" in written.source else None

    seed = next(s for s in range(99) if "softplus" in grow(Choices(s)).source)
    dice = Choices(seed)
    assert grow(dice) == fault(dice.taken)[0]  # type: ignore[index]
    small, _ = smallest((grow(Choices(seed)), dice.taken), fault, float("inf"))  # type: ignore[arg-type]
    assert len(small.lines) <= 2 and len(re.findall(r"\w+\(", small.source)) <= 5


def test_the_command_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Two processes of one small cell each, in two runs."""
    monkeypatch.setattr(command, "TOGETHER", 1)
    monkeypatch.setattr(command, "most_looks", lambda _: [Look("", "reference", torch.float64)])
    for cells_ in (1, 2, 2):
        assert command.main(["--cells", str(cells_), "--out", str(tmp_path)]) == 0
    said = capfd.readouterr().out
    assert "from cell 0, 0 faults" in said and "from cell 1, 0 faults" in said and "from cell 2, 0 faults" in said
    assert "cells 1 to 1: 2 cells, 2 looks" in said


def test_the_command_survives_what_kills_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capfd: pytest.CaptureFixture[str]) -> None:
    import os

    monkeypatch.setattr(command, "cells", lambda first, out: os._exit(139))
    assert command.main(["--cells", "20", "--minutes", "0.0001", "--out", str(tmp_path)]) == 1
    assert "cells 0 to 19: the process died with 139" in capfd.readouterr().out


def test_there_is_a_look_at_everything() -> None:
    looks = [look for n in range(21) for look in all_looks(n)]
    assert {look.rewrite for look in looks if look.backend != "reference"} == {"", *REWRITES}
    assert {(look.backend, look.dtype) for look in all_looks(0) if not look.rewrite} == {
        (b, d) for b in ("reference", *BACKENDS) for d in (torch.float32, torch.float64)}
