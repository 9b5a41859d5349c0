// What went wrong and where; signals as reports; the time limit.
#include "runtime.h"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <ctime>
#include <link.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

bool failed() { return launch->report.failed != 0; }

// ---- reports

void also(const void *pc, const char *label, ...) {
  EmuReport &r = launch->report;
  if (r.places == 0) r.places = 1;  // the first one belongs to the thread that fails
  if (r.places == sizeof r.place / sizeof r.place[0]) return;
  EmuPlace &place = r.place[r.places++];
  place.pc = module_offset(pc);
  va_list list;
  va_start(list, label);
  vsnprintf(place.label, sizeof place.label, label, list);
  va_end(list);
}

void report(const Fiber *at, const char *what, ...) {
  EmuReport &r = launch->report;
  if (r.failed) return;
  r.failed = 1, r.block = at ? at->block->id : -1, r.thread = at ? at->index : -1;
  va_list list;
  va_start(list, what);
  vsnprintf(r.what, sizeof r.what, what, list);
  va_end(list);
  if (!at) return;
  if (r.places == 0) r.places = 1;
  r.place[0].pc = module_offset(at->pc);
  snprintf(r.place[0].label, sizeof r.place[0].label, "block %u, thread %u", at->block->id, at->index);
}

// ---- the text's machine code

static struct { u64 base, from, to, code, code_end; } module;

void find_module(const void *anchor) {
  module = {};
  dl_iterate_phdr([](dl_phdr_info *info, size_t, void *wanted) {
    u64 p = u64(wanted), base = info->dlpi_addr, from = ~u64(0), to = 0, code = 0, code_end = 0;
    for (int k = 0; k < info->dlpi_phnum; ++k) {
      const ElfW(Phdr) &h = info->dlpi_phdr[k];
      if (h.p_type != PT_LOAD) continue;
      u64 start = base + h.p_vaddr, end = start + h.p_memsz;
      from = start < from ? start : from, to = end > to ? end : to;
      if (h.p_flags & PF_X) code = start, code_end = end;
    }
    if (p < from || p >= to) return 0;
    module = {base, from, to, code, code_end};
    return 1;
  }, const_cast<void *>(anchor));
}

bool in_module(const void *p) { return u64(p) >= module.from && u64(p) < module.to; }
u64 module_offset(const void *pc) { return in_module(pc) ? u64(pc) - module.base : 0; }

// ---- signals

static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM};
static struct sigaction old[5];
static sigjmp_buf start;
static pthread_t launcher;

static u64 interrupted_at(void *context) {
  auto &machine = ((ucontext_t *)context)->uc_mcontext;
#if defined(__x86_64__)
  return u64(machine.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return machine.pc;
#else
  return (void)machine, 0;
#endif
}

static void describe(int signal, const char *address) {
  const Fiber *f = running;
  if (signal == SIGVTALRM) report(f, "the time limit of %g s is over: an endless loop?", launch->seconds);
  else if (signal == SIGFPE) report(f, "an arithmetic exception, as of a division of integers by zero");
  else if (signal == SIGILL) report(f, "an instruction that this machine does not have, or a trap");
  else if (address >= f->stack - STACK && address < f->stack)
    report(f, "the local variables of a thread take more than the %zu bytes of its stack", STACK);
  else report(f, "a segmentation fault at address %p", (const void *)address);
}

static void on_signal(int signal, siginfo_t *info, void *context) {
  if (!launch || !running || !pthread_equal(pthread_self(), launcher)) {  // not ours: it happens again, to the old handler
    for (int k = 0; k < 5; ++k)
      if (SIGNALS[k] == signal && signal != SIGVTALRM) sigaction(signal, &old[k], nullptr);
    return;
  }
  u64 pc = interrupted_at(context);
  bool in_text = pc >= module.code && pc < module.code_end;
  if (signal == SIGVTALRM && !in_text && pc) return;  // the runtime is not to be left halfway; the timer goes on
  if (in_text) running->pc = (const void *)(pc + 1);
  describe(signal, (const char *)info->si_addr);
  siglongjmp(start, 1);
}

static timer_t start_timer() {
  struct sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGVTALRM;
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
  event.sigev_notify_thread_id = pid_t(syscall(SYS_gettid));
  timer_t timer = {};
  timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer);
  struct itimerspec when = {};
  when.it_value.tv_sec = time_t(launch->seconds);
  when.it_value.tv_nsec = long((launch->seconds - double(when.it_value.tv_sec)) * 1e9) + 1;
  when.it_interval.tv_nsec = 10'000'000;  // again and again, until it meets the text
  timer_settime(timer, 0, &when, nullptr);
  return timer;
}

bool guarded(void (*run)()) {
  static char stack[64 << 10];  // a handler cannot run on a stack that has overflown
  stack_t mine = {}, before;
  mine.ss_sp = stack, mine.ss_size = sizeof stack;
  launcher = pthread_self();
  sigaltstack(&mine, &before);
  struct sigaction action = {};
  action.sa_sigaction = on_signal, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int k = 0; k < 5; ++k) {
    sigaction(SIGNALS[k], &action, &old[k]);
    if (old[k].sa_sigaction == on_signal) old[k] = {};  // forked while its parent was here
  }
  timer_t timer = start_timer();
  bool whole = sigsetjmp(start, 1) == 0;
  if (whole) run();
  timer_delete(timer);
  for (int k = 0; k < 5; ++k) sigaction(SIGNALS[k], &old[k], nullptr);
  sigaltstack(&before, nullptr);
  return whole;
}

// ---- what the compiler's own checks found

#pragma GCC visibility push(default)
extern "C" void __ubsan_handle_type_mismatch_v1(void *data, void *p) {
  unsigned alignment = 1u << ((const u8 *)data)[24];
  if (enter(EMU_HERE)) fail("misaligned: %lu bytes off an address that is a multiple of %u", size_t(p) % alignment, alignment);
}
extern "C" void __ubsan_handle_out_of_bounds(void *, size_t index) {
  if (enter(EMU_HERE)) fail("out of bounds: the index %ld of an array", long(index));
}
#pragma GCC visibility pop
