"""A cell that an earlier process knew is found without its passes; whatever it follows from is part of its key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest

import lrdsl as lr
from lrdsl import cli, kernels, programs, stored
from lrdsl.backends import cache, native
from lrdsl.codegen import environment
from lrdsl.ir.source import Source
from lrdsl.ir.spec import Spec

TEXT = ("import lrdsl as lr\nfrom lrdsl import t\n{}@lr.cell\ndef leaky(x: lr.Input, h: lr.State, v: lr.Vector):\n"
        "    u = {} * x[t]\n    h[t] = v * h[t - 1] + lr.tanh(u)\n    return h[t]\n")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("LRDSL_CACHE_DIR", str(tmp_path / "cache"))
    return cache.directory()


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Spec]:
    """A cell in a file of its own."""
    def spec(name: str, before: str = "", number: str = "0.1") -> Spec:
        (tmp_path / f"{name}.py").write_text(TEXT.format(before, number))
        return cli.find(str(tmp_path / f"{name}.py")).spec
    return spec


def made(spec: Spec) -> Any:
    """Its Plan as a new process makes it."""
    return programs.plan_of.__wrapped__(spec)


def test_the_passes_run_once(place: Path, written: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = written("one")
    plan = made(spec)
    monkeypatch.setattr(programs, "partition", lambda _: pytest.fail("a pass has run"))
    assert made(spec) == plan and str(made(spec)) == str(plan)


def test_errors_and_comments_cite_the_lines_of_the_cell_that_runs(place: Path, written: Callable[..., Spec],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    one, moved = written("one"), written("moved", before="\n\n")
    first = made(one)
    monkeypatch.setattr(programs, "partition", lambda _: pytest.fail("a pass has run"))
    second = made(moved)
    lines = [[(Path(s.where.file).name, s.where.line) for s in plan.programs[0].steps if s.where] for plan in (first, second)]
    assert lines[0] and lines[1] == [("moved.py", line + 2) for _, line in lines[0]]
    assert stored.key(one) == stored.key(moved)


def test_all_that_a_plan_follows_from_is_in_its_key(written: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [stored.key(written("one")), stored.key(written("other", number="0.10000000000000002")),
            stored.key(lr.compiler.solved(lr.Cell(written("one")), "sequential").spec)]
    monkeypatch.setattr(stored, "fingerprint", lambda: "other code")
    stored.versions.cache_clear()
    keys.append(stored.key(written("one")))
    monkeypatch.undo()
    stored.versions.cache_clear()
    assert None not in keys and len(set(keys)) == len(keys)
    assert keys[0] == stored.key(written("one"))


@pytest.mark.parametrize("harm", [lambda _: b"", lambda data: data[:-40], lambda data: data.replace(b"leaky", b"lucky")])
def test_a_damaged_entry_is_made_again(harm: Callable[[bytes], bytes], place: Path, written: Callable[..., Spec]) -> None:
    spec = written("one")
    plan = made(spec)
    entry = place / str(stored.key(spec))
    entry.chmod(0o700)
    entry.write_bytes(harm(entry.read_bytes()))
    assert stored.find(spec) is None and made(spec) == plan and stored.find(spec) is not None


def test_an_entry_that_is_no_record_is_made_again(place: Path, written: Callable[..., Spec]) -> None:
    spec = written("one")
    for text in ("nothing", "[[],null]", json.dumps([[["os.system", 0]], None])):
        cache.put(place, str(stored.key(spec)), text.encode())
        assert stored.find(spec) is None


def test_how_parameters_are_drawn_is_no_part_of_a_plan(place: Path) -> None:
    @lr.cell
    def drawn(x: lr.Input, h: lr.State, v: lr.Vector = lr.Vector(init=lambda tensor: tensor.zero_())) -> Any:
        h[lr.t] = v * h[lr.t - 1] + x[lr.t]
        return h[lr.t]

    assert stored.find(drawn.spec) is None
    plan = made(drawn.spec)
    found = stored.find(drawn.spec)
    assert found is not None and found[0] == plan


def program() -> Any:
    return programs.plan_of(lr.cells.ema.spec).programs[0]


def recall(text: Callable[[], Source], versions: tuple[str, ...] = ("1",)) -> Any:
    return native.recall(program(), "float64", "rows", versions, text)


def text() -> Source:
    return kernels.source_of(program(), "cpu", "float64")


def test_a_kernel_is_emitted_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recall(text)
    asked: list[str] = []

    def again() -> Source:
        asked.append("text")
        return text()

    recall(again)
    assert not asked
    recall(again, ("2",))  # another version of the code
    assert len(asked) == 1
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-fno-plt"))
    recall(again)
    assert len(asked) == 2
    monkeypatch.setattr(native, "machine", lambda: "another machine")
    recall(again)
    assert len(asked) == 3


def test_a_kernel_whose_library_is_gone_is_compiled_again(place: Path) -> None:
    recall(text)
    for library in place.glob("*.so"):
        library.unlink()
    recall(text)
    assert list(place.glob("*.so"))


@pytest.mark.parametrize("change", [{"made by": []}, {"library": "../x.so"}, {"library": 7}, {"entry": "no_such"}])
def test_an_entry_that_does_not_hold_is_none(change: dict[str, Any], place: Path) -> None:
    recall(text)
    entry, = place.glob("*.json")
    said = json.loads(cache.read(place, entry.name) or b"")
    cache.put(place, entry.name, json.dumps(said | change).encode())
    asked: list[str] = []

    def again() -> Source:
        asked.append("text")
        return text()

    recall(again)
    assert asked


def test_a_kernel_that_was_begun_is_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {*native._running}  # which tests before this one began
    native.begin(program(), "float64", "rows", ("1",), text)
    monkeypatch.setattr(native, "Build", lambda *_: pytest.fail("compiled twice"))
    assert len(native._running) == len(others) + 1
    recall(text)
    assert {*native._running} == others
    native.begin(program(), "float64", "rows", ("1",), lambda: pytest.fail("it is there"))


# ---- parsed templates -----------------------------------------------------------------------------------------------


def rendered(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """The text of its forward kernel from an environment without templates, and the templates that were parsed for it."""
    parsed: list[str] = []
    parse = jinja2.Environment._parse
    environment.environment.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(jinja2.Environment, "_parse", lambda self, source, name, file: parsed.append(name) or parse(
            self, source, name, file))
        return kernels.source_of.__wrapped__(made(spec).programs[0], "cpu", "float32", strategy="rows").text, parsed


def test_templates_are_parsed_once(place: Path, written: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = written("one")
    text, parsed = rendered(spec, monkeypatch)
    assert "cpu/rows.cpp.j2" in parsed and "cpu/chain.j2" not in parsed  # which only kernels in blocks of time need
    assert rendered(spec, monkeypatch) == (text, [])
    monkeypatch.setattr(stored, "fingerprint", lambda: "other code")
    stored.versions.cache_clear()
    assert rendered(spec, monkeypatch) == (text, parsed)
    monkeypatch.undo()
    stored.versions.cache_clear()


def test_a_parsed_template_that_cannot_be_read_is_parsed_again(place: Path, written: Callable[..., Spec],
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged, or whole and no code, or written by others: never run."""
    spec = written("one")
    first = rendered(spec, monkeypatch)
    entry, *others = place.glob("*.code")
    data = entry.read_bytes()
    for harmed in (data[:-1], bytes([data[0] ^ 1]) + data[1:]):
        cache.put(place, entry.name, b"")
        entry.chmod(0o700)
        entry.write_bytes(harmed)
        assert len(rendered(spec, monkeypatch)[1]) == 1
    cache.put(place, entry.name, b"no code")
    assert len(rendered(spec, monkeypatch)[1]) == 1
    for one in (entry, *others):
        one.chmod(0o722)
    assert rendered(spec, monkeypatch) == first


def test_templates_are_parsed_where_nothing_can_be_kept(written: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise OSError("no directory")
    monkeypatch.setattr(cache, "directory", refuse)
    text, parsed = rendered(written("one"), monkeypatch)
    assert parsed and rendered(written("one"), monkeypatch) == (text, parsed)
