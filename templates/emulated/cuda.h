// Stands in for CUDA before a text that is compiled for the emulator. Includes nothing, so that texts compile fast.
//
// Accesses without an intrinsic are seen by the instrumentation of -fsanitize=thread; intrinsics call the runtime with
// their value, so that it can hold a store back. Math functions are the C library's, not NVIDIA's.
#define LR_EMULATED 1

#define __global__ __attribute__((flatten))  // what a lambda captures stays out of memory, and no hook is called for it
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// One section, which the runtime fills, saves and restores as blocks come and go. `used`: without it a compiler sees that
// nobody writes a variable, and reads zeros for it.
#define __shared__ static __attribute__((section("emu_shared"), used))

#define threadIdx (emu_thread())
#define blockIdx (emu_block())
#define blockDim (emu_block_size())
#define gridDim (emu_grid_size())
#define warpSize 32

#define EMU_INLINE static inline __attribute__((always_inline))
#define EMU_LINE int line = __builtin_LINE()

typedef decltype(sizeof 0) size_t;

// ---- vectors

#define EMU_VECTOR2(name, T) \
  struct alignas(2 * sizeof(T)) name { T x, y; }; \
  EMU_INLINE name make_##name(T x, T y) { return {x, y}; }
#define EMU_VECTOR3(name, T) \
  struct name { T x, y, z; }; \
  EMU_INLINE name make_##name(T x, T y, T z) { return {x, y, z}; }
#define EMU_VECTOR4(name, T) \
  struct alignas(4 * sizeof(T)) name { T x, y, z, w; }; \
  EMU_INLINE name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTOR2(int2, int) EMU_VECTOR2(uint2, unsigned) EMU_VECTOR2(float2, float) EMU_VECTOR2(double2, double)
EMU_VECTOR2(longlong2, long long) EMU_VECTOR2(ulonglong2, unsigned long long)
EMU_VECTOR2(uchar2, unsigned char) EMU_VECTOR2(ushort2, unsigned short)
EMU_VECTOR3(int3, int) EMU_VECTOR3(uint3, unsigned) EMU_VECTOR3(float3, float)
EMU_VECTOR4(int4, int) EMU_VECTOR4(uint4, unsigned) EMU_VECTOR4(float4, float)
EMU_VECTOR4(uchar4, unsigned char) EMU_VECTOR4(ushort4, unsigned short)

template <class T> constexpr unsigned emu_piece(const T &, long) { return sizeof(T); }
template <class T> constexpr auto emu_piece(const T &v, int) -> decltype(sizeof v.x) { return sizeof v.x; }

// ---- memory

template <class T> EMU_INLINE EmuWord emu_word(const T &v) {
  static_assert(sizeof(T) <= 16, "an access of at most 16 bytes");
  EmuWord word = {0, 0};
  __builtin_memcpy(&word, &v, sizeof(T));
  return word;
}
template <class T> EMU_INLINE T emu_value(EmuWord word) {
  T v;
  __builtin_memcpy(&v, &word, sizeof(T));
  return v;
}
template <class T> struct EmuSame { typedef T type; };
template <class T> using EmuOnly = typename EmuSame<T>::type;  // not deduced: converted to what the pointer says

#define EMU_LOAD(name, how) \
  template <class T> EMU_INLINE T name(const T *p) { return emu_value<T>(emu_load(p, sizeof(T), how)); }
#define EMU_STORE(name) \
  template <class T> EMU_INLINE void name(T *p, EmuOnly<T> v) { \
    emu_store(p, emu_word(v), sizeof(T), emu_piece(v, 0), EMU_PLAIN); \
  }
EMU_LOAD(__ldg, EMU_READ_ONLY) EMU_LOAD(__ldca, EMU_PLAIN) EMU_LOAD(__ldcg, EMU_PLAIN) EMU_LOAD(__ldcs, EMU_PLAIN)
EMU_LOAD(__ldlu, EMU_PLAIN)
EMU_STORE(__stwb) EMU_STORE(__stcg) EMU_STORE(__stcs) EMU_STORE(__stwt)

// The twins of inline PTX: one access of 16 bytes that no other can split, relaxed, of the whole GPU.
template <class T> EMU_INLINE void emu_load_relaxed(const T *p, T &v) {
  static_assert(sizeof(T) == 16, "a message of 16 bytes");
  v = emu_value<T>(emu_load(p, 16, EMU_RELAXED));
}
template <class T> EMU_INLINE void emu_store_relaxed(T *p, const T &v) {
  static_assert(sizeof(T) == 16, "a message of 16 bytes");
  emu_store(p, emu_word(v), 16, 16, EMU_RELAXED);
}

template <class T> struct EmuFormOf { static constexpr EmuForm form = T(-1) < T(0) ? EMU_SIGNED : EMU_UNSIGNED; };
template <> struct EmuFormOf<float> { static constexpr EmuForm form = EMU_FLOAT; };
template <> struct EmuFormOf<double> { static constexpr EmuForm form = EMU_FLOAT; };
template <class T> EMU_INLINE T emu_atomic_of(EmuAtomic op, T *p, T v, T compare = T()) {
  return emu_value<T>({emu_atomic(op, EmuFormOf<T>::form, p, sizeof(T), emu_word(v).low, emu_word(compare).low), 0});
}
#define EMU_ATOMIC(name, op) \
  template <class T> EMU_INLINE T name(T *p, EmuOnly<T> v) { return emu_atomic_of<T>(op, p, v); }
EMU_ATOMIC(atomicAdd, EMU_ADD) EMU_ATOMIC(atomicSub, EMU_SUB) EMU_ATOMIC(atomicExch, EMU_EXCHANGE)
EMU_ATOMIC(atomicMin, EMU_MIN) EMU_ATOMIC(atomicMax, EMU_MAX) EMU_ATOMIC(atomicAnd, EMU_AND)
EMU_ATOMIC(atomicOr, EMU_OR) EMU_ATOMIC(atomicXor, EMU_XOR) EMU_ATOMIC(atomicInc, EMU_INC) EMU_ATOMIC(atomicDec, EMU_DEC)
template <class T> EMU_INLINE T atomicCAS(T *p, EmuOnly<T> compare, EmuOnly<T> v) {
  return emu_atomic_of<T>(EMU_COMPARE, p, v, compare);
}

EMU_INLINE void __threadfence_block() { emu_fence(false); }
EMU_INLINE void __threadfence() { emu_fence(true); }
EMU_INLINE void __threadfence_system() { emu_fence(true); }
EMU_INLINE void __nanosleep(unsigned) { emu_sleep(); }
EMU_INLINE void __trap() { emu_trap(); }

EMU_INLINE void *emu_copied(void *to, const void *from, size_t bytes) {
  return __builtin_constant_p(bytes) && bytes <= 16 ? __builtin_memcpy(to, from, bytes) : emu_memcpy(to, from, bytes);
}
#define memcpy emu_copied
#define memset emu_memset

EMU_INLINE void __pipeline_memcpy_async(void *to, const void *from, size_t bytes, size_t zeros = 0) {
  emu_copy_async(to, from, bytes, zeros);
}
EMU_INLINE void __pipeline_commit() { emu_copy_commit(); }
EMU_INLINE void __pipeline_wait_prior(size_t groups) { emu_copy_wait(groups); }

// ---- threads together

EMU_INLINE void __syncthreads(EMU_LINE) { emu_barrier(EMU_SYNC, 0, line); }
EMU_INLINE int __syncthreads_or(int p, EMU_LINE) { return emu_barrier(EMU_SYNC_OR, p != 0, line); }
EMU_INLINE int __syncthreads_and(int p, EMU_LINE) { return emu_barrier(EMU_SYNC_AND, p != 0, line); }
EMU_INLINE int __syncthreads_count(int p, EMU_LINE) { return emu_barrier(EMU_SYNC_COUNT, p != 0, line); }

EMU_INLINE void __syncwarp(unsigned mask = 0xffffffffu, EMU_LINE) { emu_collective(EMU_SYNC_WARP, mask, 0, 0, 32, line); }
EMU_INLINE unsigned __ballot_sync(unsigned mask, int p, EMU_LINE) {
  return unsigned(emu_collective(EMU_BALLOT, mask, p != 0, 0, 32, line));
}
EMU_INLINE int __any_sync(unsigned mask, int p, EMU_LINE) { return __ballot_sync(mask, p, line) != 0; }
EMU_INLINE int __all_sync(unsigned mask, int p, EMU_LINE) { return __ballot_sync(mask, !p, line) == 0; }
#define EMU_SHUFFLED(name, op, A) \
  template <class T> EMU_INLINE T name(unsigned mask, T v, A argument, int width = 32, EMU_LINE) { \
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle of 4 or 8 bytes"); \
    return emu_value<T>({emu_collective(op, mask, emu_word(v).low, int(argument), width, line), 0}); \
  }
EMU_SHUFFLED(__shfl_sync, EMU_SHUFFLE, int) EMU_SHUFFLED(__shfl_up_sync, EMU_SHUFFLE_UP, unsigned)
EMU_SHUFFLED(__shfl_down_sync, EMU_SHUFFLE_DOWN, unsigned) EMU_SHUFFLED(__shfl_xor_sync, EMU_SHUFFLE_XOR, int)

// ---- arithmetic

#define EMU_MATH1(name) \
  extern "C" double name(double); \
  extern "C" float name##f(float); \
  EMU_INLINE float name(float x) { return name##f(x); }
#define EMU_MATH2(name) \
  extern "C" double name(double, double); \
  extern "C" float name##f(float, float); \
  EMU_INLINE float name(float x, float y) { return name##f(x, y); }
EMU_MATH1(exp) EMU_MATH1(exp2) EMU_MATH1(expm1) EMU_MATH1(log) EMU_MATH1(log2) EMU_MATH1(log10) EMU_MATH1(log1p)
EMU_MATH1(sqrt) EMU_MATH1(cbrt) EMU_MATH1(sin) EMU_MATH1(cos) EMU_MATH1(tan) EMU_MATH1(asin) EMU_MATH1(acos)
EMU_MATH1(atan) EMU_MATH1(sinh) EMU_MATH1(cosh) EMU_MATH1(tanh) EMU_MATH1(erf) EMU_MATH1(erfc) EMU_MATH1(fabs)
EMU_MATH1(floor) EMU_MATH1(ceil) EMU_MATH1(trunc) EMU_MATH1(round) EMU_MATH1(rint)
EMU_MATH2(pow) EMU_MATH2(atan2) EMU_MATH2(fmod) EMU_MATH2(fmin) EMU_MATH2(fmax) EMU_MATH2(hypot) EMU_MATH2(copysign)
extern "C" double fma(double, double, double);
extern "C" float fmaf(float, float, float);
EMU_INLINE float fma(float x, float y, float z) { return fmaf(x, y, z); }
EMU_INLINE double rsqrt(double x) { return 1 / sqrt(x); }
EMU_INLINE float rsqrtf(float x) { return float(1 / sqrt(double(x))); }
EMU_INLINE double normcdf(double x) { return 0.5 * erfc(x * -0.70710678118654752440); }
EMU_INLINE float normcdff(float x) { return float(normcdf(double(x))); }
template <class T> EMU_INLINE bool isfinite(T x) { return __builtin_isfinite(x); }
template <class T> EMU_INLINE bool isinf(T x) { return __builtin_isinf(x); }
template <class T> EMU_INLINE bool isnan(T x) { return __builtin_isnan(x); }
template <class T> EMU_INLINE bool signbit(T x) { return __builtin_signbit(x); }
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")

// As fast as on the device is not the point, but its limits are: a large divisor gives 0 there.
EMU_INLINE float __fdividef(float a, float b) { return fabsf(b) > 0x1p126f && !isinf(b) ? a * 0.0f : a / b; }
EMU_INLINE float __frcp_rn(float a) { return 1 / a; }
EMU_INLINE float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
EMU_INLINE double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
EMU_INLINE float __expf(float x) { return expf(x); }
EMU_INLINE float __logf(float x) { return logf(x); }

#define EMU_BITS(name, From, To) \
  EMU_INLINE To name(From x) { return emu_value<To>(emu_word(x)); }
EMU_BITS(__float_as_uint, float, unsigned) EMU_BITS(__float_as_int, float, int) EMU_BITS(__uint_as_float, unsigned, float)
EMU_BITS(__int_as_float, int, float) EMU_BITS(__double_as_longlong, double, long long)
EMU_BITS(__longlong_as_double, long long, double)
EMU_INLINE int __double2loint(double x) { return int(__double_as_longlong(x)); }
EMU_INLINE int __double2hiint(double x) { return int(__double_as_longlong(x) >> 32); }
EMU_INLINE double __hiloint2double(int high, int low) {
  return __longlong_as_double((long long)((unsigned long long)unsigned(high) << 32 | unsigned(low)));
}
// The twins of cvt.f32.f16 and cvt.rn.f16.f32. Added to 1/2, what becomes denormal is rounded where its last bit is.
EMU_INLINE float emu_half2float(unsigned short h) {
  unsigned u = (h & 0x7fffu) << 13, sign = (h & 0x8000u) << 16;
  if (u < 1u << 23) return __uint_as_float(__float_as_uint(__uint_as_float(u + (113u << 23)) - 0x1p-14f) | sign);
  return __uint_as_float((u + (u < 0x7c00u << 13 ? 112u << 23 : 224u << 23)) | sign);
}
EMU_INLINE unsigned short emu_float2half(float x) {
  unsigned u = __float_as_uint(x) & 0x7fffffffu, sign = (__float_as_uint(x) ^ u) >> 16, h;
  if (u > 0x7f800000u) h = 0x7e00;
  else if (u >= 0x477ff000u) h = 0x7c00;  // 65520, halfway beyond the largest
  else if (u < 113u << 23) h = __float_as_uint(__uint_as_float(u) + 0.5f) - 0x3f000000u;
  else h = (u - (112u << 23) + 0xfffu + (u >> 13 & 1u)) >> 13;
  return (unsigned short)(h | sign);
}
EMU_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
EMU_INLINE int __ffs(int x) { return __builtin_ffs(x); }
EMU_INLINE int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }

template <class T> EMU_INLINE T min(T a, T b) { return b < a ? b : a; }
template <class T> EMU_INLINE T max(T a, T b) { return a < b ? b : a; }
EMU_INLINE float min(float a, float b) { return fminf(a, b); }
EMU_INLINE float max(float a, float b) { return fmaxf(a, b); }
EMU_INLINE double min(double a, double b) { return fmin(a, b); }
EMU_INLINE double max(double a, double b) { return fmax(a, b); }
