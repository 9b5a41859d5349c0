
// Consecutive steps of a few channels in the lanes of one vector: lane g * channels + c is step g of channel c, as they lie in
// memory. A recurrence is solved for all of them at once, doubling the distance that each lane looks back (Kogge & Stone, A
// parallel algorithm for the efficient solution of a general class of recurrence equations, 1973).

// Lane i is lane from[i] of two vectors, whose lanes are counted one after the other.
#if defined(__clang__)
LR_INLINE V pick(V first, V second, I from) {
  union { V vector; real lane[LANES]; } a = {first}, b = {second}, found;
  for (int i = 0; i < LANES; ++i) found.lane[i] = from[i] < LANES ? a.lane[from[i]] : b.lane[from[i] - LANES];
  return found.vector;
}
LR_INLINE V pick(V v, I from) { return pick(v, v, from); }
#else
LR_INLINE V pick(V first, V second, I from) { return __builtin_shuffle(first, second, from); }
LR_INLINE V pick(V v, I from) { return __builtin_shuffle(v, from); }
#endif

// Which lanes stand for what, in a run that goes forth or back. Where channels do not fill them, a few lanes compute on numbers
// of the step before or after, which comes next in the run and is then written as it should be. DEPTH: steps that are kept of a
// sequence.
template <int DEPTH> struct Lanes {
  enum { LEVELS = LANES > 8 ? 4 : LANES > 4 ? 3 : 2 };
  long channels, steps, count, lowest, levels;
  I channel;          // of each lane
  I first;            // the other way: the first lane of each channel
  I earlier[LEVELS];  // level k: 2^k steps before, in the second vector; in the first where that is before all of them
  I past[DEPTH];      // k + 1 steps before, in the second vector; at the end of the first where that is before all of them
  I last[DEPTH];      // the lane of the step that is the last but k

  Lanes(long channels, bool back) : channels(channels), steps(LANES / channels), count(steps * channels), levels(0) {
    lowest = back ? LANES - count : 0;
    while (1 << levels < steps) ++levels;
    for (long lane = 0; lane < LANES; ++lane) {
      const bool used = lane >= lowest && lane < lowest + count;
      const long c = used ? (lane - lowest) % channels : 0, g = used ? (lane - lowest) / channels : 0;
      const long step = back ? steps - 1 - g : g;  // in the order of the run
      const auto at = [&](long step) { return lowest + (back ? steps - 1 - step : step) * channels + c; };
      channel[lane] = c, first[lane] = lowest + lane % channels;
      for (long k = 0; k < LEVELS; ++k) earlier[k][lane] = used && step >= 1 << k ? LANES + at(step - (1 << k)) : lane;
      for (long k = 0; k < DEPTH; ++k) {
        const bool within = used && k < steps;  // else nobody asks
        last[k][lane] = within ? at(steps - 1 - k) : lane;
        past[k][lane] = !within ? lane : step > k ? LANES + at(step - k - 1) : at(steps + step - k - 1);
      }
    }
  }
};

// What all steps up to that of each lane do, of which each does a, and then adds b.
template <class M, int N, int DEPTH> LR_INLINE void joined(M &a, State<N> &b, const Lanes<DEPTH> &in) {
  const M nothing = M::identity();
  const State<N> zero = M::zero();
  for (long k = 0; k < in.levels; ++k) {
    M e;
    State<N> h;
    for (int i = 0; i < M::COUNT; ++i) e.p[i] = pick(nothing.p[i], a.p[i], in.earlier[k]);
    for (int i = 0; i < N; ++i) h.of[i] = pick(zero.of[i], b.of[i], in.earlier[k]);
    b = a(h, b);
    a = a.after(e);
  }
}
// States after every step. before: the state before all of them, in every lane.
template <class M, int N, int DEPTH>
LR_INLINE State<N> solved(M a, State<N> b, const State<N> &before, const Lanes<DEPTH> &in) {
  joined(a, b, in);
  return a(before, b);
}

// The steps of a sequence whose rows, of its channels, lie `along` apart. WHOLE: next to each other, and they fill vectors.
template <bool WHOLE, class T, int DEPTH> LR_INLINE auto take(const T *rows, long along, const Lanes<DEPTH> &in) {
  if (WHOLE || along == in.channels) return load(rows - in.lowest);
  T dense[LANES] = {};
  for (long g = 0, lane = in.lowest; g < in.steps; ++g)
    for (long c = 0; c < in.channels; ++c) dense[lane++] = rows[g * along + c];
  return load(dense);
}
// ends: nothing is written later over what lies next to these steps.
template <bool WHOLE, class T, class U, int DEPTH>
LR_INLINE void give(T *rows, long along, const U &v, const Lanes<DEPTH> &in, bool past, bool ends) {
  if (WHOLE || (along == in.channels && !ends)) return write<true>(rows - in.lowest, v, LANES, past);
  T dense[LANES];
  store(dense, v);
  for (long g = 0, lane = in.lowest; g < in.steps; ++g)
    for (long c = 0; c < in.channels; ++c) rows[g * along + c] = dense[lane++];
}

// K columns of one tensor, K vectors of it: where a lane of a column is found in them, and the other way. The first two are
// looked up together, then one after the other for the lanes that are not there yet.
template <int K> struct Woven {
  I apart[K][K - 1], together[K][K - 1];
  template <int DEPTH> explicit Woven(const Lanes<DEPTH> &in) {
    for (long j = 0; j < K; ++j)
      for (long lane = 0; lane < LANES; ++lane) {
        const long step = lane / in.channels, c = lane % in.channels, at = (step * K + j) * in.channels + c;
        const long place = j * LANES + lane, row = place / in.channels;
        for (long m = 0; m < K - 1; ++m) {
          const auto from = [&](long vector, long that) {
            return vector == m + 1 ? LANES + that : vector == 0 && m == 0 ? that : lane;
          };
          apart[j][m][lane] = from(at / LANES, at % LANES);
          together[j][m][lane] = from(row % K, row / K * in.channels + place % in.channels);
        }
      }
  }
};
template <int K> LR_INLINE V looked_up(const V (&v)[K], const I (&from)[K - 1]) {
  V found = v[0];
  for (int m = 0; m < K - 1; ++m) found = pick(found, v[m + 1], from[m]);
  return found;
}
// between: how far apart the columns are; WHOLE: no further than they are wide.
template <bool WHOLE, int K, class T, int DEPTH>
LR_INLINE void take(const T *rows, long along, long between, const Lanes<DEPTH> &in, const Woven<K> &woven, V (&v)[K]) {
  if (WHOLE) {
    V whole[K];
    for (int k = 0; k < K; ++k) whole[k] = load(rows + k * LANES);
    for (int k = 0; k < K; ++k) v[k] = looked_up(whole, woven.apart[k]);
  } else
    for (int k = 0; k < K; ++k) v[k] = take<false>(rows + k * between, along, in);
}
template <bool WHOLE, int K, class T, int DEPTH>
LR_INLINE void give(T *rows, long along, long between, const V (&v)[K], const Lanes<DEPTH> &in, const Woven<K> &woven,
                    bool past, bool ends) {
  if (WHOLE)
    for (int k = 0; k < K; ++k) write<true>(rows + k * LANES, looked_up(v, woven.together[k]), LANES, past);
  else
    for (int k = 0; k < K; ++k) give<false>(rows + k * between, along, v[k], in, past, ends);
}

// One number a channel, in the lanes of all its steps.
template <class T, int DEPTH> LR_INLINE V spread(const T *row, const Lanes<DEPTH> &in) {
  return pick(load_n(row, in.channels), in.channel);
}
// Rows of a register, nearest first, as the last lanes of a vector; and back.
template <int DEPTH> static V placed(const real *rows, long depth, long stride, const Lanes<DEPTH> &in) {
  V v = V();
  for (long k = 0; k < depth; ++k)
    for (long c = 0; c < in.channels; ++c) v[in.last[k][in.lowest + c]] = rows[k * stride + c];
  return v;
}
template <int DEPTH> static void taken(V v, real *rows, long depth, long stride, const Lanes<DEPTH> &in) {
  for (long k = 0; k < depth; ++k)
    for (long c = 0; c < in.channels; ++c) rows[k * stride + c] = v[in.last[k][in.lowest + c]];
}
template <int DEPTH> static void added(real *row, V v, const Lanes<DEPTH> &in) {
  for (long lane = in.lowest; lane < in.lowest + in.count; ++lane) row[in.channel[lane]] += v[lane];
}
template <int DEPTH> static void raised(real *row, V v, const Lanes<DEPTH> &in) {
  for (long lane = in.lowest; lane < in.lowest + in.count; ++lane) {
    real &x = row[in.channel[lane]];
    if (v[lane] > x || v[lane] != v[lane]) x = v[lane];
  }
}
template <int DEPTH> static bool finite(V differences, const Lanes<DEPTH> &in) {
  for (long lane = in.lowest; lane < in.lowest + in.count; ++lane)
    if (differences[lane] != 0) return false;
  return true;
}
