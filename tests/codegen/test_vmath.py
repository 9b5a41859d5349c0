"""templates/cpu/vmath.h, compiled for each vector width, against float64 and 80-bit references."""

import ctypes
import functools
import itertools
import math
import mmap
import platform
import shutil
import subprocess
from pathlib import Path

import mpmath
import numpy as np
import pytest

HEADER = Path(__file__).parents[2] / "templates" / "cpu" / "vmath.h"
FLAGS = ["-O2", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-std=gnu++17"]
FLAGS += ["-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unused-function"]
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
CPU_FLAGS = {"native": set(), "x86-64": set(), "x86-64-v3": {"avx2", "fma", "bmi2"}}

# The largest error accepted, in ulp of the exact result. The header states what was measured over
# all floats; in double it is the C library's, and a few roundings more for what is composed.
FLOAT_ULP = {
    "exp": 1.1,
    "expm1": 1.8,
    "log": 1.1,
    "log1p": 1.1,
    "sigmoid": 2.2,
    "silu": 2.2,
    "tanh": 2.1,
    "softplus": 1.9,
    "sqrt": 0.5,
    "sin": 1,
    "cos": 1,
    "erf": 1.5,
    "gelu": 0.51,
}
DOUBLE_ULP = dict.fromkeys(FLOAT_ULP, 1.5) | {"sigmoid": 2.5, "silu": 4, "softplus": 2.5, "tanh": 3}
UNARY = [*FLOAT_ULP, "relu", "abs"]
BINARY = ["maximum", "minimum", "logaddexp"]

INF, NAN = math.inf, math.nan
WIDE = {"float": "f8", "double": "g"}  # the type of the references
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


class Library:
    """The functions of the header over whole arrays, and load_n and store_n alone."""

    def __init__(self, path, dtype):
        self.library = ctypes.CDLL(str(path))
        self.name = dtype
        self.dtype = np.dtype("f4" if dtype == "float" else "f8")
        self.lanes = self.library.lanes()

    def __call__(self, function, *arguments):
        arguments = [np.ascontiguousarray(a, self.dtype) for a in arguments]
        result = np.empty_like(arguments[0])
        addresses = [ctypes.c_void_p(a.ctypes.data) for a in (*arguments, result)]
        getattr(self.library, f"vector_{function}")(*addresses, ctypes.c_long(result.size))
        return result


def source(dtype):
    unary = "".join(
        f"""
extern "C" void vector_{name}(const real *a, real *y, long n) {{
  long i = 0;
  for (; i + LANES <= n; i += LANES) store(y + i, lr_{name}(load(a + i)));
  if (i < n) store_n(y + i, lr_{name}(load_n(a + i, n - i)), n - i);
}}"""
        for name in UNARY
    )
    binary = "".join(
        f"""
extern "C" void vector_{name}(const real *a, const real *b, real *y, long n) {{
  long i = 0;
  for (; i + LANES <= n; i += LANES) store(y + i, lr_{name}(load(a + i), load(b + i)));
  if (i < n) store_n(y + i, lr_{name}(load_n(a + i, n - i), load_n(b + i, n - i)), n - i);
}}"""
        for name in BINARY
    )
    return f"""#define real {dtype}
#define LR_DOUBLE {int(dtype == "double")}
{HEADER.read_text()}
extern "C" int lanes() {{ return LANES; }}
extern "C" void loaded_n(const real *a, real *y, long n) {{ store(y, load_n(a, n)); }}
extern "C" void stored_n(const real *a, real *y, long n) {{ store_n(y, load(a), n); }}
extern "C" void splatted(const real *a, real *y, long) {{ store(y, splat(*a)); }}
{unary}{binary}
"""


def cpu_flags():
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return next((set(x.split()) for x in text.splitlines() if x.startswith("flags")), set())


@functools.cache
def build(compiler, march, dtype, directory):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on this machine")
    if march != "native" and platform.machine() != "x86_64":
        pytest.skip(f"{march} on {platform.machine()}")
    if not CPU_FLAGS[march] <= cpu_flags():
        pytest.skip(f"this CPU is not {march}")
    path = directory / f"{compiler}-{march}-{dtype}.so"
    command = [compiler, *FLAGS, f"-march={march}", "-xc++", "-", "-o", str(path)]
    done = subprocess.run(command, input=source(dtype), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return Library(path, dtype)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("vmath")


@pytest.fixture(scope="module", params=BUILDS, ids="-".join)
def library(request, directory):
    return build(*request.param, directory)


@functools.cache
def sample(dtype):
    """Every 1999th float, denormals too; in double, a mesh of all magnitudes and one around 0."""
    if dtype == "float":
        x = np.arange(0, 2**32, 1999, dtype="u8").astype("u4").view("f4")
    else:
        bits = np.arange(0, 2**64 - 2**48, 2**48 + 10**9 + 7, dtype="u8")
        x = np.concatenate([bits.view("f8"), np.linspace(-760, 760, 20_001)])
        x = np.concatenate([x, np.linspace(-3, 3, 20_001)])
    return x[~np.isnan(x)]


def exact(function, x):
    """The function at float64 or longdouble x, in that precision."""
    one = x.dtype.type(1)
    with np.errstate(all="ignore"):
        if function == "sigmoid":
            e = np.exp(-abs(x))
            return np.where(x < 0, e, one) / (one + e)
        if function == "silu":
            return x * exact("sigmoid", x)
        if function == "softplus":
            return np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))
        if function in ("erf", "gelu"):
            return np.array([x.dtype.type(mpmath.nstr(one_by_one(function, v), 25)) for v in x])
        return getattr(np, function)(x)


def one_by_one(function, x):
    if function == "gelu" and x < -60:  # beyond the exponents of an 80-bit float
        return mpmath.mpf(0)
    with mpmath.workdps(30):
        x = mpmath.mpf(float(x))
        return mpmath.erf(x) if function == "erf" else x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


@functools.cache
def reference(function, dtype):
    """A sample and the exact results; smaller where Python computes them one by one."""
    x = sample(dtype)
    if function in ("erf", "gelu"):
        x = np.concatenate([x[np.isfinite(x)][:: x.size // 500], np.linspace(-8, 8, 501)])
        x = x.astype(sample(dtype).dtype)
    return x, exact(function, x.astype(WIDE[dtype]))


def ulps(result, expected, scale=None):
    """The error in units of the last place of `expected`, or of a larger `scale`; inf counts as the
    first power of two that overflows. Where one is nan, both must be, or the error is inf."""
    info = np.finfo(result.dtype)
    above = np.ldexp(expected.dtype.type(1), int(info.maxexp))
    with np.errstate(invalid="ignore"):
        clipped = np.clip(expected, -above, above)
        error = abs(np.clip(result.astype(expected.dtype), -above, above) - clipped)
        exponent = np.frexp(clipped if scale is None else scale)[1]
        exponent = np.clip(exponent, info.minexp + 1, info.maxexp) - info.nmant - 1
        error = np.ldexp(error, -exponent)
    error[np.isnan(expected) & np.isnan(result)] = 0
    error[np.isnan(expected) != np.isnan(result)] = np.inf
    return error


def assert_same(result, expected, arguments):
    """Equal, nan to nan, and zeros with their sign."""
    same = (result == expected) & (np.signbit(result) == np.signbit(expected))
    same |= np.isnan(result) & np.isnan(expected)
    wrong = np.flatnonzero(~same)[:5]
    rows = np.transpose([*arguments, result, expected])[wrong]
    assert not wrong.size, f"arguments, result, expected: {rows.tolist()}"


def needs_wider(dtype):
    if np.finfo(WIDE[dtype]).nmant < np.finfo({"float": "f4", "double": "f8"}[dtype]).nmant + 10:
        pytest.skip("longdouble is no wider than double here")


@pytest.mark.parametrize("function", FLOAT_ULP)
def test_error_in_ulp(library, function):
    needs_wider(library.name)
    x, expected = reference(function, library.name)
    error = ulps(library(function, x), expected)
    bound = {"float": FLOAT_ULP, "double": DOUBLE_ULP}[library.name][function]
    if function == "gelu" and library.name == "double":
        bound = bound + 2 * np.clip(-x, 0, 40) ** 2  # from the rounding of the argument of erfc
    worst = np.argmax(error - bound)
    print(f"{function}: {error.max():.3f} ulp")
    assert np.all(error <= bound), f"{error[worst]} ulp at {x[worst]!r}"


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


def pointers(*arrays):
    return [ctypes.c_void_p(a.ctypes.data) for a in arrays]


def test_unaligned_arrays(library):
    for shift in range(library.lanes):
        x = np.arange(-50, 50).astype(library.dtype)[shift:]
        np.testing.assert_array_equal(library("relu", x), np.maximum(x, 0))


def test_splat_keeps_the_sign_of_zero(library):
    result = np.ones(library.lanes, library.dtype)
    for value in (np.array([v], library.dtype) for v in (-0.0, 0.0, 1.5, INF)):
        library.library.splatted(*pointers(value, result), ctypes.c_long(0))
        assert_same(result, np.full_like(result, value[0]), [result])


@pytest.mark.parametrize("function", FLOAT_ULP)
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
