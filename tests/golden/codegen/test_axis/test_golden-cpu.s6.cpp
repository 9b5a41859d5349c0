// Written by lrdsl: kernels for the CPU. Threads take (batch, block of channels); each walks time.
//
// s6, float32: rows, from the left.
// Rows: 64 channels at a time, whose 4 numbers each stay in a near cache.
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
// s6_backward, float32: rows, from the right.
// Rows: 64 channels at a time, whose 4 numbers each stay in a near cache.
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
// (templates/cpu/vmath.h)

// (templates/cpu/common.h)
// (templates/cpu/axis.h)

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

// One step: where its rows are.
struct Step {
  Row<real> step_x;
  Row<real> B_x;
  Row<real> x;
  Row<real> C_x;
  real *h_kept;
  decltype(Args::step_bias) step_bias;
  decltype(Args::B_bias) B_bias;
  decltype(Args::A) A;
  decltype(Args::C_bias) C_bias;
  decltype(Args::D) D;
  real *exp_A;
  real *to_y;
};

// The channels [c, c + LANES) of one step, or those that are left.
template <bool WHOLE>
static inline __attribute__((always_inline)) void lanes(const Step &at, long c, long live, long width, long channels) {
  (void)c, (void)live, (void)width, (void)channels;
  // read
  const V step_x = get<WHOLE>(at.step_x.at + c, live);
  const V x = get<WHOLE>(at.x.at + c, live);
  const V step_bias = get<WHOLE>(at.step_bias + c, live);
  const V D = get<WHOLE>(at.D + c, live);
  // compute
  const V step_ = step_x + step_bias;
  const V d = lr_softplus(step_);
  V sum = splat(0);
  for (long n = 0; n < 4; ++n) {
    const V B_x = splat(at.B_x.at[n * at.B_x.n]);
    const V exp_A = get<WHOLE>(at.exp_A + n * width + c, live);
    const V h_prev = get<WHOLE>(at.h_kept + n * width + c, live);
    const V C_x = splat(at.C_x.at[n * at.C_x.n]);
    const V B_bias = splat(at.B_bias[n]);
    const V C_bias = splat(at.C_bias[n]);
    const V B = B_x + B_bias;
    const V h = lr_exp(-d*exp_A)*h_prev + B*d*x;
    const V C = C_x + C_bias;
    sum += C*h;
    put<WHOLE>(at.h_kept + n * width + c, h, live);
  }
  const V y = sum + x*D;
  // write
  put<WHOLE>(at.to_y + c, y, live);
}

// What does not change with time.
template <bool WHOLE>
static inline __attribute__((always_inline)) void constant_lanes(const Step &at, long c, long live, long width, long channels) {
  (void)c, (void)live, (void)width, (void)channels;
  for (long n = 0; n < 4; ++n) {
    const V A = get<WHOLE>(at.A + n * channels + c, live);
    const V exp_A = lr_exp(A);
    put<WHOLE>(at.exp_A + n * width + c, exp_A, live);
  }
}

// All steps of batch element b, channels [lo, lo + width).
static void sweep(const Args &a, long b, long lo, long width) {
  Scratch scratch(width, 10);
  const long row = lo / 64;
  (void)row;
  const Boundaries reset = {a.reset ? a.reset + b * a.reset_batch : 0, a.reset_time, a.T};
  const Edges<real> h_edge_beyond = edges(a.h_edge, b * a.h_edge_batch + lo, a.h_edge_depth, a.C, scratch, 0.0f);
  const Edges<real> h_start_beyond = edges(a.h_start, b * a.h_start_batch + lo, a.h_start_depth, a.C, scratch, 0.0f);
  Step at;
  at.step_bias = a.step_bias + lo;
  at.B_bias = a.B_bias;
  at.A = a.A + lo;
  at.C_bias = a.C_bias;
  at.D = a.D + lo;
  at.exp_A = scratch.rows(4);
  for (long c = 0; c < width; c += LANES)
    if (c + LANES <= width) constant_lanes<true>(at, c, width - c, width, a.C);
    else constant_lanes<false>(at, c, width - c, width, a.C);
  // carry: what is held before the first step
  at.h_kept = scratch.rows(4);
  refill(at.h_kept, 1, 4, h_start_beyond, width);
  const auto cross = [&] {  // a boundary: the registers are emptied and refilled from the edges
    refill(at.h_kept, 1, 4, h_edge_beyond, width);
  };
  const auto fold_all = [&] {  // short partial sums lose fewer digits
  };
  const auto step = [&](long s) {
    const long t = s;
    (void)t;
    if (reset.at(t)) cross();
    at.step_x = Row<real>{a.x_maps_1 + b * a.x_maps_1_batch + lo + t * a.x_maps_1_time, 0};
    at.B_x = Row<real>{a.x_maps_2 + b * a.x_maps_2_batch + t * a.x_maps_2_time, 1};
    at.x = Row<real>{a.x + b * a.x_batch + lo + t * a.x_time, 0};
    at.C_x = Row<real>{a.x_maps_2 + b * a.x_maps_2_batch + 4 + t * a.x_maps_2_time, 1};
    at.to_y = a.y + b * a.y_batch + t * a.y_time + lo;
    for (long c = 0; c < width; c += LANES)
      if (c + LANES <= width) lanes<true>(at, c, width - c, width, a.C);
      else lanes<false>(at, c, width - c, width, a.C);
  };
  for (long s = 0; s < a.T; ++s) {
    if (s % 32 == 0) copy(a.h_borders + b * a.h_borders_batch + s / 32 * a.h_borders_time + lo, a.C, at.h_kept, 4, width);
    step(s);
    if ((s + 1) % 256 == 0) fold_all();
  }
  fold_all();
  // what is held in the end
  copy(a.h_final + b * 4 * a.C + lo, a.C, at.h_kept, 4, width);
}

}  // namespace s6_digest_

extern "C" void s6_digest(const s6_digest_::Args *args, long threads) {
  share_blocks(args, threads, 64, s6_digest_::sweep);  // each block leaves sums of its own
}

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

// One step: where its rows are.
struct Step {
  Row<real> step_x;
  Row<real> B_x;
  Row<real> x;
  Row<real> C_x;
  Row<real> y_grad;
  real *back_h_kept;
  decltype(Args::step_bias) step_bias;
  decltype(Args::B_bias) B_bias;
  decltype(Args::A) A;
  decltype(Args::C_bias) C_bias;
  decltype(Args::D) D;
  real *exp_of_3;
  const real *h_before_;
  real *to_d_x_maps_1;
  real *to_d_x;
  real *d_step_bias_part;
  real *d_A_part;
  real *d_D_part;
  V *d_B_row;
  V *d_C_row;
};

struct Again {
  Row<real> step_x;
  Row<real> B_x;
  Row<real> x;
  real *h_kept;
  decltype(Args::step_bias) step_bias;
  decltype(Args::B_bias) B_bias;
  decltype(Args::A) A;
  decltype(Args::C_bias) C_bias;
  decltype(Args::D) D;
  real *exp_of_3;
};

// The channels [c, c + LANES) of one step, or those that are left; of a step that is computed again.
template <bool WHOLE>
static inline __attribute__((always_inline)) void again_lanes(const Again &at, long c, long live, long width, long channels) {
  (void)c, (void)live, (void)width, (void)channels;
  // read
  const V step_x = get<WHOLE>(at.step_x.at + c, live);
  const V x = get<WHOLE>(at.x.at + c, live);
  const V step_bias = get<WHOLE>(at.step_bias + c, live);
  // compute
  const V step_ = step_x + step_bias;
  const V d = lr_softplus(step_);
  for (long n = 0; n < 4; ++n) {
    const V B_x = splat(at.B_x.at[n * at.B_x.n]);
    const V exp_of_3 = get<WHOLE>(at.exp_of_3 + n * width + c, live);
    const V h_prev = get<WHOLE>(at.h_kept + n * width + c, live);
    const V B_bias = splat(at.B_bias[n]);
    const V B = B_x + B_bias;
    const V exp_of_2 = -d*exp_of_3;
    const V exp_exp_of_2 = lr_exp(exp_of_2);
    const V h = exp_exp_of_2*h_prev + B*d*x;
    put<WHOLE>(at.h_kept + n * width + c, h, live);
  }
}

// The channels [c, c + LANES) of one step, or those that are left.
template <bool WHOLE>
static inline __attribute__((always_inline)) void lanes(const Step &at, long c, long live, long width, long channels) {
  (void)c, (void)live, (void)width, (void)channels;
  // read
  const V step_x = get<WHOLE>(at.step_x.at + c, live);
  const V x = get<WHOLE>(at.x.at + c, live);
  const V y_grad = get<WHOLE>(at.y_grad.at + c, live);
  const V step_bias = get<WHOLE>(at.step_bias + c, live);
  const V D = get<WHOLE>(at.D + c, live);
  // compute
  const V step_ = step_x + step_bias;
  const V d = lr_softplus(step_);
  const V v = d*x;
  const V d_D_t = x*y_grad;
  V sum = splat(0);
  V sum_2 = splat(0);
  for (long n = 0; n < 4; ++n) {
    const V B_x = splat(at.B_x.at[n * at.B_x.n]);
    const V exp_of_3 = get<WHOLE>(at.exp_of_3 + n * width + c, live);
    const V h_before_ = get<WHOLE>(at.h_before_ + n * width + c, live);
    const V C_x = splat(at.C_x.at[n * at.C_x.n]);
    const V back_h_next = get<WHOLE>(at.back_h_kept + n * width + c, live);
    const V B_bias = splat(at.B_bias[n]);
    const V C_bias = splat(at.C_bias[n]);
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
    put<WHOLE>(at.back_h_kept + n * width + c, back_h, live);
    put<WHOLE>(at.d_A_part + n * width + c, get<WHOLE>(at.d_A_part + n * width + c, live) + d_A_t, live);
    at.d_B_row[n] += only<WHOLE>(d_B, live);
    at.d_C_row[n] += only<WHOLE>(d_C, live);
  }
  const V d_d = sum;
  const V d_step = d_d*lr_sigmoid(step_);
  const V d_x_maps_1 = d_step;
  const V d_x = sum_2 + y_grad*D;
  const V d_step_bias_t = d_step;
  // write
  put<WHOLE>(at.to_d_x_maps_1 + c, d_x_maps_1, live);
  put<WHOLE>(at.to_d_x + c, d_x, live);
  put<WHOLE>(at.d_step_bias_part + c, get<WHOLE>(at.d_step_bias_part + c, live) + d_step_bias_t, live);
  put<WHOLE>(at.d_D_part + c, get<WHOLE>(at.d_D_part + c, live) + d_D_t, live);
}

// What does not change with time.
template <bool WHOLE>
static inline __attribute__((always_inline)) void constant_lanes(const Step &at, long c, long live, long width, long channels) {
  (void)c, (void)live, (void)width, (void)channels;
  for (long n = 0; n < 4; ++n) {
    const V A = get<WHOLE>(at.A + n * channels + c, live);
    const V exp_of_3 = lr_exp(A);
    put<WHOLE>(at.exp_of_3 + n * width + c, exp_of_3, live);
  }
}

// All steps of batch element b, channels [lo, lo + width).
static void sweep(const Args &a, long b, long lo, long width) {
  Scratch scratch(width, 155);
  const long row = lo / 64;
  (void)row;
  const Boundaries reset = {a.reset ? a.reset + b * a.reset_batch : 0, a.reset_time, a.T};
  const Edges<real> zeros = edges(0, 0, 0, 0, scratch, 0.0f);
  const Edges<real> h_final_grad_beyond = edges(a.h_final_grad, b * a.h_final_grad_batch + lo, a.h_final_grad_depth, a.C, scratch, 0.0f);
  const Edges<real> h_edge_beyond = edges(a.h_edge, b * a.h_edge_batch + lo, a.h_edge_depth, a.C, scratch, 0.0f);
  Step at;
  at.step_bias = a.step_bias + lo;
  at.B_bias = a.B_bias;
  at.A = a.A + lo;
  at.C_bias = a.C_bias;
  at.D = a.D + lo;
  at.exp_of_3 = scratch.rows(4);
  for (long c = 0; c < width; c += LANES)
    if (c + LANES <= width) constant_lanes<true>(at, c, width - c, width, a.C);
    else constant_lanes<false>(at, c, width - c, width, a.C);
  // carry: what is held before the first step
  at.back_h_kept = scratch.rows(4);
  refill(at.back_h_kept, 1, 4, h_final_grad_beyond, width);
  real *const back_h_kept_crossing = a.d_h_edge + b * 4 * a.C + lo;
  clear(back_h_kept_crossing, 4, a.C, width);
  at.d_step_bias_part = scratch.rows(1);
  real *const d_step_bias_total = scratch.rows(1);
  clear(at.d_step_bias_part, 1, width, width), clear(d_step_bias_total, 1, width, width);
  at.d_A_part = scratch.rows(4);
  real *const d_A_total = scratch.rows(4);
  clear(at.d_A_part, 4, width, width), clear(d_A_total, 4, width, width);
  at.d_D_part = scratch.rows(1);
  real *const d_D_total = scratch.rows(1);
  clear(at.d_D_part, 1, width, width), clear(d_D_total, 1, width, width);
  V d_B_row[4];
  at.d_B_row = d_B_row;
  real d_B_bias_part[4] = {}, d_B_bias_total[4] = {};
  V d_C_row[4];
  at.d_C_row = d_C_row;
  real d_C_bias_part[4] = {}, d_C_bias_total[4] = {};
  const auto cross = [&] {  // a boundary: the registers are emptied and refilled from the edges
    add(back_h_kept_crossing, a.C, at.back_h_kept, 4, width);
    refill(at.back_h_kept, 1, 4, zeros, width);
  };
  const auto fold_all = [&] {  // short partial sums lose fewer digits
    for (long n = 0; n < 1; ++n) fold(d_step_bias_total + n * width, at.d_step_bias_part + n * width, width);
    for (long n = 0; n < 4; ++n) fold(d_A_total + n * width, at.d_A_part + n * width, width);
    for (long n = 0; n < 1; ++n) fold(d_D_total + n * width, at.d_D_part + n * width, width);
    fold(d_B_bias_total, d_B_bias_part, 4);
    fold(d_C_bias_total, d_C_bias_part, 4);
  };
  const auto step = [&](long s) {
    const long t = a.T - 1 - s;
    (void)t;
    if (reset.at(t + 1)) cross();
    at.step_x = Row<real>{a.x_maps_1 + b * a.x_maps_1_batch + lo + t * a.x_maps_1_time, 0};
    at.B_x = Row<real>{a.x_maps_2 + b * a.x_maps_2_batch + t * a.x_maps_2_time, 1};
    at.x = Row<real>{a.x + b * a.x_batch + lo + t * a.x_time, 0};
    at.C_x = Row<real>{a.x_maps_2 + b * a.x_maps_2_batch + 4 + t * a.x_maps_2_time, 1};
    at.y_grad = Row<real>{a.y_grad + b * a.y_grad_batch + lo + t * a.y_grad_time, 0};
    at.to_d_x_maps_1 = a.d_x_maps_1 + b * a.d_x_maps_1_batch + t * a.d_x_maps_1_time + lo;
    at.to_d_x = a.d_x + b * a.d_x_batch + t * a.d_x_time + lo;
    for (long n = 0; n < 4; ++n) d_B_row[n] = splat(0);
    for (long n = 0; n < 4; ++n) d_C_row[n] = splat(0);
    for (long c = 0; c < width; c += LANES)
      if (c + LANES <= width) lanes<true>(at, c, width - c, width, a.C);
      else lanes<false>(at, c, width - c, width, a.C);
    for (long n = 0; n < 4; ++n) {
      const real sum = over_lanes(d_B_row[n]);
      (a.d_x_maps_2 + ((row * a.B + b) * a.T + t) * 8)[n] = sum;
      d_B_bias_part[n] += sum;
    }
    for (long n = 0; n < 4; ++n) {
      const real sum = over_lanes(d_C_row[n]);
      (a.d_x_maps_2 + ((row * a.B + b) * a.T + t) * 8 + 4)[n] = sum;
      d_C_bias_part[n] += sum;
    }
  };
  // States that are computed again, a segment at a time: what each step has before it.
  Again again;
  again.step_bias = at.step_bias;
  again.B_bias = at.B_bias;
  again.A = at.A;
  again.C_bias = at.C_bias;
  again.D = at.D;
  again.exp_of_3 = at.exp_of_3;
  real *const h_before__kept = scratch.rows(128);
  for (long cut = (a.T + 31) / 32 - 1; cut >= 0; --cut) {
    const long first = cut * 32, whole = a.T - first < 32 ? a.T - first : 32;
    for (long place = 0; place < whole; ++place) {
      const long s = first + place, t = s;
      const bool crossed = reset.at(t);
      // The step computes in place: its state goes where the next step's past is.
      again.h_kept = h_before__kept + place * 4 * width;
      if (place == 0) refill(again.h_kept, 1, 4, Edges<real>{a.h_borders + b * a.h_borders_batch + cut * a.h_borders_time + lo, 0, a.C}, width);
      if (crossed) refill(again.h_kept, 1, 4, h_edge_beyond, width);
      if (place + 1 == whole) break;
      again.step_x = Row<real>{a.x_maps_1 + b * a.x_maps_1_batch + lo + t * a.x_maps_1_time, 0};
      again.B_x = Row<real>{a.x_maps_2 + b * a.x_maps_2_batch + t * a.x_maps_2_time, 1};
      again.x = Row<real>{a.x + b * a.x_batch + lo + t * a.x_time, 0};
      copy(again.h_kept + 4 * width, width, again.h_kept, 4, width);
      again.h_kept += 4 * width;
      for (long c = 0; c < width; c += LANES)
        if (c + LANES <= width) again_lanes<true>(again, c, width - c, width, a.C);
        else again_lanes<false>(again, c, width - c, width, a.C);
    }
    for (long place = whole - 1; place >= 0; --place) {
      at.h_before_ = h_before__kept + place * 4 * width;
      step(a.T - 1 - first - place);
    }
    fold_all();
  }
  if (a.T && reset.at(0)) cross();
  fold_all();
  // what is held in the end
  copy(a.d_h_start + b * 4 * a.C + lo, a.C, at.back_h_kept, 4, width);
  copy(a.d_step_bias + b * a.C + lo, a.C, d_step_bias_total, 1, width);
  copy(a.d_A + b * 4 * a.C + lo, a.C, d_A_total, 4, width);
  copy(a.d_D + b * a.C + lo, a.C, d_D_total, 1, width);
  copy(a.d_B_bias + (row * a.B + b) * 4, 0, d_B_bias_total, 1, 4);
  copy(a.d_C_bias + (row * a.B + b) * 4, 0, d_C_bias_total, 1, 4);
}

}  // namespace s6_backward_digest_

extern "C" void s6_backward_digest(const s6_backward_digest_::Args *args, long threads) {
  share_blocks(args, threads, 64, s6_backward_digest_::sweep);  // each block leaves sums of its own
}
