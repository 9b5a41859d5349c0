// A CUDA thread is a fiber: a stack, and the registers that a call preserves. Elsewhere than on x86-64 and aarch64, or with
// EMU_UCONTEXT, the switch is the C library's, which is slow, because it asks the system each time.
#pragma once
#include <cstddef>
#include <cstring>

#if !defined(EMU_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define EMU_UCONTEXT 1
#endif

#ifdef EMU_UCONTEXT
#include <ucontext.h>

typedef ucontext_t Context;
inline void prepare(Context &c, char *stack, size_t bytes, void (*run)()) {
  getcontext(&c);
  c.uc_stack.ss_sp = stack, c.uc_stack.ss_size = bytes, c.uc_link = nullptr;
  makecontext(&c, run, 0);
}
inline void switch_to(Context &from, Context &to) { swapcontext(&from, &to); }

#else

struct Context { void *stack_pointer; };
extern "C" void emu_switch(void **save, void *to);
inline void switch_to(Context &from, Context &to) { emu_switch(&from.stack_pointer, to.stack_pointer); }

#if defined(__x86_64__)
// By `jmp`: the processor would predict a `ret` to return to the other fiber's caller, and be wrong each time.
asm(R"(
.text
.hidden emu_switch
.globl emu_switch
.type emu_switch, @function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmpq *%rcx
.size emu_switch, . - emu_switch
)");
inline void prepare(Context &c, char *stack, size_t bytes, void (*run)()) {
  void **top = (void **)((size_t)(stack + bytes) & ~size_t(15));
  *--top = nullptr;  // no caller; a function starts 8 bytes off a multiple of 16
  *--top = (void *)run;
  for (int preserved = 0; preserved < 6; ++preserved) *--top = nullptr;
  c.stack_pointer = top;
}
#else
asm(R"(
.text
.hidden emu_switch
.globl emu_switch
.type emu_switch, %function
emu_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emu_switch, . - emu_switch
)");
inline void prepare(Context &c, char *stack, size_t bytes, void (*run)()) {
  void **top = (void **)((size_t)(stack + bytes) & ~size_t(15)) - 20;
  memset(top, 0, 20 * sizeof(void *));
  top[11] = (void *)run;  // where x30 is kept: the address to return to
  c.stack_pointer = top;
}
#endif
#endif
