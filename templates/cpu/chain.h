
// Blocks of time, one after another, that threads work on at once.
//
// Threads take blocks in order. What a block does to the states is added up before the state before it is known; then its
// thread waits for that, tells the state after it, and walks the block again, from a near cache. Whoever is waited for has
// taken its block before, so that any number of threads comes to an end; and which blocks are added up depends on the sizes
// alone, so that the result does not depend on the threads.

// What steps do to a state: rows of its numbers, `apart` from each other, in whole vectors.
template <class M> LR_INLINE M upto(const real *rows, long apart) {
  M m;
#pragma GCC unroll 64
  for (int i = 0; i < M::HELD; ++i) m.p[i] = load(rows + i * apart);
#pragma GCC unroll 8
  for (int i = 0; i < M::SIZE; ++i) m.b.of[i] = load(rows + (M::HELD + i) * apart);
  return m;
}
template <class M> LR_INLINE void to_upto(const M &m, real *rows, long apart) {
#pragma GCC unroll 64
  for (int i = 0; i < M::HELD; ++i) store(rows + i * apart, m.p[i]);
#pragma GCC unroll 8
  for (int i = 0; i < M::SIZE; ++i) store(rows + (M::HELD + i) * apart, m.b.of[i]);
}
static inline void fill(real *row, real x, long width) {
  for (long c = 0; c < width; ++c) row[c] = x;
}
// While one lives, this thread's results that would be denormal are 0. Products of many coefficients pass through such numbers,
// which take a processor a hundred cycles each; a state that comes of them is not worth that. Where a walk leaves or tells other
// values, products alone are flushed: those below LEAST, and of those below ROUNDED, the error of rounding.
static const real LEAST = sizeof(real) == 8 ? (real)2.2250738585072014e-308 : (real)1.17549435e-38;
static const real ROUNDED = LEAST * (sizeof(real) == 8 ? 1l << 53 : 1l << 24);
struct Flushed {
#if defined(__SSE2__)
  const unsigned before = __builtin_ia32_stmxcsr();
  Flushed() { __builtin_ia32_ldmxcsr(before | 0x8000); }
  ~Flushed() { __builtin_ia32_ldmxcsr(before); }
#endif
};
// How many vectors of channels are walked side by side while all that each hands on from step to step, `numbers`, stays in
// registers: as many as leave eight of these to one step.
#if defined(__AVX512F__) || defined(__aarch64__)
enum { REGISTERS = 32 };
#else
enum { REGISTERS = 16 };
#endif
static constexpr int side_by_side(int numbers) {
  int vectors = 8;
  while (vectors > 1 && numbers * vectors + 8 > REGISTERS) vectors /= 2;
  return vectors;
}
// Rounded up to whole vectors.
LR_INLINE long whole_vectors(long width) { return (width + LANES - 1) / LANES * LANES; }

// Of the first n lanes, those that are neither finite nor the zero of their algebra.
LR_INLINE bool any(I mask, long n) {
  for (long i = 0; i < n && i < LANES; ++i)
    if (mask[i]) return true;
  return false;
}

extern "C" int sched_yield(void);

// How many links of the state before a block have been told, in a cache line of its own.
struct alignas(64) Told {
  int links;
  void tell(int n) { __atomic_store_n(&links, n, __ATOMIC_RELEASE); }
  void hear(int n) const {
    for (long spins = 0; __atomic_load_n(&links, __ATOMIC_ACQUIRE) < n; ++spins) {
      if (spins >= 2000) sched_yield();  // whoever is waited for may be waiting for this processor
#if defined(__x86_64__)
      else __builtin_ia32_pause();
#endif
    }
  }
};

// A block of steps, s0 … s1 - 1, and how far from it the block is that this thread takes next, in steps. before, after: the
// registers' rows, `a.C` apart. left: memory of this thread for values of all its steps.
struct Block {
  long s0, s1, ahead;
  const Told *from;
  Told *to;
  const real *before;
  real *after;
  bool first, last;
  real *left;
};

// ROWS: of registers; PARTS: rows of sums that each block leaves, to be added up in order; LEFT: values that are left of a step.
template <class Args, class In, void (*WALK)(const Args &, long, long, long, In &, const Block &, real *), long ROWS, long PARTS, long LEFT>
struct Chain {
  const Args &a;
  In &in;
  const long steps, width, units, blocks;
  void *memory;
  Told *told;
  real *rows, *parts;
  long next;

  Chain(const Args &a, In &in, long steps, long wide)
      : a(a), in(in), steps(steps), width(wide), units((a.C + wide - 1) / wide * a.B), blocks((a.T + steps - 1) / steps), next(0) {
    const unsigned long state = a.B * a.C * ROWS, part = a.B * a.C * PARTS;
    const unsigned long size = blocks * (units * sizeof(Told) + (state + part) * sizeof(real));
    memory = __builtin_malloc(size + sizeof(Told));
    if (!memory) __builtin_trap();
    told = (Told *)(((unsigned long)memory + sizeof(Told) - 1) / sizeof(Told) * sizeof(Told));
    for (long i = 0; i < blocks * units; ++i) told[i].links = 0;
    rows = (real *)(told + blocks * units);
    parts = rows + blocks * state;
  }
  ~Chain() { __builtin_free(memory); }

  long take() { return __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED); }

  // Blocks until none is left. The next is taken before a block is walked, so that its memory can be fetched meanwhile.
  void work() {
    const long state = a.B * a.C * ROWS, part = a.B * a.C * PARTS;
    void *own = LEFT ? __builtin_malloc(steps * LEFT * whole_vectors(width) * sizeof(real) + LR_BYTES) : 0;
    if (LEFT && !own) __builtin_trap();
    real *const left = (real *)(((unsigned long)own + LR_BYTES - 1) / LR_BYTES * LR_BYTES);
    for (long i = take(), then; i < blocks * units; i = then) {
      then = take();
      const long k = i / units, unit = i % units, b = unit % a.B, lo = unit / a.B * width;
      const bool last = k == blocks - 1;
      const long offset = b * a.C * ROWS + lo, after = last ? k : k + 1;
      WALK(a, b, lo, a.C - lo < width ? a.C - lo : width, in,
           {k * steps, last ? a.T : (k + 1) * steps, (then / units - k) * steps, told + i, told + after * units + unit,
            rows + k * state + offset, rows + after * state + offset, k == 0, last, left},
           parts + k * part);
    }
    __builtin_free(own);
  }
  void run(long threads) {
    if (threads > 1 && blocks * units > 1 && GOMP_parallel) GOMP_parallel([](void *self) { ((Chain *)self)->work(); }, this, threads, 0);
    else work();
  }

  // What all blocks left of a sum, `count` rows from row `row` of each on.
  void total(real *to, long row, long count, bool largest) const {
    const long size = a.B * a.C * count;
    for (long i = 0; i < size; ++i) to[i] = 0;
    for (long k = 0; k < blocks; ++k) {
      const real *from = parts + a.B * a.C * (k * PARTS + row);
      for (long i = 0; i < size; ++i) {
        if (!largest) to[i] += from[i];
        else if (from[i] > to[i] || from[i] != from[i]) to[i] = from[i];
      }
    }
  }
};
