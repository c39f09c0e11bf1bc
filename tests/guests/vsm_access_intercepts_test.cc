// MSRs and I/O ports of VTL0 that VTL1 decides about: told with every field, not made, made again, skipped, changed or a fault as VTL1
// says; and what no host of ours can tell, which is refused.
#include "devices/hyperv/hv_status.h"
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/modes.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"

// Instructions whose address is known.
asm(R"(
.text
.code64
guest_probe_wrmsr:
  wrmsr
guest_probe_wrmsr_end:
  ret
guest_probe_rdmsr:
  rdmsr
guest_probe_rdmsr_end:
  ret
guest_probe_out:
  outb %al, %dx
guest_probe_out_end:
  ret
guest_probe_in:
  inw %dx, %ax
guest_probe_in_end:
  ret
guest_probe_ins:
  rep insb
guest_probe_ins_end:
  ret
)");

extern "C" {
extern char guest_probe_wrmsr[], guest_probe_wrmsr_end[], guest_probe_rdmsr[], guest_probe_rdmsr_end[], guest_probe_out[],
    guest_probe_out_end[], guest_probe_in[], guest_probe_in_end[], guest_probe_ins[], guest_probe_ins_end[];
}

namespace guest {
namespace {

using vmm::CrEvent;
using vmm::HvInterceptAccess;
using vmm::HvStatus;

constexpr uint64_t Bit(CrEvent event) { return uint64_t{1} << static_cast<unsigned>(event); }

constexpr uint32_t kEfer = 0xc000'0080, kLstar = 0xc000'0082, kSfmask = 0xc000'0084;
constexpr uint16_t kScratch = 0xe8;  // the TEST machine's register of one byte

constexpr uint64_t kNoTrap = Bit(CrEvent::kCr0Write) | Bit(CrEvent::kCr4Write) | Bit(CrEvent::kXcr0Write) | Bit(CrEvent::kGdtrWrite) |
                             Bit(CrEvent::kIdtrWrite) | Bit(CrEvent::kLdtrWrite) | Bit(CrEvent::kTrWrite);

// CrInterceptControl of this processor's VTL1.
uint64_t Control(uint64_t events) {
  uint64_t answer = 0;
  InVtl1([&] { answer = SetRegister(HvRegisterName::kCrInterceptControl, {events, 0}); });
  return answer;
}
class Watched final {
 public:
  explicit Watched(uint64_t events) {
    if (Control(events) != Success(1)) Fatal("CrInterceptControl refuses", events);
  }
  ~Watched() { (void)Control(0); }
};

uint64_t InstallPort(uint16_t port, uint32_t access, uint32_t type = vmm::kHvInterceptIoPort) {
  Block().Put(vmm::HvInstallInterceptInput{
      .partition_id = vmm::kHvPartitionIdSelf, .access = access, .type = type, .parameter = port});
  return CallMemory({.code = HypercallCode::kInstallIntercept});
}
class WatchedPort final {
 public:
  WatchedPort(uint16_t port, uint32_t access) : port_(port) {
    uint64_t answer = 0;
    InVtl1([&] { answer = InstallPort(port, access); });
    if (answer != Success()) Fatal("a port cannot be intercepted", port);
  }
  ~WatchedPort() {
    InVtl1([&] { (void)InstallPort(port_, 0); });
  }

 private:
  const uint16_t port_;
};

uint64_t At(const char* label) { return reinterpret_cast<uint64_t>(label); }

// The probe with marks in the registers that it leaves alone; RAX, RDX afterwards.
struct Result {
  uint64_t rax, rdx;
};
Result Probe(const char* probe, uint64_t rax, uint64_t rcx, uint64_t rdx, uint64_t rdi = 0) {
  Registers r{.rax = rax, .rbx = 0x2222, .rcx = rcx, .rdx = rdx, .rsi = 0x5555, .rdi = rdi,
              .r8 = 0x8888, .r9 = 0x9999, .r10 = 0x1010, .r11 = 0x1111, .r12 = 0x1212, .r13 = 0x1313};
  CallWithRegisters(At(probe), r);
  return {r.rax, r.rdx};
}

void ExpectHeader(const vmm::HvInterceptHeader& h, HvInterceptAccess access, const char* begin, const char* end) {
  EXPECT_EQ(h.vp_index, ThisCpuNumber());
  EXPECT_EQ(h.access, access);
  EXPECT_EQ(h.rip, At(begin));
  EXPECT_EQ(h.instruction_length, end - begin);
  EXPECT_EQ(h.execution_state, vmm::kHvExecutionProtected | vmm::kHvExecutionLongMode);
  EXPECT_EQ(h.cs.selector, 0x08);
  EXPECT_EQ(h.rflags & 0x202, 0x202u);
}

TEST(AWriteOfAnMsrIsDescribedAndNotMade) {
  EnableVtl1();
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint64_t before = ReadMsr(kLstar);
    const Watched watched(Bit(CrEvent::kLstarWrite));
    const Intercepts seen = Intercepted(Reply::kSkip, [] { (void)Probe(guest_probe_wrmsr, 0x1234'5678, kLstar, 0xffff'8000); });
    ASSERT_EQ(seen.count, 1u);
    EXPECT_EQ(seen.messages[0].header.type, vmm::HvMessageType::kX64MsrIntercept);
    EXPECT_EQ(seen.messages[0].header.payload_size, sizeof(vmm::HvMsrIntercept));
    const auto& m = seen.As<vmm::HvMsrIntercept>(0);
    ExpectHeader(m.header, HvInterceptAccess::kWrite, guest_probe_wrmsr, guest_probe_wrmsr_end);
    EXPECT_EQ(m.msr, kLstar);
    EXPECT_EQ(m.rax, 0x1234'5678u);
    EXPECT_EQ(m.rdx, 0xffff'8000u);
    EXPECT_EQ(ReadMsr(kLstar), before);
  });
}

TEST(AReadOfAnMsrIsDescribedAndAnsweredByVtl1) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const Watched watched(Bit(CrEvent::kEferRead));
    SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame& frame) {
      frame.rax = 0xcafe;
      frame.rdx = 0xd00d;
      (void)SetRegister(HvRegisterName::kRip, {At(guest_probe_rdmsr_end), 0}, {.input_vtl = OfVtl(0)});
    });
    const Result answer = Probe(guest_probe_rdmsr, 0x77, kEfer, 0x88);
    const Intercepts seen = SeenOf(ThisCpuNumber());
    SetReply(Reply::kFatal);
    ASSERT_EQ(seen.count, 1u);
    const auto& m = seen.As<vmm::HvMsrIntercept>(0);
    ExpectHeader(m.header, HvInterceptAccess::kRead, guest_probe_rdmsr, guest_probe_rdmsr_end);
    EXPECT_EQ(m.msr, kEfer);
    EXPECT_EQ(m.rax, 0x77u);
    EXPECT_EQ(m.rdx, 0x88u);
    EXPECT_EQ(answer.rax, 0xcafeu);
    EXPECT_EQ(answer.rdx, 0xd00du);
  });
}

// As often as it is made, until VTL1 wants to hear of it no more; then it happens, once.
TEST(AWriteIsMadeAgainUntilItIsLet) {
  const uint64_t before = ReadMsr(kSfmask);
  const Watched watched(Bit(CrEvent::kSfmaskWrite));
  SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame&) {
    if (SeenOf(ThisCpuNumber()).count == 5) (void)SetRegister(HvRegisterName::kCrInterceptControl, {0, 0});
  });
  (void)Probe(guest_probe_wrmsr, 0x700, kSfmask, 0);
  const Intercepts seen = SeenOf(0);
  SetReply(Reply::kFatal);
  EXPECT_EQ(seen.count, 5u);
  for (uint32_t i = 1; i < 5; ++i) EXPECT_EQ(memcmp(&seen.messages[0], &seen.messages[i], sizeof(vmm::HvMessage)), 0);
  EXPECT_EQ(ReadMsr(kSfmask), 0x700u);
  WriteMsr(kSfmask, before);
}

// As secure kernels do: VTL1 writes the register itself, a value of its own if it likes, and moves VTL0 on.
TEST(Vtl1MayWriteInVtl0sPlace) {
  const uint64_t before = ReadMsr(kLstar);
  const Watched watched(Bit(CrEvent::kLstarWrite));
  SetReply(Reply::kCall, [](const vmm::HvMessage& message, VtlFrame&) {
    const auto& header = *reinterpret_cast<const vmm::HvInterceptHeader*>(message.payload);
    (void)SetRegister(HvRegisterName::kLstar, {0x4321'0000, 0}, {.input_vtl = OfVtl(0)});
    (void)SetRegister(HvRegisterName::kRip, {header.rip + header.instruction_length, 0}, {.input_vtl = OfVtl(0)});
  });
  WriteMsr(kLstar, 0x1111'0000);
  SetReply(Reply::kFatal);
  EXPECT_EQ(ReadMsr(kLstar), 0x4321'0000u);
  (void)Control(0);
  WriteMsr(kLstar, before);
}

TEST(AnAccessMayBeAFault) {
  const Watched watched(Bit(CrEvent::kLstarWrite));
  const uint64_t before = ReadMsr(kLstar);
  SetReply(Reply::kRaise);
  const Fault fault = Catch([] { (void)Probe(guest_probe_wrmsr, 1, kLstar, 0); });
  EXPECT_EQ(SeenOf(ThisCpuNumber()).count, 1u);
  SetReply(Reply::kFatal);
  EXPECT_EQ(fault.vector, kGeneralProtection);
  EXPECT_EQ(fault.rip, At(guest_probe_wrmsr));
  EXPECT_EQ(ReadMsr(kLstar), before);
}

// Every MSR that CrInterceptControl knows, in the direction that was asked for and no other.
TEST(EveryMsrAndNoOther) {
  struct Row {
    uint32_t msr;
    CrEvent event;
    bool write;
  };
  static constexpr Row kRows[] = {
      {0x1a0, CrEvent::kMiscEnableRead, false},      {0x1a0, CrEvent::kMiscEnableWrite, true},
      {0xc000'0082, CrEvent::kLstarRead, false},     {0xc000'0082, CrEvent::kLstarWrite, true},
      {0xc000'0081, CrEvent::kStarRead, false},      {0xc000'0081, CrEvent::kStarWrite, true},
      {0xc000'0083, CrEvent::kCstarRead, false},     {0xc000'0083, CrEvent::kCstarWrite, true},
      {0x1b, CrEvent::kApicBaseRead, false},         {0x1b, CrEvent::kApicBaseWrite, true},
      {0xc000'0080, CrEvent::kEferRead, false},      {0xc000'0080, CrEvent::kEferWrite, true},
      {0x174, CrEvent::kSysenterCsWrite, true},      {0x176, CrEvent::kSysenterEipWrite, true},
      {0x175, CrEvent::kSysenterEspWrite, true},     {0xc000'0084, CrEvent::kSfmaskWrite, true},
      {0xc000'0103, CrEvent::kTscAuxWrite, true},    {0x8c, CrEvent::kSgxControlWrite, true},
      {0x8f, CrEvent::kSgxControlWrite, true},
  };
  Tally tally;
  for (const Row& row : kRows) {
    uint64_t before = 0;
    const bool readable = !TryReadMsr(row.msr, before).raised();
    const Watched watched(Bit(row.event));
    SetReply(Reply::kSkip);
    if (row.write) {
      (void)Probe(guest_probe_wrmsr, 0x5a, row.msr, 0x5a);
    } else {
      (void)Probe(guest_probe_rdmsr, 0, row.msr, 0);
    }
    tally.Equal(SeenOf(ThisCpuNumber()).count, 1, "is told");
    tally.Equal(SeenOf(ThisCpuNumber()).As<vmm::HvMsrIntercept>(0).msr, row.msr, "the number");
    // The other direction is not.
    SetReply(Reply::kSkip);
    uint64_t value = 0;
    if (row.write) {
      tally.Equal(TryReadMsr(row.msr, value).raised(), !readable, "a read");
      tally.Equal(value, before, "what was not written");
    } else {
      tally.Equal(TryWriteMsr(row.msr, before).raised(), false, "a write");
    }
    tally.Equal(SeenOf(ThisCpuNumber()).count, 0, "the other way");
    SetReply(Reply::kFatal);
  }
  EXPECT_TRUE(tally.ok());
}

// What another processor asks for is nothing to this one: its accesses are made as ever, #GP for what is none included.
TEST(AnotherProcessorsInterceptsAreItsOwn) {
  if (CpuCount() < 2) SKIP("one processor");
  static constexpr uint64_t kAll = Bit(CrEvent::kEferRead) | Bit(CrEvent::kEferWrite) | Bit(CrEvent::kLstarRead) |
                                   Bit(CrEvent::kLstarWrite) | Bit(CrEvent::kApicBaseWrite) | Bit(CrEvent::kMiscEnableWrite) |
                                   Bit(CrEvent::kSgxControlWrite) | Bit(CrEvent::kSysenterEspWrite);
  EXPECT_EQ(Control(kAll), Success(1));
  OnCpu(1, [] {
    SetReply(Reply::kFatal);
    const uint64_t efer = ReadMsr(kEfer), lstar = ReadMsr(kLstar), apic = ReadMsr(0x1b);
    EXPECT_NE(efer & 0x400, 0u);
    WriteMsr(kEfer, efer ^ 1);
    EXPECT_EQ(ReadMsr(kEfer), efer ^ 1);
    WriteMsr(kEfer, efer);
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kEfer, efer ^ 0x100));  // long mode while paging
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kEfer, efer | 0x1000));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kEfer, efer | 2));
    EXPECT_EQ(ReadMsr(kEfer), efer);
    WriteMsr(kLstar, 0x1234'5000);
    EXPECT_EQ(ReadMsr(kLstar), 0x1234'5000u);
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kLstar, uint64_t{1} << 63));
    WriteMsr(kLstar, lstar);
    WriteMsr(0x1b, apic);
    EXPECT_FAULT(kGeneralProtection, WriteMsr(0x1b, apic | uint64_t{1} << 60));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(0x8c, 1));
    WriteMsr(0x175, 0x4321);
    EXPECT_EQ(ReadMsr(0x175), 0x4321u);
    WriteMsr(0x175, 0);
  });
  EXPECT_EQ(Control(0), Success(1));
}

// Nothing is accepted that does not happen.
TEST(WhatCannotBeToldIsRefused) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    uint64_t control = ~uint64_t{0};
    InVtl1([&] {
      for (uint32_t bit = 0; bit < 64; ++bit) {
        const bool possible = bit < 25 && (kNoTrap >> bit & 1) == 0;
        const uint64_t want = possible ? Success(1) : Answer(HvStatus::kInvalidRegisterValue);
        if (SetRegister(HvRegisterName::kCrInterceptControl, {uint64_t{1} << bit, 0}) != want) Fatal("CrInterceptControl, bit", bit);
      }
      (void)SetRegister(HvRegisterName::kCrInterceptControl, {0, 0});
      control = RegisterValue(HvRegisterName::kCrInterceptControl);
    });
    EXPECT_EQ(control, 0u);
  });
}

TEST(RegistersAreVtl1sAlone) {
  EXPECT_NE(SetRegister(HvRegisterName::kCrInterceptControl, {0, 0}), Success(1));
  EXPECT_NE(SetRegister(HvRegisterName::kCrInterceptControl, {0, 0}, {.input_vtl = OfVtl(1)}), Success(1));
  EXPECT_EQ(InstallPort(kScratch, 3), Answer(HvStatus::kAccessDenied));
}

// --- Ports --------------------------------------------------------------------------------------------------------------------

TEST(AWriteOfAPortIsDescribedAndNotMade) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    Out8(kScratch, 0x11);
    const WatchedPort watched(kScratch, vmm::kHvInterceptWrite);
    const Intercepts seen = Intercepted(Reply::kSkip, [] { (void)Probe(guest_probe_out, 0xab22, 0x3333, kScratch); });
    ASSERT_EQ(seen.count, 1u);
    EXPECT_EQ(seen.messages[0].header.type, vmm::HvMessageType::kX64IoPortIntercept);
    EXPECT_EQ(seen.messages[0].header.payload_size, sizeof(vmm::HvIoPortIntercept));
    const auto& m = seen.As<vmm::HvIoPortIntercept>(0);
    ExpectHeader(m.header, HvInterceptAccess::kWrite, guest_probe_out, guest_probe_out_end);
    EXPECT_EQ(m.port, kScratch);
    EXPECT_EQ(m.access_info, 1);
    EXPECT_EQ(m.rax, 0xab22u);
    EXPECT_EQ(m.rcx, 0x3333u);
    EXPECT_EQ(m.rsi, 0x5555u);
    EXPECT_GE(m.instruction_byte_count, 1);
    EXPECT_EQ(m.instruction_bytes[0], 0xee);
    EXPECT_EQ(In8(kScratch), 0x11);  // reads are nobody's
  });
}

TEST(AReadOfAPortIsAnsweredByVtl1) {
  Out8(kScratch, 0x44);
  const WatchedPort watched(kScratch + 1, vmm::kHvInterceptRead);  // the second byte of a word
  SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame& frame) {
    frame.rax = 0xbeef;
    (void)SetRegister(HvRegisterName::kRip, {At(guest_probe_in_end), 0}, {.input_vtl = OfVtl(0)});
  });
  const Result answer = Probe(guest_probe_in, 0x7777, 0, kScratch);
  const Intercepts seen = SeenOf(0);
  SetReply(Reply::kFatal);
  ASSERT_EQ(seen.count, 1u);
  const auto& m = seen.As<vmm::HvIoPortIntercept>(0);
  ExpectHeader(m.header, HvInterceptAccess::kRead, guest_probe_in, guest_probe_in_end);
  EXPECT_EQ(m.port, kScratch);
  EXPECT_EQ(m.access_info, 2);
  EXPECT_EQ(m.rax, 0x7777u);
  EXPECT_EQ(answer.rax, 0xbeefu);
  EXPECT_EQ(In8(kScratch), 0x44);
}

TEST(APortsAccessIsMadeAgainUntilItIsLet) {
  Out8(kScratch, 0);
  const WatchedPort watched(kScratch, vmm::kHvInterceptRead | vmm::kHvInterceptWrite);
  SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame&) {
    if (SeenOf(ThisCpuNumber()).count == 3) (void)InstallPort(kScratch, 0);
  });
  Out8(kScratch, 0x77);
  EXPECT_EQ(SeenOf(0).count, 3u);
  SetReply(Reply::kFatal);
  EXPECT_EQ(In8(kScratch), 0x77);
}

TEST(AStringReadIsDescribedAndWritesNothing) {
  static const uint64_t page = GpaOf(AllocatePages(1));
  for (uint64_t i = 0; i < 64; ++i) Store<uint8_t>(page + i, static_cast<uint8_t>(i));
  Out8(kScratch, 0x99);
  const WatchedPort watched(kScratch, vmm::kHvInterceptRead);
  static bool untouched;
  untouched = true;
  SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame&) {
    for (uint64_t i = 0; i < 64; ++i) untouched = untouched && Load<uint8_t>(page + i) == i;
    if (SeenOf(ThisCpuNumber()).count == 2) (void)InstallPort(kScratch, 0);
  });
  (void)Probe(guest_probe_ins, 0, 5, kScratch, page + 8);
  const Intercepts seen = SeenOf(0);
  SetReply(Reply::kFatal);
  ASSERT_EQ(seen.count, 2u);
  EXPECT_TRUE(untouched);
  for (uint32_t i = 0; i < 2; ++i) {
    const auto& m = seen.As<vmm::HvIoPortIntercept>(i);
    ExpectHeader(m.header, HvInterceptAccess::kRead, guest_probe_ins, guest_probe_ins_end);
    EXPECT_EQ(m.access_info, 1 | vmm::kHvIoAccessString | vmm::kHvIoAccessRep);
    EXPECT_EQ(m.rcx, 5u);
    EXPECT_EQ(m.rdi, page + 8);
  }
  for (uint64_t i = 0; i < 64; ++i) EXPECT_EQ(Load<uint8_t>(page + i), i >= 8 && i < 13 ? 0x99 : i);
}

// KVM has gone on behind it when it tells: it is held meanwhile.
TEST(AStringWriteIsHeldUntilItIsLet) {
  static const uint64_t page = GpaOf(AllocatePages(1));
  for (uint64_t i = 0; i < 8; ++i) Store<uint8_t>(page + i, static_cast<uint8_t>(0x50 + i));
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{3}}) {
    const Context context("bytes", bytes);
    Out8(kScratch, 0x11);
    const WatchedPort watched(kScratch, vmm::kHvInterceptWrite);
    static bool untouched;
    untouched = true;
    SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame&) {
      untouched = untouched && In8(kScratch) == 0x11;
      if (SeenOf(ThisCpuNumber()).count == 2) (void)InstallPort(kScratch, 0);
    });
    uint64_t from = page, count = bytes;
    if (bytes == 1) {
      asm volatile("outsb" : "+S"(from) : "d"(kScratch) : "memory");
    } else {
      asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(kScratch) : "memory");
    }
    const Intercepts seen = SeenOf(0);
    SetReply(Reply::kFatal);
    ASSERT_EQ(seen.count, 2u);
    EXPECT_TRUE(untouched);
    const auto& m = seen.As<vmm::HvIoPortIntercept>(0);
    EXPECT_EQ(m.header.access, HvInterceptAccess::kWrite);
    EXPECT_EQ(m.port, kScratch);
    EXPECT_EQ(m.access_info, 1 | vmm::kHvIoAccessString);
    EXPECT_EQ(m.header.instruction_length, 0);
    EXPECT_EQ(from, page + bytes);
    EXPECT_EQ(In8(kScratch), 0x50 + bytes - 1);
  }
}

TEST(AStringWriteThatIsDeniedIsNotMade) {
  static const uint64_t page = GpaOf(AllocatePages(1));
  Store<uint8_t>(page, 0x66);
  Out8(kScratch, 0x11);
  const WatchedPort watched(kScratch, vmm::kHvInterceptWrite);
  uint64_t from = page;
  const Intercepts seen = Intercepted(Reply::kSkip, [&] { asm volatile("outsb" : "+S"(from) : "d"(kScratch) : "memory"); });
  EXPECT_EQ(seen.count, 1u);
  SetReply(Reply::kRaise);
  const Fault fault = Catch([&] {
    from = page;
    asm volatile("outsb" : "+S"(from) : "d"(kScratch) : "memory");
  });
  SetReply(Reply::kFatal);
  EXPECT_EQ(fault.vector, kGeneralProtection);
  EXPECT_EQ(In8(kScratch), 0x11);
}

TEST(PortsOfTheKernelsControllersAreRefused) {
  Tally tally;
  InVtl1([&] {
    for (const uint16_t port : {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1}) {
      tally.Equal(InstallPort(port, 3), Answer(HvStatus::kFeatureUnavailable), "a port that cannot be intercepted");
      tally.Equal(InstallPort(port, 0), Success(), "nothing to intercept");
    }
    tally.Equal(InstallPort(0xffff, 3), Success(), "the last port");
    tally.Equal(InstallPort(0xffff, 0), Success(), "the last port, no longer");
    tally.Equal(InstallPort(0x80, 4), Answer(HvStatus::kInvalidParameter), "execution of a port");
    tally.Equal(InstallPort(0x80, 1, 1), Answer(HvStatus::kInvalidParameter), "another type");
  });
  EXPECT_TRUE(tally.ok());
}

// All processors at once, each with its own accesses and answers: none lost, none doubled, none made.
TEST(AStormOfAccesses) {
  static constexpr uint32_t kTimes = 50;
  static Tally tally;
  OnAllCpus([] {
    const uint32_t cpu = ThisCpuNumber();
    const uint64_t before = ReadMsr(kLstar);
    const Watched watched(Bit(CrEvent::kLstarWrite));
    SetReply(Reply::kSkip);
    for (uint32_t i = 0; i < kTimes; ++i) {
      WriteMsr(kLstar, uint64_t{cpu} << 32 | i);
      tally.Equal(SeenOf(cpu).count, i + 1, "intercepts");
    }
    SetReply(Reply::kFatal);
    tally.Equal(ReadMsr(kLstar), before, "what was not written");
  });
  EXPECT_TRUE(tally.ok());
}

}  // namespace
}  // namespace guest
