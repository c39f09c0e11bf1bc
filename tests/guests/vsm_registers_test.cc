// Get/SetVpRegisters across levels: what VTL1 reads and writes in VTL0, and what nobody may.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using Name = HvRegisterName;

constexpr RegisterOf kVtl0{.input_vtl = OfVtl(0)};

uint64_t Low(Name name) { return RegisterValue(name, kVtl0); }
uint64_t SetLow(Name name, uint64_t low, uint64_t high = 0) { return SetRegister(name, {low, high}, kVtl0); }

TEST(Vtl0sRegistersAreReadAsTheyAre) {
  EnableVtl1();
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    struct {
      uint64_t cr0, cr3, cr4, cr8, efer, pat, star, gs, kernel_gs;
      uint16_t cs, ss, tr;
    } want;
    WriteMsr(0xc000'0082, 0xffff'8000'0000'1000);
    WriteMsr(0xc000'0102, 0x7777'0000);
    want = {.cr0 = ReadCr0(), .cr3 = ReadCr3(), .cr4 = ReadCr4(), .cr8 = ReadCr8(), .efer = ReadMsr(0xc000'0080),
            .pat = ReadMsr(0x277), .star = ReadMsr(0xc000'0081), .gs = ReadMsr(0xc000'0101), .kernel_gs = 0x7777'0000,
            .cs = 0, .ss = 0, .tr = 0};
    asm volatile("mov %%cs, %0; mov %%ss, %1; str %2" : "=r"(want.cs), "=r"(want.ss), "=r"(want.tr));
    struct [[gnu::packed]] {
      uint16_t limit;
      uint64_t base;
    } idt, gdt;
    asm volatile("sidt %0; sgdt %1" : "=m"(idt), "=m"(gdt));
    InVtl1([&] {
      EXPECT_EQ(Low(Name::kCr0), want.cr0);
      EXPECT_EQ(Low(Name::kCr3), want.cr3);
      EXPECT_EQ(Low(Name::kCr4), want.cr4);
      EXPECT_EQ(Low(Name::kCr8), want.cr8);
      EXPECT_EQ(Low(Name::kEfer), want.efer);
      EXPECT_EQ(Low(Name::kPat), want.pat);
      EXPECT_EQ(Low(Name::kStar), want.star);
      EXPECT_EQ(Low(Name::kLstar), 0xffff'8000'0000'1000u);
      EXPECT_EQ(Low(Name::kKernelGsBase), want.kernel_gs);
      EXPECT_EQ(Low(Name::kGs), want.gs);  // its base
      // Behind the page's exit: where VTL0 goes on.
      EXPECT_EQ(Low(Name::kRip) / kPageBytes, VtlCallEntry() / kPageBytes);
      EXPECT_EQ(Low(Name::kRflags) & 0x202, 0x202u);
      HvRegisterValue value{};
      EXPECT_EQ(GetRegister(Name::kCs, value, kVtl0), Success(1));
      EXPECT_EQ(value.high >> 32 & 0xffff, want.cs);
      EXPECT_EQ(value.high >> 48 & 0x20ff, 0x209bu);  // long, present, code
      EXPECT_EQ(GetRegister(Name::kSs, value, kVtl0), Success(1));
      EXPECT_EQ(value.high >> 32 & 0xffff, want.ss);
      EXPECT_EQ(GetRegister(Name::kTr, value, kVtl0), Success(1));
      EXPECT_EQ(value.high >> 32 & 0xffff, want.tr);
      EXPECT_EQ(GetRegister(Name::kIdtr, value, kVtl0), Success(1));
      EXPECT_EQ(value.high, idt.base);
      EXPECT_EQ(value.low >> 48, idt.limit);
      EXPECT_EQ(GetRegister(Name::kGdtr, value, kVtl0), Success(1));
      EXPECT_EQ(value.high, gdt.base);
      EXPECT_EQ(value.low >> 48, gdt.limit);
    });
  });
}

TEST(WhatVtl1WritesVtl0Has) {
  const uint64_t cr4 = ReadCr4(), pat = ReadMsr(0x277);
  constexpr uint64_t kTimeStampDisable = 4;
  InVtl1([&] {
    EXPECT_EQ(SetLow(Name::kLstar, 0xffff'9000'0000'2000), Success(1));
    EXPECT_EQ(SetLow(Name::kCstar, 0x3000), Success(1));
    EXPECT_EQ(SetLow(Name::kStar, 0x11'0008'0000'0000), Success(1));
    EXPECT_EQ(SetLow(Name::kSfmask, 0x700), Success(1));
    EXPECT_EQ(SetLow(Name::kSysenterCs, 0x8), Success(1));
    EXPECT_EQ(SetLow(Name::kSysenterEip, 0x4000), Success(1));
    EXPECT_EQ(SetLow(Name::kSysenterEsp, 0x5000), Success(1));
    EXPECT_EQ(SetLow(Name::kKernelGsBase, 0x6000), Success(1));
    EXPECT_EQ(SetLow(Name::kPat, 0x0007'0406'0007'0401), Success(1));
    EXPECT_EQ(SetLow(Name::kCr4, cr4 | kTimeStampDisable), Success(1));
    EXPECT_EQ(SetLow(Name::kCr8, 3), Success(1));
  });
  EXPECT_EQ(ReadMsr(0xc000'0082), 0xffff'9000'0000'2000u);
  EXPECT_EQ(ReadMsr(0xc000'0083), 0x3000u);
  EXPECT_EQ(ReadMsr(0xc000'0081), 0x11'0008'0000'0000u);
  EXPECT_EQ(ReadMsr(0xc000'0084), 0x700u);
  EXPECT_EQ(ReadMsr(0x174), 8u);
  EXPECT_EQ(ReadMsr(0x176), 0x4000u);
  EXPECT_EQ(ReadMsr(0x175), 0x5000u);
  EXPECT_EQ(ReadMsr(0xc000'0102), 0x6000u);
  EXPECT_EQ(ReadMsr(0x277), 0x0007'0406'0007'0401u);
  EXPECT_EQ(ReadCr4(), cr4 | kTimeStampDisable);
  EXPECT_EQ(ReadCr8(), 3u);
  WriteCr4(cr4);
  WriteCr8(0);
  WriteMsr(0x277, pat);
}

extern "C" char guest_elsewhere[];
asm(R"(
.text
.code64
guest_elsewhere:
  movq $0x1234, %rax
  ret
)");

// VTL0 goes on where VTL1 says, with the stack that it had: as if it had called that.
TEST(Vtl0GoesOnWhereItIsTold) {
  InVtl1([] {
    const uint64_t target = reinterpret_cast<uint64_t>(guest_elsewhere);
    EXPECT_EQ(SetLow(Name::kRip, target), Success(1));
    EXPECT_EQ(Low(Name::kRip), target);
  });
  EXPECT_EQ(ThisLevel(), 0u);
  InVtl1([] {
    const uint64_t flags = Low(Name::kRflags);
    EXPECT_EQ(SetLow(Name::kRflags, flags | 1 << 18), Success(1));  // AC
  });
  EXPECT_EQ(ReadFlags() >> 18 & 1, 1u);
  asm volatile("pushfq; andq $~0x40000, (%%rsp); popfq" : : : "memory", "cc");
}

TEST(AnExceptionIsGivenToVtl0) {
  // #GP(0x18), then #UD, then #PF with its address, each before VTL0's next instruction.
  const auto raise = [](uint64_t low, uint64_t high = 0) {
    return Catch([&] { InVtl1([&] { EXPECT_EQ(SetLow(Name::kPendingEvent0, low, high), Success(1)); }); });
  };
  Fault fault = raise(vmm::kHvEventPending | vmm::kHvEventDeliverErrorCode | 13 << vmm::kHvEventVectorShift |
                      uint64_t{0x18} << vmm::kHvEventErrorCodeShift);
  EXPECT_EQ(fault.vector, kGeneralProtection);
  EXPECT_EQ(fault.error_code, 0x18u);
  fault = raise(vmm::kHvEventPending | 6 << vmm::kHvEventVectorShift);
  EXPECT_EQ(fault.vector, kUndefinedOpcode);
  fault = raise(vmm::kHvEventPending | vmm::kHvEventDeliverErrorCode | 14 << vmm::kHvEventVectorShift |
                    uint64_t{2} << vmm::kHvEventErrorCodeShift,
                0x1234'5000);
  EXPECT_EQ(fault.vector, kPageFault);
  EXPECT_EQ(fault.error_code, 2u);
  EXPECT_EQ(fault.address, 0x1234'5000u);
  // Taken back before the return: nothing.
  fault = Catch([] {
    InVtl1([] {
      EXPECT_EQ(SetLow(Name::kPendingEvent0, vmm::kHvEventPending | 6 << vmm::kHvEventVectorShift), Success(1));
      EXPECT_EQ(Low(Name::kPendingEvent0), vmm::kHvEventPending | 6 << vmm::kHvEventVectorShift);
      EXPECT_EQ(SetLow(Name::kPendingEvent0, 0), Success(1));
    });
  });
  EXPECT_FALSE(fault.raised());
}

TEST(EventsThatNobodyTakes) {
  InVtl1([] {
    for (const uint64_t vector : {uint64_t{2}, uint64_t{15}, uint64_t{20}, uint64_t{22}, uint64_t{32}, uint64_t{0x113}}) {
      const Context context("vector", vector);
      EXPECT_EQ(SetLow(Name::kPendingEvent0, vmm::kHvEventPending | vector << vmm::kHvEventVectorShift),
                Answer(HvStatus::kInvalidRegisterValue));
    }
    // An error code where there is none, and none where there is one; not an exception.
    EXPECT_EQ(SetLow(Name::kPendingEvent0, vmm::kHvEventPending | vmm::kHvEventDeliverErrorCode | 6 << vmm::kHvEventVectorShift),
              Answer(HvStatus::kInvalidRegisterValue));
    EXPECT_EQ(SetLow(Name::kPendingEvent0, vmm::kHvEventPending | 13 << vmm::kHvEventVectorShift),
              Answer(HvStatus::kInvalidRegisterValue));
    EXPECT_EQ(SetLow(Name::kPendingEvent0, vmm::kHvEventPending | 5 << vmm::kHvEventTypeShift | 0x40 << vmm::kHvEventVectorShift),
              Answer(HvStatus::kInvalidRegisterValue));
    EXPECT_EQ(SetRegister(Name::kPendingEvent0, {0, 0}), Answer(HvStatus::kInvalidParameter));  // its own
  });
  EXPECT_EQ(SetRegister(Name::kPendingEvent0, {0, 0}), Answer(HvStatus::kInvalidParameter));
}

TEST(ALevelsOwnStateIsNotReachedSo) {
  const auto deny = [] {
    for (const Name name : {Name::kRip, Name::kRflags, Name::kCr0, Name::kCr3, Name::kEfer, Name::kCs, Name::kIdtr, Name::kLstar}) {
      const Context context("name", static_cast<uint64_t>(name));
      HvRegisterValue value{};
      EXPECT_EQ(GetRegister(name, value), Answer(HvStatus::kAccessDenied));
      EXPECT_EQ(SetRegister(name, {0, 0}), Answer(HvStatus::kAccessDenied));
    }
  };
  deny();
  InVtl1(deny);
  // VTL0 reaches nothing of VTL1's.
  HvRegisterValue value{};
  for (const Name name : {Name::kRip, Name::kVsmPartitionConfig, Name::kVsmVina, Name::kGuestOsId, Name::kSint0}) {
    EXPECT_EQ(GetRegister(name, value, {.input_vtl = OfVtl(1)}), Answer(HvStatus::kAccessDenied));
    EXPECT_EQ(SetRegister(name, {0, 0}, {.input_vtl = OfVtl(1)}), Answer(HvStatus::kAccessDenied));
  }
}

TEST(ValuesThatNoProcessorTakes) {
  InVtl1([] {
    struct {
      Name name;
      uint64_t low;
      HvStatus status;
    } const rows[] = {
        {Name::kRip, uint64_t{1} << 60, HvStatus::kInvalidRegisterValue},
        {Name::kRflags, 0, HvStatus::kInvalidRegisterValue},
        {Name::kCr0, 0x8000'0000, HvStatus::kInvalidRegisterValue},  // paging in real mode
        {Name::kCr4, uint64_t{1} << 40, HvStatus::kInvalidRegisterValue},
        {Name::kCr8, 16, HvStatus::kInvalidRegisterValue},
        {Name::kEfer, uint64_t{1} << 40, HvStatus::kInvalidRegisterValue},
        {Name::kPat, 2, HvStatus::kInvalidRegisterValue},
        {Name::kLstar, uint64_t{1} << 50, HvStatus::kInvalidRegisterValue},
        {Name::kApicBase, 0x1000, HvStatus::kInvalidParameter},  // may be written, not changed
        {Name::kVsmVpStatus, 0, HvStatus::kInvalidParameter},
        {Name::kVsmCapabilities, 0, HvStatus::kInvalidParameter},
        {static_cast<Name>(0x00de'ad00), 0, HvStatus::kInvalidParameter},
    };
    for (const auto& row : rows) {
      const Context context("name", static_cast<uint64_t>(row.name));
      EXPECT_EQ(SetLow(row.name, row.low), Answer(row.status));
    }
    HvRegisterValue value{};
    EXPECT_EQ(GetRegister(Name::kRip, value, {.input_vtl = OfVtl(2)}), Answer(HvStatus::kAccessDenied));
    EXPECT_EQ(GetRegister(Name::kRip, value, {.input_vtl = 0x30}), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(GetRegister(Name::kRip, value, {.vp = CpuCount(), .input_vtl = OfVtl(0)}), Answer(HvStatus::kInvalidVpIndex));
    EXPECT_EQ(GetRegister(Name::kRip, value, {.input_vtl = OfVtl(0), .partition = 5}), Answer(HvStatus::kAccessDenied));
    EXPECT_EQ(GetRegister(Name::kRip, value, {.input_vtl = OfVtl(0), .reserved = 1}), Answer(HvStatus::kInvalidParameter));
  });
}

// Another processor's, whose VTL0 runs meanwhile.
TEST(OtherProcessorsVtl0IsReachedToo) {
  if (CpuCount() < 2) SKIP("needs two processors");
  const uint32_t cpu = CpuCount() - 1;
  OnCpu(cpu, [] { WriteMsr(0xc000'0082, 0x0bbb'0000); });
  InVtl1([&] {
    const RegisterOf other{.vp = cpu, .input_vtl = OfVtl(0)};
    EXPECT_EQ(RegisterValue(Name::kLstar, other), 0x0bbb'0000u);
    EXPECT_EQ(SetRegister(Name::kLstar, {0x0ccc'0000, 0}, other), Success(1));
    EXPECT_EQ(RegisterValue(Name::kVsmVpStatus, {.vp = cpu}) & 0xf, 0u);  // its VTL0 is active
  });
  uint64_t lstar = 0;
  OnCpu(cpu, [&] { lstar = ReadMsr(0xc000'0082); });
  EXPECT_EQ(lstar, 0x0ccc'0000u);
}

TEST(SeveralRegistersInOneCall) {
  InVtl1([] {
    Block().Put(kVtl0.header()).Put(Name::kCr3).Put(Name::kEfer).Put(Name::kRip).Put(Name::kCr0);
    EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 4}), Success(4));
    EXPECT_EQ(Output()[0], Low(Name::kCr3));
    Block().Put(kVtl0.header()).Put(Name::kCr3).Put(static_cast<Name>(0x00de'ad00)).Put(Name::kRip).Put(Name::kCr0);
    EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 4}), Answer(HvStatus::kInvalidParameter, 1));
  });
}

}  // namespace
}  // namespace guest
