// Written by lrdsl: kernels in CUDA for sm_90.
//
// gilr, float32: serial, from the left.
// Serial, one thread a channel: from 24,000 channels (batch * hidden) on, which fill a large GPU, or up to 128 steps.
//
//   gate[t] = gate.x[t] + gate.bias   (cells_for_tests.py:12)
//   g[t] = sigmoid(gate[t])   (cells_for_tests.py:12)
//   impulse[t] = impulse.x[t] + impulse.bias   (cells_for_tests.py:13)
//   i[t] = tanh(impulse[t])   (cells_for_tests.py:13)
//   h[t] = A h[t-1] + b   (cells_for_tests.py:14)
//       A = g[t]
//       b = i[t]*(1 - g[t])
//
// gilr, float32: chunked, from the left.
// Chunks, all worked on at once: for fewer than 24,000 channels (batch * hidden) over more than 128 steps; no product of coefficients overflows, by the equations.
//
//   gate[t] = gate.x[t] + gate.bias   (cells_for_tests.py:12)
//   g[t] = sigmoid(gate[t])   (cells_for_tests.py:12)
//   impulse[t] = impulse.x[t] + impulse.bias   (cells_for_tests.py:13)
//   i[t] = tanh(impulse[t])   (cells_for_tests.py:13)
//   h[t] = A h[t-1] + b   (cells_for_tests.py:14)
//       A = g[t]
//       b = i[t]*(1 - g[t])
//
// gilr_backward, float32: serial, from the right.
// Serial, one thread a channel: from 24,000 channels (batch * hidden) on, which fill a large GPU, or up to 128 steps.
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
//
// gilr_backward, float32: chunked, from the right.
// Chunks, all worked on at once: for fewer than 24,000 channels (batch * hidden) over more than 128 steps; no product of coefficients overflows, by the equations.
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

// (templates/cuda/prelude.cuh)
// (templates/cuda/chunks.cuh)

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

// What one step reads, on its way from memory.
struct Loads {
  real gate_x;
  real impulse_x;
  unsigned char crossed;
};

// One thread for each of the B*C channels, in blocks of 64; that four fit leaves a thread 255 registers.
extern "C" __global__ void __launch_bounds__(64, 4) gilr_digest(const Args a) {
  const unsigned i = blockIdx.x * 64 + threadIdx.x;
  if (i >= a.B * a.C) return;
  const Index b = i / (unsigned)a.C, c = i % (unsigned)a.C;
  const Boundaries reset = {a.reset ? a.reset + b * a.reset_batch : 0, a.reset_time, a.T};
  const Window h_start_beyond =
      window(a.h_start, b * a.h_start_batch + c, a.h_start_depth, 0.0f);
  const Window h_edge_beyond =
      window(a.h_edge, b * a.h_edge_batch + c, a.h_edge_depth, 0.0f);
  const V gate_bias = get(a.gate_bias + c);
  const V impulse_bias = get(a.impulse_bias + c);

  // carry: what is held before the first step
  V h_prev = h_start_beyond.at(0);
  const auto cross = [&] {  // a boundary: the registers are emptied and refilled from the edges
    h_prev = h_edge_beyond.at(0);
  };

  const auto load = [&](Index s, const Boundaries &reset) {
    const Index t = s;
    Loads at;
    at.gate_x = get(a.x_maps + b * a.x_maps_batch + t * a.x_maps_time + c);
    at.impulse_x = get(a.x_maps + b * a.x_maps_batch + a.C + t * a.x_maps_time + c);
    at.crossed = reset.at(t);
    return at;
  };

  const auto step = [&](Index s, const Loads &at) {
    const Index t = s;
    // read
    const V gate_x = at.gate_x;
    const V impulse_x = at.impulse_x;
    // compute
    const V gate = gate_x + gate_bias;
    const V g = lr_sigmoid(gate);
    const V impulse = impulse_x + impulse_bias;
    const V i_ = lr_tanh(impulse);
    const V h = g*h_prev + i_*(1.0f - g);
    // carry
    h_prev = h;
    // write
    put(a.h + b * a.h_batch + t * a.h_time + c, h);
  };

  // What the next 16 steps read is on its way. Where no boundary and no end is near, the steps are one block of
  // instructions without a branch, so that they overlap.
  Loads ring[16];
#pragma unroll
  for (int r = 0; r < 16; ++r)
    if (r < a.T) ring[r] = load(r, reset);
  for (Index lo = 0; lo < a.T; lo += 16) {
    if (!a.reset && lo + 32 <= a.T) {
#pragma unroll
      for (int r = 0; r < 16; ++r) {
        step(lo + r, ring[r]);
        ring[r] = load(lo + r + 16, Boundaries());
      }
    } else {
#pragma unroll
      for (int r = 0; r < 16; ++r) {
        if (lo + r >= a.T) break;
        if (ring[r].crossed) cross();
        step(lo + r, ring[r]);
        if (lo + r + 16 < a.T) ring[r] = load(lo + r + 16, reset);
      }
    }
  }

  // what is held in the end
  put(a.h_final + b * a.C + c, h_prev);
}

}  // namespace gilr_digest_

namespace gilr_digest_chunked_ {

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
  unsigned char *scratch;  // zero: a ticket, then messages
};

// What one step reads, on its way from memory.
struct Loads {
  real gate_x;
  real impulse_x;
  unsigned char crossed;
};

// What steps do to a state: diagonal.
struct Map {
  enum { SIZE = 1, COUNT = 1, HELD = 2 };
  V p[HELD];  // a number, and by how much it is rounded
  LR_INLINE V told(int i) const { return p[i] + p[1]; }
  LR_INLINE State<SIZE> operator()(const State<SIZE> &h, const State<SIZE> &b) const {
    return {{lr_fma(p[0], h.of[0], lr_fma(p[1], h.of[0], b.of[0]))}};
  }
  LR_INLINE Map after(const Map &e) const {
    return {{p[0] * e.p[0],
             lr_fma(p[1], e.p[0], lr_fma(p[0], e.p[1], lr_fma(p[0], e.p[0], -(p[0] * e.p[0]))))}};
  }
  LR_INLINE V norm() const { return lr_abs(p[0]); }
  // One step after many, a and b, by its coefficients and rests.
  static LR_INLINE void step(Map &a, State<SIZE> &b, V c0, V r0) {
    const State<SIZE> h = b;
    b = {{lr_fma(c0, h.of[0], r0)}};
    const Map e = a;
    a = {{c0 * e.p[0], lr_fma(c0, e.p[1], lr_fma(c0, e.p[0], -(c0 * e.p[0])))}};
  }
  static LR_INLINE Map identity() { return {{1, 0}}; }
  static LR_INLINE Map nothing() { return {{0, 0}}; }
  static LR_INLINE State<SIZE> zero() { return {{0}}; }
};

// What later walks over a step need of earlier ones.
struct Held {
  V g;
  V i_;
};

// A block for 128 steps of 32 channels: 8 warps, each with 16 consecutive steps.
extern "C" __global__ void __launch_bounds__(256, 2) gilr_digest_chunked(const Args a) {
  __shared__ Board<8, 2, 1> board;
  __shared__ unsigned ticket;
  if (threadIdx.x == 0) ticket = atomicAdd((unsigned *)a.scratch, 1u);
  __syncthreads();
  const unsigned channels = (unsigned)(a.B * a.C), rows = (channels + 31) / 32, row = ticket % rows;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const bool live = row * 32 + lane < channels;  // the last row's other lanes do as the last channel does, and write nothing
  const unsigned i = live ? row * 32 + lane : channels - 1;
  const Index b = i / (unsigned)a.C, c = i % (unsigned)a.C;
  const Index chunk = ticket / rows, s0 = chunk * 128 + warp * 16;
  const Index t0 = s0;
  const int n = s0 >= a.T ? 0 : a.T - s0 < 16 ? (int)(a.T - s0) : 16;  // steps of this warp
  const Place place = {chunk, (a.T + 127) / 128, warp, lane,
                       (Word *)(a.scratch + 16) + (Index)row * 32 + lane, (Index)rows * 32};
  const Boundaries reset = {a.reset ? a.reset + b * a.reset_batch : 0, a.reset_time, a.T};
  const Window h_start_beyond =
      window(a.h_start, b * a.h_start_batch + c, a.h_start_depth, 0.0f);
  const Window h_edge_beyond =
      window(a.h_edge, b * a.h_edge_batch + c, a.h_edge_depth, 0.0f);
  const V gate_bias = get(a.gate_bias + c);
  const V impulse_bias = get(a.impulse_bias + c);

  const auto load = [&](Index s, const Boundaries &reset) {
    const Index t = s;
    Loads at;
    at.gate_x = get(a.x_maps + b * a.x_maps_batch + t * a.x_maps_time + c);
    at.impulse_x = get(a.x_maps + b * a.x_maps_batch + a.C + t * a.x_maps_time + c);
    at.crossed = reset.at(t);
    return at;
  };

  // Read: all steps at once. Where there are fewer, the last one stands in for those that are missing.
  Loads at[16];
  unsigned crossed = 0;  // bit k: there is a boundary before step s0 + k
  if (!a.reset && s0 + 16 <= a.T) {
    const real *gate_x_row = a.x_maps + b * a.x_maps_batch + t0 * a.x_maps_time + c;
    const real *impulse_x_row = a.x_maps + b * a.x_maps_batch + a.C + t0 * a.x_maps_time + c;
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      at[k].gate_x = get(gate_x_row);
      gate_x_row += a.x_maps_time;
      at[k].impulse_x = get(impulse_x_row);
      impulse_x_row += a.x_maps_time;
    }
  } else {
#pragma unroll
    for (int k = 0; k < 16; ++k) at[k] = load(s0 + k < a.T ? s0 + k : a.T - 1, reset);
#pragma unroll
    for (int k = 0; k < 16; ++k) crossed |= k < n && at[k].crossed ? 1u << k : 0;
  }
  // Most chunks are whole and without a boundary: for them each walk is compiled without the tests.
  const bool whole = !a.reset && (chunk + 1) * 128 <= a.T && (row + 1) * 32 <= channels;
  Held held[16];
  auto h_upto = unmoved<Map>();

  {  // walk 1
    const auto walk = [&](auto all) {
#pragma unroll
      for (int k = 0; k < 16; ++k) {
        const bool there = all.of || k < n;
        if (!all.of && crossed >> k & 1) {
          h_upto.boundary({{h_edge_beyond.at(0)}});
        }
        const V gate_x = at[k].gate_x;
        const V impulse_x = at[k].impulse_x;
        const V gate = gate_x + gate_bias;
        const V g = lr_sigmoid(gate);
        const V impulse = impulse_x + impulse_bias;
        const V i_ = lr_tanh(impulse);
        if (there) h_upto.step(g, i_*(1.0f - g));
        held[k].g = g;
        held[k].i_ = i_;
      }
    };
    if (whole)
      walk(All<true>());
    else
      walk(All<false>());
  }

  {  // walk 2
    const auto h_from = [&] { return State<1>{{h_start_beyond.at(0)}}; };
    const auto h_before = state_before<false>(place, board, 0, h_upto, h_from, Unneeded());
    V h_prev = h_before.of[0];
    real *to_h_row = a.h + b * a.h_batch + t0 * a.h_time + c;
    const auto walk = [&](auto all) {
#pragma unroll
      for (int k = 0; k < 16; ++k) {
        const bool there = all.of || k < n;
        if (!all.of && crossed >> k & 1) {
          h_prev = h_edge_beyond.at(0);
        }
        const V g = held[k].g;
        const V i_ = held[k].i_;
        const V h = g*h_prev + i_*(1.0f - g);
        h_prev = there ? h : h_prev;
        if ((all.of || live) && there) {
          put(to_h_row, h);
        }
        to_h_row += a.h_time;
      }
    };
    if (whole)
      walk(All<true>());
    else
      walk(All<false>());
    if (n && s0 + n == a.T) {  // what is held in the end
      if (live) put(a.h_final + b * a.C + c, h_prev);
    }
  }
}

}  // namespace gilr_digest_chunked_

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

// What one step reads, on its way from memory.
struct Loads {
  real gate_x;
  real impulse_x;
  real h_grad;
  real h_prev;
  unsigned char crossed;
};

// One thread for each of the B*C channels, in blocks of 64; that four fit leaves a thread 255 registers.
extern "C" __global__ void __launch_bounds__(64, 4) gilr_backward_digest(const Args a) {
  const unsigned i = blockIdx.x * 64 + threadIdx.x;
  if (i >= a.B * a.C) return;
  const Index b = i / (unsigned)a.C, c = i % (unsigned)a.C;
  const Boundaries reset = {a.reset ? a.reset + b * a.reset_batch : 0, a.reset_time, a.T};
  const Window h_start_beyond =
      window(a.h_start, b * a.h_start_batch + c, a.h_start_depth, 0.0f);
  const Window h_edge_beyond =
      window(a.h_edge, b * a.h_edge_batch + c, a.h_edge_depth, 0.0f);
  const Window h_final_grad_beyond =
      window(a.h_final_grad, b * a.h_final_grad_batch + c, a.h_final_grad_depth, 0.0f);
  const Window zeros = {0, 0, 0.0f};
  const V gate_bias = get(a.gate_bias + c);
  const V impulse_bias = get(a.impulse_bias + c);

  // carry: what is held before the first step
  V back_h_next = h_final_grad_beyond.at(0), back_h_next_crossing = 0;
  const auto cross = [&] {  // a boundary: the registers are emptied and refilled from the edges
    back_h_next_crossing += back_h_next;
    back_h_next = zeros.at(0);
  };
  V d_gate_bias_part = 0, d_gate_bias_total = 0;
  V d_impulse_bias_part = 0, d_impulse_bias_total = 0;

  const auto load = [&](Index s, const Boundaries &reset) {
    const Index t = a.T - 1 - s;
    Loads at;
    at.gate_x = get(a.x_maps + b * a.x_maps_batch + t * a.x_maps_time + c);
    at.impulse_x = get(a.x_maps + b * a.x_maps_batch + a.C + t * a.x_maps_time + c);
    at.h_grad = get(a.h_grad + b * a.h_grad_batch + t * a.h_grad_time + c);
    at.h_prev = earlier(a.h + b * a.h_batch + c, a.h_time, t, 1,
        h_start_beyond, h_edge_beyond, reset);
    at.crossed = reset.at(t + 1);
    return at;
  };

  const auto step = [&](Index s, const Loads &at) {
    const Index t = a.T - 1 - s;
    // read
    const V gate_x = at.gate_x;
    const V impulse_x = at.impulse_x;
    const V h_grad = at.h_grad;
    const V h_prev = at.h_prev;
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
    back_h_next = back_h;
    // write
    put(a.d_x_maps + b * a.d_x_maps_batch + t * a.d_x_maps_time + c, d_gate_x);
    put(a.d_x_maps + b * a.d_x_maps_batch + a.C + t * a.d_x_maps_time + c, d_impulse_x);
    d_gate_bias_part += d_gate_bias_t;
    d_impulse_bias_part += d_impulse_bias_t;
  };

  // What the next 8 steps read is on its way. Where no boundary and no end is near, the steps are one block of
  // instructions without a branch, so that they overlap.
  Loads ring[8];
#pragma unroll
  for (int r = 0; r < 8; ++r)
    if (r < a.T) ring[r] = load(r, reset);
  for (Index lo = 0; lo < a.T; lo += 8) {
    if (!a.reset && lo + 17 <= a.T) {
#pragma unroll
      for (int r = 0; r < 8; ++r) {
        step(lo + r, ring[r]);
        ring[r] = load(lo + r + 8, Boundaries());
      }
    } else {
#pragma unroll
      for (int r = 0; r < 8; ++r) {
        if (lo + r >= a.T) break;
        if (ring[r].crossed) cross();
        step(lo + r, ring[r]);
        if (lo + r + 8 < a.T) ring[r] = load(lo + r + 8, reset);
      }
    }
    if ((lo + 8) % 256 == 0) {  // short partial sums lose fewer digits
      fold(d_gate_bias_total, d_gate_bias_part);
      fold(d_impulse_bias_total, d_impulse_bias_part);
    }
  }
  if (a.T && reset.at(0)) cross();

  // what is held in the end
  put(a.d_h_start + b * a.C + c, back_h_next);
  put(a.d_h_edge + b * a.C + c, back_h_next_crossing);
  put(a.d_gate_bias + b * a.C + c, d_gate_bias_total + d_gate_bias_part);
  put(a.d_impulse_bias + b * a.C + c, d_impulse_bias_total + d_impulse_bias_part);
}

}  // namespace gilr_backward_digest_

namespace gilr_backward_digest_chunked_ {

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
  real *d_gate_bias;  // (chunks, B, C), to be added up over chunks and B
  real *d_impulse_bias;  // (chunks, B, C), to be added up over chunks and B
  real *d_h_start;  // (B, 1, C)
  real *d_h_edge;  // (chunks, B, 1, C), to be added up over chunks
  const unsigned char *reset;  // (B, T), or none
  Index reset_batch, reset_time;
  Index B, T, C;
  unsigned char *scratch;  // zero: a ticket, then messages
};

// What one step reads, on its way from memory.
struct Loads {
  real gate_x;
  real impulse_x;
  real h_grad;
  real h_prev;
  unsigned char crossed;
};

// What steps do to a state: diagonal.
struct Map {
  enum { SIZE = 1, COUNT = 1, HELD = 2 };
  V p[HELD];  // a number, and by how much it is rounded
  LR_INLINE V told(int i) const { return p[i] + p[1]; }
  LR_INLINE State<SIZE> operator()(const State<SIZE> &h, const State<SIZE> &b) const {
    return {{lr_fma(p[0], h.of[0], lr_fma(p[1], h.of[0], b.of[0]))}};
  }
  LR_INLINE Map after(const Map &e) const {
    return {{p[0] * e.p[0],
             lr_fma(p[1], e.p[0], lr_fma(p[0], e.p[1], lr_fma(p[0], e.p[0], -(p[0] * e.p[0]))))}};
  }
  LR_INLINE V norm() const { return lr_abs(p[0]); }
  // One step after many, a and b, by its coefficients and rests.
  static LR_INLINE void step(Map &a, State<SIZE> &b, V c0, V r0) {
    const State<SIZE> h = b;
    b = {{lr_fma(c0, h.of[0], r0)}};
    const Map e = a;
    a = {{c0 * e.p[0], lr_fma(c0, e.p[1], lr_fma(c0, e.p[0], -(c0 * e.p[0])))}};
  }
  static LR_INLINE Map identity() { return {{1, 0}}; }
  static LR_INLINE Map nothing() { return {{0, 0}}; }
  static LR_INLINE State<SIZE> zero() { return {{0}}; }
};

// What later walks over a step need of earlier ones.
struct Held {
  V g;
  V i_;
};

// A block for 64 steps of 32 channels: 8 warps, each with 8 consecutive steps.
extern "C" __global__ void __launch_bounds__(256, 2) gilr_backward_digest_chunked(const Args a) {
  __shared__ Board<8, 2, 1> board;
  __shared__ unsigned ticket;
  if (threadIdx.x == 0) ticket = atomicAdd((unsigned *)a.scratch, 1u);
  __syncthreads();
  const unsigned channels = (unsigned)(a.B * a.C), rows = (channels + 31) / 32, row = ticket % rows;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const bool live = row * 32 + lane < channels;  // the last row's other lanes do as the last channel does, and write nothing
  const unsigned i = live ? row * 32 + lane : channels - 1;
  const Index b = i / (unsigned)a.C, c = i % (unsigned)a.C;
  const Index chunk = ticket / rows, s0 = chunk * 64 + warp * 8;
  const Index t0 = a.T - 1 - s0;
  const int n = s0 >= a.T ? 0 : a.T - s0 < 8 ? (int)(a.T - s0) : 8;  // steps of this warp
  const Place place = {chunk, (a.T + 63) / 64, warp, lane,
                       (Word *)(a.scratch + 16) + (Index)row * 32 + lane, (Index)rows * 32};
  const Boundaries reset = {a.reset ? a.reset + b * a.reset_batch : 0, a.reset_time, a.T};
  const Window h_start_beyond =
      window(a.h_start, b * a.h_start_batch + c, a.h_start_depth, 0.0f);
  const Window h_edge_beyond =
      window(a.h_edge, b * a.h_edge_batch + c, a.h_edge_depth, 0.0f);
  const Window h_final_grad_beyond =
      window(a.h_final_grad, b * a.h_final_grad_batch + c, a.h_final_grad_depth, 0.0f);
  const Window zeros = {0, 0, 0.0f};
  const V gate_bias = get(a.gate_bias + c);
  const V impulse_bias = get(a.impulse_bias + c);
  V d_gate_bias_total = 0;
  V d_impulse_bias_total = 0;
  V back_h_next_crossing = 0;

  const auto load = [&](Index s, const Boundaries &reset) {
    const Index t = a.T - 1 - s;
    Loads at;
    at.gate_x = get(a.x_maps + b * a.x_maps_batch + t * a.x_maps_time + c);
    at.impulse_x = get(a.x_maps + b * a.x_maps_batch + a.C + t * a.x_maps_time + c);
    at.h_grad = get(a.h_grad + b * a.h_grad_batch + t * a.h_grad_time + c);
    at.h_prev = earlier(a.h + b * a.h_batch + c, a.h_time, t, 1,
        h_start_beyond, h_edge_beyond, reset);
    at.crossed = reset.at(t + 1);
    return at;
  };

  // Read: all steps at once. Where there are fewer, the last one stands in for those that are missing.
  Loads at[8];
  unsigned crossed = 0;  // bit k: there is a boundary before step s0 + k
  if (!a.reset && s0 + 9 <= a.T) {
    const real *gate_x_row = a.x_maps + b * a.x_maps_batch + t0 * a.x_maps_time + c;
    const real *impulse_x_row = a.x_maps + b * a.x_maps_batch + a.C + t0 * a.x_maps_time + c;
    const real *h_grad_row = a.h_grad + b * a.h_grad_batch + t0 * a.h_grad_time + c;
    const real *h_prev_row = a.h + b * a.h_batch + (t0 - 1) * a.h_time + c;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      at[k].gate_x = get(gate_x_row);
      gate_x_row -= a.x_maps_time;
      at[k].impulse_x = get(impulse_x_row);
      impulse_x_row -= a.x_maps_time;
      at[k].h_grad = get(h_grad_row);
      h_grad_row -= a.h_grad_time;
      at[k].h_prev = get(h_prev_row);
      h_prev_row -= a.h_time;
    }
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) at[k] = load(s0 + k < a.T ? s0 + k : a.T - 1, reset);
#pragma unroll
    for (int k = 0; k < 8; ++k) crossed |= k < n && at[k].crossed ? 1u << k : 0;
  }
  // Most chunks are whole and without a boundary: for them each walk is compiled without the tests.
  const bool whole = !a.reset && (chunk + 1) * 64 <= a.T && (row + 1) * 32 <= channels;
  Held held[8];
  auto back_h_upto = unmoved<Map>();

  {  // walk 1
    const auto walk = [&](auto all) {
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const bool there = all.of || k < n;
        if (!all.of && crossed >> k & 1) {
          back_h_upto.boundary({{zeros.at(0)}});
        }
        const V gate_x = at[k].gate_x;
        const V impulse_x = at[k].impulse_x;
        const V h_grad = at[k].h_grad;
        const V gate = gate_x + gate_bias;
        const V g = lr_sigmoid(gate);
        const V impulse = impulse_x + impulse_bias;
        const V i_ = lr_tanh(impulse);
        if (there) back_h_upto.step(g, g*h_grad);
        held[k].g = g;
        held[k].i_ = i_;
      }
    };
    if (whole)
      walk(All<true>());
    else
      walk(All<false>());
  }

  {  // walk 2
    const auto back_h_from = [&] { return State<1>{{h_final_grad_beyond.at(0)}}; };
    const auto back_h_before = state_before<false>(place, board, 0, back_h_upto, back_h_from, Unneeded());
    V back_h_next = back_h_before.of[0];
    real *to_d_x_maps_0_row = a.d_x_maps + b * a.d_x_maps_batch + t0 * a.d_x_maps_time + c;
    real *to_d_x_maps_1_row = a.d_x_maps + b * a.d_x_maps_batch + a.C + t0 * a.d_x_maps_time + c;
    const auto walk = [&](auto all) {
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const bool there = all.of || k < n;
        if (!all.of && crossed >> k & 1) {
          back_h_next_crossing += back_h_next;
          back_h_next = zeros.at(0);
        }
        const V g = held[k].g;
        const V h_grad = at[k].h_grad;
        const V i_ = held[k].i_;
        const V h_prev = at[k].h_prev;
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
        back_h_next = there ? back_h : back_h_next;
        d_gate_bias_total += there ? d_gate_bias_t : 0;
        d_impulse_bias_total += there ? d_impulse_bias_t : 0;
        if ((all.of || live) && there) {
          put(to_d_x_maps_0_row, d_gate_x);
          put(to_d_x_maps_1_row, d_impulse_x);
        }
        to_d_x_maps_0_row -= a.d_x_maps_time;
        to_d_x_maps_1_row -= a.d_x_maps_time;
      }
    };
    if (whole)
      walk(All<true>());
    else
      walk(All<false>());
    if (n && s0 + n == a.T) {  // what is held in the end
      if (reset.at(0)) {
        back_h_next_crossing += back_h_next;
        back_h_next = zeros.at(0);
      }
      if (live) put(a.d_h_start + b * a.C + c, back_h_next);
    }
  }

  // sums: over the warps, and a part for each chunk
  d_gate_bias_total = over_warps(place, board, d_gate_bias_total);
  if (live && warp == 0) put(a.d_gate_bias + (chunk * a.B + b) * a.C + c, d_gate_bias_total);
  d_impulse_bias_total = over_warps(place, board, d_impulse_bias_total);
  if (live && warp == 0) put(a.d_impulse_bias + (chunk * a.B + b) * a.C + c, d_impulse_bias_total);
  back_h_next_crossing = a.reset ? over_warps(place, board, back_h_next_crossing) : 0;
  if (live && warp == 0)
    put(a.d_h_edge + b * a.C + (chunk * a.B * 1) * a.C + c, back_h_next_crossing);
}

}  // namespace gilr_backward_digest_chunked_
