
// Complex numbers in memory: pairs of real and imaginary part, of which a thread reads and writes both at once.

template <class T> struct alignas(2 * sizeof(T)) Pair {
  T re, im;
};
#if LR_DOUBLE
typedef double2 Two;
#else
typedef float2 Two;
#endif
LR_INLINE Pair<V> get(const Pair<real> *p) {
  const Two v = __ldg((const Two *)p);
  return {v.x, v.y};
}
LR_INLINE void put(Pair<real> *p, const Pair<V> &v) { *(Two *)p = {v.re, v.im}; }
#ifdef LR_BFLOAT
LR_INLINE Pair<V> get(const Pair<Stored> *p) {
  const ushort2 v = __ldg((const ushort2 *)p);
  return {widened({v.x}), widened({v.y})};
}
LR_INLINE void put(Pair<Stored> *p, const Pair<V> &v) { *(ushort2 *)p = {narrowed(v.re).bits, narrowed(v.im).bits}; }
#endif

// Values beyond a segment, whose parts are given apart.
template <class W> struct PairWindow {
  W re, im;
  LR_INLINE Pair<V> at(Index k) const { return {re.at(k), im.at(k)}; }
};
