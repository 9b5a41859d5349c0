
// Which the compiler fuses where the processor can. That c is hidden keeps it from finding that c is -(a * b), and the rounding
// error of a product 0.
LR_INLINE V lr_fma(V a, V b, V c) {
#if defined(__x86_64__)
  asm("" : "+v"(c));
#elif defined(__aarch64__)
  asm("" : "+w"(c));
#endif
  return a * b + c;
}

// The state of a recurrence: what the next step reads of the past.
template <int N> struct State {
  V of[N];
};
