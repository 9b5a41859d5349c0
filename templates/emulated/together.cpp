// Threads that wait for each other: the barriers of a block, the collectives of a warp.
#include "runtime.h"

static void open_barrier(Block &b) {
  int any = 0, all = 1, count = 0;
  for (Fiber &f : b.fibers)
    if (f.state == State::at_barrier) any |= f.argument, all &= f.argument, count += f.argument;
  for (Fiber &f : b.fibers)
    if (f.state == State::at_barrier) {
      f.value = u64(f.op == EMU_SYNC_OR ? any : f.op == EMU_SYNC_AND ? all : count);
      make_ready(f);
    }
  b.arrived = 0, b.epoch = ++last_epoch, ++launch->counts.barriers;
}

extern "C" int emu_barrier(EmuBarrier op, int predicate, int line) {
  if (!enter(EMU_HERE)) return 0;
  Fiber *f = running;
  Block &b = *f->block;
  if (!b.arrived) b.first = f;
  f->op = op, f->argument = predicate, f->line = line, f->state = State::at_barrier;
  if (b.first->line != line) {
    also(b.first->pc, "block %u, thread %u waits", b.id, b.first->index);
    fail("divergent barrier: threads of one block wait at different ones");
  }
  if (++b.arrived == b.live) open_barrier(b);
  give_way(f->state);
  return int(f->value);
}

// ---- warps

// What one lane takes from a shuffle.
static bool take(const Group &g, const u64 *values, Fiber &f) {
  int segment = int(f.lane) & ~(f.width - 1), from = int(f.lane);
  bool inside = true;
  switch (g.op) {
    case EMU_SHUFFLE: from = segment + (f.argument & (f.width - 1)); break;
    case EMU_SHUFFLE_UP: from -= f.argument, inside = from >= segment; break;
    case EMU_SHUFFLE_DOWN: from += f.argument, inside = from < segment + f.width; break;
    case EMU_SHUFFLE_XOR: from ^= f.argument, inside = from < segment + f.width; break;
    default: break;
  }
  if (!inside) from = int(f.lane);
  if (!(g.arrived >> from & 1)) {
    also(f.pc, "block %u, thread %u", f.block->id, f.index);
    report(nullptr, "a shuffle reads lane %d, which takes no part", from);
    return false;
  }
  f.value = values[from];
  return true;
}

// All lanes have arrived: each gets its value and goes on.
static void finish_collective(Warp &w, size_t at) {
  Group g = w.groups[at];
  w.groups.erase(w.groups.begin() + long(at));
  ++launch->counts.collectives;
  u64 values[32] = {}, ballot = 0;
  for (u32 lane = 0; lane < 32; ++lane)
    if (g.arrived >> lane & 1) values[lane] = w.lanes[lane].value, ballot |= (values[lane] & 1) << lane;
  if (g.op == EMU_SYNC_WARP) {
    ++w.syncs;
    if (g.arrived == w.alive) w.all = w.syncs;
    else {
      w.pairs.resize(32 * 32);
      for (u32 pair = 0; pair < 32 * 32; ++pair)
        if (g.arrived >> pair / 32 & 1 && g.arrived >> pair % 32 & 1) w.pairs[pair] = w.syncs;
    }
  }
  for (u32 lane = 0; lane < 32; ++lane) {
    if (!(g.arrived >> lane & 1)) continue;
    Fiber &f = w.lanes[lane];
    if (g.op == EMU_BALLOT) f.value = ballot;
    else if (g.op != EMU_SYNC_WARP && !take(g, values, f)) return;
    make_ready(f);
  }
}

extern "C" unsigned long long emu_collective(EmuCollective op, unsigned mask, unsigned long long value, int argument, int width,
                                             int line) {
  if (!enter(EMU_HERE)) return 0;
  Fiber *f = running;
  Warp &w = *f->warp;
  u32 me = 1u << f->lane;
  if (!(mask & me)) fail("a lane calls a warp's collective that its own mask 0x%08x leaves out", mask);
  if (width < 1 || width > 32 || width & (width - 1)) fail("the width %d of a shuffle is no power of two up to 32", width);
  size_t at = 0;
  for (; at < w.groups.size() && !(w.groups[at].mask & mask); ++at) {}
  if (at == w.groups.size()) w.groups.push_back({mask, 0, op, line, f->pc});
  Group &g = w.groups[at];
  if (g.mask != mask || g.op != op || g.line != line) {
    also(g.pc, "block %u: other lanes of the warp, with mask 0x%08x", f->block->id, g.mask);
    fail("lanes of one warp meet in different collectives; this one has mask 0x%08x", mask);
  }
  f->op = op, f->value = value, f->argument = argument, f->width = width, f->state = State::in_warp;
  g.arrived |= me;
  if ((g.mask & w.alive) == g.arrived) finish_collective(w, at);
  if (failed()) leave_for_good();
  give_way(f->state);
  return f->value;
}

// Who waits does not wait for threads that have ended.
void end_of(Fiber &f) {
  Block &b = *f.block;
  Warp &w = *f.warp;
  --b.live, w.alive &= ~(1u << f.lane);
  for (size_t k = w.groups.size(); k-- > 0;)
    if ((w.groups[k].mask & w.alive) == w.groups[k].arrived) finish_collective(w, k);
  if (b.live && b.arrived == b.live) open_barrier(b);
}
