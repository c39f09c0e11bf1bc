#include "tests/guests/runtime/registers.h"

// R15 holds the registers and R14 the address.
asm(R"(
.text
.code64
guest_call_with_registers:
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rdi, %r14
  movq %rsi, %r15
  leaq 96(%r15), %rdi
  call guest_load_xmm
  movq 0(%r15), %rax
  movq 8(%r15), %rbx
  movq 16(%r15), %rcx
  movq 24(%r15), %rdx
  movq 32(%r15), %rsi
  movq 40(%r15), %rdi
  movq 48(%r15), %r8
  movq 56(%r15), %r9
  movq 64(%r15), %r10
  movq 72(%r15), %r11
  movq 80(%r15), %r12
  movq 88(%r15), %r13
  subq $8, %rsp
  call *%r14
  addq $8, %rsp
  movq %rax, 0(%r15)
  movq %rbx, 8(%r15)
  movq %rcx, 16(%r15)
  movq %rdx, 24(%r15)
  movq %rsi, 32(%r15)
  movq %rdi, 40(%r15)
  movq %r8, 48(%r15)
  movq %r9, 56(%r15)
  movq %r10, 64(%r15)
  movq %r11, 72(%r15)
  movq %r12, 80(%r15)
  movq %r13, 88(%r15)
  leaq 96(%r15), %rdi
  call guest_store_xmm
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  ret

guest_load_xmm:
  movdqu 0(%rdi), %xmm0
  movdqu 16(%rdi), %xmm1
  movdqu 32(%rdi), %xmm2
  movdqu 48(%rdi), %xmm3
  movdqu 64(%rdi), %xmm4
  movdqu 80(%rdi), %xmm5
  ret

guest_store_xmm:
  movdqu %xmm0, 0(%rdi)
  movdqu %xmm1, 16(%rdi)
  movdqu %xmm2, 32(%rdi)
  movdqu %xmm3, 48(%rdi)
  movdqu %xmm4, 64(%rdi)
  movdqu %xmm5, 80(%rdi)
  ret
)");

extern "C" {
void guest_call_with_registers(uint64_t address, guest::Registers* registers);
void guest_load_xmm(const uint64_t* words);
void guest_store_xmm(uint64_t* words);
}

namespace guest {

void CallWithRegisters(uint64_t address, Registers& registers) { guest_call_with_registers(address, &registers); }
void LoadXmm(const uint64_t (&words)[12]) { guest_load_xmm(words); }
void StoreXmm(uint64_t (&words)[12]) { guest_store_xmm(words); }

}  // namespace guest
