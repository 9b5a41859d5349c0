
// Numbers of 16 bits in memory, bfloat16 where LR_BFLOAT is 1, else float16; all arithmetic is float's.
//
// Reading is exact. Writing rounds to the nearest number, to the even one of two, denormal ones too; what is too large becomes
// inf, and a nan stays one, as in torch. (AVX512_BF16's instruction is not used: it turns denormals into 0.)

struct Stored {
  unsigned short bits;
};
typedef unsigned short Narrow __attribute__((vector_size(LR_BYTES / 2)));  // as many lanes as V
typedef unsigned short NarrowUnaligned __attribute__((vector_size(LR_BYTES / 2), aligned(2), may_alias));

#if LR_BFLOAT
LR_INLINE V widened(Narrow x) { return (V)(__builtin_convertvector(x, Bits) << 16); }
LR_INLINE Narrow narrowed(V v) {
  Bits u = (Bits)v, rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  return __builtin_convertvector(v != v ? (Bits)V() + 0x7fc0u : rounded, Narrow);
}
#elif defined(__AVX512F__) && __has_builtin(__builtin_ia32_vcvtph2ps512_mask)
typedef short NarrowOfIntel __attribute__((vector_size(LR_BYTES / 2)));
LR_INLINE V widened(Narrow x) { return __builtin_ia32_vcvtph2ps512_mask((NarrowOfIntel)x, V(), -1, 4); }
LR_INLINE Narrow narrowed(V v) { return (Narrow)__builtin_ia32_vcvtps2ph512_mask(v, 0, NarrowOfIntel(), -1); }
#elif defined(__AVX__) && defined(__F16C__) && __has_builtin(__builtin_ia32_vcvtph2ps256)  // later clangs have it not
typedef short NarrowOfIntel __attribute__((vector_size(LR_BYTES / 2)));
LR_INLINE V widened(Narrow x) { return __builtin_ia32_vcvtph2ps256((NarrowOfIntel)x); }
LR_INLINE Narrow narrowed(V v) { return (Narrow)__builtin_ia32_vcvtps2ph256(v, 0); }
#else
// The exponents are 112 apart. Of a denormal number a bit at the exponent's end is added, and taken off as a number.
LR_INLINE V widened(Narrow x) {
  Bits wide = __builtin_convertvector(x, Bits), u = (wide & 0x7fffu) << 13, sign = (wide & 0x8000u) << 16;
  V denormal = (V)(u + (113u << 23)) - 0x1p-14f;
  Bits normal = u + (u < 0x7c00u << 13 ? (Bits)V() + (112u << 23) : (Bits)V() + (224u << 23));
  return (V)((u < 1u << 23 ? (Bits)denormal : normal) | sign);
}
// Added to 1/2, a number that will be denormal has its last bit where the sum's is, and is rounded there.
LR_INLINE Narrow narrowed(V v) {
  Bits u = (Bits)lr_abs(v), sign = ((Bits)v ^ u) >> 16;
  Bits denormal = (Bits)((V)u + 0.5f) - 0x3f000000u;
  Bits normal = (u - (112u << 23) + 0xfffu + (u >> 13 & 1u)) >> 13;
  Bits most = u >= 0x477ff000u ? (Bits)V() + 0x7c00u : normal;
  return __builtin_convertvector((v != v ? (Bits)V() + 0x7e00u : u < 113u << 23 ? denormal : most) | sign, Narrow);
}
#endif

// As the functions of the same names on `real`.
LR_INLINE V splat(Stored x) { return widened(Narrow() + x.bits); }
LR_INLINE V load(const Stored *p) { return widened((Narrow) * (const NarrowUnaligned *)p); }
LR_INLINE void store(Stored *p, V v) { *(NarrowUnaligned *)p = narrowed(v); }
#if defined(__AVX512BW__) && defined(__AVX512VL__) && __has_builtin(__builtin_ia32_loaddquhi256_mask)
typedef short NarrowMasked __attribute__((vector_size(32)));
#if defined(__clang__)
typedef NarrowMasked MaskedPart;  // what its builtins take the address of
#else
typedef short MaskedPart;
#endif
LR_INLINE V load_n(const Stored *p, long n) {
  return widened((Narrow)__builtin_ia32_loaddquhi256_mask((const MaskedPart *)p, NarrowMasked(), (1 << n) - 1));
}
LR_INLINE void store_n(Stored *p, V v, long n) {
  __builtin_ia32_storedquhi256_mask((MaskedPart *)p, (NarrowMasked)narrowed(v), (1 << n) - 1);
}
#else
LR_INLINE V load_n(const Stored *p, long n) {
  Narrow x = Narrow();
#pragma GCC unroll 16
  for (int i = 0; i < LANES - 1; i++)
    if (i < n) x[i] = p[i].bits;
  return widened(x);
}
LR_INLINE void store_n(Stored *p, V v, long n) {
  Narrow x = narrowed(v);
#pragma GCC unroll 16
  for (int i = 0; i < LANES - 1; i++)
    if (i < n) p[i].bits = x[i];
}
#endif
template <bool WHOLE> LR_INLINE V get(const Stored *p, long n) { return WHOLE ? load(p) : load_n(p, n); }
template <bool WHOLE> LR_INLINE void put(Stored *p, V v, long n) {
  if (WHOLE) store(p, v);
  else store_n(p, v, n);
}
LR_INLINE void store_past(Stored *p, V v) {  // half as wide as that of `real`
#if defined(__clang__)
  __builtin_nontemporal_store(narrowed(v), (Narrow *)p);
#elif defined(__AVX512F__)
  __builtin_ia32_movntps256((float *)p, (float __attribute__((vector_size(32))))narrowed(v));
#elif defined(__AVX__)
  __builtin_ia32_movntps((float *)p, (float __attribute__((vector_size(16))))narrowed(v));
#else
  store(p, v);
#endif
}
template <bool WHOLE> LR_INLINE void write(Stored *p, V v, long n, bool past) {
  if (WHOLE && past) store_past(p, v);
  else put<WHOLE>(p, v, n);
}

// Values beyond a segment have as many bits as those in it.
typedef Rows<Stored> StoredWindow;
static inline StoredWindow stored_window(const real *given, long offset, long stride, long depth, Scratch &scratch, real init) {
  const long width = scratch.width, count = given ? depth : 1;
  Stored *const rows = (Stored *)scratch.rows(count);
  for (long k = 0; k < count; ++k)
    for (long c = 0; c < width; ++c) put<false>(rows + k * width + c, given ? splat(given[offset + k * stride + c]) : splat(init), 1);
  return {rows, given ? width : 0};
}
