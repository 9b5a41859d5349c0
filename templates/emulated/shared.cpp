// Shared memory: one image for all resident blocks, brought in when a block runs; and, for each word, who touched it.
//
// Two accesses to a word, one of them a store, by different threads are in order where a __syncthreads lies between them, or,
// within a warp, a __syncwarp of both. Otherwise they are a race, whatever the order in which they came here.
#include "runtime.h"

static const size_t LARGEST = 48 << 10;  // bytes of static variables a block may have

static char *image;
static size_t size;
static Block *present;  // whose memory is in place

void open_shared() {
  image = launch->module->shared, size = size_t(launch->module->shared_end - image), present = nullptr;
  if (size > LARGEST) report(nullptr, "a block has %zu bytes of static shared memory; there are %zu", size, LARGEST);
}

void bring_shared(Block &block) {
  if (&block == present && !block.fresh) return;
  if (block.words.size() < size / 4 + 1) block.words.assign(size / 4 + 1, Word());
  if (present && launch->resident > 1) present->shared.assign(image, image + size);
  if (block.fresh) memset(image, 0xFF, size);
  else memcpy(image, block.shared.data(), size);
  block.fresh = false, present = &block;
}

static bool in_order(const Touch &t, const Fiber &f) {
  if (t.thread == f.index || t.epoch != f.block->epoch) return true;
  if (t.thread / 32 != f.index / 32) return false;
  const Warp &w = *f.warp;
  u32 both = w.pairs.empty() ? 0 : w.pairs[f.lane * 32 + t.thread % 32];
  return (w.all > both ? w.all : both) > t.sync;
}

[[noreturn]] static void race(const Touch &t, const char *did, const char *does) {
  also(t.pc, "block %u, thread %u %s", running->block->id, u32(t.thread), did);
  fail("a race in shared memory: one thread %s what another %s, with no barrier between them", does, did);
}

static void touch(Word &w, u8 bytes, bool store, bool atomic) {
  Fiber &f = *running;
  Block &b = *f.block;
  if (w.born != b.born) w.written = 0, w.born = b.born;
  auto meets = [&](const Touch &t) { return t.bytes & bytes && !(t.atomic && atomic) && !in_order(t, f); };
  if (meets(w.writer)) race(w.writer, "stores", store ? "stores over" : "reads");
  Touch now = {b.epoch, f.warp->syncs, f.pc, u16(f.index), bytes, atomic};
  if ((!store || atomic) && bytes & ~w.written) fail("a read of shared memory that nobody has written");
  if (!store) {
    bool another = w.other.epoch == b.epoch && w.other.thread / 32 != f.index / 32;
    if (w.reader.thread != f.index && w.reader.epoch == b.epoch && !another) w.other = w.reader;
    w.reader = now;
    return;
  }
  if (meets(w.reader)) race(w.reader, "reads", "stores over");
  if (meets(w.other)) race(w.other, "reads", "stores over");
  w.writer = now, w.written |= bytes;
}

void shared_access(char *p, u32 bytes, bool store, bool atomic) {
  if (p + bytes > launch->module->shared_end) fail("out of bounds: %u bytes beyond the end of shared memory", bytes);
  while (bytes) {
    u32 offset = u32(p - image), here = 4 - offset % 4 < bytes ? 4 - offset % 4 : bytes;
    touch(running->block->words[offset / 4], u8(((1u << here) - 1) << offset % 4), store, atomic);
    p += here, bytes -= here;
  }
}
