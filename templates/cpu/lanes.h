
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
// of the step before or after, which comes next in the run and is then written as it should be. Of a single channel each lane
// may have a stretch of EACH consecutive steps, one in each of EACH vectors: the lanes are then stretches, which are joined as
// steps are. DEPTH: steps that are kept of a sequence.
template <int DEPTH, bool BACKWARDS, int MANY = 1> struct Lanes {
  enum { BACK = BACKWARDS, EACH = MANY, LEVELS = __builtin_ctz(LANES) };
  long channels, stretches, steps, count, lowest, levels;
  I channel;          // of each lane
  I first;            // the other way: the first lane of each channel
  I earlier[LEVELS];  // level k: 2^k stretches before, in the second vector; in the first where that is before all of them
  I past[DEPTH];      // k + 1 stretches before, in the second vector; at the end of the first where that is before all of them
  I last[DEPTH];      // the lane of the stretch that is the last but k

  explicit Lanes(long channels) : channels(channels), stretches(LANES / channels), steps(stretches * EACH), levels(0) {
    count = stretches * channels, lowest = BACK ? LANES - count : 0;
    while (1 << levels < stretches) ++levels;
    const auto turned = [&](long stretch) { return BACK ? stretches - 1 - stretch : stretch; };  // in the order of the run
    for (long lane = 0; lane < LANES; ++lane) {
      const bool used = lane >= lowest && lane < lowest + count;
      const long c = used ? (lane - lowest) % channels : 0, g = used ? (lane - lowest) / channels : 0;
      const long stretch = turned(g % EACH * (LANES / EACH) + g / EACH);  // where `exchange` has it
      const auto at = [&](long stretch) {
        return lowest + (turned(stretch) % (LANES / EACH) * EACH + turned(stretch) / (LANES / EACH)) * channels + c;
      };
      channel[lane] = c, first[lane] = lowest + lane % channels;
      for (long k = 0; k < LEVELS; ++k) earlier[k][lane] = used && stretch >= 1 << k ? LANES + at(stretch - (1 << k)) : lane;
      for (long k = 0; k < DEPTH; ++k) {
        const bool within = used && k < stretches;  // else nobody asks
        last[k][lane] = within ? at(stretches - 1 - k) : lane;
        past[k][lane] = !within ? lane : stretch > k ? LANES + at(stretch - k - 1) : at(stretches + stretch - k - 1);
      }
    }
  }
  // Where the k-th of EACH vectors is in memory, from the first of them all on.
  long vector(int k) const { return (BACK ? EACH - 1 - k : k) * LANES; }
};
// Vectors of all channels of a step, and where there is one, of stretches too: four vectors at once take half as long.
enum { SEVERAL = LANES < 4 ? LANES : 4 };
template <int DEPTH, bool BACK> struct Batches : Lanes<DEPTH, BACK> {
  const Lanes<DEPTH, BACK, SEVERAL> several;
  explicit Batches(long channels) : Lanes<DEPTH, BACK>(channels), several(1) {}
};
#define LR_EACH _Pragma("GCC unroll 4") for (int k = 0; k < EACH; ++k)

// EACH vectors as they lie in memory, or as every lane has consecutive steps: the one becomes the other. A transpose within
// groups of EACH lanes: in each round, halves of the groups of two vectors go lane by lane into those of two others.
template <int...> struct Numbers {};
template <int N, int... L> struct UpTo : UpTo<N - 1, N - 1, L...> {};
template <int... L> struct UpTo<0, L...> : Numbers<L...> {};
template <int EACH, int FROM, int... L> LR_INLINE V zipped(V a, V b, Numbers<L...>) {
  return __builtin_shufflevector(a, b, (L / EACH * EACH + L % EACH / 2 + FROM + L % 2 * LANES)...);
}
template <class In, int EACH> LR_INLINE void exchange(V (&v)[EACH], const In &) {
#pragma GCC unroll 4
  for (int round = 1; round < EACH; round *= 2) {
    V old[EACH];
    LR_EACH old[k] = v[In::BACK ? EACH - 1 - k : k];
    LR_EACH {
      const V a = old[k / 2], b = old[k / 2 + EACH / 2];
      V &to = v[In::BACK ? EACH - 1 - k : k];
      to = k % 2 ? zipped<EACH, EACH / 2>(a, b, UpTo<LANES>()) : zipped<EACH, 0>(a, b, UpTo<LANES>());
    }
  }
}

// What all steps up to that of each lane do, of which each does a, and then adds b. The rounding error of a counts where it is
// carried from batch to batch, always the same way, and not in the few sums of one.
template <class M, int N, class In> LR_INLINE void joined(M &a, State<N> &b, const In &in) {
  const M nothing = M::identity();
  const State<N> zero = M::zero();
#pragma GCC unroll 6
  for (int k = 0; k < In::LEVELS; ++k) {
    if (In::EACH == 1 && k == in.levels) break;
    M e;
    State<N> h;
    for (int i = 0; i < M::COUNT; ++i) e.p[i] = pick(nothing.p[i], a.p[i], in.earlier[k]);
    for (int i = 0; i < N; ++i) h.of[i] = pick(zero.of[i], b.of[i], in.earlier[k]);
    b = a.nearly(h, b);
    a = a.after(e);
  }
}
// The same of the stretch of each lane, step by step.
template <class M, int N, int EACH> LR_INLINE void stretched(M (&a)[EACH], State<N> (&b)[EACH]) {
  LR_EACH if (k) b[k] = a[k].nearly(b[k - 1], b[k]), a[k] = a[k].once_after(a[k - 1]);
}
// States after every step, in the place of b. before: the state before all of them, in every lane.
template <class M, int N, int EACH, class In>
LR_INLINE void solve(M (&a)[EACH], State<N> (&b)[EACH], const State<N> &before, const In &in) {
  stretched(a, b);
  M all = a[EACH - 1];
  State<N> end = b[EACH - 1], into;
  joined(all, end, in);
  end = all(before, end);
  for (int i = 0; i < N; ++i) into.of[i] = pick(before.of[i], end.of[i], in.past[0]);
  LR_EACH b[k] = k < EACH - 1 ? a[k].nearly(into, b[k]) : end;
}
// What a sequence was LAG steps before the k-th of each lane; kept: all of it before these.
template <int LAG, int EACH, class In> LR_INLINE V before(const V (&kept)[EACH], const V (&v)[EACH], int k, const In &in) {
  if (k >= LAG) return v[k - LAG];
  const int stretches = (LAG - k + EACH - 1) / EACH, at = k - LAG + stretches * EACH;
  return pick(kept[at], v[at], in.past[stretches - 1]);
}
// What it was in the end, or `back` steps before that, in every lane.
template <int EACH, class In> LR_INLINE V last(const V (&v)[EACH], int back, const In &in) {
  return pick(v[EACH - 1 - back % EACH], in.last[back / EACH]);
}

// The steps of a sequence whose rows, of its channels, lie `along` apart. WHOLE: next to each other, and they fill vectors.
template <bool WHOLE, class T, class In> LR_INLINE auto take(const T *rows, long along, const In &in) {
  if (WHOLE || along == in.channels) return load(rows - in.lowest);
  T dense[LANES] = {};
  for (long g = 0, lane = in.lowest; g < in.steps; ++g)
    for (long c = 0; c < in.channels; ++c) dense[lane++] = rows[g * along + c];
  return load(dense);
}
// ends: nothing is written later over what lies next to these steps.
template <bool WHOLE, class T, class U, class In>
LR_INLINE void give(T *rows, long along, const U &v, const In &in, bool past, bool ends) {
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
  template <class In> explicit Woven(const In &in) {
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
template <bool WHOLE, int K, class T, class In>
LR_INLINE void take(const T *rows, long along, long between, const In &in, const Woven<K> &woven, V (&v)[K]) {
  if (WHOLE) {
    V whole[K];
    for (int k = 0; k < K; ++k) whole[k] = load(rows + k * LANES);
    for (int k = 0; k < K; ++k) v[k] = looked_up(whole, woven.apart[k]);
  } else
    for (int k = 0; k < K; ++k) v[k] = take<false>(rows + k * between, along, in);
}
template <bool WHOLE, int K, class T, class In>
LR_INLINE void give(T *rows, long along, long between, const V (&v)[K], const In &in, const Woven<K> &woven,
                    bool past, bool ends) {
  if (WHOLE)
    for (int k = 0; k < K; ++k) write<true>(rows + k * LANES, looked_up(v, woven.together[k]), LANES, past);
  else
    for (int k = 0; k < K; ++k) give<false>(rows + k * between, along, v[k], in, past, ends);
}

// One number a channel, in the lanes of all its steps.
template <class T, class In> LR_INLINE V spread(const T *row, const In &in) {
  return pick(load_n(row, in.channels), in.channel);
}
// Rows of a register, nearest first, as the last steps of vectors; and back.
template <int EACH, class In> static void placed(V (&v)[EACH], const real *rows, long depth, long stride, const In &in) {
  for (int k = 0; k < EACH; ++k) v[k] = V();
  for (long k = 0; k < depth; ++k)
    for (long c = 0; c < in.channels; ++c) v[EACH - 1 - k % EACH][in.last[k / EACH][in.lowest + c]] = rows[k * stride + c];
}
template <int EACH, class In> static void taken(const V (&v)[EACH], real *rows, long depth, long stride, const In &in) {
  for (long k = 0; k < depth; ++k)
    for (long c = 0; c < in.channels; ++c) rows[k * stride + c] = v[EACH - 1 - k % EACH][in.last[k / EACH][in.lowest + c]];
}
template <class In> static void added(real *row, V v, const In &in) {
  for (long lane = in.lowest; lane < in.lowest + in.count; ++lane) row[in.channel[lane]] += v[lane];
}
template <class In> static void raised(real *row, V v, const In &in) {
  for (long lane = in.lowest; lane < in.lowest + in.count; ++lane) {
    real &x = row[in.channel[lane]];
    if (v[lane] > x || v[lane] != v[lane]) x = v[lane];
  }
}
template <class In> static bool finite(V differences, const In &in) {
  for (long lane = in.lowest; lane < in.lowest + in.count; ++lane)
    if (differences[lane] != 0) return false;
  return true;
}
