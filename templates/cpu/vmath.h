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
// The largest errors in ulp, compiled by g++ 12, with fma | without. In float for every float in [0.05, 1] (sin, cos: up to
// 1e5), and every 61st of the others; in double for 3 million numbers of all magnitudes.
//             float          double                 float          double                 float          double
//   exp    1.05 | 1.03   0.99 | 0.99   sigmoid  2.00 | 2.00   1.99 | 2.00   sin   2.20 | 2.08   1.67 | 2.31
//   expm1  1.61 | 1.74   2.00 | 2.07   tanh     1.96 | 2.02   2.06 | 2.06   cos   2.20 | 2.10   2.10 | 2.34
//   log    0.91 | 1.00   0.86 | 0.95   silu     2.00 | 2.00   1.98 | 1.95   erf   1.89 | 2.16   1.71 | 1.99
//   log1p  0.93 | 1.00   0.87 | 0.95   softplus 1.71 | 1.71   1.67 | 1.72   gelu  1.66 | 1.68   1.87 | 1.94
// and of sqrt 0.5; sin and cos for |x| <= 1e5 (in double 1e6), gelu in ulp of x. lr_logaddexp has 1.9 ulp of the larger of its
// terms, which may cancel. gelu(x) for x < 0 is right to some x^2 ulp of its own, or 100 in double.

#if defined(__AVX512F__)
#define LR_BYTES 64
#elif defined(__AVX__)
#define LR_BYTES 32
#elif defined(__ARM_FEATURE_SVE_BITS) && __ARM_FEATURE_SVE_BITS  // -msve-vector-bits=...
#define LR_BYTES (__ARM_FEATURE_SVE_BITS / 8)
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

// x86's instructions by their names in g++ and clang, for `real`.
#if LR_DOUBLE
#define LR_IA32(name, width) __builtin_ia32_##name##pd##width
#else
#define LR_IA32(name, width) __builtin_ia32_##name##ps##width
#endif

// The first n lanes, 0 < n < LANES: the others load as 0, and memory behind them is not touched.
// An instruction with a mask takes a tenth of the time of scalar copies.
#if defined(__AVX512F__) && __has_builtin(__builtin_ia32_loadups512_mask)
LR_INLINE V load_n(const real *p, long n) { return LR_IA32(loadu, 512_mask)(p, V(), (1 << n) - 1); }
LR_INLINE void store_n(real *p, V v, long n) { LR_IA32(storeu, 512_mask)(p, v, (1 << n) - 1); }
#else
// AVX2 has masks of another kind. What was stored under one reaches the next load through the cache only; up to three lanes
// are faster one by one, and so is all of double.
#if defined(__AVX2__) && !defined(__AVX512F__) && !LR_DOUBLE && __has_builtin(__builtin_ia32_maskloadps256)
#define LR_MASKS
enum { ONE_BY_ONE = 3 };
typedef int Flags __attribute__((vector_size(LR_BYTES), aligned(4), may_alias));
static const int lr_first[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
#else
enum { ONE_BY_ONE = LANES - 1 };
#endif
LR_INLINE V load_n(const real *p, long n) {
#ifdef LR_MASKS
  if (n > ONE_BY_ONE) return __builtin_ia32_maskloadps256((const V *)p, *(const Flags *)(lr_first + 8 - n));
#endif
  V v = V();
#pragma GCC unroll 8
  for (int i = 0; i < ONE_BY_ONE; i++)
    if (i < n) v[i] = p[i];  // with n as the limit, it would be a slow call of memcpy
  return v;
}
LR_INLINE void store_n(real *p, V v, long n) {
#ifdef LR_MASKS
  if (n > ONE_BY_ONE) return __builtin_ia32_maskstoreps256((V *)p, *(const Flags *)(lr_first + 8 - n), v);
#endif
#pragma GCC unroll 8
  for (int i = 0; i < ONE_BY_ONE; i++)
    if (i < n) p[i] = v[i];
}
#endif

// A nan goes through. The portable form is two instructions.
#if defined(__AVX512F__) && __has_builtin(__builtin_ia32_maxps512_mask)
LR_INLINE V lr_at_least(V x, real low) { return LR_IA32(max, 512_mask)(splat(low), x, x, -1, 4); }
LR_INLINE V lr_at_most(V x, real high) { return LR_IA32(min, 512_mask)(splat(high), x, x, -1, 4); }
#elif defined(__AVX__) && !defined(__AVX512F__)
LR_INLINE V lr_at_least(V x, real low) { return LR_IA32(max, 256)(splat(low), x); }
LR_INLINE V lr_at_most(V x, real high) { return LR_IA32(min, 256)(splat(high), x); }
#elif defined(__SSE2__) && !defined(__AVX512F__)
LR_INLINE V lr_at_least(V x, real low) { return LR_IA32(max, )(splat(low), x); }
LR_INLINE V lr_at_most(V x, real high) { return LR_IA32(min, )(splat(high), x); }
#else
LR_INLINE V lr_at_least(V x, real low) { return select(x < low, splat(low), x); }
LR_INLINE V lr_at_most(V x, real high) { return select(x > high, splat(high), x); }
#endif

// Whether a comparison holds in all lanes.
LR_INLINE bool lr_all(I holds) {
#if defined(__AVX512DQ__) && __has_builtin(__builtin_ia32_cvtd2mask512)
#if LR_DOUBLE
  typedef long long Wide __attribute__((vector_size(LR_BYTES)));
  return __builtin_ia32_cvtq2mask512((Wide)holds) == 0xff;
#else
  return __builtin_ia32_cvtd2mask512(holds) == 0xffff;
#endif
#elif defined(__AVX__) && !defined(__AVX512F__)
  return LR_IA32(movmsk, 256)((V)holds) == (1 << LANES) - 1;
#elif defined(__SSE2__) && !defined(__AVX512F__)
  return LR_IA32(movmsk, )((V)holds) == (1 << LANES) - 1;
#else
  bool all = true;
  for (int i = 0; i < LANES; i++) all &= holds[i] != 0;
  return all;
#endif
}
// What is rare is looked for once a vector, and done apart by a function that is called, on what pointers point to (-Wpsabi).
#define LR_UNLESS(condition) if (__builtin_expect(!(condition), 0))
#define LR_RARE static __attribute__((noinline, cold))

// Comparisons with a nan are false; the operands stand so that it is the nan that comes out.
LR_INLINE V lr_maximum(V a, V b) { return select((a > b) | (a != a), a, b); }
LR_INLINE V lr_minimum(V a, V b) { return select((a < b) | (a != a), a, b); }
LR_INLINE V lr_relu(V x) { return select(x < real(0), V(), x); }
LR_INLINE I lr_sign(V x) { return (I)x & (I)splat(real(-0.0)); }
LR_INLINE V lr_abs(V x) { return (V)((I)x ^ lr_sign(x)); }

LR_INLINE V lr_sqrt(V x) {
#if __has_builtin(__builtin_elementwise_sqrt)
  return __builtin_elementwise_sqrt(x);
#elif defined(__AVX512F__) && __has_builtin(__builtin_ia32_sqrtps512_mask)
  return LR_IA32(sqrt, 512_mask)(x, x, -1, 4);
#elif defined(__AVX__) && __has_builtin(__builtin_ia32_sqrtps256) && !defined(__AVX512F__)
  return LR_IA32(sqrt, 256)(x);
#elif defined(__SSE2__) && __has_builtin(__builtin_ia32_sqrtps) && !defined(__AVX__)
  return LR_IA32(sqrt, )(x);
#else
  union { V vector; real lane[LANES]; } u = {x};  // which compilers make a vector instruction of
  for (int i = 0; i < LANES; i++) u.lane[i] = LR_DOUBLE ? __builtin_sqrt(u.lane[i]) : __builtin_sqrtf(u.lane[i]);
  return u.vector;
#endif
}

// Patterns of numbers as integers that may wrap around.
#if LR_DOUBLE
typedef unsigned long Word;
#else
typedef unsigned Word;
#endif
typedef Word Bits __attribute__((vector_size(LR_BYTES)));
static constexpr int LR_DIGITS = LR_DOUBLE ? 52 : 23, LR_BIAS = LR_DOUBLE ? 1023 : 127;
static constexpr Word LR_UNIT = (Word)1 << LR_DIGITS, LR_ONE = LR_BIAS * LR_UNIT;  // exponents of 1 and 0
static constexpr real LR_MAGIC = LR_DOUBLE ? 0x1.8p52 : 0x1.8p23;  // a number added to it is rounded to an integer
// Arguments: below the first, exp is less than half of what is not 0; above the second it is inf;
// and exp of minus the third vanishes beside 1.
static constexpr real LR_LOWEST = LR_DOUBLE ? -760 : -120, LR_HIGHEST = LR_DOUBLE ? 710 : 89, LR_FLAT = LR_DOUBLE ? 40 : 20;
// 2^-LR_SCALE times 1 / exp(LR_LOWEST) is in range, and so is exp(LR_LOWEST) times 2^LR_SCALE.
static constexpr int LR_SCALE = LR_DOUBLE ? 512 : 64;
static constexpr real LR_SCALED = LR_DOUBLE ? 0x1p-512 : 0x1p-64;

// c0 + c1 x + c2 x^2 + ...
LR_INLINE V lr_series(V, real c) { return splat(c); }
template <class... C> LR_INLINE V lr_series(V x, real c, C... more) { return c + x * lr_series(x, more...); }

// Every polynomial here is our own minimax fit (benchmarks/minimax.py) of the relative error, rounded
// to `real` one coefficient after another; the errors said are those of the rounded ones, of the
// function that they serve.

// exp(x) = 2^n (1 + q), where n = round(x / ln 2) and q = exp(x - n ln 2) - 1. Added to LR_MAGIC,
// x / ln 2 is rounded to an integer that stands in the low bits of the sum, ready to be moved to
// the exponent's place. ln 2 is split (Cody and Waite) into a part of 15 (42) bits, whose products
// with n are exact without fma, and the rest. The polynomial is for (q - r) / r^2 on |r| < ln 2 / 2:
// degree 4, error 0.24 * 2^-24 of q; in double degree 10, error 0.01 * 2^-53.
struct Exponential {
  V n;
  Bits power;  // (n + bias) << LR_DIGITS
  V q;
};
// 2^n from n << LR_DIGITS, where it is a normal number
LR_INLINE V lr_two_to(Bits power) { return (V)(power + LR_ONE); }
LR_INLINE Exponential lr_exponential(V x, real bias) {
  real magic = LR_MAGIC + bias;
#if LR_DOUBLE
  V z = x * 0x1.71547652b82fep+0 + magic;
  V n = z - magic;
  V r = (x - n * 0x1.62e42fefa38p-1) - n * 0x1.ef35793c7673p-45;
  V r2 = r * r;
  V high = lr_series(r2, 0x1.5555555555559p-3, 0x1.111111110f6dbp-7, 0x1.a01a01afd376p-13, 0x1.71ddf87fbd5ep-19,
                     0x1.af5e734f73bb9p-26);
  V low = lr_series(r2, 0.5, 0x1.555555555553fp-5, 0x1.6c16c16c1f063p-10, 0x1.a01a017bc9b3cp-16, 0x1.27e5362b376b5p-22,
                    0x1.1ee88248bc8b4p-29);
  return {n, (Bits)z << LR_DIGITS, r2 * (r * high + low) + r};
#else
  V z = x * 0x1.715476p+0f + magic;
  V n = z - magic;
  V r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  V r2 = r * r;
  V high = r2 * 0x1.6c5e7ap-10f + (r * 0x1.122428p-7f + 0x1.5555b2p-5f);
  V low = r * 0x1.5554b6p-3f + 0.5f;
  return {n, (Bits)z << LR_DIGITS, r2 * (r2 * high + low) + r};
#endif
}

// Beyond the limits the result is inf or 0. Between them 2^n can be out of range: unless there is
// an instruction that takes any n, it is multiplied in two halves; x86 looks first whether it must.
#if defined(__AVX512F__) && __has_builtin(__builtin_ia32_scalefps512_mask)
LR_INLINE V lr_exp(V x) {
  Exponential e = lr_exponential(lr_at_most(lr_at_least(x, LR_LOWEST), LR_HIGHEST), 0);
  return LR_IA32(scalef, 512_mask)(real(1) + e.q, e.n, e.n, -1, 4);
}
#else
LR_INLINE V lr_exp_of_any(V x) {
  Exponential e = lr_exponential(lr_at_most(lr_at_least(x, LR_LOWEST), LR_HIGHEST), 0);
  Bits half = (Bits)(e.n * real(0.5) + LR_MAGIC) << LR_DIGITS;
  V s = lr_two_to(half);
  return (s * e.q + s) * lr_two_to(e.power - half);
}
#if defined(__SSE2__)
LR_RARE void lr_exp_apart(const V *at, V *exp) { *exp = lr_exp_of_any(*at); }
LR_INLINE V lr_exp(V x) {
  Exponential e = lr_exponential(x, 0);
  V y = (V)((Bits)(real(1) + e.q) + e.power);
  LR_UNLESS(lr_all(lr_abs(x) < (LR_DOUBLE ? real(708) : real(87)))) {
    V copy = x, other = y;
    lr_exp_apart(&copy, &other);
    y = other;
  }
  return y;
}
#else
LR_INLINE V lr_exp(V x) { return lr_exp_of_any(x); }
#endif
#endif
// Half of it, s * q + (s - 1/2) with s = 2^n / 2, is finite wherever the result is.
LR_INLINE V lr_expm1(V x) {
  Exponential e = lr_exponential(lr_at_most(lr_at_least(x, -LR_FLAT), LR_HIGHEST), -1);
  V s = lr_two_to(e.power);
  V y = real(2) * (s * e.q + (s - real(0.5)));
  // for -0, and for denormals, which have no half
  return select(lr_abs(x) < (LR_DOUBLE ? real(0x1p-54) : real(0x1p-25)), x, y);
}

LR_INLINE V lr_minus_abs(V x) { return (V)((I)x | (I)splat(real(-0.0))); }
// (1 - y) / (1 + y) with y = exp(-2|x|) = s (1 + q), either side in one rounding: unlike
// 1 - 2 / (exp(2x) + 1) it loses nothing near 0.
LR_INLINE V lr_tanh(V x) {
  V a = lr_at_least(lr_minus_abs(x), -LR_FLAT / 2);
  Exponential e = lr_exponential(a + a, 0);
  V s = lr_two_to(e.power);
  V y = ((real(1) - s) - s * e.q) / ((real(1) + s) + s * e.q);
  return (V)((I)y | lr_sign(x));
}

// LR_SCALED (1 + exp(-x)) for x >= LR_LOWEST: in range even where its inverse is denormal or 0.
LR_INLINE V lr_one_plus_exp_minus(V x) {
  Exponential e = lr_exponential(-lr_at_most(x, LR_FLAT), -LR_SCALE);
  V s = lr_two_to(e.power);
  return (s * e.q + LR_SCALED) + s;
}
LR_INLINE V lr_sigmoid(V x) { return LR_SCALED / lr_one_plus_exp_minus(lr_at_least(x, LR_LOWEST)); }
// Beyond LR_FLAT it is x, and the division would overflow. - (x - x) is for -inf, where torch has nan.
LR_INLINE V lr_silu(V x) {
  V a = lr_at_least(x, LR_LOWEST);
  V y = a / lr_one_plus_exp_minus(a) * LR_SCALED - (x - x);
  return select(x > LR_FLAT, x, y);
}

// exp(x) / LR_SCALED for LR_LOWEST <= x <= 0: in range even where exp(x) is denormal or 0.
LR_INLINE V lr_exp_scaled(V x) {
  Exponential e = lr_exponential(x, LR_SCALE);
  V s = lr_two_to(e.power);
  return s * e.q + s;
}

// log(2^n (1 + f)) for -1/4 <= f < 1/2. In float the polynomial is for (log(1 + f) - f + f^2 / 2) / f^3:
// degree 7, error 0.08 * 2^-24 of the logarithm. In double, s = f / (2 + f) makes log(1 + f) = 2s + s R(s^2)
// where 2s = f - f^2 / 2 + s f^2 / 2, and the polynomial is for R(s^2) / s^2: degree 6, error 0.14 * 2^-53.
LR_INLINE V lr_logarithm(V f, V n) {
#if LR_DOUBLE
  V s = f / (2.0 + f), s2 = s * s, s4 = s2 * s2, half = 0.5 * f * f;
  V even = lr_series(s4, 0x1.555555555577dp-1, 0x1.249249b393d6bp-2, 0x1.74750a2de5e4fp-3, 0x1.3ad6de85bcf12p-3);
  V odd = lr_series(s4, 0x1.99999998eec3cp-2, 0x1.c71c0072a7875p-3, 0x1.384fb4a715914p-3);
  return n * 0x1.62e42fefa38p-1 + (f - (half - (s * (half + s2 * (s2 * odd + even)) + n * 0x1.ef35793c7673p-45)));
#else
  V f2 = f * f;
  V p01 = f * -0x1.000046p-2f + 0x1.5555a4p-2f, p23 = f * -0x1.54ee38p-3f + 0x1.996978p-3f;
  V p45 = f * -0x1.0d989cp-3f + 0x1.28841ap-3f, p67 = f * -0x1.718f38p-5f + 0x1.acce3ep-4f;
  V p = f2 * f2 * (f2 * p67 + p45) + (f2 * p23 + p01);
  return n * 0x1.62e4p-1f + (f + (f2 * (f * p - 0.5f) + n * 0x1.7f7d1cp-20f));
#endif
}
// n << LR_DIGITS for the n that leaves x / 2^n in [3/4, 3/2)
LR_INLINE Bits lr_power(V x) { return ((Bits)x - (LR_ONE - LR_UNIT / 2)) & -LR_UNIT; }
LR_INLINE V lr_as_real(Bits power) {
#if LR_DOUBLE && defined(__SSE2__) && !defined(__AVX512DQ__)
  return (V)((power + LR_ONE) >> LR_DIGITS | (Bits)splat(0x1p52)) - (0x1p52 + LR_BIAS);  // there is no such instruction
#else
  return __builtin_convertvector((I)power >> LR_DIGITS, V);
#endif
}
#define LR_INF __builtin_inff()

#if defined(__AVX512F__) && __has_builtin(__builtin_ia32_getmantps512_mask)
LR_INLINE V lr_log(V x) {
  V m = LR_IA32(getmant, 512_mask)(x, 15, x, -1, 4);  // in [3/4, 3/2); nan where x < 0
  V n = LR_IA32(getexp, 512_mask)(x, x, -1, 4) - LR_IA32(getexp, 512_mask)(m, m, -1, 4);
  return lr_logarithm(m - real(1), n);
}
#else
static constexpr real LR_NORMAL = LR_DOUBLE ? 0x1p-1022 : 0x1p-126;
// log(x / 2^less) for a normal x. Apart are others: 0, denormals, what is negative, inf, nan.
LR_INLINE V lr_log_normal(V x, real less) {
  Bits power = lr_power(x);
  return lr_logarithm((V)((Bits)x - power) - real(1), lr_as_real(power) - less);
}
LR_RARE void lr_log_apart(const V *at, V *log) {
  V x = *at, scaled = lr_log_normal(x * real(1l << LR_DIGITS), LR_DIGITS);
  V beyond = select(x == 0, splat(-LR_INF), splat(__builtin_nanf("")));
  V y = select(x < LR_NORMAL, scaled, *log);
  *log = select(x > 0, select(x < real(LR_INF), y, x), beyond);
}
LR_INLINE V lr_log(V x) {
  V y = lr_log_normal(x, 0);
  LR_UNLESS(lr_all((x >= LR_NORMAL) & (x < real(LR_INF)))) {
    V copy = x, other = y;
    lr_log_apart(&copy, &other);
    y = other;
  }
  return y;
}
#endif
LR_RARE void lr_log1p_apart(const V *at, V *log) {
  V x = *at, beyond = select(x == real(-1), splat(-LR_INF), splat(__builtin_nanf("")));
  *log = select(x > real(-1), select(x < real(LR_INF), *log, x), beyond);
}
// u = 1 + x is short by c, which joins f as c / 2^n; it is 0 long before 2^n has no inverse. The sign is for -0.
LR_INLINE V lr_log1p(V x) {
  V u = real(1) + x, c = x - (u - real(1));
  Bits power = lr_power(u);
  V inverse = (V)(LR_ONE + LR_UNIT - power);  // twice; the largest n has 0
  V y = lr_logarithm(c * (real(0.5) * inverse) + ((V)((Bits)u - power) - real(1)), lr_as_real(power));
  y = (V)((I)y | lr_sign(x));
  LR_UNLESS(lr_all((u > 0) & (u < real(LR_INF)))) {
    V copy = x, other = y;
    lr_log1p_apart(&copy, &other);
    y = other;
  }
  return y;
}
// log(1 + exp(-|x|)), where halving 1 + t is enough
LR_INLINE V lr_log1p_exp(V x) {
  V t = lr_exp_scaled(lr_at_least(lr_minus_abs(x), LR_LOWEST)) * LR_SCALED;
  I large = t > real(0.5);
  return lr_logarithm(select(large, real(0.5) * t - real(0.5), t), select(large, splat(1), V()));
}

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define LR_FMA 1
#else
#define LR_FMA 0
#endif
// sin x = (-1)^n sin(x - n pi), and cos x = (-1)^m sin(x - n pi) where n = m - 1/2. The polynomial is for
// (sin r - r) / r^3 in r^2 on |r| < pi / 2: degree 3, error 0.10 * 2^-24; in double degree 7, error 0.003 * 2^-53.
// pi is split into parts whose products with n are exact up to LR_FAR (fma rounds none, and float without it has double for
// this); beyond, the C library does such lanes one by one, and gives the nan of inf.
static constexpr real LR_FAR = LR_DOUBLE ? 1e6 : 1e5;
template <bool COSINE> LR_RARE void lr_far_apart(const V *at, V *wave) {
  for (int i = 0; i < LANES; i++) {
    real x = (*at)[i];
    if (x < LR_FAR && x > -LR_FAR) continue;
#if LR_DOUBLE
    (*wave)[i] = COSINE ? __builtin_cos(x) : __builtin_sin(x);
#else
    (*wave)[i] = COSINE ? __builtin_cosf(x) : __builtin_sinf(x);
#endif
  }
}
template <bool COSINE> LR_INLINE V lr_wave(V x) {
  V a = lr_abs(x), z, n;
  if (COSINE) z = (a * real(0x1.45f306dc9c883p-2) + real(0.5)) + LR_MAGIC, n = (z - LR_MAGIC) - real(0.5);
  else z = a * real(0x1.45f306dc9c883p-2) + LR_MAGIC, n = z - LR_MAGIC;
#if LR_DOUBLE
#if LR_FMA
  V r = ((a - n * 0x1.921fb54442d18p+1) - n * 0x1.1a62633145c07p-53) - n * -0x1.f1976b7ed8fbcp-109;
#else
  V r = ((a - n * 0x1.921fb544p+1) - n * 0x1.0b4611a6p-33) - n * 0x1.3198a2ep-68 - n * 0x1.b839a252049c1p-103;
#endif
  V r2 = r * r;
  V y = r * (r2 * lr_series(r2, -0x1.5555555555555p-3, 0x1.11111111110c8p-7, -0x1.a01a01a014d6ep-13, 0x1.71de3a52a0a15p-19,
                            -0x1.ae6454d46831p-26, 0x1.6123cd02daba6p-33, -0x1.ae4382eadb014p-41, 0x1.88327408ef4d7p-49)) + r;
#else
#if LR_FMA
  V r = ((a - n * 0x1.921fb4p+1f) - n * 0x1.4442dp-23f) - n * 0x1.84698ap-47f;
#else
  typedef double Wide __attribute__((vector_size(2 * LR_BYTES)));
  Wide wide = __builtin_convertvector(n, Wide);
  wide = (__builtin_convertvector(a, Wide) - wide * 0x1.921fb544p+1) - wide * 0x1.0b4611a626331p-33;
  V r = __builtin_convertvector(wide, V);
#endif
  V r2 = r * r;
  V y = r * (r2 * lr_series(r2, -0x1.55554cp-3f, 0x1.110edap-7f, -0x1.9f70eep-13f, 0x1.5dc8cp-19f)) + r;
#endif
  y = (V)((Bits)y ^ (Bits)z << (LR_DOUBLE ? 63 : 31));
  if (!COSINE) y = (V)((I)y ^ lr_sign(x));
  LR_UNLESS(lr_all(a < LR_FAR)) {
    V copy = x, other = y;
    lr_far_apart<COSINE>(&copy, &other);
    y = other;
  }
  return y;
}
LR_INLINE V lr_sin(V x) { return lr_wave<false>(x); }
LR_INLINE V lr_cos(V x) { return lr_wave<true>(x); }

// erf(a) = 1 - exp(-y), where y = -log(erfc(a)) = a + a p(a): a relative error of y is no larger in the result. The
// polynomial is for p on a < 4: degree 8, error 0.07 * 2^-24 of erf; in double a < 6, degree 23, error 0.28 * 2^-53.
LR_INLINE V lr_erf(V x) {
  V a = lr_at_most(lr_abs(x), LR_DOUBLE ? 6 : 4);
#if LR_DOUBLE
  V a2 = a * a;
  V even = lr_series(a2, 0x1.06eba8214db68p-3, 0x1.a4f4e2a1aa719p-4, -0x1.b6b6a0dad2b7dp-13, -0x1.356635e2cf9d4p-11,
                         0x1.0e343f57012b1p-14, 0x1.a9d046935a42dp-19, -0x1.110e696652c5ep-19, -0x1.6c19071dae5d7p-27,
                         0x1.2ab0ffd8cce86p-25, 0x1.46207feb31981p-29, 0x1.7cc5cf92438eep-35, 0x1.6e84cf3b93ep-43);
  V odd = lr_series(a2, 0x1.45f306dc9c8cfp-1, -0x1.39668590bf3ffp-6, 0x1.bca69128ceb1fp-10, 0x1.b298b3bdb4d5p-16,
                        -0x1.f03b8f8768ed2p-16, 0x1.a4137d8f9a3bfp-19, 0x1.314f2484f4e83p-21, -0x1.1c83c47ddc4d3p-24,
                        -0x1.740b05ab627e3p-27, -0x1.9fd82f1f2addfp-32, -0x1.dcd46c307c7d5p-39, -0x1.0526755a66ce5p-48);
  V y = a * (a * odd + even) + a;
#else
  V y = a * lr_series(a, 0x1.06eba8p-3f, 0x1.45f3p-1f, 0x1.a4f8c4p-4f, -0x1.39b7ccp-6f, -0x1.63743cp-13f, 0x1.b74354p-10f,
                      -0x1.4e26fp-11f, 0x1.f28206p-14f, -0x1.3af7b8p-17f) + a;
#endif
  Exponential e = lr_exponential(-y, 0);
  V s = lr_two_to(e.power);
  return (V)((I)((real(1) - s) - s * e.q) | lr_sign(x));
}
// x (1 - h) for x > 0, x h for x < 0, with h = (1 - erf(a / sqrt 2)) / 2 = exp(-a^2 / 2) p(s), a = |x|, s = c a / (1 + c a),
// so that nothing cancels. The polynomial is for p on a < 15: degree 8, error of h 0.16 * 2^-24, or where h is small 5 * 2^-24
// of it; in double a < 39, degree 19, error 0.18 * 2^-53, or 92 * 2^-53 of it. - (x - x) is for -inf, where torch has nan.
LR_INLINE V lr_gelu(V x) {
  V a = lr_at_most(lr_abs(x), LR_DOUBLE ? 39 : 15), ca = a * (LR_DOUBLE ? real(0.24) : real(0.3)), s = ca / (real(1) + ca);
#if LR_DOUBLE
  V s2 = s * s;
  V even = lr_series(s2, 0.5, 0x1.56c94d88fbcd7p+1, 0x1.5681795942513p+0, -0x1.18fc96ed15855p-2, 0x1.3034cc18c139ep-4,
                     -0x1.9534162bd13ddp-6, -0x1.6b15e5a007b3p-6, -0x1.6c21c64d2d479p-4, -0x1.648b2d59c9478p-4,
                     -0x1.dc198a8eb238ep-7);
  V odd = lr_series(s2, -0x1.a989d6b526367p+0, -0x1.4cf620e938455p+1, -0x1.154016114f395p-4, 0x1.27b242b4b1632p-5,
                    0x1.430b50dfacc49p-10, 0x1.5ad2ad24c36a2p-9, 0x1.f31a2d473a5b1p-5, 0x1.a457dd751e75ap-4,
                    0x1.83c42a5961c77p-5, 0x1.f76785603cb79p-10);
  V p = s * odd + even;
#else
  V p = lr_series(s, 0.5f, -0x1.546e5cp+0f, 0x1.72b27cp+0f, -0x1.66a92ep-1f, -0x1.8af8f2p-5f, 0x1.e0736p-4f, 0x1.b24c48p-4f,
                  -0x1.0713e2p-3f, 0x1.23d5fap-5f);
#endif
  V tail = a * (p * lr_exp_scaled(real(-0.5) * a * a)) * LR_SCALED;
  return select(x < 0, -tail - (x - x), x - tail);
}

LR_INLINE V lr_softplus(V x) { return lr_relu(x) + lr_log1p_exp(x); }
LR_INLINE V lr_logaddexp(V a, V b) {
  V d = select(a == b, V(), a - b);  // not inf - inf
  return select(a > b, a, b) + lr_log1p_exp(d);
}
#undef LR_IA32
#undef LR_MASKS
#undef LR_RARE
#undef LR_UNLESS
#undef LR_INF
#undef LR_FMA
