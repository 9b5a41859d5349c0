
// Chunks over an axis: what a warp's steps do to the states of each of N numbers, and how warps and chunks hear of each other
// (see chunks.cuh). Numbers do not know of each other: number n is looked back for by warp n % W alone.

// What steps make of N states, as Stretch says it of one. M: the form of a.
template <class M, int N> struct Stretches {
  enum { WORDS = Message<M::SIZE, M::COUNT>::WORDS };  // that are told of each
  M a[N];
  State<M::SIZE> b[N];
  bool cut;
  template <class... X> LR_INLINE void step(int n, X... x) { M::step(a[n], b[n], x...); }
  LR_INLINE void boundary(int n, const State<M::SIZE> &edge) { a[n] = M::nothing(), b[n] = edge, cut = true; }
  LR_INLINE State<M::SIZE> operator()(int n, const State<M::SIZE> &h) const { return cut ? b[n] : a[n](h, b[n]); }
};
template <class M, int N> LR_INLINE Stretches<M, N> unmoved_all() {
  Stretches<M, N> s;
#pragma unroll
  for (int n = 0; n < N; ++n) s.a[n] = M::identity(), s.b[n] = M::zero();
  s.cut = false;
  return s;
}

// What the W warps of a block tell each other, a lane each channel: up to ROWS numbers each, and STATES of states before a chunk.
template <int W, int ROWS, int STATES> struct Exchange {
  V rows[W][ROWS][32], state[STATES][32];
  bool cut[W];
  template <class M> LR_INLINE void put(int w, int place, int x, const M &a, const State<M::SIZE> &b) {
#pragma unroll
    for (int i = 0; i < M::HELD; ++i) rows[w][place * (M::HELD + M::SIZE) + i][x] = a.p[i];
#pragma unroll
    for (int i = 0; i < M::SIZE; ++i) rows[w][place * (M::HELD + M::SIZE) + M::HELD + i][x] = b.of[i];
  }
  template <class M> LR_INLINE void get(int w, int place, int x, M &a, State<M::SIZE> &b) const {
#pragma unroll
    for (int i = 0; i < M::HELD; ++i) a.p[i] = rows[w][place * (M::HELD + M::SIZE) + i][x];
#pragma unroll
    for (int i = 0; i < M::SIZE; ++i) b.of[i] = rows[w][place * (M::HELD + M::SIZE) + M::HELD + i][x];
  }
};

enum { EARLIER = 8, AT_ONCE = 4 };  // chunks of a group, and those that are heard at once
LR_INLINE bool tells_state(const Place &at) { return at.chunk % EARLIER == EARLIER - 1 && !at.last(); }

// Tells what the chunk does to all states. Then `mine` is what the steps before this warp's do to them, and `whole` what the
// chunk does to those that this warp looks back for. Every thread comes here, as in what follows.
template <class M, int N, int W, int ROWS, int STATES>
LR_INLINE void tell_stretches(const Place &at, Exchange<W, ROWS, STATES> &board, int slot, Stretches<M, N> &mine,
                              Stretch<M> (&whole)[(N + W - 1) / W]) {
  const int w = at.warp, x = at.lane;
#pragma unroll
  for (int r = 0; r < (N + W - 1) / W; ++r) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < W; ++i)
      if (r * W + i < N) board.put(w, i, x, mine.a[r * W + i], mine.b[r * W + i]);
    if (r == 0 && x == 0) board.cut[w] = mine.cut;
    __syncthreads();
    if (r * W + w < N) {
      Stretch<M> sum = unmoved<M>();
      for (int i = 0; i < W; ++i) {  // what comes before each warp takes the place of its own stretch
        Stretch<M> next = unmoved<M>();
        board.get(i, w, x, next.a, next.b), next.cut = board.cut[i];
        board.put(i, w, x, sum.a, sum.b);
        sum.then(next);
      }
      if (!at.last() && !tells_state(at)) tell_transition(at.of(at.chunk, slot + (r * W + w) * Stretches<M, N>::WORDS), sum);
      whole[r] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < W; ++i)
      if (r * W + i < N) board.get(w, i, x, mine.a[r * W + i], mine.b[r * W + i]);
  }
  mine.cut = false;
  for (int i = 0; i < w; ++i) mine.cut = mine.cut || board.cut[i];
}

// The states before this warp's steps. `start(n)`: state n before all. The order of operations depends on nothing but sizes.
template <class M, int N, int W, int ROWS, int STATES, class Start>
LR_INLINE void hear_states(const Place &at, Exchange<W, ROWS, STATES> &board, int slot, const Stretches<M, N> &before_warp,
                           const Stretch<M> (&whole)[(N + W - 1) / W], const Start &start, State<M::SIZE> (&before)[N]) {
  typedef State<M::SIZE> S;
  const int w = at.warp, x = at.lane;
  const Index group = at.chunk / EARLIER * EARLIER;
  __syncthreads();  // the states of another recurrence have been read
#pragma unroll
  for (int r = 0; r < (N + W - 1) / W; ++r) {
    const int n = r * W + w, place = slot + n * Stretches<M, N>::WORDS;
    if (n >= N) break;
    S h = group ? state_of<M::SIZE>(at.of(group - 1, place)) : start(n);
    for (Index c = group; c < at.chunk; c += AT_ONCE) {
      Message<M::SIZE, M::COUNT> m[AT_ONCE];
#pragma unroll
      for (int i = 0; i < AT_ONCE; ++i)
        if (c + i < at.chunk) m[i].listen(at.of(c + i, place));
#pragma unroll
      for (int i = 0; i < AT_ONCE; ++i)
        if (c + i < at.chunk) h = heard<M>(m[i], at.of(c + i, place))(h);
    }
#pragma unroll
    for (int i = 0; i < M::SIZE; ++i) board.state[n * M::SIZE + i][x] = h.of[i];
    if (tells_state(at)) tell_state(at.of(at.chunk, place), whole[r](h));
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int i = 0; i < M::SIZE; ++i) before[n].of[i] = board.state[n * M::SIZE + i][x];
    if (w) before[n] = before_warp(n, before[n]);
  }
}

// The sums over a block's warps, in order, in the first of them.
template <int N, int W, int ROWS, int STATES> LR_INLINE void add_warps(const Place &at, Exchange<W, ROWS, STATES> &board, V (&mine)[N]) {
#pragma unroll
  for (int n = 0; n < N; n += ROWS) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
      if (n + i < N) board.rows[at.warp][i][at.lane] = mine[n + i];
    __syncthreads();
    if (at.warp == 0) {
#pragma unroll
      for (int i = 0; i < ROWS; ++i)
        if (n + i < N)
          for (int w = 1; w < W; ++w) mine[n + i] += board.rows[w][i][at.lane];
    }
  }
}
template <int W, int ROWS, int STATES> LR_INLINE void add_warps(const Place &at, Exchange<W, ROWS, STATES> &board, V &mine) {
  V sum[1] = {mine};
  add_warps(at, board, sum);
  mine = sum[0];
}
