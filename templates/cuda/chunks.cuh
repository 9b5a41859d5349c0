
// What chunked kernels share: what a stretch of steps does to a state, and how warps and chunks hear of each other.
//
// Blocks take their chunk by a ticket, in the order in which they start, so that whoever is waited for is running already.
// A message is one 16-byte word that holds values and a flag, written and read whole: no fence is needed, and a flag that is
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
LR_INLINE Word told_state(V h) { return word(h, 0, 0, STATE); }

// What a stretch of steps makes of a state h: a h + b; or b alone, where a boundary has cut off what came before.
// No state on the way is larger than `most` |h| + `rest`. Kept only where |a| may exceed 1. Sums and products are fused by
// name, because chunks that decide by the same numbers must have computed the same bits.
struct Stretch {
  V a, b, most, rest;
  bool cut;
  LR_INLINE V operator()(V h) const { return cut ? b : lr_fma(a, h, b); }
  LR_INLINE void grow() { most += lr_abs(a), rest += lr_abs(b); }
  LR_INLINE void boundary(V edge) { a = 0, b = edge, cut = true; }
  LR_INLINE void step(V A, V B) { b = lr_fma(A, b, B), a = A * a; }
  LR_INLINE void then(const Stretch &later) {
    rest = rest + lr_fma(later.most, lr_abs(b), later.rest), most = lr_fma(later.most, lr_abs(a), most);
    b = later(b), cut = cut || later.cut;
    a = cut ? 0 : later.a * a;
  }
  LR_INLINE void round_up() { most = power_of_two(exponent(most)), rest = power_of_two(exponent(rest)); }
  LR_INLINE bool overflows(V h, V limit = LR_LIMIT) const { return !(lr_fma(most, lr_abs(h), rest) < limit); }  // or may
};
LR_INLINE Stretch unmoved() { return {1, 0, 0, 0, false}; }

// Where a thread stands. words: of this row of 32 channels and this lane in chunk 0; `apart` words from chunk to chunk.
struct Place {
  Index chunk, chunks;
  int warp, lane;
  Word *words;
  Index apart;
  LR_INLINE Word *of(Index chunk, int slot) const { return words + chunk * apart + slot * 32; }
  LR_INLINE bool last() const { return chunk == chunks - 1; }
};

// What the W warps of a block tell each other, a lane each channel.
template <int W> struct Board {
  V a[W][32], b[W][32], most[W][32], rest[W][32], state[32];
  unsigned flag[W][32];
  LR_INLINE void put(int w, int x, const Stretch &s) {
    a[w][x] = s.a, b[w][x] = s.b, most[w][x] = s.most, rest[w][x] = s.rest, flag[w][x] = s.cut;
  }
  LR_INLINE Stretch get(int w, int x) const { return {a[w][x], b[w][x], most[w][x], rest[w][x], flag[w][x] != 0}; }
};

LR_INLINE void tell_transition(Word *at, const Stretch &s) {
#if LR_DOUBLE
  if (!s.cut) tell(at + 32, word(s.a, 0, 0, TRANSITION));
#endif
  const unsigned sizes = (unsigned)exponent(s.rest) << 16 | (exponent(s.most) & 0xffff);
  tell(at, word(s.b, s.a, sizes, s.cut ? CUT : TRANSITION));
}

// A message on its way: hear, and where the chunk has not told yet, hear again.
struct Message {
  Word w;
#if LR_DOUBLE
  Word more;
  LR_INLINE void listen(const Word *at) { w = hear(at), more = hear(at + 32); }
  LR_INLINE bool there() const { return w.flag != NOTHING && (w.flag != TRANSITION || more.flag != NOTHING); }
  LR_INLINE V a() const { return first(more); }
#else
  LR_INLINE void listen(const Word *at) { w = hear(at); }
  LR_INLINE bool there() const { return w.flag != NOTHING; }
  LR_INLINE V a() const { return second(w); }
#endif
  // A state counts as a transition that forgets the state before.
  LR_INLINE Stretch wait(const Word *at) {
    while (!there()) {
      __nanosleep(32);
      listen(at);
    }
    const bool cut = w.flag != TRANSITION;
    if (w.flag == STATE) return {0, first(w), 0, lr_abs(first(w)), true};
    return {cut ? 0 : a(), first(w), power_of_two((short)w.z), power_of_two((int)w.z >> 16), cut};
  }
};
LR_INLINE V state_of(const Word *at) {
  for (;;) {
    const Word w = hear(at);
    if (w.flag == STATE) return first(w);
    __nanosleep(32);
  }
}

// The state before chunk `to`, from the one before chunk `from`, where the sum of all transitions between may overflow: as each
// of these chunks has found its own, so that all of them know alike which of them tells its state. By the sum up to it, while
// that is safe; then from the state before the last one, or by what the last one tells.
LR_INLINE V one_by_one(const Place &at, int slot, Index from, Index to, V start) {
  Stretch sum = unmoved();
  V h = start;
  for (Index c = from; c < to; ++c) {
    Message m;
    m.listen(at.of(c, slot));
    const Stretch s = m.wait(at.of(c, slot));
    const bool tells = s.overflows(h);
    sum.then(s);
    if (!sum.overflows(start, LR_LIMIT / 4))
      h = sum(start);
    else
      h = tells ? state_of(at.of(c, slot)) : s(h);
  }
  return h;
}

struct Unneeded {  // as a replay
  LR_INLINE V operator()(V h) const { return h; }
};

// The state before this warp's steps, which are the stretch `mine`. Every thread of the block comes here.
// LOOSE: |a| may exceed 1, so that the product of many may overflow where no state does. A chunk in which that, or a state, may
// happen waits for the state before it, goes through its warps in order, and tells the state that it ends with. Whoever
// hears of it decides by the same numbers. `replay(h)` gives the state after this warp's steps from the one before.
template <int W, bool LOOSE, class Replay>
LR_INLINE V state_before(const Place &at, Board<W> &board, int slot, const Stretch &mine, const Window &start,
                         const Replay &replay) {
  constexpr int EACH = 4, GROUP = EACH * (W - 1) + 1;  // messages that a warp hears at once; chunks of a group
  const int w = at.warp, x = at.lane;
  const Index group = at.chunk / GROUP * GROUP;
  const int before = (int)(at.chunk - group);
  const bool tells_state = before == GROUP - 1 && !at.last();
  __syncthreads();
  board.put(w, x, mine);
  __syncthreads();
  Stretch whole = unmoved();
  if (w == 0) {
    for (int i = 0; i < W; ++i) {  // what comes before each warp takes the place of its own stretch
      const Stretch next = board.get(i, x);
      board.put(i, x, whole);
      whole.then(next);
    }
    if (!at.last() && !tells_state) tell_transition(at.of(at.chunk, slot), whole);
    if (LOOSE) whole.round_up();  // as it was told
  }
  __syncthreads();
  const Stretch upto = board.get(w, x);  // which leaves the place to this warp's next message
  V h = 0;
  if (w && (w - 1) * EACH < before) {  // warps but the first add up the transitions of a few chunks each
    const Index c = group + (w - 1) * EACH;
    const int count = before - (w - 1) * EACH;
    Message m[EACH];
#pragma unroll
    for (int i = 0; i < EACH; ++i)
      if (i < count) m[i].listen(at.of(c + i, slot));
    Stretch sum = unmoved();
#pragma unroll
    for (int i = 0; i < EACH; ++i)
      if (i < count) sum.then(m[i].wait(at.of(c + i, slot)));
    board.put(w, x, sum);
  } else if (w == 0) {
    h = group ? state_of(at.of(group - 1, slot)) : start.at(0);
  }
  __syncthreads();
  bool slow = false;
  if (w == 0) {
    for (int i = 1; (i - 1) * EACH < before; ++i) {
      const Stretch sum = board.get(i, x);
      const Index c = group + (i - 1) * EACH;
      if (LOOSE && sum.overflows(h, LR_LIMIT / 4))
        h = one_by_one(at, slot, c, c + EACH < at.chunk ? c + EACH : at.chunk, h);
      else
        h = sum(h);
    }
    slow = LOOSE && whole.overflows(h);
    board.state[x] = h, board.flag[0][x] = slow;
    if (tells_state && !slow) tell(at.of(at.chunk, slot), told_state(whole(h)));
  }
  if (!LOOSE) {
    __syncthreads();
    return upto(board.state[x]);
  }
  const bool any = __syncthreads_or(slow);
  V from = upto(board.state[x]);
  if (any) {
    slow = board.flag[0][x];
    __syncthreads();
    for (int i = 0; i < W; ++i) {
      if (w == i && slow) {
        from = board.state[x];
        board.state[x] = replay(from);
      }
      __syncthreads();
    }
    if (w == 0 && slow && !at.last()) tell(at.of(at.chunk, slot), told_state(board.state[x]));
  }
  return from;
}

// Hands a value on from the steps of one warp to those of the next; the first warp of all gets it from `start`.
template <int W> LR_INLINE V handed_on(const Place &at, Board<W> &board, int slot, V mine, const Window &start, int depth) {
  const int w = at.warp, x = at.lane;
  __syncthreads();
  board.a[w][x] = mine;
  if (w == W - 1 && !at.last()) tell(at.of(at.chunk, slot), told_state(mine));
  __syncthreads();
  if (w) return board.a[w - 1][x];
  if (!at.chunk) return start.at(depth);
  return state_of(at.of(at.chunk - 1, slot));
}

// The sum over a block's warps, in order, in the first of them.
template <int W> LR_INLINE V over_warps(const Place &at, Board<W> &board, V mine) {
  __syncthreads();
  board.a[at.warp][at.lane] = mine;
  __syncthreads();
  V sum = 0;
  if (at.warp == 0)
    for (int i = 0; i < W; ++i) sum += board.a[i][at.lane];
  return sum;
}
