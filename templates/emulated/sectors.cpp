// 32-byte sectors: a warp's request for memory costs as many as it touches. Lanes ask together when they come to the same
// instruction for the same time.
#include "runtime.h"

#include <algorithm>

static std::unordered_map<const void *, EmuSite> sites;

static void close_request(const void *pc, Request &r) {
  std::sort(r.sectors.begin(), r.sectors.end());
  EmuSite &site = sites[pc];
  ++site.requests, site.sectors += u64(std::unique(r.sectors.begin(), r.sectors.end()) - r.sectors.begin());
}

void note_request(const void *p, u32 bytes) {
  Fiber &f = *running;
  Request &r = f.block->requests[{f.pc, f.index / 32, f.visits[f.pc]++}];
  for (u64 sector = (u64)p / 32; sector <= ((u64)p + bytes - 1) / 32; ++sector) r.sectors.push_back(sector);
  sites[f.pc].bytes += bytes;
  if (++r.lanes < 32) return;
  close_request(f.pc, r);
  f.block->requests.erase({f.pc, f.index / 32, f.visits[f.pc] - 1});
}

void close_requests(Block &block) {
  for (auto &[key, request] : block.requests) close_request(key.pc, request);
  block.requests.clear();
}

void clear_sites() { sites.clear(); }
u64 site_count() { return sites.size(); }

extern "C" void emu_sites(EmuSite *out) {
  for (auto &[pc, site] : sites) {
    *out = site;
    out++->pc = module_offset(pc);
  }
}
