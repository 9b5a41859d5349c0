
// What chunked kernels share: what a stretch of steps does to a state, and how warps and chunks hear of each other.
//
// Blocks take their chunk by a ticket, in the order in which they start, so that whoever is waited for is running already.
// A message is 16-byte words that hold values and a flag, each written and read whole: no fence is needed, and a flag that is
// not 0 says that the values are there. Chunks form groups. Each tells its transition, the last of a group the state after it;
// a chunk applies the transitions of its group before it, in order, to the state that the group began with. So the order of
// all operations, and with it every bit of the result, is the same in each run, whoever is first.

template <bool IS> struct All {  // whether all steps and lanes of a block are there, known when a walk is compiled
  static constexpr bool of = IS;
};

struct alignas(16) Word {
  unsigned x, y, z, flag;
};
enum { NOTHING = 0, TRANSITION = 1, CUT = 2, STATE = 3 };  // CUT: a transition that a boundary has cut

#ifdef LR_EMULATED
LR_INLINE void tell(Word *at, const Word &w) { emu_store_relaxed(at, w); }
LR_INLINE Word hear(const Word *at) {
  Word w;
  emu_load_relaxed(at, w);
  return w;
}
#else
LR_INLINE void tell(Word *at, const Word &w) {
  asm volatile(
      "{.reg .b128 r; .reg .b64 lo, hi; mov.b64 lo, {%1, %2}; mov.b64 hi, {%3, %4}; mov.b128 r, {lo, hi};"
      " st.relaxed.gpu.global.b128 [%0], r;}" ::"l"(at), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.flag)
      : "memory");
}
LR_INLINE Word hear(const Word *at) {
  Word w;
  asm volatile(
      "{.reg .b128 r; .reg .b64 lo, hi; ld.relaxed.gpu.global.b128 r, [%4]; mov.b128 {lo, hi}, r;"
      " mov.b64 {%0, %1}, lo; mov.b64 {%2, %3}, hi;}"
      : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.flag)
      : "l"(at)
      : "memory");
  return w;
}
#endif

// A word has room for one double, or for two floats, and a whole number.
#if LR_DOUBLE
#define LR_LIMIT 0x1p1022
LR_INLINE V lr_fma(V a, V b, V c) { return fma(a, b, c); }
LR_INLINE Word word(V v, V, unsigned z, unsigned flag) {
  const unsigned long long bits = __double_as_longlong(v);
  return {(unsigned)bits, (unsigned)(bits >> 32), z, flag};
}
LR_INLINE V first(const Word &w) { return __longlong_as_double((long long)((unsigned long long)w.y << 32 | w.x)); }
// The least n for which |v| < 2^n, at least that of the smallest normal number; beyond all numbers for inf and nan.
LR_INLINE int exponent(V v) { return (int)((unsigned long long)__double_as_longlong(v) >> 52 & 2047) - 1022; }
LR_INLINE V power_of_two(int n) { return __longlong_as_double((long long)(n < 1024 ? n + 1023 : 2047) << 52); }
#else
#define LR_LIMIT 0x1p126f
LR_INLINE V lr_fma(V a, V b, V c) { return fmaf(a, b, c); }
LR_INLINE Word word(V v, V more, unsigned z, unsigned flag) { return {__float_as_uint(v), __float_as_uint(more), z, flag}; }
LR_INLINE V first(const Word &w) { return __uint_as_float(w.x); }
LR_INLINE V second(const Word &w) { return __uint_as_float(w.y); }
LR_INLINE int exponent(V v) { return (int)(__float_as_uint(v) >> 23 & 255) - 126; }
LR_INLINE V power_of_two(int n) { return __uint_as_float((unsigned)(n < 128 ? n + 127 : 255) << 23); }
#endif

// The state of a recurrence: what the next step reads of the past.
template <int N> struct State {
  V of[N];
};
template <int N> LR_INLINE V size_of(const State<N> &h) {
  V sum = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) sum += lr_abs(h.of[i]);
  return sum;
}

// What a stretch of steps makes of a state h: a h + b; or b alone, where a boundary has cut off what came before. M is the
// form of a, with the arithmetic of its recurrence. No state on the way is larger than `most` |h| + `rest`, where |h| adds up
// all numbers. Kept only where |a| may exceed 1. Sums and products are fused by name, because chunks that decide by the same
// numbers must have computed the same bits.
template <class M> struct Stretch {
  typedef State<M::SIZE> S;
  M a;
  S b;
  V most, rest;
  bool cut;
  LR_INLINE S operator()(const S &h) const { return cut ? b : a(h, b); }
  LR_INLINE void grow() { most += a.norm(), rest += size_of(b); }
  LR_INLINE void boundary(const S &edge) { a = M::nothing(), b = edge, cut = true; }
  template <class... X> LR_INLINE void step(X... x) { M::step(a, b, x...); }
  LR_INLINE void then(const Stretch &later) {
    rest = rest + lr_fma(later.most, size_of(b), later.rest), most = lr_fma(later.most, a.norm(), most);
    b = later(b), cut = cut || later.cut;
    a = cut ? M::nothing() : later.a.after(a);
  }
  LR_INLINE void round_up() { most = power_of_two(exponent(most)), rest = power_of_two(exponent(rest)); }
  // Whether a state on the way overflows, or may.
  LR_INLINE bool overflows(const S &h, V limit = LR_LIMIT) const { return !(lr_fma(most, size_of(h), rest) < limit); }
};
template <class M> LR_INLINE Stretch<M> unmoved() { return {M::identity(), M::zero(), 0, 0, false}; }

// Where a thread stands. words: of this row of 32 channels and this lane in chunk 0; `apart` words from chunk to chunk.
struct Place {
  Index chunk, chunks;
  int warp, lane;
  Word *words;
  Index apart;
  LR_INLINE Word *of(Index chunk, int slot) const { return words + chunk * apart + slot * 32; }
  LR_INLINE bool last() const { return chunk == chunks - 1; }
};

// What the W warps of a block tell each other, a lane each channel: matrices of up to P numbers, states of up to N.
template <int W, int P, int N> struct Board {
  V a[P][W][32], b[N][W][32], most[W][32], rest[W][32], state[N][32];
  unsigned flag[W][32];
  template <class M> LR_INLINE void put(int w, int x, const Stretch<M> &s) {
#pragma unroll
    for (int i = 0; i < M::HELD; ++i) a[i][w][x] = s.a.p[i];
#pragma unroll
    for (int i = 0; i < M::SIZE; ++i) b[i][w][x] = s.b.of[i];
    most[w][x] = s.most, rest[w][x] = s.rest, flag[w][x] = s.cut;
  }
  template <class M> LR_INLINE Stretch<M> get(int w, int x) const {
    Stretch<M> s;
#pragma unroll
    for (int i = 0; i < M::HELD; ++i) s.a.p[i] = a[i][w][x];
#pragma unroll
    for (int i = 0; i < M::SIZE; ++i) s.b.of[i] = b[i][w][x];
    s.most = most[w][x], s.rest = rest[w][x], s.cut = flag[w][x] != 0;
    return s;
  }
  template <int K> LR_INLINE void put_state(int x, const State<K> &h) {
#pragma unroll
    for (int i = 0; i < K; ++i) state[i][x] = h.of[i];
  }
  template <int K> LR_INLINE State<K> get_state(int x) const {
    State<K> h;
#pragma unroll
    for (int i = 0; i < K; ++i) h.of[i] = state[i][x];
    return h;
  }
};

// A message: the numbers of b, then those of a, as many a word as it has room for. A state is the words of b alone.
enum { ROOM = LR_DOUBLE ? 1 : 2 };
template <int N> LR_INLINE void tell_numbers(Word *at, const V (&v)[N], int count, unsigned sizes, unsigned flag) {
#pragma unroll
  for (int i = 0; i < N; i += ROOM)
    if (i < count) tell(at + i / ROOM * 32, word(v[i], i + 1 < N ? v[(i + 1) % N] : 0, i ? 0 : sizes, flag));
}
template <int N> LR_INLINE void tell_state(Word *at, const State<N> &h) { tell_numbers(at, h.of, N, 0, STATE); }
template <class M> LR_INLINE void tell_transition(Word *at, const Stretch<M> &s) {
  V v[M::SIZE + M::COUNT];
#pragma unroll
  for (int i = 0; i < M::SIZE; ++i) v[i] = s.b.of[i];
#pragma unroll
  for (int i = 0; i < M::COUNT; ++i) v[M::SIZE + i] = s.a.told(i);
  const unsigned sizes = (unsigned)exponent(s.rest) << 16 | (exponent(s.most) & 0xffff);
  tell_numbers(at, v, s.cut ? M::SIZE : M::SIZE + M::COUNT, sizes, s.cut ? CUT : TRANSITION);
}

// A message on its way, N numbers of b and A of a: hear, and where the chunk has not told yet, hear again.
template <int N, int A> struct Message {
  enum { STATES = (N + ROOM - 1) / ROOM, WORDS = (N + A + ROOM - 1) / ROOM };
  Word w[WORDS];
  LR_INLINE void listen(const Word *at) {
#pragma unroll
    for (int i = 0; i < WORDS; ++i) w[i] = hear(at + i * 32);
  }
  // A chunk that has told a transition may tell a state later: its words are then of one kind again when all have come.
  LR_INLINE bool there() const {
    bool all = w[0].flag != NOTHING;
#pragma unroll
    for (int i = 1; i < WORDS; ++i)
      all = all && (i < STATES ? w[i].flag == w[0].flag : w[i].flag != NOTHING || w[0].flag != TRANSITION);
    return all;
  }
  LR_INLINE void wait(const Word *at) {
    while (!there()) {
      __nanosleep(32);
      listen(at);
    }
  }
  LR_INLINE V number(int i) const {
#if LR_DOUBLE
    return first(w[i]);
#else
    return i % 2 ? second(w[i / 2]) : first(w[i / 2]);
#endif
  }
  LR_INLINE State<N> state() const {
    State<N> h;
#pragma unroll
    for (int i = 0; i < N; ++i) h.of[i] = number(i);
    return h;
  }
  LR_INLINE V most() const { return power_of_two((short)w[0].z); }
  LR_INLINE V rest() const { return power_of_two((int)w[0].z >> 16); }
};

// A transition that was told. A state counts as one that forgets the state before.
template <class M> LR_INLINE Stretch<M> heard(Message<M::SIZE, M::COUNT> &m, const Word *at) {
  m.wait(at);
  const State<M::SIZE> b = m.state();
  if (m.w[0].flag == STATE) return {M::nothing(), b, 0, size_of(b), true};
  Stretch<M> s = {M::nothing(), b, m.most(), m.rest(), m.w[0].flag != TRANSITION};
  if (!s.cut) {
#pragma unroll
    for (int i = 0; i < M::COUNT; ++i) s.a.p[i] = m.number(M::SIZE + i);
  }
  return s;
}
template <int N> LR_INLINE State<N> state_of(const Word *at) {
  Message<N, 0> m;
  for (m.listen(at); !m.there() || m.w[0].flag != STATE; m.listen(at)) __nanosleep(32);
  return m.state();
}

// The state before chunk `to`, from the one before chunk `from`, where the sum of all transitions between may overflow: as each
// of these chunks has found its own, so that all of them know alike which of them tells its state. By the sum up to it, while
// that is safe; then from the state before the last one, or by what the last one tells.
template <class M>
LR_INLINE State<M::SIZE> one_by_one(const Place &at, int slot, Index from, Index to, const State<M::SIZE> &start) {
  Stretch<M> sum = unmoved<M>();
  State<M::SIZE> h = start;
  for (Index c = from; c < to; ++c) {
    Message<M::SIZE, M::COUNT> m;
    m.listen(at.of(c, slot));
    const Stretch<M> s = heard<M>(m, at.of(c, slot));
    const bool tells = s.overflows(h);
    sum.then(s);
    if (!sum.overflows(start, LR_LIMIT / 4))
      h = sum(start);
    else
      h = tells ? state_of<M::SIZE>(at.of(c, slot)) : s(h);
  }
  return h;
}

struct Unneeded {  // as a replay
  template <int N> LR_INLINE State<N> operator()(const State<N> &h) const { return h; }
};

// The state before this warp's steps, which are the stretch `mine`; `start()` is the one before all. Every thread comes here.
// LOOSE: |a| may exceed 1, so that the product of many may overflow where no state does. A chunk in which that, or a state, may
// happen waits for the state before it, goes through its warps in order, and tells the state that it ends with. Whoever
// hears of it decides by the same numbers. `replay(h)` gives the state after this warp's steps from the one before.
template <bool LOOSE, class M, int W, int P, int N, class Start, class Replay>
LR_INLINE State<M::SIZE> state_before(const Place &at, Board<W, P, N> &board, int slot, const Stretch<M> &mine,
                                      const Start &start, const Replay &replay) {
  // Messages that a warp hears at once, as registers allow; chunks of a group.
  typedef State<M::SIZE> S;
  typedef Message<M::SIZE, M::COUNT> Told;
  constexpr int EACH = Told::WORDS <= 2 ? 4 : Told::WORDS <= 5 ? 2 : 1, GROUP = EACH * (W - 1) + 1;
  const int w = at.warp, x = at.lane;
  const Index group = at.chunk / GROUP * GROUP;
  const int before = (int)(at.chunk - group);
  const bool tells_state = before == GROUP - 1 && !at.last();
  __syncthreads();
  board.put(w, x, mine);
  __syncthreads();
  Stretch<M> whole = unmoved<M>();
  if (w == 0) {
    for (int i = 0; i < W; ++i) {  // what comes before each warp takes the place of its own stretch
      const Stretch<M> next = board.template get<M>(i, x);
      board.put(i, x, whole);
      whole.then(next);
    }
    if (!at.last() && !tells_state) tell_transition(at.of(at.chunk, slot), whole);
    if (LOOSE) whole.round_up();  // as it was told
  }
  __syncthreads();
  const Stretch<M> upto = board.template get<M>(w, x);  // which leaves the place to this warp's next message
  // The first warp begins with the state as it is: the identity times a nan in one number is nan in the others.
  const auto before_warp = [&](const S &h) { return w ? upto(h) : h; };
  S h = M::zero();
  if (w && (w - 1) * EACH < before) {  // warps but the first add up the transitions of a few chunks each
    const Index c = group + (w - 1) * EACH;
    const int count = before - (w - 1) * EACH;
    Told m[EACH];
#pragma unroll
    for (int i = 0; i < EACH; ++i)
      if (i < count) m[i].listen(at.of(c + i, slot));
    Stretch<M> sum = unmoved<M>();
#pragma unroll
    for (int i = 0; i < EACH; ++i)
      if (i < count) sum.then(heard<M>(m[i], at.of(c + i, slot)));
    board.put(w, x, sum);
  } else if (w == 0) {
    h = group ? state_of<M::SIZE>(at.of(group - 1, slot)) : start();
  }
  __syncthreads();
  bool slow = false;
  if (w == 0) {
    for (int i = 1; (i - 1) * EACH < before; ++i) {
      const Stretch<M> sum = board.template get<M>(i, x);
      const Index c = group + (i - 1) * EACH;
      if (LOOSE && sum.overflows(h, LR_LIMIT / 4))
        h = one_by_one<M>(at, slot, c, c + EACH < at.chunk ? c + EACH : at.chunk, h);
      else
        h = sum(h);
    }
    slow = LOOSE && whole.overflows(h);
    board.put_state(x, h), board.flag[0][x] = slow;
    if (tells_state && !slow) tell_state(at.of(at.chunk, slot), whole(h));
  }
  if (!LOOSE) {
    __syncthreads();
    return before_warp(board.template get_state<M::SIZE>(x));
  }
  const bool any = __syncthreads_or(slow);
  S from = before_warp(board.template get_state<M::SIZE>(x));
  if (any) {
    slow = board.flag[0][x];
    __syncthreads();
    for (int i = 0; i < W; ++i) {
      if (w == i && slow) {
        from = board.template get_state<M::SIZE>(x);
        board.put_state(x, replay(from));
      }
      __syncthreads();
    }
    if (w == 0 && slow && !at.last()) tell_state(at.of(at.chunk, slot), board.template get_state<M::SIZE>(x));
  }
  return from;
}

// Where no coefficient depends on time, what steps do to a state before them is known: powers of one matrix, computed once a
// block while what it reads is on its way. Only b is told.
template <int N> struct Powers {
  V warp[N][N][32], chunk[N][N][32], size[N][32];  // over the steps of a warp, of a chunk: by columns
  V most_of_warp[32], most_of_chunk[32];           // no state on the way is larger than this times the one before, plus the rest
  LR_INLINE static State<N> times(const V (&a)[N][N][32], int x, const State<N> &h, State<N> sum) {
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int i = 0; i < N; ++i) sum.of[i] = lr_fma(a[j][i][x], h.of[j], sum.of[i]);
    return sum;
  }
  LR_INLINE static void put(V (&column)[N][32], int x, const State<N> &v) {
#pragma unroll
    for (int i = 0; i < N; ++i) column[i][x] = v.of[i];
  }
  LR_INLINE V norm(int x) const {
    V sum = 0;
#pragma unroll
    for (int j = 0; j < N; ++j) sum += size[j][x];
    return sum;
  }
  // `step(h)` is one step without its rest. Warp w has the columns w, w + W, ….
  template <int W, int STEPS, class Once> LR_INLINE void compute(int w, int x, const Once &step) {
    for (int j = w; j < N; j += W) {
      State<N> v;
      V most = 0;
#pragma unroll
      for (int i = 0; i < N; ++i) v.of[i] = i == j;
#pragma unroll
      for (int k = 0; k < STEPS; ++k) v = step(v), most += size_of(v);
      put(warp[j], x, v), put(chunk[j], x, v), size[j][x] = most;
    }
    __syncthreads();
    const V most = norm(x);
    V all = most;
    for (int n = 1; n < W; n *= 2) {  // squares
      State<N> v[(N + W - 1) / W];
      __syncthreads();
#pragma unroll
      for (int q = 0; q < (N + W - 1) / W; ++q) {
        const int j = w + q * W;
        State<N> column, zero;
        V own = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) column.of[i] = j < N ? chunk[j < N ? j : 0][i][x] : 0, zero.of[i] = 0, own += lr_abs(column.of[i]);
        v[q] = times(chunk, x, column, zero);
        if (j < N) size[j][x] = own;
      }
      __syncthreads();
      all *= 1 + norm(x);
#pragma unroll
      for (int q = 0; q < (N + W - 1) / W; ++q)
        if (w + q * W < N) put(chunk[w + q * W], x, v[q]);
    }
    if (w == 0) most_of_warp[x] = most, most_of_chunk[x] = all;
    __syncthreads();
  }
};

// What warps tell each other of states alone, and what they have heard of other chunks.
template <int W, int N> struct Known {
  V b[W][N][32], rest[W][32], told[W - 1][N][32], told_rest[W - 1][32], state[N][32];
  unsigned flag[W][32], told_flag[W - 1][32], slow[32];
};
template <int N, int K> LR_INLINE State<N> numbers(const V (&from)[K][32], int x) {
  State<N> h;
#pragma unroll
  for (int i = 0; i < N; ++i) h.of[i] = from[i][x];
  return h;
}
template <int N, int K> LR_INLINE void keep(V (&to)[K][32], int x, const State<N> &h) {
#pragma unroll
  for (int i = 0; i < N; ++i) to[i][x] = h.of[i];
}

// As state_before, by powers: chunk after chunk of the group, then warp after warp.
template <bool LOOSE, class M, int W, int K, class Start, class Replay>
LR_INLINE State<M::SIZE> state_by_powers(const Place &at, Known<W, K> &board, const Powers<M::SIZE> &powers, int slot,
                                         const Stretch<M> &mine, const Start &start, const Replay &replay) {
  constexpr int N = M::SIZE, GROUP = W;
  typedef State<N> S;
  const int w = at.warp, x = at.lane;
  const Index group = at.chunk / GROUP * GROUP;
  const int before = (int)(at.chunk - group);
  const bool tells_state = before == GROUP - 1 && !at.last();
  const V most = powers.most_of_chunk[x];
  __syncthreads();
  keep(board.b[w], x, mine.b), board.rest[w][x] = mine.rest, board.flag[w][x] = mine.cut;
  __syncthreads();
  S h = M::zero();
  V rest = 0;
  if (w == 0) {
    bool cut = false;
    for (int i = 0; i < W; ++i) {
      const S next = numbers<N>(board.b[i], x);
      rest = rest + lr_fma(powers.most_of_warp[x], size_of(h), board.rest[i][x]);
      h = board.flag[i][x] ? next : powers.times(powers.warp, x, h, next);
      cut = cut || board.flag[i][x];
    }
    if (!at.last() && !tells_state)
      tell_numbers(at.of(at.chunk, slot), h.of, N, (unsigned)exponent(rest) << 16, cut ? CUT : TRANSITION);
    rest = power_of_two(exponent(rest));  // as it was told
    h = group ? state_of<N>(at.of(group - 1, slot)) : start();
  } else if (w <= before) {  // warps but the first hear of a chunk each
    Message<N, 0> m;
    m.listen(at.of(group + w - 1, slot));
    m.wait(at.of(group + w - 1, slot));
    keep(board.told[w - 1], x, m.state()), board.told_rest[w - 1][x] = m.rest(), board.told_flag[w - 1][x] = m.w[0].flag;
  }
  __syncthreads();
  bool slow = false;
  if (w == 0) {
    const auto overflows = [&](const S &h, V rest) { return LOOSE && !(lr_fma(most, size_of(h), rest) < LR_LIMIT); };
    for (int i = 0; i < before; ++i) {
      const S b = numbers<N>(board.told[i], x);
      const unsigned flag = board.told_flag[i][x];
      if (flag != STATE && overflows(h, board.told_rest[i][x]))
        h = state_of<N>(at.of(group + i, slot));
      else
        h = flag != TRANSITION ? b : powers.times(powers.chunk, x, h, b);
    }
    slow = overflows(h, rest);
    keep(board.state, x, h), board.slow[x] = slow;
    for (int i = 0; i < W; ++i) {  // the state before each warp takes the place of its own stretch
      const S next = numbers<N>(board.b[i], x);
      keep(board.b[i], x, h);
      h = board.flag[i][x] ? next : powers.times(powers.warp, x, h, next);
    }
    if (tells_state && !slow) tell_state(at.of(at.chunk, slot), h);
  }
  if (!LOOSE) {
    __syncthreads();
    return numbers<N>(board.b[w], x);
  }
  const bool any = __syncthreads_or(slow);
  S from = numbers<N>(board.b[w], x);
  if (any) {
    slow = board.slow[x];
    for (int i = 0; i < W; ++i) {
      if (w == i && slow) {
        from = numbers<N>(board.state, x);
        keep(board.state, x, replay(from));
      }
      __syncthreads();
    }
    if (w == 0 && slow && !at.last()) tell_state(at.of(at.chunk, slot), numbers<N>(board.state, x));
  }
  return from;
}

// Hands a value on from the steps of one warp to those of the next; the first warp of all gets it from `start`.
template <int W, int P, int N>
LR_INLINE V handed_on(const Place &at, Board<W, P, N> &board, int slot, V mine, const Window &start, int depth) {
  const int w = at.warp, x = at.lane;
  __syncthreads();
  board.a[0][w][x] = mine;
  if (w == W - 1 && !at.last()) tell_state(at.of(at.chunk, slot), State<1>{{mine}});
  __syncthreads();
  if (w) return board.a[0][w - 1][x];
  if (!at.chunk) return start.at(depth);
  return state_of<1>(at.of(at.chunk - 1, slot)).of[0];
}

// The sum over a block's warps, in order, in the first of them.
template <int W, int P, int N> LR_INLINE V over_warps(const Place &at, Board<W, P, N> &board, V mine) {
  __syncthreads();
  board.a[0][at.warp][at.lane] = mine;
  __syncthreads();
  V sum = 0;
  if (at.warp == 0)
    for (int i = 0; i < W; ++i) sum += board.a[0][i][at.lane];
  return sum;
}
// The largest of them, where none is below 0.
template <int W, int P, int N> LR_INLINE V largest_over_warps(const Place &at, Board<W, P, N> &board, V mine) {
  __syncthreads();
  board.a[0][at.warp][at.lane] = mine;
  __syncthreads();
  V largest = 0;
  if (at.warp == 0)
    for (int i = 0; i < W; ++i) largest = lr_maximum(largest, board.a[0][i][at.lane]);
  return largest;
}
