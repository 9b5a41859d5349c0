
// Which the compiler fuses where the processor can. It does not fuse a product that it has computed already for another use, so
// that -(a * b) + a * b would be 0, and not the rounding error of the product: a is hidden from it.
LR_INLINE V lr_fma(V a, V b, V c) {
#if defined(__x86_64__)
  asm("" : "+v"(a));
#elif defined(__aarch64__)
  asm("" : "+w"(a));
#endif
  return a * b + c;
}

// The state of a recurrence: what the next step reads of the past.
template <int N> struct State {
  V of[N];
};
