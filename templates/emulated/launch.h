// What Python hands to the runtime and reads back. lrdsl/backends/emulated_abi.py mirrors it, field by field.
#pragma once
#include <cstdint>

#include "calls.h"

enum EmuRole : int64_t { EMU_INPUT, EMU_OUTPUT, EMU_SCRATCH };

// Elements [i, j, k] of `item` bytes, contiguous along k; strides, of i and j, count elements. rank: reports name k where it
// is 1, i and j where it is 2, all where it is 3. loaded, stored: bytes, those of messages apart; results.
struct EmuTensor {
  const char *name;
  uint64_t address;
  EmuRole role;
  int64_t item, rank, count[2], stride[2], width;
  uint64_t loaded, stored, message_loaded, message_stored;
};

struct EmuPlace {
  uint64_t pc;  // from the start of the module; a return address
  char label[128];
};

// What went wrong, and where: first the place that did it, then others that play a part.
struct EmuReport {
  int64_t failed, block, thread, places;
  char what[768];
  EmuPlace place[12];
};

struct EmuCounts { uint64_t atomics, barriers, collectives, polls, switches, sites; };

// 32-byte sectors of memory that the requests of one instruction touch; one request a warp.
struct EmuSite { uint64_t pc, requests, sectors, bytes; };

enum EmuThreads : int32_t { EMU_IN_ORDER, EMU_REVERSED, EMU_RANDOM, EMU_STARVED };

struct EmuLaunch {
  const EmuModule *module;
  const void *args;
  EmuTensor *tensors;
  int64_t tensor_count;
  uint64_t seed;
  double seconds;  // of the processor's time
  uint32_t grid, block;
  EmuThreads threads, blocks;
  int32_t resident, preempt, weak, sectors;
  EmuCounts counts;
  EmuReport report;
};

#pragma GCC visibility push(default)
extern "C" {
void emu_launch(EmuLaunch *launch);
void emu_sites(EmuSite *sites);  // counts.sites of them, of the last launch
}
#pragma GCC visibility pop
