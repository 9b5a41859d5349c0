"""`lrdsl doctor` on machines that lack one thing after another, and the options that it reports."""

import ctypes
import importlib
import importlib.metadata
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lrdsl import doctor, options
from lrdsl.backends import blocks
from lrdsl.doctor import Finding


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    """None of our variables set, no compiler named, and a cache that is ours to spoil."""
    for name in (*(var.name for var in options.ENVIRONMENT), "CXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """A PATH that holds only the tools a test puts there: ``tools("g++", "g++ 99.1")``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name, *lines, folder=folder):
        folder.mkdir(parents=True, exist_ok=True)
        tool = folder / name
        tool.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
        tool.chmod(0o755)
        return tool

    return add


@pytest.fixture
def modules(monkeypatch):
    """What importing a name gives: a module, or an exception to raise. ``modules["pycuda"] = ImportError("no")``."""
    given = {}
    real = importlib.import_module

    def load(name, *rest):
        if name not in given:
            return real(name, *rest)
        if isinstance(given[name], Exception):
            raise given[name]
        return given[name]

    monkeypatch.setattr(importlib, "import_module", load)
    return given


@pytest.fixture
def driver(monkeypatch):
    """An NVIDIA driver: a version as the driver tells it, or the error of loading it."""

    real = ctypes.CDLL

    def install(answer, status=0):
        def load(name, *rest, **options):
            if name != "libcuda.so.1":  # torch loads libraries of its own this way
                return real(name, *rest, **options)
            if isinstance(answer, Exception):
                raise answer

            def get_version(pointer):
                pointer._obj.value = answer
                return status

            return SimpleNamespace(cuDriverGetVersion=get_version)

        monkeypatch.setattr(ctypes, "CDLL", load)

    return install


def fake_torch(cuda=None, gpus=()):
    return SimpleNamespace(
        __version__="9.9.0",
        version=SimpleNamespace(cuda=cuda, hip=None),
        get_num_threads=lambda: 3,
        cuda=SimpleNamespace(
            is_available=lambda: bool(gpus),
            device_count=lambda: len(gpus),
            get_device_name=lambda i: gpus[i],
            get_device_capability=lambda i: (9, 0),
        ),
    )


def find(name) -> Finding:
    return {f.name: f for f in doctor.report()}[name]


def check_missing(finding, *words):
    """It is not ok, says why in these words, and tells what that costs and what helps."""
    assert not finding.ok
    assert finding.cost and finding.remedy
    for word in words:
        assert word in finding.detail


# ---- the report ---------------------------------------------------------------------------------------------------


def test_importing_the_doctor_imports_no_library():
    code = (
        "import sys, types; package = types.ModuleType('lrdsl'); package.__path__ = sys.argv[1:]\n"
        "sys.modules['lrdsl'] = package\n"  # the doctor itself, without what lrdsl/__init__.py imports
        "import lrdsl.doctor\n"
        "print(sorted({'torch', 'sympy', 'jinja2', 'numpy', 'pycuda'} & set(sys.modules)))"
    )
    folder = str(Path(doctor.__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_report_names_everything_once_and_in_order():
    names = [f.name for f in doctor.report()]
    assert names == [
        "Python", "torch", "sympy", "jinja2", "numpy", "C++ compiler", "nvcc", "NVIDIA driver", "PyCUDA",
        "cuda.bindings", "GPU", "kernel cache", "output pool", "reference backend", "native backend", "cuda backend",
        "emulated backend",
    ]  # fmt: skip


def test_what_this_very_process_uses_is_found():
    assert find("Python").ok and sys.executable in find("Python").detail
    for name in ("sympy", "jinja2", "numpy"):
        assert find(name) == Finding(name, True, importlib.metadata.version(name))
    torch = importlib.import_module("torch")
    assert find("torch").ok and torch.__version__ in find("torch").detail


def test_every_missing_thing_tells_its_cost_and_its_remedy(tools, modules, driver):
    for name in ("torch", "pycuda", "cuda.bindings"):
        modules[name] = ModuleNotFoundError(f"No module named {name!r}")
    driver(OSError("libcuda.so.1: cannot open shared object file"))
    missing = [f for f in doctor.report() if not f.ok]
    assert {f.name for f in missing} >= {
        "torch",
        "C++ compiler",
        "nvcc",
        "NVIDIA driver",
        "PyCUDA",
        "cuda.bindings",
        "GPU",
        "native backend",
        "cuda backend",
        "emulated backend",
    }
    for finding in missing:
        check_missing(finding)


def test_a_check_that_breaks_is_a_finding_and_stops_no_other(monkeypatch):
    def broken():
        raise ZeroDivisionError("oh")

    checks = tuple((name, broken if name in ("nvcc", "GPU") else check) for name, check in doctor._CHECKS)
    monkeypatch.setattr(doctor, "_CHECKS", checks)
    check_missing(find("nvcc"), "the check itself failed", "oh")
    check_missing(find("GPU"), "oh")
    assert find("sympy").ok and find("reference backend").ok


def test_a_library_that_dies_while_it_loads_is_missing(modules):
    modules["torch"] = OSError("libgomp.so.1: cannot open shared object file\nand a second line")
    finding = find("torch")
    check_missing(finding, "libgomp.so.1")
    assert "\n" not in finding.detail
    check_missing(find("GPU"), "torch is missing")


def test_a_package_that_is_not_installed(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "numpy":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    check_missing(find("numpy"), "not installed")
    check_missing(find("reference backend"), "numpy")
    assert find("sympy").ok


# ---- compilers ----------------------------------------------------------------------------------------------------


def test_no_compiler_in_path(tools):
    check_missing(find("C++ compiler"), "g++", "clang++", "c++", "PATH")
    check_missing(find("native backend"), "C++ compiler")
    check_missing(find("emulated backend"), "C++ compiler")
    assert find("reference backend").ok


def test_the_first_compiler_in_path_is_taken(tools):
    tools("c++", "some c++ 1.0")
    clang = tools("clang++", "clang version 77.0", "Target: x86_64")
    assert find("C++ compiler") == Finding("C++ compiler", True, f"clang version 77.0, {clang}")
    assert find("native backend").ok


def test_cxx_may_hold_arguments(tools, monkeypatch):
    tools("g++", "g++ 1.0")
    mine = tools("my-cxx", "mine 2.0")
    monkeypatch.setenv("CXX", "my-cxx -m64")
    assert find("C++ compiler").detail == f"mine 2.0, {mine} (from $CXX)"


def test_cxx_that_names_nothing_is_an_error_even_beside_a_compiler(tools, monkeypatch):
    tools("g++", "g++ 1.0")
    monkeypatch.setenv("CXX", "no-such-compiler")
    check_missing(find("C++ compiler"), "$CXX", "no-such-compiler")
    assert "$CXX" in find("C++ compiler").remedy


def test_a_compiler_that_says_nothing_is_still_a_compiler(tools):
    tools("g++")
    assert find("C++ compiler").ok and "version unknown" in find("C++ compiler").detail


def test_nvcc_in_path_under_cuda_home_and_nowhere(tools, monkeypatch, tmp_path):
    check_missing(find("nvcc"), "PATH", "$CUDA_HOME")
    lines = "nvcc: NVIDIA (R) Cuda compiler driver", "Cuda compilation tools, release 42.1, V42.1.7"
    inside = tools("nvcc", *lines, folder=tmp_path / "toolkit" / "bin")
    check_missing(find("nvcc"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    assert find("nvcc").detail == f"release 42.1, V42.1.7, {inside} (from $CUDA_HOME)"
    tools("nvcc", "release 43.0")
    assert find("nvcc").detail.startswith("release 43.0") and find("nvcc").detail.endswith("(from PATH)")


# ---- the GPU ------------------------------------------------------------------------------------------------------


def test_no_driver(driver):
    driver(OSError("libcuda.so.1: cannot open shared object file: No such file or directory"))
    check_missing(find("NVIDIA driver"), "libcuda.so.1", "cannot open")


def test_a_driver_tells_the_cuda_it_is_for(driver):
    driver(13020)
    assert find("NVIDIA driver") == Finding("NVIDIA driver", True, "libcuda.so.1, for CUDA up to 13.2")
    driver(0, status=999)
    assert find("NVIDIA driver").ok and "does not tell" in find("NVIDIA driver").detail


def test_pycuda_compiles_without_a_driver_library(modules):
    modules["pycuda"] = ModuleNotFoundError("No module named 'pycuda'")
    check_missing(find("PyCUDA"), "No module named")
    assert "pip install" in find("PyCUDA").remedy
    modules["pycuda"] = SimpleNamespace(VERSION_TEXT="2030.1")
    modules["pycuda.compiler"] = ImportError("No module named 'pytools'")
    check_missing(find("PyCUDA"), "pytools")
    modules["pycuda.compiler"] = SimpleNamespace()
    modules["pycuda.driver"] = ImportError("libcuda.so.1: cannot open shared object file")
    detail = "2030.1; it compiles, but pycuda.driver cannot be imported: libcuda.so.1: cannot open shared object file"
    assert find("PyCUDA") == Finding("PyCUDA", True, detail)
    modules["pycuda.driver"] = SimpleNamespace()
    assert find("PyCUDA") == Finding("PyCUDA", True, "2030.1")


def test_cuda_bindings(modules):
    modules["cuda.bindings"] = ModuleNotFoundError("No module named 'cuda'")
    check_missing(find("cuda.bindings"), "No module named")
    modules["cuda.bindings"] = SimpleNamespace(__version__="13.9")
    modules["cuda.bindings.driver"] = ImportError("undefined symbol: cuInit")
    check_missing(find("cuda.bindings"), "undefined symbol")
    modules["cuda.bindings.driver"] = SimpleNamespace()
    assert find("cuda.bindings") == Finding("cuda.bindings", True, "13.9")


def test_gpus_as_torch_sees_them(modules):
    modules["torch"] = fake_torch()
    assert find("torch").detail == "9.9.0, CPU build, 3 threads"
    check_missing(find("GPU"), "without CUDA")
    modules["torch"] = fake_torch(cuda="13.0")
    assert find("torch").detail == "9.9.0, CUDA 13.0 build, 3 threads"
    check_missing(find("GPU"), "sees none")
    modules["torch"] = fake_torch(cuda="13.0", gpus=("H1", "H2"))
    assert find("GPU") == Finding("GPU", True, "H1 (sm_90), H2 (sm_90)")


def test_the_cuda_backend_needs_all_that_compiles_and_runs(modules, driver, tools):
    tools("nvcc", "release 43.0")
    driver(13000)
    modules["torch"] = fake_torch(cuda="13.0", gpus=("H1",))
    modules["pycuda"] = SimpleNamespace(VERSION_TEXT="1")
    modules["cuda.bindings"] = SimpleNamespace(__version__="1")
    modules["pycuda.compiler"] = modules["pycuda.driver"] = modules["cuda.bindings.driver"] = SimpleNamespace()
    assert find("cuda backend") == Finding("cuda backend", True, "runs here")
    tools("nvcc").unlink()
    driver(OSError("no"))
    modules["torch"] = fake_torch(cuda="13.0")
    modules["pycuda"] = modules["cuda.bindings"] = ImportError("no")
    check_missing(find("cuda backend"), "lacks: nvcc, NVIDIA driver, PyCUDA, cuda.bindings, GPU")


# ---- the kernel cache ---------------------------------------------------------------------------------------------


def test_a_cache_that_is_not_made_yet_is_fine(tmp_path):
    assert find("kernel cache") == Finding("kernel cache", True, f"{tmp_path / 'lrdsl'}, not made yet")
    assert not (tmp_path / "lrdsl").exists()


def test_a_cache_in_use_tells_its_size(monkeypatch, tmp_path):
    cache = tmp_path / "mine"
    (cache / "deep").mkdir(parents=True, mode=0o700)
    cache.chmod(0o700)
    monkeypatch.setenv("LRDSL_CACHE_DIR", str(cache))
    assert find("kernel cache").detail == f"{cache}, empty"
    (cache / "one.so").write_bytes(bytes(2**20))
    (cache / "deep" / "two.so").write_bytes(bytes(2**19))
    assert find("kernel cache").detail == f"{cache}, 2 files, 1.5 MiB"
    assert doctor._size(cache, limit=1).startswith("more than 1 file, more than ")


def trouble_file(cache, monkeypatch):
    cache.write_text("")


def trouble_link(cache, monkeypatch):
    cache.symlink_to(cache.parent)


def trouble_owner(cache, monkeypatch):
    cache.mkdir(mode=0o700)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)


def trouble_others_write(cache, monkeypatch):
    cache.mkdir()
    cache.chmod(0o777)


def trouble_read_only(cache, monkeypatch):
    cache.mkdir()
    cache.chmod(0o500)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere


def trouble_parent(cache, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)


@pytest.mark.parametrize("spoil, words", [
    (trouble_file, "not a directory"),
    (trouble_link, "a link"),
    (trouble_owner, "belongs to user"),
    (trouble_others_write, "written by others (mode 0777)"),
    (trouble_read_only, "cannot be written (mode 0500)"),
    (trouble_parent, "is not writable"),
])  # fmt: skip
def test_a_cache_that_cannot_be_trusted_or_used(spoil, words, monkeypatch, tmp_path):
    spoil(tmp_path / "lrdsl", monkeypatch)
    finding = find("kernel cache")
    check_missing(finding, str(tmp_path / "lrdsl"), words)
    assert finding.word == "wrong"


# ---- text ---------------------------------------------------------------------------------------------------------


def test_render_aligns_and_tells_cost_and_remedy_only_of_what_is_missing():
    text = doctor.render(
        [
            Finding("g++", True, "12.2", cost="not told", remedy="not told"),
            Finding("a GPU", False, "none", cost="speed", remedy="buy one"),
            Finding("cache", False, "not yours", cost="time", word="wrong"),
        ]
    )
    assert text.splitlines() == [
        "g++    ok       12.2",
        "a GPU  missing  none",
        "                without it: speed",
        "                way out:    buy one",
        "cache  wrong    not yours",
        "                without it: time",
    ]  # fmt: skip
    assert doctor.render([]) == ""


def test_a_whole_report_renders_every_name():
    found = doctor.report()
    text = doctor.render(found)
    assert [f.name for f in found if f"\n{f.name} " not in "\n" + text] == []
    assert all(line == line.rstrip() for line in text.splitlines())


# ---- the pool of large outputs ------------------------------------------------------------------------------------


def test_the_pool_says_what_it_holds(monkeypatch):
    monkeypatch.setattr(blocks, "POOL", blocks.Pool())
    monkeypatch.setenv("LRDSL_POOL", "2G")
    blocks.POOL.keep(1 << 30)
    held = [blocks.POOL.buffer(8 << 20) for _ in range(3)]
    held.pop()
    assert find("output pool").detail.startswith("16 MiB in use, 8 MiB idle of at most 2048 MiB, 0 hits, 3 misses")
    monkeypatch.setenv("LRDSL_POOL", "0")
    finding = find("output pool")
    check_missing(finding, "LRDSL_POOL is 0")
    assert finding.word == "off"
    monkeypatch.setenv("LRDSL_POOL", "a lot")
    finding = find("LRDSL_POOL")
    check_missing(finding, "LRDSL_POOL is 'a lot', and means a number of bytes")
    assert finding.word == "wrong"


# ---- the settings -------------------------------------------------------------------------------------------------


def test_settings_are_reported_when_they_are_set(monkeypatch):
    monkeypatch.setenv("LRDSL_BACKEND", "Native")
    monkeypatch.setenv("LRDSL_DUMP", "  ")
    assert find("LRDSL_BACKEND") == Finding("LRDSL_BACKEND", True, "Native")
    assert "LRDSL_DUMP" not in {f.name for f in doctor.report()}


@pytest.mark.parametrize("name, value, strange, choice", [
    ("LRDSL_BACKEND", "gpu", "gpu", "native"),
    ("LRDSL_LOGS", "compile,launchh", "launchh", "codegen"),
    ("LRDSL_PRODUCTS", "mkl", "mkl", "onednn"),
])  # fmt: skip
def test_a_setting_that_means_nothing_is_told(name, value, strange, choice, monkeypatch):
    monkeypatch.setenv(name, value)
    finding = find(name)
    check_missing(finding, f"unknown is {strange}")
    assert finding.word == "wrong" and choice in finding.remedy


def test_unset_and_empty_options_are_the_defaults(monkeypatch, tmp_path):
    for _ in range(2):
        assert (options.dump_dir(), options.backend(), options.logs(), options.pool()) == (None, None, frozenset(), None)
        assert options.cache_dir() == tmp_path / "lrdsl"
        for var in options.ENVIRONMENT:
            monkeypatch.setenv(var.name, "")


def test_options_are_read_when_they_are_asked_for(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("LRDSL_DUMP", "~/dump")
    monkeypatch.setenv("LRDSL_BACKEND", " CUDA ")
    monkeypatch.setenv("LRDSL_CACHE_DIR", "~/kernels")
    monkeypatch.setenv("LRDSL_LOGS", "codegen, Launch,")
    assert options.dump_dir() == Path("/home/someone/dump")
    assert options.backend() == "cuda"
    assert options.cache_dir() == Path("/home/someone/kernels")
    monkeypatch.setenv("LRDSL_PRODUCTS", " Blas ")
    assert options.logs() == {"codegen", "launch"}
    assert options.products() == "blas"


def test_where_the_cache_lies_without_a_setting(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    for useless in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", useless)
        assert options.cache_dir() == Path("/home/someone/.cache/lrdsl")


def test_a_user_without_a_home_still_has_a_cache_of_his_own(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert options.cache_dir().name == f"lrdsl-{os.getuid()}" and options.cache_dir().is_absolute()


@pytest.fixture
def loggers():
    """The loggers as they were, afterwards."""
    names = ("lrdsl", *(f"lrdsl.{name}" for name in options.LOGS))
    saved = {name: (logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.NOTSET)
    yield
    for name, (level, handlers) in saved.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers[:] = handlers


def test_logs_speak_once_and_only_those_that_were_named(loggers, monkeypatch, capsys):
    monkeypatch.setenv("LRDSL_LOGS", "compile")
    options.configure_logs()
    options.configure_logs()
    logging.getLogger("lrdsl.compile").debug("took %d ms", 7)
    logging.getLogger("lrdsl.launch").debug("not told")
    assert capsys.readouterr().err == "lrdsl.compile: took 7 ms\n"


def test_no_log_is_configured_when_none_is_named(loggers, capsys):
    before = logging.getLogger("lrdsl").handlers[:]
    options.configure_logs()
    assert logging.getLogger("lrdsl").handlers == before
    logging.getLogger("lrdsl.compile").debug("not told")
    assert capsys.readouterr().err == ""


def test_an_unknown_log_is_told(loggers, monkeypatch, capsys):
    monkeypatch.setenv("LRDSL_LOGS", "compiel")
    options.configure_logs()
    assert "compiel" in capsys.readouterr().err
