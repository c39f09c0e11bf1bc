// GetVpRegisters and SetVpRegisters: a processor's own registers and those of others, also of all at once.
#include "tests/guests/hypercalls.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using vmm::HvRegisterName;
using vmm::HvRegisterValue;
using vmm::HvSetVpRegistersElement;
using vmm::HvVpRegistersInput;
using vmm::kHvPartitionIdSelf;

constexpr uint32_t kSelf = 0xffff'fffe;
constexpr uint32_t kAny = 0xffff'ffff;

constexpr HvVpRegistersInput Of(uint32_t vp, uint8_t input_vtl = 0, uint64_t partition = kHvPartitionIdSelf) {
  return {.partition_id = partition, .vp_index = vp, .target_vtl = input_vtl, .reserved = {}};
}

uint64_t Get(const HvVpRegistersInput& of, HvRegisterName name) {
  Block().Put(of).Put(name);
  return CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 1});
}
uint64_t Set(const HvVpRegistersInput& of, HvRegisterName name, uint64_t low) {
  Block().Put(of).Put(HvSetVpRegistersElement{.name = name, .reserved = {}, .value = {low, 0}});
  return CallMemory({.code = HypercallCode::kSetVpRegisters, .reps = 1});
}

constexpr HvRegisterName Number(uint32_t number) { return static_cast<HvRegisterName>(number); }

TEST(OwnRegistersAreThoseOfTheMsrs) {
  EnableHypercalls();
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (const uint32_t vp : {kSelf, ThisCpuNumber()}) {
      EXPECT_EQ(Get(Of(vp), HvRegisterName::kVpIndex), Success(1));
      EXPECT_EQ(Output()[0], ThisCpuNumber());
      EXPECT_EQ(Output()[1], 0u);
      EXPECT_EQ(Get(Of(vp), HvRegisterName::kGuestOsId), Success(1));
      EXPECT_EQ(Output()[0], kOurGuestOsId);
    }
    EXPECT_EQ(Get(Of(kSelf), HvRegisterName::kHypercall), Success(1));
    EXPECT_EQ(Output()[0], HypercallPage() | vmm::kHvOverlayEnable);
    EXPECT_EQ(Get(Of(kSelf), HvRegisterName::kSversion), Success(1));
    EXPECT_EQ(Output()[0], vmm::kHvSynicVersion);
    EXPECT_EQ(Get(Of(kSelf), HvRegisterName::kSint15), Success(1));
    EXPECT_EQ(Output()[0], vmm::kHvSintReset);
    // Time goes on.
    EXPECT_EQ(Get(Of(kSelf), HvRegisterName::kTimeRefCount), Success(1));
    const uint64_t time = Output()[0];
    EXPECT_EQ(Get(Of(kSelf), HvRegisterName::kTimeRefCount), Success(1));
    EXPECT_GE(Output()[0], time);
  });
}

TEST(CpuidRegistersAreTheLeaves) {
  constexpr struct {
    HvRegisterName name;
    uint32_t leaf;
  } kLeaves[] = {{HvRegisterName::kHypervisorVersion, 0x4000'0002},
                 {HvRegisterName::kPrivilegesAndFeatures, 0x4000'0003},
                 {HvRegisterName::kFeatures, 0x4000'0004},
                 {HvRegisterName::kLimits, 0x4000'0005}};
  for (const auto& row : kLeaves) {
    const Context context("leaf", row.leaf);
    const CpuidResult leaf = Cpuid(row.leaf);
    EXPECT_EQ(Get(Of(kSelf), row.name), Success(1));
    EXPECT_EQ(Output()[0], uint64_t{leaf.ebx} << 32 | leaf.eax);
    EXPECT_EQ(Output()[1], uint64_t{leaf.edx} << 32 | leaf.ecx);
    EXPECT_EQ(Set(Of(kSelf), row.name, 0), Answer(HvStatus::kInvalidParameter));
  }
}

TEST(WhatIsSetIsRead) {
  EXPECT_EQ(Set(Of(kSelf), Number(0x000a'0003), 0x1'0055), Success(1));  // SINT3, masked
  EXPECT_EQ(ReadMsr(vmm::kHvMsrSint0 + 3), 0x1'0055u);
  EXPECT_EQ(Set(Of(kSelf), Number(0x000a'0003), vmm::kHvSintReset), Success(1));
  EXPECT_EQ(ReadMsr(vmm::kHvMsrSint0 + 3), vmm::kHvSintReset);
  EXPECT_EQ(Set(Of(kSelf), HvRegisterName::kCrashP0, 0x77), Success(1));
  EXPECT_EQ(Get(Of(kSelf), HvRegisterName::kCrashP0), Success(1));
  EXPECT_EQ(Output()[0], 0x77u);
}

TEST(WhatCannotBeSetIsRefused) {
  EXPECT_EQ(Set(Of(kSelf), HvRegisterName::kVpIndex, 5), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(Set(Of(kSelf), HvRegisterName::kTimeRefCount, 5), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(Set(Of(kSelf), HvRegisterName::kSversion, 5), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(Set(Of(kSelf), HvRegisterName::kTscFrequency, 5), Answer(HvStatus::kInvalidParameter));
  // An unmasked SINT with a vector below 16.
  EXPECT_EQ(Set(Of(kSelf), Number(0x000a'0003), 0x05), Answer(HvStatus::kInvalidRegisterValue));
  EXPECT_EQ(ReadMsr(vmm::kHvMsrSint0 + 3), vmm::kHvSintReset);
  // Reserved words of an element.
  Block().Put(Of(kSelf)).Put(HvSetVpRegistersElement{.name = HvRegisterName::kCrashP0, .reserved = {0, 1, 0}, .value = {8, 0}});
  EXPECT_EQ(CallMemory({.code = HypercallCode::kSetVpRegisters, .reps = 1}), Answer(HvStatus::kInvalidParameter));
}

TEST(ArchitecturalRegistersAreDenied) {
  for (const HvRegisterName name : {HvRegisterName::kRax, HvRegisterName::kRip, HvRegisterName::kRflags, HvRegisterName::kXmm0,
                                    HvRegisterName::kCr0, HvRegisterName::kCr3, HvRegisterName::kDr7, HvRegisterName::kCs,
                                    HvRegisterName::kIdtr, HvRegisterName::kEfer, HvRegisterName::kLstar,
                                    HvRegisterName::kPendingInterruption}) {
    const Context context("name", static_cast<uint64_t>(name));
    EXPECT_EQ(Get(Of(kSelf), name), Answer(HvStatus::kAccessDenied));
    EXPECT_EQ(Set(Of(kSelf), name, 0), Answer(HvStatus::kAccessDenied));
  }
  EXPECT_EQ(Output()[0], kUntouched);
}

TEST(UnknownNamesAreRefused) {
  for (const uint32_t name : {0x0000'00ffu, 0x0009'ffffu, 0x000d'0002u, 0x0010'0000u, 0xffff'ffffu}) {
    const Context context("name", name);
    EXPECT_EQ(Get(Of(kSelf), Number(name)), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(Set(Of(kSelf), Number(name), 0), Answer(HvStatus::kInvalidParameter));
  }
}

TEST(TargetsAreCheckedInTheirOrder) {
  const auto get = [](HvVpRegistersInput of) { return Get(of, Number(0xffff'ffff)); };  // a bad name comes last
  EXPECT_EQ(get(Of(kSelf, 0, 2)), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(get(Of(99, 0xff, 2)), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(get(Of(CpuCount())), Answer(HvStatus::kInvalidVpIndex));
  EXPECT_EQ(get(Of(kAny)), Answer(HvStatus::kInvalidVpIndex));
  EXPECT_EQ(get(Of(0x8000'0000, 0xff)), Answer(HvStatus::kInvalidVpIndex));
  EXPECT_EQ(get(Of(kSelf, 0x20)), Answer(HvStatus::kInvalidParameter));  // reserved bits of the level
  EXPECT_EQ(get(Of(kSelf, 0x11)), Answer(HvStatus::kAccessDenied));      // level 1
  EXPECT_EQ(get(Of(kSelf, 0x12)), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(get(Of(kSelf, 0x13)), Answer(HvStatus::kInvalidParameter));  // no such level
  // Level 0 by name, and a number that is not to be used.
  EXPECT_EQ(Get(Of(kSelf, 0x10), HvRegisterName::kVpIndex), Success(1));
  EXPECT_EQ(Get(Of(kSelf, 0x01), HvRegisterName::kVpIndex), Success(1));
  HvVpRegistersInput reserved = Of(kSelf);
  reserved.reserved[2] = 1;
  EXPECT_EQ(Get(reserved, HvRegisterName::kVpIndex), Answer(HvStatus::kInvalidParameter));
  // The partition by its number: 1.
  EXPECT_EQ(Get(Of(kSelf, 0, 1), HvRegisterName::kVpIndex), Success(1));
}

// --- Others

// Each asks each about it, in every order, idle ones that halt included.
TEST(RegistersOfHaltedProcessorsAreReached) {
  OnEachCpu([] {
    for (uint32_t vp = 0; vp < CpuCount(); ++vp) {
      const Context context("vp", vp);
      EXPECT_EQ(Get(Of(vp), HvRegisterName::kVpIndex), Success(1));
      EXPECT_EQ(Output()[0], vp);
    }
  });
  if (CpuCount() == 1) return;
  const uint32_t last = CpuCount() - 1;
  EXPECT_EQ(Set(Of(last), Number(0x000a'0004), 0x1'0066), Success(1));
  OnCpu(last, [] { EXPECT_EQ(ReadMsr(vmm::kHvMsrSint0 + 4), 0x1'0066u); });
  EXPECT_EQ(ReadMsr(vmm::kHvMsrSint0 + 4), vmm::kHvSintReset);  // not here
  EXPECT_EQ(Set(Of(last), Number(0x000a'0004), 0x07), Answer(HvStatus::kInvalidRegisterValue));
  EXPECT_EQ(Set(Of(last), Number(0x000a'0004), vmm::kHvSintReset), Success(1));
  EXPECT_EQ(Get(Of(last), HvRegisterName::kRax), Answer(HvStatus::kAccessDenied));
}

// No exit of its own, interrupts off: it must be brought out of the guest, and put back as it was.
TEST(RegistersOfSpinningProcessorsAreReached) {
  if (CpuCount() == 1) SKIP("one processor");
  Atomic<uint32_t> started;
  Atomic<bool> stop;
  Atomic<uint64_t> broken;
  const auto spin = [&] {
    const InterruptsOff off;
    started.Add(1);
    uint64_t a = 0x1111, b = 0x2222;
    while (!stop.Load()) {
      // What would be lost if its registers were not put back.
      asm volatile("addq $1, %0; addq $1, %1" : "+r"(a), "+r"(b));
      if (b - a != 0x1111) broken.Add(1);
    }
  };
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) StartOnCpu(cpu, spin);
  EXPECT_TRUE(WaitFor([&] { return started.Load() == CpuCount() - 1; }));
  for (uint32_t round = 0; round < 3; ++round) {
    for (uint32_t vp = 1; vp < CpuCount(); ++vp) {
      const Context context("vp", vp);
      EXPECT_EQ(Get(Of(vp), HvRegisterName::kVpIndex), Success(1));
      EXPECT_EQ(Output()[0], vp);
    }
  }
  stop.Store(true);
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) WaitForCpu(cpu);
  EXPECT_EQ(broken.Load(), 0u);
}

// All ask all, at the same time: whoever waits for an answer answers others meanwhile.
TEST(AllAskAllAtOnce) {
  constexpr int kRounds = 20;
  Atomic<uint64_t> wrong;
  Atomic<uint32_t> ready;
  OnAllCpus([&] {
    const uint32_t self = ThisCpuNumber();
    Block block;
    block.Put(Of(0));
    for (int i = 0; i < 20; ++i) block.Put(HvRegisterName::kVpIndex);  // more than are done at once
    auto* const header = reinterpret_cast<volatile HvVpRegistersInput*>(ThisParameters().input);
    ready.Add(1);
    while (ready.Load() < CpuCount()) Pause();
    for (int round = 0; round < kRounds; ++round) {
      for (uint32_t i = 1; i <= CpuCount(); ++i) {
        const uint32_t vp = (self + i) % CpuCount();
        header->vp_index = vp;
        wrong.Add(CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 20}) != Success(20));
        for (size_t rep = 0; rep < 20; ++rep) wrong.Add(Output()[2 * rep] != vp || Output()[2 * rep + 1] != 0);
      }
    }
  });
  EXPECT_EQ(wrong.Load(), 0u);
}

TEST(AllSetEachOthersRegistersAtOnce) {
  constexpr uint64_t kRounds = 20;
  Atomic<uint64_t> wrong;
  Atomic<uint32_t> ready;
  OnAllCpus([&] {
    const uint32_t self = ThisCpuNumber();
    const uint32_t other = (self + 1) % CpuCount();
    ready.Add(1);
    while (ready.Load() < CpuCount()) Pause();
    // SINT5 of my neighbour is mine alone to write.
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t value = vmm::kHvSintMasked | (0x20 + round);
      wrong.Add(Set(Of(other), Number(0x000a'0005), value) != Success(1));
      wrong.Add(Get(Of(other), Number(0x000a'0005)) != Success(1));
      wrong.Add(Output()[0] != value);
    }
  });
  EXPECT_EQ(wrong.Load(), 0u);
  OnEachCpu([] {
    EXPECT_EQ(ReadMsr(vmm::kHvMsrSint0 + 5), vmm::kHvSintMasked | (0x20 + kRounds - 1));
    WriteMsr(vmm::kHvMsrSint0 + 5, vmm::kHvSintReset);
  });
}

}  // namespace
}  // namespace guest
