#include "tests/guests/hyperv/vsm_level.h"

#include "devices/hyperv/hv_msr_layout.h"
#include "tests/guests/hyperv/vp_context.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/per_cpu.h"
#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/test.h"

// VTL1's first entry has its stack pointer at a VtlFrame. Returns load the frame, and the entry that follows fills it.
asm(R"(
.text
.code64
guest_secure_entry:
  movq %rax, 0(%rsp)
  movq %rcx, 8(%rsp)
  movq %rdx, 16(%rsp)
  movq %rbx, 24(%rsp)
  movq %rbp, 32(%rsp)
  movq %rsi, 40(%rsp)
  movq %rdi, 48(%rsp)
  movq %r8, 56(%rsp)
  movq %r9, 64(%rsp)
  movq %r10, 72(%rsp)
  movq %r11, 80(%rsp)
  movq %r12, 88(%rsp)
  movq %r13, 96(%rsp)
  movq %r14, 104(%rsp)
  movq %r15, 112(%rsp)
  cld
  movq %rsp, %rdi
  xorl %ebp, %ebp
  call guest_secure_main

guest_vtl_return:
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  pushq %rdi
  movq %rdi, %rax
  movq %rsi, %rcx
  movq 16(%rax), %rdx
  movq 24(%rax), %rbx
  movq 32(%rax), %rbp
  movq 40(%rax), %rsi
  movq 48(%rax), %rdi
  movq 56(%rax), %r8
  movq 64(%rax), %r9
  movq 72(%rax), %r10
  movq 80(%rax), %r11
  movq 88(%rax), %r12
  movq 96(%rax), %r13
  movq 104(%rax), %r14
  movq 112(%rax), %r15
  call *guest_vtl_return_entry
  pushq %rax
  movq 8(%rsp), %rax
  movq %rcx, 8(%rax)
  movq %rdx, 16(%rax)
  movq %rbx, 24(%rax)
  movq %rbp, 32(%rax)
  movq %rsi, 40(%rax)
  movq %rdi, 48(%rax)
  movq %r8, 56(%rax)
  movq %r9, 64(%rax)
  movq %r10, 72(%rax)
  movq %r11, 80(%rax)
  movq %r12, 88(%rax)
  movq %r13, 96(%rax)
  movq %r14, 104(%rax)
  movq %r15, 112(%rax)
  popq (%rax)
  popq %rdi
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  cld
  ret
)");

extern "C" {
extern char guest_secure_entry[];
extern uint64_t page_map[], page_directories[];
uint64_t guest_vtl_return_entry;  // address in VTL1's hypercall page
[[noreturn]] void guest_secure_main(guest::VtlFrame* frame);
void guest_vtl_return(guest::VtlFrame* frame, uint64_t control);
}

namespace guest {
namespace {

using vmm::HvMessageType;

constexpr uint64_t kPat = 0x0007'0406'0007'0406;
constexpr uint64_t kPageMapPages = 6;  // top, upper, four directories
constexpr uint32_t kTooMany = 100'000;

struct SecureCpu {
  uint8_t* stack = nullptr;
  vmm::HvVpAssistPage* assist = nullptr;
  vmm::HvMessage* messages = nullptr;
  VtlCounts counts{};
  bool fast = false;
  bool open = false;
  Reply reply = Reply::kFatal;
  InterceptHandler handler = nullptr;
  Intercepts seen{};
};
SecureCpu g_secure[kMaxVsmCpus];
Level g_level1{.number = 1, .cpus = nullptr, .handlers = {}, .idt = {}};
uint64_t g_secure_cr3 = 0;
uint64_t g_call_entry = 0;
uint32_t g_enabled_cpus = 0;
bool g_protection = false;

SecureCpu& Me() { return g_secure[ThisCpuNumber()]; }

// The runtime's map, for VTL1 alone.
uint64_t CopyPageMap() {
  auto* const copy = static_cast<uint64_t*>(AllocatePages(kPageMapPages));
  memcpy(copy + 1024, page_directories, 4 * kPageBytes);
  for (uint64_t i = 0; i < 4; ++i) copy[512 + i] = GpaOf(copy + 1024 + i * 512) | 7;
  copy[0] = GpaOf(copy + 512) | 7;
  return GpaOf(copy);
}

uint64_t Offset(unsigned shift) { return RegisterValue(HvRegisterName::kVsmCodePageOffsets) >> shift & 0xfff; }

// The registers of this VTL1, in the order in which real secure kernels write them.
void SetUpSynic(SecureCpu& me) {
  me.assist = static_cast<vmm::HvVpAssistPage*>(AllocatePages(1));
  me.messages = static_cast<vmm::HvMessage*>(AllocatePages(1));
  WriteMsr(vmm::kHvMsrVpAssistPage, GpaOf(me.assist) | vmm::kHvOverlayEnable);
  EnableHypercalls();
  guest_vtl_return_entry = HypercallPage() + Offset(vmm::kHvVsmReturnOffsetShift);
  WriteMsr(vmm::kHvMsrSimp, GpaOf(me.messages) | vmm::kHvOverlayEnable);
  WriteMsr(vmm::kHvMsrSint0, kInterceptVector | vmm::kHvSintAutoEoi);
  WriteMsr(vmm::kHvMsrScontrol, vmm::kHvScontrolEnable);
}

void Skip(const vmm::HvInterceptHeader& header) {
  const uint64_t behind = header.rip + (header.instruction_length & 0xf);
  if (SetRegister(HvRegisterName::kRip, {behind, 0}, {.input_vtl = OfVtl(0)}) != Success(1)) Fatal("RIP of VTL0 cannot be set", behind);
}

void Raise() {
  constexpr uint64_t kEvent = vmm::kHvEventPending | vmm::kHvEventDeliverErrorCode |
                              uint64_t{kGeneralProtection} << vmm::kHvEventVectorShift;
  if (SetRegister(HvRegisterName::kPendingEvent0, {kEvent, 0}, {.input_vtl = OfVtl(0)}) != Success(1)) Fatal("no event for VTL0");
}

void AnswerIntercept(SecureCpu& me, const vmm::HvMessage& message, VtlFrame& frame) {
  const auto& header = *reinterpret_cast<const vmm::HvInterceptHeader*>(message.payload);
  const auto& memory = *reinterpret_cast<const vmm::HvMemoryIntercept*>(message.payload);
  switch (me.reply) {
    case Reply::kRetry: return;
    case Reply::kLift:
      if (ModifyProtection(memory.gpa, vmm::kHvProtectAll) != Success(1)) Fatal("a page cannot be freed", memory.gpa);
      return;
    case Reply::kSkip: return Skip(header);
    case Reply::kRaise: return Raise();
    case Reply::kCall: return me.handler(message, frame);
    case Reply::kFatal: break;
  }
  Line line;
  line << "# intercept ";
  line.Hex(static_cast<uint32_t>(message.header.type)) << ", rip ";
  line.Hex(header.rip) << ", gpa ";
  line.Hex(memory.gpa) << ", gva ";
  line.Hex(memory.gva);
  Print(line);
  Fatal("nobody expects an intercept on processor", ThisCpuNumber());
}

void TakeIntercepts(SecureCpu& me, VtlFrame& frame) {
  while (__atomic_load_n(reinterpret_cast<uint32_t*>(me.messages), __ATOMIC_ACQUIRE) != 0) {
    const vmm::HvMessage message = me.messages[0];
    if (me.seen.count < kMostIntercepts) me.seen.messages[me.seen.count] = message;
    if (++me.seen.count > kTooMany) Fatal("intercepts without end", kTooMany);
    AnswerIntercept(me, message, frame);
    __atomic_store_n(reinterpret_cast<uint32_t*>(me.messages), 0, __ATOMIC_SEQ_CST);
    const uint8_t flags = __atomic_load_n(&me.messages[0].header.flags, __ATOMIC_ACQUIRE);
    if ((flags & vmm::kHvMessagePending) != 0) WriteMsr(vmm::kHvMsrEom, 0);
  }
}

void Serve(SecureCpu& me, VtlFrame& frame, uint32_t reason) {
  if (reason == static_cast<uint32_t>(vmm::VtlEntryReason::kVtlCall)) {
    me.counts.calls.Add(1);
    if (frame.rdi != 0) {
      EnableInterrupts();
      reinterpret_cast<void (*)(void*)>(frame.rdi)(reinterpret_cast<void*>(frame.rsi));
      DisableInterrupts();
    }
  } else {
    (reason == static_cast<uint32_t>(vmm::VtlEntryReason::kInterrupt) ? me.counts.interrupts : me.counts.others).Add(1);
    // CR2 is VTL0's too, and VTL0 may be between a fault and the look at its address.
    const uint64_t cr2 = ReadCr2();
    asm volatile("sti; nop; nop; cli" : : : "memory");
    TakeIntercepts(me, frame);
    if (ReadCr2() != cr2) asm volatile("mov %0, %%cr2" : : "r"(cr2) : "memory");
  }
}

}  // namespace

HvInitialVpContext SecureContext(uint32_t cpu) {
  if (cpu >= kMaxVsmCpus) Fatal("too many processors", cpu);
  if (g_level1.cpus == nullptr) {
    g_level1.cpus = static_cast<Cpu*>(AllocatePages((sizeof(Cpu) * kMaxVsmCpus + kPageBytes - 1) / kPageBytes));
    g_secure_cr3 = CopyPageMap();
    g_level1.handlers[kInterceptVector] = [](InterruptFrame&) {};  // Serve looks at the slot
    g_level1.handlers[kSpuriousVector] = [](InterruptFrame&) {};
  }
  FillTables(g_level1, cpu);
  SecureCpu& secure = g_secure[cpu];
  if (secure.stack == nullptr) secure.stack = static_cast<uint8_t*>(AllocatePages(kStackBytes / kPageBytes));
  Cpu& tables = g_level1.cpus[cpu];
  HvInitialVpContext c =
      ContextLikeThis(reinterpret_cast<uint64_t>(guest_secure_entry), GpaOf(secure.stack) + kStackBytes - sizeof(VtlFrame));
  c.gs.base = GpaOf(&tables);
  c.tr.base = GpaOf(&tables.task);
  c.idtr = {.pad = {}, .limit = sizeof(g_level1.idt) - 1, .base = GpaOf(g_level1.idt)};
  c.gdtr = {.pad = {}, .limit = sizeof(tables.gdt) - 1, .base = GpaOf(tables.gdt)};
  c.cr3 = g_secure_cr3;
  c.pat = kPat;
  return c;
}

void EnableVtl1OnPartition() {
  EnableHypercalls();
  const uint64_t answer = EnablePartitionVtl(1);
  if (answer != Success()) Fatal("EnablePartitionVtl answers", answer);
}

void EnableVtl1OnThisCpu() {
  const uint64_t answer = EnableVpVtl(kSelf, 1, SecureContext(ThisCpuNumber()));
  if (answer != Success()) Fatal("EnableVpVtl answers", answer);
  g_call_entry = HypercallPage() + Offset(0);
  g_enabled_cpus = 1;
  CallInVtl1(nullptr, nullptr);
}

void EnableVtl1OnCpu(uint32_t cpu) {
  uint64_t answer = 0;
  const HvInitialVpContext context = SecureContext(cpu);
  InVtl1([&] { answer = EnableVpVtl(cpu, 1, context); });
  if (answer != Success()) Fatal("EnableVpVtl from VTL1 answers", answer);
  OnCpu(cpu, [] { CallInVtl1(nullptr, nullptr); });
  g_enabled_cpus = cpu + 1;
}

void EnableVtl1() {
  if (g_enabled_cpus == 0) {
    EnableVtl1OnPartition();
    EnableVtl1OnThisCpu();
  }
  while (g_enabled_cpus < CpuCount()) EnableVtl1OnCpu(g_enabled_cpus);
}

void EnableProtection() {
  EnableVtl1();
  if (g_protection) return;
  uint64_t answer = 0;
  InVtl1([&] {
    constexpr uint64_t kOn = vmm::kHvConfigEnableProtection | vmm::kHvConfigDefaultMask;
    answer = SetRegister(HvRegisterName::kVsmPartitionConfig, {kOn, 0});
  });
  if (answer != Success(1)) Fatal("VsmPartitionConfig answers", answer);
  g_protection = true;
}

uint64_t VtlCallEntry() { return g_call_entry; }
uint64_t VtlReturnEntry() { return guest_vtl_return_entry; }

void CallInVtl1(void (*function)(void*), void* argument) {
  uint64_t control = 0, rax = 0;
  asm volatile("call *%[entry]"
               : "+c"(control), "+a"(rax), "+D"(function), "+S"(argument)
               : [entry] "r"(g_call_entry)
               : "memory", "cc");
}

VtlCounts& CountsOf(uint32_t cpu) { return g_secure[cpu].counts; }
VtlFrame& FrameOf(uint32_t cpu) {
  return *reinterpret_cast<VtlFrame*>(g_secure[cpu].stack + kStackBytes - sizeof(VtlFrame));
}
vmm::HvVpAssistPage& AssistPage(uint32_t cpu) { return *g_secure[cpu].assist; }
vmm::HvMessage* SecureMessagePage(uint32_t cpu) { return g_secure[cpu].messages; }
uint64_t SecureInterruptCount(uint32_t cpu, uint8_t vector) { return g_level1.cpus[cpu].interrupts[vector].Load(); }
void SetFastReturn(bool fast) { Me().fast = fast; }
void SetOpenReturn(bool open) { Me().open = open; }

void SetReply(Reply reply, InterceptHandler handler) {
  SecureCpu& me = Me();
  me.handler = handler;
  me.seen.count = 0;
  me.reply = reply;
}
const Intercepts& SeenOf(uint32_t cpu) { return g_secure[cpu].seen; }

uint64_t Protect(uint64_t gpa, uint32_t flags, uint16_t pages) {
  uint64_t answer = 0;
  InVtl1([&] { answer = ModifyProtection(gpa, flags, pages); });
  return answer;
}

Protected::Protected(uint64_t gpa, uint32_t flags, uint16_t pages) : gpa_(gpa), pages_(pages) {
  const uint64_t answer = Protect(gpa, flags, pages);
  if (answer != Success(pages)) Fatal("pages cannot be protected", answer);
}
Protected::~Protected() {
  const uint64_t answer = Protect(gpa_, vmm::kHvProtectAll, pages_);
  if (answer != Success(pages_)) Fatal("pages cannot be freed", answer);
}

}  // namespace guest

void guest_secure_main(guest::VtlFrame* frame) {
  using namespace guest;
  SecureCpu& me = Me();
  SetUpSynic(me);
  EnableApic();
  me.counts.first_reason = *const_cast<const volatile uint32_t*>(&me.assist->entry_reason);
  uint32_t reason = static_cast<uint32_t>(vmm::VtlEntryReason::kVtlCall);
  while (true) {
    Serve(me, *frame, reason);
    volatile vmm::HvVpAssistPage& page = *me.assist;
    page.vtl_return_rax = frame->rax;
    page.vtl_return_rcx = frame->rcx;
    if (me.open) EnableInterrupts();
    guest_vtl_return(frame, me.fast ? 1 : 0);
    if (me.open) DisableInterrupts();
    reason = page.entry_reason;
  }
}
