// Hypercalls from 32-bit code: other registers for the same values, and no output in registers.
#include "tests/guests/hypercalls.h"
#include "devices/hyperv/partition/hypercall_page_layout.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/modes.h"
#include "tests/guests/runtime/registers.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

using vmm::HvRegisterName;
using vmm::HvVpRegistersInput;
using vmm::kHvPartitionIdSelf;

constexpr Control kSpin{.code = HypercallCode::kNotifyLongSpinWait};
constexpr Control kQuery{.code = HypercallCode::kExtQueryCapabilities};
constexpr uint32_t kSelf = 0xffff'fffe;

uint64_t CallFast32(Control control, uint64_t first = 0, uint64_t second = 0) {
  control.fast = true;
  return CallRaw32(control.value(), first, second);
}
uint64_t CallMemory32(const Control& control) {
  const Parameters& pages = ThisParameters();
  for (size_t i = 0; i < kPageBytes / 8; ++i) static_cast<volatile uint64_t*>(pages.output)[i] = kUntouched;
  return CallRaw32(control.value(), GpaOf(pages.input), GpaOf(pages.output));
}

void PutNames(uint32_t count, HvRegisterName name) {
  Block block;
  block.Put(HvVpRegistersInput{.partition_id = kHvPartitionIdSelf, .vp_index = kSelf, .target_vtl = 0, .reserved = {}});
  for (uint32_t i = 0; i < count; ++i) block.Put(name);
}

TEST(CallsWorkFrom32BitCodeOnEveryProcessor) {
  EnableHypercalls();
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    EXPECT_EQ(CallFast32(kSpin, 5), Success());
    EXPECT_EQ(CallMemory32(kQuery), Success());
    EXPECT_EQ(Output()[0], 0u);
    EXPECT_EQ(Output()[1], kUntouched);
  });
}

TEST(TheResultIsInEdxAndEaxOnly) {
  const uint64_t control = Control{.code = HypercallCode::kNotifyLongSpinWait, .fast = true}.value();
  Registers32 registers{.eax = static_cast<uint32_t>(control), .ebx = 0xb, .ecx = 0xc, .edx = 0, .esi = 0x51, .edi = 0xd1};
  EXPECT_FALSE(CallIn32BitMode(HypercallPage(), registers).raised());
  EXPECT_EQ(registers.eax, 0u);
  EXPECT_EQ(registers.ebx, 0xbu);
  EXPECT_EQ(registers.ecx, 0xcu);
  EXPECT_EQ(registers.edx, 0u);
  EXPECT_EQ(registers.esi, 0x51u);
  EXPECT_EQ(registers.edi, 0xd1u);
}

TEST(TheInputValueIsEdxAndEax) {
  EXPECT_EQ(CallFast32({.code = static_cast<HypercallCode>(0xffff)}), Answer(HvStatus::kInvalidHypercallCode));
  // In EDX: a rep count, a rep start, reserved bits.
  EXPECT_EQ(CallFast32({.code = HypercallCode::kNotifyLongSpinWait, .reps = 1}), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(CallFast32({.code = HypercallCode::kNotifyLongSpinWait, .start = 1}), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(CallFast32({.code = HypercallCode::kNotifyLongSpinWait, .raw = uint64_t{1} << 63}),
            Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(CallFast32({.code = HypercallCode::kGetPartitionId}), Answer(HvStatus::kAccessDenied));
}

TEST(ParametersAreEbxEcxAndEdiEsi) {
  // SignalEvent's reserved word is the upper half of EBX.
  EXPECT_EQ(CallFast32({.code = HypercallCode::kSignalEvent}, 0xdead'beef), Answer(HvStatus::kInvalidConnectionId));
  EXPECT_EQ(CallFast32({.code = HypercallCode::kSignalEvent}, uint64_t{1} << 48), Answer(HvStatus::kInvalidParameter));
  // An address above 4 GiB is not cut.
  const uint64_t input = GpaOf(ThisParameters().input);
  EXPECT_EQ(CallRaw32(kSpin.value(), input, 0), Success());
  EXPECT_EQ(CallRaw32(kSpin.value(), input | uint64_t{1} << 40, 0), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(CallRaw32(kSpin.value(), input + 4, 0), Answer(HvStatus::kInvalidAlignment));
  EXPECT_EQ(CallRaw32(kQuery.value(), 0, input | uint64_t{1} << 40), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(CallRaw32(kQuery.value(), 0, input + 4), Answer(HvStatus::kInvalidAlignment));
}

// The second parameter's lower half is in ESI: an IPI by fast call names its processors there.
TEST(AFastIpiArrives) {
  constexpr uint8_t kVector = 0x61;
  CountInterrupts(kVector, Eoi::kApic);
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    const Context context("cpu", cpu);
    const uint64_t before = InterruptCountOf(cpu, kVector);
    EXPECT_EQ(CallFast32({.code = HypercallCode::kSendSyntheticClusterIpi}, kVector, uint64_t{1} << cpu), Success());
    while (InterruptCountOf(cpu, kVector) == before) Pause();
    EXPECT_EQ(InterruptCountOf(cpu, kVector), before + 1);
  }
}

TEST(XmmInputIsTaken) {
  // A flush of all: address space, flags, then the mask in XMM0 and one element.
  constexpr uint64_t kWords[12] = {0, 0x1000};
  LoadXmm(kWords);
  EXPECT_EQ(CallFast32({.code = HypercallCode::kFlushVirtualAddressList, .reps = 1}, 0, vmm::kHvFlushAllProcessors), Success(1));
  EXPECT_EQ(CallFast32({.code = HypercallCode::kFlushVirtualAddressList, .reps = 1}, 0, 0),
            Answer(HvStatus::kInvalidParameter));  // the mask in XMM0 is empty
  uint64_t after[12];
  StoreXmm(after);
  uint64_t changed = 0;
  for (size_t i = 0; i < 12; ++i) changed += after[i] != kWords[i];
  EXPECT_EQ(changed, 0u);
}

TEST(FastOutputIsRefused) {
  EXPECT_EQ(CallFast32(kQuery), Answer(HvStatus::kInvalidHypercallInput));
  uint64_t names[12] = {static_cast<uint64_t>(HvRegisterName::kVpIndex)};
  LoadXmm(names);
  EXPECT_EQ(CallFast32({.code = HypercallCode::kGetVpRegisters, .reps = 1}, kHvPartitionIdSelf, kSelf),
            Answer(HvStatus::kInvalidHypercallInput));
}

TEST(LongCallsAreContinued) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    PutNames(100, HvRegisterName::kVpIndex);
    EXPECT_EQ(CallMemory32({.code = HypercallCode::kGetVpRegisters, .reps = 100}), Success(100));
    uint64_t wrong = 0;
    for (size_t i = 0; i < 100; ++i) wrong += Output()[2 * i] != ThisCpuNumber();
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(Output()[200], kUntouched);
    EXPECT_EQ(CallMemory32({.code = HypercallCode::kGetVpRegisters, .reps = 100, .start = 99}), Success(100));
    EXPECT_EQ(Output()[196], kUntouched);
  });
}

TEST(VtlCallAndReturnAreUndefinedWithOneLevel) {
  for (const uint32_t offset : {vmm::kHvVtlCall32Offset, vmm::kHvVtlReturn32Offset}) {
    const Context context("offset", offset);
    Registers32 registers{};
    const Fault fault = CallIn32BitMode(HypercallPage() + offset, registers);
    EXPECT_EQ(fault.vector, kUndefinedOpcode);
    EXPECT_EQ(fault.rip / kPageBytes, HypercallPage() / kPageBytes);
  }
}

}  // namespace
}  // namespace guest
