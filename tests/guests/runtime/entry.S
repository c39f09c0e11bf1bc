// The multiboot header, the ways into long mode of the first and the other processors, exception stubs, and what C++ cannot say.
//
// Source   Multiboot Specification 0.6.96, "OS image format", "Machine state"; Intel SDM volume 3, "Initializing IA-32e Mode",
//          "Multiple-Processor Initialization".

.set MULTIBOOT_MAGIC, 0x1badb002
.set MULTIBOOT_FLAGS, 2  // tell us about memory

.set CPUS, 64            // kMaxCpus
.set STACK_BYTES, 0x4000  // kStackBytes
.set CODE64, 0x08
.set DATA, 0x10
.set CODE32, 0x18
.set USER_DATA, 0x23
.set USER_CODE64, 0x2b

.section .multiboot, "a"
  .balign 4
  .long MULTIBOOT_MAGIC
  .long MULTIBOOT_FLAGS
  .long -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

.text
.code32
.globl guest_entry
guest_entry:
  cli
  cld
  movl %eax, guest_boot_magic
  movl %ebx, guest_boot_info
  movl $guest_boot_main, guest_next
enter_long:
  // The initial APIC id is the processor's number here.
  movl $1, %eax
  cpuid
  shrl $24, %ebx
  movl %ebx, %edi
  cmpl $CPUS, %edi
  jae halt32
  leal 1(%edi), %eax
  imull $STACK_BYTES, %eax
  leal guest_stacks(%eax), %esp

  movl $page_map, %eax
  movl %eax, %cr3
  movl %cr4, %eax
  orl $0x620, %eax  // PAE, OSFXSR, OSXMMEXCPT
  movl %eax, %cr4
  movl $0xc0000080, %ecx
  rdmsr
  orl $0x900, %eax  // EFER: LME, NXE
  wrmsr
  movl %cr0, %eax
  andl $0x9fffffe3, %eax  // not CD, NW, TS, EM
  orl $0x80010023, %eax   // PG, WP, NE, MP, PE
  movl %eax, %cr0
  lgdt boot_gdt_pointer
  ljmp $CODE64, $long_entry
halt32:
  hlt
  jmp halt32

.code64
long_entry:
  movl $DATA, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  xorl %eax, %eax
  movl %eax, %fs
  movl %eax, %gs
  movl %esp, %esp
  movl %edi, %edi
  xorl %ebp, %ebp
  fninit
  movl guest_next, %eax
  call *%rax
1:
  cli
  hlt
  jmp 1b

// Copied below 1 MiB: other processors begin here, in real mode.
.code16
.globl guest_ap_trampoline, guest_ap_trampoline_end
guest_ap_trampoline:
  cli
  cld
  movw %cs, %ax
  movw %ax, %ds
  lgdtl (trampoline_gdt_pointer - guest_ap_trampoline)
  movl %cr0, %eax
  orb $1, %al
  movl %eax, %cr0
  ljmpl $CODE32, $ap_entry32
  .balign 4
trampoline_gdt_pointer:
  .word boot_gdt_end - boot_gdt - 1
  .long boot_gdt
guest_ap_trampoline_end:

.code32
ap_entry32:
  movl $DATA, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  jmp enter_long

// --- Exceptions and interrupts

.code64
.balign 16
.globl guest_interrupt_stubs
guest_interrupt_stubs:
.set number, 0
.rept 256
  .balign 16
  .if number == 8 || (number >= 10 && number <= 14) || number == 17 || number == 21 || number == 29 || number == 30
  .else
    pushq $0  // where the processor pushes no error code
  .endif
  pushq $number
  jmp interrupt_common
  .set number, number + 1
.endr

// The frame is InterruptFrame. The stack is aligned again at the call: 7 and 15 words on an aligned one.
interrupt_common:
  pushq %rax
  pushq %rcx
  pushq %rdx
  pushq %rbx
  pushq %rbp
  pushq %rsi
  pushq %rdi
  pushq %r8
  pushq %r9
  pushq %r10
  pushq %r11
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  cld
  movq %rsp, %rdi
  call guest_interrupt
.globl guest_interrupt_return
guest_interrupt_return:
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %r11
  popq %r10
  popq %r9
  popq %r8
  popq %rdi
  popq %rsi
  popq %rbp
  popq %rbx
  popq %rdx
  popq %rcx
  popq %rax
  addq $16, %rsp
  iretq

// void guest_catch(CatchFrame* frame, void (*function)(void*), void* argument)
.globl guest_catch, guest_catch_resume
guest_catch:
  movq %rbx, 0(%rdi)
  movq %rbp, 8(%rdi)
  movq %r12, 16(%rdi)
  movq %r13, 24(%rdi)
  movq %r14, 32(%rdi)
  movq %r15, 40(%rdi)
  leaq 8(%rsp), %rax
  movq %rax, 48(%rdi)
  movq (%rsp), %rax
  movq %rax, 56(%rdi)
  pushfq
  popq 64(%rdi)
  subq $8, %rsp
  movq %rdx, %rdi
  call *%rsi
  addq $8, %rsp
  ret

// void guest_enter_user(void (*function)(void*), void* argument, uint64_t stack, uint64_t flags), within guest_catch: the breakpoint
// behind the function ends it like a fault, and is none.
.globl guest_enter_user
guest_enter_user:
  pushq $USER_DATA
  pushq %rdx
  pushq %rcx
  pushq $USER_CODE64
  leaq user_start(%rip), %rax
  pushq %rax
  xchgq %rdi, %rsi
  iretq
user_start:
  call *%rsi
  int3

// void guest_call32(GuestCall32* call)
.globl guest_call32
guest_call32:
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  subq $8, %rsp
  movq %rdi, %rbp
  pushq $CODE32
  leaq begin32(%rip), %rax
  pushq %rax
  lretq
.code32
begin32:
  movl $DATA, %eax  // user mode has left none in them
  movl %eax, %ds
  movl %eax, %es
  movl 0(%ebp), %eax
  movl 4(%ebp), %ebx
  movl 8(%ebp), %ecx
  movl 12(%ebp), %edx
  movl 16(%ebp), %esi
  movl 20(%ebp), %edi
  call *24(%ebp)
  movl %eax, 0(%ebp)
  movl %ebx, 4(%ebp)
  movl %ecx, 8(%ebp)
  movl %edx, 12(%ebp)
  movl %esi, 16(%ebp)
  movl %edi, 20(%ebp)
  ljmp $CODE64, $end32
.code64
end32:
  movl %esp, %esp
  addq $8, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  ret

// A fault returns here, as if guest_catch had returned; RDI is the frame.
guest_catch_resume:
  movq 0(%rdi), %rbx
  movq 8(%rdi), %rbp
  movq 16(%rdi), %r12
  movq 24(%rdi), %r13
  movq 32(%rdi), %r14
  movq 40(%rdi), %r15
  movq 48(%rdi), %rsp
  movq 56(%rdi), %rax
  pushq 64(%rdi)
  popfq
  jmp *%rax

.data
.balign 4
.globl guest_boot_magic, guest_boot_info, guest_next
guest_boot_magic: .long 0
guest_boot_info: .long 0
guest_next: .long 0  // where a processor goes once it is in long mode

.balign 8
boot_gdt:
  .quad 0
  .quad 0x00af9b000000ffff  // CODE64
  .quad 0x00cf93000000ffff  // DATA
  .quad 0x00cf9b000000ffff  // CODE32
boot_gdt_end:
boot_gdt_pointer:
  .word boot_gdt_end - boot_gdt - 1
  .long boot_gdt

// The first 4 GiB, mapped to themselves in pages of 2 MiB, for user mode too; the last GiB uncached.
.balign 4096
.globl page_map
page_map:
  .quad page_upper + 7
  .fill 511, 8, 0
page_upper:
  .quad page_directories + 0x0007
  .quad page_directories + 0x1007
  .quad page_directories + 0x2007
  .quad page_directories + 0x3007
  .fill 508, 8, 0
.globl page_directories
page_directories:
.set page, 0
.rept 1536
  .quad (page << 21) | 0x87
  .set page, page + 1
.endr
.rept 512
  .quad (page << 21) | 0x9f
  .set page, page + 1
.endr

.bss
.balign 16
.globl guest_stacks
guest_stacks:
  .skip CPUS * STACK_BYTES

.section .note.GNU-stack, "", @progbits
