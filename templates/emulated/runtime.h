// What the parts of the runtime share: threads, warps, blocks, and the launch that is going on. One OS thread runs it all.
//
//   schedule.cpp   who runs next; deadlocks
//   together.cpp   barriers, collectives of a warp
//   access.cpp     what the text calls: loads, stores, atomics, copies
//   memory.cpp     tensors and scratch memory: bounds, roles, bytes
//   late.cpp       stores that others see late and out of order
//   shared.cpp     shared memory: races, and reads of what nobody wrote
//   sectors.cpp    how well the accesses of a warp lie side by side
//   faults.cpp     reports, signals, the time limit
//   fibers.h       the switch from one thread to another
#pragma once
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "fibers.h"
#include "launch.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

const size_t STACK = 256 << 10;  // bytes, of each thread: half of what CUDA gives it at most, and enough for text at -O0

enum class State : u8 { ready, polling, at_barrier, in_warp, done };

struct Block;
struct Warp;

// A copy of cp.async, carried out when its thread waits for it.
struct Copy {
  char *to;
  const char *from;
  u32 bytes, zeros;
  u64 group;
  const void *pc;
};

struct Fiber {
  Context context;
  char *stack;
  Block *block;
  Warp *warp;
  u32 index, lane;
  State state;
  const void *pc;  // where the text called the runtime last
  // What it brings to a barrier or a collective, and takes from it.
  int op, argument, width, line;
  u32 mask;
  u64 value;
  std::vector<Copy> copies;
  u64 copy_group;
  std::unordered_map<const void *, u32> visits;  // of each instruction, where sectors are counted
};

// Lanes on their way to one collective.
struct Group {
  u32 mask, arrived;
  EmuCollective op;
  int line;
  const void *pc;
};

// syncs: how many __syncwarp there were. all, pairs[lane * 32 + lane]: the number of the last one that ordered all lanes,
// or these two.
struct Warp {
  u32 alive;
  Fiber *lanes;
  u32 syncs, all;
  std::vector<u32> pairs;
  std::vector<Group> groups;
};

// Part of a store that others do not see yet.
struct Piece {
  char *at;
  u32 bytes, thread, epoch, sync;
  char data[16];
};

// Who touched a word of shared memory, when, and where in the text. bytes: a bit for each of the word's four.
struct Touch {
  u32 epoch, sync;
  const void *pc;
  u16 thread;
  u8 bytes;
  bool atomic;
};

// other: one more reader, of another warp if there was any. written: which bytes, by the block that began at epoch `born`.
struct Word {
  Touch writer, reader, other;
  u32 born;
  u8 written;
};

// Lanes of a warp on their way through one instruction, for the same time.
struct RequestKey {
  const void *pc;
  u32 warp, visit;
  bool operator==(const RequestKey &k) const { return pc == k.pc && warp == k.warp && visit == k.visit; }
};
struct RequestHash {
  size_t operator()(const RequestKey &k) const { return ((u64(k.pc) * 31 + k.warp) << 24 ^ k.visit) * 0x9E3779B97F4A7C15ull; }
};
struct Request {
  u32 lanes;
  std::vector<u64> sectors;
};

// epoch: one number for each stretch between barriers, of all blocks; it started with `born`.
struct Block {
  u32 id, live, arrived, epoch, born;
  bool fresh, paused;
  Fiber *first;  // that came to the barrier
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  u64 ready[16];
  std::vector<char> shared;
  std::vector<Word> words;
  std::vector<Piece> pieces;
  std::unordered_map<RequestKey, Request, RequestHash> requests;
  u32 turns, next;
  u64 idle_since;
};

// ---- the launch

extern EmuLaunch *launch;  // null between launches
extern Fiber *running;     // null while the scheduler decides
extern u32 patience;       // accesses until it gives way
extern u32 last_epoch;     // of all blocks
extern u64 progress;       // grows with everything that a polling thread might wait for

u64 draw();           // a random number
u32 draw_below(u32 n);

[[noreturn]] void leave_for_good();  // the running thread never goes on
void give_way(State state);          // the running thread goes on later
void make_ready(Fiber &f);
void scheduler_main();               // runs all blocks

// ---- together.cpp

void end_of(Fiber &f);               // it has run to its end

// ---- faults.cpp

// Ends the launch: something went wrong, at the place of a thread or of none.
__attribute__((format(printf, 2, 3))) void report(const Fiber *at, const char *what, ...);
// As `report` at the running thread, which never goes on.
#define fail(...) (report(running, __VA_ARGS__), leave_for_good())
// One more place that plays a part; before the report.
__attribute__((format(printf, 2, 3))) void also(const void *pc, const char *label, ...);
bool failed();
void find_module(const void *anchor);
bool in_module(const void *p);
u64 module_offset(const void *pc);
bool guarded(void (*run)());  // run it; false where a signal ended it

// ---- memory.cpp

void open_memory();
void close_memory(bool check);                     // check: that every element of the outputs was written
EmuTensor *loaded(const char *p, u32 bytes);       // a load, a store of the running thread: what it touches, if it may
EmuTensor *stored(const char *p, u32 bytes);
void check_alignment(const char *p, u32 bytes, const char *what);

// ---- late.cpp

void open_late();
void close_late();
extern u32 unsettled;                              // bytes of a store that is expected
void expect_store(char *p, u32 bytes);             // the running thread stores there before it calls anything
void settle_store();                               // it has
void hold_back(char *p, const char *data, u32 bytes, u32 piece);  // a store that others see later
void see_own(const char *p, char *value, u32 bytes);              // put what the own block has stored over a value
void arrive_at(const char *p, u32 bytes);          // the own block's stores to these bytes become visible
void arrive_some(Block *block);                    // one late store, of the block or of one that has ended
void end_pieces(Block &block);                     // the block has ended, its late stores are still on their way

// ---- shared.cpp

inline bool in_shared(const void *p) { return p >= launch->module->shared && p < launch->module->shared_end; }
void open_shared();
void shared_access(char *p, u32 bytes, bool store, bool atomic);
void bring_shared(Block &block);                   // into the one place that the text knows

// ---- sectors.cpp

void note_request(const void *p, u32 bytes);
void close_requests(Block &block);
void clear_sites();
u64 site_count();

// ---- entries from the text

// The first thing that every function does that a text calls; false outside a kernel.
inline bool enter(const void *pc) {
  if (!running) return false;
  running->pc = pc;
  if (unsettled) settle_store();
  return true;
}
#define EMU_HERE __builtin_return_address(0)

// Where another thread may run between two accesses.
inline void maybe_preempt() {
  if (!--patience || (launch->preempt && draw_below(1024) < u32(launch->preempt))) give_way(State::ready);
}
