// What kernels over an axis share: windows at one of N numbers, and sums over the channels of a warp.

// The values of number n beyond a segment, which lie `by` behind those of number 0.
LR_INLINE Window offset(const Window &w, Index by) { return {w.nearest ? w.nearest + by : 0, w.depth, w.constant}; }
#ifdef LR_BFLOAT
LR_INLINE StoredWindow offset(const StoredWindow &w, Index by) { return {offset(w.given, by)}; }
#endif

// The sums over a warp's lanes of `from[0 … N-1]`, in an order that depends on nothing: lane l gets that of number 32 * j + l in
// to[j]. At each step a lane hands half of its sums to another, and adds what it gets to the other half: as many shuffles as
// numbers, not five times as many.
template <int N> LR_INLINE void over_lanes(const V (&from)[N], V (&to)[(N + 31) / 32], unsigned lane) {
  constexpr int WIDTH = N > 16 ? 32 : N > 8 ? 16 : N > 4 ? 8 : N > 2 ? 4 : N;
#pragma unroll
  for (int j = 0; j < (N + 31) / 32; ++j) {
    V sums[WIDTH];
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) sums[i] = 32 * j + i < N ? from[32 * j + i] : 0;
#pragma unroll
    for (int half = WIDTH / 2; half > 0; half /= 2) {
      const bool upper = lane & half;
#pragma unroll
      for (int i = 0; i < half; ++i) {
        const V given = upper ? sums[i] : sums[i + half], mine = upper ? sums[i + half] : sums[i];
        sums[i] = mine + __shfl_xor_sync(0xffffffffu, given, half);
      }
    }
#pragma unroll
    for (int far = WIDTH; far < 32; far *= 2) sums[0] += __shfl_xor_sync(0xffffffffu, sums[0], far);
    to[j] = sums[0];
  }
}
