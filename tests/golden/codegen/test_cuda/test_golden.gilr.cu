// Written by lrdsl: kernels in CUDA for sm_90. One thread walks one channel through time.
//
// gilr, float32: serial, from the left.
// One thread a channel walks time, 16 steps of loads in flight; needs about 24,000 channels to fill a large GPU.
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
// One thread a channel walks time, 8 steps of loads in flight; needs about 24,000 channels to fill a large GPU.
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

// One thread for each of the B*C channels, in blocks of 64.
extern "C" __global__ void __launch_bounds__(64) gilr_digest(const Args a) {
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

// One thread for each of the B*C channels, in blocks of 64.
extern "C" __global__ void __launch_bounds__(64) gilr_backward_digest(const Args a) {
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
