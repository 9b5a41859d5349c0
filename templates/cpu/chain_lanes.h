
// What is added up of blocks of time, for steps side by side.

// Of each channel, in the lanes of all its steps; and back.
template <class T, class In> LR_INLINE T spread_out(T m, const In &in) {
  for (int i = 0; i < T::HELD; ++i) m.p[i] = pick(m.p[i], in.channel);
  for (int i = 0; i < T::SIZE; ++i) m.b.of[i] = pick(m.b.of[i], in.channel);
  return m;
}
template <class T, class In> LR_INLINE T gathered(T m, const In &in) {
  for (int i = 0; i < T::HELD; ++i) m.p[i] = pick(m.p[i], in.first);
  for (int i = 0; i < T::SIZE; ++i) m.b.of[i] = pick(m.b.of[i], in.first);
  return m;
}
// As many steps more as are side by side, of which each does a and then adds b; all lanes know of all of them.
template <class T, class M, int N, int EACH, class In>
LR_INLINE void then(T &upto, M (&steps)[EACH], State<N> (&rests)[EACH], const In &in) {
  stretched(steps, rests);
  M a = steps[EACH - 1];
  State<N> b = rests[EACH - 1];
  joined(a, b, in);
  b = a(upto.b, b);
  M e;
  for (int i = 0; i < M::COUNT; ++i) e.p[i] = upto.p[i];
  a = a.after(e);
  for (int i = 0; i < M::COUNT; ++i) upto.p[i] = pick(a.p[i], in.last[0]);
  for (int i = 0; i < N; ++i) upto.b.of[i] = pick(b.of[i], in.last[0]);
}

// STEPS vectors of as many steps each, of STEPS parts: the other way round, vectors of one step of each part.
template <int STEPS> struct Transposed {
  enum { LEVELS = STEPS > 8 ? 4 : STEPS > 4 ? 3 : STEPS > 2 ? 2 : 1 };
  I low[LEVELS], high[LEVELS];
  Transposed() {
    for (int k = 0; k < LEVELS; ++k)
      for (int lane = 0, wide = (LANES / STEPS) << k; lane < LANES; ++lane) {
        low[k][lane] = lane & wide ? LANES + lane - wide : lane;
        high[k][lane] = lane & wide ? LANES + lane : lane + wide;
      }
  }
  inline __attribute__((always_inline)) void operator()(V (&v)[STEPS]) const {
#pragma GCC unroll 4
    for (int k = 0; k < LEVELS; ++k)
#pragma GCC unroll 16
      for (int i = 0; i < STEPS; ++i)
        if (!(i & 1 << k)) {
          const V one = v[i], other = v[i + (1 << k)];
          v[i] = pick(one, other, low[k]), v[i + (1 << k)] = pick(one, other, high[k]);
        }
  }
};
// What the parts do, one after another, after what is done before them; all lanes know of all of it.
template <class T, class In> LR_INLINE T after_all(T m, const T &before, const In &in) {
  const T nothing = T::identity();
  for (long k = 0; k < in.levels; ++k) {
    T e;
    for (int i = 0; i < T::HELD; ++i) e.p[i] = pick(nothing.p[i], m.p[i], in.earlier[k]);
    for (int i = 0; i < T::SIZE; ++i) e.b.of[i] = pick(nothing.b.of[i], m.b.of[i], in.earlier[k]);
    m = m.after(e);
  }
  m = m.after(before);
  for (int i = 0; i < T::HELD; ++i) m.p[i] = pick(m.p[i], in.last[0]);
  for (int i = 0; i < T::SIZE; ++i) m.b.of[i] = pick(m.b.of[i], in.last[0]);
  return m;
}
