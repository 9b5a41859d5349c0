// Algorithm 1 of Martin & Cundy (ICLR 2018, arXiv 1709.04057) for h[t] = a[t] h[t-1] + b[t] on a CPU: what its authors' three
// launches are where processors are threads. Channels lie side by side in a vector, as in the lanes of a warp. A thread may
// have several slices of time at once, and takes their steps in turn: the latency of one hides behind the others, as that of
// a warp does on a GPU.

struct Scan {
  const float *a, *b;    // (T, C)
  float *h;              // (T, C)
  float *product, *sum;  // (slices, C): the steps of a slice make product * h + sum of h; then `sum` is the state before it
  long T, C, slices;
  long each() const { return (T + slices - 1) / slices; }
  long from(long slice) const { return slice * each() < T ? slice * each() : T; }
};

// W channels from c on, of K slices from s on. A Scan comes by value: what is stored to memory may not change it.
template <int W, int K> struct Walk {
  typedef float V __attribute__((vector_size(4 * W)));
  static V load(const float *p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(float *p, V v) { __builtin_memcpy(p, &v, sizeof v); }

  // step(k, t) for every step t of slice s + k, the slices in turn while all have steps left.
  template <class Step> static void each_step(const Scan &x, long s, const Step &step) {
    long from[K + 1];
    for (int k = 0; k <= K; ++k) from[k] = x.from(s + k);
    const long together = from[K] - from[K - 1];
    for (long i = 0; i < together; ++i)
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k) step(k, from[k] + i);
    for (int k = 0; k < K; ++k)
      for (long t = from[k] + together; t < from[k + 1]; ++t) step(k, t);
  }
  static void sums(const Scan x, long s, long c) {
    V product[K], sum[K];
    for (int k = 0; k < K; ++k) product[k] = V{} + 1, sum[k] = V{};
    each_step(x, s, [&](int k, long t) {
      const V a = load(x.a + t * x.C + c);
      product[k] = a * product[k], sum[k] = a * sum[k] + load(x.b + t * x.C + c);
    });
    for (int k = 0; k < K; ++k) store(x.product + (s + k) * x.C + c, product[k]), store(x.sum + (s + k) * x.C + c, sum[k]);
  }
  static void states(const Scan x, long s, long c) {
    V h[K];
    for (int k = 0; k < K; ++k) h[k] = load(x.sum + (s + k) * x.C + c);
    each_step(x, s, [&](int k, long t) {
      h[k] = load(x.a + t * x.C + c) * h[k] + load(x.b + t * x.C + c);
      store(x.h + t * x.C + c, h[k]);
    });
  }
};

// torch's pool of threads, where it is loaded for all to see.
extern "C" void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned) __attribute__((weak));

// walk(x, s, c) for all groups of K slices and blocks of W channels, each by whichever thread comes first.
template <int W, int K> static void share(const Scan &x, long threads, void (*walk)(Scan, long, long)) {
  struct Work {
    const Scan &x;
    void (*walk)(Scan, long, long);
    long next;
    static void run(void *self) {
      Work &w = *(Work *)self;
      const long blocks = w.x.C / W;
      for (long i; (i = __atomic_fetch_add(&w.next, 1, __ATOMIC_RELAXED)) < w.x.slices / K * blocks;)
        w.walk(w.x, i / blocks * K, i % blocks * W);
    }
  } work = {x, walk, 0};
  if (threads > 1 && GOMP_parallel) GOMP_parallel(Work::run, &work, threads, 0);
  else Work::run(&work);
}

template <int W, int K> static void solve(const Scan &x, long threads) {
  share<W, K>(x, threads, Walk<W, K>::sums);
  for (long c = 0; c < x.C; ++c) {  // from one slice to the next
    float h = 0;
    for (long s = 0; s < x.slices; ++s) {
      const long i = s * x.C + c;
      const float after = x.product[i] * h + x.sum[i];
      x.sum[i] = h, h = after;
    }
  }
  share<W, K>(x, threads, Walk<W, K>::states);
}

static void one_walk(const Scan &x) {
  for (long c = 0; c < x.C; ++c) x.sum[c] = 0;
  if (x.C % 32 == 0) share<32, 1>(x, 1, Walk<32, 1>::states);
  else if (x.C % 4 == 0) share<4, 1>(x, 1, Walk<4, 1>::states);
  else share<1, 1>(x, 1, Walk<1, 1>::states);
}

template <int K> static void by_width(const Scan &x, long threads) {
  if (x.C % 32 == 0) solve<32, K>(x, threads);
  else if (x.C % 4 == 0) solve<4, K>(x, threads);
  else solve<1, K>(x, threads);
}

// slices: `each_thread` (1, 4 or 8) for each thread. 0: one walk through all steps, which is what a serial kernel does.
extern "C" void three_phases(const float *a, const float *b, float *h, float *product, float *sum, long T, long C,
                             long each_thread, long threads) {
  const Scan x = {a, b, h, product, sum, T, C, each_thread ? each_thread * threads : 1};
  if (each_thread == 0) one_walk(x);
  else if (each_thread == 8) by_width<8>(x, threads);
  else if (each_thread == 4) by_width<4>(x, threads);
  else by_width<1>(x, threads);
}
