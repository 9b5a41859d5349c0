// Stores to scratch memory that others see late and out of order, as a GPU's memory model allows. A block sees its own.
//
// Not modelled: loads that pass each other, and stale values in a cache near the reader.
#include "runtime.h"

#include <algorithm>

static std::vector<Piece> orphans;  // of blocks that have ended

u32 unsettled;
static char *unsettled_at, before[256];

static bool overlaps(const Piece &q, const char *p, u32 bytes) { return q.at < p + bytes && p < q.at + q.bytes; }

// One becomes visible; an older one that it overlaps goes first: every byte has one order that all agree on.
static void arrive(std::vector<Piece> &pieces, size_t at) {
  for (size_t k = at; k-- > 0;)
    if (overlaps(pieces[k], pieces[at].at, pieces[at].bytes)) at = k;
  memcpy(pieces[at].at, pieces[at].data, pieces[at].bytes);
  pieces.erase(pieces.begin() + long(at));
  ++progress;
}

void arrive_some(Block *block) {
  std::vector<Piece> &pieces = block && !block->pieces.empty() ? block->pieces : orphans;
  if (!pieces.empty()) arrive(pieces, draw_below(u32(pieces.size())));
}

void end_pieces(Block &block) {
  orphans.insert(orphans.end(), block.pieces.begin(), block.pieces.end());
  block.pieces.clear();
}

void open_late() { orphans.clear(), unsettled = 0; }
void close_late() {
  while (!orphans.empty()) arrive_some(nullptr);
}

void arrive_at(const char *p, u32 bytes) {
  std::vector<Piece> &pieces = running->block->pieces;
  for (size_t k = 0; k < pieces.size();)
    if (overlaps(pieces[k], p, bytes)) arrive(pieces, k), k = 0;
    else ++k;
}

static const size_t MOST_PIECES = 256;  // a block holds back

void hold_back(char *p, const char *data, u32 bytes, u32 piece) {
  Block &b = *running->block;
  for (u32 k = 0; k < bytes; k += piece) {
    Piece q = {p + k, std::min(piece, bytes - k), running->index, b.epoch, running->warp->syncs, {}};
    memcpy(q.data, data + k, q.bytes);
    b.pieces.push_back(q);
  }
  while (!b.pieces.empty() && (b.pieces.size() > MOST_PIECES || draw_below(4) == 0)) arrive_some(&b);
}

void expect_store(char *p, u32 bytes) {
  if (bytes > sizeof before) return;
  unsettled = bytes, unsettled_at = p;
  memcpy(before, p, bytes);
}

// The store that was expected is done since: what it wrote is held back like any other.
void settle_store() {
  char after[sizeof before];
  u32 bytes = unsettled;
  unsettled = 0;
  memcpy(after, unsettled_at, bytes);
  memcpy(unsettled_at, before, bytes);
  hold_back(unsettled_at, after, bytes, bytes <= 8 ? bytes : 4);
}

void see_own(const char *p, char *value, u32 bytes) {
  for (const Piece &q : running->block->pieces)
    for (u32 k = 0; overlaps(q, p, bytes) && k < q.bytes; ++k)
      if (q.at + k >= p && q.at + k < p + bytes) value[q.at + k - p] = q.data[k];
}

extern "C" void emu_fence(bool device) {
  if (!enter(EMU_HERE) || !launch->weak || !device) return;
  Block &b = *running->block;
  auto before_fence = [&](const Piece &p) {  // own stores, and those of the block from before its last barrier
    const Warp &w = *running->warp;
    u32 pair = p.thread % 32 * 32 + running->lane;
    return p.thread == running->index || p.epoch != b.epoch ||
           (p.thread / 32 == running->index / 32 && std::max(w.all, w.pairs.empty() ? 0 : w.pairs[pair]) > p.sync);
  };
  for (size_t k = 0; k < b.pieces.size();)
    if (before_fence(b.pieces[k])) arrive(b.pieces, k), k = 0;
    else ++k;
}

