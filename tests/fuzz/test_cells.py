"""Random cells mean what their text says, on every backend; and what says so is tested itself.

`make fuzz` tries as many as there is time for.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings

import tests.fuzz.__main__ as command
from lrdsl.errors import BothDirections, CellError, NotBuilt
from tests import truth
from tests.nn.compare import leaf

from .battery import SHORT, Finding, Look, Trial, all_looks, expected, search, some_looks, trial, trials
from .compare import NARROW
from .forms import FEATURES, FORMS, MORE, REFUSED, fits
from .grammar import HOLE, Choices, Grower, cells, grow
from .kernels import BACKENDS, Kernels
from .meaning import FUNCTIONS, Meaning
from .problems import Setting, Subject, meaning_of, pose, setting
from .rewrites import REWRITES
from .shrink import smallest
from .written import Line, Written

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
    texts = [grow(Choices(seed), small=seed % 2 == 0) for seed in range(1000)]
    sources = "\n".join(w.source for w in texts)
    tables = [FORMS, *MORE.values()]
    known = {*(sort for table in tables for sort in table), *(n[1:] for n in dir(Grower) if n[0] == "_")}
    assert {hole for table in tables for forms in table.values() for form in forms for hole in HOLE.findall(form)} <= known
    assert {f for f in FUNCTIONS if f"{f}(" not in sources} == set()
    for form in ("[t - 8]", "[t + 8]", " > ", " >= ", " < ", " <= ", " & ", " | ", "~", "** 2", "** 3", "** 0.5", "** (-2)",
                 " / ", "lr.Scalar", "lr.Vector", "learned=True", "size=4", "bias=False", "bias=0.5", 'return {"y0"', "1j",
                 "lr.Vector(size=3", "lr.Scalar(size=2", "lr.State(size=5", "lr.Affine(axis=1", "lr.Input(axis=3",
                 "lr.Vector(complex=True)", "lr.Affine(complex=True)", 'init=float("-inf")', 'init=float("inf")', "0.2j",
                 "lr.first[t]", "lr.Mask(p=0.3)"):
        assert form in sources, form
    assert {len(w.of("State")) for w in texts} == {1, 2, 3, 4}
    assert {max(map(len, _groups(w))) for w in texts} == {1, 2, 3}
    assert {w.reverse for w in texts} == {False, True} and len({w.source for w in texts}) > 980
    assert {len({line.way for line in w.lines if line.state}) for w in texts if w.both_ways} == {1, 2}
    together = {frozenset(pair) for w in texts for pair in itertools.combinations(w.features, 2)}
    assert together == {frozenset(p) for p in itertools.combinations(FEATURES, 2) if fits(frozenset(p))}
    assert grow(Choices(7)) == grow(Choices(7))


@pytest.mark.parametrize("pair", [p for p in REFUSED if p <= {*FEATURES}], ids=lambda pair: " and ".join(sorted(pair)))
def test_what_is_not_grown_is_refused(pair: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair of REFUSED is still refused, by name and at a line of the text; else it is time to grow it."""
    monkeypatch.setattr("tests.fuzz.forms.REFUSED", ())
    said: list[CellError] = []
    for seed in range(1500):
        written = grow(Choices(seed), f"refused_{seed}")
        if said:
            break
        if written.features == pair:
            try:
                assert Subject(written).pipeline  # one of the two may not have come to be used
            except CellError as error:
                said += [e for e in error.errors if not expected(e)]
    assert said, "it is time to grow them: take the pair out of REFUSED"
    assert all(isinstance(e, NotBuilt | BothDirections) and e.where and "lr.cell" not in e.where.excerpt() for e in said), said


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
    lengths = [s.lengths for s in said if s.lengths]
    assert {len(n) for n in lengths} >= {1, 3} and any(0 in n for n in lengths)
    assert all(sum(s.lengths) == s.T and s.B == 1 for s in said if s.lengths)


# ---- what says what a text means


def test_the_meaning_of_a_scan_is_the_loop_of_the_truth() -> None:
    text = "@lr.cell\ndef scan(a: lr.Input, b: lr.Input, h: lr.State):\n    h[t] = a[t] * h[t - 1] + b[t]\n    return h[t]\n"
    a, b, h0, reset = leaf(2, 6, 3).double(), leaf(2, 6, 3).double(), leaf(2, 3).double(), torch.rand(2, 6) < 0.4
    kinds = {"a": "Input", "b": "Input", "h": "State"}
    found = Meaning(text, "scan", kinds).run({"a": a, "b": b, "h:init": h0[:, None]}, 3, reset, {"h": 1})
    want = truth.linear_scan(a, b, h0, reset)
    torch.testing.assert_close(found["out0"], want)
    torch.testing.assert_close(found["h:final"][:, 0], want[:, -1])


def test_the_meaning_of_lags_edges_and_states_out_of_order() -> None:
    text = ("@lr.cell\ndef c(x: lr.Input, g: lr.State, h: lr.State = lr.State(init=5.0)):\n    m = g[t]\n    g[t] = h[t] + 1\n"
            "    h[t] = h[t + 2] + x[t - 1] + x[t + 1]\n    return {'y': m}\n")
    sweep = 1, frozenset({"g", "h"})
    meaning = Meaning(text, "c", {"x": "Input", "g": "State", "h": "State"}, (sweep,), {"h": 1})
    x = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)[None, :, None]
    reset = torch.tensor([[False, False, True, False]])  # h[1] and x[1+1] read beyond it, and so does x[2-1]
    found = meaning.run({"x": x, "x:init": 100 * torch.ones_like(x[:, :1])}, 1, reset, {"h": 2})
    # h[3] = 5 + 4 + 100, h[2] = 5 + 0 + 8, h[1] = 5 + 1 + 100, h[0] = 5 + 0 + 2: behind is later here, and given as 100
    assert found["out0"].flatten().tolist() == [8.0, 107.0, 14.0, 110.0]
    assert found["h:final"].flatten().tolist() == [7.0, 106.0]
    assert meaning.watch.least == 1.0


def test_the_meaning_of_both_ways_and_of_first() -> None:
    text = ("@lr.cell\ndef c(x: lr.Input, f: lr.State = lr.State(init=0.5), g: lr.State = lr.State(init=3.0)):\n"
            "    f[t] = f[t - 1] + x[t]\n    g[t] = g[t + 1] + f[t - 1] * f[t + 1]\n"
            "    return g[t] + 0.25 * lr.first[t], g[t - 1]\n")
    written = Written("c", (("x", "Input", ""), ("f", "State", "init=0.5"), ("g", "State", "init=3.0")),
                      (Line("f", "f[t - 1] + x[t]", True), Line("g", "g[t + 1] + f[t - 1] * f[t + 1]", True, 1, 1)),
                      (("", "g[t] + 0.25 * lr.first[t]"), ("", "g[t - 1]")))
    assert written.source == text.replace("(x: lr.Input, f:", "(\n    x: lr.Input,\n    f:").replace(
        ", g: lr", ",\n    g: lr").replace("):\n", ",\n):\n")
    assert written.sides == {"f": -1, "g": 1} and written.both_ways and not written.reverse
    assert written.sweeps == ((-1, {"f"}), (1, {"g"}), (-1, set()))
    meaning = Meaning(text, "c", {"x": "Input", "f": "State", "g": "State"}, written.sweeps, written.sides)
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)[None, :, None]
    edges = {"f.ahead:init": torch.full_like(x[:, :1], 10), "g.ahead:init": torch.full_like(x[:, :1], 7)}
    found = meaning.run({"x": x, **edges}, 1, None, {"f": 1, "g": 1})
    # f = 1.5, 3.5, 7.5, with 0.5 before and 10 behind: g[2] = 3 + 3.5 * 10, g[1] = 38 + 1.5 * 7.5, g[0] = 49.25 + 0.5 * 3.5
    assert found["out0"].flatten().tolist() == [51.25, 49.25, 38.0]
    assert found["out1"].flatten().tolist() == [7.0, 51.0, 49.25]
    assert found["f:final"].item() == 7.5 and found["g:final"].item() == 51.0
    given = meaning.run({"x": x, "f:init": torch.full_like(x[:, :1], 0.5), **edges}, 1, None, {})
    assert (found["out0"] - given["out0"]).flatten().tolist() == [0.25, 0.0, 0.0]  # no edge of a state is given, or one is


def test_the_meaning_of_an_axis_and_of_complex_values() -> None:
    text = ("@lr.cell\ndef c(x: lr.Input, n: lr.Input = lr.Input(axis=2), W: lr.Affine = lr.Affine(axis=2),\n"
            "      h: lr.State = lr.State(size=2, complex=True, init=1j), v: lr.Vector = lr.Vector(size=2)):\n"
            "    h[t] = v * h[t - 1] + 1j * n[t - 1] * x[t] + W(x[t], n[t])\n"
            "    return sum(h[t]), sum(re(h[t - 1] * conjugate(h[t - 1])))\n")
    kinds = {"x": "Input", "n": "Input", "h": "State", "v": "Vector", "W": "Affine"}
    B, T, C, N = 2, 4, 3, 2
    dice = torch.Generator().manual_seed(0)
    x, n, v, weight, bias = (torch.randn(shape, generator=dice, dtype=torch.float64)
                             for shape in ((B, T, C), (B, T, N), (C, N), (N, C + N), (N,)))
    tensors = {"x": x, "n": n, "v": v, "W.weight": weight, "W.bias": bias}
    found = Meaning(text, "c", kinds, sides={"h": -1}).run(tensors, C, None, {"h": 1, "n": 1})
    h, before = torch.full((B, C, N), 1j, dtype=torch.complex128), torch.zeros(B, N, dtype=torch.float64)
    for k in range(T):
        power = (h * h.conj()).real
        W = torch.cat([x[:, k], n[:, k]], 1) @ weight.T + bias
        h = v * h + 1j * before[:, None] * x[:, k, :, None] + W[:, None]
        before = n[:, k]
        torch.testing.assert_close(found["out0"][:, k], h.sum(2))
        torch.testing.assert_close(found["out1"][:, k], power.sum(2))
    torch.testing.assert_close(found["h:final"][:, 0], h)
    torch.testing.assert_close(found["n:final"][:, 0], n[:, -1])


def test_packed_segments_are_sequences_of_their_own() -> None:
    lines = (Line("h", "0.5 * h[t - 1] + x[t]", True),)
    subject = Subject(Written("c", (("x", "Input", ""), ("h", "State", "init=4.0")), lines, (("", "h[t]"),)))
    packed = Setting(1, 4, 1, "init", "batch", "first", "none", (), ("h",), "", False, 0, lengths=(1, 0, 3))
    problem = pose(subject, packed)
    assert problem.tensors["h:init"].shape == (3, 1, 1) and problem.borders == (0, 1, 1, 4)
    tensors = {"x": torch.tensor([1.0, 1, 2, 4], dtype=torch.float64)[None, :, None],
               "h:init": torch.tensor([2.0, 6, 8], dtype=torch.float64)[:, None, None]}
    found = meaning_of(subject, problem)(tensors)
    assert found["out0"].flatten().tolist() == [2.0, 5.0, 4.5, 6.25] and found["h:final"].flatten().tolist() == [2.0, 6.0, 6.25]


def test_sixteen_bits_are_allowed_what_they_round() -> None:
    with Kernels().used():
        each = next(t for t, _ in trials(range(30), lambda _: [], small=True)
                    if torch.float16 in t.truth(torch.float16)[1].dtypes)
    for dtype in NARROW:
        problem, truth = each.truth(dtype)
        assert all(torch.equal(x, x.to(dtype).double()) for x in problem.tensors.values())
        if dtype in truth.dtypes:
            assert truth.worst({n: y.to(dtype) for n, y in truth.want.items()}, dtype)[0] < 1
            name = max(truth.want, key=lambda n: float(truth.want[n].abs().max()))
            assert truth.worst({**truth.want, name: truth.want[name] * 0.7}, dtype)[0] > 1


def test_kinks_are_seen() -> None:
    text = "@lr.cell\ndef c(x: lr.Input):\n    return maximum(x[t], 0.5) + where(equal(x[t], 1), x[t], 2)\n"
    meaning = Meaning(text, "c", {"x": "Input"})
    for value, least in ((0.5, 0.3), (0.5 + 1e-9, 1e-9), (1 - 1e-8, 5e-9)):
        meaning.run({"x": torch.full((1, 1, 1), value, dtype=torch.float64)}, 1, None, {})
        assert 0.5 * least < meaning.watch.least < 2 * least


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_errors_are_seen(dtype: torch.dtype) -> None:
    """A thousandth of what a wrong gate would do, in one number of one result."""
    with Kernels().used():
        every = next(t for t, _ in trials(range(30), lambda _: [], small=True) if torch.float32 in t.truth()[1].dtypes
                     and t.truth()[1].roundings < 100)
    _, truth = every.truth(dtype)
    assert truth.worst({n: y.to(dtype) for n, y in truth.want.items()}, dtype)[0] < 1
    for name in (n for n, y in truth.want.items() if not y.is_complex()):
        wrong = {n: y.clone() for n, y in truth.want.items()}
        wrong[name].view(-1)[-1] += (1e-11 if dtype == torch.float64 else 1e-3) * truth.want[name].abs().max().clamp_min(1.0)
        error, where = truth.worst(wrong, dtype)
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
        (b, d) for b in ("reference", *BACKENDS) for d in SHORT}
