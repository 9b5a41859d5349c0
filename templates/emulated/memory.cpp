// Global memory: scratch memory, and tensors with a role, element by element.
#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <sys/mman.h>

// marks: for each element in [from, to) 0 where it belongs to no row, else VALID or WRITTEN. None in scratch memory.
struct Memory {
  char *from, *to;
  EmuTensor *tensor;
  u8 *marks;
  size_t marked;
  int shift;

  bool holds(const char *p, u32 bytes) const {
    if (p < from || p + bytes > to) return false;
    if (!marks) return true;
    size_t k = size_t(p - from) >> shift, last = size_t(p + bytes - 1 - from) >> shift;
    while (k < last && marks[k]) ++k;
    return marks[k];
  }
};
enum : u8 { VALID = 1, WRITTEN = 2 };

static std::vector<Memory> memories;  // outputs and scratch memory first: what a kernel may write
static size_t writable;
static struct { const void *pc; Memory *memory; } last_of[256];  // an instruction mostly stays in its tensor

template <class F> static void each_row(const EmuTensor &t, F visit) {
  for (int64_t i = 0; i < t.count[0]; ++i)
    for (int64_t j = 0; j < t.count[1]; ++j)
      if (!visit(i, j, i * t.stride[0] + j * t.stride[1])) return;
}

static int64_t lowest(const EmuTensor &t) {  // element, from its address
  return std::min<int64_t>(0, (t.count[0] - 1) * t.stride[0]) + std::min<int64_t>(0, (t.count[1] - 1) * t.stride[1]);
}

static void add_memory(EmuTensor &t) {
  int64_t first = lowest(t), last = 0;
  for (int k = 0; k < 2; ++k) last += std::max<int64_t>(0, (t.count[k] - 1) * t.stride[k]);
  Memory m = {};
  m.tensor = &t, m.marked = size_t(last - first + t.width), m.shift = __builtin_ctzll(u64(t.item));
  m.from = (char *)t.address + first * t.item, m.to = m.from + m.marked * size_t(t.item);
  if (t.role != EMU_SCRATCH) {
    void *marks = mmap(nullptr, m.marked, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (marks == MAP_FAILED) return report(nullptr, "no memory to remember the elements of %s", t.name);
    m.marks = (u8 *)marks;
    each_row(t, [&](int64_t, int64_t, int64_t row) {
      memset(m.marks + row - first, VALID, size_t(t.width));
      return true;
    });
  }
  memories.push_back(m);
}

void open_memory() {
  memories.clear();
  memset(last_of, 0, sizeof last_of);
  for (bool written : {true, false}) {
    for (int64_t k = 0; k < launch->tensor_count; ++k)
      if ((launch->tensors[k].role != EMU_INPUT) == written) add_memory(launch->tensors[k]);
    if (written) writable = memories.size();
  }
}

// ---- what reports say

struct Element { char text[96]; };

// An element as x[i, j, k].
static Element element(const Memory &m, size_t index) {
  const EmuTensor &t = *m.tensor;
  int64_t offset = int64_t(index) + lowest(t), at[3] = {0, 0, offset};
  each_row(t, [&](int64_t i, int64_t j, int64_t row) {
    bool found = offset >= row && offset < row + t.width;
    if (found) at[0] = i, at[1] = j, at[2] = offset - row;
    return !found;
  });
  Element e;
  if (t.rank == 1) snprintf(e.text, sizeof e.text, "%s[%ld]", t.name, long(at[2]));
  else if (t.rank == 2) snprintf(e.text, sizeof e.text, "%s[%ld, %ld]", t.name, long(at[0]), long(at[1]));
  else snprintf(e.text, sizeof e.text, "%s[%ld, %ld, %ld]", t.name, long(at[0]), long(at[1]), long(at[2]));
  return e;
}

[[noreturn]] static void out_of_bounds(const char *p, u32 bytes, const char *what) {
  const Memory *nearest = nullptr;
  u64 least = ~u64(0);
  for (const Memory &m : memories) {
    if (p < m.to && p + bytes > m.from && m.marks) {  // inside, but not in a row
      size_t k = p < m.from ? 0 : size_t(p - m.from) >> m.shift;
      while (k > 0 && !m.marks[k]) --k;
      if (p >= m.from && p + bytes <= m.to && m.marks[k])
        fail("out of bounds: %s of %u bytes between the rows of %s, %lu bytes after %s", what, bytes, m.tensor->name,
             (unsigned long)(p - m.from - (int64_t(k) << m.shift)), element(m, k).text);
    }
    u64 distance = p < m.from ? u64(m.from - p) : u64(p + bytes - m.to);
    if (distance < least) least = distance, nearest = &m;
  }
  for (Fiber &f : running->block->fibers)
    if (p >= f.stack && p < f.stack + STACK) fail("%s of %u bytes in a local variable of thread %u", what, bytes, f.index);
  if (in_shared(p)) fail("%s of shared memory by an instruction for global memory", what);
  if (!nearest || u64(p) < 4096) fail("out of bounds: %s of %u bytes through a null pointer", what, bytes);
  fail("out of bounds: %s of %u bytes, %lu bytes %s %s", what, bytes, (unsigned long)least,
       p < nearest->from ? "before the start of" : "beyond the end of", nearest->tensor->name);
}

void close_memory(bool check) {
  for (Memory &m : memories) {
    if (check && m.tensor->role == EMU_OUTPUT && !failed()) {
      u64 missing = 0;
      size_t first = 0;
      each_row(*m.tensor, [&](int64_t, int64_t, int64_t row) {
        u8 *marks = m.marks + row - lowest(*m.tensor);
        for (int64_t k = 0; k < m.tensor->width; ++k)
          if (marks[k] != WRITTEN && !missing++) first = size_t(marks + k - m.marks);
        return true;
      });
      if (missing)
        report(nullptr, "never written: %s, the first of %lu elements", element(m, first).text, (unsigned long)missing);
    }
    if (m.marks) munmap(m.marks, m.marked);
  }
  memories.clear();
}

// ---- what is allowed

static Memory *find(const char *p, u32 bytes, bool store) {
  auto &last = last_of[(u64)running->pc >> 2 & 255];
  if (last.pc == running->pc && last.memory->holds(p, bytes)) return last.memory;
  for (size_t k = 0; k < memories.size(); ++k) {
    Memory *m = &memories[k];
    if (!m->holds(p, bytes)) continue;
    if (store && k >= writable) fail("store to the input %s", element(*m, size_t(p - m->from) >> m->shift).text);
    last = {running->pc, m};
    return m;
  }
  return nullptr;
}

void check_alignment(const char *p, u32 bytes, const char *what) {
  u64 off = u64(p) & (bytes - 1);
  if (off) fail("misaligned: %s of %u bytes, %lu bytes off", what, bytes, (unsigned long)off);
}

EmuTensor *loaded(const char *p, u32 bytes) {
  Memory *m = find(p, bytes, false);
  if (!m) out_of_bounds(p, bytes, "a load");
  if (m->tensor->role == EMU_OUTPUT) {
    for (size_t k = size_t(p - m->from) >> m->shift; k <= size_t(p + bytes - 1 - m->from) >> m->shift; ++k)
      if (m->marks[k] != WRITTEN) fail("read of %s, which nobody has written", element(*m, k).text);
  }
  if (launch->sectors) note_request(p, bytes);
  return m->tensor;
}

EmuTensor *stored(const char *p, u32 bytes) {
  Memory *m = find(p, bytes, true);
  if (!m) out_of_bounds(p, bytes, "a store");
  if (m->tensor->role == EMU_OUTPUT)
    for (size_t k = size_t(p - m->from) >> m->shift; k <= size_t(p + bytes - 1 - m->from) >> m->shift; ++k) {
      if (m->marks[k] == WRITTEN) fail("a second store to %s", element(*m, k).text);
      m->marks[k] = WRITTEN;
    }
  if (launch->sectors) note_request(p, bytes);
  ++progress;
  return m->tensor;
}

