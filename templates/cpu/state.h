
LR_INLINE V lr_fma(V a, V b, V c) { return a * b + c; }  // which the compiler fuses where the processor can

// The state of a recurrence: what the next step reads of the past.
template <int N> struct State {
  V of[N];
};
