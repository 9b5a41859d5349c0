
// What every kernel shares: memory of one sweep, edges and boundaries, threads.

typedef long Index;

template <bool WHOLE> LR_INLINE V get(const real *p, long n) { return WHOLE ? load(p) : load_n(p, n); }
template <bool WHOLE> LR_INLINE void put(real *p, V v, long n) {
  if (WHOLE) store(p, v);
  else store_n(p, v, n);
}

// What leaves the cache before anybody reads it is better written past it: in whole vectors, and with a fence in the end. That
// is so where all that a call reads and writes, `count` numbers, does not fit.
enum { CACHE = 32 << 20 };
#if LR_DOUBLE
#define LR_MOVNT(bits) __builtin_ia32_movntpd##bits
#else
#define LR_MOVNT(bits) __builtin_ia32_movntps##bits
#endif
LR_INLINE void store_past(real *p, V v) {
#if defined(__clang__)
  __builtin_nontemporal_store(v, (V *)p);
#elif defined(__AVX512F__)
  LR_MOVNT(512)(p, v);
#elif defined(__AVX__)
  LR_MOVNT(256)(p, v);
#elif defined(__SSE2__)
  LR_MOVNT()(p, v);
#else
  store(p, v);
#endif
}
#undef LR_MOVNT
template <bool WHOLE> LR_INLINE void write(real *p, V v, long n, bool past) {
  if (WHOLE && past) store_past(p, v);
  else put<WHOLE>(p, v, n);
}
#ifdef LR_BFLOAT
enum { ITEM = 2 };  // bytes of a number in memory, of the smallest kind
#else
enum { ITEM = sizeof(real) };
#endif
static inline bool large(long count) { return count > CACHE / ITEM; }
template <class T> static inline bool begins_line(const T *row) { return (unsigned long)row % LR_BYTES == 0; }
template <class T> static inline bool whole_lines(const T *row, long time) {
  return (unsigned long)row % LR_BYTES == 0 && time * sizeof(T) % LR_BYTES == 0;
}

// How far ahead of a row of `width` numbers to fetch, where rows lie `time` apart: as many rows as have so many bytes, of wider
// ones the next. Of rows that follow each other in memory a processor fetches the next ones on its own; there it is the row at
// hand that is fetched, which is still sooner than to load it.
enum { AHEAD = 3 << 10 };
static inline long ahead_of(long time, long width) {
  const long row = width * ITEM;
  return time == width ? 0 : (row < AHEAD ? AHEAD / row : 1) * time;
}

LR_INLINE V lr_signum(V x) { return select(x > 0, splat(1), select(x < 0, splat(-1), x)); }
LR_INLINE V lr_whole_power(V x, int n) {
  V y = splat(1);
  for (; n; n >>= 1, x = x * x)
    if (n & 1) y = y * x;
  return y;
}

// Rows of `width` numbers for one sweep; the first begins a line of the cache, and so do others where vectors fill them.
struct Scratch {
  enum { NEAR = 1024 };  // bytes for which no memory is asked for; of more, rows on a stack were slow in some processes
  void *memory;
  real *next;
  const long width;
  alignas(LR_BYTES) char near[NEAR];
  Scratch(long width, long count, long vectors = 0) : width(width) {
    const long size = sizeof(real) * (width * count + (width + LANES) * vectors);
    memory = size > NEAR ? __builtin_malloc(size + LR_BYTES) : near;
    if (!memory) __builtin_trap();
    next = (real *)(((unsigned long)memory + LR_BYTES - 1) / LR_BYTES * LR_BYTES);
  }
  ~Scratch() {
    if (memory != near) __builtin_free(memory);
  }
  // Rows of whole vectors, which are asked for before all others.
  real *vectors(long count) {
    real *const taken = next;
    next += count * ((width + LANES - 1) / LANES * LANES);
    return taken;
  }
  real *rows(long count) {
    real *const taken = next;
    next += count * width;
    return taken;
  }
};

// Values beyond a segment, nearest first: rows that lie `depth` apart.
template <class T> struct Rows {
  const T *nearest;
  long depth;
  const T *row(long k) const { return nearest + k * depth; }
};
typedef Rows<real> Window;

static inline Window window(const real *given, long offset, long depth, Scratch &scratch, real init) {
  if (given) return {given + offset, depth};
  real *const constant = scratch.rows(1);
  for (long c = 0; c < scratch.width; ++c) constant[c] = init;
  return {constant, 0};
}

// reset[t] is a boundary between t-1 and t.
struct Boundaries {
  const unsigned char *flags;
  long time, T;
  bool at(long t) const { return flags && t < T && flags[t * time]; }
  // The first boundary from `from` on, or `to`; the last before `to`, or from - 1. 0 <= from, to may be T + 1.
  long first(long from, long to) const {
    if (!flags) return to;
    for (; time == 1 && from + 8 <= T && from + 8 <= to && none(from); from += 8) continue;
    while (from < to && !at(from)) ++from;
    return from;
  }
  long last(long from, long to) const {
    if (!flags) return from - 1;
    for (; time == 1 && to <= T && to - 8 >= from && none(to - 8); to -= 8) continue;
    while (--to >= from && !at(to)) continue;
    return to;
  }
  bool none(long t) const {  // in 8 steps whose flags lie next to each other
    unsigned long eight;
    __builtin_memcpy(&eight, flags + t, 8);
    return !eight;
  }
};

// The row that step t reads k steps earlier (later): beyond a boundary the edge's, beyond the sequence the start's.
template <class T>
static inline const T *earlier(const T *rows, long time, long t, long k, Rows<T> start, Rows<T> edge, const Boundaries &reset) {
  for (long j = 1; j <= k; ++j) {
    if (reset.at(t - j + 1)) return edge.row(k - j);
    if (t - j + 1 == 0) return start.row(k - j);
  }
  return rows + (t - k) * time;
}
template <class T>
static inline const T *later(const T *rows, long time, long t, long k, Rows<T> start, Rows<T> edge, const Boundaries &reset) {
  for (long j = 1; j <= k; ++j) {
    if (t + j == reset.T) return start.row(k - j);
    if (reset.at(t + j)) return edge.row(k - j);
  }
  return rows + (t + k) * time;
}

static inline void clear(real *rows, long count, long stride, long width) {
  for (long k = 0; k < count; ++k)
    for (long c = 0; c < width; ++c) rows[k * stride + c] = 0;
}
static inline void copy(real *to, long stride, const real *rows, long count, long width) {
  for (long k = 0; k < count; ++k)
    for (long c = 0; c < width; ++c) to[k * stride + c] = rows[k * width + c];
}
static inline void add(real *to, long stride, const real *rows, long count, long width) {
  for (long k = 0; k < count; ++k)
    for (long c = 0; c < width; ++c) to[k * stride + c] += rows[k * width + c];
}
static inline void refill(real *rows, long count, const Window &from, long width) {
  for (long k = 0; k < count; ++k)
    for (long c = 0; c < width; ++c) rows[k * width + c] = from.row(k)[c];
}
static inline void fold(real *total, real *part, long width) {
  for (long c = 0; c < width; ++c) total[c] += part[c], part[c] = 0;
}

// The pool of threads that torch uses; absent where libgomp is not loaded.
extern "C" void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned) __attribute__((weak));

// Every (batch element, block of `width` channels) once, by whichever thread comes first. What a sweep computes does not depend
// on the thread that runs it.
template <class Args, class Sweep> static void share_blocks(const Args *args, long threads, long width, const Sweep &sweep) {
  struct Work {
    const Args &a;
    const Sweep &sweep;
    long blocks, width, next;
    static void run(void *self) {
      Work &w = *(Work *)self;
      for (long i; (i = __atomic_fetch_add(&w.next, 1, __ATOMIC_RELAXED)) < w.a.B * w.blocks;) {
        const long lo = i % w.blocks * w.width;
        w.sweep(w.a, i / w.blocks, lo, w.a.C - lo < w.width ? w.a.C - lo : w.width);
      }
    }
  };
  if (args->B == 0 || args->C == 0) return;
  Work work = {*args, sweep, (args->C + width - 1) / width, width, 0};
  // One piece of work wakes nobody: a second thread would have nothing to do, and be waited for.
  if (threads > 1 && work.blocks * args->B > 1 && GOMP_parallel) GOMP_parallel(Work::run, &work, threads, 0);
  else Work::run(&work);
}
// With a block for each thread that the batch leaves without work: of so many bytes that a processor does not fetch much of the
// other threads', or where rows do not fill lines, so many that few lines are two threads'.
enum { LINE_BYTES = 64, PIECE = 256, RAGGED = 1024 };
template <class Args, class Sweep> static void share(const Args *args, long threads, const Sweep &sweep) {
  const long block = (args->C * ITEM % LINE_BYTES ? RAGGED : PIECE) / ITEM;
  const long wanted = threads > args->B && args->B ? (threads + args->B - 1) / args->B : 1;
  share_blocks(args, threads, ((args->C + wanted - 1) / wanted + block - 1) / block * block, sweep);
}
// The same in kernels of lanes, which take all channels of a step, or channel after channel where a sequence's steps lie
// next to each other.
template <class Args, class Sweep> static void share_lanes(const Args *args, long threads, bool turned, const Sweep &sweep) {
  const long wanted = turned && threads > 1 ? 4 * threads : 1;
  share_blocks(args, threads, (args->C + wanted - 1) / wanted, sweep);
}
