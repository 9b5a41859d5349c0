// Algorithm 1 of Martin & Cundy (ICLR 2018, arXiv 1709.04057) for h[t] = a[t] h[t-1] + b[t], in three launches, as its authors
// run it on a GPU. A processor is a warp: it has consecutive steps, and goes through them for 32 channels at a time, a lane
// each. a and b are read twice: what the steps of a warp do to a state is added up first, and when the state before
// them is known, they are walked again.
//
// Each launch is a namespace with its Args, which is how a text is called here.

typedef long long Index;
enum { WARPS = 32, LANES = 32 };

struct Arrays {
  const float *a, *b;                // (T, C)
  float *product, *sum;              // (blocks, WARPS, C): the steps of a warp make product * h + sum of h
  float *block_product, *block_sum;  // (blocks, C): the same of a block
  float *start;                      // (blocks, C): the state before the steps of a block
  float *before;                     // (blocks, WARPS, C): the state before those of a warp
  float *h;                          // (T, C)
  Index T, C, blocks;
};

struct Slice {
  Index from, to;
  __device__ Slice part(Index k, Index parts) const {
    const Index each = (to - from + parts - 1) / parts, first = min(from + k * each, to);
    return {first, min(first + each, to)};
  }
};
static __device__ Slice steps_of_warp(const Arrays &a) {
  return Slice{0, a.T}.part(blockIdx.x, a.blocks).part(threadIdx.x / LANES, WARPS);
}
static __device__ Index row_of_warp() { return (Index)blockIdx.x * WARPS + threadIdx.x / LANES; }

// 1. What the steps of each warp do, and then of each block, from one warp to the next.
namespace paper_sums_ {
typedef Arrays Args;
extern "C" __global__ void __launch_bounds__(1024) paper_sums(const Args a) {
  const Slice steps = steps_of_warp(a);
  for (Index c = threadIdx.x % LANES; c < a.C; c += LANES) {
    float product = 1, sum = 0;
    for (Index t = steps.from; t < steps.to; ++t) {
      const float x = a.a[t * a.C + c];
      product = x * product, sum = fmaf(x, sum, a.b[t * a.C + c]);
    }
    a.product[row_of_warp() * a.C + c] = product, a.sum[row_of_warp() * a.C + c] = sum;
  }
  __syncthreads();
  for (Index c = threadIdx.x; c < a.C; c += WARPS * LANES) {
    float product = 1, sum = 0;
    for (Index w = blockIdx.x * WARPS; w < (blockIdx.x + 1) * WARPS; ++w) {
      const float x = a.product[w * a.C + c];
      product = x * product, sum = fmaf(x, sum, a.sum[w * a.C + c]);
    }
    a.block_product[blockIdx.x * a.C + c] = product, a.block_sum[blockIdx.x * a.C + c] = sum;
  }
}
}

// 2. One block: the state before each block of the other launches, from one to the next.
namespace paper_blocks_ {
typedef Arrays Args;
extern "C" __global__ void __launch_bounds__(1024) paper_blocks(const Args a) {
  for (Index c = threadIdx.x; c < a.C; c += WARPS * LANES) {
    float h = 0;
    for (Index k = 0; k < a.blocks; ++k) {
      a.start[k * a.C + c] = h;
      h = fmaf(a.block_product[k * a.C + c], h, a.block_sum[k * a.C + c]);
    }
  }
}
}

// 3. The state before each warp, and then every state.
namespace paper_states_ {
typedef Arrays Args;
extern "C" __global__ void __launch_bounds__(1024) paper_states(const Args a) {
  for (Index c = threadIdx.x; c < a.C; c += WARPS * LANES) {
    float h = a.start[blockIdx.x * a.C + c];
    for (Index w = blockIdx.x * WARPS; w < (blockIdx.x + 1) * WARPS; ++w) {
      a.before[w * a.C + c] = h;
      h = fmaf(a.product[w * a.C + c], h, a.sum[w * a.C + c]);
    }
  }
  __syncthreads();
  const Slice steps = steps_of_warp(a);
  for (Index c = threadIdx.x % LANES; c < a.C; c += LANES) {
    float h = a.before[row_of_warp() * a.C + c];
    for (Index t = steps.from; t < steps.to; ++t) {
      h = fmaf(a.a[t * a.C + c], h, a.b[t * a.C + c]);
      a.h[t * a.C + c] = h;
    }
  }
}
}
