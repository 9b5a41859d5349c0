"""From CUDA text to a cubin: where nvcc is found, what the cache keeps, what is said where nvcc refuses.

Most tests bring an nvcc and a PyCUDA of their own; the last ones need the real ones.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lrdsl as lr
from lrdsl.backends import cache, cuda_compile
from lrdsl.errors import BackendUnavailable, ToolchainError
from lrdsl.ir.source import fields
from lrdsl.kernels import source_of
from lrdsl.passes.schedule import schedules
from lrdsl.programs import plan_of
from tests.backends.driver import build

ROOT = Path(__file__).parents[2]
TEXT = "// sm_90, h = α\nextern \"C\" __global__ void k(float *x) { x[0] = 1; }\n"

# An nvcc that gives its options and the text as the cubin, unless the text says what is wrong with it.
NVCC = """#!/bin/sh
for word; do case "$word" in *.cu) text=$word;; esac; done
if grep -q wrong "$text"; then
  echo 'k.cu(7): warning: unused' >&2
  grep wrong "$text" | sed 's/^/k.cu(8): error: /' >&2
  exit 2
fi
{ echo "$@"; cat "$text"; } > kernel.cubin
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, empty, and nothing that nvcc would obey."""
    for name in ("CUDA_HOME", "CUDA_PATH", *cuda_compile.VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LRDSL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def install(folder: Path, text: str = NVCC) -> Path:
    """A compiler in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nvcc"
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Path) -> Path:
    """The first compiler on PATH."""
    path = install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


class CompileError(Exception):
    """As pycuda.driver.CompileError."""


def compile_plain(source: str, options: list[str], keep: bool, nvcc: str, cache_dir: Any, target: str = "cubin") -> bytes:
    """As PyCUDA's function of this name."""
    assert cache_dir is False and keep is False and source.isascii()
    work = Path(os.environ["LRDSL_CACHE_DIR"]).with_name("work")
    work.mkdir(exist_ok=True)
    (work / "kernel.cu").write_text(source)
    done = subprocess.run([nvcc, f"--{target}", *options, "kernel.cu"], cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError("nvcc compilation of kernel.cu failed")
    return (work / "kernel.cubin").read_bytes()


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A PyCUDA that can compile and nothing else."""
    package, compiler = ModuleType("pycuda"), ModuleType("pycuda.compiler")
    compiler.compile_plain, package.compiler = compile_plain, compiler  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.compiler", compiler)
    return compiler


# ---- with an nvcc and a PyCUDA of our own ------------------------------------------------------------------------------


def test_nvcc_is_looked_for_on_path_then_where_the_toolkit_is(tmp_path: Path, place: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert cuda_compile.find_nvcc() is None
    with pytest.raises(BackendUnavailable, match=r"no nvcc(?s:.*)CUDA_HOME"):
        cuda_compile.nvcc()
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        path = install(tmp_path / variable / "bin")
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert cuda_compile.find_nvcc() == (str(path), f"${variable}")
    path = install(tmp_path / "bin")
    assert cuda_compile.find_nvcc() == (str(path), "PATH") and cuda_compile.nvcc() == str(path)


def test_a_cubin_is_compiled_once(nvcc: Path, pycuda: ModuleType, place: Path) -> None:
    data = cuda_compile.cubin(TEXT, "k", "sm_90")
    command, *text = data.decode().splitlines()
    assert command == "--cubin -w -Wno-deprecated-gpu-targets -arch=sm_90 kernel.cu"
    assert text == ["// sm_90, h = &#945;", TEXT.splitlines()[1]]  # a comment may hold any letter, a locale may not
    [entry] = place.iterdir()
    assert entry.suffix == ".cubin" and cache.read(place, entry.name) == data
    pycuda.compile_plain = None
    assert cuda_compile.cubin(TEXT, "k", "sm_90") == data


def test_a_damaged_entry_is_compiled_again(nvcc: Path, pycuda: ModuleType, place: Path) -> None:
    data = cuda_compile.cubin(TEXT, "k", "sm_90")
    [entry] = place.iterdir()
    entry.chmod(0o700)
    entry.write_bytes(entry.read_bytes()[:-1])
    assert cuda_compile.cubin(TEXT, "k", "sm_90") == data and cache.read(place, entry.name) == data


def test_the_key_changes_with_every_ingredient(nvcc: Path, place: Path, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cache, "read", lambda place, name: asked.append(name) or b"code")

    def ask(text: str = TEXT, arch: str = "sm_90") -> None:
        assert cuda_compile.cubin(text, "k", arch) == b"code"

    ask()
    ask("// moved to another line\n" + TEXT)
    assert asked[0] == asked[1]
    ask(TEXT + "int y;\n")
    ask(arch="sm_80")
    for name in cuda_compile.VARIABLES:
        with monkeypatch.context() as m:
            m.setenv(name, "--fmad=false")
            ask()
    with monkeypatch.context() as m:
        m.setattr(cuda_compile, "OPTIONS", (*cuda_compile.OPTIONS, "-G"))
        ask()
    os.utime(nvcc, (1, 1))  # a new version of it
    ask()
    nvcc.write_text(NVCC + "\n")
    os.utime(nvcc, (1, 1))
    ask()
    install(tmp_path / "bin2")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin2'}:/usr/bin:/bin")
    ask()
    assert len(set(asked)) == len(asked) - 1


def test_the_oldest_cubins_are_dropped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LARGEST", 10)
    place.mkdir(mode=0o700)
    names = [cache.key([str(n)]) + ".cubin" for n in range(11)]
    for n, name in enumerate(names):
        os.utime(cache.put(place, name, b"code"), (n, n)) if n < 10 else cache.put(place, name, b"code")
    assert {p.name for p in place.iterdir()} == set(names[2:])


def test_a_full_disk_costs_only_the_cache(nvcc: Path, pycuda: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(place: Path, name: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "put", refuse)
    assert b"-arch=sm_90" in cuda_compile.cubin(TEXT, "k", "sm_90") and not list(place.iterdir())


@pytest.mark.parametrize("error", [CompileError("nvcc failed"), ImportError("libcuda.so.1: cannot open shared object file")],
                         ids=["with a driver", "without"])
def test_nvccs_first_error_is_told(error: Exception, nvcc: Path, pycuda: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                   tmp_path: Path) -> None:
    """Without libcuda PyCUDA says that it is missing, and not what nvcc said."""
    def refuse(*_: Any) -> None:
        raise error

    pycuda.compile_plain = refuse
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ToolchainError) as caught:
        cuda_compile.cubin(TEXT + "wrong here\n", "k", "sm_90")
    text = str(caught.value)
    assert "error: wrong here" in text and "unused" not in text and f"{nvcc} --cubin -w " in text
    [kept] = tmp_path.glob("lrdsl-k-*.cu")
    assert str(kept) in text and kept.read_text().endswith("wrong here\n")


def test_an_nvcc_that_cannot_be_started(nvcc: Path, pycuda: ModuleType) -> None:
    nvcc.write_text("#!/no/such/shell\n")
    with pytest.raises(BackendUnavailable, match=r"cannot be compiled here: .*No such file"):
        cuda_compile.cubin(TEXT, "k", "sm_90")


def test_no_pycuda(nvcc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(BackendUnavailable, match=r"no PyCUDA(?s:.*)pip install pycuda"):
        cuda_compile.cubin(TEXT, "k", "sm_90")


# ---- with the real ones ------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(not (build.has("pycuda") and cuda_compile.find_nvcc()), reason="needs PyCUDA and nvcc")


@real
def test_generated_text_becomes_a_cubin_that_takes_the_words_it_is_launched_with(tmp_path: Path,
                                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRDSL_CACHE_DIR", str(tmp_path))
    program = plan_of(lr.cells.linear_scan.spec).programs[0]
    for kernel in schedules(program, "cuda", "float32"):
        source = source_of(program, "cuda", "float32", strategy=kernel.strategy)
        words = len(fields(program)) + bool(source.chunk)
        size = f"{source.text}\nstatic_assert(sizeof({source.entry}_::Args) == 8 * {words}, \"words\");\n"
        data = cuda_compile.cubin(size, source.entry, "sm_90")
        assert data.startswith(b"\x7fELF") and source.entry.encode() in data
    with pytest.raises(ToolchainError, match="words"):
        cuda_compile.cubin(size.replace("8 *", "9 *"), source.entry, "sm_90")


SCRIPT = """
import ctypes, sys
if len(sys.argv) > 1:
    ctypes.CDLL(sys.argv[1])
from lrdsl.backends import cuda_compile
from lrdsl.errors import ToolchainError
try:
    cuda_compile.cubin("__global__ void k() { wrong; }", "k", "sm_90")
except ToolchainError as error:
    print(error, type(error.__cause__).__name__)
"""


def said(*arguments: str, place: Path) -> str:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "TMPDIR": str(place), "LRDSL_CACHE_DIR": str(place)}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@real
def test_what_the_real_nvcc_refuses(tmp_path: Path) -> None:
    assert 'error: identifier "wrong" is undefined' in said(place=tmp_path)


@real
@pytest.mark.skipif(not build.gcc(), reason="needs gcc")
def test_what_the_real_nvcc_refuses_where_pycuda_finds_a_driver(tmp_path: Path) -> None:
    import pycuda

    [library] = Path(pycuda.__file__).parent.glob("_driver.*.so")
    text = said(str(build.stub(library, tmp_path)), place=tmp_path)
    assert 'error: identifier "wrong" is undefined' in text and text.rstrip().endswith("CompileError")


@real
@pytest.mark.skipif(not (build.gcc() and build.has("cuda.bindings")), reason="needs gcc and cuda.bindings")
def test_from_text_to_launch_through_all_libraries(tmp_path: Path) -> None:
    """Only nvcc and libcuda.so.1 are not the real ones."""
    image = install(tmp_path / "bin", "#!/bin/sh\nprintf 'FAKE sm_90 scan 40' > kernel.cubin\n")
    script = "import ctypes, sys; ctypes.CDLL(sys.argv[1])\n" \
             "from tests.backends.test_cuda import PROGRAM, VALUES, Source, cuda\n" \
             "cuda.load(Source('cuda', 'scan', '', PROGRAM, 'float32', 64))(VALUES, stream=5)\n"
    log = tmp_path / "log"
    subprocess.run([sys.executable, "-c", script, str(build.fake(tmp_path))], cwd=ROOT, check=True, env={
        **os.environ, "PATH": f"{image.parent}:/usr/bin:/bin", "FAKE_CUDA_LOG": str(log), "LRDSL_CACHE_DIR": str(tmp_path)})
    assert "launch scan on 0: 3x64, stream 5, " in log.read_text()
