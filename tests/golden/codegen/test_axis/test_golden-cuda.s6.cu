// Written by lrdsl: kernels in CUDA.
//
// s6, float32: serial, from the left.
// Serial, one thread a channel with its 4 numbers: at every size, because chunks of states with 4 numbers a channel are not built yet.
//
//   step[t] = step.x[t] + step.bias   (axis_cells.py:28)
//   d[t] = softplus(step[t])   (axis_cells.py:28)
//   B[t] = B.x[t] + B.bias   (axis_cells.py:29)
//   h[t] = A h[t-1] + b   (axis_cells.py:29)
//       A = exp(-d[t]*exp.A[t])
//       b = B[t]*d[t]*x[t]
//   C[t] = C.x[t] + C.bias   (axis_cells.py:30)
//   sum[t] = sum(C[t]*h[t])   (axis_cells.py:30)
//   y[t] = sum[t] + x[t]*D   (axis_cells.py:30)
//
// s6_backward, float32: serial, from the right.
// Serial, one thread a channel with its 4 numbers: at every size, because chunks of states with 4 numbers a channel are not built yet.
//
//   step[t] = step.x[t] + step.bias   (axis_cells.py:28)
//   d[t] = softplus(step[t])   (axis_cells.py:28)
//   B[t] = B.x[t] + B.bias   (axis_cells.py:29)
//   exp.of_2[t] = -d[t]*exp.of_3[t]   (axis_cells.py:29)
//   exp.exp.of_2[t] = exp(exp.of_2[t])   (axis_cells.py:29)
//   v[t] = d[t]*x[t]
//   h.again[t] = B[t]*v[t] + exp.exp.of_2[t]*h.before[t]   (axis_cells.py:29)
//   C[t] = C.x[t] + C.bias   (axis_cells.py:30)
//   d.sum.of[t] = y.grad[t]   (axis_cells.py:30)
//   d.C[t] = d.sum.of[t]*h.again[t]   (axis_cells.py:30)
//   d.h.direct[t] = C[t]*d.sum.of[t]   (axis_cells.py:29)
//   back.h[t] = A back.h[t+1] + b   (axis_cells.py:29)
//       A = exp.exp.of_2[t]
//       b = d.h.direct[t]*exp.exp.of_2[t]
//   d.h[t] = back.h[t+1] + d.h.direct[t]   (axis_cells.py:29)
//   d.exp.exp.of_2[t] = d.h[t]*h.before[t]   (axis_cells.py:29)
//   d.exp.of_2[t] = d.exp.exp.of_2[t]*exp.exp.of_2[t]   (axis_cells.py:29)
//   d.exp.of[t] = -d.exp.of_2[t]*d[t]   (axis_cells.py:29)
//   d.B[t] = d.h[t]*v[t]   (axis_cells.py:29)
//   v_2[t] = B[t]*d.h[t]
//   sum[t] = sum(-d.exp.of_2[t]*exp.of_3[t] + v_2[t]*x[t])   (axis_cells.py:28)
//   d.d[t] = sum[t]   (axis_cells.py:28)
//   d.step[t] = d.d[t]*sigmoid(step[t])   (axis_cells.py:28)
//   d.x.maps.1[t] = d.step[t]
//   sum_2[t] = sum(d[t]*v_2[t])
//   d.x[t] = sum_2[t] + y.grad[t]*D
//   d.B.x[t] = d.B[t]
//   d.C.x[t] = d.C[t]
//   d.step.bias.t[t] = d.step[t]
//   d.B.bias.t[t] = d.B[t]
//   d.A.t[t] = d.exp.of[t]*exp.of_3[t]
//   d.C.bias.t[t] = d.C[t]
//   d.D.t[t] = x[t]*y.grad[t]

typedef float real;
#define LR_DOUBLE 0

// (templates/cuda/prelude.cuh)
// (templates/cuda/axis.cuh)

namespace s6_digest_ {

struct Args {
  const real *x_maps_1;  // (B, T, C)
  Index x_maps_1_batch, x_maps_1_time;
  const real *x;  // (B, T, C)
  Index x_batch, x_time;
  const real *x_maps_2;  // (B, T, 8)
  Index x_maps_2_batch, x_maps_2_time;
  const real *step_bias;  // (C)
  const real *B_bias;  // (4)
  const real *A;  // (4*C)
  const real *C_bias;  // (4)
  const real *D;  // (C)
  const real *h_start;  // (B, 1, 4*C), or none
  Index h_start_batch, h_start_depth;
  const real *h_edge;  // (B, 1, 4*C), or none
  Index h_edge_batch, h_edge_depth;
  real *y;  // (B, T, C)
  Index y_batch, y_time;
  real *h_borders;  // (B, T/32, 4*C)
  Index h_borders_batch, h_borders_time;
  real *h_final;  // (B, 1, 4*C)
  const unsigned char *reset;  // (B, T), or none
  Index reset_batch, reset_time;
  Index B, T, C;
};

// What a step reads: one number a channel, and what the channels of a warp share for 8 steps.
struct Loads {
  real step_x;
  real x;
  unsigned char crossed;
};
struct Board {
  real B_x[8][4];
  real C_x[8][4];
};

// One thread a channel: warps of 32 channels of one batch element, in blocks of 128; that two fit leaves a thread 255
// registers.
extern "C" __global__ void __launch_bounds__(128, 2) s6_digest(const Args a) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Index rows = (a.C + 31) / 32, place = (Index)blockIdx.x * 4 + warp;
  if (place >= a.B * rows) return;
  const Index b = place / rows, row = place % rows;
  const bool there = row * 32 + lane < a.C;  // a thread without a channel follows the last one, and leaves nothing
  const Index c = there ? row * 32 + lane : a.C - 1;
  const Boundaries reset = {a.reset ? a.reset + b * a.reset_batch : 0, a.reset_time, a.T};
  const Window h_edge_beyond =
      window(a.h_edge, b * a.h_edge_batch + c, a.h_edge_depth, 0.0f);
  const Window h_start_beyond =
      window(a.h_start, b * a.h_start_batch + c, a.h_start_depth, 0.0f);
  // learned numbers, and what follows from them alone
  const V step_bias = get(a.step_bias + c);
  __shared__ real B_bias_row[4][4];
  real *const B_bias_all = B_bias_row[warp];
  for (int n = lane; n < 4; n += 32) B_bias_all[n] = get(a.B_bias + n);
  __shared__ real C_bias_row[4][4];
  real *const C_bias_all = C_bias_row[warp];
  for (int n = lane; n < 4; n += 32) C_bias_all[n] = get(a.C_bias + n);
  const V D = get(a.D + c);
  V exp_A_all[4];
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const V A = get(a.A + n * a.C + c);
    const V exp_A = lr_exp(A);
    exp_A_all[n] = exp_A;
  }
  const auto fold_all = [&] {  // short partial sums lose fewer digits
  };

  __shared__ Board board[4];
  Loads ahead[8];

  // carry: what is held before the first step
  V h_prev_all[4];
#pragma unroll
  for (int n = 0; n < 4; ++n)
    h_prev_all[n] = offset(h_start_beyond, n * a.C).at(0);
  const auto cross = [&] {  // a boundary: the registers are emptied and refilled from the edges
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      h_prev_all[n] = offset(h_edge_beyond, n * a.C).at(0);
    }
  };
  const auto read = [&](Index s0, int all, Loads *next, Board &at) {
    __syncwarp();  // what was staged before has been used
    for (int i = lane; i < all * 4; i += 32) {
      const int k = i / 4, n = i % 4;
      const Index s = s0 + k, t = s;
      at.B_x[k][n] = get(a.x_maps_2 + b * a.x_maps_2_batch + n + t * a.x_maps_2_time);
      at.C_x[k][n] = get(a.x_maps_2 + b * a.x_maps_2_batch + 4 + n + t * a.x_maps_2_time);
    }
#pragma unroll
    for (int k = 0; k < 8; ++k)
      if (k < all) {
        const Index s = s0 + k, t = s;
        (void)t;
        next[k].step_x = get(a.x_maps_1 + b * a.x_maps_1_batch + c + t * a.x_maps_1_time);
        next[k].x = get(a.x + b * a.x_batch + c + t * a.x_time);
        next[k].crossed = reset.at(t);
      }
    __syncwarp();
  };
  const auto step = [&](Index s, int k, int place, const Loads &ahead, const Board &at) {
    const Index t = s;
    (void)t, (void)k, (void)place, (void)ahead, (void)at;
    // read
    const V step_x = ahead.step_x;
    const V x = ahead.x;
    // compute
    const V step_ = step_x + step_bias;
    const V d = lr_softplus(step_);
    V sum = 0;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const V B_x = at.B_x[k][n];
      const V exp_A = exp_A_all[n];
      const V h_prev = h_prev_all[n];
      const V C_x = at.C_x[k][n];
      const V B_bias = B_bias_all[n];
      const V C_bias = C_bias_all[n];
      const V B = B_x + B_bias;
      const V h = lr_exp(-d*exp_A)*h_prev + B*d*x;
      const V C = C_x + C_bias;
      sum += C*h;
      h_prev_all[n] = h;
    }
    const V y = sum + x*D;
    // write
    if (there) put(a.y + b * a.y_batch + t * a.y_time + c, y);
  };

  for (Index s0 = 0; s0 < a.T; s0 += 8) {
    const int all = a.T - s0 < 8 ? a.T - s0 : 8;
    read(s0, all, ahead, board[warp]);
    for (int k = 0; k < all; ++k) {
      if ((s0 + k) % 32 == 0 && there) {  // a border: what the backward pass starts from
#pragma unroll
        for (int n = 0; n < 4; ++n) put(a.h_borders + b * a.h_borders_batch + (s0 + k) / 32 * a.h_borders_time + n * a.C + c, h_prev_all[n]);
      }
      if (ahead[k].crossed) cross();
      step(s0 + k, k, 0, ahead[k], board[warp]);
    }
    if ((s0 + 8) % 256 == 0) fold_all();
  }
  fold_all();
  // what is held in the end
#pragma unroll
  for (int n = 0; n < 4; ++n)
    if (there) put(a.h_final + b * 4 * a.C + (0 + n) * a.C + c, h_prev_all[n]);
}

}  // namespace s6_digest_

namespace s6_backward_digest_ {

struct Args {
  const real *x_maps_1;  // (B, T, C)
  Index x_maps_1_batch, x_maps_1_time;
  const real *x;  // (B, T, C)
  Index x_batch, x_time;
  const real *y_grad;  // (B, T, C)
  Index y_grad_batch, y_grad_time;
  const real *x_maps_2;  // (B, T, 8)
  Index x_maps_2_batch, x_maps_2_time;
  const real *h_borders;  // (B, T/32, 4*C)
  Index h_borders_batch, h_borders_time;
  const real *step_bias;  // (C)
  const real *B_bias;  // (4)
  const real *A;  // (4*C)
  const real *C_bias;  // (4)
  const real *D;  // (C)
  const real *h_final_grad;  // (B, 1, 4*C), or none
  Index h_final_grad_batch, h_final_grad_depth;
  const real *h_edge;  // (B, 1, 4*C), or none
  Index h_edge_batch, h_edge_depth;
  real *d_x_maps_1;  // (B, T, C)
  Index d_x_maps_1_batch, d_x_maps_1_time;
  real *d_x;  // (B, T, C)
  Index d_x_batch, d_x_time;
  real *d_x_maps_2;  // (parts, B, T, 8), to be added up over parts of the channels
  real *d_step_bias;  // (B, C), to be added up over B
  real *d_B_bias;  // (parts, B, 4), to be added up over parts of the channels and B
  real *d_A;  // (B, 4*C), to be added up over B
  real *d_C_bias;  // (parts, B, 4), to be added up over parts of the channels and B
  real *d_D;  // (B, C), to be added up over B
  real *d_h_start;  // (B, 1, 4*C)
  real *d_h_edge;  // (B, 1, 4*C)
  const unsigned char *reset;  // (B, T), or none
  Index reset_batch, reset_time;
  Index B, T, C;
};

// What a step reads: one number a channel, and what the channels of a warp share for 8 steps.
struct Loads {
  real step_x;
  real x;
  real y_grad;
  unsigned char crossed;
};
struct Board {
  real B_x[8][4];
  real C_x[8][4];
};

namespace Again {

// What a step that is computed again reads: one number a channel, and what the channels of a warp share for 8 steps.
struct Loads {
  real step_x;
  real x;
  unsigned char crossed;
};
struct Board {
  real B_x[8][4];
};
}  // namespace Again

// One thread a channel: warps of 32 channels of one batch element, in blocks of 128; that two fit leaves a thread 255
// registers.
extern "C" __global__ void __launch_bounds__(128, 2) s6_backward_digest(const Args a) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Index rows = (a.C + 31) / 32, place = (Index)blockIdx.x * 4 + warp;
  if (place >= a.B * rows) return;
  const Index b = place / rows, row = place % rows;
  const bool there = row * 32 + lane < a.C;  // a thread without a channel follows the last one, and leaves nothing
  const Index c = there ? row * 32 + lane : a.C - 1;
  const Boundaries reset = {a.reset ? a.reset + b * a.reset_batch : 0, a.reset_time, a.T};
  const Window zeros = {0, 0, 0.0f};
  const Window h_final_grad_beyond =
      window(a.h_final_grad, b * a.h_final_grad_batch + c, a.h_final_grad_depth, 0.0f);
  const Window h_edge_beyond =
      window(a.h_edge, b * a.h_edge_batch + c, a.h_edge_depth, 0.0f);
  // learned numbers, and what follows from them alone
  const V step_bias = get(a.step_bias + c);
  __shared__ real B_bias_row[4][4];
  real *const B_bias_all = B_bias_row[warp];
  for (int n = lane; n < 4; n += 32) B_bias_all[n] = get(a.B_bias + n);
  __shared__ real C_bias_row[4][4];
  real *const C_bias_all = C_bias_row[warp];
  for (int n = lane; n < 4; n += 32) C_bias_all[n] = get(a.C_bias + n);
  const V D = get(a.D + c);
  V exp_of_3_all[4];
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const V A = get(a.A + n * a.C + c);
    const V exp_of_3 = lr_exp(A);
    exp_of_3_all[n] = exp_of_3;
  }
  V d_step_bias_part = 0, d_step_bias_total = 0;
  V d_A_part[4] = {}, d_A_total[4] = {};
  V d_D_part = 0, d_D_total = 0;
  V d_B_bias_part[1] = {}, d_B_bias_total[1] = {};
  V d_C_bias_part[1] = {}, d_C_bias_total[1] = {};
  const auto fold_all = [&] {  // short partial sums lose fewer digits
    fold(d_step_bias_total, d_step_bias_part);
#pragma unroll
    for (int n = 0; n < 4; ++n) fold(d_A_total[n], d_A_part[n]);
    fold(d_D_total, d_D_part);
#pragma unroll
    for (int i = 0; i < 1; ++i) fold(d_B_bias_total[i], d_B_bias_part[i]);
#pragma unroll
    for (int i = 0; i < 1; ++i) fold(d_C_bias_total[i], d_C_bias_part[i]);
  };

  __shared__ Board board[4];
  Loads ahead[8];
  // States that are computed again, a segment at a time: what each step has before it, in a thread's own memory.
  V h_before__kept[32][4];
  __shared__ Again::Board again_board[4];
  Again::Loads again_ahead[8];
  V h_prev_all[4];
#pragma unroll
  for (int n = 0; n < 4; ++n)
    h_prev_all[n] = offset(h_edge_beyond, n * a.C).at(0);
  const auto again_cross = [&] {  // a boundary: the registers are emptied and refilled from the edges
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      h_prev_all[n] = offset(h_edge_beyond, n * a.C).at(0);
    }
  };
  const auto again_read = [&](Index s0, int all, Again::Loads *next, Again::Board &at) {
    __syncwarp();  // what was staged before has been used
    for (int i = lane; i < all * 4; i += 32) {
      const int k = i / 4, n = i % 4;
      const Index s = s0 + k, t = s;
      at.B_x[k][n] = get(a.x_maps_2 + b * a.x_maps_2_batch + n + t * a.x_maps_2_time);
    }
#pragma unroll
    for (int k = 0; k < 8; ++k)
      if (k < all) {
        const Index s = s0 + k, t = s;
        (void)t;
        next[k].step_x = get(a.x_maps_1 + b * a.x_maps_1_batch + c + t * a.x_maps_1_time);
        next[k].x = get(a.x + b * a.x_batch + c + t * a.x_time);
        next[k].crossed = reset.at(t);
      }
    __syncwarp();
  };
  const auto again_step = [&](Index s, int k, int place, const Again::Loads &ahead, const Again::Board &at) {
    const Index t = s;
    (void)t, (void)k, (void)place, (void)ahead, (void)at;
    // read
    const V step_x = ahead.step_x;
    const V x = ahead.x;
    // compute
    const V step_ = step_x + step_bias;
    const V d = lr_softplus(step_);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const V B_x = at.B_x[k][n];
      const V exp_of_3 = exp_of_3_all[n];
      const V h_prev = h_prev_all[n];
      const V B_bias = B_bias_all[n];
      const V B = B_x + B_bias;
      const V exp_of_2 = -d*exp_of_3;
      const V exp_exp_of_2 = lr_exp(exp_of_2);
      const V h = exp_exp_of_2*h_prev + B*d*x;
      h_prev_all[n] = h;
    }
  };

  // carry: what is held before the first step
  V back_h_next_all[4], back_h_next_crossing[4];
#pragma unroll
  for (int n = 0; n < 4; ++n)
    back_h_next_all[n] = offset(h_final_grad_beyond, n * a.C).at(0), back_h_next_crossing[n] = 0;
  const auto cross = [&] {  // a boundary: the registers are emptied and refilled from the edges
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      back_h_next_crossing[n] += back_h_next_all[n];
      back_h_next_all[n] = offset(zeros, n * a.C).at(0);
    }
  };
  const auto read = [&](Index s0, int all, Loads *next, Board &at) {
    __syncwarp();  // what was staged before has been used
    for (int i = lane; i < all * 4; i += 32) {
      const int k = i / 4, n = i % 4;
      const Index s = s0 + k, t = a.T - 1 - s;
      at.B_x[k][n] = get(a.x_maps_2 + b * a.x_maps_2_batch + n + t * a.x_maps_2_time);
      at.C_x[k][n] = get(a.x_maps_2 + b * a.x_maps_2_batch + 4 + n + t * a.x_maps_2_time);
    }
#pragma unroll
    for (int k = 0; k < 8; ++k)
      if (k < all) {
        const Index s = s0 + k, t = a.T - 1 - s;
        (void)t;
        next[k].step_x = get(a.x_maps_1 + b * a.x_maps_1_batch + c + t * a.x_maps_1_time);
        next[k].x = get(a.x + b * a.x_batch + c + t * a.x_time);
        next[k].y_grad = get(a.y_grad + b * a.y_grad_batch + c + t * a.y_grad_time);
        next[k].crossed = reset.at(t + 1);
      }
    __syncwarp();
  };
  const auto step = [&](Index s, int k, int place, const Loads &ahead, const Board &at) {
    const Index t = a.T - 1 - s;
    (void)t, (void)k, (void)place, (void)ahead, (void)at;
    // read
    const V step_x = ahead.step_x;
    const V x = ahead.x;
    const V y_grad = ahead.y_grad;
    // compute
    V d_B_row[4];
    V d_C_row[4];
    const V step_ = step_x + step_bias;
    const V d = lr_softplus(step_);
    const V v = d*x;
    const V d_D_t = x*y_grad;
    V sum = 0;
    V sum_2 = 0;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const V B_x = at.B_x[k][n];
      const V exp_of_3 = exp_of_3_all[n];
      const V h_before_ = h_before__kept[place][n];
      const V C_x = at.C_x[k][n];
      const V back_h_next = back_h_next_all[n];
      const V B_bias = B_bias_all[n];
      const V C_bias = C_bias_all[n];
      const V B = B_x + B_bias;
      const V exp_of_2 = -d*exp_of_3;
      const V exp_exp_of_2 = lr_exp(exp_of_2);
      const V h_again_ = B*v + exp_exp_of_2*h_before_;
      const V C = C_x + C_bias;
      const V d_sum_of = y_grad;
      const V d_C = d_sum_of*h_again_;
      const V d_h_direct = C*d_sum_of;
      const V back_h = exp_exp_of_2*back_h_next + d_h_direct*exp_exp_of_2;
      const V d_h = back_h_next + d_h_direct;
      const V d_exp_exp_of_2 = d_h*h_before_;
      const V d_exp_of_2 = d_exp_exp_of_2*exp_exp_of_2;
      const V d_exp_of = -d_exp_of_2*d;
      const V d_B = d_h*v;
      const V v_2 = B*d_h;
      sum += v_2*x - d_exp_of_2*exp_of_3;
      sum_2 += d*v_2;
      const V d_A_t = d_exp_of*exp_of_3;
      back_h_next_all[n] = back_h;
      d_A_part[n] += d_A_t;
      d_B_row[n] = there ? d_B : splat(0);
      d_C_row[n] = there ? d_C : splat(0);
    }
    const V d_d = sum;
    const V d_step = d_d*lr_sigmoid(step_);
    const V d_x_maps_1 = d_step;
    const V d_x = sum_2 + y_grad*D;
    const V d_step_bias_t = d_step;
    // write
    if (there) put(a.d_x_maps_1 + b * a.d_x_maps_1_batch + t * a.d_x_maps_1_time + c, d_x_maps_1);
    if (there) put(a.d_x + b * a.d_x_batch + t * a.d_x_time + c, d_x);
    d_step_bias_part += d_step_bias_t;
    d_D_part += d_D_t;
    V d_B_upto[1];
    over_lanes(d_B_row, d_B_upto, lane);
#pragma unroll
    for (int i = 0; i < 1; ++i)
      if (i * 32 + lane < 4) {
        put(a.d_x_maps_2 + ((row * a.B + b) * a.T + t) * 8 + i * 32 + lane, d_B_upto[i]);
        d_B_bias_part[i] += d_B_upto[i];
      }
    V d_C_upto[1];
    over_lanes(d_C_row, d_C_upto, lane);
#pragma unroll
    for (int i = 0; i < 1; ++i)
      if (i * 32 + lane < 4) {
        put(a.d_x_maps_2 + ((row * a.B + b) * a.T + t) * 8 + 4 + i * 32 + lane, d_C_upto[i]);
        d_C_bias_part[i] += d_C_upto[i];
      }
  };

  for (Index cut = (a.T - 1) / 32; cut >= 0; --cut) {
    const Index first = cut * 32;
    const int whole = a.T - first < 32 ? a.T - first : 32;
#pragma unroll
    for (int n = 0; n < 4; ++n) h_prev_all[n] = get(a.h_borders + b * a.h_borders_batch + cut * a.h_borders_time + n * a.C + c);
    for (int s0 = 0; s0 < whole; s0 += 8) {
      const int all = whole - s0 < 8 ? whole - s0 : 8;
      again_read(first + s0, all, again_ahead, again_board[warp]);
      for (int k = 0; k < all; ++k) {
        if (again_ahead[k].crossed) again_cross();
#pragma unroll
        for (int n = 0; n < 4; ++n) h_before__kept[s0 + k][n] = h_prev_all[n];
        if (s0 + k + 1 < whole) again_step(first + s0 + k, k, 0, again_ahead[k], again_board[warp]);
      }
    }
    const Index last = a.T - first - whole;  // the segment's first step in the order of this kernel
    for (int s0 = 0; s0 < whole; s0 += 8) {
      const int all = whole - s0 < 8 ? whole - s0 : 8;
      read(last + s0, all, ahead, board[warp]);
      for (int k = 0; k < all; ++k) {
        if (ahead[k].crossed) cross();
        step(last + s0 + k, k, whole - 1 - s0 - k, ahead[k], board[warp]);
      }
    }
    fold_all();
  }
  if (a.T && reset.at(0)) cross();
  fold_all();
  // what is held in the end
#pragma unroll
  for (int n = 0; n < 4; ++n)
    if (there) put(a.d_h_start + b * 4 * a.C + (0 + n) * a.C + c, back_h_next_all[n]);
#pragma unroll
  for (int n = 0; n < 4; ++n)
    if (there) put(a.d_h_edge + b * 4 * a.C + (0 + n) * a.C + c, back_h_next_crossing[n]);
  if (there) put(a.d_step_bias + b * a.C + c, d_step_bias_total);
#pragma unroll
  for (int n = 0; n < 4; ++n)
    if (there) put(a.d_A + (b * 4 + n) * a.C + c, d_A_total[n]);
  if (there) put(a.d_D + b * a.C + c, d_D_total);
#pragma unroll
  for (int i = 0; i < 1; ++i)
    if (i * 32 + lane < 4) put(a.d_B_bias + (row * a.B + b) * 4 + i * 32 + lane, d_B_bias_total[i]);
#pragma unroll
  for (int i = 0; i < 1; ++i)
    if (i * 32 + lane < 4) put(a.d_C_bias + (row * a.B + b) * 4 + i * 32 + lane, d_C_bias_total[i]);
}

}  // namespace s6_backward_digest_
