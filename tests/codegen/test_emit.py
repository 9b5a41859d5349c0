"""The generated C++ itself: its names, its comments, and its text where people read it."""

from __future__ import annotations

import linecache
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jinja2
import pytest

import lrdsl as lr
from lrdsl import files
from lrdsl.backends import native
from lrdsl.codegen import environment as env
from lrdsl.codegen.emit import _plain, emit, emit_together, view
from lrdsl.errors import InternalError
from lrdsl.ir.names import RESERVED, c_name
from lrdsl.ir.source import SIZES, fields
from lrdsl.kernels import source_of
from lrdsl.passes.schedule import schedule
from tests.backends.harness import KINDS, programs
from tests.cells_for_tests import CELLS

GXX = shutil.which("g++") or shutil.which("clang++")

# Names that a cell may use, and that the text uses itself, C++ keeps for itself, or a compiler defines.
HOSTILE = """B C T V I Args Index Step Scratch Window Boundaries Work WHOLE LANES CACHE LR_BYTES LR_INLINE real double float int
long new delete this auto struct union typename template operator xor switch linux unix main malloc printf expf errno zeros
constant_0 h_kept h_start h_final h_beyond h_crossing to_h to_h_0 x_part x_total x_row x_batch g_time h_prev h_next q_2 λ ﬁ x__y
_x __x lr_exp store load load_n get put write past fold share sweep lanes cross width scratch args threads lo s c n a b i at
d_h back_h reset_time earlier later window clear copy add refill NULL INFINITY EOF assert_ signal Exponential""".split()


def cell_with(name: str) -> lr.Cell:
    """A cell whose second input has the name, and so have its lag, its gradient and its state's edge."""
    text = f"""
@lr.cell
def cell(x: lr.Input, {name}: lr.Input, v: lr.Vector, h: lr.State):
    q = lr.sigmoid(x[lr.t] + {name}[lr.t - 1])
    h[lr.t] = q * h[lr.t - 1] + v * {name}[lr.t]
    return h[lr.t]
""" if name not in ("x", "v", "h", "q") else ""
    place = f"<a cell that says {name}>"
    linecache.cache[place] = (len(text), None, text.splitlines(True), place)
    space: dict[str, Any] = {"lr": lr}
    exec(compile(text, place, "exec"), space)
    return space["cell"]


@pytest.mark.skipif(not GXX, reason="no C++ compiler")
def test_no_name_of_a_cell_meets_a_name_of_the_text() -> None:
    flags = [f for f in native.FLAGS if f not in ("-w", "-shared", "-O2")]

    def check(name: str) -> str:
        texts = [source_of(p, "cpu", "float32").text for p in programs(cell_with(name), ["forward", "backward"])]
        said = [subprocess.run([GXX or "", *flags, "-fsyntax-only", "-"], input=text, text=True, capture_output=True,
                               check=False).stderr for text in texts]
        return f"{name}: {''.join(said)}" if any(said) else ""

    with ThreadPoolExecutor(2) as pool:
        assert not "".join(pool.map(check, HOSTILE))


def test_names_are_identifiers_and_different() -> None:
    taken: set[str] = set()
    strange = ["h", "h.prev", "h_prev", "h.next", "back.h", "back_h", "1", "", "a b", "x;y", "x\n", "*/", "??/", "\\"]
    for name in [*HOSTILE, *strange]:
        found = c_name(name, taken)
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", found) and "__" not in found and found not in RESERVED
    assert len(taken) == len(HOSTILE) + len(strange)
    assert [c_name(n, set()) for n in ("h", "h.prev", "gate.x", "λ")] == ["h", "h_prev", "gate_x", "u3bb"]


def named_in_templates() -> set[str]:
    """What kernels' templates call their constants, structs and functions, which a value of that name would hide."""
    found = set[str]()
    for path in [*(files.templates() / "cpu").iterdir(), *(files.templates() / "cuda").iterdir()]:
        text = re.sub(r"//.*|\{[{%#].*?[}%#]\}", "", path.read_text(encoding="utf-8"))
        for enumerators in re.findall(r"enum \{([^}]*)\}", text):
            found |= {e.split("=")[0].strip() for e in enumerators.split(",")}
        found |= set(re.findall(r"^struct (?:alignas\(\w+\) )?(\w+)", text, re.M))
        functions = r"^(?:template <[^>]*> ?)?(?:(?:static|LR_\w+|inline|constexpr|const) )+[^(;=]*?\b(\w+)\("
        found |= set(re.findall(functions, text, re.M))
    return {name for name in found if re.fullmatch(r"[A-Za-z]\w*[^\W_]", name)}


def test_names_of_templates_are_reserved() -> None:
    found = named_in_templates()
    assert {"AHEAD", "ITEM", "Gathered", "whole_vectors", "side_by_side", "load"} <= found
    assert sorted(name for name in found if c_name(name, set()) == name) == []


@pytest.mark.parametrize("name", CELLS)
def test_fields_are_the_slots_in_order(name: str) -> None:
    """What is launched by position is read by name."""
    for program in programs(CELLS[name], KINDS):
        said = [n for _, names, _ in view(schedule(program, "cpu", "float32")).args for n in names.split(", ")]
        assert len(said) == len(set(said)) == len(fields(program)) and said[-3:] == list(SIZES)
        for mine, theirs in zip(said, fields(program), strict=True):
            assert mine.removesuffix("_").replace("_", "") in theirs.replace(".", "").replace("_", "") or theirs in mine


def test_a_tensor_may_be_called_as_a_size_is() -> None:
    [program] = programs(cell_with("B"), ["forward"])
    args = [n for _, names, _ in view(schedule(program, "cpu", "float32")).args for n in names.split(", ")]
    assert {"B_2", "B_2_batch", "B_2_time"} <= set(args) and args[-3:] == ["B", "T", "C"]


@pytest.mark.parametrize("line", ["a\nint x;", "a\rb", "a \\", "a ??/", "a ??/\nint x;", "*/ int x; /*"])
def test_a_comment_ends_with_its_line(line: str) -> None:
    plain = _plain(line)
    assert "\n" not in plain and "\r" not in plain and not plain.endswith("\\") and "??" not in plain


def test_both_passes_in_one_file_are_both_alone() -> None:
    kernels = [schedule(p, "cpu", "float32") for p in programs(CELLS["gilr_lstm"], ["forward", "backward"])]
    together, alone = emit_together(kernels), emit(kernels)
    assert together.count(env.text("cpu/vmath.h")) == 1
    for source in alone:
        body = source.text[source.text.index(f"namespace {source.entry}_ {{"):]
        assert body.strip() in together and source.text.count('extern "C" void ' + source.entry) == 1
    assert len({s.entry for s in alone}) == len(alone) == 4


def test_text_is_clean() -> None:
    for cell in CELLS.values():
        for program in programs(cell, ["forward", "backward"]):
            said = source_of(program, "cpu", "float32").text
            assert said.endswith("}\n") and "\t" not in said and "#include" not in said
            assert not re.search(r"[\s\"'(]/(home|tmp|usr|work|root)", said)
            ours = said[said.index("\nnamespace "):]
            assert "\n\n\n" not in ours
            for line in ours.splitlines():
                assert line == line.rstrip() and not re.search(r"\+ -|- -|\* 1 ?\*|\+ 0\b(?!\.)", line), line


def test_golden(golden: Any) -> None:
    """The text of gilr, forward and backward; without the headers, which are files of their own, and the digests."""
    said = emit_together([schedule(p, "cpu", "float32") for p in programs(CELLS["gilr"], ["forward", "backward"])])
    for name in ("cpu/vmath.h", "cpu/common.h"):
        assert said.count(env.text(name)) == 1
        said = said.replace(env.text(name), f"// (templates/{name})\n")
    assert re.sub(r"_[0-9a-f]{8}(?=\b|_)", "_digest", said) == golden("gilr.cpp")


def test_a_template_that_asks_for_what_is_not_there_fails() -> None:
    with pytest.raises(jinja2.UndefinedError):
        env.environment().from_string("{{ kernel.nothing }}").render(kernel=object())


def test_templates_lie_in_the_wheel_or_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "__file__", str(tmp_path / "lrdsl" / "files.py"))
    with pytest.raises(InternalError, match="neither"):
        files.templates()
    (tmp_path / "templates" / "cpu").mkdir(parents=True)
    assert files.templates() == tmp_path / "templates"
    (tmp_path / "lrdsl" / "templates" / "cpu").mkdir(parents=True)
    assert files.templates() == tmp_path / "lrdsl" / "templates"


def test_what_does_not_change_with_time_is_computed_before_all_steps() -> None:
    """What only learned numbers decide, in lines of their own or within others: in no loop over time, and once."""
    @lr.cell
    def aged(x: lr.Input, v: lr.Vector, s: lr.Scalar, h: lr.State):
        decay = lr.exp(-lr.softplus(v))
        h[lr.t] = decay * h[lr.t - 1] + lr.sigmoid(s) * lr.tanh(x[lr.t])
        return h[lr.t] * lr.sigmoid(s)

    (program,) = programs(aged, ["forward"])
    kernel = schedule(program, "cpu", "float32")
    text = emit([kernel])[0].text
    before, step = (text.split(f"void {name}(const Step &at")[1].split("\n}")[0] for name in ("constant_lanes", "lanes"))
    for call in ("lr_exp", "lr_softplus", "lr_sigmoid"):
        assert before.count(f"{call}(") == 1 and call not in step
    assert "lr_tanh(" in step and "get<WHOLE>(at.decay + c, n)" in step and "(at.v + c" not in step
    assert "before all steps: " in str(kernel)
