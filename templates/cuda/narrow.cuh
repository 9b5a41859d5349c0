
// Numbers of 16 bits in memory, bfloat16 where LR_BFLOAT is 1, else float16; all arithmetic is float's.
//
// Reading is exact. Writing rounds to the nearest number, to the even one of two, denormal ones too; what is too large becomes
// inf, and a nan stays one, as in torch.

struct Stored {
  unsigned short bits;
};

#if LR_BFLOAT
LR_INLINE real widened(Stored x) { return __uint_as_float((unsigned)x.bits << 16); }
LR_INLINE Stored narrowed(real v) {
  const unsigned u = __float_as_uint(v);
  return {(unsigned short)(v != v ? 0x7fc0 : (u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
#elif defined(LR_EMULATED)
LR_INLINE real widened(Stored x) { return emu_half2float(x.bits); }
LR_INLINE Stored narrowed(real v) { return {emu_float2half(v)}; }
#else
LR_INLINE real widened(Stored x) {
  real v;
  asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(x.bits));
  return v;
}
LR_INLINE Stored narrowed(real v) {
  Stored x;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x.bits) : "f"(v));
  return x;
}
#endif

LR_INLINE real get(const Stored *p) { return widened({__ldg(&p->bits)}); }
LR_INLINE void put(Stored *p, real v) { p->bits = narrowed(v).bits; }

// Beyond its segment a sequence has as many bits as in it.
struct StoredWindow {
  Window given;
  LR_INLINE real at(Index k) const { return widened(narrowed(given.at(k))); }
};
