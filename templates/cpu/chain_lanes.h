
// What is added up of blocks of time, for steps side by side.

// Of each channel, in the lanes of all its steps; and back.
template <class T, int DEPTH> LR_INLINE T spread_out(T m, const Lanes<DEPTH> &in) {
  for (int i = 0; i < T::HELD; ++i) m.p[i] = pick(m.p[i], in.channel);
  for (int i = 0; i < T::SIZE; ++i) m.b.of[i] = pick(m.b.of[i], in.channel);
  return m;
}
template <class T, int DEPTH> LR_INLINE T gathered(T m, const Lanes<DEPTH> &in) {
  for (int i = 0; i < T::HELD; ++i) m.p[i] = pick(m.p[i], in.first);
  for (int i = 0; i < T::SIZE; ++i) m.b.of[i] = pick(m.b.of[i], in.first);
  return m;
}
// As many steps more as are side by side, of which each does a and then adds b; all lanes know of all of them.
template <class T, class M, int N, int DEPTH> LR_INLINE void then(T &upto, M a, State<N> b, const Lanes<DEPTH> &in) {
  joined(a, b, in);
  b = a(upto.b, b);
  if (int(T::HELD) > int(M::COUNT)) {  // with the rounding error of the product, as in T::step
    const V p = a.p[0] * upto.p[0];
    upto.p[T::HELD - 1] = lr_fma(a.p[0], upto.p[T::HELD - 1], lr_fma(a.p[0], upto.p[0], -p));
    a.p[0] = p;
  } else {
    M e;
    for (int i = 0; i < M::COUNT; ++i) e.p[i] = upto.p[i];
    a = a.after(e);
  }
  for (int i = 0; i < M::COUNT; ++i) upto.p[i] = pick(a.p[i], in.last[0]);
  for (int i = 0; i < N; ++i) upto.b.of[i] = pick(b.of[i], in.last[0]);
}
