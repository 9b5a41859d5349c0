// What every kernel shares: memory, edges and boundaries, elementary functions.
//
// Expects before it `real`, which is float or double, and LR_DOUBLE, which is 0 or 1. Includes nothing: nvcc and NVRTC
// know the CUDA math library by themselves.
//
// Limits and nan are torch's. Underflow is gradual. Largest errors in ulp, by
// NVIDIA's tables: exp, expm1, log, log1p 1; tanh, sin, cos, erf 2; sqrt 0.5. By adding up what these and the roundings
// can do: sigmoid 2.5, silu 5, softplus 3, logaddexp 4, gelu 6.

#define LR_INLINE __device__ __forceinline__

typedef long long Index;
typedef real V;  // a vector in kernels for the CPU, which compute by the same lines

// Global memory is touched here and nowhere else. Nobody writes what a kernel reads while it runs, so that loads may
// pass stores.
template <class T> LR_INLINE T get(const T *p) { return __ldg(p); }
LR_INLINE void put(real *p, real v) { *p = v; }

// Values of one channel beyond a segment, nearest first: given, `depth` apart, or a constant.
struct Window {
  const real *nearest;
  Index depth;
  real constant;
  LR_INLINE real at(Index k) const { return nearest ? get(nearest + k * depth) : constant; }
};
LR_INLINE Window window(const real *given, Index offset, Index depth, real constant) {
  return {given ? given + offset : 0, depth, constant};
}

// reset[t] is a boundary between t-1 and t; the sequence ends at 0 and T. Boundaries() are none, far from either end.
struct Boundaries {
  const unsigned char *flags;
  Index time, T;
  LR_INLINE unsigned char at(Index t) const { return flags && t < T ? get(flags + t * time) : 0; }
  LR_INLINE bool end(Index t) const { return T && (t == 0 || t == T); }
};

// What step t reads k steps earlier (later): beyond a boundary the edge's, beyond the sequence the start's.
template <class T, class W>
LR_INLINE auto earlier(const T *rows, Index time, Index t, int k, const W &start, const W &edge, const Boundaries &reset) {
  for (int j = 1; j <= k; ++j) {
    if (reset.at(t - j + 1)) return edge.at(k - j);
    if (reset.end(t - j + 1)) return start.at(k - j);
  }
  return get(rows + (t - k) * time);
}
template <class T, class W>
LR_INLINE auto later(const T *rows, Index time, Index t, int k, const W &start, const W &edge, const Boundaries &reset) {
  for (int j = 1; j <= k; ++j) {
    if (reset.at(t + j)) return edge.at(k - j);
    if (reset.end(t + j)) return start.at(k - j);
  }
  return get(rows + (t + k) * time);
}

LR_INLINE void fold(V &total, V &part) { total += part, part = 0; }

LR_INLINE V splat(real x) { return x; }
LR_INLINE V select(bool condition, V a, V b) { return condition ? a : b; }

#if LR_DOUBLE
#define LR_MATH(name) name
#else
#define LR_MATH(name) name##f
#endif
LR_INLINE V lr_exp(V x) { return LR_MATH(exp)(x); }
LR_INLINE V lr_expm1(V x) { return LR_MATH(expm1)(x); }
LR_INLINE V lr_log(V x) { return LR_MATH(log)(x); }
LR_INLINE V lr_log1p(V x) { return LR_MATH(log1p)(x); }
LR_INLINE V lr_tanh(V x) { return LR_MATH(tanh)(x); }
LR_INLINE V lr_sqrt(V x) { return LR_MATH(sqrt)(x); }
LR_INLINE V lr_sin(V x) { return LR_MATH(sin)(x); }
LR_INLINE V lr_cos(V x) { return LR_MATH(cos)(x); }
LR_INLINE V lr_erf(V x) { return LR_MATH(erf)(x); }
LR_INLINE V lr_gelu(V x) { return x * LR_MATH(normcdf)(x); }
LR_INLINE V lr_abs(V x) { return LR_MATH(fabs)(x); }
LR_INLINE V lr_signum(V x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
LR_INLINE V lr_relu(V x) { return x < 0 ? 0 : x; }

// Comparisons with a nan are false; the operands stand so that it is the nan that comes out.
LR_INLINE V lr_maximum(V a, V b) { return a > b || a != a ? a : b; }
LR_INLINE V lr_minimum(V a, V b) { return a < b || a != a ? a : b; }

LR_INLINE V lr_whole_power(V x, int n) {
  V y = 1;
  for (; n; n >>= 1, x = x * x)
    if (n & 1) y = y * x;
  return y;
}

// a / b for 1 <= b <= 2 and a finite a. The division of float branches for odd divisors; this does not, and is as good.
LR_INLINE V lr_quotient(V a, V b) {
#if LR_DOUBLE
  return a / b;
#else
  V inverse = __fdividef(1, b), q = a * inverse;
  return fmaf(fmaf(-q, b, a), inverse, q);
#endif
}
// By exp(-|x|), which is never large: nothing overflows, and neither end loses digits.
LR_INLINE V lr_sigmoid(V x) {
  V e = lr_exp(-lr_abs(x));
  return lr_quotient(x < 0 ? e : 1, 1 + e);
}
// exp(x) = h * h, because x * h * h is rounded once where it is denormal, and x * exp(x) is not. -inf gives nan, as in torch.
LR_INLINE V lr_silu(V x) {
  V h = lr_exp(real(-0.5) * lr_abs(x));
  return (x < 0 ? x * h * h : x) * lr_quotient(1, 1 + h * h);
}
// log(1 + exp(-|x|))
LR_INLINE V lr_log1p_exp(V x) { return lr_log1p(lr_exp(-lr_abs(x))); }
LR_INLINE V lr_softplus(V x) { return lr_relu(x) + lr_log1p_exp(x); }
LR_INLINE V lr_logaddexp(V a, V b) {
  V d = a == b ? 0 : a - b;  // not inf - inf
  return (a > b ? a : b) + lr_log1p_exp(d);
}
#undef LR_MATH
