// Written by lrdsl: kernels for the CPU. Threads take (batch, block of channels); each walks time.
//
// gilr, float32: rows, from the left.
// Rows: channels stream through the cache in the order of memory, the carry stays in L1.
//
//   gate[t] = gate.x[t] + gate.bias   (cells_for_tests.py:12)
//   g[t] = sigmoid(gate[t])   (cells_for_tests.py:12)
//   impulse[t] = impulse.x[t] + impulse.bias   (cells_for_tests.py:13)
//   i[t] = tanh(impulse[t])   (cells_for_tests.py:13)
//   h[t] = A h[t-1] + b   (cells_for_tests.py:14)
//       A = g[t]
//       b = i[t]*(1 - g[t])
//
// gilr_backward, float32: rows, from the right.
// Rows: channels stream through the cache in the order of memory, the carry stays in L1.
//
//   gate[t] = gate.x[t] + gate.bias   (cells_for_tests.py:12)
//   g[t] = sigmoid(gate[t])   (cells_for_tests.py:12)
//   impulse[t] = impulse.x[t] + impulse.bias   (cells_for_tests.py:13)
//   i[t] = tanh(impulse[t])   (cells_for_tests.py:13)
//   back.h[t] = A back.h[t+1] + b   (cells_for_tests.py:14)
//       A = g[t]
//       b = g[t]*h.grad[t]
//   d.h[t] = back.h[t+1] + h.grad[t]   (cells_for_tests.py:14)
//   v[t] = 1 - g[t]
//   d.i[t] = d.h[t]*v[t]   (cells_for_tests.py:13)
//   d.impulse[t] = d.i[t]*(1 - i[t]**2)   (cells_for_tests.py:13)
//   d.g[t] = d.h[t]*(h[t-1] - i[t])   (cells_for_tests.py:12)
//   d.gate[t] = d.g[t]*g[t]*v[t]   (cells_for_tests.py:12)
//   d.gate.x[t] = d.gate[t]
//   d.impulse.x[t] = d.impulse[t]
//   d.gate.bias.t[t] = d.gate[t]
//   d.impulse.bias.t[t] = d.impulse[t]

typedef float real;
#define LR_DOUBLE 0
// (templates/cpu/vmath.h)

// (templates/cpu/common.h)

namespace gilr_digest_ {

struct Args {
  const real *x_maps;  // (B, T, 2*C)
  Index x_maps_batch, x_maps_time;
  const real *gate_bias;  // (C)
  const real *impulse_bias;  // (C)
  const real *h_start;  // (B, 1, C), or none
  Index h_start_batch, h_start_depth;
  const real *h_edge;  // (B, 1, C), or none
  Index h_edge_batch, h_edge_depth;
  real *h;  // (B, T, C)
  Index h_batch, h_time;
  real *h_final;  // (B, 1, C)
  const unsigned char *reset;  // (B, T), or none
  Index reset_batch, reset_time;
  Index B, T, C;
};

// One step: where its rows of channels are.
struct Step {
  const real *gate_x;
  long gate_x_row;
  const real *impulse_x;
  long impulse_x_row;
  const real *gate_bias;
  const real *impulse_bias;
  real *h_kept;
  real *to_h;
  bool past;
};

// The channels [c, c + LANES) of one step, or the n < LANES that are left.
template <bool WHOLE>
static inline __attribute__((always_inline)) void lanes(const Step &at, long c, long n, long width) {
  (void)n, (void)width;
  // read
  const V gate_x = get<WHOLE>(at.gate_x + c, n);
  const V impulse_x = get<WHOLE>(at.impulse_x + c, n);
  const V gate_bias = get<WHOLE>(at.gate_bias + c, n);
  const V impulse_bias = get<WHOLE>(at.impulse_bias + c, n);
  const V h_prev = get<WHOLE>(at.h_kept + c, n);
  // fetch
  if (WHOLE) __builtin_prefetch(at.gate_x + at.gate_x_row + c);
  if (WHOLE) __builtin_prefetch(at.impulse_x + at.impulse_x_row + c);
  // compute
  const V gate = gate_x + gate_bias;
  const V g = lr_sigmoid(gate);
  const V impulse = impulse_x + impulse_bias;
  const V i_ = lr_tanh(impulse);
  const V h = g*h_prev + i_*(1.0f - g);
  // carry
  put<WHOLE>(at.h_kept + c, h, n);
  // write
  write<WHOLE>(at.to_h + c, h, n, at.past);
}

// Steps of batch element b, channels [lo, lo + width): where their memory is, and what is held between two of them.
struct Sweep {
  const Args &a;
  const long b, lo, width;
  Scratch scratch;
  const Boundaries reset;
  Window h_start_beyond;
  Window h_edge_beyond;
  Step at;

  Sweep(const Args &a, long b, long lo, long width)
      : a(a), b(b), lo(lo), width(width), scratch(width, 3),
        reset{a.reset ? a.reset + b * a.reset_batch : 0, a.reset_time, a.T} {
    h_start_beyond = window(a.h_start, b * a.h_start_batch + lo, a.h_start_depth, scratch, 0.0f);
    h_edge_beyond = window(a.h_edge, b * a.h_edge_batch + lo, a.h_edge_depth, scratch, 0.0f);
    at.past = large(a.B * a.T * a.C * 3)
              && whole_lines(a.h + b * a.h_batch + lo, a.h_time);
    at.gate_x_row = ahead_of(a.x_maps_time, width);
    at.impulse_x_row = ahead_of(a.x_maps_time, width);
    at.gate_bias = a.gate_bias + lo;
    at.impulse_bias = a.impulse_bias + lo;
    at.h_kept = scratch.rows(1);
  }

  // Before the first step of all: the registers hold what lies before the sequence.
  void begin() {
    refill(at.h_kept, 1, h_start_beyond, width);
  }

  // A boundary: the registers are emptied and refilled from the edges.
  void cross() {
    refill(at.h_kept, 1, h_edge_beyond, width);
  }

  // The steps s0 … s1 - 1 of T, counted in the direction of the run: the registers hold what came before them, and then what
  // comes before those after them.
  void steps(long s0, long s1) {
    // Copies, here and in other walks: the compiler cannot know that no store reaches the fields of what is not local.
    const Args a = this->a;
    const long b = this->b, lo = this->lo, width = this->width;
    const Boundaries reset = this->reset;
    (void)b, (void)lo, (void)reset;
    Step at = this->at;
    long t = s0;
    for (long s = s0; s < s1; ++s, ++t) {
      if (reset.at(t)) cross();
      at.gate_x = a.x_maps + b * a.x_maps_batch + lo + t * a.x_maps_time;
      at.impulse_x = a.x_maps + b * a.x_maps_batch + a.C + lo + t * a.x_maps_time;
      at.to_h = a.h + b * a.h_batch + lo + t * a.h_time;
      long c = 0;
      for (; c + LANES <= width; c += LANES) lanes<true>(at, c, LANES, width);
      if (c < width) lanes<false>(at, c, width - c, width);
    }
  }

  // After the last step of all: what the registers hold is written.
  void end() {
    copy(a.h_final + b * a.C + lo, a.C, at.h_kept, 1, width);
  }

  // What is left of it in memory.
  void leave() {
    if (at.past) __sync_synchronize();  // what was written past the cache is there for all
  }
};

// All steps of batch element b, channels [lo, lo + width).
static void sweep(const Args &a, long b, long lo, long width) {
  Sweep whole(a, b, lo, width);
  whole.begin();
  whole.steps(0, a.T);
  whole.end();
  whole.leave();
}

}  // namespace gilr_digest_

extern "C" void gilr_digest(const gilr_digest_::Args *args, long threads) {
  share(args, threads, gilr_digest_::sweep);
}

namespace gilr_backward_digest_ {

struct Args {
  const real *h;  // (B, T, C)
  Index h_batch, h_time;
  const real *x_maps;  // (B, T, 2*C)
  Index x_maps_batch, x_maps_time;
  const real *h_grad;  // (B, T, C)
  Index h_grad_batch, h_grad_time;
  const real *gate_bias;  // (C)
  const real *impulse_bias;  // (C)
  const real *h_start;  // (B, 1, C), or none
  Index h_start_batch, h_start_depth;
  const real *h_edge;  // (B, 1, C), or none
  Index h_edge_batch, h_edge_depth;
  const real *h_final_grad;  // (B, 1, C), or none
  Index h_final_grad_batch, h_final_grad_depth;
  real *d_x_maps;  // (B, T, 2*C)
  Index d_x_maps_batch, d_x_maps_time;
  real *d_gate_bias;  // (B, C), to be added up over B
  real *d_impulse_bias;  // (B, C), to be added up over B
  real *d_h_start;  // (B, 1, C)
  real *d_h_edge;  // (B, 1, C)
  const unsigned char *reset;  // (B, T), or none
  Index reset_batch, reset_time;
  Index B, T, C;
};

// One step: where its rows of channels are.
struct Step {
  const real *gate_x;
  long gate_x_row;
  const real *impulse_x;
  long impulse_x_row;
  const real *h_grad;
  long h_grad_row;
  const real *h_prev;
  long h_prev_row;
  const real *gate_bias;
  const real *impulse_bias;
  real *back_h_kept;
  real *to_d_x_maps_0;
  real *to_d_x_maps_1;
  real *d_gate_bias_part;
  real *d_impulse_bias_part;
  bool past;
};

// The channels [c, c + LANES) of one step, or the n < LANES that are left.
template <bool WHOLE>
static inline __attribute__((always_inline)) void lanes(const Step &at, long c, long n, long width) {
  (void)n, (void)width;
  // read
  const V gate_x = get<WHOLE>(at.gate_x + c, n);
  const V impulse_x = get<WHOLE>(at.impulse_x + c, n);
  const V h_grad = get<WHOLE>(at.h_grad + c, n);
  const V h_prev = get<WHOLE>(at.h_prev + c, n);
  const V gate_bias = get<WHOLE>(at.gate_bias + c, n);
  const V impulse_bias = get<WHOLE>(at.impulse_bias + c, n);
  const V back_h_next = get<WHOLE>(at.back_h_kept + c, n);
  // fetch
  if (WHOLE) __builtin_prefetch(at.gate_x + at.gate_x_row + c);
  if (WHOLE) __builtin_prefetch(at.impulse_x + at.impulse_x_row + c);
  if (WHOLE) __builtin_prefetch(at.h_grad + at.h_grad_row + c);
  if (WHOLE) __builtin_prefetch(at.h_prev + at.h_prev_row + c);
  // compute
  const V gate = gate_x + gate_bias;
  const V g = lr_sigmoid(gate);
  const V impulse = impulse_x + impulse_bias;
  const V i_ = lr_tanh(impulse);
  const V back_h = g*back_h_next + g*h_grad;
  const V d_h = back_h_next + h_grad;
  const V v = 1.0f - g;
  const V d_i = d_h*v;
  const V d_impulse = d_i*(1.0f - i_*i_);
  const V d_g = d_h*(h_prev - i_);
  const V d_gate = d_g*g*v;
  const V d_gate_x = d_gate;
  const V d_impulse_x = d_impulse;
  const V d_gate_bias_t = d_gate;
  const V d_impulse_bias_t = d_impulse;
  // carry
  put<WHOLE>(at.back_h_kept + c, back_h, n);
  // write
  write<WHOLE>(at.to_d_x_maps_0 + c, d_gate_x, n, at.past);
  write<WHOLE>(at.to_d_x_maps_1 + c, d_impulse_x, n, at.past);
  put<WHOLE>(at.d_gate_bias_part + c, get<WHOLE>(at.d_gate_bias_part + c, n) + d_gate_bias_t, n);
  put<WHOLE>(at.d_impulse_bias_part + c, get<WHOLE>(at.d_impulse_bias_part + c, n) + d_impulse_bias_t, n);
}

// Steps of batch element b, channels [lo, lo + width): where their memory is, and what is held between two of them.
struct Sweep {
  const Args &a;
  const long b, lo, width;
  Scratch scratch;
  const Boundaries reset;
  Window h_start_beyond;
  Window h_edge_beyond;
  Window h_final_grad_beyond;
  Window zeros;
  Step at;
  real *back_h_kept_crossing;
  real *d_gate_bias_total;
  real *d_impulse_bias_total;

  Sweep(const Args &a, long b, long lo, long width)
      : a(a), b(b), lo(lo), width(width), scratch(width, 9),
        reset{a.reset ? a.reset + b * a.reset_batch : 0, a.reset_time, a.T} {
    h_start_beyond = window(a.h_start, b * a.h_start_batch + lo, a.h_start_depth, scratch, 0.0f);
    h_edge_beyond = window(a.h_edge, b * a.h_edge_batch + lo, a.h_edge_depth, scratch, 0.0f);
    h_final_grad_beyond = window(a.h_final_grad, b * a.h_final_grad_batch + lo, a.h_final_grad_depth, scratch, 0.0f);
    zeros = window(0, 0, 0, scratch, 0.0f);
    at.past = large(a.B * a.T * a.C * 6)
              && whole_lines(a.d_x_maps + b * a.d_x_maps_batch + lo, a.d_x_maps_time)
              && whole_lines(a.d_x_maps + b * a.d_x_maps_batch + a.C + lo, a.d_x_maps_time);
    at.gate_x_row = -ahead_of(a.x_maps_time, width);
    at.impulse_x_row = -ahead_of(a.x_maps_time, width);
    at.h_grad_row = -ahead_of(a.h_grad_time, width);
    at.h_prev_row = -ahead_of(a.h_time, width);
    at.gate_bias = a.gate_bias + lo;
    at.impulse_bias = a.impulse_bias + lo;
    at.back_h_kept = scratch.rows(1);
    back_h_kept_crossing = a.d_h_edge + b * a.C + lo;
    clear(back_h_kept_crossing, 1, a.C, width);
    at.d_gate_bias_part = scratch.rows(1);
    d_gate_bias_total = scratch.rows(1);
    clear(at.d_gate_bias_part, 1, 0, width), clear(d_gate_bias_total, 1, 0, width);
    at.d_impulse_bias_part = scratch.rows(1);
    d_impulse_bias_total = scratch.rows(1);
    clear(at.d_impulse_bias_part, 1, 0, width), clear(d_impulse_bias_total, 1, 0, width);
  }

  // Before the first step of all: the registers hold what lies before the sequence.
  void begin() {
    refill(at.back_h_kept, 1, h_final_grad_beyond, width);
  }

  // A boundary: the registers are emptied and refilled from the edges.
  void cross() {
    add(back_h_kept_crossing, a.C, at.back_h_kept, 1, width);
    refill(at.back_h_kept, 1, zeros, width);
  }

  // The steps s0 … s1 - 1 of T, counted in the direction of the run: the registers hold what came before them, and then what
  // comes before those after them.
  void steps(long s0, long s1) {
    // Copies, here and in other walks: the compiler cannot know that no store reaches the fields of what is not local.
    const Args a = this->a;
    const long b = this->b, lo = this->lo, width = this->width;
    const Boundaries reset = this->reset;
    (void)b, (void)lo, (void)reset;
    Step at = this->at;
    long t = a.T - 1 - s0;
    for (long s = s0; s < s1; ++s, --t) {
      if (reset.at(t + 1)) cross();
      at.gate_x = a.x_maps + b * a.x_maps_batch + lo + t * a.x_maps_time;
      at.impulse_x = a.x_maps + b * a.x_maps_batch + a.C + lo + t * a.x_maps_time;
      at.h_grad = a.h_grad + b * a.h_grad_batch + lo + t * a.h_grad_time;
      at.h_prev = earlier(a.h + b * a.h_batch + lo, a.h_time, t, 1, h_start_beyond, h_edge_beyond, reset);
      at.to_d_x_maps_0 = a.d_x_maps + b * a.d_x_maps_batch + lo + t * a.d_x_maps_time;
      at.to_d_x_maps_1 = a.d_x_maps + b * a.d_x_maps_batch + a.C + lo + t * a.d_x_maps_time;
      // memory is walked downwards in channels too, as in time
      long c = width - width % LANES;
      if (c < width) lanes<false>(at, c, width - c, width);
      while ((c -= LANES) >= 0) lanes<true>(at, c, LANES, width);
      if ((s + 1) % 256 == 0) {  // short partial sums lose fewer digits
        fold(d_gate_bias_total, at.d_gate_bias_part, width);
        fold(d_impulse_bias_total, at.d_impulse_bias_part, width);
      }
    }
  }

  // After the last step of all: what the registers hold is written.
  void end() {
    if (a.T && reset.at(0)) cross();
    copy(a.d_h_start + b * a.C + lo, a.C, at.back_h_kept, 1, width);
  }

  // What is left of it in memory.
  void leave() {
    fold(d_gate_bias_total, at.d_gate_bias_part, width);
    copy(a.d_gate_bias + b * a.C + lo, 0, d_gate_bias_total, 1, width);
    fold(d_impulse_bias_total, at.d_impulse_bias_part, width);
    copy(a.d_impulse_bias + b * a.C + lo, 0, d_impulse_bias_total, 1, width);
    if (at.past) __sync_synchronize();  // what was written past the cache is there for all
  }
};

// All steps of batch element b, channels [lo, lo + width).
static void sweep(const Args &a, long b, long lo, long width) {
  Sweep whole(a, b, lo, width);
  whole.begin();
  whole.steps(0, a.T);
  whole.end();
  whole.leave();
}

}  // namespace gilr_backward_digest_

extern "C" void gilr_backward_digest(const gilr_backward_digest_::Args *args, long threads) {
  share(args, threads, gilr_backward_digest_::sweep);
}
