
// Complex numbers in memory: pairs of real and imaginary part. In registers the parts are vectors of their own, Pair<V>, so that
// a vector's worth of channels is two vectors in memory, whose lanes change places.

template <class T> struct Pair {
  T re, im;
};

#define LR_TWICE_2(k) k, (k) + 2
#define LR_TWICE_4(k) LR_TWICE_2(k), LR_TWICE_2((k) + 4)
#define LR_TWICE_8(k) LR_TWICE_4(k), LR_TWICE_4((k) + 8)
#define LR_TWICE_16(k) LR_TWICE_8(k), LR_TWICE_8((k) + 16)
#define LR_TWICE_32(k) LR_TWICE_16(k), LR_TWICE_16((k) + 32)
#define LR_BESIDE_2(k) k, (k) + LANES
#define LR_BESIDE_4(k) LR_BESIDE_2(k), LR_BESIDE_2((k) + 1)
#define LR_BESIDE_8(k) LR_BESIDE_4(k), LR_BESIDE_4((k) + 2)
#define LR_BESIDE_16(k) LR_BESIDE_8(k), LR_BESIDE_8((k) + 4)
#define LR_BESIDE_32(k) LR_BESIDE_16(k), LR_BESIDE_16((k) + 8)
#if LR_BYTES == (LR_DOUBLE ? 16 : 8)
#define LR_OF_PAIRS(way, k) LR_##way##_2(k)
#elif LR_BYTES == (LR_DOUBLE ? 32 : 16)
#define LR_OF_PAIRS(way, k) LR_##way##_4(k)
#elif LR_BYTES == (LR_DOUBLE ? 64 : 32)
#define LR_OF_PAIRS(way, k) LR_##way##_8(k)
#elif LR_BYTES == (LR_DOUBLE ? 128 : 64)
#define LR_OF_PAIRS(way, k) LR_##way##_16(k)
#else
#define LR_OF_PAIRS(way, k) LR_##way##_32(k)
#endif
LR_INLINE Pair<V> parts(V first, V second) {
  return {__builtin_shufflevector(first, second, LR_OF_PAIRS(TWICE, 0)), __builtin_shufflevector(first, second, LR_OF_PAIRS(TWICE, 1))};
}
LR_INLINE V woven_first(const Pair<V> &v) { return __builtin_shufflevector(v.re, v.im, LR_OF_PAIRS(BESIDE, 0)); }
LR_INLINE V woven_second(const Pair<V> &v) { return __builtin_shufflevector(v.re, v.im, LR_OF_PAIRS(BESIDE, LANES / 2)); }

// As the functions of the same names on `real`; 0 < n < LANES pairs.
template <class T> LR_INLINE Pair<V> load(const Pair<T> *p) { return parts(load(&p->re), load(&p->re + LANES)); }
template <class T> LR_INLINE Pair<V> load_n(const Pair<T> *p, long n) {
  if (2 * n < LANES) return parts(load_n(&p->re, 2 * n), V());
  return parts(load(&p->re), 2 * n > LANES ? load_n(&p->re + LANES, 2 * n - LANES) : V());
}
template <class T> LR_INLINE void store(Pair<T> *p, const Pair<V> &v) {
  store(&p->re, woven_first(v)), store(&p->re + LANES, woven_second(v));
}
template <bool WHOLE, class T> LR_INLINE Pair<V> get(const Pair<T> *p, long n) { return WHOLE ? load(p) : load_n(p, n); }
template <bool WHOLE, class T> LR_INLINE void write(Pair<T> *p, const Pair<V> &v, long n, bool past) {
  if (WHOLE) {
    write<true>(&p->re, woven_first(v), LANES, past), write<true>(&p->re + LANES, woven_second(v), LANES, past);
  } else if (2 * n < LANES) {
    store_n(&p->re, woven_first(v), 2 * n);
  } else {
    store(&p->re, woven_first(v));
    if (2 * n > LANES) store_n(&p->re + LANES, woven_second(v), 2 * n - LANES);
  }
}

// Values beyond a segment, whose parts are given apart.
template <class P> static inline Rows<P> pair_window(const Window &re, const Window &im, long depth, Scratch &scratch) {
  const long width = scratch.width;
  P *const rows = (P *)scratch.rows(2 * depth);
  for (long k = 0; k < depth; ++k)
    for (long c = 0; c < width; ++c) {
      put<false>(&rows[k * width + c].re, splat(re.row(k)[c]), 1);
      put<false>(&rows[k * width + c].im, splat(im.row(k)[c]), 1);
    }
  return {rows, width};
}
