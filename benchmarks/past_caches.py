"""The memory limit: loops written by hand whose stores do not read the lines that they overwrite, as nothing in torch does."""

from __future__ import annotations

import ctypes
import functools
import subprocess

import torch
from torch import Tensor

from lrdsl.nn import pool

from .exact import compiled
from .timing import Loops

TEXT = r"""
#include <immintrin.h>
#if defined(__AVX512F__)
typedef __m512 V;
#define LOAD _mm512_loadu_ps
#define PAST _mm512_stream_ps
#elif defined(__AVX__)
typedef __m256 V;
#define LOAD _mm256_loadu_ps
#define PAST _mm256_stream_ps
#else
typedef __m128 V;
#define LOAD _mm_loadu_ps
#define PAST _mm_stream_ps
#endif
enum { LANES = sizeof(V) / sizeof(float), AHEAD = 256 };

// Threads share [0, n) in lines; READ is a vector from i on, LEFT a number of the few that make no vector.
#define PASS(NAME, ARGUMENTS, FETCH, READ, LEFT)                                  \
  extern "C" void NAME(long n, float *out, int threads, ARGUMENTS) {              \
    const long each = (n / threads + 15) / 16 * 16;                               \
    _Pragma("omp parallel for num_threads(threads)")                              \
    for (int k = 0; k < threads; ++k) {                                           \
      const long end = k + 1 == threads || (k + 1) * each > n ? n : (k + 1) * each; \
      long i = k * each;                                                          \
      for (; i + LANES <= end; i += LANES) {                                      \
        FETCH;                                                                    \
        PAST(out + i, READ);                                                      \
      }                                                                           \
      for (; i < end; ++i) out[i] = LEFT;                                         \
      _mm_sfence();                                                               \
    }                                                                             \
  }
#define COMMA ,
PASS(add, const float *a COMMA const float *b, __builtin_prefetch(a + i + AHEAD); __builtin_prefetch(b + i + AHEAD),
     LOAD(a + i) + LOAD(b + i), a[i] + b[i])
PASS(copy, const float *a, __builtin_prefetch(a + i + AHEAD), LOAD(a + i), a[i])
"""


@functools.cache
def loops() -> Loops | None:
    """Such loops, on as many threads as torch has; None where g++ cannot make them."""
    try:
        library = compiled(TEXT, "-march=native", "-fopenmp")
    except (OSError, subprocess.CalledProcessError):  # no g++, or no such processor
        return None

    def past(name: str, out: Tensor, *read: Tensor) -> None:
        threads = ctypes.c_int(torch.get_num_threads())
        getattr(library, name)(ctypes.c_long(out.numel()), address(out), threads, *map(address, read))

    return Loops(lambda a, b, out: past("add", out, a, b), lambda a, out: past("copy", out, a), torch.sum,
                 lambda shape, device: pool.empty(torch.empty(0), shape, torch.float32).fill_(1.0))


def address(x: Tensor) -> ctypes.c_void_p:
    """Of a contiguous tensor's first number."""
    assert x.is_contiguous() and x.data_ptr() % 64 == 0, "stores past the caches want whole lines"
    return ctypes.c_void_p(x.data_ptr())
