// What a text calls to touch memory, and what its instrumentation announces: `__tsan_read4(p)` before it reads 4 bytes at p.
#include "runtime.h"

#include <type_traits>

static bool is_late(const EmuTensor *t) { return launch->weak && t->role == EMU_SCRATCH; }

static bool on_stack(const void *p) { return size_t((char *)p - running->stack) < STACK; }

// An access by the text itself, which follows when this returns. exact: of a power of two of bytes, aligned to as many.
static void announced(void *at, u32 bytes, bool store, bool exact) {
  char *p = (char *)at;
  maybe_preempt();
  if (exact) check_alignment(p, bytes, store ? "a store" : "a load");
  if (in_shared(p)) return shared_access(p, bytes, store, false);
  if (!store && in_module(p)) return;  // a table of constants
  EmuTensor *t = store ? stored(p, bytes) : loaded(p, bytes);
  (store ? t->stored : t->loaded) += bytes;
  if (!is_late(t)) return;
  if (store) expect_store(p, bytes);
  else arrive_at(p, bytes);
}

// Others run before a load that may wait for them.
static void poll() {
  if (launch->weak && draw_below(4) == 0) arrive_some(draw_below(2) ? running->block : nullptr);
  ++launch->counts.polls;
  give_way(State::polling);
}

#pragma GCC visibility push(default)
#define EMU_ANNOUNCED(name, bytes, store) \
  extern "C" void name(void *p) { \
    if (running && !on_stack(p) && enter(EMU_HERE)) announced(p, bytes, store, true); \
  }
#define EMU_VOLATILE(bytes) \
  extern "C" void __tsan_volatile_read##bytes(void *p) { \
    if (running && !on_stack(p) && enter(EMU_HERE)) poll(), announced(p, bytes, false, true); \
  } \
  EMU_ANNOUNCED(__tsan_volatile_write##bytes, bytes, true)
#define EMU_SIZE(bytes) \
  EMU_ANNOUNCED(__tsan_read##bytes, bytes, false) \
  EMU_ANNOUNCED(__tsan_write##bytes, bytes, true) \
  EMU_ANNOUNCED(__tsan_unaligned_read##bytes, bytes, false) \
  EMU_ANNOUNCED(__tsan_unaligned_write##bytes, bytes, true) \
  EMU_VOLATILE(bytes)
EMU_SIZE(1) EMU_SIZE(2) EMU_SIZE(4) EMU_SIZE(8) EMU_SIZE(16)

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_read_range(void *p, size_t bytes) {
  if (running && !on_stack(p) && enter(EMU_HERE)) announced(p, u32(bytes), false, false);
}
void __tsan_write_range(void *p, size_t bytes) {
  if (running && !on_stack(p) && enter(EMU_HERE)) announced(p, u32(bytes), true, false);
}
}

#pragma GCC visibility pop

static void announce_range(const void *p, size_t bytes, bool store) {
  if (bytes && !on_stack(p)) announced((void *)p, u32(bytes), store, false);
}
extern "C" void *emu_memcpy(void *to, const void *from, unsigned long bytes) {
  if (enter(EMU_HERE)) announce_range(from, bytes, false), announce_range(to, bytes, true);
  return memmove(to, from, bytes);
}
extern "C" void *emu_memset(void *to, int value, unsigned long bytes) {
  if (enter(EMU_HERE)) announce_range(to, bytes, true);
  return memset(to, value, bytes);
}
// What clang makes of a copy of its own.
#pragma GCC visibility push(default)
extern "C" void *__tsan_memcpy(void *, const void *, size_t) __attribute__((alias("emu_memcpy")));
extern "C" void *__tsan_memset(void *, int, size_t) __attribute__((alias("emu_memset")));
#pragma GCC visibility pop

static inline void copy(void *to, const void *from, u32 bytes) {
  switch (bytes) {
    case 4: memcpy(to, from, 4); break;
    case 8: memcpy(to, from, 8); break;
    case 16: memcpy(to, from, 16); break;
    default: memcpy(to, from, bytes);
  }
}

extern "C" EmuWord emu_load(const void *from, unsigned bytes, EmuHow how) {
  EmuWord value = {0, 0};
  if (!enter(EMU_HERE)) return value;
  const char *p = (const char *)from;
  if (how == EMU_RELAXED) poll();
  else maybe_preempt();
  check_alignment(p, bytes, "a load");
  EmuTensor *t = loaded(p, bytes);
  if (how == EMU_READ_ONLY && t->role != EMU_INPUT) fail("a read-only load (__ldg) of %s, which the kernel writes", t->name);
  (how == EMU_RELAXED ? t->message_loaded : t->loaded) += bytes;
  copy(&value, p, bytes);
  if (is_late(t)) see_own(p, (char *)&value, bytes);
  return value;
}

extern "C" void emu_store(void *to, EmuWord value, unsigned bytes, unsigned piece, EmuHow how) {
  if (!enter(EMU_HERE)) return;
  char *p = (char *)to;
  maybe_preempt();
  check_alignment(p, bytes, "a store");
  EmuTensor *t = stored(p, bytes);
  (how == EMU_RELAXED ? t->message_stored : t->stored) += bytes;
  if (is_late(t)) hold_back(p, (const char *)&value, bytes, piece);
  else copy(p, &value, bytes);
}

// ---- atomics: relaxed, of the whole GPU

template <class T> static T combined(EmuAtomic op, T old, T v, T compare) {
  switch (op) {
    case EMU_ADD: return T(old + v);
    case EMU_SUB: return T(old - v);
    case EMU_EXCHANGE: return v;
    case EMU_MIN: return v < old ? v : old;
    case EMU_MAX: return v > old ? v : old;
    case EMU_COMPARE: return old == compare ? v : old;
    default: break;
  }
  if constexpr (std::is_integral<T>::value) {
    switch (op) {
      case EMU_AND: return old & v;
      case EMU_OR: return old | v;
      case EMU_XOR: return old ^ v;
      case EMU_INC: return old >= v ? 0 : old + 1;
      case EMU_DEC: return old == 0 || old > v ? v : old - 1;
      default: break;
    }
  }
  fail("this atomic is not one of its type");
}

template <class T> static u64 apply(EmuAtomic op, char *p, u64 value, u64 compare) {
  T old, v, c;
  memcpy(&old, p, sizeof old), memcpy(&v, &value, sizeof v), memcpy(&c, &compare, sizeof c);
  T result = combined(op, old, v, c);
  if (memcmp(&result, &old, sizeof old)) ++progress;
  memcpy(p, &result, sizeof result);
  u64 bits = 0;
  memcpy(&bits, &old, sizeof old);
  return bits;
}

extern "C" unsigned long long emu_atomic(EmuAtomic op, EmuForm form, void *at, unsigned bytes, unsigned long long value,
                                         unsigned long long compare) {
  if (!enter(EMU_HERE)) return 0;
  char *p = (char *)at;
  poll();
  --launch->counts.polls, ++launch->counts.atomics;
  check_alignment(p, bytes, "an atomic");
  if (in_shared(p)) {
    shared_access(p, bytes, true, true);
  } else {
    u64 before = progress;  // it is what it changes that others may wait for
    EmuTensor *t = stored(p, bytes);
    progress = before;
    if (t->role != EMU_SCRATCH) fail("an atomic on %s; only scratch and shared memory have any", t->name);
    if (launch->weak) arrive_at(p, bytes);
  }
  bool wide = bytes == 8;
  switch (form) {
    case EMU_FLOAT: return wide ? apply<double>(op, p, value, compare) : apply<float>(op, p, value, compare);
    case EMU_SIGNED: return wide ? apply<int64_t>(op, p, value, compare) : apply<int32_t>(op, p, value, compare);
    default: return wide ? apply<u64>(op, p, value, compare) : apply<u32>(op, p, value, compare);
  }
}

// ---- cp.async: nothing arrives before its thread waits for it

extern "C" void emu_copy_async(void *to, const void *from, unsigned long bytes, unsigned long zeros) {
  if (!enter(EMU_HERE)) return;
  maybe_preempt();
  if ((bytes != 4 && bytes != 8 && bytes != 16) || zeros > bytes) fail("cp.async copies 4, 8 or 16 bytes, not %lu", bytes);
  u32 n = u32(bytes), read = u32(bytes - zeros);
  check_alignment((char *)to, n, "the target of a cp.async");
  check_alignment((const char *)from, n, "the source of a cp.async");
  if (!in_shared(to) || !in_shared((char *)to + n - 1)) fail("the target of a cp.async is not in shared memory");
  if (read) {
    EmuTensor *t = loaded((const char *)from, read);
    t->loaded += read;
    if (is_late(t)) arrive_at((const char *)from, read);
  }
  running->copies.push_back({(char *)to, (const char *)from, read, u32(zeros), running->copy_group, running->pc});
}
extern "C" void emu_copy_commit() {
  if (enter(EMU_HERE)) ++running->copy_group;
}
extern "C" void emu_copy_wait(unsigned long groups) {
  if (!enter(EMU_HERE)) return;
  Fiber *f = running;
  const void *here = f->pc;
  size_t done = 0;
  for (; done < f->copies.size() && f->copies[done].group + groups < f->copy_group; ++done) {
    Copy &c = f->copies[done];
    f->pc = c.pc;
    shared_access(c.to, c.bytes + c.zeros, true, false);
    memcpy(c.to, c.from, c.bytes);
    memset(c.to + c.bytes, 0, c.zeros);
  }
  f->pc = here;
  f->copies.erase(f->copies.begin(), f->copies.begin() + long(done));
}
