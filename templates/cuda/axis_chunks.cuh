
// Chunks over an axis: what a warp's steps do to the states of each of N numbers, and how warps and chunks hear of each other
// (see chunks.cuh). Numbers do not know of each other: number n is looked back for by warp n % W alone.

// What steps make of N states, as Stretch says it of one. M: the form of a; LOOSE: |a| may exceed 1.
template <class M, int N, bool LOOSE> struct Stretches {
  enum { WORDS = Message<M::SIZE, M::COUNT>::WORDS, EACH = M::HELD + M::SIZE + 2 * LOOSE };  // told of each, and shared
  M a[N];
  State<M::SIZE> b[N];
  V most[LOOSE ? N : 1], rest[LOOSE ? N : 1];
  bool cut;
  template <class... X> LR_INLINE void step(int n, X... x) {
    M::step(a[n], b[n], x...);
    if (LOOSE) most[LOOSE ? n : 0] += a[n].norm(), rest[LOOSE ? n : 0] += size_of(b[n]);
  }
  LR_INLINE void boundary(int n, const State<M::SIZE> &edge) { a[n] = M::nothing(), b[n] = edge, cut = true; }
  LR_INLINE State<M::SIZE> operator()(int n, const State<M::SIZE> &h) const { return cut ? b[n] : a[n](h, b[n]); }
};
template <class M, int N, bool LOOSE> LR_INLINE Stretches<M, N, LOOSE> unmoved_all() {
  Stretches<M, N, LOOSE> s;
#pragma unroll
  for (int n = 0; n < N; ++n) s.a[n] = M::identity(), s.b[n] = M::zero(), s.most[LOOSE ? n : 0] = s.rest[LOOSE ? n : 0] = 0;
  s.cut = false;
  return s;
}

// What the W warps of a block tell each other, a lane each channel: up to ROWS numbers each, and of states before a chunk up to
// STATES numbers, and which of these must be found step by step.
template <int W, int ROWS, int STATES, bool LOOSE> struct Exchange {
  V rows[W][ROWS][32], state[STATES][32];
  bool cut[W], slow[LOOSE ? STATES : 1][32];
  template <class M> LR_INLINE void put(int w, int first, int x, const M &a, const State<M::SIZE> &b) {
#pragma unroll
    for (int i = 0; i < M::HELD; ++i) rows[w][first + i][x] = a.p[i];
#pragma unroll
    for (int i = 0; i < M::SIZE; ++i) rows[w][first + M::HELD + i][x] = b.of[i];
  }
  template <class M> LR_INLINE void get(int w, int first, int x, M &a, State<M::SIZE> &b) const {
#pragma unroll
    for (int i = 0; i < M::HELD; ++i) a.p[i] = rows[w][first + i][x];
#pragma unroll
    for (int i = 0; i < M::SIZE; ++i) b.of[i] = rows[w][first + M::HELD + i][x];
  }
  template <int K> LR_INLINE void put_state(int n, int x, const State<K> &h) {
#pragma unroll
    for (int i = 0; i < K; ++i) state[n * K + i][x] = h.of[i];
  }
  template <int K> LR_INLINE void get_state(int n, int x, State<K> &h) const {
#pragma unroll
    for (int i = 0; i < K; ++i) h.of[i] = state[n * K + i][x];
  }
};

enum { EARLIER = 8, AT_ONCE = 4 };  // chunks of a group, and those that are heard at once
LR_INLINE bool tells_state(const Place &at) { return at.chunk % EARLIER == EARLIER - 1 && !at.last(); }

// Tells what the chunk does to all states. Then `mine` is what the steps before this warp's do to them, and `whole` what the
// chunk does to those that this warp looks back for. Every thread comes here, as in what follows.
template <bool LOOSE, class M, int N, int W, class Board>
LR_INLINE void tell_stretches(const Place &at, Board &board, int slot, Stretches<M, N, LOOSE> &mine,
                              Stretch<M> (&whole)[(N + W - 1) / W]) {
  typedef Stretches<M, N, LOOSE> All;
  const int w = at.warp, x = at.lane;
#pragma unroll
  for (int r = 0; r < (N + W - 1) / W; ++r) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < W; ++i) {
      const int n = r * W + i, last = (i + 1) * All::EACH;
      if (n < N) board.put(w, i * All::EACH, x, mine.a[n], mine.b[n]);
      if (LOOSE && n < N) board.rows[w][last - 2][x] = mine.most[n], board.rows[w][last - 1][x] = mine.rest[n];
    }
    if (r == 0 && x == 0) board.cut[w] = mine.cut;
    __syncthreads();
    if (r * W + w < N) {
      const int first = w * All::EACH, last = first + All::EACH;
      Stretch<M> sum = unmoved<M>();
      for (int i = 0; i < W; ++i) {  // what comes before each warp takes the place of its own stretch
        Stretch<M> next = unmoved<M>();
        board.get(i, first, x, next.a, next.b), next.cut = board.cut[i];
        if (LOOSE) next.most = board.rows[i][last - 2][x], next.rest = board.rows[i][last - 1][x];
        board.put(i, first, x, sum.a, sum.b);
        sum.then(next);
      }
      if (!at.last() && !tells_state(at)) tell_transition(at.of(at.chunk, slot + (r * W + w) * All::WORDS), sum);
      if (LOOSE) sum.round_up();  // as it was told
      whole[r] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < W; ++i)
      if (r * W + i < N) board.get(w, i * All::EACH, x, mine.a[r * W + i], mine.b[r * W + i]);
  }
  mine.cut = false;
  for (int i = 0; i < w; ++i) mine.cut = mine.cut || board.cut[i];
}

// Warp after warp goes through its steps, with those states that are slow; the last leaves what the chunk tells of them.
// `replay(h)` takes all states over this warp's steps.
template <int W, int WORDS, class S, int N, class Board, class Replay>
LR_INLINE void in_order(const Place &at, Board &board, int slot, const Replay &replay, S (&before)[N]) {
  const int w = at.warp, x = at.lane;
  for (int i = 0; i < W; ++i) {
    __syncthreads();
    if (w != i) continue;
    S h[N];
#pragma unroll
    for (int n = 0; n < N; ++n) {
      if (board.slow[n][x]) board.get_state(n, x, before[n]);
      h[n] = before[n];
    }
    replay(h);
#pragma unroll
    for (int n = 0; n < N; ++n)
      if (board.slow[n][x]) board.put_state(n, x, h[n]);
  }
  __syncthreads();
  for (int n = w; n < N; n += W)
    if (board.slow[n][x] && !at.last()) {
      S h;
      board.get_state(n, x, h);
      tell_state(at.of(at.chunk, slot + n * WORDS), h);
    }
}

// The states before this warp's steps. `start(n)`: state n before all. The order of operations depends on nothing but sizes.
// LOOSE: as in state_before, a chunk in which a state or a product may overflow waits for the state before it, goes through its
// warps in order, and tells the state that it ends with; each number by itself.
template <bool LOOSE, class M, int N, int W, class Board, class Start, class Replay>
LR_INLINE void hear_states(const Place &at, Board &board, int slot, const Stretches<M, N, LOOSE> &before_warp,
                           const Stretch<M> (&whole)[(N + W - 1) / W], const Start &start, const Replay &replay,
                           State<M::SIZE> (&before)[N]) {
  typedef State<M::SIZE> S;
  const int w = at.warp, x = at.lane;
  const Index group = at.chunk / EARLIER * EARLIER;
  bool any = false;
  __syncthreads();  // the states of another recurrence have been read
#pragma unroll
  for (int r = 0; r < (N + W - 1) / W; ++r) {
    const int n = r * W + w, place = slot + n * Stretches<M, N, LOOSE>::WORDS;
    if (n >= N) break;
    S h = group ? state_of<M::SIZE>(at.of(group - 1, place)) : start(n);
    for (Index c = group; c < at.chunk; c += AT_ONCE) {
      Message<M::SIZE, M::COUNT> m[AT_ONCE];
#pragma unroll
      for (int i = 0; i < AT_ONCE; ++i)
        if (c + i < at.chunk) m[i].listen(at.of(c + i, place));
#pragma unroll
      for (int i = 0; i < AT_ONCE; ++i) {
        if (c + i >= at.chunk) break;
        const Stretch<M> s = heard<M>(m[i], at.of(c + i, place));
        h = LOOSE && s.overflows(h) ? state_of<M::SIZE>(at.of(c + i, place)) : s(h);
      }
    }
    board.put_state(n, x, h);
    const bool slow = LOOSE && whole[r].overflows(h);
    if (LOOSE) board.slow[LOOSE ? n : 0][x] = slow, any = any || slow;
    if (tells_state(at) && !slow) tell_state(at.of(at.chunk, place), whole[r](h));
  }
  any = __syncthreads_or(any);
#pragma unroll
  for (int n = 0; n < N; ++n) {
    board.get_state(n, x, before[n]);
    if (w) before[n] = before_warp(n, before[n]);
  }
  if (LOOSE && any) in_order<W, Stretches<M, N, LOOSE>::WORDS>(at, board, slot, replay, before);
}
struct Unasked {  // as a replay
  template <class S> LR_INLINE void operator()(S &) const {}
};

// The sums over a block's warps, in order, in the first of them.
template <int W, int ROWS, int STATES, bool LOOSE, int N>
LR_INLINE void add_warps(const Place &at, Exchange<W, ROWS, STATES, LOOSE> &board, V (&mine)[N]) {
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
template <class Board> LR_INLINE void add_warps(const Place &at, Board &board, V &mine) {
  V sum[1] = {mine};
  add_warps(at, board, sum);
  mine = sum[0];
}
