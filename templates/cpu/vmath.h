// Vectors of `real`, and the elementary functions on them, for every generated CPU kernel.
//
// Expects before it `real`, which is float or double, and LR_DOUBLE, which is 0 or 1. Includes
// nothing, because headers take longer to compile than a kernel: GNU vector extensions and
// __builtin_ functions only (g++ 12, clang 14, or later), without -ffast-math.
//
// Limits, nan and overflow are torch's. Underflow is gradual: nothing is flushed to 0. lr_softplus
// has no threshold; lr_gelu(inf) is inf, where torch's own vector code has nan; which zero
// lr_maximum(0, -0) is depends on the order, as in torch.
//
// The largest errors in float, in ulp, for every float in [1e-9, 200] and a part of the others,
// compiled by g++ 12 with fma | without:
//   exp    1.05 | 1.03   sigmoid  2.00 | 2.00   tanh  1.96 | 2.02   silu 2.00 | 2.00
//   expm1  1.61 | 1.74   softplus 1.71 | 1.71   log1p 0.93 | 1.00   log  0.91 | 1.00
// and of glibc's functions sqrt 0.5, sin and cos 0.56, erf 0.89, gelu 0.5. lr_logaddexp has 1.8 ulp
// of the larger of its terms, which may cancel. In double glibc does the work, lane by lane: below
// 1, but tanh and sigmoid 2.1, silu 3.1, softplus 1.4, logaddexp 1.6; gelu 2 x^2 where x < -1.

#if defined(__AVX512F__)
#define LR_BYTES 64
#elif defined(__AVX__)
#define LR_BYTES 32
#else
#define LR_BYTES 16
#endif
// Always, because how a V is passed to a real call depends on the instruction set (-Wpsabi).
#define LR_INLINE static inline __attribute__((always_inline))

typedef real V __attribute__((vector_size(LR_BYTES)));
typedef decltype(V() < V()) I;  // what comparisons give: 0 or -1 in lanes as wide as real
typedef real VUnaligned __attribute__((vector_size(LR_BYTES), aligned(sizeof(real)), may_alias));
enum { LANES = LR_BYTES / sizeof(real) };

LR_INLINE V load(const real *p) { return *(const VUnaligned *)p; }
LR_INLINE void store(real *p, V v) { *(VUnaligned *)p = v; }
LR_INLINE V splat(real x) { return x - V(); }  // not x + V(), which turns -0 into 0
LR_INLINE V select(I mask, V a, V b) { return mask ? a : b; }

// The first n lanes, 0 < n < LANES: the others load as 0, and memory behind them is not touched.
// An instruction with a mask takes a tenth of the time of scalar copies.
#if defined(__AVX512F__) && __has_builtin(__builtin_ia32_loadups512_mask)
#if LR_DOUBLE
#define LR_MASKED(name) __builtin_ia32_##name##upd512_mask
#else
#define LR_MASKED(name) __builtin_ia32_##name##ups512_mask
#endif
LR_INLINE V load_n(const real *p, long n) { return LR_MASKED(load)(p, V(), (1 << n) - 1); }
LR_INLINE void store_n(real *p, V v, long n) { LR_MASKED(store)(p, v, (1 << n) - 1); }
#undef LR_MASKED
#else
LR_INLINE V load_n(const real *p, long n) {
  V v = V();
#pragma GCC unroll 8
  for (int i = 0; i < LANES - 1; i++)
    if (i < n) v[i] = p[i];  // with n as the limit, it would be a slow call of memcpy
  return v;
}
LR_INLINE void store_n(real *p, V v, long n) {
#pragma GCC unroll 8
  for (int i = 0; i < LANES - 1; i++)
    if (i < n) p[i] = v[i];
}
#endif

// Functions of the C library, lane by lane. Through a union, because clang does not find the vector
// instruction (sqrt has one) through v[i].
#if LR_DOUBLE
#define LR_LIBM(name) __builtin_##name
#else
#define LR_LIBM(name) __builtin_##name##f
#endif
#define LR_BY_LANE(name, expression)                      \
  LR_INLINE V lr_##name(V v) {                            \
    union { V vector; real lane[LANES]; } u = {v};        \
    for (int i = 0; i < LANES; i++) {                     \
      real x = u.lane[i];                                 \
      u.lane[i] = (real)(expression);                     \
    }                                                     \
    return u.vector;                                      \
  }
LR_BY_LANE(sqrt, LR_LIBM(sqrt)(x))
LR_BY_LANE(sin, LR_LIBM(sin)(x))
LR_BY_LANE(cos, LR_LIBM(cos)(x))
LR_BY_LANE(erf, LR_LIBM(erf)(x))
// 1 + erf(x / sqrt 2) would cancel for x < 0. For float, double spares the rounding of x / sqrt 2.
LR_BY_LANE(gelu, 0.5 * x * __builtin_erfc(x * -0.70710678118654752))

// Comparisons with a nan are false; the operands stand so that it is the nan that comes out.
LR_INLINE V lr_maximum(V a, V b) { return select((a > b) | (a != a), a, b); }
LR_INLINE V lr_minimum(V a, V b) { return select((a < b) | (a != a), a, b); }
LR_INLINE V lr_relu(V x) { return select(x < real(0), V(), x); }
LR_INLINE I lr_sign(V x) { return (I)x & (I)splat(real(-0.0)); }
LR_INLINE V lr_abs(V x) { return (V)((I)x ^ lr_sign(x)); }

#if LR_DOUBLE

LR_BY_LANE(exp, __builtin_exp(x))
LR_BY_LANE(expm1, __builtin_expm1(x))
LR_BY_LANE(log, __builtin_log(x))
LR_BY_LANE(log1p, __builtin_log1p(x))
LR_BY_LANE(tanh, __builtin_tanh(x))

LR_INLINE V lr_sigmoid(V x) {
  V e = lr_exp(-lr_abs(x));
  return select(x < 0.0, e, splat(1.0)) / (1.0 + e);
}
// exp(x) = h * h, because x * h * h is rounded once where it is denormal, and x * exp(x) is not.
LR_INLINE V lr_silu(V x) {
  V h = lr_exp(-0.5 * lr_abs(x));
  return select(x < 0.0, x * h * h, x) / (1.0 + h * h);
}
// log(1 + exp(-|x|))
LR_INLINE V lr_log1p_exp(V x) { return lr_log1p(lr_exp(-lr_abs(x))); }

#else

// Float patterns as integers that may wrap around.
typedef unsigned Bits __attribute__((vector_size(LR_BYTES)));

// A nan goes through. g++ makes two instructions of the portable form, where there is one.
#if defined(__AVX512F__) && __has_builtin(__builtin_ia32_maxps512_mask)
LR_INLINE V lr_at_least(V x, float low) {
  return __builtin_ia32_maxps512_mask(splat(low), x, x, -1, 4);
}
LR_INLINE V lr_at_most(V x, float high) {
  return __builtin_ia32_minps512_mask(splat(high), x, x, -1, 4);
}
#else
LR_INLINE V lr_at_least(V x, float low) { return select(x < low, splat(low), x); }
LR_INLINE V lr_at_most(V x, float high) { return select(x > high, splat(high), x); }
#endif

// exp(x) = 2^n (1 + q), where n = round(x / ln 2) and q = exp(x - n ln 2) - 1. Added to 1.5 * 2^23,
// x / ln 2 is rounded to an integer that stands in the low bits of the sum, ready to be moved to
// the exponent's place. ln 2 is split (Cody and Waite) into a part of 15 bits, whose products with
// n are exact without fma, and the rest. The polynomial for (q - r) / r^2 is our own minimax fit on
// |r| < ln 2 / 2, rounded to float one coefficient after another: error 0.24 * 2^-24 of q.
struct Exponential {
  V n;
  Bits power;  // (n + bias) << 23
  V q;
};
// 2^n from n << 23, n in [-126, 127]
LR_INLINE V lr_two_to(Bits power) { return (V)(power + 0x3f800000u); }
LR_INLINE Exponential lr_exponential(V x, float bias) {
  float magic = 12582912.0f + bias;
  V z = x * 0x1.715476p+0f + magic;
  V n = z - magic;
  V r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  V r2 = r * r;
  V high = r2 * 0x1.6c5e7ap-10f + (r * 0x1.122428p-7f + 0x1.5555b2p-5f);
  V low = r * 0x1.5554b6p-3f + 0.5f;
  return {n, (Bits)z << 23, r2 * (r2 * high + low) + r};
}

// Beyond the limits the result is inf or 0. Between them 2^n can be out of range: unless there is
// an instruction that takes any n, it is multiplied in two halves.
LR_INLINE V lr_exp(V x) {
  Exponential e = lr_exponential(lr_at_most(lr_at_least(x, -104.0f), 89.0f), 0.0f);
#if defined(__AVX512F__) && __has_builtin(__builtin_ia32_scalefps512_mask)
  return __builtin_ia32_scalefps512_mask(1.0f + e.q, e.n, e.n, -1, 4);
#else
  Bits half = (Bits)((I)e.power >> 1) & 0xff800000u;
  V s = lr_two_to(half);
  return (s * e.q + s) * lr_two_to(e.power - half);
#endif
}
// Half of it, s * q + (s - 1/2) with s = 2^n / 2, is finite wherever the result is.
LR_INLINE V lr_expm1(V x) {
  Exponential e = lr_exponential(lr_at_most(lr_at_least(x, -20.0f), 89.0f), -1.0f);
  V s = lr_two_to(e.power);
  V y = 2.0f * (s * e.q + (s - 0.5f));
  return select(lr_abs(x) < 0x1p-25f, x, y);  // for -0, and for denormals, which have no half
}

LR_INLINE V lr_minus_abs(V x) { return (V)((I)x | (I)splat(-0.0f)); }
// (1 - y) / (1 + y) with y = exp(-2|x|) = s (1 + q), either side in one rounding: unlike
// 1 - 2 / (exp(2x) + 1) it loses nothing near 0.
LR_INLINE V lr_tanh(V x) {
  V a = lr_at_least(lr_minus_abs(x), -9.5f);
  Exponential e = lr_exponential(a + a, 0.0f);
  V s = lr_two_to(e.power);
  V y = ((1.0f - s) - s * e.q) / ((1.0f + s) + s * e.q);
  return (V)((I)y | lr_sign(x));
}

// 2^-64 (1 + exp(-x)) for x >= -120: in range even where its inverse is denormal or 0.
LR_INLINE V lr_one_plus_exp_minus(V x) {
  Exponential e = lr_exponential(-lr_at_most(x, 20.0f), -64.0f);
  V s = lr_two_to(e.power);
  return (s * e.q + 0x1p-64f) + s;
}
LR_INLINE V lr_sigmoid(V x) {
  return 0x1p-64f / lr_one_plus_exp_minus(lr_at_least(x, -120.0f));
}
// Beyond 32 it is x, and the division would overflow. - (x - x) is for -inf, where torch has nan.
LR_INLINE V lr_silu(V x) {
  V a = lr_at_least(x, -120.0f);
  V y = a / lr_one_plus_exp_minus(a) * 0x1p-64f - (x - x);
  return select(x > 32.0f, x, y);
}

// exp(-|x|), scaled by 2^64 until the end so that 2^n is in range.
LR_INLINE V lr_exp_minus(V x) {
  Exponential e = lr_exponential(lr_at_least(lr_minus_abs(x), -120.0f), 64.0f);
  V s = lr_two_to(e.power);
  return (s * e.q + s) * 0x1p-64f;
}

// log(2^n (1 + f)) for -1/4 <= f < 1/2. The polynomial for (log(1 + f) - f + f^2 / 2) / f^3 is a
// minimax fit made like the one above: error 0.08 * 2^-24 of the logarithm.
LR_INLINE V lr_logarithm(V f, V n) {
  V f2 = f * f;
  V p01 = f * -0x1.000046p-2f + 0x1.5555a4p-2f, p23 = f * -0x1.54ee38p-3f + 0x1.996978p-3f;
  V p45 = f * -0x1.0d989cp-3f + 0x1.28841ap-3f, p67 = f * -0x1.718f38p-5f + 0x1.acce3ep-4f;
  V p = f2 * f2 * (f2 * p67 + p45) + (f2 * p23 + p01);
  return n * 0x1.62e4p-1f + (f + (f2 * (f * p - 0.5f) + n * 0x1.7f7d1cp-20f));
}
// n << 23 for the n that leaves x / 2^n in [3/4, 3/2)
LR_INLINE Bits lr_power(V x) { return ((Bits)x - 0x3f400000u) & 0xff800000u; }
LR_INLINE V lr_as_real(Bits power) { return __builtin_convertvector((I)power >> 23, V); }
LR_INLINE V lr_log_limits(V x, V log) {
  V beyond = select(x == 0.0f, splat(-__builtin_inff()), splat(__builtin_nanf("")));
  return select(x > 0.0f, select(x < __builtin_inff(), log, x), beyond);
}

LR_INLINE V lr_log(V x) {
  I tiny = x < 0x1p-126f;
  V normal = select(tiny, x * 0x1p23f, x);
  Bits power = lr_power(normal);
  V n = lr_as_real(power) - select(tiny, splat(23.0f), V());
  return lr_log_limits(x, lr_logarithm((V)((Bits)normal - power) - 1.0f, n));
}
// u = 1 + x is short by c, which joins f as c / 2^n; it is 0 long before 2^n has no inverse.
LR_INLINE V lr_log1p(V x) {
  V u = 1.0f + x, c = x - (u - 1.0f);
  Bits power = lr_power(u);
  I n = (I)power, limit = (I)V() + (126 << 23);
  V inverse = lr_two_to(-(Bits)(n < limit ? n : limit));
  V y = lr_logarithm(c * inverse + ((V)((Bits)u - power) - 1.0f), lr_as_real(power));
  return (V)((I)lr_log_limits(u, y) | lr_sign(x));  // the sign is for -0
}
// log(1 + exp(-|x|)), where halving 1 + t is enough
LR_INLINE V lr_log1p_exp(V x) {
  V t = lr_exp_minus(x);
  I large = t > 0.5f;
  return lr_logarithm(select(large, 0.5f * t - 0.5f, t), select(large, splat(1.0f), V()));
}
#endif

LR_INLINE V lr_softplus(V x) { return lr_relu(x) + lr_log1p_exp(x); }
LR_INLINE V lr_logaddexp(V a, V b) {
  V d = select(a == b, V(), a - b);  // not inf - inf
  return select(a > b, a, b) + lr_log1p_exp(d);
}
#undef LR_BY_LANE
#undef LR_LIBM
