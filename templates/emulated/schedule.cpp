// Who runs next, until all blocks are done, or none of them can go on.
#include "runtime.h"

#include <algorithm>
#include <sys/mman.h>
#include <unistd.h>

EmuLaunch *launch;
Fiber *running;
u32 patience, last_epoch;
u64 progress;

static Context scheduler;
static u64 random_state;
static std::vector<char *> stacks;     // of all threads that were ever resident at once
static std::vector<Block *> places;    // for resident blocks
static std::vector<Block *> resident;  // in the order in which they began
static std::vector<u32> order;         // of the blocks' beginnings, where it is random
static std::vector<size_t> unused;     // of `places`

static const u32 PATIENT = 128;  // accesses, then others go on: side by side they find what they need in the cache
static const u32 ROUNDS = 1000;  // turns of every resident block in which nothing happens that any could wait for

u64 draw() {  // xorshift64*
  random_state ^= random_state >> 12, random_state ^= random_state << 25, random_state ^= random_state >> 27;
  return random_state * 2685821657736338717ull;
}
u32 draw_below(u32 n) { return u32((draw() >> 32) * n >> 32); }

static u32 warps() { return (launch->block + 31) / 32; }

// ---- threads

// The place of a thread in `ready`, where the next one stands above it.
static u32 rank_of(u32 thread) { return launch->threads == EMU_REVERSED ? launch->block - 1 - thread : thread; }

void make_ready(Fiber &f) {
  u32 rank = rank_of(f.index);
  f.state = State::ready;
  f.block->ready[rank / 64] |= u64(1) << rank % 64;
}

void give_way(State state) {
  Fiber *f = running;
  f->state = state;
  if (state == State::ready) make_ready(*f);
  switch_to(f->context, scheduler);
}

void leave_for_good() {
  running->state = State::done;
  for (;;) switch_to(running->context, scheduler);
}

static void run_thread() {
  launch->module->call(launch->args);
  if (unsettled) settle_store();
  ++progress;
  end_of(*running);
  leave_for_good();
}

static char *stack_of(size_t number) {
  static const size_t page = size_t(sysconf(_SC_PAGESIZE)), size = (STACK + page - 1) / page * page;
  while (stacks.size() <= number) {  // a page that nobody may touch lies below each
    void *memory = mmap(nullptr, page + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE)) return nullptr;
    stacks.push_back((char *)memory + page);
  }
  return stacks[number];
}

static void begin(Block &b, u32 id, size_t place) {
  u32 n = launch->block;
  b.id = id, b.live = n, b.arrived = 0, b.turns = b.next = 0, b.idle_since = ~u64(0);
  b.born = b.epoch = ++last_epoch, b.fresh = true, b.paused = false;
  b.fibers.resize(n), b.warps.resize(warps());
  std::fill(b.ready, b.ready + 16, 0);
  for (u32 k = 0; k < warps(); ++k) {
    Warp &w = b.warps[k];
    u32 lanes = std::min(32u, n - 32 * k);
    w.alive = lanes == 32 ? ~0u : (1u << lanes) - 1;
    w.lanes = &b.fibers[32 * k], w.syncs = w.all = 0;
    w.pairs.clear(), w.groups.clear();
  }
  for (u32 k = 0; k < n; ++k) {
    Fiber &f = b.fibers[k];
    f.stack = stack_of(place * n + k);
    if (!f.stack) return report(nullptr, "no memory for the stacks of %u resident blocks of %u threads", launch->resident, n);
    f.block = &b, f.warp = &b.warps[k / 32], f.index = k, f.lane = k % 32, f.pc = nullptr;
    f.copies.clear(), f.copy_group = 0, f.visits.clear();
    prepare(f.context, f.stack, STACK, run_thread);
    make_ready(f);
  }
}

static u32 first_ready(const Block &b, u32 from, u32 end) {
  for (u32 k = from / 64; 64 * k < end; ++k) {
    u64 bits = b.ready[k] & (k == from / 64 ? ~u64(0) << from % 64 : ~u64(0));
    if (bits) return std::min(end, 64 * k + u32(__builtin_ctzll(bits)));
  }
  return end;
}

// The ready thread that is next, or null.
static Fiber *next_thread(Block &b) {
  u32 n = launch->block, from = launch->threads == EMU_RANDOM ? draw_below(n) : b.next;
  u32 rank = first_ready(b, from, n);
  if (rank == n && (rank = first_ready(b, 0, from)) == from) return nullptr;
  b.ready[rank / 64] &= ~(u64(1) << rank % 64);
  b.next = rank + 1 < n ? rank + 1 : 0;
  return &b.fibers[rank_of(rank)];
}

// ---- blocks

enum class Turn { ended, waits, paused };

static void tell_waiting(Block &b) {
  std::vector<std::pair<const void *, u32>> found[3];
  for (Fiber &f : b.fibers) {
    if (f.state == State::done || f.state == State::ready) continue;
    auto &list = found[int(f.state) - int(State::polling)];
    auto it = std::find_if(list.begin(), list.end(), [&](auto &p) { return p.first == f.pc; });
    if (it == list.end()) list.push_back({f.pc, 1});
    else ++it->second;
  }
  static const char *const doing[] = {"polling", "at a barrier", "waiting for other lanes"};
  for (int k = 0; k < 3; ++k)
    for (auto &[pc, count] : found[k]) also(pc, "block %u: %u thread%s %s", b.id, count, count == 1 ? "" : "s", doing[k]);
}

// Runs a block until all its threads wait. Who polls does so once a turn.
static Turn run_block(Block &b) {
  bring_shared(b);
  ++b.turns;
  for (Fiber &f : b.fibers)
    if (f.state == State::polling && !b.paused) make_ready(f);
  b.paused = false;
  while (Fiber *f = next_thread(b)) {
    running = f, patience = PATIENT;
    ++launch->counts.switches;
    switch_to(scheduler, f->context);
    running = nullptr;
    if (failed()) return Turn::ended;
    if (launch->blocks == EMU_RANDOM && resident.size() > 1 && draw_below(128) == 0) {
      b.paused = true;
      return Turn::paused;
    }
  }
  if (!b.live) return Turn::ended;
  for (Fiber &f : b.fibers)
    if (f.state == State::polling) return Turn::waits;
  tell_waiting(b);
  report(nullptr, "deadlock: no thread of block %u can go on", b.id);
  return Turn::ended;
}

// Nothing has happened since all its threads came to wait for something.
static bool idle(const Block *b) { return b->idle_since == progress; }

// The index in `resident` of the block that runs next. last: the one that ran, unless it ended.
static size_t next_block(size_t last, bool ended) {
  size_t n = resident.size();
  if (launch->blocks == EMU_RANDOM) return draw_below(u32(n));
  if (launch->blocks == EMU_STARVED) {  // late blocks run ahead, once each has had two turns to take its ticket, in order
    for (size_t k = 0; k < n; ++k)
      if (resident[k]->turns < 2) return k;
    for (size_t k = n; k-- > 0;)
      if (!idle(resident[k])) return k;
  }
  return ended ? last % n : (last + 1) % n;
}

static u32 block_id(u32 number) {
  return launch->blocks == EMU_REVERSED ? launch->grid - 1 - number : launch->blocks == EMU_RANDOM ? order[number] : number;
}

void scheduler_main() {
  resident.clear(), order.clear(), unused.clear();
  if (launch->blocks == EMU_RANDOM) {
    for (u32 k = 0; k < launch->grid; ++k) order.push_back(k);
    for (u32 k = launch->grid; k > 1; --k) std::swap(order[k - 1], order[draw_below(k)]);
  }
  for (size_t k = std::min<size_t>(size_t(launch->resident), launch->grid); k-- > 0;) unused.push_back(k);
  while (places.size() < unused.size()) places.push_back(new Block());
  u32 begun = 0, turns = 0;  // turns: since all blocks are idle
  size_t at = 0;
  bool ended = true;
  while (!failed()) {
    for (; begun < launch->grid && !unused.empty() && !failed(); unused.pop_back()) {
      resident.push_back(places[unused.back()]);
      begin(*resident.back(), block_id(begun++), unused.back());
    }
    if (failed() || resident.empty()) return;
    at = next_block(at, ended);
    Block *b = resident[at];
    u64 before = progress;
    Turn turn = run_block(*b);
    if (failed()) return;
    ended = turn == Turn::ended;
    if (progress != before) turns = 0;
    if (ended) {
      end_pieces(*b), close_requests(*b);
      unused.push_back(size_t(std::find(places.begin(), places.end(), b) - places.begin()));
      resident.erase(resident.begin() + long(at));
    } else if (turn == Turn::waits) {
      b->idle_since = progress;
      if (launch->weak && progress == before) arrive_some(b);
      if (std::all_of(resident.begin(), resident.end(), idle) && ++turns > ROUNDS * resident.size()) {
        for (Block *waiting : resident) tell_waiting(*waiting);
        report(nullptr, "livelock: the %zu resident blocks only poll, and %u have not begun", resident.size(),
               launch->grid - begun);
      }
    }
  }
}

// ---- places

extern "C" EmuPlace3 emu_thread() { return {running->index, 0, 0}; }
extern "C" EmuPlace3 emu_block() { return {running->block->id, 0, 0}; }
extern "C" EmuPlace3 emu_block_size() { return {launch->block, 1, 1}; }
extern "C" EmuPlace3 emu_grid_size() { return {launch->grid, 1, 1}; }

extern "C" void emu_sleep() {
  if (!enter(EMU_HERE)) return;
  ++launch->counts.polls;
  give_way(State::polling);
}
extern "C" void emu_trap() {
  if (enter(EMU_HERE)) fail("__trap()");
}

extern "C" void emu_launch(EmuLaunch *given) {
  launch = given;
  random_state = (given->seed + 1) * 0x9E3779B97F4A7C15ull | 1;
  progress = 0, running = nullptr;
  for (Block *b : places) {
    if (last_epoch >> 31) b->words.clear();  // they remember epochs
    b->pieces.clear(), b->requests.clear();
  }
  if (last_epoch >> 31) last_epoch = 0;
  find_module((const void *)given->module);
  clear_sites(), open_late(), open_memory(), open_shared();
  bool ended = guarded(scheduler_main);
  running = nullptr;
  close_late(), close_memory(ended && !failed());
  given->counts.sites = site_count();
  launch = nullptr;
}
