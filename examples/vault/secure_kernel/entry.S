// The secure kernel's header, its way in and out, its page map, and its descriptor tables.

.section .header, "a"
  .quad 0x4c4e524b544c5541  // struct vault_header of vault_abi.h
  .quad vault_image_end - 0x8000000
  .quad vault_entry
  .quad stack_top
  .quad page_map
  .quad thread_block
  .quad gdt
  .quad gdt_end - gdt - 1
  .quad vault_idt
  .quad 4095
  .quad task
  .quad VaultMaySign
.globl vault_protect
vault_protect:
  .quad 0

.text
// The first entry: with VTL0's general registers. They are kept in vault_frame: there is one processor.
.globl vault_entry
vault_entry:
  call save
  call VaultStart
1:
  call VaultServe
  call leave_and_enter
  jmp 1b

save:
  movq %rax, vault_frame + 0
  movq %rcx, vault_frame + 8
  movq %rdx, vault_frame + 16
  movq %rbx, vault_frame + 24
  movq %rbp, vault_frame + 32
  movq %rsi, vault_frame + 40
  movq %rdi, vault_frame + 48
  movq %r8, vault_frame + 56
  movq %r9, vault_frame + 64
  movq %r10, vault_frame + 72
  movq %r11, vault_frame + 80
  movq %r12, vault_frame + 88
  movq %r13, vault_frame + 96
  movq %r14, vault_frame + 104
  movq %r15, vault_frame + 112
  cld
  ret

// VTL0 goes on, with RAX and RCX from the assist page. What follows the call is the next entry.
leave_and_enter:
  movq vault_frame + 16, %rdx
  movq vault_frame + 24, %rbx
  movq vault_frame + 32, %rbp
  movq vault_frame + 40, %rsi
  movq vault_frame + 48, %rdi
  movq vault_frame + 56, %r8
  movq vault_frame + 64, %r9
  movq vault_frame + 72, %r10
  movq vault_frame + 80, %r11
  movq vault_frame + 88, %r12
  movq vault_frame + 96, %r13
  movq vault_frame + 104, %r14
  movq vault_frame + 112, %r15
  xorl %ecx, %ecx
  call *vault_return_entry
  jmp save

// uint64_t VaultHypercall(uint64_t control, uint64_t input, uint64_t output)
.globl VaultHypercall
VaultHypercall:
  movq %rdi, %rcx
  movq %rdx, %r8
  movq %rsi, %rdx
  jmp *vault_hypercall_page

// Interrupts are on for these instructions alone: the one that there is comes here, and says itself that it is over.
.globl VaultTakeInterrupts, vault_interrupt, vault_exception
VaultTakeInterrupts:
  sti
  nop
  cli
  ret
vault_interrupt:
  iretq
vault_exception:
  call VaultException

.data
.balign 8
gdt:
  .quad 0
  .quad 0x00af9b000000ffff
  .quad 0x00cf93000000ffff
gdt_end:

.balign 4096
page_map:
  .quad page_upper + 7
  .fill 511, 8, 0
page_upper:
  .quad page_directories + 0x0007
  .quad page_directories + 0x1007
  .quad page_directories + 0x2007
  .quad page_directories + 0x3007
  .fill 508, 8, 0
page_directories:  // 4 GiB, mapped to themselves; the last of them, with the local APIC, uncached
.set page, 0
.rept 1536
  .quad (page << 21) | 0x83
  .set page, page + 1
.endr
.rept 512
  .quad (page << 21) | 0x9b
  .set page, page + 1
.endr

.bss
.balign 4096
.globl vault_idt, vault_frame
vault_idt: .skip 4096
thread_block: .skip 64  // FS: where compiled code has its canary
task: .skip 104
.balign 16
vault_frame: .skip 128
stack: .skip 65536
stack_top:

.section .note.GNU-stack, "", @progbits
