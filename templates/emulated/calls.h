// What a text calls: the functions of the runtime behind the CUDA names of cuda.h. Includes nothing, for speed.
//
// The return address of each call is the place in the text that a report names.
#pragma once

// A value of up to 16 bytes on its way between memory and registers, the rest of it is 0.
struct EmuWord { unsigned long long low, high; };
struct EmuPlace3 { unsigned x, y, z; };

// A text as the runtime sees it: `call` runs the kernel as the current thread, on `bytes` bytes of Args. All static
// __shared__ variables lie in [shared, shared_end).
struct EmuModule {
  void (*call)(const void *args);
  unsigned long long bytes;
  char *shared, *shared_end;
};

enum EmuHow { EMU_PLAIN, EMU_READ_ONLY, EMU_RELAXED };
enum EmuBarrier { EMU_SYNC, EMU_SYNC_OR, EMU_SYNC_AND, EMU_SYNC_COUNT };
enum EmuCollective { EMU_SHUFFLE, EMU_SHUFFLE_UP, EMU_SHUFFLE_DOWN, EMU_SHUFFLE_XOR, EMU_BALLOT, EMU_SYNC_WARP };
enum EmuForm { EMU_UNSIGNED, EMU_SIGNED, EMU_FLOAT };
enum EmuAtomic {
  EMU_ADD, EMU_SUB, EMU_EXCHANGE, EMU_MIN, EMU_MAX, EMU_AND, EMU_OR, EMU_XOR, EMU_INC, EMU_DEC, EMU_COMPARE
};

#pragma GCC visibility push(default)
extern "C" {
// A thread never changes its place, so that a compiler may remember it across switches.
__attribute__((const)) EmuPlace3 emu_thread(), emu_block(), emu_block_size(), emu_grid_size();

EmuWord emu_load(const void *p, unsigned bytes, EmuHow how);
// piece: bytes that the memory model keeps together.
void emu_store(void *p, EmuWord value, unsigned bytes, unsigned piece, EmuHow how);
unsigned long long emu_atomic(EmuAtomic op, EmuForm form, void *p, unsigned bytes, unsigned long long value,
                              unsigned long long compare);
void emu_fence(bool device);

void *emu_memcpy(void *to, const void *from, unsigned long bytes);
void *emu_memset(void *to, int value, unsigned long bytes);

void emu_copy_async(void *to, const void *from, unsigned long bytes, unsigned long zeros);
void emu_copy_commit();
void emu_copy_wait(unsigned long groups);

int emu_barrier(EmuBarrier op, int predicate, int line);
unsigned long long emu_collective(EmuCollective op, unsigned mask, unsigned long long value, int argument, int width,
                                  int line);
void emu_sleep();
void emu_trap();
}
#pragma GCC visibility pop
