"""templates/cpu/vmath.h, compiled for each vector width, against float64 and 80-bit references."""

import ctypes
import functools
import itertools
import math
import mmap
import platform
import re
import subprocess

import numpy as np
import pytest

from tests.vmath import (
    BINARY,
    HEADER,
    UNARY,
    WIDE,
    assert_same,
    build,
    compile_text,
    cpu_flags,
    error,
    exact,
    header,
    pointers,
    reference,
    sample,
    ulps,
)

BUILDS = [
    (compiler, march, dtype)
    for compiler, march in (
        ("g++", "native"),
        ("g++", "x86-64-v3"),
        ("g++", "x86-64"),
        ("clang++", "native"),
    )
    for dtype in ("float", "double")
]

# The largest errors accepted, in ulp of the exact result (gelu: of x): float with fma, without; double with fma, without.
# The header states what was measured.
BOUNDS = {
    "exp": (1.1, 1.1, 1.1, 1.1),
    "expm1": (1.7, 1.8, 2.0, 2.1),
    "log": (1.0, 1.0, 1.0, 1.0),
    "log1p": (1.0, 1.1, 1.1, 1.1),
    "sigmoid": (2.1, 2.1, 2.1, 2.1),
    "silu": (2.1, 2.1, 2.1, 2.1),
    "tanh": (2.1, 2.1, 2.3, 2.3),
    "softplus": (1.8, 1.8, 1.8, 1.8),
    "sqrt": (0.5, 0.5, 0.5, 0.5),
    "sin": (2.4, 2.4, 2.3, 2.3),
    "cos": (2.4, 2.4, 2.3, 2.3),
    "erf": (2.0, 2.2, 1.8, 2.1),
    "gelu": (1.8, 1.8, 2.0, 2.0),
}

INF, NAN = math.inf, math.nan
TINY = {"float": 2.0**-149, "double": 5e-324}
SPECIAL = {
    "exp": {-INF: 0, INF: INF, 0.0: 1, 1e4: INF, -1e4: 0, 1e30: INF, -1e30: 0},
    "expm1": {-INF: -1, INF: INF, 0.0: 0.0, -1e4: -1, 1e4: INF, 1e30: INF, -1e30: -1},
    "log": {INF: INF, 0.0: -INF, 1.0: 0.0, -1.0: NAN, -1e-40: NAN, -INF: NAN},
    "log1p": {INF: INF, 0.0: 0.0, -1.0: -INF, -1.5: NAN, -1e30: NAN, -INF: NAN},
    "sigmoid": {-INF: 0, INF: 1, 0.0: 0.5, -1e30: 0, 1e30: 1},
    "silu": {-INF: NAN, INF: INF, 0.0: 0.0, -1e30: -0.0, 1e30: 1e30},
    "tanh": {-INF: -1, INF: 1, 0.0: 0.0, -1e30: -1, 1e30: 1},
    "softplus": {-INF: 0, INF: INF, -1e30: 0, 1e30: 1e30},
    "sqrt": {INF: INF, 0.0: 0.0, -1.0: NAN, -INF: NAN, 4.0: 2},
    "sin": {INF: NAN, -INF: NAN, 0.0: 0.0},
    "cos": {INF: NAN, -INF: NAN, 0.0: 1},
    "erf": {-INF: -1, INF: 1, 0.0: 0.0},
    "gelu": {-INF: NAN, INF: INF, 0.0: 0.0, -1e30: -0.0, 1e30: 1e30},
    "relu": {-INF: 0.0, INF: INF, 0.0: 0.0, -2.0: 0.0, 3.0: 3},
    "abs": {-INF: INF, INF: INF, 0.0: 0.0, -2.0: 2},
}
ODD = ["expm1", "log1p", "silu", "tanh", "sqrt", "sin", "erf", "gelu"]  # f(-0) is -0
IDENTITY_NEAR_0 = ["expm1", "log1p", "tanh", "sin"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("vmath")


@pytest.fixture(scope="module", params=BUILDS, ids="-".join)
def library(request, directory):
    return build(*request.param, directory)


def needs_wider(dtype):
    if np.finfo(WIDE[dtype]).nmant < np.finfo({"float": "f4", "double": "f8"}[dtype]).nmant + 10:
        pytest.skip("longdouble is no wider than double here")


@pytest.mark.parametrize("function", BOUNDS)
def test_error_in_ulp(library, function, request):
    needs_wider(library.name)
    x, expected = reference(function, library.name)
    found = error(function, library(function, x), x, expected)
    march = request.node.callspec.params["library"][1]
    fma = march != "x86-64" and ("fma" in cpu_flags() or platform.machine() != "x86_64")
    bound = BOUNDS[function][2 * (library.name == "double") + (not fma)]
    worst = np.argmax(found)
    print(f"{function}: {found[worst]:.3f} ulp at {x[worst]!r}")
    assert found[worst] <= bound, f"{found[worst]} ulp at {x[worst]!r}"


def test_gelu_keeps_most_digits_of_what_is_nearly_nothing(library):
    """Its error for x < 0 is one of the exponent x^2 / 2, and no remainder of a sum."""
    x = np.linspace(-8, 0, 4001).astype(library.dtype)
    expected = exact("gelu", x.astype(WIDE[library.name]))
    found = ulps(library("gelu", x), expected)
    assert np.all(found <= 100 + 3 * x.astype("f8") ** 2), x[np.argmax(found - 3 * x**2)]


@pytest.mark.parametrize("function", BOUNDS)
def test_a_lane_does_not_depend_on_its_neighbours(library, function):
    """Some have a way of their own: large ones in sin, denormals in log."""
    x = sample(library.name)[::97]
    order = np.random.default_rng(0).permutation(x.size)
    assert_same(library(function, x[order]), library(function, x)[order], [x[order]])


@pytest.mark.parametrize("function", SPECIAL)
def test_special_values(library, function):
    table = dict(SPECIAL[function])
    x, expected = np.array(list(table.items()), library.dtype).T
    assert_same(library(function, x), expected, [x])


def test_sign_of_zero_and_the_smallest_numbers(library):
    zeros = np.array([0.0, -0.0], library.dtype)
    for function in ODD:
        assert_same(library(function, zeros), zeros, [zeros])
    small = TINY[library.name] * np.array([1, 2, 3, 1e6, -1, -2, -3, -1e6], library.dtype)
    for function in IDENTITY_NEAR_0:
        assert_same(library(function, small), small, [small])


@pytest.mark.parametrize("function", UNARY)
def test_nan_of_any_payload_propagates(library, function):
    unsigned, ones = ("u4", 0x7F800000) if library.name == "float" else ("u8", 0x7FF << 52)
    sign, quiet = (1 << 31, 1 << 22) if library.name == "float" else (1 << 63, 1 << 51)
    low = [0, 1, 2, 0xFF, 0x100, 0x155, 0x1FF, quiet - 1]
    bits = [s | ones | quiet | k for s in (0, sign) for k in low]
    assert np.isnan(library(function, np.array(bits, unsigned).view(library.dtype))).all()


def test_overflow_of_exp_begins_where_it_must(library):
    limit = np.log(np.finfo(library.dtype).max.astype("g"))
    near = limit.astype(library.dtype)
    other = np.nextafter(near, near.dtype.type(0 if near > limit else INF))
    x = np.sort(np.array([near, other]))
    for function in ("exp", "expm1"):
        assert np.isfinite(library(function, x)).tolist() == [True, False]


def test_relu_and_abs_are_exact(library):
    x = sample(library.name)
    assert_same(library("relu", x), np.where(x < 0, x.dtype.type(0), x), [x])
    assert_same(library("abs", x), abs(x), [x])


@pytest.mark.parametrize("function", BINARY)
def test_pairs_of_special_values(library, function):
    values = [-INF, -1e30, -1.0, -0.0, 0.0, 1.0, 1e30, INF, NAN]
    a, b = np.array(list(itertools.product(values, values)), library.dtype).T
    with np.errstate(invalid="ignore"):
        expected = getattr(np, function)(a, b)
    if function == "logaddexp":
        np.testing.assert_allclose(library(function, a, b), expected, 3 * np.finfo(a.dtype).eps)
    else:
        np.testing.assert_array_equal(library(function, a, b), expected)  # any sign of 0


def test_logaddexp_error(library):
    """In ulp of the larger of its two terms, because the sum may cancel."""
    needs_wider(library.name)
    wide = WIDE[library.name]
    draw = np.random.default_rng(0)
    a = draw.uniform(-100, 100, 100_000).astype(library.dtype)
    b = (a + draw.normal(size=a.size) * draw.choice([1e-3, 1, 20, 100], a.size)).astype(a.dtype)
    high = np.maximum(a, b).astype(wide)
    term = np.log1p(np.exp(-abs(a.astype(wide) - b)))
    error = ulps(library("logaddexp", a, b), high + term, np.maximum(abs(high), term))
    print(f"logaddexp: {error.max():.3f} ulp")
    assert error.max() <= 2.5


def test_largest_numbers_do_not_overflow(library):
    top = np.array([np.finfo(library.dtype).max], library.dtype)
    for function in ("softplus", "silu", "gelu", "relu"):
        assert library(function, top) == top
    assert library("logaddexp", top, top) == top
    assert library("logaddexp", -top, -top) == -top
    assert library("logaddexp", top, -top) == top


def test_partial_vectors_touch_nothing_else(library):
    """The n lanes end where a page begins that must be neither read nor written."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    protect = functools.partial(mprotect, ctypes.c_void_p(address + page), ctypes.c_size_t(page))
    edge = np.frombuffer(memory, library.dtype, count=page // library.dtype.itemsize)
    assert protect(0) == 0
    try:
        for n in range(1, library.lanes):
            tail = edge[-n:]
            values = np.arange(1, library.lanes + 1).astype(library.dtype)
            tail[:] = -values[:n]
            whole = np.full(library.lanes, NAN, library.dtype)
            library.library.loaded_n(*pointers(tail, whole), ctypes.c_long(n))
            np.testing.assert_array_equal(whole, [*-values[:n], *[0] * (library.lanes - n)])
            library.library.stored_n(*pointers(values, tail), ctypes.c_long(n))
            np.testing.assert_array_equal(tail, values[:n])
            assert not edge[: -library.lanes].any()
    finally:
        protect(mmap.PROT_READ | mmap.PROT_WRITE)


def test_unaligned_arrays(library):
    for shift in range(library.lanes):
        x = np.arange(-50, 50).astype(library.dtype)[shift:]
        np.testing.assert_array_equal(library("relu", x), np.maximum(x, 0))


def test_splat_keeps_the_sign_of_zero(library):
    result = np.ones(library.lanes, library.dtype)
    for value in (np.array([v], library.dtype) for v in (-0.0, 0.0, 1.5, INF)):
        library.library.splatted(*pointers(value, result), ctypes.c_long(0))
        assert_same(result, np.full_like(result, value[0]), [result])


@pytest.mark.parametrize("function", BOUNDS)
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_same_bits_at_either_vector_width(directory, dtype, function):
    """The same code with fma, though AVX-512 has an instruction of its own for 2^n."""
    if "avx512f" not in cpu_flags():
        pytest.skip("this CPU has no AVX-512")
    wide, narrow = (build("g++", march, dtype, directory) for march in ("native", "x86-64-v3"))
    assert wide.lanes == 2 * narrow.lanes
    x = sample(dtype)[::10]
    assert_same(wide(function, x), narrow(function, x), [x])


def test_text_is_neither_a_template_nor_needs_headers():
    text = HEADER.read_text()
    assert "#include" not in text
    assert not any(mark in text for mark in ("{{", "{%", "{#"))


def test_of_the_c_library_only_sine_and_cosine_are_called(library):
    """For numbers far from 0."""
    said = subprocess.run(["nm", "-D", "-u", str(library.path)], capture_output=True, text=True, check=True).stdout
    called = {name.removesuffix("f") for name in re.findall(r"\bU (\w+)", said)}
    assert called & {"exp", "expm1", "log", "log1p", "tanh", "sqrt", "sin", "cos", "erf", "erfc"} == {"sin", "cos"}


@pytest.mark.parametrize("march", ["native", "x86-64-v3", "x86-64"])
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_roots_are_vector_instructions(march, dtype, tmp_path):
    if platform.machine() != "x86_64":
        pytest.skip("reads x86's instructions")
    compile_text(["g++", f"-march={march}", "-S"], header(dtype) + "V f(V x) { return lr_sqrt(x); }", tmp_path / "root.s")
    kind = {"float": "ps", "double": "pd"}[dtype]
    assert re.findall(r"\bv?sqrt\w+", (tmp_path / "root.s").read_text()) in ([f"vsqrt{kind}"], [f"sqrt{kind}"])


def test_sine_and_cosine_of_far_numbers_are_the_c_library_s(library):
    c_library = ctypes.CDLL("libm.so.6")
    kind, suffix = (ctypes.c_float, "f") if library.name == "float" else (ctypes.c_double, "")
    x = np.array([3e6, -1e10, 1e22, -3e38, 1.1e6, 0.5], library.dtype)
    for name in ("sin", "cos"):
        one = getattr(c_library, name + suffix)
        one.argtypes, one.restype = (kind,), kind
        assert library(name, x)[:-1].tolist() == [one(v) for v in x[:-1].tolist()]
