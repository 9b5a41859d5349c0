
// What kernels over an axis share: rows of N numbers a channel, sums over channels.

// A row of channels (`n` apart are the rows of N numbers), or N numbers that the channels share.
template <class T> struct Row {
  const T *at;
  long n;
};

// Values beyond a segment, nearest first, that lie `depth` apart; the numbers of a value lie `n` apart.
template <class T> struct Edges {
  const T *nearest;
  long depth, n;
  Row<T> row(long k) const { return {nearest + k * depth, n}; }
};

static inline Edges<real> edges(const real *given, long offset, long depth, long n, Scratch &scratch, real init) {
  if (given) return {given + offset, depth, n};
  return {window(0, 0, 0, scratch, init).nearest, 0, 0};
}
#ifdef LR_BFLOAT
// Of a sequence of 16 bits: `count` values of `numbers` rows each, of `width` channels, or 1 where these share them.
static inline Edges<Stored> stored_edges(const real *given, long offset, long depth, long n, long count, long numbers, long width,
                                         Scratch &scratch, real init) {
  Stored *const rows = (Stored *)scratch.rows(given ? count * numbers : 1);
  for (long k = 0; k < (given ? count : 1); ++k)
    for (long i = 0; i < (given ? numbers : 1); ++i)
      for (long c = 0; c < width; ++c)
        put<false>(rows + (k * numbers + i) * width + c, splat(given ? given[offset + k * depth + i * n + c] : init), 1);
  return {rows, given ? numbers * width : 0, given ? width : 0};
}
#endif

template <class T>
static inline Row<T> earlier(const T *rows, long time, long t, long k, Edges<T> start, Edges<T> edge, const Boundaries &reset, long n) {
  for (long j = 1; j <= k; ++j) {
    if (reset.at(t - j + 1)) return edge.row(k - j);
    if (t - j + 1 == 0) return start.row(k - j);
  }
  return {rows + (t - k) * time, n};
}
template <class T>
static inline Row<T> later(const T *rows, long time, long t, long k, Edges<T> start, Edges<T> edge, const Boundaries &reset, long n) {
  for (long j = 1; j <= k; ++j) {
    if (t + j == reset.T) return start.row(k - j);
    if (reset.at(t + j)) return edge.row(k - j);
  }
  return {rows + (t + k) * time, n};
}

static inline void refill(real *rows, long depth, long numbers, const Edges<real> &from, long width) {
  for (long k = 0; k < depth; ++k)
    for (long n = 0; n < numbers; ++n)
      for (long c = 0; c < width; ++c) rows[(k * numbers + n) * width + c] = from.row(k).at[n * from.n + c];
}

// The lanes that are channels: others may hold anything, a nan too.
template <bool WHOLE> LR_INLINE V only(V v, long live) {
  for (long i = live; !WHOLE && i < LANES; ++i) v[i] = 0;
  return v;
}
LR_INLINE real over_lanes(V v) {
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}
